"""Recommended products: ranked lists per customer under the merchandising rules; online and at night."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from serving.recommendations import cold_start, evidence, merchandising, ranked_lists
from serving.runtime import UNKNOWN_CUSTOMER
from serving.scoring import fallback
from serving.scoring.fallback import Prediction
from serving.scoring.inputs import ScoringInputs


@dataclass(frozen=True)
class RecommendedLists(Prediction):
    """Ranked products, a row per customer, list and rank with columns as `score_lists`, and what they were made with.

    The frame holds purchase histories. `hidden` are the sensitive products, `consenting` the customers to whom they may
    be shown, `favourites_by_key` the favourite categories of customers without features.
    """

    ranked: pd.DataFrame
    active_rules: merchandising.ActiveRules
    hidden: frozenset[int]
    consenting: set[int]
    favourites_by_key: cold_start.FavouriteCategories

    def iter_rows(self) -> Iterator[ScoreRow]:
        """The rows to store, one per customer of the frame."""
        return score_details.encode_recommender(
            self.frame["customer_key"].tolist(),
            self.ranked,
            evidence.iter_evidence(self.ranked),
            fallback=self.fallback,
        )


def recommend_products(inputs: ScoringInputs) -> RecommendedLists:
    """Ranked lists of the customers of the inputs, under the shop's rules."""
    history = inputs.load_features("recommender")
    is_scored = fallback.has_features(history)
    hidden = inputs.inventory.sensitive_products
    consenting = inputs.consenting_customers(hidden)
    active_rules = inputs.active_rules
    favourites_by_key = cold_start.load_favourites(
        inputs.shop, set(history.loc[~is_scored, "customer_key"]) - {UNKNOWN_CUSTOMER}
    )
    ranked = score_lists(
        inputs.get_model("recommender"),
        history,
        active_rules,
        hidden=hidden,
        consenting=consenting,
        favourites_by_key=favourites_by_key,
    )
    is_fallback = ~is_scored | inputs.uses_fallback("recommender")
    return RecommendedLists(
        history, is_scored, is_fallback, ranked, active_rules, hidden, consenting, favourites_by_key
    )


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
    """Ranked products: columns customer_key, list, rank (from 1), product_key, score, source and the evidence's.

    history: a row per customer, purchase history as lists. `hidden` products are listed, and named in reasons, only for
    the customers in `consenting`. favourites_by_key: favourite categories of customers without features. `previous` is
    that of `ranked_lists.rank_lists`; evidence columns are those of `evidence.add_evidence`.
    """
    options: dict[str, Any] = {"names": names, "n": n, "hidden": hidden, "consenting": consenting}
    ranked = ranked_lists.rank_lists(model, history, active_rules, previous=previous, **options)
    if favourites_by_key:
        ranked = cold_start.add_favourites_first(ranked, model, history, active_rules, favourites_by_key, **options)
    co_purchase_index = getattr(model, "related_products", None)
    with_evidence = evidence.add_evidence(ranked, history, co_purchase_index, hidden=hidden, consenting=consenting)
    return cold_start.label_new_products(with_evidence, getattr(model, "cold_start_products", ()))
