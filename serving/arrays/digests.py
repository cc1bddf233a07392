"""Digests of what a night's predictions depend on besides the customers: settings and the catalogue.

Where a digest has changed since the night, its predictions are not what a request would compute now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from customers.shop.settings import Shop
from serving.offers.offer_inventory import OfferInventory
from serving.recommendations.merchandising import ActiveRules

#: The models whose versions an answer depends on, by the model that it is from.
DEPENDENCIES = {
    "churn": ("churn", "value"),
    "timing": ("timing", "churn", "value"),
    "value": ("value",),
    "recommender": ("recommender",),
    "offers": ("offers",),
    "restock": ("restock",),
}
#: Columns of offers that eligibility, scores or responses depend on; times, stock and budgets are judged per request.
_OFFER_COLUMNS = (
    "offer_key", "public_id", "campaign_id", "value", "value_kind", "min_spend", "currency", "channels", "segment",
    "audience", "sensitive",
)  # fmt: skip


def digest_settings(shop: Shop) -> str:
    """The settings that predictions depend on; the clock and the merchandising rules are compared by their effect."""
    return _digest(
        (shop.timezone, shop.currency, shop.contact_cap, shop.contact_days, sorted(shop.consent_default.items()),
         shop.retention)
    )  # fmt: skip


def digest_sensitive_categories(inventory: OfferInventory) -> str:
    """The categories that are named in no reason without consent."""
    return _digest((sorted(inventory.sensitive_categories),))


def digest_rules(active_rules: ActiveRules, inventory: OfferInventory) -> str:
    """The merchandising rules and the products that they concern.

    With a delay in days before a product is recommended again, lists hold for one day of the shop.
    """
    delays, rules = active_rules.repurchase_delays, active_rules.rules
    is_dated = bool(np.isfinite(delays.days).any())
    parts: list[Any] = [
        rules,
        active_rules.excluded_keys,
        active_rules.pinned_keys,
        delays.keys,
        delays.days,
        np.array(sorted(inventory.sensitive_products), np.int64),
        active_rules.now.astimezone(active_rules.shop.zone).date() if is_dated else None,
        tuple(name for name, excluded in active_rules.exclusions.items() if excluded.any()),
    ]
    for factor, keys in active_rules.boost_groups:
        parts += [factor, keys]
    if rules.max_per_category is not None:
        parts += [active_rules.attributes.keys, active_rules.attributes.categories]
    return _digest(parts)


def digest_offers(inventory: OfferInventory) -> str:
    """The offers, the products that they cover, categories, margins, and which products are sensitive."""
    table, covers, categories = (
        inventory.offer_table,
        inventory.catalogue.covered_products,
        inventory.product_categories,
    )
    return _digest(
        (
            *(table.offers[name].astype(object).tolist() for name in _OFFER_COLUMNS),
            table.has_no_products,
            covers["offer_key"].to_numpy(np.int64),
            covers["product_key"].to_numpy(np.int64),
            np.asarray(categories.product_keys),
            np.asarray(categories.codes),
            inventory.margin_by_offer.index.to_numpy(np.int64),
            inventory.margin_by_offer.to_numpy(np.float64),
            np.array(sorted(inventory.sensitive_products), np.int64),
        )
    )


def digest_catalogue(name: str, inventory: OfferInventory, active_rules: ActiveRules) -> str:
    """The digest of those parts of the catalogue that the predictions of a model depend on."""
    if name in ("churn", "timing", "restock"):
        return digest_sensitive_categories(inventory)
    if name == "recommender":
        return digest_rules(active_rules, inventory)
    return digest_offers(inventory) if name == "offers" else ""


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()
