"""Merchandising rules for product lists: exclusions, repurchase delays, boosts, pins, category caps, exploration.

They apply in this order, each to what the rules before it have left:

1. exclusions for all customers (`EXCLUSION_RULES`; the first that excludes a product is the one that is reported);
2. sensitive products, for customers without that consent;
3. repurchase: products that a customer has bought, excluded for ever or for a number of days;
4. boost: a factor on the score by label; a product with several labels gets the product of their factors;
5. pin: products with a label come first, if the customer may have them;
6. max_per_category: a cap per category, from the top; a product without a category is not counted;
7. explore: a share of the places goes to products from below the end of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.catalogue import product_attributes, products
from customers.catalogue.product_attributes import ProductAttributes, RepurchaseDelays
from customers.shop.merchandising_rules import MerchandisingRules
from customers.shop.settings import Shop
from features.families.stored_values import MAX_PRODUCTS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: Sources that the rules add: pinned by the shop without a score of the model, and drawn by exploration.
PINNED, EXPLORED = "pinned", "explore"

ExclusionRule = Callable[[ProductAttributes, MerchandisingRules, Ints], Flags]


def _is_in(values: Sequence[str], codes_by_name: Mapping[str, int], codes: Ints) -> Flags:
    return np.isin(codes, [codes_by_name[value] for value in values if value in codes_by_name])


#: The products that each rule excludes for all customers; `excluded_ids` are the keys of those excluded by id.
EXCLUSION_RULES: dict[str, ExclusionRule] = {
    "exclude_product_ids": lambda attributes, rules, excluded_ids: np.isin(attributes.keys, excluded_ids),
    "categories": lambda attributes, rules, _: (
        ~_is_in(rules.categories, attributes.category_names, attributes.categories)
    ),
    "exclude_categories": lambda attributes, rules, _: _is_in(
        rules.exclude_categories, attributes.category_names, attributes.categories
    ),
    "exclude_departments": lambda attributes, rules, _: _is_in(
        rules.exclude_departments, attributes.department_names, attributes.departments
    ),
    "in_stock_only": lambda attributes, rules, _: ~attributes.in_stock,
    "min_margin": lambda attributes, rules, _: attributes.margin < float(rules.min_margin or 0.0),
}
#: The reason text of each rule that excludes products, in the order of the rules.
EXCLUSION_REASONS = {
    "exclude_product_ids": "products left out by their ids",
    "categories": "only these categories are asked for",
    "exclude_categories": "categories that are left out",
    "exclude_departments": "departments that are left out",
    "in_stock_only": "what is sold out",
    "min_margin": "what earns less than the least margin",
    "profiling_sensitive": "sensitive products, which this customer has not allowed to be looked at",
    "repurchase": "what they have bought and are not to be offered again yet",
    "max_per_category": "more than the most of one category",
}


@dataclass(frozen=True)
class ActiveRules:
    """The merchandising rules for some lists of one shop at one time, with the products that they concern.

    Product attributes are read from the catalogue only if a rule needs them.
    """

    shop: Shop
    rules: MerchandisingRules
    now: datetime
    repurchase_delays: RepurchaseDelays

    @cached_property
    def attributes(self) -> ProductAttributes:
        """The product attributes of the shop's catalogue."""
        return product_attributes.load_attributes(self.shop)

    @cached_property
    def exclusions(self) -> dict[str, Flags]:
        """By active rule, the flags of the products that it excludes for all customers, (n_products,)."""
        settings = {name: getattr(self.rules, name) for name in EXCLUSION_RULES}
        ids = [*self.rules.exclude_product_ids]
        excluded_ids = np.array(sorted(products.find_keys(self.shop, ids).values() if ids else []), np.int64)
        return {
            name: EXCLUSION_RULES[name](self.attributes, self.rules, excluded_ids)
            for name, setting in settings.items()
            if setting is not None and setting is not False and setting != ()
        }

    @cached_property
    def excluded_keys(self) -> Ints:
        """The keys, ascending, of the products excluded for all customers, (n_excluded,)."""
        if not self.exclusions:
            return np.empty(0, np.int64)
        return self.attributes.keys[np.logical_or.reduce([*self.exclusions.values()])]

    @cached_property
    def boost_groups(self) -> list[tuple[float, Ints]]:
        """The factors other than 1, each with the keys of the products whose score it multiplies, (n_boosted,)."""
        if not self.rules.boost:
            return []
        factor = np.ones(len(self.attributes.keys))
        for label, boost in self.rules.boost:
            factor[self.attributes.row_indices(self.attributes.keys_with_labels([label]))] *= boost
        return [(float(boost), self.attributes.keys[factor == boost]) for boost in np.unique(factor) if boost != 1.0]

    @cached_property
    def pinned_keys(self) -> Ints:
        """The keys, ascending, of the products that come first, (n_pinned,)."""
        return self.attributes.keys_with_labels(self.rules.pin) if self.rules.pin else np.empty(0, np.int64)

    @property
    def has_reordering(self) -> bool:
        """Whether a rule changes the order of the model's ranking, beyond excluding products."""
        rules = self.rules
        return bool(rules.boost or rules.pin or rules.max_per_category or rules.explore)


def load_active_rules(shop: Shop, now: datetime, rules: MerchandisingRules | None = None) -> ActiveRules:
    """The rules for lists made at `now`: the shop's own, or `rules` in their place."""
    return ActiveRules(
        shop, shop.recommendations if rules is None else rules, now, product_attributes.load_repurchase_delays(shop)
    )


def excluded_products(history: pd.DataFrame, active_rules: ActiveRules) -> dict[int, Ints]:
    """The products that each customer has bought and must not be offered again yet: (n,) product keys by customer key.

    history: columns customer_key, as_of, product_keys, last_days, a row per customer.
    """
    if not len(active_rules.repurchase_delays.keys):
        return {}
    purchases = flatten_purchases(history, ("last_days",))
    position = np.searchsorted(active_rules.repurchase_delays.keys, purchases["product_key"]).clip(
        max=len(active_rules.repurchase_delays.keys) - 1
    )
    interval_days = np.where(
        active_rules.repurchase_delays.keys[position] == purchases["product_key"],
        active_rules.repurchase_delays.days[position],
        0.0,
    )
    elapsed_days = (
        purchases["last_days"].to_numpy(np.float64)
        + _elapsed_days(history["as_of"], active_rules)[purchases["row"].to_numpy()]
    )
    excluded = pd.concat(
        [
            purchases.loc[elapsed_days < interval_days, ["customer_key", "product_key"]],
            _off_history(history, active_rules),
        ]
    )
    return {
        int(key): customer_rows.to_numpy(np.int64)
        for key, customer_rows in excluded.groupby("customer_key")["product_key"]
    }


def _off_history(history: pd.DataFrame, active_rules: ActiveRules) -> pd.DataFrame:
    """Purchases of never-again products that full histories may no longer contain: customer_key, product_key."""
    is_full = history["product_keys"].map(lambda keys: np.size(keys) >= MAX_PRODUCTS).to_numpy(bool)
    never_again = active_rules.repurchase_delays.keys[np.isinf(active_rules.repurchase_delays.days)]
    owners = history.loc[is_full, "customer_key"] if len(never_again) else ()
    return product_attributes.purchased_pairs(active_rules.shop, owners, never_again, active_rules.now)


def flatten_purchases(history: pd.DataFrame, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The purchase histories with a row per customer and product.

    Columns: row (of the history), customer_key, product_key, and the given list columns.
    """
    has_products = history["product_keys"].notna().to_numpy()
    with_products = history[has_products]
    sizes = with_products["product_keys"].map(len).to_numpy(np.int64)
    source_by_column = {"product_key": "product_keys"} | {name: name for name in columns}
    flat_columns = {
        name: np.concatenate([*with_products[column], np.empty(0, np.int64)])
        for name, column in source_by_column.items()
    }
    rows = np.repeat(np.flatnonzero(has_products), sizes)
    return pd.DataFrame({"row": rows, "customer_key": history["customer_key"].to_numpy(np.int64)[rows], **flat_columns})


def _elapsed_days(as_of: pd.Series, active_rules: ActiveRules) -> Floats:
    """Calendar days in the shop's time zone from as_of until now, (n,); 0 where as_of is NaT."""
    days = pd.to_datetime(as_of, utc=True).dt.tz_convert(active_rules.shop.zone).dt.tz_localize(None).dt.normalize()
    today = pd.Timestamp(active_rules.now.astimezone(active_rules.shop.zone).date())
    return (today - days).dt.days.fillna(0).clip(lower=0).to_numpy().astype(np.float64)
