"""Uplift on trial: arithmetic, what is believed, and how often a shop without any effect is told of one."""

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


def town(seed: int, *, nudge: float, people: int = 600) -> tuple[TreatmentData, CrossFittedScores]:
    """One mailing; the fond come anyway and are the likelier to be contacted; only the doubting need a nudge."""
    rng = np.random.default_rng(seed)
    fond, doubt = rng.normal(size=(2, people))
    contacted = rng.random(people) < 1 / (1 + np.exp(-fond))
    comes = 1 / (1 + np.exp(-fond)) + nudge * (contacted & (doubt > 0.3))
    frame = pd.DataFrame({"customer_key": np.arange(people), "as_of": pd.Timestamp("2025-03-01", tz="UTC")})
    frame = frame.assign(fond=fond, doubt=doubt)
    came = (rng.random(people) < comes).astype(float)
    trial = TreatmentData.from_frame(frame, pd.DataFrame({"contacted": contacted, "outcome": came}))
    return trial, cross_fit(trial, folds=3, count=20, min_data_in_leaf=20)


def told(value: float, low: float, high: float) -> BootstrapEstimate:
    """A figure with these bounds."""
    return BootstrapEstimate(value, np.repeat([low, high], 100))


def quiet_before(found: UpliftEvaluation) -> UpliftEvaluation:
    """The days before showed nothing at all."""
    return replace(found, metrics=dict.fromkeys(found.metrics, told(0, -1, 1)))


def believed(seed: int, nudge: float, people: int = 600) -> tuple[UpliftEvaluation, bool]:
    found = uplift_evaluation.evaluate_uplift(*town(seed, nudge=nudge, people=people), draws=200)
    return found, uplift_evaluation.decide_verdict(found, quiet_before(found)).is_evidence


def test_an_effect_is_found_and_ranks_customers() -> None:
    found, holds = believed(0, nudge=0.4, people=2000)
    assert holds
    assert found.metrics["x.first"].low > 0
    assert found.metrics["x.first"].value > found.metrics["x.rest"].value + 0.1
    assert found.metrics["average"].low < 0.4 * 0.38 < found.metrics["average"].high


def test_a_shop_without_any_effect_is_hardly_ever_told_of_one() -> None:
    """Of 40 shops that chose the fond and changed nobody, 5 % may be told of an effect by chance."""
    shops = [believed(seed, nudge=0.0) for seed in range(40)]
    assert sum(holds for _, holds in shops) <= 2
    average = [found.metrics["average"] for found, _ in shops]
    assert np.mean([figure.low <= 0 <= figure.high for figure in average]) >= 0.85
    looked = [found.metrics["plain_difference"].low > 0 for found, _ in shops]
    assert np.mean(looked) > 0.9, "read off as it stands, nearly all of them seem to bring customers back"


def test_the_qini_coefficient_is_the_area_above_the_straight_line() -> None:
    gain = np.array([1.0, 1.0, 0.0, 0.0])  # the better half gains 1 each
    figures, curve = qini.qini_curve(gain, qini.DrawWeights(np.ones((3, 4), np.int32), np.arange(4)))
    # The curve rises to 1/2 at one half and stays: area 1/8 + 1/4, less that of the line, 1/4.
    assert figures["qini"].value == pytest.approx(1 / 8 + 1 / 4 - 1 / 4, abs=1e-3)
    assert figures["first"].value == pytest.approx(1.0)
    assert figures["rest"].value == pytest.approx((1 / 2 - 1 / 3) / (2 / 3))
    assert curve["gain"].iloc[-1] == pytest.approx(gain.mean())


def test_a_customer_who_is_drawn_twice_counts_twice_with_every_mailing() -> None:
    weight = qini.draw_weights(
        BootstrapDraws(np.array([7, 9]), np.array([[2, 0], [1, 1]], np.int32)), np.array([9, 7, 7])
    )
    average = qini.weighted_mean(np.array([6.0, 1.0, 2.0]), weight)
    assert average.drawn is not None
    assert (average.value, average.drawn.tolist()) == (3.0, [1.5, 3.0])
    assert qini.weighted_mean(np.array([1.0, 2.0]), weight.select_rows(np.array([False, True, True]))).value == 1.5


def test_within_a_mailing_a_lottery_foretells_nothing() -> None:
    trial, _ = town(0, nudge=0.0)
    rows = np.ones(len(trial.contacted), dtype=bool)
    assert qini.within_mailing_auc(trial, trial.contacted * 1.0, rows) == 1.0
    assert qini.within_mailing_auc(trial, np.full(len(rows), 0.5), rows) == 0.5


def finding(**others: BootstrapEstimate) -> UpliftEvaluation:
    """A finding that would be believed, but for what is told otherwise; `__` stands for a dot."""
    clear = {"average": told(0.05, 0.03, 0.07), "x.qini": told(0.01, 0.005, 0.015), "x.first": told(0.1, 0.06, 0.14)}
    clear |= {"x.rest": told(0.02, 0.0, 0.04), "telling_kept": BootstrapEstimate(0.6)}
    changed = {name.replace("__", "."): figure for name, figure in others.items()}
    return UpliftEvaluation(
        clear | changed, pd.DataFrame(), 500, 500, BootstrapDraws.from_customers(np.arange(3), draws=1)
    )


NOTHING = told(0, -0.01, 0.01)
QUIET = finding(average=NOTHING, x__qini=NOTHING, x__first=NOTHING)


def test_a_clear_finding_after_a_quiet_month_is_evidence() -> None:
    given = uplift_evaluation.decide_verdict(finding(), QUIET)
    assert (given.verdict, given.is_evidence) == ("evidence", True)
    assert "+0.1 [0.06, 0.14]" in given.why[0]


@pytest.mark.parametrize(
    ("found", "before", "words"),
    [
        (finding(x__qini=told(0.01, -0.001, 0.02)), QUIET, "cannot be predicted"),
        (finding(x__first=told(0.05, -0.01, 0.11)), QUIET, "not known to be helped"),
        (finding(average=NOTHING, x__qini=NOTHING), QUIET, "not known to change anything"),
        (finding(telling_kept=BootstrapEstimate(0.95)), QUIET, "can be predicted"),
        (finding(), finding(x__qini=NOTHING, x__first=NOTHING), "had done better"),
        (finding(), finding(average=NOTHING, x__qini=NOTHING), "had done better"),
        (finding(), finding(average=told(-0.1, -0.2, -0.05), x__qini=NOTHING, x__first=NOTHING), "had done worse"),
        (finding(), None, "too few customers are known"),
    ],
)
def test_every_doubt_is_told_in_words(found: UpliftEvaluation, before: UpliftEvaluation | None, words: str) -> None:
    given = uplift_evaluation.decide_verdict(found, before)
    assert given.verdict == "not enough evidence"
    assert words in "; ".join(given.why)


def test_a_few_huge_baskets_do_not_decide_the_mean() -> None:
    outcome = np.array([0.0] * 500 + [10.0] * 999 + [1e6])
    assert uplift_evaluation.winsorise(outcome).max() < 1e4
    assert uplift_evaluation.winsorise(np.zeros(5)).max() == 0.0
