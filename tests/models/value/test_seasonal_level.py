"""Level: a shop that sells toys, twice as much before Christmas as its customers' rhythm tells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.value import baselines as value_baselines
from models.value import gamma_gamma, seasonal_level
from models.value.model import ValueModel

NOW = pd.Timestamp("2025-10-01T04:00Z")


def year(moments: tuple[int, ...] = (364, 180, 0), *, ratio: float = 2.0, customers: int = 400, tenure: float = 400.0):
    """Customers expected to spend 10 each; of the moment a year ago they spent `ratio` times that, later 10."""
    frames, spent = [], []
    chance = np.random.default_rng(1)
    for back in moments:
        figures = {"customer_key": np.arange(customers), "as_of": NOW - pd.Timedelta(days=back),
                   "tenure_days": tenure + 364 - back, "said": 10.0}  # fmt: skip
        frames.append(pd.DataFrame(figures))
        mean = 10.0 * (ratio if abs(back - 364) <= 28 else 1.0)
        spent.append(np.full(customers, np.nan) if back == 0 else chance.exponential(mean, customers))
    return pd.concat(frames, ignore_index=True), np.concatenate(spent)


def said(rows: pd.DataFrame) -> np.ndarray:
    return rows["said"].to_numpy()


def test_what_came_a_year_ago_over_what_was_expected_is_the_season() -> None:
    frame, spent = year()
    assert seasonal_level.seasonal_index(frame, spent, 90, said) == pytest.approx(2.0, rel=0.1)


def test_a_season_that_chance_could_have_made_is_none() -> None:
    frame, spent = year(ratio=1.0)
    assert seasonal_level.seasonal_index(frame, spent, 90, said) == pytest.approx(1.0, abs=0.05)
    few, theirs = year(ratio=1.3, customers=5)
    assert seasonal_level.seasonal_index(few, theirs, 90, said) < 1.3


def test_a_shop_without_a_year_of_history_has_no_season() -> None:
    frame, spent = year(moments=(180, 90, 0))
    assert seasonal_level.seasonal_index(frame, spent, 90, said) == 1.0


def test_a_shops_first_months_tell_of_no_season() -> None:
    frame, spent = year(tenure=100.0)
    assert seasonal_level.seasonal_index(frame, spent, 90, said) == 1.0


def test_between_two_moments_the_nearer_counts_more() -> None:
    frame, spent = year(moments=(370, 354, 0))
    near = (frame["as_of"] == NOW - pd.Timedelta(days=370)).to_numpy()
    spent = np.where(near, 20.0, np.where(np.isfinite(spent), 10.0, np.nan))
    assert seasonal_level.seasonal_index(frame, spent, 90, said) == pytest.approx(2 ** (11 / 18), rel=0.02)


def test_both_the_rhythm_and_the_trees_follow_the_season() -> None:
    frame, spent = toys()
    for learner in (value_baselines.BgNbdGammaGamma, ValueModel):
        model = learner.fit(frame, spent, horizon_days=60)
        now = frame[frame["as_of"] == frame["as_of"].max()]
        plain = gamma_gamma.expected_spend(*gamma_gamma.fit_bgnbd_and_spend(now), now, 60).sum()
        assert model.season == pytest.approx(2.0, rel=0.15)
        assert model.score(now).sum() == pytest.approx(model.season * plain, rel=0.01)


def toys(customers: int = 300) -> tuple[pd.DataFrame, np.ndarray]:
    """Every customer comes at random, once in ten days, and spends 10 on average; twice that a year ago."""
    chance = np.random.default_rng(3)
    frames, spent = [], []
    for back in (364, 250, 120, 0):
        days = 600.0 - back
        visits = chance.poisson(days / 10, customers) + 1.0
        figures = {
            "customer_key": np.arange(customers), "as_of": NOW - pd.Timedelta(days=back), "purchase_days": visits,
            "tenure_days": days, "span_days": np.maximum(days - 1 - chance.exponential(10.0, customers), 0.0),
            "spend_total": visits * chance.gamma(20.0, 0.5, customers),
        }  # fmt: skip
        frames.append(pd.DataFrame(figures))
        ahead = chance.poisson(6 * (2 if back == 364 else 1), customers) * 10.0
        spent.append(np.full(customers, np.nan) if back == 0 else ahead)
    return pd.concat(frames, ignore_index=True), np.concatenate(spent)
