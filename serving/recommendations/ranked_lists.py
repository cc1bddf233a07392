"""Ranking: the products that a model ranks for each customer, under the shop's rules.

Each list is asked for as deep as its rules need, and again deeper for those whose list has come out too short.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving import exploring, rules
from serving.exploring import WITHIN
from serving.rules import PINNED, Order

Ints = NDArray[np.int64]
#: How much deeper a list is asked for where much of it is thrown away again.
DEEPER = 4
#: So many pinned products that the model has never heard of are put before everybody at most: a list is no longer.
MOST_UNHEARD = 50
OWNED, LISTED = ["customer_key", "product_key"], [*WITHIN, "product_key"]


def ranked(
    model: Any,
    shelf: pd.DataFrame,
    order: Order,
    *,
    names: Sequence[str],
    n: int,
    hidden: Collection[int] = (),
    sees: Collection[int] = (),
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The lists of every customer of the shelf: customer_key, list, rank (from 1), product_key, score, source.

    `hidden` products are listed only for the customers in `sees`. Customers and lists stand in the order asked.
    `known` are lists that the model has just made of the same shelf under fewer rules, at least as deep as asked
    for: only where they do not reach is it asked again.
    """
    asking = _Asking(model, shelf, order, tuple(names), np.array(sorted(hidden), np.int64), frozenset(sees))
    if known is None and not order.mixes:
        return asking.ask(shelf, n)
    return _mixed(asking, shelf, n, known)


@dataclass(frozen=True)
class _Asking:
    model: Any
    shelf: pd.DataFrame
    order: Order
    names: tuple[str, ...]
    hidden: Ints
    sees: frozenset[int]

    def ask(self, shelf: pd.DataFrame, n: int, *, but: Ints | None = None, among: Ints | None = None) -> pd.DataFrame:
        """What the model ranks of the products that each customer may have; of these, or of all but these."""
        own = rules.barred(shelf, self.order)
        out = self.order.out if but is None else np.union1d(self.order.out, but)
        parts = [(shelf, out)]
        if len(self.hidden):
            may = shelf["customer_key"].isin(self.sees).to_numpy()
            parts = [(shelf[may], out), (shelf[~may], np.union1d(out, self.hidden))]
        found = [self._score(part, n, left_out, among, own) for part, left_out in parts if len(part)]
        return pd.concat(found, ignore_index=True) if len(found) > 1 else found[0]

    def plain(self, shelf: pd.DataFrame, depth: int, special: Ints) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What the model ranks beside these products, and the lists that may go on."""
        found = self.ask(shelf, depth, but=special if len(special) else None)
        return found, _full(found, depth)

    def left(self, known: pd.DataFrame, special: Ints) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What the rules and these products leave of known lists, and the lists that may go on."""
        mine = known[known["list"].isin(self.names)]
        out = np.union1d(self.order.out, special)
        columns = [*WITHIN, "rank", "product_key", "score", "source"]
        return mine.loc[~mine["product_key"].isin(out), columns], _full(mine, known["rank"].max())

    def _score(
        self, shelf: pd.DataFrame, n: int, out: Ints, among: Ints | None, own: Mapping[int, Ints]
    ) -> pd.DataFrame:
        """A model leaves out products for everybody or for each; where it must do both, it is told what is left."""
        exclude: Any = out
        if own:
            exclude = own
            if len(out) or among is not None:
                among = np.setdiff1d(self.order.goods.keys if among is None else among, out, assume_unique=True)
        found: pd.DataFrame = self.model.score(shelf, n=n, lists=self.names, exclude=exclude, only=among)
        return found


def _full(plain: pd.DataFrame, depth: float) -> pd.DataFrame:
    """The lists that are as long as was asked for, below whose end there may be more: customer_key, list."""
    sizes = plain.groupby(WITHIN, sort=False).size()
    return sizes[sizes >= depth].reset_index()[WITHIN]


def _mixed(asking: _Asking, shelf: pd.DataFrame, n: int, known: pd.DataFrame | None) -> pd.DataFrame:
    depth, done = _depth(asking.order, n), list[pd.DataFrame]()
    while True:
        found, full = _pool(asking, shelf, depth, known)
        listed = _capped(asking.order, found)
        short = _short(listed, shelf, asking.names, full, n)
        done.append(listed[~listed["customer_key"].isin(short)])
        if not short:
            break
        shelf, known = shelf[shelf["customer_key"].isin(short)], None
        depth *= DEEPER if asking.order.wishes.max_per_category else 1
    whole = pd.concat(done, ignore_index=True) if len(done) > 1 else done[0]
    wishes = asking.order.wishes
    made = exploring.explored(whole, wishes.explore, exploring.seeds(asking.shelf, wishes.seed), n)
    turn = pd.Series(np.arange(len(asking.shelf)), asking.shelf["customer_key"])
    lists = pd.Series(np.arange(len(asking.names)), list(asking.names))
    at = np.lexsort((made["rank"], made["list"].map(lists), made["customer_key"].map(turn)))
    return made.iloc[at].reset_index(drop=True)[[*WITHIN, "rank", "product_key", "score", "source"]]


def _depth(order: Order, n: int) -> int:
    """How deep a list is asked for, so that for nearly all of them it is enough."""
    if order.wishes.explore:
        return n * (1 + exploring.POOL)
    return n * DEEPER if order.wishes.max_per_category else n


def _pool(
    asking: _Asking, shelf: pd.DataFrame, depth: int, known: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Everything that may be listed, best first in each list; and the lists of which the model has more to say.

    What is boosted or pinned is asked for by itself: it may stand far below what the model would list.
    """
    order = asking.order
    groups = [(factor, np.setdiff1d(keys, order.pinned)) for factor, keys in order.boosted]
    special = np.unique(np.concatenate([order.pinned, *(keys for _, keys in groups)]))
    plain, full = asking.plain(shelf, depth, special) if known is None else asking.left(known, special)
    parts = [plain.assign(weight=plain["score"], pinned=False)]
    for factor, keys in groups:
        if len(keys):
            more = asking.ask(shelf, depth, among=keys)
            parts.append(more.assign(weight=more["score"] * factor, score=(more["score"] * factor).clip(upper=1.0)))
    if len(order.pinned):
        first = asking.ask(shelf, min(depth, len(order.pinned)), among=order.pinned)
        parts.append(_boosted_pins(first, order).assign(pinned=True))
        parts.append(_unscored(asking, shelf, first))
    filled = [part for part in parts if len(part)]
    found = pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or parts)[0]
    found = found.assign(pinned=found["pinned"].eq(True) if "pinned" in found else False)
    best = np.lexsort((found["rank"], -found["weight"], ~found["pinned"]))
    return found.iloc[best], full


def _boosted_pins(first: pd.DataFrame, order: Order) -> pd.DataFrame:
    factor = pd.Series(1.0, first.index)
    for times, keys in order.boosted:
        factor[first["product_key"].isin(keys)] = times
    weight = first["score"] * factor
    return first.assign(weight=weight, score=weight.clip(upper=1.0))


def _unscored(asking: _Asking, shelf: pd.DataFrame, first: pd.DataFrame) -> pd.DataFrame:
    """Pinned products of which the model says nothing in a list, as of one that nobody has bought: last of the pins.

    Each list is looked at by itself: what is put into it does not depend on who else is asked for.
    """
    lists = [name for name in asking.names if name != "again"]
    wanted = np.setdiff1d(asking.order.pinned, asking.order.out)
    had = _had(asking, shelf).merge(pd.DataFrame({"list": lists}), "cross")
    known = pd.concat([first[first["list"].isin(lists)], had])
    known = known.loc[known["product_key"].isin(wanted), LISTED].drop_duplicates()
    # The first so many that a list lacks are among the first so many and as many as any list has.
    most = MOST_UNHEARD + int(known.groupby(WITHIN).size().max() if len(known) else 0)
    each = pd.MultiIndex.from_product([shelf["customer_key"], lists, wanted[:most]], names=LISTED)
    made = each.difference(pd.MultiIndex.from_frame(known), sort=False).to_frame(index=False)
    made = made[made.groupby(WITHIN, sort=False).cumcount() < MOST_UNHEARD]
    return made.assign(rank=0, score=0.0, weight=0.0, source=PINNED, pinned=True)


def _had(asking: _Asking, shelf: pd.DataFrame) -> pd.DataFrame:
    """What each customer has bought, and what they may not have: customer_key, product_key."""
    barred = rules.barred(shelf, asking.order)
    out = [(key, product) for key, mine in barred.items() for product in mine.tolist()]
    unseen = shelf.loc[~shelf["customer_key"].isin(asking.sees), ["customer_key"]]
    hidden = pd.DataFrame({"product_key": np.intersect1d(asking.hidden, asking.order.pinned)})
    parts = (rules.bought(shelf), pd.DataFrame(out, columns=OWNED), unseen.merge(hidden, "cross"))
    return pd.concat([part[OWNED].astype("int64") for part in parts])


def _capped(order: Order, found: pd.DataFrame) -> pd.DataFrame:
    """At most so many of a category in each list, from the top."""
    most = order.wishes.max_per_category
    if most is None:
        return found
    category = order.goods.categories[order.goods.places(found["product_key"].to_numpy(np.int64))]
    nth = found.assign(category=category).groupby([*WITHIN, "category"], sort=False).cumcount().to_numpy()
    return found[(nth < most) | (category < 0)]


def _short(listed: pd.DataFrame, shelf: pd.DataFrame, names: Sequence[str], full: pd.DataFrame, n: int) -> set[int]:
    """Those with a list of fewer than n of which the model has more to say."""
    if full.empty:
        return set()
    sizes = listed.groupby(WITHIN, sort=False).size().rename("size").reset_index()
    counted = full.merge(sizes, on=WITHIN, how="left").fillna({"size": 0})
    return set(counted.loc[counted["size"] < n, "customer_key"].tolist())
