"""Predictions from frames: scores of a model, bands, and the population average where there is no score."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from customers.shop import retention_costs
from serving.scoring import churn, timing

NAN = float("nan")


@dataclass
class FixedScores:
    """A model with fixed scores: a row per customer, and a population average."""

    rows: list
    average: object
    horizon_days: int = 28

    def score(self, frame: pd.DataFrame) -> np.ndarray:
        return np.array(self.rows[: len(frame)])

    def population_average(self) -> object:
        return self.average

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"recency_days": np.where(self.score(frame) > self.average, 1.0, -1.0)})


def frame(*recency_days: float) -> pd.DataFrame:
    """A customer per recency; without features where it is NaN."""
    as_of = [pd.Timestamp("2025-03-01", tz="UTC") if days == days else None for days in recency_days]
    return pd.DataFrame(
        {
            "customer_key": range(1, len(recency_days) + 1),
            "as_of": pd.to_datetime(as_of, utc=True),
            "recency_days": recency_days,
        }
    )


@pytest.mark.parametrize(
    ("probability", "recency", "band"),
    [
        (0.19, 1, "low"),
        (0.2, 1, "medium"),
        (0.49, 1, "medium"),
        (0.5, 1, "high"),
        (0.5, 56, "high"),
        (0.1, 57, "lapsed"),
    ],
)
def test_bands(probability: float, recency: float, band: str) -> None:
    assert churn.score_churn(FixedScores([probability], 0.3), frame(recency)).band == [band]


def test_bands_follow_the_shops_own_lines() -> None:
    lines = retention_costs.RetentionCosts(medium_from=0.1, high_from=0.3)
    model = FixedScores([0.09, 0.1, 0.3, 0.3], 0.3)
    prediction = churn.score_churn(
        model, frame(1, 1, 1, 57), costs=lines, expected_spend=np.array([1e6, 1e6, 1e6, 1e6])
    )
    assert prediction.band == ["low", "medium", "high", "lapsed"]


def test_bands_go_by_what_a_contact_costs_and_saves() -> None:
    """A letter costs 2 and keeps one in ten: 0.1 x 0.1 x 200 = 2 does not pay yet, and a call costs 5."""
    costs = retention_costs.RetentionCosts(contact_cost=2.0, saved_share=0.1)
    model = FixedScores([0.1, 0.11, 0.25, 0.26, 0.9, 0.5], 0.3)
    worth = np.array([200.0, 200.0, 200.0, 200.0, 20.0, NAN])
    prediction = churn.score_churn(model, frame(1, 1, 1, 1, 1, 1), costs=costs, expected_spend=worth)
    assert prediction.band == ["low", "medium", "medium", "high", "low", "high"]  # the last one's value is not known
    dearer = replace(costs, high_cost=10.0)
    assert churn.score_churn(model, frame(1, 1, 1, 1), costs=dearer, expected_spend=worth[:4]).band[-1] == "medium"


def test_a_customer_without_features_gets_the_average() -> None:
    prediction = churn.score_churn(FixedScores([0.9, 0.1], 0.3), frame(3, NAN, 5))
    assert prediction.probability.tolist() == [0.9, 0.3, 0.1]
    assert prediction.fallback.tolist() == [False, True, False]
    assert prediction.reasons == [
        [("bought only once, 3 days ago", 1.0)], [], [("bought for the first time 5 days ago", -1.0)]
    ]  # fmt: skip


@pytest.mark.parametrize("nonsense", [NAN, float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_replaced_by_the_average(nonsense: float) -> None:
    prediction = churn.score_churn(FixedScores([nonsense, 0.1], 0.3), frame(3, 5))
    assert prediction.probability.tolist() == [0.3, 0.1]
    assert prediction.fallback.tolist() == [True, False]


def test_a_frame_without_features_is_no_error() -> None:
    assert churn.score_churn(FixedScores([], 0.3), frame(NAN)).probability.tolist() == [0.3]


def test_the_curve_gives_chances_and_days() -> None:
    survival = [1 - np.array([0.05, 0.10, 0.30, 0.60, 0.88])]
    back = timing.score_return(FixedScores(survival, survival[0]), frame(3))
    assert back.probability_within(3).tolist() == [0.3]
    assert np.isnan(back.probability_within(6)).all()
    assert [back.quantile_days(share)[0] for share in (0.1, 0.5, 0.9)] == [2, 4, 6]  # the curve is 5 days long


def test_a_curve_never_falls() -> None:
    back = timing.score_return(FixedScores([[0.9, 0.95, 0.2]], [0.5, 0.4, 0.3]), frame(3))
    assert back.cdf.tolist() == [[0.1, 0.1, 0.8]]


def test_the_curve_agrees_with_churn_at_its_horizon() -> None:
    prediction = churn.score_churn(FixedScores([0.25], 0.6, horizon_days=2), frame(3, NAN))
    back = timing.score_return(FixedScores([[0.9, 0.5, 0.4]], [0.8, 0.7, 0.6]), frame(3, NAN), prediction)
    assert back.probability_within(2).tolist() == pytest.approx([1 - 0.25, 1 - 0.6], abs=1e-9)
    assert (np.diff(back.cdf, axis=1) >= 0).all()


def test_a_curve_that_ends_before_the_horizon_is_left_alone() -> None:
    prediction = churn.score_churn(FixedScores([0.25], 0.6, horizon_days=28), frame(3))
    back = timing.score_return(FixedScores([[0.9, 0.5]], [0.8, 0.7]), frame(3), prediction)
    assert back.cdf.tolist() == [[0.1, 0.5]]
