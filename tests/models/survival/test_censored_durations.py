"""A quarter of a year is over on its last midnight, though the clocks went forward meanwhile."""

from __future__ import annotations

import numpy as np

from models.churn import person_periods, seasonal_calibration
from models.churn.person_periods import PeriodInputs
from models.survival import censored_durations
from models.survival.censored_durations import CensoredDurations

#: Midnights in London with 90 days between them, an hour less by the clock of UTC.
MARCH, JUNE = np.datetime64("2011-03-15T00:00", "us"), np.datetime64("2011-06-12T23:00", "us")
QUARTERS = person_periods.period_edges(90)


def test_whole_days_are_over_at_a_midnight_of_summer_time_and_not_one_day_sooner() -> None:
    assert censored_durations.has_elapsed(np.array([MARCH]), 90, JUNE).all()
    assert not censored_durations.has_elapsed(np.array([MARCH]), 91, JUNE).any()
    before, after = np.datetime64("2011-10-15T23:00", "us"), np.datetime64("2011-11-15T00:00", "us")
    assert censored_durations.has_elapsed(np.array([before]), 30, after).all()
    assert not censored_durations.has_elapsed(np.array([before]), 31, after - np.timedelta64(1, "D")).any()


def test_who_came_on_the_last_day_before_summer_times_midnight_is_seen_to_have_come() -> None:
    watch = CensoredDurations(np.array([90, 120]), np.array([True, True]), np.array([MARCH, MARCH])).censored_at(JUNE)
    assert watch.follow_up_days.tolist() == [90, 90]
    assert watch.has_purchase.tolist() == [True, False]


def test_every_quarter_is_asked_about_though_the_clocks_went_forward() -> None:
    watch = CensoredDurations(np.array([90]), np.array([False]), np.array([MARCH]))
    given = PeriodInputs(np.zeros((1, 1), np.float32), np.zeros((1, len(QUARTERS) - 1)), np.ones(1), np.ones((1, 1)))
    assert person_periods.expand_periods(given, watch, QUARTERS, JUNE).period.tolist() == [0, 1, 2, 3]


def test_a_season_is_tried_on_the_moment_that_ended_as_the_next_began() -> None:
    quiet = np.tile([0.0, 1.0], 80)
    moment = np.repeat([MARCH, JUNE], 80)
    past = seasonal_calibration.PastPredictions(moment, np.tile([-0.5, 0.5], 80), quiet, np.full(160, 400.0))
    assert seasonal_calibration._validation_losses(past, JUNE, 90) is not None
    assert seasonal_calibration._validation_losses(past, JUNE, 91) is None
