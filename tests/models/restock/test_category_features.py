"""Category features: a category relative to the customer's visits, to their other categories, and to all customers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from models.restock import category_features
from models.restock.category_features import FEATURE_NAMES, HORIZON_FEATURES, CategoryFeatures

#: 20 visits in 100 days, tea at every other one; milk at the last visit, tea not for 21 days.
CUSTOMER = {
    "customer_key": 1, "as_of": pd.Timestamp("2025-06-01T04:00Z"), "recency_days": 3.0, "tenure_days": 101.0,
    "purchase_days": 20.0, "span_days": 97.0, "purchase_rate": 0.2, "purchase_days_7d": 1.0,
    "purchase_days_14d": 3.0, "purchase_days_28d": 6.0, "purchase_days_56d": 12.0, "purchase_days_90d": 18.0,
    "purchase_days_decayed_14d": 4.0, "purchase_days_decayed_45d": 8.0, "purchase_days_decayed_120d": 16.0,
}  # fmt: skip
TEA = {
    "category": "TEA", "need_times": 10.0, "need_recency_days": 21.0, "need_first_days": 100.0,
    "need_times_90d": 9.0, "need_times_28d": 3.0, "need_weight_14d": 1.0, "need_weight_45d": 2.0,
    "need_weight_120d": 8.0, "need_gap_median_days": 10.0, "need_overdue_ratio": 2.1,
}  # fmt: skip
MILK = TEA | {"category": "MILK", "need_recency_days": 3.0, "need_overdue_ratio": 0.3, "need_weight_45d": 6.0}
ONCE = TEA | {"category": "SLEDGES", "need_times": 1.0, "need_weight_45d": 1.0}


def build_features(*categories: dict[str, object]) -> pd.DataFrame:
    frame = pd.DataFrame([CUSTOMER | category for category in categories])
    model = CategoryFeatures.fit(frame)
    base_features = model.build(frame)
    horizon_features = model.build_ahead(frame, base_features, np.full(len(frame), 14.0))
    return pd.DataFrame(np.column_stack([base_features, horizon_features]), columns=list(FEATURE_NAMES))


def test_category_features_are_relative_to_the_customers_visits() -> None:
    tea = build_features(TEA).iloc[0]
    assert tea["share_all"] == 10 / 20
    assert tea["share_90d"] == 9 / 18
    assert tea["share_decayed_120d"] == 8 / 16
    assert tea["visits_since"] == 3 + (21 - 14) / (28 - 14) * (6 - 3)
    assert tea["visits_due"] == pytest.approx(4.5 * 8 / 16)
    assert tea["visits_without_days"] == 21 - 3


def test_visits_beyond_the_longest_window_are_extrapolated_at_the_customers_rate() -> None:
    long_ago = build_features(TEA | {"need_recency_days": 110.0}).iloc[0]
    assert long_ago["visits_since"] == pytest.approx(18 + (110 - 90) * 0.2)


def test_customer_features_count_the_customers_other_categories() -> None:
    tea = build_features(TEA, MILK, ONCE).iloc[0]
    assert tea["needs"] == 2
    assert tea["needs_14d"] == tea["needs_last"] == 1
    assert tea["needs_28d"] == 2
    assert tea["needs_overdue"] == pytest.approx((2.1 + 0.3) / 2)
    assert tea["needs_overdue_weighed"] == pytest.approx((2.1 * 2 + 0.3 * 6) / 8)
    assert tea["needs_weight_45d"] == 8


def test_a_category_bought_once_changes_nothing_for_the_others() -> None:
    with_sledges, without = build_features(TEA, MILK, ONCE).head(2), build_features(TEA, MILK)
    pd.testing.assert_frame_equal(with_sledges, without)


def test_a_longer_horizon_has_more_visits_ahead() -> None:
    frame = pd.DataFrame([CUSTOMER | TEA])
    model = CategoryFeatures.fit(frame)
    base_features = model.build(frame)
    soon, late = (
        dict(zip(HORIZON_FEATURES, model.build_ahead(frame, base_features, np.array([d]))[0], strict=True))
        for d in (7.0, 28.0)
    )
    assert soon["visits_ahead"] < late["visits_ahead"]
    assert soon["quiet"] > late["quiet"]
    assert late["ahead_all"] == pytest.approx(late["visits_ahead"] * 0.5)


def test_few_categories_have_no_statistics_of_their_own_and_many_are_shrunk_to_all() -> None:
    category_rows = pd.DataFrame(
        [CUSTOMER | TEA | {"category": f"C{n}"} for n in range(category_features.MIN_CATEGORIES)]
    )
    category_rows.loc[0, "need_recency_days"] = 2.0
    assert not CategoryFeatures.fit(category_rows.head(3)).categories
    share = category_features.CATEGORY_FEATURES.index("category_14d")
    model = CategoryFeatures.fit(category_rows)
    average = 1 / category_features.MIN_CATEGORIES
    assert model.overall[share] == pytest.approx(average)
    assert model.categories["C0"][share] == pytest.approx(
        (1 + category_features.PRIOR_WEIGHT * average) / (1 + category_features.PRIOR_WEIGHT)
    )


def test_features_are_built_without_customer_columns() -> None:
    columns = ["customer_key", "as_of", "category", "need_times", "need_recency_days", "need_first_days"]
    minimal = pd.DataFrame([CUSTOMER | TEA])[columns]
    model = CategoryFeatures.fit(minimal)
    assert model.build(minimal).shape == (1, len(FEATURE_NAMES) - len(HORIZON_FEATURES))
    assert model.build(minimal.head(0)).shape == (0, len(FEATURE_NAMES) - len(HORIZON_FEATURES))
    loaded = CategoryFeatures.from_dict(model.to_dict())
    np.testing.assert_array_equal(loaded.build(minimal), model.build(minimal))
