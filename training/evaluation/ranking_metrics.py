"""Ranking metrics of lists, per customer, so that each of them has an interval.

Definitions as in the literature on next baskets (Li et al., TOIS 2023): Recall@k is hits over everything bought, PHR@k
(`hit_rate`) the share of customers with a hit, NDCG@k has its ideal capped at k hits (`ndcg`) or not (`ndcg_full`), and
average precision at k (`map`) divides by the hits that were possible.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PAIR_COLUMNS = ["customer_key", "product_key"]


def metrics_per_customer(ranked: pd.DataFrame, truth: pd.DataFrame, *, at: Sequence[int] = (10, 20)) -> pd.DataFrame:
    """Every metric of every customer who bought something, one row per customer, by ascending customer_key.

    ranked: columns customer_key, rank (from 1), product_key; one list per customer, and a customer without one has no
    hit. truth: columns customer_key, product_key, one row per product bought.
    """
    truth = truth[PAIR_COLUMNS].drop_duplicates()
    bought = truth.groupby("customer_key").size()
    customers, sizes = np.asarray(bought.index, np.int64), np.asarray(bought, np.int64)
    hits = ranked[[*PAIR_COLUMNS, "rank"]].merge(truth, on=PAIR_COLUMNS).sort_values(["customer_key", "rank"])
    columns: dict[str, Floats] = {}
    for k in at:
        top = hits[hits["rank"] <= k]
        positions = np.searchsorted(customers, top["customer_key"].to_numpy(np.int64))
        columns |= _metrics_at_k(positions, top["rank"].to_numpy(np.int64), sizes, k)
    return pd.DataFrame(columns, index=pd.Index(customers, name="customer_key"))


def _metrics_at_k(
    place: NDArray[np.int64], rank: NDArray[np.int64], size: NDArray[np.int64], k: int
) -> dict[str, Floats]:
    """Metrics at k, (n_customers,) each.

    place, rank: position of the customer and rank of each hit, (n_hits,), best first. size: number of products bought.
    """
    hit_counts = np.bincount(place, minlength=len(size)).astype(np.float64)
    gain = np.bincount(place, 1 / np.log2(rank + 1), minlength=len(size))
    hit_number = np.arange(len(place)) - np.searchsorted(place, place) + 1
    precision = np.bincount(place, hit_number / rank, minlength=len(size))
    ideal = np.cumsum(1 / np.log2(np.arange(2, max(k, int(size.max(initial=1))) + 2)))
    return {
        f"recall_{k}": hit_counts / size,
        f"ndcg_{k}": gain / ideal[np.minimum(size, k) - 1],
        f"ndcg_full_{k}": gain / ideal[size - 1],
        f"hit_rate_{k}": (hit_counts > 0).astype(np.float64),
        f"map_{k}": precision / np.minimum(size, k),
    }


def mean_metrics(ranked: pd.DataFrame, truth: pd.DataFrame, *, at: Sequence[int] = (10, 20)) -> dict[str, float]:
    """Means of metrics_per_customer over customers who bought something; columns of both frames as there."""
    return {str(name): float(value) for name, value in metrics_per_customer(ranked, truth, at=at).mean().items()}


def metrics_per_group(group: NDArray[np.int64], redeemed: Floats, p: Floats, *, at: int = 10) -> pd.DataFrame:
    """MAP and capped NDCG@k, one row per group with a redemption, indexed by group; equal p keep their order.

    group: the list of each offer, such as a customer and a campaign. redeemed: 1 or 0. All (n,).
    """
    order = np.lexsort((-p, group))
    sorted_redeemed, starts = redeemed[order], np.flatnonzero(np.diff(group[order], prepend=group[order][:1] - 1))
    sizes = np.diff(np.append(starts, len(order)))
    position = np.arange(len(order)) - np.repeat(starts, sizes) + 1
    total = np.add.reduceat(sorted_redeemed, starts) if len(order) else np.empty(0)
    hits = np.cumsum(sorted_redeemed)
    before = np.repeat(hits[starts] - sorted_redeemed[starts], sizes) if len(order) else hits
    names = pd.Index(group[order][starts], name="group")
    has_redemption = total > 0
    if not has_redemption.any():
        return pd.DataFrame({"map": [], f"ndcg_{at}": []}, index=names[:0])
    precision = (
        np.add.reduceat(sorted_redeemed * (hits - before) / position, starts)[has_redemption] / total[has_redemption]
    )
    gain = np.add.reduceat(sorted_redeemed * (position <= at) / np.log2(position + 1), starts)[has_redemption]
    ideal = np.cumsum(1 / np.log2(np.arange(2, at + 2)))[np.minimum(total[has_redemption], at).astype(int) - 1]
    return pd.DataFrame({"map": precision, f"ndcg_{at}": gain / ideal}, index=names[has_redemption])


def variety_metrics(ranked: pd.DataFrame, *, at: int = 10, catalogue: int | None = None) -> dict[str, float]:
    """How much lists differ between customers: number of products shown, and share of lists that no other customer has.

    ranked: columns customer_key, rank, product_key. `coverage` is the share of a catalogue of that size that is shown.
    """
    top = ranked[ranked["rank"] <= at].sort_values(["customer_key", "rank"])
    lists = top.groupby("customer_key")["product_key"].agg(tuple)
    distinct = float((~lists.duplicated(keep=False)).mean()) if len(lists) else float("nan")
    shown = float(top["product_key"].nunique())
    covered = {} if catalogue is None else {"coverage": shown / catalogue if catalogue else float("nan")}
    return {"products_shown": shown, "distinct_lists": distinct} | covered


def novelty_per_customer(ranked: pd.DataFrame, buyers: pd.Series, customers: int, *, at: int = 10) -> pd.Series:
    """Mean of -log2 of the share of customers who bought each listed product, (n_customers,), by customer_key.

    ranked: columns customer_key, rank, product_key. buyers: how many of the `customers` ever bought each product_key;
    one without buyers counts as one buyer. (Zhou et al., PNAS 2010.)
    """
    top = ranked[ranked["rank"] <= at]
    buyer_counts = buyers.reindex(top["product_key"]).fillna(1.0).clip(lower=1.0).to_numpy(np.float64)
    bits = pd.Series(-np.log2(buyer_counts / max(customers, 1)), index=top["customer_key"].to_numpy())
    return bits.groupby(level=0).mean()


def source_shares(ranked: pd.DataFrame, *, at: int = 10) -> dict[str, float]:
    """Share of list places by source: source_again, source_new, source_popular and others.

    ranked: columns rank, source.
    """
    top = ranked[ranked["rank"] <= at]
    return {f"source_{name}": float(share) for name, share in top["source"].value_counts(normalize=True).items()}


def split_repeat_and_new(truth: pd.DataFrame, owned: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Products bought, as (bought before by that customer, never bought before): columns customer_key, product_key."""
    marked = (
        truth[PAIR_COLUMNS].drop_duplicates().merge(owned[PAIR_COLUMNS].drop_duplicates(), how="left", indicator=True)
    )
    before = (marked["_merge"] == "both").to_numpy()
    return marked.loc[before, PAIR_COLUMNS], marked.loc[~before, PAIR_COLUMNS]


def upper_bound_per_customer(
    candidates: pd.DataFrame, truth: pd.DataFrame, *, at: Sequence[int] = (10, 20)
) -> pd.DataFrame:
    """The metrics of metrics_per_customer if these candidates were in the best possible order.

    candidates, truth: columns customer_key, product_key.
    """
    hits = candidates[PAIR_COLUMNS].drop_duplicates().merge(truth[PAIR_COLUMNS].drop_duplicates(), on=PAIR_COLUMNS)
    return metrics_per_customer(hits.assign(rank=hits.groupby("customer_key").cumcount() + 1), truth, at=at)
