"""Labels are computed from days after the cutoff, and only from days that are complete."""

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


def label_rows(*cutoffs: tuple[int, datetime]) -> pd.DataFrame:
    return pd.DataFrame(cutoffs, columns=["customer_key", "as_of"])


def test_the_day_of_the_cutoff_is_the_first_that_counts(purchases: pd.DataFrame) -> None:
    rows = label_rows((1, MARCH_FIRST), (2, MARCH_FIRST), (2**53 - 1, MARCH_FIRST))
    days = labels.days_to_next_purchase(rows, purchases, NEW_YORK)
    np.testing.assert_array_equal(days, [1, 29, np.nan])


def test_a_customer_without_any_purchase_has_no_next_one(purchases: pd.DataFrame) -> None:
    days = labels.days_to_next_purchase(label_rows((3, MARCH_FIRST), (0, MARCH_FIRST)), purchases, NEW_YORK)
    assert np.isnan(days).all()


def test_churned_is_no_purchase_within_the_horizon(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    rows = label_rows((1, MARCH_FIRST), (2, MARCH_FIRST), (2**53 - 1, MARCH_FIRST))
    churned = labels.churned(rows, purchases, days=28, calendar=calendar)
    np.testing.assert_array_equal(churned, [0, 1, 1])


def test_a_window_that_is_not_over_has_no_label(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    late_cutoff = calendar.cutoff_before(27)
    churned = labels.churned(
        label_rows((1, late_cutoff), (2, calendar.cutoff_before(28))), purchases, days=28, calendar=calendar
    )
    assert np.isnan(churned[0])
    assert churned[1] == 0


def test_nothing_after_the_training_period_becomes_a_label(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    rows = label_rows((1, MARCH_FIRST), (2, MARCH_FIRST))
    durations = labels.time_to_next_purchase(rows, purchases, calendar=calendar, until=date(2017, 3, 20))
    assert durations["observed"].tolist() == [True, False]
    assert durations["duration_days"].tolist() == [1, 19]


def test_a_customer_without_a_next_purchase_is_right_censored_at_the_follow_up_days(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    durations = labels.time_to_next_purchase(label_rows((2**53 - 1, MARCH_FIRST)), purchases, calendar=calendar)
    assert durations.iloc[0].tolist() == [31, False]


def test_cutoffs_are_midnights_in_the_shop_and_include_the_windows(
    calendar: training_calendar.TrainingCalendar,
) -> None:
    cutoffs = training_calendar.training_cutoffs(calendar, [14])
    assert cutoffs[-1] == calendar.as_of
    assert {calendar.cutoff_before(14), calendar.cutoff_before(28)} <= set(cutoffs)
    assert cutoffs == sorted(cutoffs)
    assert {calendar.cutoff_before(days).hour for days in (14, 28)} == {0}


def test_training_cutoffs_are_not_all_on_one_weekday() -> None:
    year = training_calendar.TrainingCalendar(date(2016, 1, 1), datetime(2017, 1, 1, tzinfo=UTC), "UTC")
    assert len({cutoff.weekday() for cutoff in training_calendar.training_cutoffs(year, [28, 90])}) > 3


def test_baskets_are_labels_only_where_their_window_is_over() -> None:
    early_cutoff, late_cutoff = MARCH_FIRST, datetime(2017, 3, 20, 4, tzinfo=UTC)
    baskets = {early_cutoff: pd.DataFrame({"customer_key": [1], "product_keys": [np.array([7, 9])]})}
    label = labels.products_bought_next(label_rows((1, early_cutoff), (2, early_cutoff), (1, late_cutoff)), baskets)
    assert label[0].tolist() == [7, 9]
    assert label[1].tolist() == []
    assert label[2] is None


def test_spend_counts_from_the_day_of_the_cutoff_to_the_end_of_the_horizon(
    purchases: pd.DataFrame, calendar: training_calendar.TrainingCalendar
) -> None:
    purchases_with_spend = purchases.assign(spend=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    rows = label_rows((1, MARCH_FIRST), (2, MARCH_FIRST), (2**53 - 1, MARCH_FIRST), (3, MARCH_FIRST))
    spent = labels.spend_within(rows, purchases_with_spend, days=28, calendar=calendar)
    assert spent.tolist() == [2 + 4, 0, 0, 0]
    assert labels.spend_within(rows[:2], purchases_with_spend, days=29, calendar=calendar).tolist() == [2 + 4, 16]
    assert np.isnan(labels.spend_within(rows, purchases_with_spend, days=32, calendar=calendar)).all()
    assert np.isnan(
        labels.spend_within(rows, purchases_with_spend, days=28, calendar=calendar, until=date(2017, 3, 28))
    ).all()


def repurchased(rows: pd.DataFrame, calendar: training_calendar.TrainingCalendar, **until: date) -> np.ndarray:
    bought = pd.DataFrame(
        {
            "customer_key": [1, 1, 2**53 - 1],
            "category": ["TEA", "SALT", "TEA"],
            "day": [date(2017, 3, 7), date(2017, 3, 8), date(2017, 2, 1)],
        }
    )
    return labels.repurchased_within(rows, bought, horizons=(7, 14), calendar=calendar, **until).to_numpy()


def test_a_category_is_repurchased_from_the_day_of_the_cutoff_on(calendar: training_calendar.TrainingCalendar) -> None:
    rows = label_rows((1, MARCH_FIRST), (1, MARCH_FIRST), (1, MARCH_FIRST), (2**53 - 1, MARCH_FIRST), (9, MARCH_FIRST))
    rows = rows.assign(category=["TEA", "SALT", "MILK", "TEA", "TEA"])
    # The seven days from 1 March end on 7 March: a purchase on the eighth is one day too late.
    np.testing.assert_array_equal(repurchased(rows, calendar), [[1, 1], [0, 1], [0, 0], [0, 0], [0, 0]])


def test_a_repurchase_label_is_unknown_until_its_horizon_is_over(calendar: training_calendar.TrainingCalendar) -> None:
    rows = label_rows((1, MARCH_FIRST)).assign(category="TEA")
    np.testing.assert_array_equal(repurchased(rows, calendar, until=date(2017, 3, 8)), [[1, np.nan]])
    np.testing.assert_array_equal(repurchased(rows, calendar, until=date(2017, 3, 7)), [[np.nan, np.nan]])


@pytest.fixture
def campaign() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Three customers received both offers on 1 March; offer 1 is valid for 30 days, offer 2 for 100."""
    rows = pd.DataFrame([(c, MARCH_FIRST, o) for c in (1, 2, 3) for o in (1, 2)],
                        columns=["customer_key", "as_of", "offer_key"])  # fmt: skip
    ends = [MARCH_FIRST + pd.Timedelta(days=days) for days in (30, 100)]
    offers = pd.DataFrame({"offer_key": [1, 2], "starts_at": MARCH_FIRST, "ends_at": pd.to_datetime(ends, utc=True)})
    redemptions = pd.DataFrame(
        {
            "customer_key": [1, 2, 3],
            "offer_key": [1, 2, 1],
            "redeemed_at": pd.to_datetime(["2017-03-01T17:00Z", "2017-03-03T17:00Z", "2017-02-20T17:00Z"]),
        }
    )
    return rows, redemptions, offers


def test_an_offer_is_redeemed_from_the_time_it_was_received(
    campaign: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], calendar: training_calendar.TrainingCalendar
) -> None:
    rows, redemptions, offers = campaign
    # Customer 3 redeemed an offer of that key before this one was received: that is no redemption of it.
    assert labels.redeemed(rows, redemptions, offers, calendar=calendar).tolist() == [1, 0, 0, 1, 0, 0]


def test_an_offer_with_little_follow_up_is_not_a_negative(
    campaign: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], calendar: training_calendar.TrainingCalendar
) -> None:
    rows, redemptions, offers = campaign
    until_fifth = labels.redeemed(rows, redemptions, offers, calendar=calendar, until=date(2017, 3, 5))
    assert labels.MIN_FOLLOW_UP_SHARE * 30 <= 4 < labels.MIN_FOLLOW_UP_SHARE * 100
    np.testing.assert_array_equal(until_fifth, [1, np.nan, 0, 1, 0, np.nan])
    same_day = labels.redeemed(rows, redemptions, offers, calendar=calendar, until=date(2017, 3, 1))
    assert np.isnan(same_day).all()
