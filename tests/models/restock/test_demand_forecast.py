"""Supply, on a shelf of three products of two categories, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.restock import demand_forecast
from models.restock.demand_forecast import CATEGORY_SHARED, LAST_WEEK, MEAN_4_WEEKS, NEEDS_SHARED, WEEKS, WeeklySales

#: Milk and cream are dairy, bread is not; the latest week first.
UNITS = np.array([[8.0, 4, 4, 0, *[4.0] * 8], [0.0, 0, 0, 0, *[4.0] * 8], [10.0, 10, 10, 10, *[10.0] * 8]])
SHELF = WeeklySales(UNITS, np.array([0, 0, 1]), np.array([1.0, 1.0, 2.0]))


def needs(recency_days: float, *, times: float = 11.0, count: int = 50, category: str = "DAIRY") -> pd.DataFrame:
    numbers = {"need_times": times, "need_recency_days": recency_days, "need_first_days": recency_days + 100.0}
    return pd.DataFrame({"category": [category] * count} | numbers)


def test_the_plain_ways_are_last_week_and_the_mean_of_four() -> None:
    said = demand_forecast.forecast_units(SHELF, (LAST_WEEK, MEAN_4_WEEKS))
    assert said[LAST_WEEK][:, 0].tolist() == [8, 0, 10]
    assert said[MEAN_4_WEEKS].tolist() == [[4.0] * WEEKS, [0.0] * WEEKS, [10.0] * WEEKS]


def test_a_category_keeps_its_mean_and_shares_it_as_its_products_have_sold_for_longer() -> None:
    said = demand_forecast.forecast_units(SHELF, (CATEGORY_SHARED,))[CATEGORY_SHARED]
    assert said[:2, 0].sum() == pytest.approx((8 + 4 + 4 + 0) / 4)
    assert 0 < said[1, 0] < said[0, 0]
    assert said[2].tolist() == pytest.approx([10.0] * WEEKS)


def test_an_earlier_moment_knows_nothing_of_the_weeks_after_it() -> None:
    earlier = SHELF.weeks_earlier(WEEKS)
    assert demand_forecast.forecast_units(earlier, (MEAN_4_WEEKS,))[MEAN_4_WEEKS][:, 0].tolist() == [4, 4, 10]
    assert SHELF.actual_units(WEEKS).tolist() == [[0, 4, 4, 8], [0, 0, 0, 0], [10, 10, 10, 10]]


def test_fresh_needs_foretell_more_than_old_ones_and_none_foretells_nothing() -> None:
    categories = pd.Index(["DAIRY", "BREAD"])
    fresh, old = (demand_forecast.expected_purchases(needs(days), categories) for days in (5.0, 90.0))
    assert fresh.shape == (2, WEEKS)
    assert fresh[0].sum() > 2 * old[0].sum() > 0
    assert fresh[1].sum() == 0
    assert demand_forecast.expected_purchases(needs(5.0, times=2.0), categories).sum() == 0


def test_more_needs_than_a_month_ago_raise_what_is_expected() -> None:
    now, then = np.full((2, WEEKS), [[30.0], [10.0]]), np.full((2, WEEKS), [[20.0], [10.0]])
    growth = demand_forecast.need_growth(now, then)
    usual = (4 * 40) / (4 * 30)
    assert growth[0, 0] == pytest.approx(
        (120 + demand_forecast.PRIOR_PURCHASES * usual) / (80 + demand_forecast.PRIOR_PURCHASES)
    )
    assert growth[1, 0] == pytest.approx(
        (40 + demand_forecast.PRIOR_PURCHASES * usual) / (40 + demand_forecast.PRIOR_PURCHASES)
    )
    said = demand_forecast.forecast_units(SHELF, (CATEGORY_SHARED, NEEDS_SHARED), growth)
    assert said[NEEDS_SHARED][2, 0] == pytest.approx(said[CATEGORY_SHARED][2, 0] * growth[1, 0])


def test_without_needs_nothing_is_said_of_them() -> None:
    assert set(demand_forecast.forecast_units(SHELF, (LAST_WEEK, MEAN_4_WEEKS, NEEDS_SHARED))) == {
        LAST_WEEK,
        MEAN_4_WEEKS,
    }
    assert (demand_forecast.need_growth(np.zeros((1, WEEKS)), np.zeros((1, WEEKS))) == 1).all()


def test_the_error_is_what_was_wrong_over_what_was_sold_in_money() -> None:
    came = np.array([[2.0], [0.0], [5.0]])
    said = np.array([[1.0], [1.0], [7.0]])
    assert demand_forecast.wape(SHELF, came, said) == pytest.approx((1 + 1 + 2 * 2) / (2 + 5 * 2))
    assert demand_forecast.wape(SHELF, came, said, by_category=True) == pytest.approx((0 + 2 * 2) / (2 + 5 * 2))
    assert np.isnan(demand_forecast.wape(SHELF, came * 0, said))


def test_the_best_way_errs_least_over_products_and_categories_and_the_plainer_wins_a_tie() -> None:
    rows = [
        (LAST_WEEK, 4, 1.0, 0.3),
        (MEAN_4_WEEKS, 4, 0.8, 0.2),
        (CATEGORY_SHARED, 4, 0.7, 0.3),
        (NEEDS_SHARED, 4, 0.9, 0.1),
    ]
    figures = pd.DataFrame(rows, columns=["way", "weeks_back", "products", "categories"])
    assert demand_forecast.best_method(figures) == MEAN_4_WEEKS
    assert demand_forecast.best_method(figures[figures["way"] != MEAN_4_WEEKS]) == CATEGORY_SHARED
    assert demand_forecast.best_method(figures.head(0)) == MEAN_4_WEEKS


def test_a_way_that_could_not_speak_of_the_hard_month_is_compared_on_the_other_alone() -> None:
    easy = [(MEAN_4_WEEKS, 4, 0.4, 0.2), (CATEGORY_SHARED, 4, 0.3, 0.2), (NEEDS_SHARED, 4, 0.5, 0.2)]
    hard = [(MEAN_4_WEEKS, 8, 0.9, 0.9), (CATEGORY_SHARED, 8, 0.9, 0.9)]
    figures = pd.DataFrame(easy + hard, columns=["way", "weeks_back", "products", "categories"])
    assert demand_forecast.best_method(figures) == CATEGORY_SHARED
