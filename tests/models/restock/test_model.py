"""The restock model and its baselines: coffee is bought at a fixed interval, salt at random, sledges in winter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.base import InsufficientData, MissingFeatures
from models.restock import baselines as restock_baselines
from models.restock import category_bg_nbd
from models.restock import model as restock_model

CUTOFFS = [pd.Timestamp("2025-06-01T04:00Z"), pd.Timestamp("2025-06-29T04:00Z")]
LEARNERS = [restock_baselines.PoissonRestock, restock_baselines.BgNbdRestock, restock_model.RestockModel]


def shop(customers: int = 1200, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coffee is bought exactly every 20 days, salt at random every 40 on average, and sledges not at all in June.

    One row per customer, cutoff and category; the label is complete for the first cutoff only.
    """
    rng = np.random.default_rng([7, seed])
    frames = []
    for cutoff in CUTOFFS:
        for category, gap in (("COFFEE", 20.0), ("SALT", 40.0), ("SLEDGES", 40.0)):
            recency = rng.uniform(1, gap, customers) if category == "COFFEE" else rng.exponential(gap, customers) + 1
            times = rng.integers(3, 9, customers).astype(float)
            category_days_to_next = gap - recency if category == "COFFEE" else rng.exponential(gap, customers)
            numbers = {
                "customer_key": np.arange(customers), "as_of": cutoff, "category": category, "need_times": times,
                "need_recency_days": np.ceil(recency), "need_first_days": np.ceil(recency + gap * (times - 1)),
                "need_overdue_ratio": recency / gap, "purchase_days": times + 3,
                "wait": np.where(category == "SLEDGES", 999.0, np.maximum(category_days_to_next, 0) + 1),
            }  # fmt: skip
            frames.append(pd.DataFrame(numbers))
    frame = pd.concat(frames, ignore_index=True)
    is_complete = (frame["as_of"] == CUTOFFS[0]).to_numpy()
    days_to_next = frame.pop("wait").to_numpy()
    label = pd.DataFrame(
        {f"within_{d}": np.where(is_complete, (days_to_next <= d) * 1.0, np.nan) for d in category_bg_nbd.HORIZONS_DAYS}
    )
    return frame, label.assign(wait=days_to_next)


def test_the_restock_model_separates_fixed_intervals_random_purchases_and_seasons() -> None:
    frame, label = shop()
    is_current = (frame["as_of"] == CUTOFFS[1]).to_numpy()
    model = restock_model.RestockModel.fit(frame, label)
    p = pd.Series(model.score(frame[is_current])[:, 1])
    rows = frame[is_current].reset_index(drop=True)
    is_coffee, is_salt, is_sledges = (rows["category"] == name for name in ("COFFEE", "SALT", "SLEDGES"))
    is_due = is_coffee & (rows["need_recency_days"] >= 8)
    assert p[is_due].mean() > 0.9
    assert p[is_coffee & (rows["need_recency_days"] <= 4)].mean() < 0.2
    assert p[is_salt].mean() == pytest.approx(1 - np.exp(-13 / 40), abs=0.06)
    assert p[is_sledges].mean() < 0.03


def test_a_longer_horizon_never_makes_a_purchase_less_likely() -> None:
    frame, label = shop(customers=400)
    for learner in LEARNERS:
        probabilities = learner.fit(frame, label).score(frame)
        assert probabilities.shape == (len(frame), 3)
        assert (np.diff(probabilities, axis=1) >= 0).all()
        assert ((probabilities > 0) & (probabilities < 1)).all()


def test_a_horizon_that_is_not_over_is_never_sampled() -> None:
    frame, label = shop(customers=400)
    partial_label = label.assign(within_28=np.nan)
    rng = np.random.default_rng(11)
    outcomes = category_bg_nbd.read_outcomes(partial_label)
    rows = np.flatnonzero(np.isfinite(outcomes[:, 0]))
    days, outcome = restock_model._draw_horizons(outcomes, rows, rng)
    assert set(days) == {7.0, 14.0}
    assert np.isfinite(outcome).all()
    assert restock_model.RestockModel.fit(frame, partial_label).score(frame).shape == (len(frame), 3)


def test_a_category_bought_twice_is_not_sampled() -> None:
    frame, label = shop(customers=400)
    is_sledges = frame["category"] == "SLEDGES"
    twice = frame.assign(need_times=np.where(is_sledges, 2.0, frame["need_times"]))
    rows = restock_model._sample_rows(twice, category_bg_nbd.read_outcomes(label), np.random.default_rng(0))
    assert "SLEDGES" not in set(twice["category"].to_numpy()[rows])


def test_a_category_that_was_not_in_training_is_scored_too() -> None:
    frame, label = shop(customers=400)
    new = frame.head(5).assign(category="KAYAKS")
    assert np.isfinite(restock_model.RestockModel.fit(frame, label).score(new)).all()


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_saved_model_gives_the_same_predictions(learner: Any, tmp_path: Path) -> None:
    frame, label = shop(customers=300)
    model = learner.fit(frame, label)
    model.save(tmp_path)
    loaded = learner.load(tmp_path)
    np.testing.assert_array_equal(loaded.score(frame), model.score(frame))
    np.testing.assert_array_equal(loaded.population_average(), model.population_average())
    assert model.population_average() == pytest.approx(
        label[[f"within_{d}" for d in category_bg_nbd.HORIZONS_DAYS]].mean().to_numpy()
    )


@pytest.mark.parametrize("learner", LEARNERS)
def test_any_row_can_be_scored_however_few_features_are_available(learner: Any) -> None:
    frame, label = shop(customers=300)
    unusual = frame.head(3).copy()
    unusual.loc[0, ["need_times", "need_recency_days", "need_first_days", "need_overdue_ratio"]] = np.nan
    unusual.loc[1, ["need_recency_days", "need_first_days"]] = [4000.0, 4000.0]
    model = learner.fit(frame, label)
    assert np.isfinite(model.score(unusual)).all()
    assert model.score(frame.head(0)).shape == (0, 3)


def test_the_purchase_rate_is_purchases_a_day_shrunk_to_the_rate_of_all() -> None:
    frame = pd.DataFrame({"need_times": [5.0], "need_recency_days": [3.0], "need_first_days": [101.0]})
    own = (4 + 1) / (100 + 1 / 0.05)
    assert restock_baselines.PoissonRestock(0.05, []).score(frame)[0] == pytest.approx(
        1 - np.exp(-own * np.array([7, 14, 28]))
    )


def test_without_outcomes_the_baselines_still_predict() -> None:
    frame, label = shop(customers=50)
    open_outcomes = label.assign(**{f"within_{d}": np.nan for d in category_bg_nbd.HORIZONS_DAYS})
    for learner in (restock_baselines.PoissonRestock, restock_baselines.BgNbdRestock):
        assert np.isfinite(learner.fit(frame, open_outcomes).population_average()).all()
    with pytest.raises(InsufficientData, match="0 of 0 customer-category pairs were bought again within 7 days"):
        restock_model.RestockModel.fit(frame, open_outcomes)


def test_a_missing_category_column_is_refused_by_name() -> None:
    frame, label = shop(customers=300)
    model = restock_model.RestockModel.fit(frame, label)
    with pytest.raises(MissingFeatures, match="need_overdue_ratio"):
        model.score(frame.drop(columns="need_overdue_ratio"))
    with pytest.raises(MissingFeatures, match="category"):
        model.score(frame.drop(columns="category"))


def test_the_same_seed_gives_the_same_trees() -> None:
    frame, label = shop(customers=300)
    first, second, other = (restock_model.RestockModel.fit(frame, label, seed=seed).score(frame) for seed in (3, 3, 4))
    assert (first == second).all()
    assert (first != other).any()


def test_contributions_add_up_to_the_log_odds_of_two_weeks() -> None:
    frame, label = shop(customers=300)
    model = restock_model.RestockModel.fit(frame, label)
    parts = model.contributions(frame.head(50))
    odds = np.log(model.score(frame.head(50))[:, 1] / (1 - model.score(frame.head(50))[:, 1]))
    difference = odds - parts.sum(axis=1).to_numpy()
    assert np.ptp(difference) < 0.3  # what all rows share, and what the horizon adds
    assert {"need_times", "need_recency_days"} <= set(parts.columns)
