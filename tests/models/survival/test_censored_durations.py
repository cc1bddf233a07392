"""A quarter of a year is over on its last midnight, though the clocks went forward meanwhile."""

from __future__ import annotations

import numpy as np

from models import asking, season, waits
from models.asking import Given
from models.waits import Waits

#: Midnights in London with 90 days between them, an hour less by the clock of UTC.
MARCH, JUNE = np.datetime64("2011-03-15T00:00", "us"), np.datetime64("2011-06-12T23:00", "us")
QUARTERS = asking.ends(90)


def test_whole_days_are_over_at_a_midnight_of_summer_time_and_not_one_day_sooner() -> None:
    assert waits.over(np.array([MARCH]), 90, JUNE).all()
    assert not waits.over(np.array([MARCH]), 91, JUNE).any()
    before, after = np.datetime64("2011-10-15T23:00", "us"), np.datetime64("2011-11-15T00:00", "us")
    assert waits.over(np.array([before]), 30, after).all()
    assert not waits.over(np.array([before]), 31, after - np.timedelta64(1, "D")).any()


def test_who_came_on_the_last_day_before_summer_times_midnight_is_seen_to_have_come() -> None:
    watch = Waits(np.array([90, 120]), np.array([True, True]), np.array([MARCH, MARCH])).until(JUNE)
    assert watch.watched.tolist() == [90, 90]
    assert watch.bought.tolist() == [True, False]


def test_every_quarter_is_asked_about_though_the_clocks_went_forward() -> None:
    watch = Waits(np.array([90]), np.array([False]), np.array([MARCH]))
    given = Given(np.zeros((1, 1), np.float32), np.zeros((1, len(QUARTERS) - 1)), np.ones(1), np.ones((1, 1)))
    assert asking.ask(given, watch, QUARTERS, JUNE).quarter.tolist() == [0, 1, 2, 3]


def test_a_season_is_tried_on_the_moment_that_ended_as_the_next_began() -> None:
    quiet = np.tile([0.0, 1.0], 80)
    moment = np.repeat([MARCH, JUNE], 80)
    past = season.Past(moment, np.tile([-0.5, 0.5], 80), quiet, np.full(160, 400.0))
    assert season._trial(past, JUNE, 90) is not None
    assert season._trial(past, JUNE, 91) is None
