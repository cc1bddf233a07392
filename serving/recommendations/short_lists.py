"""Shortage: why a list holds fewer products than were asked for, and what of a question could not be followed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from customers import catalogue
from customers.assortment import Assortment
from customers.wishes import Wishes
from serving import rules
from serving.rules import WHY, Order

#: Where no rule has left anything out.
NO_MORE = {
    "again": "they have bought no others",
    "new": "the shop has sold no others that they have not bought",
    "any": "the shop has sold no others",
}


@dataclass(frozen=True, slots=True)
class Shortage:
    """How many products are missing from a list, the rules that left some out, and both in words."""

    missing: int
    rules: list[str]
    reason: str


def why(
    order: Order,
    shelf: pd.DataFrame,
    listed: pd.DataFrame,
    n: int,
    *,
    hidden: Collection[int] = (),
    sees: Collection[int] = (),
) -> dict[int, Shortage]:
    """Why who gets fewer than n does, by customer key. `shelf` says in `wanted` which list each of them was to get."""
    sizes = listed["customer_key"].value_counts()
    given = sizes.reindex(shelf["customer_key"], fill_value=0).to_numpy()
    few = shelf[given < n].assign(given=given[given < n])
    if few.empty:
        return {}
    concerned = _concerned(order, few, listed, hidden, sees)
    found: dict[int, Shortage] = {}
    for key, kind, size in zip(*(few[name].tolist() for name in ("customer_key", "wanted", "given")), strict=True):
        blamed = [name for name in WHY if key in concerned.get(name, ())]
        left_out = "; ".join(WHY[name] for name in blamed)
        because = f"left out: {left_out}" if blamed else NO_MORE[kind]
        found[key] = Shortage(n - size, blamed, f"{size} of {n}; {because}")
    return found


def _concerned(
    order: Order, few: pd.DataFrame, listed: pd.DataFrame, hidden: Collection[int], sees: Collection[int]
) -> dict[str, set[int]]:
    """By rule, those of these customers from whose lists it has kept something."""
    keys = set(few["customer_key"].tolist())
    again = few[few["wanted"] == "again"]
    others = keys - set(again["customer_key"].tolist())
    own = rules.bought(again)
    found: dict[str, set[int]] = {}
    for name, out in _first(order).items():
        mine = own.loc[np.isin(own["product_key"], out), "customer_key"]
        found[name] = {*mine.tolist(), *(others if len(out) else ())}
    unseen = own.loc[own["product_key"].isin(list(hidden)), "customer_key"]
    found["profiling_sensitive"] = {*unseen.tolist(), *(others if hidden else ())} - set(sees)
    found["repurchase"] = set(rules.barred(few[few["wanted"] != "new"], order))
    found["max_per_category"] = _full(order, listed)
    return found


def _first(order: Order) -> dict[str, np.ndarray]:
    """The keys of the products that each rule for everybody is the first to bar."""
    taken = np.zeros(len(order.goods.keys) if order.bars else 0, bool)
    found = {}
    for name, out in order.bars.items():
        found[name] = order.goods.keys[out & ~taken]
        taken = taken | out
    return found


def _full(order: Order, listed: pd.DataFrame) -> set[int]:
    """Those with as many of some category as there may be."""
    most = order.wishes.max_per_category
    if most is None or listed.empty:
        return set()
    category = order.goods.categories[order.goods.places(listed["product_key"].to_numpy(np.int64))]
    sizes = listed.assign(category=category)[category >= 0].groupby(["customer_key", "category"]).size()
    return set(sizes[sizes >= most].index.get_level_values(0))


def notes(order: Order, asked: Wishes) -> list[str]:
    """What of the wishes of a question means nothing in this shop, or not for all products; without their words."""
    if asked == Wishes():
        return []
    unknown = [_unknown_ids(order, asked), *(_unknown_words(order, asked, name) for name in WORDS)]
    return [said for said in (*unknown, _unknown_margins(order, asked)) if said]


#: Wishes that are made of words, and where in the assortment those stand.
WORDS: dict[str, Callable[[Assortment], Collection[str]]] = {
    "categories": lambda goods: goods.category_names,
    "exclude_categories": lambda goods: goods.category_names,
    "exclude_departments": lambda goods: goods.department_names,
    "boost": lambda goods: goods.labels,
    "pin": lambda goods: goods.labels,
}


def _unknown_ids(order: Order, asked: Wishes) -> str | None:
    ids = asked.exclude_product_ids
    missing = len(ids) - len(catalogue.keys_of(order.shop, ids)) if ids else 0
    return f"exclude_product_ids: {missing} of {len(ids)} are no products of this shop" if missing else None


def _unknown_words(order: Order, asked: Wishes, name: str) -> str | None:
    said = [word if isinstance(word, str) else word[0] for word in getattr(asked, name)]
    known = WORDS[name](order.goods) if said else ()
    missing = sum(word not in known for word in said)
    what = "carried by no product" if name in ("boost", "pin") else "not in the catalogue"
    return f"{name}: {missing} of {len(said)} {'is' if missing == 1 else 'are'} {what}" if missing else None


def _unknown_margins(order: Order, asked: Wishes) -> str | None:
    unknown = int(np.isnan(order.goods.margin).sum()) if asked.min_margin is not None else 0
    return f"min_margin: {unknown} products without a price or a cost may stay" if unknown else None
