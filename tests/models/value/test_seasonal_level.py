"""The seasonal level, on a toy shop that sells twice as much before Christmas as BG/NBD predicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.value import baselines as value_baselines
from models.value import gamma_gamma, seasonal_level
from models.value.model import ValueModel

NOW = pd.Timestamp("2025-10-01T04:00Z")


def year_of_spend(
    cutoffs: tuple[int, ...] = (364, 180, 0), *, ratio: float = 2.0, customers: int = 400, tenure: float = 400.0
):
    """Customers with a prediction of 10 each; after the cutoff a year ago they spent `ratio` times that, later 10."""
    frames, spent = [], []
    rng = np.random.default_rng(1)
    for days_back in cutoffs:
        features = {"customer_key": np.arange(customers), "as_of": NOW - pd.Timedelta(days=days_back),
                   "tenure_days": tenure + 364 - days_back, "predicted": 10.0}  # fmt: skip
        frames.append(pd.DataFrame(features))
        mean = 10.0 * (ratio if abs(days_back - 364) <= 28 else 1.0)
        spent.append(np.full(customers, np.nan) if days_back == 0 else rng.exponential(mean, customers))
    return pd.concat(frames, ignore_index=True), np.concatenate(spent)


def predicted_spend(rows: pd.DataFrame) -> np.ndarray:
    return rows["predicted"].to_numpy()


def test_the_seasonal_index_is_actual_over_expected_spend_a_year_ago() -> None:
    frame, spent = year_of_spend()
    assert seasonal_level.seasonal_index(frame, spent, 90, predicted_spend) == pytest.approx(2.0, rel=0.1)


def test_a_season_within_chance_is_none() -> None:
    frame, spent = year_of_spend(ratio=1.0)
    assert seasonal_level.seasonal_index(frame, spent, 90, predicted_spend) == pytest.approx(1.0, abs=0.05)
    few, few_spent = year_of_spend(ratio=1.3, customers=5)
    assert seasonal_level.seasonal_index(few, few_spent, 90, predicted_spend) < 1.3


def test_a_shop_without_a_year_of_history_has_no_season() -> None:
    frame, spent = year_of_spend(cutoffs=(180, 90, 0))
    assert seasonal_level.seasonal_index(frame, spent, 90, predicted_spend) == 1.0


def test_a_shops_first_months_give_no_season() -> None:
    frame, spent = year_of_spend(tenure=100.0)
    assert seasonal_level.seasonal_index(frame, spent, 90, predicted_spend) == 1.0


def test_of_two_cutoffs_the_nearer_has_more_weight() -> None:
    frame, spent = year_of_spend(cutoffs=(370, 354, 0))
    is_first = (frame["as_of"] == NOW - pd.Timedelta(days=370)).to_numpy()
    spent = np.where(is_first, 20.0, np.where(np.isfinite(spent), 10.0, np.nan))
    assert seasonal_level.seasonal_index(frame, spent, 90, predicted_spend) == pytest.approx(2 ** (11 / 18), rel=0.02)


def test_both_the_baseline_and_the_value_model_follow_the_season() -> None:
    frame, spent = toy_shop()
    for learner in (value_baselines.BgNbdGammaGamma, ValueModel):
        model = learner.fit(frame, spent, horizon_days=60)
        now = frame[frame["as_of"] == frame["as_of"].max()]
        unadjusted = gamma_gamma.expected_spend(*gamma_gamma.fit_bgnbd_and_spend(now), now, 60).sum()
        assert model.season == pytest.approx(2.0, rel=0.15)
        assert model.score(now).sum() == pytest.approx(model.season * unadjusted, rel=0.01)


def toy_shop(customers: int = 300) -> tuple[pd.DataFrame, np.ndarray]:
    """Each customer buys at random, once in ten days, and spends 10 on average; twice as often a year ago."""
    rng = np.random.default_rng(3)
    frames, spent = [], []
    for days_back in (364, 250, 120, 0):
        days = 600.0 - days_back
        visits = rng.poisson(days / 10, customers) + 1.0
        features = {
            "customer_key": np.arange(customers), "as_of": NOW - pd.Timedelta(days=days_back), "purchase_days": visits,
            "tenure_days": days, "span_days": np.maximum(days - 1 - rng.exponential(10.0, customers), 0.0),
            "spend_total": visits * rng.gamma(20.0, 0.5, customers),
        }  # fmt: skip
        frames.append(pd.DataFrame(features))
        spend_ahead = rng.poisson(6 * (2 if days_back == 364 else 1), customers) * 10.0
        spent.append(np.full(customers, np.nan) if days_back == 0 else spend_ahead)
    return pd.concat(frames, ignore_index=True), np.concatenate(spent)
