"""Demand forecasts of three products in two categories, computed by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.restock import demand_forecast
from models.restock.demand_forecast import CATEGORY_SHARED, LAST_WEEK, MEAN_4_WEEKS, NEEDS_SHARED, WEEKS, WeeklySales

#: Milk and cream are dairy, bread is not; the latest week first.
UNITS = np.array([[8.0, 4, 4, 0, *[4.0] * 8], [0.0, 0, 0, 0, *[4.0] * 8], [10.0, 10, 10, 10, *[10.0] * 8]])
SALES = WeeklySales(UNITS, np.array([0, 0, 1]), np.array([1.0, 1.0, 2.0]))


def category_histories(
    recency_days: float, *, times: float = 11.0, count: int = 50, category: str = "DAIRY"
) -> pd.DataFrame:
    numbers = {"need_times": times, "need_recency_days": recency_days, "need_first_days": recency_days + 100.0}
    return pd.DataFrame({"category": [category] * count} | numbers)


def test_the_baseline_methods_are_last_week_and_the_mean_of_four() -> None:
    forecast = demand_forecast.forecast_units(SALES, (LAST_WEEK, MEAN_4_WEEKS))
    assert forecast[LAST_WEEK][:, 0].tolist() == [8, 0, 10]
    assert forecast[MEAN_4_WEEKS].tolist() == [[4.0] * WEEKS, [0.0] * WEEKS, [10.0] * WEEKS]


def test_a_category_mean_is_shared_among_products_by_their_longer_sales() -> None:
    forecast = demand_forecast.forecast_units(SALES, (CATEGORY_SHARED,))[CATEGORY_SHARED]
    assert forecast[:2, 0].sum() == pytest.approx((8 + 4 + 4 + 0) / 4)
    assert 0 < forecast[1, 0] < forecast[0, 0]
    assert forecast[2].tolist() == pytest.approx([10.0] * WEEKS)


def test_an_earlier_cutoff_holds_no_later_weeks() -> None:
    earlier = SALES.weeks_earlier(WEEKS)
    assert demand_forecast.forecast_units(earlier, (MEAN_4_WEEKS,))[MEAN_4_WEEKS][:, 0].tolist() == [4, 4, 10]
    assert SALES.actual_units(WEEKS).tolist() == [[0, 4, 4, 8], [0, 0, 0, 0], [10, 10, 10, 10]]


def test_recent_category_histories_predict_more_purchases_than_old_ones_and_none_predicts_zero() -> None:
    categories = pd.Index(["DAIRY", "BREAD"])
    recent, old = (demand_forecast.expected_purchases(category_histories(days), categories) for days in (5.0, 90.0))
    assert recent.shape == (2, WEEKS)
    assert recent[0].sum() > 2 * old[0].sum() > 0
    assert recent[1].sum() == 0
    assert demand_forecast.expected_purchases(category_histories(5.0, times=2.0), categories).sum() == 0


def test_more_expected_purchases_than_a_month_ago_raise_the_forecast() -> None:
    now, month_ago = np.full((2, WEEKS), [[30.0], [10.0]]), np.full((2, WEEKS), [[20.0], [10.0]])
    growth = demand_forecast.need_growth(now, month_ago)
    overall_growth = (4 * 40) / (4 * 30)
    assert growth[0, 0] == pytest.approx(
        (120 + demand_forecast.PRIOR_PURCHASES * overall_growth) / (80 + demand_forecast.PRIOR_PURCHASES)
    )
    assert growth[1, 0] == pytest.approx(
        (40 + demand_forecast.PRIOR_PURCHASES * overall_growth) / (40 + demand_forecast.PRIOR_PURCHASES)
    )
    forecast = demand_forecast.forecast_units(SALES, (CATEGORY_SHARED, NEEDS_SHARED), growth)
    assert forecast[NEEDS_SHARED][2, 0] == pytest.approx(forecast[CATEGORY_SHARED][2, 0] * growth[1, 0])


def test_without_category_histories_their_method_is_left_out() -> None:
    assert set(demand_forecast.forecast_units(SALES, (LAST_WEEK, MEAN_4_WEEKS, NEEDS_SHARED))) == {
        LAST_WEEK,
        MEAN_4_WEEKS,
    }
    assert (demand_forecast.need_growth(np.zeros((1, WEEKS)), np.zeros((1, WEEKS))) == 1).all()


def test_wape_is_the_absolute_error_over_sales_in_money() -> None:
    actual = np.array([[2.0], [0.0], [5.0]])
    forecast = np.array([[1.0], [1.0], [7.0]])
    assert demand_forecast.wape(SALES, actual, forecast) == pytest.approx((1 + 1 + 2 * 2) / (2 + 5 * 2))
    assert demand_forecast.wape(SALES, actual, forecast, by_category=True) == pytest.approx((0 + 2 * 2) / (2 + 5 * 2))
    assert np.isnan(demand_forecast.wape(SALES, actual * 0, forecast))


def test_the_best_method_has_the_least_error_over_products_and_categories_and_the_simpler_wins_a_tie() -> None:
    rows = [
        (LAST_WEEK, 4, 1.0, 0.3),
        (MEAN_4_WEEKS, 4, 0.8, 0.2),
        (CATEGORY_SHARED, 4, 0.7, 0.3),
        (NEEDS_SHARED, 4, 0.9, 0.1),
    ]
    errors = pd.DataFrame(rows, columns=["way", "weeks_back", "products", "categories"])
    assert demand_forecast.best_method(errors) == MEAN_4_WEEKS
    assert demand_forecast.best_method(errors[errors["way"] != MEAN_4_WEEKS]) == CATEGORY_SHARED
    assert demand_forecast.best_method(errors.head(0)) == MEAN_4_WEEKS


def test_a_method_without_a_forecast_of_the_hard_month_is_compared_on_the_other_alone() -> None:
    easy = [(MEAN_4_WEEKS, 4, 0.4, 0.2), (CATEGORY_SHARED, 4, 0.3, 0.2), (NEEDS_SHARED, 4, 0.5, 0.2)]
    hard = [(MEAN_4_WEEKS, 8, 0.9, 0.9), (CATEGORY_SHARED, 8, 0.9, 0.9)]
    errors = pd.DataFrame(easy + hard, columns=["way", "weeks_back", "products", "categories"])
    assert demand_forecast.best_method(errors) == CATEGORY_SHARED
