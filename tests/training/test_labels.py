"""Labels are cut after the moment of the question, and only from days that are complete."""

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from training import calendar as training_calendar
from training import labels

NEW_YORK = "America/New_York"
MARCH_FIRST = datetime(2017, 3, 1, 5, tzinfo=UTC)  # the start of that day in New York


@pytest.fixture
def calendar() -> training_calendar.TrainingCalendar:
    return training_calendar.TrainingCalendar(
        first_day=date(2017, 1, 1), as_of=datetime(2017, 4, 1, 4, tzinfo=UTC), timezone=NEW_YORK
    )


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
    waits = labels.days_to_next_purchase(rows, purchases, NEW_YORK)
    np.testing.assert_array_equal(waits, [1, 29, np.nan])


def test_a_customer_without_any_purchase_has_no_next_one(purchases: pd.DataFrame) -> None:
    waits = labels.days_to_next_purchase(asked((3, MARCH_FIRST), (0, MARCH_FIRST)), purchases, NEW_YORK)
    assert np.isnan(waits).all()


def test_quiet_is_no_purchase_within_the_horizon(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    rows = asked((1, MARCH_FIRST), (2, MARCH_FIRST), (2**53 - 1, MARCH_FIRST))
    quiet = labels.churned(rows, purchases, days=28, calendar=calendar)
    np.testing.assert_array_equal(quiet, [0, 1, 1])


def test_a_window_that_still_runs_has_no_label(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    late = calendar.cutoff_before(27)
    quiet = labels.churned(asked((1, late), (2, calendar.cutoff_before(28))), purchases, days=28, calendar=calendar)
    assert np.isnan(quiet[0])
    assert quiet[1] == 0


def test_nothing_after_the_trial_becomes_a_label(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    rows = asked((1, MARCH_FIRST), (2, MARCH_FIRST))
    waits = labels.time_to_next_purchase(rows, purchases, calendar=calendar, until=date(2017, 3, 20))
    assert waits["observed"].tolist() == [True, False]
    assert waits["duration_days"].tolist() == [1, 19]


def test_who_has_not_come_back_is_kept_with_the_days_waited(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    waits = labels.time_to_next_purchase(asked((2**53 - 1, MARCH_FIRST)), purchases, calendar=calendar)
    assert waits.iloc[0].tolist() == [31, False]


def test_moments_start_days_in_the_shop_and_hold_the_windows(calendar: training_calendar.TrainingCalendar) -> None:
    moments = training_calendar.training_cutoffs(calendar, [14])
    assert moments[-1] == calendar.as_of
    assert {calendar.cutoff_before(14), calendar.cutoff_before(28)} <= set(moments)
    assert moments == sorted(moments)
    assert {calendar.cutoff_before(days).hour for days in (14, 28)} == {0}


def test_moments_ahead_do_not_all_begin_on_one_weekday() -> None:
    year = training_calendar.TrainingCalendar(date(2016, 1, 1), datetime(2017, 1, 1, tzinfo=UTC), "UTC")
    assert len({moment.weekday() for moment in training_calendar.training_cutoffs(year, [28, 90])}) > 3


def test_baskets_are_labels_only_where_their_window_is_over() -> None:
    early, late = MARCH_FIRST, datetime(2017, 3, 20, 4, tzinfo=UTC)
    baskets = {early: pd.DataFrame({"customer_key": [1], "product_keys": [np.array([7, 9])]})}
    truth = labels.products_bought_next(asked((1, early), (2, early), (1, late)), baskets)
    assert truth[0].tolist() == [7, 9]
    assert truth[1].tolist() == []
    assert truth[2] is None


def test_spend_counts_from_the_day_of_the_question_to_the_end_of_the_horizon(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    paid = purchases.assign(spend=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    rows = asked((1, MARCH_FIRST), (2, MARCH_FIRST), (2**53 - 1, MARCH_FIRST), (3, MARCH_FIRST))
    spent = labels.spend_within(rows, paid, days=28, calendar=calendar)
    assert spent.tolist() == [2 + 4, 0, 0, 0]
    assert labels.spend_within(rows[:2], paid, days=29, calendar=calendar).tolist() == [2 + 4, 16]
    assert np.isnan(labels.spend_within(rows, paid, days=32, calendar=calendar)).all()
    assert np.isnan(labels.spend_within(rows, paid, days=28, calendar=calendar, until=date(2017, 3, 28))).all()


def needed(rows: pd.DataFrame, calendar: training_calendar.TrainingCalendar, **until: date) -> np.ndarray:
    bought = pd.DataFrame(
        {
            "customer_key": [1, 1, 2**53 - 1],
            "category": ["TEA", "SALT", "TEA"],
            "day": [date(2017, 3, 7), date(2017, 3, 8), date(2017, 2, 1)],
        }
    )
    return labels.repurchased_within(rows, bought, horizons=(7, 14), calendar=calendar, **until).to_numpy()


def test_a_need_is_met_from_the_day_of_the_question_on(calendar: training_calendar.TrainingCalendar) -> None:
    rows = asked((1, MARCH_FIRST), (1, MARCH_FIRST), (1, MARCH_FIRST), (2**53 - 1, MARCH_FIRST), (9, MARCH_FIRST))
    rows = rows.assign(category=["TEA", "SALT", "MILK", "TEA", "TEA"])
    # The seventh day from the first of March is the seventh: the eighth is one too late.
    np.testing.assert_array_equal(needed(rows, calendar), [[1, 1], [0, 1], [0, 0], [0, 0], [0, 0]])


def test_a_need_is_unknown_while_its_days_still_run(calendar: training_calendar.TrainingCalendar) -> None:
    rows = asked((1, MARCH_FIRST)).assign(category="TEA")
    np.testing.assert_array_equal(needed(rows, calendar, until=date(2017, 3, 8)), [[1, np.nan]])
    np.testing.assert_array_equal(needed(rows, calendar, until=date(2017, 3, 7)), [[np.nan, np.nan]])


@pytest.fixture
def campaign() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Three customers got both offers on the first of March; offer 1 ran for 30 days, offer 2 for 100."""
    rows = pd.DataFrame([(c, MARCH_FIRST, o) for c in (1, 2, 3) for o in (1, 2)],
                        columns=["customer_key", "as_of", "offer_key"])  # fmt: skip
    ends = [MARCH_FIRST + pd.Timedelta(days=days) for days in (30, 100)]
    terms = pd.DataFrame({"offer_key": [1, 2], "starts_at": MARCH_FIRST, "ends_at": pd.to_datetime(ends, utc=True)})
    taken = pd.DataFrame(
        {
            "customer_key": [1, 2, 3],
            "offer_key": [1, 2, 1],
            "redeemed_at": pd.to_datetime(["2017-03-01T17:00Z", "2017-03-03T17:00Z", "2017-02-20T17:00Z"]),
        }
    )
    return rows, taken, terms


def test_an_offer_is_redeemed_from_the_moment_it_came(
    campaign: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], calendar: training_calendar.TrainingCalendar
) -> None:
    rows, taken, terms = campaign
    # Customer 3 redeemed something of that key before it came: that was another time.
    assert labels.redeemed(rows, taken, terms, calendar=calendar).tolist() == [1, 0, 0, 1, 0, 0]


def test_whoever_has_hardly_seen_an_offer_has_not_passed_it_over(
    campaign: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], calendar: training_calendar.TrainingCalendar
) -> None:
    rows, taken, terms = campaign
    fifth = labels.redeemed(rows, taken, terms, calendar=calendar, until=date(2017, 3, 5))
    assert labels.MIN_FOLLOW_UP_SHARE * 30 <= 4 < labels.MIN_FOLLOW_UP_SHARE * 100
    np.testing.assert_array_equal(fifth, [1, np.nan, 0, 1, 0, np.nan])
    same_day = labels.redeemed(rows, taken, terms, calendar=calendar, until=date(2017, 3, 1))
    assert np.isnan(same_day).all()
