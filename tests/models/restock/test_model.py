"""Restock and its baselines, on a shop that sells coffee by the clock, salt by chance and sledges in winter."""

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

MOMENTS = [pd.Timestamp("2025-06-01T04:00Z"), pd.Timestamp("2025-06-29T04:00Z")]
LEARNERS = [restock_baselines.PoissonRestock, restock_baselines.BgNbdRestock, restock_model.RestockModel]


def shop(customers: int = 1200, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coffee comes up exactly every 20 days; salt at any time, every 40 on average; nobody buys a sledge in June.

    One row a customer, moment and category; the label is complete for the first moment only.
    """
    chance = np.random.default_rng([7, seed])
    frames = []
    for moment in MOMENTS:
        for category, gap in (("COFFEE", 20.0), ("SALT", 40.0), ("SLEDGES", 40.0)):
            silent = (
                chance.uniform(1, gap, customers) if category == "COFFEE" else chance.exponential(gap, customers) + 1
            )
            times = chance.integers(3, 9, customers).astype(float)
            wait = gap - silent if category == "COFFEE" else chance.exponential(gap, customers)
            numbers = {
                "customer_key": np.arange(customers), "as_of": moment, "category": category, "need_times": times,
                "need_recency_days": np.ceil(silent), "need_first_days": np.ceil(silent + gap * (times - 1)),
                "need_overdue_ratio": silent / gap, "purchase_days": times + 3,
                "wait": np.where(category == "SLEDGES", 999.0, np.maximum(wait, 0) + 1),
            }  # fmt: skip
            frames.append(pd.DataFrame(numbers))
    frame = pd.concat(frames, ignore_index=True)
    known = (frame["as_of"] == MOMENTS[0]).to_numpy()
    waits = frame.pop("wait").to_numpy()
    label = pd.DataFrame(
        {f"within_{d}": np.where(known, (waits <= d) * 1.0, np.nan) for d in category_bg_nbd.HORIZONS_DAYS}
    )
    return frame, label.assign(wait=waits)


def test_the_trees_tell_the_clock_from_chance_and_the_season_from_both() -> None:
    frame, label = shop()
    now = (frame["as_of"] == MOMENTS[1]).to_numpy()
    model = restock_model.RestockModel.fit(frame, label)
    p = pd.Series(model.score(frame[now])[:, 1])
    named = frame[now].reset_index(drop=True)
    coffee, salt, sledges = (named["category"] == name for name in ("COFFEE", "SALT", "SLEDGES"))
    due = coffee & (named["need_recency_days"] >= 8)
    assert p[due].mean() > 0.9
    assert p[coffee & (named["need_recency_days"] <= 4)].mean() < 0.2
    assert p[salt].mean() == pytest.approx(1 - np.exp(-13 / 40), abs=0.06)
    assert p[sledges].mean() < 0.03


def test_a_longer_span_never_makes_a_purchase_less_likely() -> None:
    frame, label = shop(customers=400)
    for learner in LEARNERS:
        chances = learner.fit(frame, label).score(frame)
        assert chances.shape == (len(frame), 3)
        assert (np.diff(chances, axis=1) >= 0).all()
        assert ((chances > 0) & (chances < 1)).all()


def test_a_span_that_is_not_over_is_never_asked_about() -> None:
    frame, label = shop(customers=400)
    cut = label.assign(within_28=np.nan)
    chance = np.random.default_rng(11)
    known = category_bg_nbd.read_outcomes(cut)
    rows = np.flatnonzero(np.isfinite(known[:, 0]))
    days, outcome = restock_model._draw_horizons(known, rows, chance)
    assert set(days) == {7.0, 14.0}
    assert np.isfinite(outcome).all()
    assert restock_model.RestockModel.fit(frame, cut).score(frame).shape == (len(frame), 3)


def test_what_was_bought_twice_or_long_ago_teaches_nothing() -> None:
    frame, label = shop(customers=400)
    seldom = frame["category"] == "SLEDGES"
    twice = frame.assign(need_times=np.where(seldom, 2.0, frame["need_times"]))
    rows = restock_model._sample_rows(twice, category_bg_nbd.read_outcomes(label), np.random.default_rng(0))
    assert "SLEDGES" not in set(twice["category"].to_numpy()[rows])


def test_needs_of_a_category_nobody_had_before_are_answered_too() -> None:
    frame, label = shop(customers=400)
    new = frame.head(5).assign(category="KAYAKS")
    assert np.isfinite(restock_model.RestockModel.fit(frame, label).score(new)).all()


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_saved_model_gives_the_same_answers(learner: Any, tmp_path: Path) -> None:
    frame, label = shop(customers=300)
    model = learner.fit(frame, label)
    model.save(tmp_path)
    again = learner.load(tmp_path)
    np.testing.assert_array_equal(again.score(frame), model.score(frame))
    np.testing.assert_array_equal(again.population_average(), model.population_average())
    assert model.population_average() == pytest.approx(
        label[[f"within_{d}" for d in category_bg_nbd.HORIZONS_DAYS]].mean().to_numpy()
    )


@pytest.mark.parametrize("learner", LEARNERS)
def test_anything_can_be_scored_however_little_is_known(learner: Any) -> None:
    frame, label = shop(customers=300)
    strange = frame.head(3).copy()
    strange.loc[0, ["need_times", "need_recency_days", "need_first_days", "need_overdue_ratio"]] = np.nan
    strange.loc[1, ["need_recency_days", "need_first_days"]] = [4000.0, 4000.0]
    model = learner.fit(frame, label)
    assert np.isfinite(model.score(strange)).all()
    assert model.score(frame.head(0)).shape == (0, 3)


def test_the_own_rate_is_purchases_a_day_leaning_on_everybodys() -> None:
    frame = pd.DataFrame({"need_times": [5.0], "need_recency_days": [3.0], "need_first_days": [101.0]})
    own = (4 + 1) / (100 + 1 / 0.05)
    assert restock_baselines.PoissonRestock(0.05, []).score(frame)[0] == pytest.approx(
        1 - np.exp(-own * np.array([7, 14, 28]))
    )


def test_without_outcomes_the_rules_still_answer() -> None:
    frame, label = shop(customers=50)
    unknown = label.assign(**{f"within_{d}": np.nan for d in category_bg_nbd.HORIZONS_DAYS})
    for learner in (restock_baselines.PoissonRestock, restock_baselines.BgNbdRestock):
        assert np.isfinite(learner.fit(frame, unknown).population_average()).all()
    with pytest.raises(InsufficientData, match="0 of 0 customer-category pairs were bought again within 7 days"):
        restock_model.RestockModel.fit(frame, unknown)


def test_a_frame_without_its_needs_is_refused_by_name() -> None:
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
    apart = odds - parts.sum(axis=1).to_numpy()
    assert np.ptp(apart) < 0.3  # what all rows share, and what the span ahead adds
    assert {"need_times", "need_recency_days"} <= set(parts.columns)
