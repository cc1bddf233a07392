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

from customers import assortment, catalogue
from customers.assortment import Assortment, Waits
from customers.shop import Shop
from customers.wishes import Wishes
from features.staples import LONGEST_SHELF

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: Sources that the rules add: what the shop put first without a word from the model, and what is tried out.
PINNED, EXPLORED = "pinned", "explore"

Bar = Callable[[Assortment, Wishes, Ints], Flags]


def _out_of(words: Sequence[str], names: Mapping[str, int], codes: Ints) -> Flags:
    return np.isin(codes, [names[word] for word in words if word in names])


#: Which products a wish bars for everybody; `left_out` are the keys of those left out by their ids.
BARS: dict[str, Bar] = {
    "exclude_product_ids": lambda goods, wishes, left_out: np.isin(goods.keys, left_out),
    "categories": lambda goods, wishes, _: ~_out_of(wishes.categories, goods.category_names, goods.categories),
    "exclude_categories": lambda goods, wishes, _: _out_of(
        wishes.exclude_categories, goods.category_names, goods.categories
    ),
    "exclude_departments": lambda goods, wishes, _: _out_of(
        wishes.exclude_departments, goods.department_names, goods.departments
    ),
    "in_stock_only": lambda goods, wishes, _: ~goods.in_stock,
    "min_margin": lambda goods, wishes, _: goods.margin < float(wishes.min_margin or 0.0),
}
#: Why a product is not on a list, in words, by the rule that kept it off, in the order of the rules.
WHY = {
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
class Order:
    """The wishes that hold for some lists, with the products that they speak of; all of one shop at one moment.

    What is not asked for is not read: without a wish nothing is known here but which products must wait.
    """

    shop: Shop
    wishes: Wishes
    now: datetime
    waits: Waits

    @cached_property
    def goods(self) -> Assortment:
        """What the shop sells."""
        return assortment.of(self.shop)

    @cached_property
    def bars(self) -> dict[str, Flags]:
        """What each rule that holds for everybody bars, over the goods; no rule, no entry."""
        wanted = {name: getattr(self.wishes, name) for name in BARS}
        ids = [*self.wishes.exclude_product_ids]
        left_out = np.array(sorted(catalogue.keys_of(self.shop, ids).values() if ids else []), np.int64)
        return {
            name: BARS[name](self.goods, self.wishes, left_out)
            for name, wish in wanted.items()
            if wish is not None and wish is not False and wish != ()
        }

    @cached_property
    def out(self) -> Ints:
        """The keys, rising, of the products that nobody gets."""
        if not self.bars:
            return np.empty(0, np.int64)
        return self.goods.keys[np.logical_or.reduce([*self.bars.values()])]

    @cached_property
    def boosted(self) -> list[tuple[float, Ints]]:
        """The products whose scores are multiplied, by the factor."""
        if not self.wishes.boost:
            return []
        factor = np.ones(len(self.goods.keys))
        for label, times in self.wishes.boost:
            factor[self.goods.places(self.goods.called([label]))] *= times
        return [(float(times), self.goods.keys[factor == times]) for times in np.unique(factor) if times != 1.0]

    @cached_property
    def pinned(self) -> Ints:
        """The keys of the products that come first."""
        return self.goods.called(self.wishes.pin) if self.wishes.pin else np.empty(0, np.int64)

    @property
    def mixes(self) -> bool:
        """Whether lists are anything but what the model says of the products that are allowed."""
        wishes = self.wishes
        return bool(wishes.boost or wishes.pin or wishes.max_per_category or wishes.explore)


def order(shop: Shop, now: datetime, wishes: Wishes | None = None) -> Order:
    """What holds for lists made at a moment: the shop's own wishes, or these in their place."""
    return Order(shop, shop.recommendations if wishes is None else wishes, now, assortment.waits(shop))


def barred(shelf: pd.DataFrame, order: Order) -> dict[int, Ints]:
    """What each customer has bought and is not to be offered again yet: product keys by customer key."""
    if not len(order.waits.keys):
        return {}
    own = bought(shelf, ("last_days",))
    place = np.searchsorted(order.waits.keys, own["product_key"]).clip(max=len(order.waits.keys) - 1)
    days = np.where(order.waits.keys[place] == own["product_key"], order.waits.days[place], 0.0)
    since = own["last_days"].to_numpy(np.float64) + _elapsed(shelf["as_of"], order)[own["row"].to_numpy()]
    out = pd.concat([own.loc[since < days, ["customer_key", "product_key"]], _fallen_off(shelf, order)])
    return {int(key): mine.to_numpy(np.int64) for key, mine in out.groupby("customer_key")["product_key"]}


def _fallen_off(shelf: pd.DataFrame, order: Order) -> pd.DataFrame:
    """What is never bought again and was bought so long ago that it is not on a full shelf any more."""
    full = shelf["product_keys"].map(lambda keys: np.size(keys) >= LONGEST_SHELF).to_numpy(bool)
    never = order.waits.keys[np.isinf(order.waits.days)]
    owners = shelf.loc[full, "customer_key"] if len(never) else ()
    return assortment.owned(order.shop, owners, never, order.now)


def bought(shelf: pd.DataFrame, columns: Sequence[str] = ()) -> pd.DataFrame:
    """The shelf laid flat: row (of the shelf), customer_key, product_key, and these columns."""
    held = shelf["product_keys"].notna().to_numpy()
    full = shelf[held]
    sizes = full["product_keys"].map(len).to_numpy(np.int64)
    named = {"product_key": "product_keys"} | {name: name for name in columns}
    flat = {name: np.concatenate([*full[column], np.empty(0, np.int64)]) for name, column in named.items()}
    rows = np.repeat(np.flatnonzero(held), sizes)
    return pd.DataFrame({"row": rows, "customer_key": shelf["customer_key"].to_numpy(np.int64)[rows], **flat})


def _elapsed(as_of: pd.Series, order: Order) -> Floats:
    """Calendar days in the shop from the moment that each row's figures speak of until now."""
    days = pd.to_datetime(as_of, utc=True).dt.tz_convert(order.shop.zone).dt.tz_localize(None).dt.normalize()
    today = pd.Timestamp(order.now.astimezone(order.shop.zone).date())
    return (today - days).dt.days.fillna(0).clip(lower=0).to_numpy().astype(np.float64)
