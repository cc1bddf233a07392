"""Evaluation of uplift: whether contact brings customers back, which ones, and whether the campaigns can show it.

All metrics are of cross-fitted models, which were not fitted on the customers in question, with intervals over
customers. The verdict is `evidence` only where contact is shown to help the customers with the highest predicted
effect, and more than the others, and where a placebo test on the days before contact shows no effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from customers.scores.uplift_result import EVIDENCE, NOT_ENOUGH_EVIDENCE
from models.uplift.cross_fitting import CrossFittedScores
from models.uplift.treatment_data import TreatmentData
from training.evaluation import qini
from training.evaluation.bootstrap import BootstrapDraws, Floats
from training.evaluation.qini import BootstrapEstimate

#: The learner that ranks customers; the others are reported beside it.
LEARNER = "x"
#: Above this AUC of predicting contact, also among rows with overlap, too few customers can be compared.
MAX_PROPENSITY_AUC = 0.9
#: Outcomes above this quantile are set to it: a few huge baskets would decide the mean.
WINSOR_QUANTILE = 0.995
DRAWS = 500


@dataclass(frozen=True)
class UpliftEvaluation:
    """Evaluation of one outcome: its metrics, and the Qini curve of every learner.

    Gains and effects are per customer, in the unit of the outcome. `draws` are the bootstrap draws of all intervals.
    """

    metrics: dict[str, BootstrapEstimate]
    curves: pd.DataFrame
    contacted: int
    others: int
    draws: BootstrapDraws


@dataclass(frozen=True)
class UpliftVerdict:
    """`evidence` or `not enough evidence`, and the reasons in words."""

    verdict: str
    why: list[str] = field(default_factory=list)

    @property
    def is_evidence(self) -> bool:
        """Whether the verdict is `evidence`."""
        return self.verdict == EVIDENCE


def winsorise(outcome: Floats) -> Floats:
    """Amounts (n,) with values above the quantile WINSOR_QUANTILE of positive amounts set to that quantile."""
    spent = outcome[outcome > 0]
    return np.minimum(outcome, np.quantile(spent, WINSOR_QUANTILE)) if len(spent) else outcome


def evaluate_uplift(
    treatment_data: TreatmentData,
    cross_fitted: CrossFittedScores,
    *,
    shared_draws: BootstrapDraws | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> UpliftEvaluation:
    """Every metric of one outcome, over the rows with overlap between contacted and other customers.

    `shared_draws` are the draws of another evaluation that this one is to be compared with.
    """
    is_comparable, is_contacted = cross_fitted.has_overlap, treatment_data.contacted
    shared_draws = shared_draws or BootstrapDraws.from_customers(
        treatment_data.customers[is_comparable], draws=draws, seed=seed
    )
    weight, gain = (
        qini.draw_weights(shared_draws, treatment_data.customers[is_comparable]),
        cross_fitted.dr_scores[is_comparable],
    )
    metrics = {
        "average": qini.weighted_mean(gain, weight),
        "plain_difference": qini.mean_difference(
            treatment_data.outcome[is_comparable], is_contacted[is_comparable], weight
        ),
        "telling": BootstrapEstimate(
            qini.within_mailing_auc(treatment_data, cross_fitted.propensity, np.ones(len(is_comparable), dtype=bool))
        ),
        "telling_kept": BootstrapEstimate(
            qini.within_mailing_auc(treatment_data, cross_fitted.propensity, is_comparable)
        ),
        "outside": BootstrapEstimate(float(1 - is_comparable.mean())),
    }
    curves = []
    for learner, effect in cross_fitted.effects.items():
        ranking = qini.order_by_effect(effect[is_comparable], treatment_data.mailing[is_comparable])
        curve_metrics, curve = qini.qini_curve(gain[ranking], weight.select_rows(ranking))
        metrics |= {f"{learner}.{name}": value for name, value in curve_metrics.items()}
        curves.append(curve.assign(learner=learner))
    contacted, others = int((is_comparable & is_contacted).sum()), int((is_comparable & ~is_contacted).sum())
    return UpliftEvaluation(metrics, pd.concat(curves, ignore_index=True), contacted, others, shared_draws)


def decide_verdict(
    evaluation: UpliftEvaluation, placebo: UpliftEvaluation | None, *, learner: str = LEARNER
) -> UpliftVerdict:
    """The verdict that these metrics support.

    `placebo` is the same evaluation of the days before contact, over the same draws and with customers in the order of
    the effect that is predicted for the days after contact.
    """
    doubts = [*_overlap_doubts(evaluation), *_effect_doubts(evaluation, learner)]
    doubts += [] if doubts else _placebo_doubts(evaluation, placebo, learner)
    if doubts:
        return UpliftVerdict(NOT_ENOUGH_EVIDENCE, doubts)
    return UpliftVerdict(EVIDENCE, [_evidence_text(evaluation, learner)])


def _overlap_doubts(evaluation: UpliftEvaluation) -> list[str]:
    """Doubts whether contacted customers have others to be compared with."""
    propensity_auc = evaluation.metrics["telling_kept"].value
    if propensity_auc <= MAX_PROPENSITY_AUC:
        return []
    return [
        f"contact can be predicted from the features (AUC {propensity_auc:.2f}): leave some customers of each kind out "
        "of the next campaign, drawn by lot"
    ]


def _effect_doubts(evaluation: UpliftEvaluation, learner: str) -> list[str]:
    """Doubts whether contact has an effect, and whether it is larger for some customers than for others."""
    average, area, first = (evaluation.metrics[name] for name in ("average", f"{learner}.qini", f"{learner}.first"))
    if area.low > 0 and first.low > 0:
        return []
    doubt_about_first = "customers with the highest predicted effect are not known to be helped"
    doubts = [
        doubt_about_first if area.low > 0 else "customers whom contact helps more than others cannot be predicted"
    ]
    if average.low <= 0 <= average.high:
        doubts.append("on average contact is not known to change anything")
    return doubts


def _placebo_doubts(evaluation: UpliftEvaluation, placebo: UpliftEvaluation | None, learner: str) -> list[str]:
    """Doubts because contacted customers, or those with the highest predicted effect, differed before contact.

    Customers who were chosen for something that no feature shows had it a month earlier too; without this check,
    letters without effect were believed in 4 of 20 simulated shops that had chosen so. Customers who were chosen for
    what they had just done differ too, and are refused as well: only a random choice can separate the two.
    """
    if placebo is None:
        return ["too few customers are known from before they were contacted to check whether they were alike"]
    average, first, area = (placebo.metrics[name] for name in ("average", f"{learner}.first", f"{learner}.qini"))
    lots = "leave some of those chosen out of the next campaign, drawn by lot"
    if max(average.low, first.low, area.low) > 0:
        return [f"those who were contacted had done better than others like them before it too: {lots}"]
    if average.high < 0 and evaluation.metrics[f"{learner}.first"].low <= -average.value:
        return [f"those who were contacted had done worse before, and may only be back to their usual: {lots}"]
    return []


def _evidence_text(evaluation: UpliftEvaluation, learner: str) -> str:
    first, rest = (evaluation.metrics[f"{learner}.{name}"] for name in ("first", "rest"))
    return (
        f"the third with the highest predicted effect gain {first.value:+.3g} [{first.low:.3g}, {first.high:.3g}] by "
        f"contact, the others {rest.value:+.3g} [{rest.low:.3g}, {rest.high:.3g}]"
    )
