"""Hazard trees, on a shop whose customers' daily purchase probabilities are known, and by arithmetic."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.base import InsufficientData
from models.registry import bundle
from models.survival import censored_durations
from models.timing import baselines as timing_baselines
from models.timing import hazard_trees, seasonal_level

FIRST = pd.Timestamp("2025-01-06")  # a Monday
DAYS = 30
SMALL = {"learning_rate": 0.15, "feature_fraction": 1.0}


def daily_probability(weekday: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Each customer buys at a rate of their own, on Saturdays three times as often as on other days."""
    return np.where(weekday % 7 == 5, 3.0, 1.0) / gap * 7 / 9


def features_at(is_purchase: np.ndarray, day: int, gap: np.ndarray) -> pd.DataFrame:
    """Features of all customers at the start of a day, with the mean gap that the shop was drawn with."""
    past = is_purchase[:, :day]
    last = day - 1 - np.argmax(past[:, ::-1], axis=1)
    return pd.DataFrame(
        {
            "customer_key": np.arange(len(is_purchase)),
            "as_of": (FIRST + pd.Timedelta(days=day)).tz_localize("UTC"),
            "recency_days": (day - last).astype(float),
            "tenure_days": float(day),
            "purchase_days": past.sum(axis=1).astype(float),
            "span_days": last.astype(float),
            "gap_mean_days": gap,
            "as_of_weekday": day % 7,
        }
    )


def days_to_next_purchase(is_purchase: np.ndarray, day: int, end: int) -> pd.DataFrame:
    """Days to the next purchase from the start of a day, followed up to the start of day `end`."""
    is_purchase_ahead = is_purchase[:, day:end]
    has_purchase = is_purchase_ahead.any(axis=1)
    return pd.DataFrame(
        {
            "duration_days": np.where(has_purchase, np.argmax(is_purchase_ahead, axis=1) + 1, end - day),
            "observed": has_purchase,
        }
    )


@cache
def shop() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Features and durations of eight cutoffs; and the customers now."""
    rng, end = np.random.default_rng(0), 150
    gap = rng.uniform(4, 40, 1200)
    is_purchase = rng.random((1200, end)) < daily_probability(np.arange(end), gap[:, None])
    is_purchase[:, 0] = True
    cutoffs = (80, 90, 100, 110, 117, 125, 136, 146)
    rows = pd.concat([features_at(is_purchase, day, gap) for day in cutoffs], ignore_index=True)
    label = pd.concat([days_to_next_purchase(is_purchase, day, end) for day in cutoffs], ignore_index=True)
    return rows, label, features_at(is_purchase, end, gap)


@cache
def fitted_model() -> hazard_trees.HazardTrees:
    rows, label, _ = shop()
    return hazard_trees.HazardTrees.fit(rows, label, days=DAYS, **SMALL)


def excess_crps(curves: np.ndarray, truth: np.ndarray) -> float:
    """CRPS above that of the truth, in days: the squared difference of the curves, summed over days."""
    return float(((curves - truth) ** 2).sum(axis=1).mean())


def test_the_true_curves_are_recovered_though_the_latest_durations_are_censored() -> None:
    rows, label, now = shop()
    weekdays = (now["as_of_weekday"].iloc[0] + np.arange(DAYS))[None, :]
    truth = np.cumprod(1 - daily_probability(weekdays, now["gap_mean_days"].to_numpy()[:, None]), axis=1)
    model_excess = excess_crps(fitted_model().score(now), truth)
    assert model_excess < 0.15
    for baseline in (timing_baselines.BgNbdTiming, timing_baselines.KaplanMeierTiming):
        assert model_excess < 0.7 * excess_crps(baseline.fit(rows, label, days=DAYS).score(now), truth)


def test_saturday_is_predicted_whatever_weekday_it_is() -> None:
    _, _, now = shop()
    for today in range(7):
        curves = fitted_model().score(now.assign(as_of_weekday=today))
        hazard = 1 - curves[:, :7] / np.hstack([np.ones((len(now), 1)), curves[:, :6]])
        assert np.argmax(hazard.mean(axis=0)) == (5 - today) % 7


def test_a_curve_never_rises_and_changes_with_every_day_without_a_purchase() -> None:
    _, _, now = shop()
    curves = fitted_model().score(now)
    assert curves.shape == (1200, DAYS)
    assert ((curves > 0) & (curves < 1)).all()
    assert (np.diff(curves, axis=1) <= 0).all()
    days = ["recency_days", "tenure_days", "as_of_weekday"]
    tomorrow = now.assign(**{name: now[name] + 1 for name in days})
    assert (fitted_model().score(tomorrow) != curves).any(axis=1).all()


def person_period_rows(follow_up_days: int, has_purchase: bool) -> tuple[list[int], list[float]]:
    """The person-period rows of one customer: period ends and outcomes."""
    edges = np.array([0, 1, 2, 4, 8])
    nothing = np.zeros((1, 1), np.float32)
    seasonal_features = np.zeros((1, 4), np.float32)
    inputs = hazard_trees.HazardInputs(
        nothing, nothing[0], nothing[:, :0], np.zeros(1, np.int64), np.zeros((1, 7)), seasonal_features, edges
    )
    cutoff = np.zeros(1, "datetime64[us]")
    end = cutoff[0] + np.timedelta64(8 if has_purchase else follow_up_days, "D")
    rows = hazard_trees._person_period_rows(
        inputs, censored_durations.CensoredDurations(np.array([follow_up_days]), np.array([has_purchase]), cutoff), end
    )
    return rows.design[:, 1].astype(int).tolist(), rows.outcome.tolist()


def test_a_customer_has_a_row_for_every_period_up_to_the_purchase() -> None:
    assert person_period_rows(3, True) == ([1, 2, 4], [0.0, 0.0, 1.0])
    assert person_period_rows(1, True) == ([1], [1.0])


def test_a_period_in_which_follow_up_ended_has_no_row() -> None:
    assert person_period_rows(3, False) == ([1, 2], [0.0, 0.0])
    assert person_period_rows(4, False) == ([1, 2, 4], [0.0, 0.0, 0.0])


def test_the_hazard_of_a_period_is_spread_evenly_over_its_days() -> None:
    shares = hazard_trees._elapsed_shares(np.array([0, 1, 4]))
    assert shares == pytest.approx(np.array([[1, 1, 1, 1], [0, 1 / 3, 2 / 3, 1]]))
    log_survival = np.log([0.9, 0.8]) @ shares
    assert np.exp(log_survival) == pytest.approx([0.9, 0.9 * 0.8 ** (1 / 3), 0.9 * 0.8 ** (2 / 3), 0.72])


def test_the_calendar_effect_finds_the_busy_fortnight() -> None:
    """Three customers in four buy within days of the third cutoff, one in five otherwise."""
    _, _, now = shop()
    days = (0, 20, 40, 60)
    rows = pd.concat([now.assign(as_of=now["as_of"] + pd.Timedelta(days=day)) for day in days], ignore_index=True)
    is_busy = np.repeat(np.array(days) == 40, len(now))
    is_purchase = np.random.default_rng(0).random(len(rows)) < np.where(is_busy, 0.75, 0.2)
    durations = censored_durations.CensoredDurations(
        np.where(is_purchase, 7, 14), is_purchase, censored_durations.read_cutoffs(rows)
    )
    calendar = seasonal_level.CalendarEffect.fit(rows, durations)
    assert np.argmax(calendar.log_odds) == 2
    ahead = calendar.log_odds_at(durations.cutoff[:1], np.array([0, 14, 34, 54, 55]))[0]
    assert ahead[0] == pytest.approx(calendar.log_odds[0], abs=1e-5)  # the level holds at the middle of the fortnight
    assert ahead[2] > max(ahead[0], ahead[1])


def test_a_busy_autumn_is_not_extrapolated_to_winter() -> None:
    """Customers buy three times as often in the last fifty days; to extrapolate that would predict 4 % churn."""
    rng, end = np.random.default_rng(1), 200
    gap = rng.uniform(15, 40, 1500)
    is_purchase = rng.random((1500, end)) < np.where(np.arange(end) >= 150, 3.0, 1.0) / gap[:, None]
    is_purchase[:, 0] = True
    cutoffs = (70, 85, 100, 115, 130, 145, 160, 171, 182, 190)
    rows = pd.concat([features_at(is_purchase, day, gap) for day in cutoffs], ignore_index=True)
    label = pd.concat([days_to_next_purchase(is_purchase, day, end) for day in cutoffs], ignore_index=True)
    churn = (
        hazard_trees.HazardTrees.fit(rows, label, days=DAYS, **SMALL)
        .score(features_at(is_purchase, end, gap))[:, -1]
        .mean()
    )
    autumn, summer = ((1 - 3 / gap) ** DAYS).mean(), ((1 - 1 / gap) ** DAYS).mean()
    assert autumn == pytest.approx(0.04, abs=0.005)
    assert 2 * autumn < churn < summer


def test_any_customer_gets_a_curve_however_few_features_are_available() -> None:
    _, _, now = shop()
    unusual = now.head(4).astype({"as_of_weekday": float})
    unusual.loc[0, unusual.columns[2:]] = np.nan
    unusual.loc[1, ["recency_days", "tenure_days"]] = 4000.0
    unusual.loc[2, ["purchase_days", "gap_mean_days"]] = [4000.0, np.inf]
    unusual.loc[3, ["recency_days", "tenure_days"]] = -3.0
    curves = fitted_model().score(unusual)
    assert ((curves > 0) & (curves < 1)).all()
    assert fitted_model().score(now.head(0)).shape == (0, DAYS)


def test_the_saved_model_gives_the_same_curves(tmp_path: Path) -> None:
    _, _, now = shop()
    bundle.write(fitted_model(), tmp_path / "hazard", facts={})
    _, loaded = bundle.open_model(tmp_path / "hazard")
    assert (loaded.score(now) == fitted_model().score(now)).all()
    assert (loaded.population_average() == fitted_model().population_average()).all()


def test_the_same_seed_fits_the_same_trees() -> None:
    rows, label, now = shop()
    rows, label = rows[::3].reset_index(drop=True), label[::3].reset_index(drop=True)
    first, second, other = (
        hazard_trees.HazardTrees.fit(rows, label, days=7, seed=seed, **SMALL).score(now) for seed in (1, 1, 2)
    )
    assert (first == second).all()
    assert (first != other).any()


def test_thirty_customers_are_too_few_and_the_message_counts_them() -> None:
    rows, label, _ = shop()
    with pytest.raises(InsufficientData, match=r"\d+ next purchases were observed within 30 days and 300 are needed"):
        hazard_trees.HazardTrees.fit(rows.head(30), label.head(30), days=DAYS)
