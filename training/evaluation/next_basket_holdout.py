"""Exams: what ranked lists are judged by as of one cutoff: who bought what before it, and what they bought next."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.histories import Histories
from training import lists, metrics

Floats = NDArray[np.float64]

#: How customers are told apart by what they did before the cutoff, the busiest first.
ACTIVITY = ("often", "sometimes", "seldom", "quiet")

#: What is reported, of all that could be.
FIGURES = (
    *("recall_10", "ndcg_10", "ndcg_full_10", "hit_rate_10", "map_10", "recall_20", "ndcg_20"),
    *("trip_recall_10", "trip_ndcg_10", "trip_ndcg_full_10", "trip_hit_rate_10", "trip_recall_20"),
    *("repeat_recall_10", "explore_recall_10", "again_recall_10", "again_hit_rate_10"),
    *("new_recall_10", "new_hit_rate_10", "novelty_10"),
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Who and what counts: products bought on so many days before the cutoff, customers with so many trips.

    A trip is a day on which a customer bought something of the catalogue. `departments` are left out of it. Of more
    than `most` customers so many are judged, drawn once and for all.
    """

    product_days: int = 1
    customer_trips: int = 1
    departments: Collection[str] = ()
    most: int = 5_000


@dataclass(frozen=True)
class Exam:
    """One cutoff: histories over the catalogue before it, and what the judged customers bought from then on.

    `month` holds everything bought in the window, `trip` what the first day of purchase in it held: customer_key,
    product_key, each pair once.
    """

    cutoff: pd.Timestamp
    window_days: int
    histories: Histories
    customers: NDArray[np.int64]
    month: pd.DataFrame
    trip: pd.DataFrame
    activity: pd.Series = field(repr=False)

    @property
    def catalogue(self) -> NDArray[np.int64]:
        """The products that may be shown, rising."""
        return self.histories.products

    @cached_property
    def owned(self) -> pd.DataFrame:
        """What each judged customer had bought before."""
        known = self.histories
        pairs = pd.DataFrame(
            {"customer_key": known.customers[known.rows], "product_key": known.products[known.columns]}
        )
        return pairs[pairs["customer_key"].isin(self.customers)].drop_duplicates(ignore_index=True)

    @cached_property
    def buyers(self) -> pd.Series:
        """How many customers ever bought each product."""
        return pd.Series(np.asarray(self.histories.owned.sum(axis=0)).ravel(), index=self.histories.products)


def exam(
    before: pd.DataFrame, after: pd.DataFrame, cutoff: pd.Timestamp, window_days: int, *,
    terms: Terms, departments: pd.Series,
) -> Exam:  # fmt: skip
    """Lay out one cutoff. before, after: customer_key, product_key, day (midnight, no zone), each once.

    departments: by product_key, what the catalogue says.
    """
    barred = departments.index[departments.isin(list(terms.departments))]
    before = before[~before["product_key"].isin(barred)]
    days = before.groupby("product_key").size()
    before = before[before["product_key"].isin(days.index[days >= terms.product_days])]
    histories = Histories.of(before, cutoff)
    after = after[after["product_key"].isin(histories.products)]
    busy = histories.customers[histories.trip_counts >= terms.customer_trips]
    judged = _some(np.intersect1d(busy, after["customer_key"].to_numpy(np.int64)), terms.most)
    after = after[after["customer_key"].isin(judged)]
    first = after["day"] == after.groupby("customer_key")["day"].transform("min")
    month, trip = (rows[lists.PAIR].drop_duplicates(ignore_index=True) for rows in (after, after[first]))
    return Exam(cutoff, window_days, histories, judged, month, trip, _activity(histories, judged, window_days))


def _some(customers: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    if len(customers) <= most:
        return customers
    return np.sort(np.random.default_rng(0).choice(customers, most, replace=False))


def _activity(histories: Histories, customers: NDArray[np.int64], window_days: int) -> pd.Series:
    """Groups by what was known before the cutoff: quiet for a whole window, else by thirds of their trips lately."""
    first = np.searchsorted(histories.rows, np.arange(len(histories.customers)))
    recency = histories.ages[first]
    lately = histories.ages <= 3 * window_days
    fresh = np.diff(histories.rows * 1_000_000 + histories.ages, prepend=-1) != 0
    trips = np.bincount(histories.rows[lately & fresh], minlength=len(histories.customers))
    mine = np.searchsorted(histories.customers, customers)
    active = trips[mine][recency[mine] <= window_days]
    low, high = np.quantile(active, [1 / 3, 2 / 3]) if len(active) else (0, 0)
    third = np.where(trips[mine] > high, 0, np.where(trips[mine] > low, 1, 2))
    group = np.where(recency[mine] > window_days, 3, third)
    return pd.Series(np.array(ACTIVITY, dtype=object)[group], index=customers)


def look(asked: Exam, shown: pd.DataFrame) -> pd.DataFrame:
    """Every figure of every judged customer, a row each in the exam's order; NaN where there was nothing to hit.

    shown: customer_key, list, rank, product_key. Of the list `any`: the plain names over the window, `trip_` over
    the next trip, `repeat_` and `explore_` over what they had bought before and what not. `again_` and `new_` are
    those two lists over the same two parts.
    """
    mine = shown[shown["customer_key"].isin(asked.customers)]
    merged, again, new = (mine[mine["list"] == name] for name in ("any", "again", "new"))
    before, never = lists.split(asked.month, asked.owned)
    parts = {
        "": lists.each(merged, asked.month),
        "trip_": lists.each(merged, asked.trip),
        "repeat_": lists.each(merged, before, at=(10,)),
        "explore_": lists.each(merged, never, at=(10,)),
        "again_": lists.each(again, before, at=(10,)),
        "new_": lists.each(new, never, at=(10,)),
    }
    frame = pd.concat([part.add_prefix(name) for name, part in parts.items()], axis=1).reindex(asked.customers)
    unheard = lists.novelty(merged, asked.buyers, len(asked.histories.customers))
    return frame.assign(novelty_10=unheard.reindex(asked.customers))[list(FIGURES)]


def ceiling(asked: Exam, shown: pd.DataFrame) -> pd.DataFrame:
    """The figures of `look` if whatever stands on a customer's lists, however deep, stood in the best order there is.

    What no list of theirs holds cannot be reached by ranking; figures of a single list's order are left NaN.
    """
    mine = shown[shown["customer_key"].isin(asked.customers)]
    _, never = lists.split(asked.month, asked.owned)
    parts = {
        "": lists.best_possible(mine, asked.month),
        "trip_": lists.best_possible(mine, asked.trip),
        "new_": lists.best_possible(mine, never, at=(10,)),
    }
    frame = pd.concat([part.add_prefix(name) for name, part in parts.items()], axis=1)
    return frame.reindex(index=asked.customers, columns=list(FIGURES))


def spread(asked: Exam, shown: pd.DataFrame) -> dict[str, float]:
    """What the lists of ten of all judged customers together show, and where it comes from."""
    merged = shown[(shown["list"] == "any") & shown["customer_key"].isin(asked.customers)]
    return lists.variety(merged, catalogue=len(asked.catalogue)) | lists.sources(merged)


def audience_lift(asked: Exam, chances: Callable[[NDArray[np.int64]], Floats], *, products: int = 8) -> float:
    """How many times as many of the likeliest tenth of the judged customers bought a product as of all of them.

    The mean over best sellers before the cutoff, evenly spread over the first 200; a product that fewer than ten
    bought says nothing. chances: for some products, the chance of each judged customer to buy one of them.
    """
    selling = np.argsort(-asked.histories.popularity(asked.window_days), kind="stable")[:200]
    places = np.linspace(0, len(selling) - 1, min(products, len(selling))).astype(np.int64)
    lifts = []
    for product in asked.catalogue[selling[places]]:
        buyers = asked.month.loc[asked.month["product_key"] == product, "customer_key"]
        happened = np.isin(asked.customers, buyers).astype(np.float64)
        if happened.sum() >= 10:
            lifts.append(metrics.lift(happened, chances(np.array([product]))))
    return float(np.mean(lifts)) if lifts else float("nan")
