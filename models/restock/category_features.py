"""Features of a customer's category relative to the customer's visits, to their other categories and to all customers.

The frame says how often and how recently the category was bought. Here that is related to how often the customer visits
at all: what is bought at every second visit is not overdue after a holiday.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.base import Floats
from models.btyd import bg_nbd
from models.restock import category_bg_nbd

Floats32 = NDArray[np.float32]

#: Windows in days of the visit counts among the features, and half-lives of the decayed counts.
WINDOWS = (7, 14, 28, 56, 90)
HALF_LIVES = (14, 45, 120)
#: Overdue ratios are clipped to this many median gaps.
MAX_OVERDUE = 5.0
#: Weight, in rows, of all categories in the statistics of one.
PRIOR_WEIGHT = 50.0
#: With fewer categories than this, their statistics would only identify the category, and they change monthly.
MIN_CATEGORIES = 40
#: Names of the features: category and visits, the customer's categories, all customers, and the days ahead.
VISIT_FEATURES = (
    "share_all",
    "share_90d",
    "share_28d",
    *(f"share_decayed_{half_life}d" for half_life in HALF_LIVES),
    "visits_since",
    "visits_due",
    "visits_due_all",
    "visits_without_days",
)
CUSTOMER_FEATURES = (
    "needs",
    "needs_14d",
    "needs_28d",
    "needs_last",
    "needs_overdue",
    "needs_overdue_weighed",
    "needs_weight_45d",
    "needs_weight_14d",
)
CATEGORY_FEATURES = ("category_needs", "category_again", "category_14d", "category_28d", "category_gap_days")
HORIZON_FEATURES = ("quiet", "visits_ahead", "ahead_all", "ahead_90d", "ahead_45d", "ahead_120d")
FEATURE_NAMES = (*VISIT_FEATURES, "gap_ratio", *CUSTOMER_FEATURES, *CATEGORY_FEATURES, *HORIZON_FEATURES)


@dataclass(frozen=True)
class CategoryFeatures:
    """Statistics of all customers at one cutoff: BG/NBD of their visits, and averages of each category."""

    visits: bg_nbd.BgNbd
    overall: list[float]
    categories: Mapping[str, list[float]] = field(repr=False)

    @classmethod
    def fit(cls, frame: pd.DataFrame) -> Self:
        """Fit to all rows of one cutoff: one row per customer and category."""
        customers = frame.drop_duplicates("customer_key")
        return cls(_fit_visit_bgnbd(customers), *_category_statistics(frame))

    def build(self, frame: pd.DataFrame) -> Floats32:
        """FEATURE_NAMES without HORIZON_FEATURES, as columns, for each row of the frame: array (n, features).

        The frame must hold all categories of its customers.
        """
        category = self._category_rows(frame)
        gap = _ratio(_column_values(frame, "need_gap_median_days"), category[:, -1])
        parts = [_visit_features(frame), gap[:, None], _customer_features(frame), category]
        return np.column_stack(parts).astype(np.float32)

    def build_ahead(self, frame: pd.DataFrame, base_features: Floats32, days: Floats) -> Floats32:
        """HORIZON_FEATURES, as columns, for each row of the frame and its days ahead (n,): array (n, 6).

        base_features: (n, features), what `build` returned for these rows.
        """
        summary = _visit_summary(frame)
        expected_visits = np.maximum(self.visits.expected_purchases(*summary, days), 0.0)
        no_visit_log_odds = bg_nbd.log_odds(self.visits.p_no_purchase(*summary, days))
        shares = base_features[
            :, [VISIT_FEATURES.index(f"share_{name}") for name in ("all", "90d", "decayed_45d", "decayed_120d")]
        ]
        return np.column_stack([no_visit_log_odds, expected_visits, expected_visits[:, None] * shares]).astype(
            np.float32
        )

    def to_dict(self) -> dict[str, Any]:
        """All parameters as JSON values."""
        return {"visits": asdict(self.visits), "usual": self.overall, "categories": dict(self.categories)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        return cls(bg_nbd.BgNbd(**content["visits"]), content["usual"], content["categories"])

    def _category_rows(self, frame: pd.DataFrame) -> Floats:
        names, positions = np.unique(frame["category"].to_numpy(dtype=object).astype(str), return_inverse=True)
        rows = [self.categories.get(str(name), self.overall) for name in names]
        return np.array(rows, dtype=np.float64).reshape(len(names), len(CATEGORY_FEATURES))[positions]


def _fit_visit_bgnbd(customers: pd.DataFrame) -> bg_nbd.BgNbd:
    summary = _visit_summary(customers)
    if len(summary.x) > category_bg_nbd.MAX_PAIRS:
        sampled = np.random.default_rng(0).choice(len(summary.x), category_bg_nbd.MAX_PAIRS, replace=False)
        summary = bg_nbd.PurchaseSummary(*(part[sampled] for part in summary))
    return bg_nbd.BgNbd.fit(*summary)


def _visit_summary(frame: pd.DataFrame) -> bg_nbd.PurchaseSummary:
    """The visits of each row's customer; where they are missing, the purchase days of the category are used instead."""
    days, span, tenure = (_column_values(frame, name) for name in ("purchase_days", "span_days", "tenure_days"))
    need_summary = category_bg_nbd.purchase_summary(frame)
    x = np.maximum(np.where(np.isfinite(days), days - 1, need_summary.x), 0.0)
    t_x = np.maximum(np.where(np.isfinite(span), span, need_summary.t_x), 0.0)
    return bg_nbd.PurchaseSummary(x, t_x, np.maximum(np.where(np.isfinite(tenure), tenure - 1, need_summary.T), t_x))


def _visit_features(frame: pd.DataFrame) -> Floats:
    """VISIT_FEATURES: the share of visits with the category, and the visits since its last purchase."""
    times, recency_days = (
        _column_values(frame, category_bg_nbd.NEED_TIMES_COLUMN),
        _column_values(frame, category_bg_nbd.NEED_RECENCY_COLUMN),
    )
    share = _ratio(times, _column_values(frame, "purchase_days"))
    shares = [share] + [
        _ratio(_column_values(frame, f"need_times_{days}d"), _column_values(frame, f"purchase_days_{days}d"))
        for days in (90, 28)
    ]
    shares += [
        _ratio(
            _column_values(frame, f"need_weight_{half_life}d"),
            _column_values(frame, f"purchase_days_decayed_{half_life}d"),
        )
        for half_life in HALF_LIVES
    ]
    since = _visits_since_purchase(frame, recency_days)
    without = recency_days - _column_values(frame, "recency_days")
    return np.column_stack([*shares, since, since * shares[-1], since * share, without])


def _visits_since_purchase(frame: pd.DataFrame, recency_days: Floats) -> Floats:
    """Visits since the last purchase of the category, interpolated between the windows that count visits."""
    ages = np.array([0, *WINDOWS], dtype=np.float64)
    counted = np.column_stack(
        [np.zeros(len(frame)), *(_column_values(frame, f"purchase_days_{days}d") for days in WINDOWS)]
    )
    within = np.clip(np.nan_to_num(recency_days), 0, ages[-1])
    before = np.clip(np.searchsorted(ages, within) - 1, 0, len(WINDOWS) - 1)
    row = np.arange(len(frame))
    part = (within - ages[before]) / (ages[before + 1] - ages[before])
    visits = counted[row, before] + part * (counted[row, before + 1] - counted[row, before])
    return np.asarray(visits + np.maximum(recency_days - ages[-1], 0) * _column_values(frame, "purchase_rate"))


def _customer_features(frame: pd.DataFrame) -> Floats:
    """CUSTOMER_FEATURES: number of the customer's categories, how many are recent, how overdue they are."""
    customer = frame.groupby(["customer_key", "as_of"], sort=False).ngroup().to_numpy()
    is_need, recency_days = (
        category_bg_nbd.is_replenishment(frame).astype(np.float64),
        _column_values(frame, category_bg_nbd.NEED_RECENCY_COLUMN),
    )
    weight, recent_weight = (
        np.where(is_need > 0, np.nan_to_num(_column_values(frame, f"need_weight_{half_life}d")), 0.0)
        for half_life in (45, 14)
    )
    overdue = np.where(is_need > 0, _column_values(frame, "need_overdue_ratio"), 0.0)
    overdue = np.clip(np.nan_to_num(overdue, nan=1.0), 0, MAX_OVERDUE)

    def sum_by_customer(values: Floats) -> Floats:
        return np.asarray(np.bincount(customer, values)[customer], np.float64)

    count = sum_by_customer(is_need)
    last_count = sum_by_customer(np.where(recency_days <= _column_values(frame, "recency_days"), is_need, 0.0))
    recent_counts = [sum_by_customer(np.where(recency_days <= days, is_need, 0.0)) for days in (14, 28)]
    total_weight = sum_by_customer(weight)
    weighted_overdue = _ratio(sum_by_customer(overdue * weight), total_weight)
    return np.column_stack(
        [
            count,
            *recent_counts,
            last_count,
            _ratio(sum_by_customer(overdue), count),
            weighted_overdue,
            total_weight,
            sum_by_customer(recent_weight),
        ]
    )


def _category_statistics(frame: pd.DataFrame) -> tuple[list[float], dict[str, list[float]]]:
    """CATEGORY_FEATURES of all rows, and of each category, shrunk to those of all."""
    categories, positions = np.unique(frame["category"].to_numpy(dtype=object).astype(str), return_inverse=True)
    if len(categories) < MIN_CATEGORIES:
        return [0.0] * len(CATEGORY_FEATURES), {}
    is_need, recency_days = (
        category_bg_nbd.is_replenishment(frame).astype(np.float64),
        _column_values(frame, category_bg_nbd.NEED_RECENCY_COLUMN),
    )
    gap = _column_values(frame, "need_gap_median_days")
    has_gap = np.where(np.isfinite(gap), is_need, 0.0)

    def share(part: Floats, total: Floats) -> Floats:
        sums = [np.bincount(positions, np.nan_to_num(each), len(categories)) for each in (part, total)]
        overall = sums[0].sum() / max(sums[1].sum(), 1.0)
        return np.append((sums[0] + PRIOR_WEIGHT * overall) / (sums[1] + PRIOR_WEIGHT), overall)

    all_rows = np.ones(len(frame))
    columns = [
        share(is_need, all_rows * frame["customer_key"].nunique() / max(len(frame), 1)),
        share(np.where(_column_values(frame, category_bg_nbd.NEED_TIMES_COLUMN) > 1, 1.0, 0.0), all_rows),
        share(np.where(recency_days <= 14, is_need, 0.0), is_need),
        share(np.where(recency_days <= 28, is_need, 0.0), is_need),
        share(gap * has_gap, has_gap),
    ]
    rows = np.column_stack(columns).tolist()
    return rows[-1], dict(zip(map(str, categories), rows[:-1], strict=True))


def _column_values(frame: pd.DataFrame, name: str) -> Floats:
    """A column as float64 (n,); NaN where the frame lacks it."""
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    values = frame[name].to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _ratio(part: Floats, total: Floats) -> Floats:
    return np.divide(part, total, out=np.full(len(part), np.nan), where=total > 0)
