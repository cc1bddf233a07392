"""The hazard, on a shop whose customers' daily chances are known, and by arithmetic."""

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


def daily_chance(weekday: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Everybody comes at a rate of their own, on Saturdays thrice as often as on other days."""
    return np.where(weekday % 7 == 5, 3.0, 1.0) / gap * 7 / 9


def seen_at(came: np.ndarray, day: int, gap: np.ndarray) -> pd.DataFrame:
    """What is known of everybody at the start of a day, with the gap that the shop was made with."""
    past = came[:, :day]
    last = day - 1 - np.argmax(past[:, ::-1], axis=1)
    return pd.DataFrame(
        {
            "customer_key": np.arange(len(came)),
            "as_of": (FIRST + pd.Timedelta(days=day)).tz_localize("UTC"),
            "recency_days": (day - last).astype(float),
            "tenure_days": float(day),
            "purchase_days": past.sum(axis=1).astype(float),
            "span_days": last.astype(float),
            "gap_mean_days": gap,
            "as_of_weekday": day % 7,
        }
    )


def waited(came: np.ndarray, day: int, end: int) -> pd.DataFrame:
    """Days until the next purchase from the start of a day, watched to the start of another."""
    ahead = came[:, day:end]
    bought = ahead.any(axis=1)
    return pd.DataFrame(
        {"duration_days": np.where(bought, np.argmax(ahead, axis=1) + 1, end - day), "observed": bought}
    )


@cache
def shop() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rows and waits of eight moments; and customers now."""
    chance, end = np.random.default_rng(0), 150
    gap = chance.uniform(4, 40, 1200)
    came = chance.random((1200, end)) < daily_chance(np.arange(end), gap[:, None])
    came[:, 0] = True
    moments = (80, 90, 100, 110, 117, 125, 136, 146)
    rows = pd.concat([seen_at(came, day, gap) for day in moments], ignore_index=True)
    label = pd.concat([waited(came, day, end) for day in moments], ignore_index=True)
    return rows, label, seen_at(came, end, gap)


@cache
def taught() -> hazard_trees.HazardTrees:
    rows, label, _ = shop()
    return hazard_trees.HazardTrees.fit(rows, label, days=DAYS, **SMALL)


def distance(curves: np.ndarray, truth: np.ndarray) -> float:
    """How much worse than the truth in CRPS, in days: the squared gap between curves, summed over days."""
    return float(((curves - truth) ** 2).sum(axis=1).mean())


def test_the_true_curves_are_found_though_the_latest_waits_were_cut_short() -> None:
    rows, label, now = shop()
    ahead = (now["as_of_weekday"].iloc[0] + np.arange(DAYS))[None, :]
    truth = np.cumprod(1 - daily_chance(ahead, now["gap_mean_days"].to_numpy()[:, None]), axis=1)
    mine = distance(taught().score(now), truth)
    assert mine < 0.15
    for rule in (timing_baselines.BgNbdTiming, timing_baselines.KaplanMeierTiming):
        assert mine < 0.7 * distance(rule.fit(rows, label, days=DAYS).score(now), truth)


def test_saturday_is_foretold_whatever_today_is() -> None:
    _, _, now = shop()
    for today in range(7):
        curves = taught().score(now.assign(as_of_weekday=today))
        chance = 1 - curves[:, :7] / np.hstack([np.ones((len(now), 1)), curves[:, :6]])
        assert np.argmax(chance.mean(axis=0)) == (5 - today) % 7


def test_a_curve_never_rises_and_moves_with_every_silent_day() -> None:
    _, _, now = shop()
    curves = taught().score(now)
    assert curves.shape == (1200, DAYS)
    assert ((curves > 0) & (curves < 1)).all()
    assert (np.diff(curves, axis=1) <= 0).all()
    days = ["recency_days", "tenure_days", "as_of_weekday"]
    tomorrow = now.assign(**{name: now[name] + 1 for name in days})
    assert (taught().score(tomorrow) != curves).any(axis=1).all()


def asked(watched: int, bought: bool) -> tuple[list[int], list[float]]:
    """The periods that one customer is asked about, and what came of each."""
    edges = np.array([0, 1, 2, 4, 8])
    nothing = np.zeros((1, 1), np.float32)
    ahead = np.zeros((1, 4), np.float32)
    given = hazard_trees.HazardInputs(
        nothing, nothing[0], nothing[:, :0], np.zeros(1, np.int64), np.zeros((1, 7)), ahead, edges
    )
    moment = np.zeros(1, "datetime64[us]")
    end = moment[0] + np.timedelta64(8 if bought else watched, "D")
    rows = hazard_trees._person_period_rows(
        given, censored_durations.CensoredDurations(np.array([watched]), np.array([bought]), moment), end
    )
    return rows.design[:, 1].astype(int).tolist(), rows.outcome.tolist()


def test_a_customer_is_asked_about_every_period_up_to_the_purchase() -> None:
    assert asked(3, True) == ([1, 2, 4], [0.0, 0.0, 1.0])
    assert asked(1, True) == ([1], [1.0])


def test_a_period_in_whose_midst_watching_ended_says_nothing() -> None:
    assert asked(3, False) == ([1, 2], [0.0, 0.0])
    assert asked(4, False) == ([1, 2, 4], [0.0, 0.0, 0.0])


def test_days_within_a_period_pass_evenly() -> None:
    shares = hazard_trees._elapsed_shares(np.array([0, 1, 4]))
    assert shares == pytest.approx(np.array([[1, 1, 1, 1], [0, 1 / 3, 2 / 3, 1]]))
    log_silence = np.log([0.9, 0.8]) @ shares
    assert np.exp(log_silence) == pytest.approx([0.9, 0.9 * 0.8 ** (1 / 3), 0.9 * 0.8 ** (2 / 3), 0.72])


def test_the_calendar_finds_the_fortnight_in_which_everybody_came() -> None:
    """Three customers in four come within days of the third moment, one in five otherwise."""
    _, _, now = shop()
    days = (0, 20, 40, 60)
    rows = pd.concat([now.assign(as_of=now["as_of"] + pd.Timedelta(days=day)) for day in days], ignore_index=True)
    busy = np.repeat(np.array(days) == 40, len(now))
    came = np.random.default_rng(0).random(len(rows)) < np.where(busy, 0.75, 0.2)
    watch = censored_durations.CensoredDurations(np.where(came, 7, 14), came, censored_durations.read_cutoffs(rows))
    calendar = seasonal_level.CalendarEffect.fit(rows, watch)
    assert np.argmax(calendar.log_odds) == 2
    ahead = calendar.log_odds_at(watch.cutoff[:1], np.array([0, 14, 34, 54, 55]))[0]
    assert ahead[0] == pytest.approx(calendar.log_odds[0], abs=1e-5)  # the fortnight's midst is where its level holds
    assert ahead[2] > max(ahead[0], ahead[1])


def test_a_busy_autumn_is_not_promised_for_winter() -> None:
    """Everybody comes thrice as often in the last fifty days; who takes that for a law expects 4 % to stay away."""
    chance, end = np.random.default_rng(1), 200
    gap = chance.uniform(15, 40, 1500)
    came = chance.random((1500, end)) < np.where(np.arange(end) >= 150, 3.0, 1.0) / gap[:, None]
    came[:, 0] = True
    moments = (70, 85, 100, 115, 130, 145, 160, 171, 182, 190)
    rows = pd.concat([seen_at(came, day, gap) for day in moments], ignore_index=True)
    label = pd.concat([waited(came, day, end) for day in moments], ignore_index=True)
    away = hazard_trees.HazardTrees.fit(rows, label, days=DAYS, **SMALL).score(seen_at(came, end, gap))[:, -1].mean()
    autumn, summer = ((1 - 3 / gap) ** DAYS).mean(), ((1 - 1 / gap) ** DAYS).mean()
    assert autumn == pytest.approx(0.04, abs=0.005)
    assert 2 * autumn < away < summer


def test_anybody_gets_a_curve_however_little_is_known() -> None:
    _, _, now = shop()
    strange = now.head(4).astype({"as_of_weekday": float})
    strange.loc[0, strange.columns[2:]] = np.nan
    strange.loc[1, ["recency_days", "tenure_days"]] = 4000.0
    strange.loc[2, ["purchase_days", "gap_mean_days"]] = [4000.0, np.inf]
    strange.loc[3, ["recency_days", "tenure_days"]] = -3.0
    curves = taught().score(strange)
    assert ((curves > 0) & (curves < 1)).all()
    assert taught().score(now.head(0)).shape == (0, DAYS)


def test_the_saved_model_gives_the_same_curves(tmp_path: Path) -> None:
    _, _, now = shop()
    bundle.write(taught(), tmp_path / "hazard", facts={})
    _, again = bundle.open_model(tmp_path / "hazard")
    assert (again.score(now) == taught().score(now)).all()
    assert (again.population_average() == taught().population_average()).all()


def test_the_same_seed_grows_the_same_trees() -> None:
    rows, label, now = shop()
    rows, label = rows[::3].reset_index(drop=True), label[::3].reset_index(drop=True)
    first, second, other = (
        hazard_trees.HazardTrees.fit(rows, label, days=7, seed=seed, **SMALL).score(now) for seed in (1, 1, 2)
    )
    assert (first == second).all()
    assert (first != other).any()


def test_thirty_customers_are_too_few_and_the_message_counts_them() -> None:
    rows, label, _ = shop()
    with pytest.raises(InsufficientData, match=r"\d+ next purchases were seen within 30 days and 300 are needed"):
        hazard_trees.HazardTrees.fit(rows.head(30), label.head(30), days=DAYS)
