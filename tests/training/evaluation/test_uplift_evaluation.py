"""Uplift evaluation: its arithmetic, its verdict, and how often it reports an effect where there is none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from models.uplift.cross_fitting import CrossFittedScores, cross_fit
from models.uplift.treatment_data import TreatmentData
from training.evaluation import qini, uplift_evaluation
from training.evaluation.bootstrap import BootstrapDraws
from training.evaluation.qini import BootstrapEstimate
from training.evaluation.uplift_evaluation import UpliftEvaluation


def draw_mailing(seed: int, *, effect: float, customers: int = 600) -> tuple[TreatmentData, CrossFittedScores]:
    """One mailing: customers with high `fond` buy anyway and are contacted more; only high `doubt` has an effect."""
    rng = np.random.default_rng(seed)
    fond, doubt = rng.normal(size=(2, customers))
    contacted = rng.random(customers) < 1 / (1 + np.exp(-fond))
    purchase_probability = 1 / (1 + np.exp(-fond)) + effect * (contacted & (doubt > 0.3))
    frame = pd.DataFrame({"customer_key": np.arange(customers), "as_of": pd.Timestamp("2025-03-01", tz="UTC")})
    frame = frame.assign(fond=fond, doubt=doubt)
    outcome = (rng.random(customers) < purchase_probability).astype(float)
    treatment_data = TreatmentData.from_frame(frame, pd.DataFrame({"contacted": contacted, "outcome": outcome}))
    return treatment_data, cross_fit(treatment_data, folds=3, count=20, min_data_in_leaf=20)


def estimate(value: float, low: float, high: float) -> BootstrapEstimate:
    """An estimate with these bounds."""
    return BootstrapEstimate(value, np.repeat([low, high], 100))


def placebo_without_effect(evaluation: UpliftEvaluation) -> UpliftEvaluation:
    """A placebo evaluation of the days before, without any effect."""
    return replace(evaluation, metrics=dict.fromkeys(evaluation.metrics, estimate(0, -1, 1)))


def evaluate_mailing(seed: int, effect: float, customers: int = 600) -> tuple[UpliftEvaluation, bool]:
    evaluation = uplift_evaluation.evaluate_uplift(*draw_mailing(seed, effect=effect, customers=customers), draws=200)
    return evaluation, uplift_evaluation.decide_verdict(evaluation, placebo_without_effect(evaluation)).is_evidence


def test_an_effect_is_detected_and_ranks_customers() -> None:
    evaluation, is_evidence = evaluate_mailing(0, effect=0.4, customers=2000)
    assert is_evidence
    assert evaluation.metrics["x.first"].low > 0
    assert evaluation.metrics["x.first"].value > evaluation.metrics["x.rest"].value + 0.1
    assert evaluation.metrics["average"].low < 0.4 * 0.38 < evaluation.metrics["average"].high


def test_a_shop_without_any_effect_hardly_ever_gets_evidence_of_one() -> None:
    """Of 40 shops that contacted loyal customers without any effect, 5 % may show one by chance."""
    shops = [evaluate_mailing(seed, effect=0.0) for seed in range(40)]
    assert sum(is_evidence for _, is_evidence in shops) <= 2
    average = [evaluation.metrics["average"] for evaluation, _ in shops]
    assert np.mean([estimated.low <= 0 <= estimated.high for estimated in average]) >= 0.85
    seems_effective = [evaluation.metrics["plain_difference"].low > 0 for evaluation, _ in shops]
    assert np.mean(seems_effective) > 0.9, "by the plain difference nearly all of them seem to bring customers back"


def test_the_qini_coefficient_is_the_area_above_the_diagonal() -> None:
    gain = np.array([1.0, 1.0, 0.0, 0.0])  # the better half gains 1 each
    metrics, curve = qini.qini_curve(gain, qini.DrawWeights(np.ones((3, 4), np.int32), np.arange(4)))
    # The curve rises to 1/2 at one half and stays there: area 1/8 + 1/4, less that of the diagonal, 1/4.
    assert metrics["qini"].value == pytest.approx(1 / 8 + 1 / 4 - 1 / 4, abs=1e-3)
    assert metrics["first"].value == pytest.approx(1.0)
    assert metrics["rest"].value == pytest.approx((1 / 2 - 1 / 3) / (2 / 3))
    assert curve["gain"].iloc[-1] == pytest.approx(gain.mean())


def test_a_customer_who_is_drawn_twice_counts_twice_with_every_mailing() -> None:
    weight = qini.draw_weights(
        BootstrapDraws(np.array([7, 9]), np.array([[2, 0], [1, 1]], np.int32)), np.array([9, 7, 7])
    )
    average = qini.weighted_mean(np.array([6.0, 1.0, 2.0]), weight)
    assert average.drawn is not None
    assert (average.value, average.drawn.tolist()) == (3.0, [1.5, 3.0])
    assert qini.weighted_mean(np.array([1.0, 2.0]), weight.select_rows(np.array([False, True, True]))).value == 1.5


def test_within_a_mailing_a_constant_propensity_has_an_auc_of_one_half() -> None:
    treatment_data, _ = draw_mailing(0, effect=0.0)
    rows = np.ones(len(treatment_data.contacted), dtype=bool)
    assert qini.within_mailing_auc(treatment_data, treatment_data.contacted * 1.0, rows) == 1.0
    assert qini.within_mailing_auc(treatment_data, np.full(len(rows), 0.5), rows) == 0.5


def make_evaluation(**overrides: BootstrapEstimate) -> UpliftEvaluation:
    """An evaluation that is evidence, except for the metrics given; `__` stands for a dot."""
    metrics = {
        "average": estimate(0.05, 0.03, 0.07),
        "x.qini": estimate(0.01, 0.005, 0.015),
        "x.first": estimate(0.1, 0.06, 0.14),
    }
    metrics |= {"x.rest": estimate(0.02, 0.0, 0.04), "telling_kept": BootstrapEstimate(0.6)}
    renamed = {name.replace("__", "."): value for name, value in overrides.items()}
    return UpliftEvaluation(
        metrics | renamed, pd.DataFrame(), 500, 500, BootstrapDraws.from_customers(np.arange(3), draws=1)
    )


NO_EFFECT = estimate(0, -0.01, 0.01)
CLEAN_PLACEBO = make_evaluation(average=NO_EFFECT, x__qini=NO_EFFECT, x__first=NO_EFFECT)


def test_a_clear_effect_with_a_clean_placebo_is_evidence() -> None:
    verdict = uplift_evaluation.decide_verdict(make_evaluation(), CLEAN_PLACEBO)
    assert (verdict.verdict, verdict.is_evidence) == ("evidence", True)
    assert "+0.1 [0.06, 0.14]" in verdict.why[0]


@pytest.mark.parametrize(
    ("evaluation", "placebo", "message"),
    [
        (make_evaluation(x__qini=estimate(0.01, -0.001, 0.02)), CLEAN_PLACEBO, "cannot be predicted"),
        (make_evaluation(x__first=estimate(0.05, -0.01, 0.11)), CLEAN_PLACEBO, "not known to be helped"),
        (make_evaluation(average=NO_EFFECT, x__qini=NO_EFFECT), CLEAN_PLACEBO, "not known to change anything"),
        (make_evaluation(telling_kept=BootstrapEstimate(0.95)), CLEAN_PLACEBO, "can be predicted"),
        (make_evaluation(), make_evaluation(x__qini=NO_EFFECT, x__first=NO_EFFECT), "had done better"),
        (make_evaluation(), make_evaluation(average=NO_EFFECT, x__qini=NO_EFFECT), "had done better"),
        (
            make_evaluation(),
            make_evaluation(average=estimate(-0.1, -0.2, -0.05), x__qini=NO_EFFECT, x__first=NO_EFFECT),
            "had done worse",
        ),
        (make_evaluation(), None, "too few customers are known"),
    ],
)
def test_every_doubt_is_explained(evaluation: UpliftEvaluation, placebo: UpliftEvaluation | None, message: str) -> None:
    verdict = uplift_evaluation.decide_verdict(evaluation, placebo)
    assert verdict.verdict == "not enough evidence"
    assert message in "; ".join(verdict.why)


def test_a_few_huge_baskets_do_not_decide_the_mean() -> None:
    outcome = np.array([0.0] * 500 + [10.0] * 999 + [1e6])
    assert uplift_evaluation.winsorise(outcome).max() < 1e4
    assert uplift_evaluation.winsorise(np.zeros(5)).max() == 0.0
