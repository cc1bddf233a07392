"""Hold-out of ranked lists at one cutoff: what customers bought before it, and what they bought next."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.benchmarks.interaction_matrix import InteractionMatrix
from training.evaluation import metrics, ranking_metrics

Floats = NDArray[np.float64]

#: Segments of customers by their purchases before the cutoff, the most active first.
ACTIVITY_SEGMENTS = ("often", "sometimes", "seldom", "quiet")

#: Metrics that are reported.
REPORTED_METRICS = (
    *("recall_10", "ndcg_10", "ndcg_full_10", "hit_rate_10", "map_10", "recall_20", "ndcg_20"),
    *("trip_recall_10", "trip_ndcg_10", "trip_ndcg_full_10", "trip_hit_rate_10", "trip_recall_20"),
    *("repeat_recall_10", "explore_recall_10", "again_recall_10", "again_hit_rate_10"),
    *("new_recall_10", "new_hit_rate_10", "novelty_10"),
)


@dataclass(frozen=True, slots=True)
class HoldoutCriteria:
    """Which products and customers count: minimum days with a purchase before the cutoff, and minimum trips.

    A trip is a day on which a customer bought something of the catalogue; excluded_departments are not in it. Of more
    than max_customers customers, so many are evaluated, sampled with a fixed seed.
    """

    min_product_days: int = 1
    min_customer_trips: int = 1
    excluded_departments: Collection[str] = ()
    max_customers: int = 5_000


@dataclass(frozen=True)
class HoldoutEvaluation:
    """One cutoff: purchase histories before it, and what the evaluated customers bought from then on.

    window_purchases has everything bought in the window, next_trip_purchases what was bought on the first day with a
    purchase in it: columns customer_key, product_key, each pair once. `activity` is the segment by customer_key.
    """

    cutoff: pd.Timestamp
    window_days: int
    histories: InteractionMatrix
    customers: NDArray[np.int64]
    window_purchases: pd.DataFrame
    next_trip_purchases: pd.DataFrame
    activity: pd.Series = field(repr=False)

    @property
    def catalogue(self) -> NDArray[np.int64]:
        """The products that may be listed, ascending, (n_products,)."""
        return self.histories.products

    @cached_property
    def prior_purchases(self) -> pd.DataFrame:
        """What each evaluated customer bought before the cutoff: columns customer_key, product_key."""
        histories = self.histories
        pairs = pd.DataFrame(
            {"customer_key": histories.customers[histories.rows], "product_key": histories.products[histories.columns]}
        )
        return pairs[pairs["customer_key"].isin(self.customers)].drop_duplicates(ignore_index=True)

    @cached_property
    def buyer_counts(self) -> pd.Series:
        """Number of customers who ever bought each product, (n_products,), by product_key."""
        return pd.Series(np.asarray(self.histories.owned.sum(axis=0)).ravel(), index=self.histories.products)


def build_holdout(
    before: pd.DataFrame,
    after: pd.DataFrame,
    cutoff: pd.Timestamp,
    window_days: int,
    *,
    criteria: HoldoutCriteria,
    departments: pd.Series,
) -> HoldoutEvaluation:
    """Build the hold-out of one cutoff.

    before, after: columns customer_key, product_key, day (midnight, no zone), each once. departments: the catalogue's
    department by product_key.
    """
    excluded = departments.index[departments.isin(list(criteria.excluded_departments))]
    before = before[~before["product_key"].isin(excluded)]
    purchase_day_counts = before.groupby("product_key").size()
    before = before[
        before["product_key"].isin(purchase_day_counts.index[purchase_day_counts >= criteria.min_product_days])
    ]
    histories = InteractionMatrix.from_purchase_days(before, cutoff)
    after = after[after["product_key"].isin(histories.products)]
    eligible = histories.customers[histories.trip_counts >= criteria.min_customer_trips]
    evaluated = _sample_customers(
        np.intersect1d(eligible, after["customer_key"].to_numpy(np.int64)), criteria.max_customers
    )
    after = after[after["customer_key"].isin(evaluated)]
    first = after["day"] == after.groupby("customer_key")["day"].transform("min")
    window_purchases, next_trip_purchases = (
        rows[ranking_metrics.PAIR_COLUMNS].drop_duplicates(ignore_index=True) for rows in (after, after[first])
    )
    return HoldoutEvaluation(
        cutoff,
        window_days,
        histories,
        evaluated,
        window_purchases,
        next_trip_purchases,
        _activity_segments(histories, evaluated, window_days),
    )


def _sample_customers(customers: NDArray[np.int64], max_customers: int) -> NDArray[np.int64]:
    if len(customers) <= max_customers:
        return customers
    return np.sort(np.random.default_rng(0).choice(customers, max_customers, replace=False))


def _activity_segments(histories: InteractionMatrix, customers: NDArray[np.int64], window_days: int) -> pd.Series:
    """Segment of each customer by what was known before the cutoff, (n,).

    `quiet` for no purchase in a whole window, else thirds by the number of trips in the last three windows.
    """
    first = np.searchsorted(histories.rows, np.arange(len(histories.customers)))
    recency = histories.ages[first]
    is_recent = histories.ages <= 3 * window_days
    is_new_trip = np.diff(histories.rows * 1_000_000 + histories.ages, prepend=-1) != 0
    trips = np.bincount(histories.rows[is_recent & is_new_trip], minlength=len(histories.customers))
    positions = np.searchsorted(histories.customers, customers)
    active = trips[positions][recency[positions] <= window_days]
    low, high = np.quantile(active, [1 / 3, 2 / 3]) if len(active) else (0, 0)
    third = np.where(trips[positions] > high, 0, np.where(trips[positions] > low, 1, 2))
    group = np.where(recency[positions] > window_days, 3, third)
    return pd.Series(np.array(ACTIVITY_SEGMENTS, dtype=object)[group], index=customers)


def evaluate_customers(holdout: HoldoutEvaluation, ranked: pd.DataFrame) -> pd.DataFrame:
    """Every metric of every evaluated customer, one row per customer in the order of the hold-out.

    ranked: columns customer_key, list, rank, product_key. Of the list `any`: unprefixed metrics over the window,
    `trip_` over the next trip, `repeat_` and `explore_` over products bought before and not bought before. `again_` and
    `new_` are those two lists over the same two parts. Columns: REPORTED_METRICS; NaN where the customer bought nothing
    to hit.
    """
    customer_lists = ranked[ranked["customer_key"].isin(holdout.customers)]
    merged, again, new = (customer_lists[customer_lists["list"] == name] for name in ("any", "again", "new"))
    repeat_truth, new_truth = ranking_metrics.split_repeat_and_new(holdout.window_purchases, holdout.prior_purchases)
    parts = {
        "": ranking_metrics.metrics_per_customer(merged, holdout.window_purchases),
        "trip_": ranking_metrics.metrics_per_customer(merged, holdout.next_trip_purchases),
        "repeat_": ranking_metrics.metrics_per_customer(merged, repeat_truth, at=(10,)),
        "explore_": ranking_metrics.metrics_per_customer(merged, new_truth, at=(10,)),
        "again_": ranking_metrics.metrics_per_customer(again, repeat_truth, at=(10,)),
        "new_": ranking_metrics.metrics_per_customer(new, new_truth, at=(10,)),
    }
    frame = pd.concat([part.add_prefix(name) for name, part in parts.items()], axis=1).reindex(holdout.customers)
    novelty = ranking_metrics.novelty_per_customer(merged, holdout.buyer_counts, len(holdout.histories.customers))
    return frame.assign(novelty_10=novelty.reindex(holdout.customers))[list(REPORTED_METRICS)]


def evaluate_upper_bound(holdout: HoldoutEvaluation, ranked: pd.DataFrame) -> pd.DataFrame:
    """The metrics of evaluate_customers if all products on a customer's lists, however deep, were in the best order.

    A product on none of the lists cannot be reached by ranking; metrics of a single list's order stay NaN. Columns:
    REPORTED_METRICS.
    """
    customer_lists = ranked[ranked["customer_key"].isin(holdout.customers)]
    _, new_truth = ranking_metrics.split_repeat_and_new(holdout.window_purchases, holdout.prior_purchases)
    parts = {
        "": ranking_metrics.upper_bound_per_customer(customer_lists, holdout.window_purchases),
        "trip_": ranking_metrics.upper_bound_per_customer(customer_lists, holdout.next_trip_purchases),
        "new_": ranking_metrics.upper_bound_per_customer(customer_lists, new_truth, at=(10,)),
    }
    frame = pd.concat([part.add_prefix(name) for name, part in parts.items()], axis=1)
    return frame.reindex(index=holdout.customers, columns=list(REPORTED_METRICS))


def evaluate_variety(holdout: HoldoutEvaluation, ranked: pd.DataFrame) -> dict[str, float]:
    """Variety and sources of the lists of ten of all evaluated customers; ranked: columns as in evaluate_customers."""
    merged = ranked[(ranked["list"] == "any") & ranked["customer_key"].isin(holdout.customers)]
    return ranking_metrics.variety_metrics(merged, catalogue=len(holdout.catalogue)) | ranking_metrics.source_shares(
        merged
    )


def evaluate_audience_lift(
    holdout: HoldoutEvaluation, purchase_probabilities: Callable[[NDArray[np.int64]], Floats], *, n_products: int = 8
) -> float:
    """Share of buyers of a product among the likeliest tenth of customers, over that among all evaluated customers.

    The mean over best sellers before the cutoff, evenly spread over the first 200; products with fewer than ten buyers
    are left out. purchase_probabilities: for some products, each evaluated customer's probability to buy one of them,
    (n,).
    """
    best_sellers = np.argsort(-holdout.histories.popularity(holdout.window_days), kind="stable")[:200]
    positions = np.linspace(0, len(best_sellers) - 1, min(n_products, len(best_sellers))).astype(np.int64)
    lifts = []
    for product in holdout.catalogue[best_sellers[positions]]:
        buyers = holdout.window_purchases.loc[holdout.window_purchases["product_key"] == product, "customer_key"]
        happened = np.isin(holdout.customers, buyers).astype(np.float64)
        if happened.sum() >= 10:
            lifts.append(metrics.lift(happened, purchase_probabilities(np.array([product]))))
    return float(np.mean(lifts)) if lifts else float("nan")
