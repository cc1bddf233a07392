"""Related products for a product page: similar products, complements, and more expensive alternatives (up-sell)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.catalogue import products
from customers.people import lookup
from customers.privacy import consents
from customers.reports import recommendation_reasons
from models.registry.bundle import Champion
from models.related_products.complements import RelatedProducts
from serving.api.requested_customers import build_envelope
from serving.api.schemas.common import Product
from serving.api.schemas.products import SimilarAnswer, SimilarQuestion, SimilarResult
from serving.recommendations import co_purchases, merchandising
from serving.runtime import ServerRuntime
from serving.scoring import fallback

Ints = NDArray[np.int64]

#: In a request without products, this many of the customer's own are used, those they buy most.
MAX_OWN_PRODUCTS = 10
NONE_REASONS = {
    "similar": "the shop sells nothing else of its kind",
    "together": "too few customers have bought it with anything else",
    "upsell": "nothing dearer of its kind is sold here, or its price is not known",
}
#: Where there are some, but fewer than requested.
NO_MORE_REASONS = {
    "similar": "its kind has no more",
    "together": "customers have bought no more with it",
    "upsell": "no more of its kind are dearer",
}
SOME_EXCLUDED = "the shop's rules, or what may not be shown, leave out the rest"
ALL_EXCLUDED = "the shop's rules, or what may not be shown, leave out all that there is"
NOT_COMPUTED_YET = "what goes with it is not known yet: the next night finds out; run: regulars run"
UNKNOWN_CUSTOMER_NOTE = "customer_id: the shop knows no customer by this id; nothing of theirs is looked at"
PROFILING_NOT_ALLOWED = "they have not allowed profiling: nothing of theirs is looked at"
NO_PURCHASES = "they have bought nothing that may be looked at"
ALTERNATIVES_HINT = "name products, or ask /v1/recommendations"


@dataclass(frozen=True)
class RequestingCustomer:
    """The customer for whom the page is: the products they buy most, and those that they must not be shown.

    `is_registered`: whether the customer id exists, None for a request without one. `note`: why their purchase
    history is not used.
    """

    own_products: list[int]
    excluded_products: Ints
    is_registered: bool | None = None
    note: str | None = None


def answer_related_products(runtime: ServerRuntime, question: SimilarQuestion) -> SimilarAnswer:
    """The related products of each requested product, in the order of the request.

    Of the merchandising rules only those that exclude products apply: exclusions and repurchase. There is no boost,
    pin, limit per category or exploration.
    """
    champion = runtime.champion("recommender")
    customer = _resolve_customer(runtime, champion, question.customer_id)
    key_by_id = products.find_keys(runtime.shop, question.product_ids)
    product_ids = question.product_ids
    if not product_ids:
        names = products.find_ids(runtime.shop, customer.own_products)
        product_ids = [names[key] for key in customer.own_products]
        key_by_id = {names[key]: key for key in customer.own_products}
    keys = [key_by_id[name] for name in product_ids if name in key_by_id]
    related = _find_related(runtime, keys, question, customer)
    shortfall_by_key = _shortfall_reasons(runtime, keys, question, related)
    popular = _popular_products(runtime, champion, question.n + 1, customer)
    results = [
        _build_result(name, key_by_id.get(name), related, popular, shortfall_by_key, question) for name in product_ids
    ]
    as_of_frame = pd.DataFrame({"as_of": pd.to_datetime(pd.Series([champion.facts.get("as_of")]), utc=True)})
    notes = [customer.note] if customer.note else []
    if not results:
        notes = [f"{customer.note or NO_PURCHASES}; {ALTERNATIVES_HINT}"]
    envelope_fields = build_envelope(runtime, "similar", as_of_frame, [champion], results)
    return SimilarAnswer(**envelope_fields, customer_known=customer.is_registered, notes=notes)


def _resolve_customer(runtime: ServerRuntime, champion: Champion, customer_id: str | None) -> RequestingCustomer:
    """The requesting customer. Without their consent their history is not used and sensitive products are excluded."""
    active_rules, sensitive = (
        merchandising.load_active_rules(runtime.shop, runtime.now()),
        np.array(sorted(runtime.get_inventory().sensitive_products), np.int64),
    )
    key = lookup.find_keys(runtime.shop, [customer_id]).get(customer_id) if customer_id is not None else None
    if key is None or not consents.allowed_customers(runtime.shop, [key], "profiling"):
        note = None if customer_id is None else UNKNOWN_CUSTOMER_NOTE if key is None else PROFILING_NOT_ALLOWED
        return RequestingCustomer(
            [],
            np.union1d(active_rules.excluded_keys, sensitive),
            None if customer_id is None else key is not None,
            note,
        )
    history = runtime.load_features(champion, [key]).iloc[:1]
    may_see_sensitive = not len(sensitive) or bool(
        consents.allowed_customers(runtime.shop, [key], "profiling_sensitive")
    )
    hidden_products = np.empty(0, np.int64) if may_see_sensitive else sensitive
    excluded = merchandising.excluded_products(history, active_rules).get(key, np.empty(0, np.int64))
    bought = history["product_keys"].iloc[0] if fallback.has_features(history)[0] else []
    own_products = [int(product) for product in bought if product not in set(hidden_products.tolist())][
        :MAX_OWN_PRODUCTS
    ]
    return RequestingCustomer(
        own_products,
        np.unique(np.concatenate([active_rules.excluded_keys, hidden_products, excluded])),
        is_registered=True,
    )


def _find_related(
    runtime: ServerRuntime, keys: Sequence[int], question: SimilarQuestion, customer: RequestingCustomer
) -> dict[int, list[Product]]:
    """The related products by product key; none before the first nightly run has counted co-purchases."""
    co_purchase_index = co_purchases.load_co_purchase_index(runtime)
    if co_purchase_index is None:
        return {}
    related = co_purchase_index.find_related(
        keys, question.n, question.how, exclude=customer.excluded_products.tolist()
    )
    reasons = _reason_texts(runtime, co_purchase_index, related, question.how)
    return _group_by_product(runtime, related.assign(reason=reasons, source=question.how))


def _reason_texts(
    runtime: ServerRuntime, co_purchase_index: RelatedProducts, related: pd.DataFrame, relation: str
) -> list[str]:
    if relation == "together":
        columns = (related[name].tolist() for name in ("together", "followed", "own"))
        return [recommendation_reasons.co_purchase_reason(*counts) for counts in zip(*columns, strict=True)]
    pairs = related[["product_key", "other_key"]].to_numpy(np.int64)
    categories = products.load_categories(runtime.shop, np.unique(pairs))
    prices = co_purchase_index.lookup_prices(pairs.ravel()).reshape(pairs.shape).tolist()
    return [
        recommendation_reasons.alternative_reason(
            relation, _common_category(categories, product_key, other_key), other_price, price, runtime.shop.currency
        )
        for (product_key, other_key), (price, other_price) in zip(pairs.tolist(), prices, strict=True)
    ]


def _common_category(categories: Mapping[int, tuple[str | None, str | None]], one: int, other: int) -> str | None:
    """The finest category that two products share, by its name in the catalogue."""
    shared = [
        left for left, right in zip(categories.get(one, ()), categories.get(other, ()), strict=True) if left == right
    ]
    return next(filter(None, shared), None)


def _group_by_product(runtime: ServerRuntime, related: pd.DataFrame) -> dict[int, list[Product]]:
    names = products.find_ids(runtime.shop, [int(key) for key in related["other_key"].unique()])
    items_by_product: dict[int, list[Product]] = {}
    columns = ("product_key", "rank", "other_key", "score", "source", "reason")
    for key, rank, other, score, source, reason in zip(*(related[name].tolist() for name in columns), strict=True):
        item = Product(rank=rank, product_id=names[other], score=score, source=source, reason=reason)
        items_by_product.setdefault(key, []).append(item)
    return items_by_product


def _shortfall_reasons(
    runtime: ServerRuntime, keys: Sequence[int], question: SimilarQuestion, related: Mapping[int, list[Product]]
) -> dict[int, str]:
    """Why a product has fewer related products than requested: not computed yet, no others, or some excluded."""
    co_purchase_index, n, relation = co_purchases.load_co_purchase_index(runtime), question.n, question.how
    short_keys = [key for key in dict.fromkeys(keys) if len(related.get(key, ())) < n]
    if co_purchase_index is None:
        return dict.fromkeys(short_keys, NOT_COMPUTED_YET)
    not_indexed = set(short_keys) - set(co_purchase_index.similarity.products.tolist())
    available_counts = co_purchase_index.find_related(short_keys, n, relation)["product_key"].value_counts()
    text_by_key = {}
    for key in short_keys:
        returned_count, available_count = len(related.get(key, ())), int(available_counts.get(key, 0))
        if key in not_indexed:
            text_by_key[key] = NOT_COMPUTED_YET
        elif returned_count:
            explanation = SOME_EXCLUDED if available_count > returned_count else NO_MORE_REASONS[relation]
            text_by_key[key] = f"{returned_count} of {n}; {explanation}"
        else:
            text_by_key[key] = ALL_EXCLUDED if available_count else NONE_REASONS[relation]
    return text_by_key


def _popular_products(
    runtime: ServerRuntime, champion: Champion, n: int, customer: RequestingCustomer
) -> dict[int, Product]:
    """The best-selling products by key, best first: the fallback of a product about which nothing is known."""
    keys, shares = champion.model.population_average(n + len(customer.excluded_products))
    positions = np.flatnonzero(~np.isin(keys, customer.excluded_products))[:n]
    names = products.find_ids(runtime.shop, keys[positions].tolist())
    reason = recommendation_reasons.product_reason("popular")
    return {
        key: Product(rank=rank, product_id=names[key], score=round(share, 6), source="popular", reason=reason)
        for rank, (key, share) in enumerate(
            zip(keys[positions].tolist(), shares[positions].tolist(), strict=True), start=1
        )
    }


def _build_result(
    name: str,
    key: int | None,
    related: Mapping[int, list[Product]],
    popular: Mapping[int, Product],
    shortfall_by_key: Mapping[int, str],
    question: SimilarQuestion,
) -> SimilarResult:
    """The result of one product. An up-sell without a more expensive product stays empty: no best sellers."""
    items: list[Product] = [] if key is None else related.get(key, [])
    fallback = key is None or (not items and question.how != "upsell")
    reason = "the shop does not know this product" if key is None else shortfall_by_key.get(key)
    if fallback:
        others = [item for other, item in popular.items() if other != key][: question.n]
        items = [item.model_copy(update={"rank": rank}) for rank, item in enumerate(others, start=1)]
    return SimilarResult(product_id=name, known=key is not None, fallback=fallback, items=items, reason=reason)
