"""Periods and horizons end at a local midnight, also where the clocks went forward in between."""

from __future__ import annotations

import numpy as np

from models.churn import person_periods, seasonal_calibration
from models.churn.person_periods import PeriodInputs
from models.survival import censored_durations
from models.survival.censored_durations import CensoredDurations

#: Midnights in London with 90 days between them; in UTC it is an hour less.
MARCH, JUNE = np.datetime64("2011-03-15T00:00", "us"), np.datetime64("2011-06-12T23:00", "us")
PERIOD_EDGES = person_periods.period_edges(90)


def test_whole_days_have_elapsed_at_a_midnight_of_summer_time_and_not_one_day_sooner() -> None:
    assert censored_durations.has_elapsed(np.array([MARCH]), 90, JUNE).all()
    assert not censored_durations.has_elapsed(np.array([MARCH]), 91, JUNE).any()
    before, after = np.datetime64("2011-10-15T23:00", "us"), np.datetime64("2011-11-15T00:00", "us")
    assert censored_durations.has_elapsed(np.array([before]), 30, after).all()
    assert not censored_durations.has_elapsed(np.array([before]), 31, after - np.timedelta64(1, "D")).any()


def test_a_purchase_on_the_last_day_before_a_midnight_of_summer_time_is_observed() -> None:
    durations = CensoredDurations(np.array([90, 120]), np.array([True, True]), np.array([MARCH, MARCH])).censored_at(
        JUNE
    )
    assert durations.follow_up_days.tolist() == [90, 90]
    assert durations.has_purchase.tolist() == [True, False]


def test_every_period_has_a_row_though_the_clocks_went_forward() -> None:
    durations = CensoredDurations(np.array([90]), np.array([False]), np.array([MARCH]))
    inputs = PeriodInputs(
        np.zeros((1, 1), np.float32), np.zeros((1, len(PERIOD_EDGES) - 1)), np.ones(1), np.ones((1, 1))
    )
    assert person_periods.expand_periods(inputs, durations, PERIOD_EDGES, JUNE).period.tolist() == [0, 1, 2, 3]


def test_a_season_is_validated_on_the_cutoff_that_ended_as_the_next_began() -> None:
    churned = np.tile([0.0, 1.0], 80)
    cutoff = np.repeat([MARCH, JUNE], 80)
    past = seasonal_calibration.PastPredictions(cutoff, np.tile([-0.5, 0.5], 80), churned, np.full(160, 400.0))
    assert seasonal_calibration._validation_losses(past, JUNE, 90) is not None
    assert seasonal_calibration._validation_losses(past, JUNE, 91) is None
