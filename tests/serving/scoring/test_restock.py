"""When something runs out: from three chances to any day, at a risk that does not jump."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from customers.scores import score_details
from serving.scoring import restock

#: Half have bought after 14 days, at a steady risk: 1 - 2 ** (-days / 14).
STEADY = np.array([[1 - 0.5**0.5, 0.5, 0.75]])


@dataclass
class FixedScores:
    """A model with fixed scores."""

    rows: list[list[float]]

    def score(self, pairs: pd.DataFrame) -> np.ndarray:
        return np.array(self.rows[: len(pairs)])


def pairs(*named: tuple[int, str]) -> pd.DataFrame:
    """Needs of customers, bought five times and last week."""
    return pd.DataFrame(named, columns=["customer_key", "category"]).assign(need_times=5.0, need_recency_days=7.0)


@pytest.mark.parametrize("days", [1, 6, 7, 10, 14, 20, 28, 42, 90])
def test_a_steady_risk_stays_steady(days: int) -> None:
    assert restock.probability_within(STEADY, days)[0] == pytest.approx(1 - 2 ** (-days / 14), abs=1e-9)


def test_the_median_wait_is_the_day_by_which_half_have_bought() -> None:
    assert restock.median_days(STEADY)[0] == 14
    assert restock.median_days(np.array([[0.5, 0.6, 0.7]]))[0] == 7


def test_there_is_no_prediction_beyond_ninety_days() -> None:
    seldom = np.array([[0.01, 0.02, 0.04]])
    assert np.isnan(restock.median_days(seldom)[0])
    assert restock.probability_within(seldom, 90)[0] < 0.5
    never_again = np.array([[0.3, 0.3, 0.3]])
    assert np.isnan(restock.median_days(never_again)[0])
    assert restock.probability_within(never_again, 90)[0] == pytest.approx(0.3)


def test_who_is_certain_to_buy_does_not_wait() -> None:
    assert restock.median_days(np.array([[1.0, 1.0, 1.0]]))[0] == 1


def test_categories_come_likeliest_first() -> None:
    needs = restock.score_restock(
        FixedScores([[0.1, 0.2, 0.3], [0.2, 0.4, 0.5], [0.3, 0.3, 0.9]]), pairs((1, "a"), (1, "b"), (2, "a"))
    )
    assert needs[["customer_key", "category"]].to_numpy().tolist() == [[1, "b"], [1, "a"], [2, "a"]]
    sooner = restock.rank_within(needs, 28)
    assert sooner["p"].tolist() == pytest.approx([0.5, 0.3, 0.9])


def test_chances_never_fall_and_nonsense_is_left_out() -> None:
    needs = restock.score_restock(FixedScores([[0.4, 0.2, 0.3], [np.nan, 0.4, 0.5]]), pairs((1, "a"), (1, "b")))
    assert needs[["p_7d", "p_14d", "p_28d"]].to_numpy().tolist() == [[0.4, 0.4, 0.4]]


def test_what_is_hidden_is_named_to_those_who_may_see_it() -> None:
    requested = pairs((1, "pills"), (2, "pills"), (2, "milk"))
    needs = restock.score_restock(FixedScores([[0.1, 0.2, 0.3]] * 3), requested, hidden={"pills"}, consenting={1})
    assert needs[["customer_key", "category"]].to_numpy().tolist() == [[1, "pills"], [2, "milk"]]


def test_who_needs_nothing_has_no_rows() -> None:
    assert restock.score_restock(FixedScores([]), pairs()).columns.tolist() == [
        *restock.ITEM_COLUMNS,
        *restock.EVIDENCE_COLUMNS,
    ]


def test_stored_categories_are_those_that_were_predicted() -> None:
    needs = restock.score_restock(FixedScores([STEADY[0].tolist(), [0.01, 0.02, 0.04]]), pairs((1, "a"), (1, "b")))
    frame = pd.DataFrame({"customer_key": [1]})
    ((key, best, detail),) = restock.RestockPrediction(frame, np.array([True]), np.array([False]), needs).iter_rows()
    assert (key, best) == (1, 0.5)
    assert [tuple(item) for item in score_details.decode_restock(detail).iter_categories()] == [
        ("a", round(1 - 0.5**0.5, 9), 0.5, 0.75, 14),
        ("b", 0.01, 0.02, 0.04, None),
    ]


def test_what_was_bought_once_or_long_ago_does_not_run_out() -> None:
    requested = pairs((1, "tea"), (1, "sledges"), (1, "kayaks"))
    requested["need_times"] = [3.0, 1.0, 9.0]
    requested["need_recency_days"] = [120.0, 5.0, 121.0]
    assert restock.score_restock(FixedScores([[0.1, 0.2, 0.3]] * 3), requested)["category"].tolist() == ["tea"]


def test_a_customer_without_categories_is_flagged() -> None:
    """One has a need, one only what may not be named, one none at all."""
    requested = pairs((1, "tea"), (2, "pills"))
    named = restock.score_restock(FixedScores([[0.1, 0.2, 0.3]]), requested, hidden={"pills"})
    frame = pd.DataFrame({"customer_key": [1, 2, 3]})
    assert restock.has_no_items(frame, named).tolist() == [False, True, True]
