"""Recommended products, online and by night."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import pandas as pd

from customers.privacy import consents
from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from models.registry.bundle import Champion
from serving.recommendations import cold_start, evidence, merchandising, ranked_lists
from serving.runtime import UNKNOWN_CUSTOMER, FeatureCache, ServerRuntime
from serving.scoring import fallback
from serving.scoring import fallback as fallback_scoring


def encode_lists(history: pd.DataFrame, ranked: pd.DataFrame, is_fallback: fallback.Flags) -> Iterator[ScoreRow]:
    """A row a customer: best score, and a list each of "any", "again" and "new", and "fallback".

    An entry of a list is [product_key, score, source, *grounds], best first; `customers.reports.recommendation_reasons` says what the
    grounds mean, and puts them into words. Who gets nothing has empty lists and no score, in place of older ones.
    """
    columns = ("customer_key", "list", "product_key", "score", "source")
    entries = zip(*(ranked[name].tolist() for name in columns), evidence.iter_evidence(ranked), strict=True)
    entries_by_key = {key: list(customer_entries) for key, customer_entries in groupby(entries, key=itemgetter(0))}
    for key, flag in zip(history["customer_key"].tolist(), is_fallback.tolist(), strict=True):
        detail: dict[str, Any] = {name: [] for name in score_details.LIST_NAMES} | {"fallback": flag}
        for _, name, product, score, source, evidence_values in entries_by_key.get(key, ()):
            detail[name].append([product, score, source, *evidence_values])
        best = max((entry[1] for name in score_details.LIST_NAMES for entry in detail[name]), default=None)
        yield key, best, score_details.dump_detail(detail)


@dataclass(frozen=True)
class RecommendedLists:
    """The ranked products of some customers, from which shelves, whose are what holds for all, and by which rules."""

    history: pd.DataFrame
    ranked: pd.DataFrame
    fallback: fallback_scoring.Flags
    active_rules: merchandising.ActiveRules
    hidden: frozenset[int]
    consenting: set[int]
    favourites_by_key: cold_start.FavouriteCategories


def recommend_products(
    runtime: ServerRuntime, champion: Champion, keys: Sequence[int], feature_cache: FeatureCache | None = None
) -> RecommendedLists:
    """Which products each is likeliest to buy next."""
    history = runtime.load_features(champion, keys, feature_cache)
    has_features = fallback_scoring.has_features(history)
    is_fallback = ~has_features | fallback_scoring.uses_fallback(champion)
    hidden, consenting = runtime.get_inventory().sensitive_products, set[int]()
    if hidden:
        consenting = consents.allowed_customers(runtime.shop, keys, "profiling_sensitive")
    active_rules = merchandising.load_active_rules(runtime.shop, runtime.now())
    favourites_by_key = cold_start.load_favourites(
        runtime.shop, set(history.loc[~has_features, "customer_key"]) - {UNKNOWN_CUSTOMER}
    )
    ranked = score_lists(
        champion.model, history, active_rules, hidden=hidden, consenting=consenting, favourites_by_key=favourites_by_key
    )
    runtime.store_scores(champion, history[has_features], encode_lists(history, ranked, is_fallback))
    return RecommendedLists(history, ranked, is_fallback, active_rules, hidden, consenting, favourites_by_key)


def score_lists(
    model: Any,
    history: pd.DataFrame,
    active_rules: merchandising.ActiveRules,
    *,
    names: Sequence[str] = score_details.LIST_NAMES,
    n: int = score_details.MAX_STORED_ITEMS,
    hidden: Collection[int] = (),
    consenting: Collection[int] = (),
    favourites_by_key: cold_start.FavouriteCategories | None = None,
    previous: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Ranked products under the shop's rules: customer_key, list, rank (from 1), product_key, score, source, why.

    Why is what `because` says. `hidden` products are listed, and named in reasons, only for the customers in `sees`.
    `liking` are the favourite categories of customers without figures. `known` is for `ranking.ranked`.
    """
    options: dict[str, Any] = {"names": names, "n": n, "hidden": hidden, "consenting": consenting}
    ranked = ranked_lists.rank_lists(model, history, active_rules, previous=previous, **options)
    if favourites_by_key:
        ranked = cold_start.add_favourites_first(ranked, model, history, active_rules, favourites_by_key, **options)
    co_purchase_index = getattr(model, "related_products", None)
    with_evidence = evidence.add_evidence(ranked, history, co_purchase_index, hidden=hidden, consenting=consenting)
    return cold_start.label_new_products(with_evidence, getattr(model, "cold_start_products", ()))
