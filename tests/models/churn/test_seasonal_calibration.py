"""Seasonal calibration, on years in which more customers churn at one time than at another."""

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


def past_predictions(
    days_ago: list[int], raised: list[float], *, customers: int = 1500, only_complete: bool = True
) -> PastPredictions:
    """Cutoffs at which BG/NBD is right except for a season that shifts all log odds by `raised`."""
    rng = np.random.default_rng(3)
    cutoff = np.repeat(NOW - np.array(days_ago).astype("timedelta64[D]"), customers)
    odds = rng.normal(-0.5, 1.0, len(cutoff))
    churned = (rng.random(len(cutoff)) < expit(odds + np.repeat(raised, customers))).astype(float)
    is_complete = cutoff + np.timedelta64(H, "D") <= NOW
    history_days = 500 - (NOW - cutoff) / np.timedelta64(1, "D")
    return PastPredictions(cutoff, odds, np.where(is_complete | (not only_complete), churned, np.nan), history_days)


def test_the_error_of_bg_nbd_a_year_ago_is_corrected_today() -> None:
    calibration = seasonal_calibration.fit_calibration(
        past_predictions([370, 364, 200, 100, 0], [0.9, -0.7, 0.5, 0.5, 0.0]), NOW, H
    )
    assert calibration.source == seasonal_calibration.A_YEAR_AGO
    assert calibration.day == "2024-09-02"
    assert calibration.line.offset == pytest.approx(-0.7, abs=0.15)
    assert calibration.line.slope == pytest.approx(1.0, abs=0.15)
    assert calibration.after < calibration.before
    assert calibration.customers == 1500


def test_a_year_ago_within_a_shops_first_months_is_not_used() -> None:
    young = past_predictions([364, 200, 100, 0], [-0.7, 0.0, 0.0, 0.0])
    young = PastPredictions(
        young.cutoff, young.log_odds, young.churned, young.history_days - 40
    )  # 96 days of history then, not 120
    assert seasonal_calibration.fit_calibration(young, NOW, H) == SeasonalCalibration()


def test_where_bg_nbd_was_right_a_year_ago_nothing_changes() -> None:
    calibration = seasonal_calibration.fit_calibration(past_predictions([364, 0], [0.0, 0.0]), NOW, H)
    assert (calibration.source, calibration.line) == (seasonal_calibration.A_YEAR_AGO, PlattScaling())


def test_without_a_year_of_history_a_constant_error_is_corrected() -> None:
    calibration = seasonal_calibration.fit_calibration(past_predictions([280, 210, 140, 70, 0], [0.6] * 5), NOW, H)
    assert calibration.source in (seasonal_calibration.EARLIER, seasonal_calibration.LATEST)
    assert calibration.line.offset == pytest.approx(0.6, abs=0.15)


def test_without_a_year_of_history_the_latest_cutoff_is_not_used_where_seasons_change() -> None:
    assert (
        seasonal_calibration.fit_calibration(
            past_predictions([280, 210, 140, 70, 0], [0.9, -0.9, 0.9, -0.9, 0.9]), NOW, H
        )
        == SeasonalCalibration()
    )


def test_platt_scaling_needs_enough_customers_and_never_has_a_negative_slope() -> None:
    few = np.linspace(-1, 1, 59)
    assert platt_scaling.fit_platt(few, (few > 0).astype(float)) == PlattScaling()
    odds = np.random.default_rng(0).normal(size=2000)
    reversed_outcomes = (np.random.default_rng(1).random(2000) < expit(-odds)).astype(float)
    assert platt_scaling.fit_platt(odds, reversed_outcomes).slope == 1.0, "the level may be corrected, the order not"


def test_platt_scaling_corrects_overconfidence() -> None:
    odds = np.random.default_rng(1).normal(-1, 1.5, 20_000)
    churned = (np.random.default_rng(2).random(20_000) < expit(odds)).astype(float)
    scaling = platt_scaling.fit_platt(3 * odds + 1, churned)
    assert scaling.slope == pytest.approx(1 / 3, abs=0.02)
    assert scaling(3 * odds + 1) == pytest.approx(odds, abs=0.2)


def test_a_shift_brings_the_mean_probability_to_the_requested_level_within_bounds() -> None:
    odds = logit(np.array([0.1, 0.2, 0.6]))
    assert expit(odds + platt_scaling.shift_to_mean(odds, 0.5)).mean() == pytest.approx(0.5)
    assert platt_scaling.shift_to_mean(odds, 0.3) == pytest.approx(0.0, abs=1e-6)
    assert platt_scaling.shift_to_mean(odds, 1.0) == platt_scaling.MAX_SHIFT
    assert platt_scaling.shift_to_mean(odds, 0.0) == -platt_scaling.MAX_SHIFT
    assert platt_scaling.shift_to_mean(np.empty(0), 0.5) == 0.0


def test_a_calibration_is_saved_as_numbers() -> None:
    calibration = seasonal_calibration.fit_calibration(past_predictions([364, 0], [-0.7, 0.0]), NOW, H)
    saved = json.loads(json.dumps(calibration.to_dict()))
    assert saved["told_by"] == calibration.source, "the key of bundles of 0.4.0"
    assert SeasonalCalibration.from_dict(saved) == calibration


def test_a_season_that_separates_customers_less_shrinks_the_slope_by_half_as_much() -> None:
    rng = np.random.default_rng(5)
    predictions, season_cutoff = (
        past_predictions([364, 200, 100, 0], [0.0, 0.0, 0.0, 0.0]),
        np.datetime64("2024-09-02", "us"),
    )
    churned = (rng.random(len(predictions.log_odds)) < expit(0.49 * predictions.log_odds)).astype(float)
    mixed = PastPredictions(
        predictions.cutoff,
        predictions.log_odds,
        np.where(predictions.cutoff == season_cutoff, churned, predictions.churned),
        predictions.history_days,
    )
    calibration = seasonal_calibration.fit_calibration(mixed, NOW, H)
    assert calibration.line.slope == pytest.approx(0.49, abs=0.12)
    pooled = platt_scaling.fit_platt(mixed.with_outcome().log_odds, mixed.with_outcome().churned).slope
    assert seasonal_calibration.slope_ratio(calibration, mixed) == pytest.approx(
        np.sqrt(calibration.line.slope / pooled)
    )
    assert seasonal_calibration.slope_ratio(seasonal_calibration.NO_SEASON, mixed) == 1.0


def test_platt_scaling_of_reversed_outcomes_still_corrects_the_level() -> None:
    rng = np.random.default_rng(3)
    odds, churned = rng.normal(1.0, 0.5, 2_000), np.zeros(2_000)
    churned[np.argsort(odds)[:600]] = 1.0
    scaling = platt_scaling.fit_platt(odds, churned)
    assert scaling.slope == 1.0
    assert expit(scaling(odds)).mean() == pytest.approx(0.3, abs=1e-3)
