"""The shop's rules for lists of products: what may not be listed, what comes first, and how lists are mixed.

The order in which they hold, each within what those before it have left:

1. bars for everybody (`BARS`, the first that bars a product is the one that is named);
2. sensitive products, for a customer who has not allowed them to be looked at;
3. repurchase: what a customer has bought, never again, or not until so many days are over;
4. boost: a label's factor on the score; a product with several labels gets the product of them;
5. pin: products with the label first, as far as the customer may have them;
6. at most so many of a category, from the top; a product without a category is not counted;
7. explore: every so many places one from below the list's end.
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
from features.families.product_history import MAX_PRODUCTS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: Sources that the rules add: what the shop put first without a word from the model, and what is tried out.
PINNED, EXPLORED = "pinned", "explore"

ExclusionRule = Callable[[ProductAttributes, MerchandisingRules, Ints], Flags]


def _is_in(words: Sequence[str], names: Mapping[str, int], codes: Ints) -> Flags:
    return np.isin(codes, [names[word] for word in words if word in names])


#: Which products a wish bars for everybody; `left_out` are the keys of those left out by their ids.
EXCLUSION_RULES: dict[str, ExclusionRule] = {
    "exclude_product_ids": lambda goods, wishes, left_out: np.isin(goods.keys, left_out),
    "categories": lambda goods, wishes, _: ~_is_in(wishes.categories, goods.category_names, goods.categories),
    "exclude_categories": lambda goods, wishes, _: _is_in(
        wishes.exclude_categories, goods.category_names, goods.categories
    ),
    "exclude_departments": lambda goods, wishes, _: _is_in(
        wishes.exclude_departments, goods.department_names, goods.departments
    ),
    "in_stock_only": lambda goods, wishes, _: ~goods.in_stock,
    "min_margin": lambda goods, wishes, _: goods.margin < float(wishes.min_margin or 0.0),
}
#: Why a product is not on a list, in words, by the rule that kept it off, in the order of the rules.
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
    """The wishes that hold for some lists, with the products that they speak of; all of one shop at one moment.

    What is not asked for is not read: without a wish nothing is known here but which products must wait.
    """

    shop: Shop
    rules: MerchandisingRules
    now: datetime
    repurchase_delays: RepurchaseDelays

    @cached_property
    def attributes(self) -> ProductAttributes:
        """What the shop sells."""
        return product_attributes.load_attributes(self.shop)

    @cached_property
    def exclusions(self) -> dict[str, Flags]:
        """What each rule that holds for everybody bars, over the goods; no rule, no entry."""
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
        """The keys, rising, of the products that nobody gets."""
        if not self.exclusions:
            return np.empty(0, np.int64)
        return self.attributes.keys[np.logical_or.reduce([*self.exclusions.values()])]

    @cached_property
    def boost_groups(self) -> list[tuple[float, Ints]]:
        """The products whose scores are multiplied, by the factor."""
        if not self.rules.boost:
            return []
        factor = np.ones(len(self.attributes.keys))
        for label, boost in self.rules.boost:
            factor[self.attributes.row_indices(self.attributes.keys_with_labels([label]))] *= boost
        return [(float(boost), self.attributes.keys[factor == boost]) for boost in np.unique(factor) if boost != 1.0]

    @cached_property
    def pinned_keys(self) -> Ints:
        """The keys of the products that come first."""
        return self.attributes.keys_with_labels(self.rules.pin) if self.rules.pin else np.empty(0, np.int64)

    @property
    def has_reordering(self) -> bool:
        """Whether lists are anything but what the model says of the products that are allowed."""
        rules = self.rules
        return bool(rules.boost or rules.pin or rules.max_per_category or rules.explore)


def load_active_rules(shop: Shop, now: datetime, rules: MerchandisingRules | None = None) -> ActiveRules:
    """What holds for lists made at a moment: the shop's own wishes, or these in their place."""
    return ActiveRules(
        shop, shop.recommendations if rules is None else rules, now, product_attributes.load_repurchase_delays(shop)
    )


def excluded_products(history: pd.DataFrame, active_rules: ActiveRules) -> dict[int, Ints]:
    """What each customer has bought and is not to be offered again yet: product keys by customer key."""
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
    """What is never bought again and was bought so long ago that it is not on a full shelf any more."""
    is_full = history["product_keys"].map(lambda keys: np.size(keys) >= MAX_PRODUCTS).to_numpy(bool)
    never_again = active_rules.repurchase_delays.keys[np.isinf(active_rules.repurchase_delays.days)]
    owners = history.loc[is_full, "customer_key"] if len(never_again) else ()
    return product_attributes.purchased_pairs(active_rules.shop, owners, never_again, active_rules.now)


def flatten_purchases(history: pd.DataFrame, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The shelf laid flat: row (of the shelf), customer_key, product_key, and these columns."""
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
    """Calendar days in the shop from the moment that each row's figures speak of until now."""
    days = pd.to_datetime(as_of, utc=True).dt.tz_convert(active_rules.shop.zone).dt.tz_localize(None).dt.normalize()
    today = pd.Timestamp(active_rules.now.astimezone(active_rules.shop.zone).date())
    return (today - days).dt.days.fillna(0).clip(lower=0).to_numpy().astype(np.float64)
