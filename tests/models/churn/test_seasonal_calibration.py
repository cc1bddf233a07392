"""The season's line, on years in which more customers stay away at one time than at another."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from models.churn import seasonal_calibration
from models.churn.seasonal_calibration import PastPredictions, SeasonalCalibration
from models.estimators import platt_scaling
from models.estimators.platt_scaling import PlattScaling

NOW = np.datetime64("2025-09-01", "us")
H = 60


def past(days_ago: list[int], raised: list[float], *, customers: int = 1500, known: bool = True) -> PastPredictions:
    """Moments at which the rhythm said the right thing but for a season that raised all log odds by so much."""
    chance = np.random.default_rng(3)
    moment = np.repeat(NOW - np.array(days_ago).astype("timedelta64[D]"), customers)
    odds = chance.normal(-0.5, 1.0, len(moment))
    quiet = (chance.random(len(moment)) < expit(odds + np.repeat(raised, customers))).astype(float)
    over = moment + np.timedelta64(H, "D") <= NOW
    seen = 500 - (NOW - moment) / np.timedelta64(1, "D")
    return PastPredictions(moment, odds, np.where(over | (not known), quiet, np.nan), seen)


def test_what_the_rhythm_missed_a_year_ago_is_put_right_today() -> None:
    told = seasonal_calibration.fit_calibration(past([370, 364, 200, 100, 0], [0.9, -0.7, 0.5, 0.5, 0.0]), NOW, H)
    assert told.source == seasonal_calibration.A_YEAR_AGO
    assert told.day == "2024-09-02"
    assert told.line.offset == pytest.approx(-0.7, abs=0.15)
    assert told.line.slope == pytest.approx(1.0, abs=0.15)
    assert told.after < told.before
    assert told.customers == 1500


def test_a_year_ago_in_a_shops_first_months_tells_nothing() -> None:
    young = past([364, 200, 100, 0], [-0.7, 0.0, 0.0, 0.0])
    young = PastPredictions(
        young.cutoff, young.log_odds, young.churned, young.history_days - 40
    )  # 96 days of history then, not 120
    assert seasonal_calibration.fit_calibration(young, NOW, H) == SeasonalCalibration()


def test_where_the_rhythm_was_right_a_year_ago_nothing_changes() -> None:
    told = seasonal_calibration.fit_calibration(past([364, 0], [0.0, 0.0]), NOW, H)
    assert (told.source, told.line) == (seasonal_calibration.A_YEAR_AGO, PlattScaling())


def test_without_a_year_ago_what_was_always_wrong_is_put_right() -> None:
    told = seasonal_calibration.fit_calibration(past([280, 210, 140, 70, 0], [0.6] * 5), NOW, H)
    assert told.source in (seasonal_calibration.EARLIER, seasonal_calibration.LATEST)
    assert told.line.offset == pytest.approx(0.6, abs=0.15)


def test_without_a_year_ago_the_latest_moment_is_not_believed_where_seasons_change() -> None:
    assert (
        seasonal_calibration.fit_calibration(past([280, 210, 140, 70, 0], [0.9, -0.9, 0.9, -0.9, 0.9]), NOW, H)
        == SeasonalCalibration()
    )


def test_no_line_is_drawn_through_few_customers_and_none_turns_round() -> None:
    few = np.linspace(-1, 1, 59)
    assert platt_scaling.fit_platt(few, (few > 0).astype(float)) == PlattScaling()
    odds = np.random.default_rng(0).normal(size=2000)
    turned = (np.random.default_rng(1).random(2000) < expit(-odds)).astype(float)
    assert platt_scaling.fit_platt(odds, turned).slope == 1.0, "its level may be told, its order not"


def test_the_line_finds_boasting() -> None:
    odds = np.random.default_rng(1).normal(-1, 1.5, 20_000)
    quiet = (np.random.default_rng(2).random(20_000) < expit(odds)).astype(float)
    found = platt_scaling.fit_platt(3 * odds + 1, quiet)
    assert found.slope == pytest.approx(1 / 3, abs=0.02)
    assert found(3 * odds + 1) == pytest.approx(odds, abs=0.2)


def test_a_shift_brings_the_mean_chance_to_the_level_asked_for_and_not_to_infinity() -> None:
    odds = logit(np.array([0.1, 0.2, 0.6]))
    assert expit(odds + platt_scaling.shift_to_mean(odds, 0.5)).mean() == pytest.approx(0.5)
    assert platt_scaling.shift_to_mean(odds, 0.3) == pytest.approx(0.0, abs=1e-6)
    assert platt_scaling.shift_to_mean(odds, 1.0) == platt_scaling.MAX_SHIFT
    assert platt_scaling.shift_to_mean(odds, 0.0) == -platt_scaling.MAX_SHIFT
    assert platt_scaling.shift_to_mean(np.empty(0), 0.5) == 0.0


def test_a_season_is_kept_as_numbers() -> None:
    told = seasonal_calibration.fit_calibration(past([364, 0], [-0.7, 0.0]), NOW, H)
    saved = json.loads(json.dumps(told.to_dict()))
    assert saved["told_by"] == told.source, "the key of bundles of 0.4.0"
    assert SeasonalCalibration.from_dict(saved) == told


def test_a_season_in_which_customers_are_less_far_apart_flattens_the_answers_by_half_as_much() -> None:
    chance = np.random.default_rng(5)
    then, flat = past([364, 200, 100, 0], [0.0, 0.0, 0.0, 0.0]), np.datetime64("2024-09-02", "us")
    drawn = (chance.random(len(then.log_odds)) < expit(0.49 * then.log_odds)).astype(float)
    mixed = PastPredictions(
        then.cutoff, then.log_odds, np.where(then.cutoff == flat, drawn, then.churned), then.history_days
    )
    told = seasonal_calibration.fit_calibration(mixed, NOW, H)
    assert told.line.slope == pytest.approx(0.49, abs=0.12)
    pooled = platt_scaling.fit_platt(mixed.with_outcome().log_odds, mixed.with_outcome().churned).slope
    assert seasonal_calibration.slope_ratio(told, mixed) == pytest.approx(np.sqrt(told.line.slope / pooled))
    assert seasonal_calibration.slope_ratio(seasonal_calibration.NO_SEASON, mixed) == 1.0


def test_a_line_that_would_turn_round_still_tells_the_level() -> None:
    chance = np.random.default_rng(3)
    odds, quiet = chance.normal(1.0, 0.5, 2_000), np.zeros(2_000)
    quiet[np.argsort(odds)[:600]] = 1.0
    drawn = platt_scaling.fit_platt(odds, quiet)
    assert drawn.slope == 1.0
    assert expit(drawn(odds)).mean() == pytest.approx(0.3, abs=1e-3)
