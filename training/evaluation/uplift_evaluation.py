"""Uplift on trial: does contact bring customers back, whom, and is what the shop's campaigns say to be believed?

Everything is judged on customers whom the models had not seen, with intervals by customers. The verdict is
`evidence` only where contact is known to help those it is foretold to help most, and more than the others, and
where it seems to have changed nothing in the days before it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from customers.persuasion import EVIDENCE, TOO_LITTLE
from models.trial import Trial
from models.unseen import Tried
from training import qini
from training.intervals import Draws, Floats
from training.qini import Figure

#: Who ranks customers; the others stand beside it.
LEARNER = "x"
#: Where contact is foretold this well, also among customers who can be compared, there is little to compare.
MOST_TELLING = 0.9
#: Outcomes above this quantile count as much as it: a few huge baskets would decide the mean.
WINSOR = 0.995
DRAWS = 500


@dataclass(frozen=True)
class Judged:
    """What was found of one outcome: its figures, and the Qini curve of every learner.

    Gains and effects are in the outcome's own unit, a customer. `draws` are those of all figures' intervals.
    """

    figures: dict[str, Figure]
    curves: pd.DataFrame
    contacted: int
    others: int
    draws: Draws


@dataclass(frozen=True)
class Verdict:
    """`evidence` or `not enough evidence`, and why in words."""

    verdict: str
    why: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return self.verdict == EVIDENCE


def winsorised(outcome: Floats) -> Floats:
    """Amounts of which the largest count as the quantile WINSOR of what was spent at all."""
    spent = outcome[outcome > 0]
    return np.minimum(outcome, np.quantile(spent, WINSOR)) if len(spent) else outcome


def judged(trial: Trial, seen: Tried, *, drawn: Draws | None = None, draws: int = DRAWS, seed: int = 0) -> Judged:
    """Every figure of one outcome over the rows that can be compared; `drawn`: the draws of a finding to compare."""
    kept, reached = seen.kept, trial.contacted
    drawn = drawn or Draws.of(trial.customers[kept], draws=draws, seed=seed)
    weight, gain = qini.weights(drawn, trial.customers[kept]), seen.gain[kept]
    figures = {
        "average": qini.mean(gain, weight),
        "plain_difference": qini.difference(trial.outcome[kept], reached[kept], weight),
        "telling": Figure(qini.within_auc(trial, seen.chance, np.ones(len(kept), dtype=bool))),
        "telling_kept": Figure(qini.within_auc(trial, seen.chance, kept)),
        "outside": Figure(float(1 - kept.mean())),
    }
    curves = []
    for learner, effect in seen.effects.items():
        place = qini.order(effect[kept], trial.mailing[kept])
        found, curve = qini.curve(gain[place], weight.rows(place))
        figures |= {f"{learner}.{name}": value for name, value in found.items()}
        curves.append(curve.assign(learner=learner))
    contacted, others = int((kept & reached).sum()), int((kept & ~reached).sum())
    return Judged(figures, pd.concat(curves, ignore_index=True), contacted, others, drawn)


def verdict(found: Judged, placebo: Judged | None, *, learner: str = LEARNER) -> Verdict:
    """What these figures allow to be said.

    `placebo` is the same question asked of the days before contact, over the same draws and with customers in the
    order of what contact is foretold to add afterwards.
    """
    doubts = [*_unlike(found), *_unmoved(found, learner)]
    doubts += [] if doubts else _already(found, placebo, learner)
    if doubts:
        return Verdict(TOO_LITTLE, doubts)
    return Verdict(EVIDENCE, [_said(found, learner)])


def _unlike(found: Judged) -> list[str]:
    """Doubts about whether those who were contacted have anybody to be compared with."""
    telling = found.figures["telling_kept"].value
    if telling <= MOST_TELLING:
        return []
    return [
        f"who was contacted could be told beforehand (AUC {telling:.2f}): leave some of each kind out of the next "
        "campaign, drawn by lot"
    ]


def _unmoved(found: Judged, learner: str) -> list[str]:
    """Doubts about whether contact does anything, and whom it helps more than others."""
    average, area, first = (found.figures[name] for name in ("average", f"{learner}.qini", f"{learner}.first"))
    if area.low > 0 and first.low > 0:
        return []
    ranked = "those it is foretold to help most are not known to be helped"
    doubts = [ranked if area.low > 0 else "whom contact helps more than others cannot be foretold"]
    if average.low <= 0 <= average.high:
        doubts.append("on average it is not known to change anything")
    return doubts


def _already(found: Judged, placebo: Judged | None, learner: str) -> list[str]:
    """Doubts because those who were contacted, or foretold to be helped, had already differed before.

    Whoever was chosen for something that no feature shows had it a month earlier too; without this check, letters
    that did nothing were believed in 4 of 20 simulated shops that had chosen so. Those who were chosen for what they
    had just done differ too, and are refused with them: nobody can tell the two apart but by drawing lots.
    """
    if placebo is None:
        return ["too few customers are known from before they were contacted: nobody can tell whether they were alike"]
    average, first, area = (placebo.figures[name] for name in ("average", f"{learner}.first", f"{learner}.qini"))
    lots = "leave some of those chosen out of the next campaign, drawn by lot"
    if max(average.low, first.low, area.low) > 0:
        return [f"those who were contacted had done better than others like them before it too: {lots}"]
    if average.high < 0 and found.figures[f"{learner}.first"].low <= -average.value:
        return [f"those who were contacted had done worse before, and may only be back to their usual: {lots}"]
    return []


def _said(found: Judged, learner: str) -> str:
    first, rest = (found.figures[f"{learner}.{name}"] for name in ("first", "rest"))
    return (
        f"the third foretold to be helped most gain {first.value:+.3g} [{first.low:.3g}, {first.high:.3g}] by contact, "
        f"the others {rest.value:+.3g} [{rest.low:.3g}, {rest.high:.3g}]"
    )
