"""Labels are cut after the moment of the question, and only from days that are complete."""

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from training import labels

NEW_YORK = "America/New_York"
MARCH_FIRST = datetime(2017, 3, 1, 5, tzinfo=UTC)  # the start of that day in New York


@pytest.fixture
def calendar() -> labels.Calendar:
    return labels.Calendar(first_day=date(2017, 1, 1), as_of=datetime(2017, 4, 1, 4, tzinfo=UTC), timezone=NEW_YORK)


@pytest.fixture
def purchases() -> pd.DataFrame:
    days = {
        1: ["2017-02-01", "2017-03-01", "2017-03-05"],
        2: ["2017-02-10", "2017-03-29"],
        2**53 - 1: ["2017-02-20"],
    }
    return pd.DataFrame([(key, date.fromisoformat(day)) for key, own in days.items() for day in own],
                        columns=["customer_key", "day"])  # fmt: skip


def asked(*moments: tuple[int, datetime]) -> pd.DataFrame:
    return pd.DataFrame(moments, columns=["customer_key", "as_of"])


def test_the_day_of_the_question_is_the_first_that_counts(purchases: pd.DataFrame) -> None:
    rows = asked((1, MARCH_FIRST), (2, MARCH_FIRST), (2**53 - 1, MARCH_FIRST))
    waits = labels.next_purchase_days(rows, purchases, NEW_YORK)
    np.testing.assert_array_equal(waits, [1, 29, np.nan])


def test_a_customer_without_any_purchase_has_no_next_one(purchases: pd.DataFrame) -> None:
    waits = labels.next_purchase_days(asked((3, MARCH_FIRST), (0, MARCH_FIRST)), purchases, NEW_YORK)
    assert np.isnan(waits).all()


def test_quiet_is_no_purchase_within_the_horizon(purchases: pd.DataFrame, calendar: labels.Calendar) -> None:
    rows = asked((1, MARCH_FIRST), (2, MARCH_FIRST), (2**53 - 1, MARCH_FIRST))
    quiet = labels.gone_quiet(rows, purchases, days=28, calendar=calendar)
    np.testing.assert_array_equal(quiet, [0, 1, 1])


def test_a_window_that_still_runs_has_no_label(purchases: pd.DataFrame, calendar: labels.Calendar) -> None:
    late = calendar.back(27)
    quiet = labels.gone_quiet(asked((1, late), (2, calendar.back(28))), purchases, days=28, calendar=calendar)
    assert np.isnan(quiet[0])
    assert quiet[1] == 0


def test_nothing_after_the_trial_becomes_a_label(purchases: pd.DataFrame, calendar: labels.Calendar) -> None:
    rows = asked((1, MARCH_FIRST), (2, MARCH_FIRST))
    waits = labels.time_to_next(rows, purchases, calendar=calendar, until=date(2017, 3, 20))
    assert waits["observed"].tolist() == [True, False]
    assert waits["duration_days"].tolist() == [1, 19]


def test_who_has_not_come_back_is_kept_with_the_days_waited(purchases: pd.DataFrame, calendar: labels.Calendar) -> None:
    waits = labels.time_to_next(asked((2**53 - 1, MARCH_FIRST)), purchases, calendar=calendar)
    assert waits.iloc[0].tolist() == [31, False]


def test_moments_start_days_in_the_shop_and_hold_the_windows(calendar: labels.Calendar) -> None:
    moments = labels.moments(calendar, [14])
    assert moments[-1] == calendar.as_of
    assert {calendar.back(14), calendar.back(28)} <= set(moments)
    assert moments == sorted(moments)
    assert {calendar.back(days).hour for days in (14, 28)} == {0}


def test_moments_ahead_do_not_all_begin_on_one_weekday() -> None:
    year = labels.Calendar(date(2016, 1, 1), datetime(2017, 1, 1, tzinfo=UTC), "UTC")
    assert len({moment.weekday() for moment in labels.moments(year, [28, 90])}) > 3


def test_baskets_are_labels_only_where_their_window_is_over() -> None:
    early, late = MARCH_FIRST, datetime(2017, 3, 20, 4, tzinfo=UTC)
    baskets = {early: pd.DataFrame({"customer_key": [1], "product_keys": [np.array([7, 9])]})}
    truth = labels.bought_next(asked((1, early), (2, early), (1, late)), baskets)
    assert truth[0].tolist() == [7, 9]
    assert truth[1].tolist() == []
    assert truth[2] is None
