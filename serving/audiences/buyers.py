"""Buyers: the customers most likely to buy any of some products, with the reason for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from customers.catalogue import products as catalogue_products
from customers.privacy import consents
from customers.reports import recommendation_reasons
from models.recommender import ranked_lists
from models.registry.bundle import Champion
from serving.api.schemas.products import AudienceQuestion
from serving.audiences import population
from serving.audiences.population import Floats, Ints, Population, RankedCustomers
from serving.recommendations import co_purchases, evidence, merchandising
from serving.recommendations.merchandising import ActiveRules
from serving.runtime import ServerRuntime
from serving.scoring import fallback

#: A customer who has bought none of the products gets a reason from at most this many best sellers among them.
MAX_EVIDENCE_PRODUCTS = 20
UNKNOWN_PRODUCTS = "the shop knows none of what was asked for"
ALL_EXCLUDED = "the shop's rules leave out all that was asked for"
SENSITIVE_NOT_ALLOWED = "it is sensitive, and they have not allowed that such things are looked at"
BOUGHT_RECENTLY = "they have bought it and are not to be offered it again yet"


def rank_buyers(runtime: ServerRuntime, question: AudienceQuestion) -> RankedCustomers:
    """Rank customers by P(they buy any of the products within the recommender's window), most probable first."""
    champion, active_rules = (
        runtime.champion("recommender"),
        merchandising.load_active_rules(runtime.shop, runtime.now()),
    )
    requested, notes = _requested_products(runtime, question)
    products = np.setdiff1d(requested, active_rules.excluded_keys)
    candidates = population.load_population(runtime, question.channel)
    window_days = champion.facts.get("settings", {}).get("window_days")
    empty = RankedCustomers(
        np.empty(0, np.int64), np.empty(0), {}, candidates.as_of, candidates.excluded_counts, window_days,
        fallback.uses_fallback(champion), champion, notes,
    )  # fmt: skip
    if not len(products):
        return replace(empty, empty_reason=ALL_EXCLUDED if len(requested) else UNKNOWN_PRODUCTS)
    keys, probabilities, left_out = _score_candidates(runtime, champion, active_rules, candidates, products)
    ranking = np.lexsort((keys, -probabilities))
    keys, probabilities = keys[ranking], probabilities[ranking]
    reason_by_key = _reason_texts(runtime, candidates, keys[: question.n], products)
    return replace(
        empty,
        keys=keys,
        probabilities=probabilities,
        reason_by_key=reason_by_key,
        excluded_counts={**candidates.excluded_counts, **left_out},
    )


def _requested_products(runtime: ServerRuntime, question: AudienceQuestion) -> tuple[Ints, list[str]]:
    """The keys of the requested products, ascending, and notes on unknown ones."""
    if question.categories:
        keys = runtime.products_in_categories(question.categories)
        return np.unique(np.array(keys, np.int64)), [] if keys else ["categories: none is in the catalogue"]
    key_by_id = catalogue_products.find_keys(runtime.shop, question.product_ids)
    requested_ids = set(question.product_ids)
    missing = len(requested_ids - set(key_by_id))
    notes = [f"product_ids: {missing} of {len(requested_ids)} are no products of this shop"] if missing else []
    return np.unique(np.array(list(key_by_id.values()), np.int64)), notes


def _score_candidates(
    runtime: ServerRuntime, champion: Champion, active_rules: ActiveRules, candidates: Population, products: Ints
) -> tuple[Ints, Floats, Counter[str]]:
    """Keys of candidates, P(they buy any product that they may be offered), and counts of those left out by reason."""
    sensitive = np.intersect1d(products, np.array(sorted(runtime.get_inventory().sensitive_products), np.int64))
    consenting = (
        consents.allowed_customers(runtime.shop, candidates.keys.tolist(), "profiling_sensitive")
        if len(sensitive)
        else set[int]()
    )
    scored: list[tuple[Ints, Floats]] = [(np.empty(0, np.int64), np.empty(0))]
    left_out: Counter[str] = Counter()
    for history in population.iter_histories(runtime, candidates):
        is_unrestricted = history["customer_key"].isin(consenting).to_numpy() | (len(sensitive) == 0)
        for part, allowed_products in (
            (history[is_unrestricted], products),
            (history[~is_unrestricted], np.setdiff1d(products, sensitive)),
        ):
            eligible, excluded_by_key = _split_excluded(part, active_rules, allowed_products)
            left_out[SENSITIVE_NOT_ALLOWED if not len(allowed_products) else BOUGHT_RECENTLY] += len(part) - len(
                eligible
            )
            if len(eligible):
                scored.append(
                    (
                        eligible["customer_key"].to_numpy(np.int64),
                        _purchase_probabilities(champion, eligible, allowed_products, excluded_by_key),
                    )
                )
    keys, probabilities = (np.concatenate(parts) for parts in zip(*scored, strict=True))
    return keys, probabilities, +left_out


def _split_excluded(
    history: pd.DataFrame, active_rules: ActiveRules, products: Ints
) -> tuple[pd.DataFrame, dict[int, Ints]]:
    """The histories of customers who may be offered any of the products, and which of them each may not be offered."""
    if not len(products):
        return history.head(0), {}
    excluded_by_key = {
        key: np.intersect1d(excluded, products)
        for key, excluded in merchandising.excluded_products(history, active_rules).items()
    }
    fully_excluded = [key for key, excluded in excluded_by_key.items() if len(excluded) == len(products)]
    partly_excluded = {key: excluded for key, excluded in excluded_by_key.items() if 0 < len(excluded) < len(products)}
    return history[~history["customer_key"].isin(fully_excluded)], partly_excluded


def _purchase_probabilities(
    champion: Champion, history: pd.DataFrame, products: Ints, excluded_by_key: Mapping[int, Ints]
) -> Floats:
    """P(a customer buys any of the products), (n_customers,), without the products that they may not be offered."""
    probabilities = np.asarray(champion.model.purchase_probabilities(history, products), np.float64)
    has_exclusions = history["customer_key"].isin(list(excluded_by_key)).to_numpy()
    if has_exclusions.any():
        restricted = history[has_exclusions]
        listed = champion.model.score(restricted, lists=("again", "new"), exclude=dict(excluded_by_key), only=products)
        probabilities[has_exclusions] = ranked_lists.probability_of_any(listed, restricted)
    return np.clip(np.nan_to_num(probabilities), 0.0, 1.0)


def _reason_texts(runtime: ServerRuntime, candidates: Population, keys: Ints, products: Ints) -> dict[int, str]:
    """The reason of each customer: which of the products they bought most, else what they bought that goes with one."""
    histories = list(population.iter_histories(runtime, candidates, keys, ["product_keys", *evidence.HISTORY_COLUMNS]))
    if not histories:
        return {}
    history = pd.concat(histories, ignore_index=True)
    hidden = runtime.get_inventory().sensitive_products
    consenting = (
        consents.allowed_customers(runtime.shop, keys.tolist(), "profiling_sensitive") if hidden else set[int]()
    )
    own_purchases = evidence.flatten_history(history, hidden=hidden, consenting=consenting)
    matching = own_purchases[own_purchases["product_key"].isin(products)]
    top_purchases = matching.sort_values(["times", "last_days"], ascending=[False, True]).drop_duplicates(
        "customer_key"
    )
    text_by_key = dict(
        zip(
            top_purchases["customer_key"].tolist(), _own_purchase_reasons(runtime, top_purchases, products), strict=True
        )
    )
    other_histories = history[~history["customer_key"].isin(list(text_by_key))]
    return text_by_key | _co_purchase_reasons(runtime, other_histories, own_purchases, products)


def _own_purchase_reasons(runtime: ServerRuntime, top_purchases: pd.DataFrame, products: Ints) -> list[str]:
    columns = ("product_key", *evidence.HISTORY_COLUMNS)
    names = (
        catalogue_products.load_display_names(runtime.shop, top_purchases["product_key"].unique())
        if len(products) > 1
        else {}
    )
    entries = zip(*(top_purchases[name].tolist() for name in columns), strict=True)
    reasons = ((key, recommendation_reasons.repeat_reason(*counts)) for key, *counts in entries)
    return [f"{names[key]}: {reason}" if key in names else reason for key, reason in reasons]


def _co_purchase_reasons(
    runtime: ServerRuntime, other_histories: pd.DataFrame, own_purchases: pd.DataFrame, products: Ints
) -> dict[int, str]:
    """Reasons of customers who bought none of the products: what they bought that goes with the best of these."""
    keys, co_purchase_index = (
        other_histories["customer_key"].to_numpy(np.int64),
        co_purchases.load_co_purchase_index(runtime),
    )
    evidence_by_row: list[Sequence[int]] = [()] * len(keys)
    if co_purchase_index is not None and len(keys):
        best_sellers = co_purchase_index.top_sellers(products, MAX_EVIDENCE_PRODUCTS)
        row_index = np.repeat(np.arange(len(keys)), len(best_sellers))
        row_by_purchase = pd.Index(keys).get_indexer(pd.Index(own_purchases["customer_key"]))
        purchases = own_purchases.assign(row=row_by_purchase)[row_by_purchase >= 0].reset_index(drop=True)
        best_entries = co_purchase_index.supporting_entries(
            row_index,
            np.tile(best_sellers, len(keys)),
            purchases["row"].to_numpy(),
            purchases["product_key"].to_numpy(),
        )
        for row, entry in zip(
            row_index[best_entries >= 0][::-1].tolist(), best_entries[best_entries >= 0][::-1].tolist(), strict=True
        ):
            evidence_by_row[row] = (int(purchases["product_key"].iat[entry]), int(purchases["last_days"].iat[entry]))
    reason_texts = recommendation_reasons.product_reasons(
        runtime.shop, [(key, "new", each) for key, each in zip(keys.tolist(), evidence_by_row, strict=True)]
    )
    return dict(zip(keys.tolist(), reason_texts, strict=True))
