"""Short lists: why a list has fewer products than requested, and which requested rules match nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from customers.catalogue import products
from customers.catalogue.product_attributes import ProductAttributes
from customers.shop.merchandising_rules import MerchandisingRules
from serving.recommendations import merchandising
from serving.recommendations.merchandising import EXCLUSION_REASONS, ActiveRules

#: The reason where no rule has excluded anything.
NO_MORE_REASONS = {
    "again": "they have bought no others",
    "new": "the shop has sold no others that they have not bought",
    "any": "the shop has sold no others",
}


@dataclass(frozen=True, slots=True)
class Shortage:
    """How many products are missing from a list, the rules that excluded some, and both as text."""

    missing: int
    rules: list[str]
    reason: str


def explain_shortages(
    active_rules: ActiveRules,
    history: pd.DataFrame,
    listed: pd.DataFrame,
    n: int,
    *,
    hidden: Collection[int] = (),
    consenting: Collection[int] = (),
) -> dict[int, Shortage]:
    """The shortages by customer key, for the customers with fewer than n products.

    history: columns customer_key, as_of, product_keys, last_days, requested_list, a row per customer. listed: columns
    customer_key, product_key, a row per list entry.
    """
    sizes = listed["customer_key"].value_counts()
    listed_counts = sizes.reindex(history["customer_key"], fill_value=0).to_numpy()
    short_rows = history[listed_counts < n].assign(listed_count=listed_counts[listed_counts < n])
    if short_rows.empty:
        return {}
    affected = _affected_customers(active_rules, short_rows, listed, hidden, consenting)
    shortages: dict[int, Shortage] = {}
    for key, list_name, size in zip(
        *(short_rows[name].tolist() for name in ("customer_key", "requested_list", "listed_count")), strict=True
    ):
        applied_rules = [name for name in EXCLUSION_REASONS if key in affected.get(name, ())]
        excluded_text = "; ".join(EXCLUSION_REASONS[name] for name in applied_rules)
        explanation = f"left out: {excluded_text}" if applied_rules else NO_MORE_REASONS[list_name]
        shortages[key] = Shortage(n - size, applied_rules, f"{size} of {n}; {explanation}")
    return shortages


def _affected_customers(
    active_rules: ActiveRules,
    short_rows: pd.DataFrame,
    listed: pd.DataFrame,
    hidden: Collection[int],
    consenting: Collection[int],
) -> dict[str, set[int]]:
    """By rule, the customers from whose lists it may have excluded something."""
    keys = set(short_rows["customer_key"].tolist())
    repeat_rows = short_rows[short_rows["requested_list"] == "again"]
    others = keys - set(repeat_rows["customer_key"].tolist())
    purchases = merchandising.flatten_purchases(repeat_rows)
    affected: dict[str, set[int]] = {}
    for name, excluded in _first_exclusions(active_rules).items():
        owners = purchases.loc[np.isin(purchases["product_key"], excluded), "customer_key"]
        affected[name] = {*owners.tolist(), *(others if len(excluded) else ())}
    hidden_owners = purchases.loc[purchases["product_key"].isin(list(hidden)), "customer_key"]
    affected["profiling_sensitive"] = {*hidden_owners.tolist(), *(others if hidden else ())} - set(consenting)
    affected["repurchase"] = set(
        merchandising.excluded_products(short_rows[short_rows["requested_list"] != "new"], active_rules)
    )
    affected["max_per_category"] = _at_category_cap(active_rules, listed)
    return affected


def _first_exclusions(active_rules: ActiveRules) -> dict[str, np.ndarray]:
    """By rule, the keys of the products that it is the first to exclude for all customers."""
    is_counted = np.zeros(len(active_rules.attributes.keys) if active_rules.exclusions else 0, bool)
    excluded_by_rule = {}
    for name, is_excluded in active_rules.exclusions.items():
        excluded_by_rule[name] = active_rules.attributes.keys[is_excluded & ~is_counted]
        is_counted = is_counted | is_excluded
    return excluded_by_rule


def _at_category_cap(active_rules: ActiveRules, listed: pd.DataFrame) -> set[int]:
    """The customers whose list has as many products of a category as max_per_category allows."""
    limit = active_rules.rules.max_per_category
    if limit is None or listed.empty:
        return set()
    category = active_rules.attributes.categories[
        active_rules.attributes.row_indices(listed["product_key"].to_numpy(np.int64))
    ]
    sizes = listed.assign(category=category)[category >= 0].groupby(["customer_key", "category"]).size()
    return set(sizes[sizes >= limit].index.get_level_values(0))


def unmet_rule_notes(active_rules: ActiveRules, requested_rules: MerchandisingRules) -> list[str]:
    """Notes on requested rules that match nothing in this shop, or not all products; their values are not repeated."""
    if requested_rules == MerchandisingRules():
        return []
    id_and_value_notes = [
        _unknown_ids(active_rules, requested_rules),
        *(_unknown_values(active_rules, requested_rules, name) for name in ALLOWED_VALUES),
    ]
    return [note for note in (*id_and_value_notes, _unknown_margins(active_rules, requested_rules)) if note]


#: Rules whose values are names, with the names that exist in the catalogue.
ALLOWED_VALUES: dict[str, Callable[[ProductAttributes], Collection[str]]] = {
    "categories": lambda attributes: attributes.category_names,
    "exclude_categories": lambda attributes: attributes.category_names,
    "exclude_departments": lambda attributes: attributes.department_names,
    "boost": lambda attributes: attributes.labels,
    "pin": lambda attributes: attributes.labels,
}


def _unknown_ids(active_rules: ActiveRules, requested_rules: MerchandisingRules) -> str | None:
    ids = requested_rules.exclude_product_ids
    missing = len(ids) - len(products.find_keys(active_rules.shop, ids)) if ids else 0
    return f"exclude_product_ids: {missing} of {len(ids)} are no products of this shop" if missing else None


def _unknown_values(active_rules: ActiveRules, requested_rules: MerchandisingRules, name: str) -> str | None:
    values = [value if isinstance(value, str) else value[0] for value in getattr(requested_rules, name)]
    allowed = ALLOWED_VALUES[name](active_rules.attributes) if values else ()
    missing = sum(value not in allowed for value in values)
    problem = "carried by no product" if name in ("boost", "pin") else "not in the catalogue"
    return f"{name}: {missing} of {len(values)} {'is' if missing == 1 else 'are'} {problem}" if missing else None


def _unknown_margins(active_rules: ActiveRules, requested_rules: MerchandisingRules) -> str | None:
    unknown = int(np.isnan(active_rules.attributes.margin).sum()) if requested_rules.min_margin is not None else 0
    return f"min_margin: {unknown} products without a price or a cost may stay" if unknown else None
