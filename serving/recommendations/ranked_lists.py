"""Ranked product lists of each customer: the model's ranking under the shop's merchandising rules.

The model ranks as deep as the rules need, and again deeper for customers whose list has come out too short.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.recommendations import exploration, merchandising
from serving.recommendations.exploration import LIST_KEY_COLUMNS
from serving.recommendations.merchandising import PINNED, ActiveRules

Ints = NDArray[np.int64]
#: How much deeper the model ranks where rules may discard much of its list.
DEPTH_FACTOR = 4
#: At most this many pinned products without a score are added to a list: no list is longer.
MAX_UNSCORED_PINS = 50
PURCHASE_COLUMNS, LIST_ITEM_COLUMNS = ["customer_key", "product_key"], [*LIST_KEY_COLUMNS, "product_key"]


def rank_lists(
    model: Any,
    history: pd.DataFrame,
    active_rules: ActiveRules,
    *,
    names: Sequence[str],
    n: int,
    hidden: Collection[int] = (),
    consenting: Collection[int] = (),
    previous: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The lists of every customer: columns customer_key, list, rank (from 1), product_key, score, source.

    history: a row per customer, the columns that the model needs. Customers are in its order, lists in that of `names`.
    `hidden` products are listed only for the customers in `consenting`. `previous` are lists just ranked for the same
    history under fewer rules and at least n deep: the model ranks again only where they are too short.
    """
    request = _ListRequest(
        model, history, active_rules, tuple(names), np.array(sorted(hidden), np.int64), frozenset(consenting)
    )
    if previous is None and not active_rules.has_reordering:
        return request.rank(history, n)
    return _rank_under_rules(request, history, n, previous)


@dataclass(frozen=True)
class _ListRequest:
    model: Any
    history: pd.DataFrame
    active_rules: ActiveRules
    names: tuple[str, ...]
    hidden: Ints
    consenting: frozenset[int]

    def rank(
        self, history: pd.DataFrame, n: int, *, excluded: Ints | None = None, candidates: Ints | None = None
    ) -> pd.DataFrame:
        """The model's ranking of products that each customer may have: of `candidates` only, or without `excluded`."""
        customer_exclusions = merchandising.excluded_products(history, self.active_rules)
        all_excluded = (
            self.active_rules.excluded_keys
            if excluded is None
            else np.union1d(self.active_rules.excluded_keys, excluded)
        )
        parts = [(history, all_excluded)]
        if len(self.hidden):
            is_consenting = history["customer_key"].isin(self.consenting).to_numpy()
            parts = [
                (history[is_consenting], all_excluded),
                (history[~is_consenting], np.union1d(all_excluded, self.hidden)),
            ]
        parts_scored = [
            self._score_lists(part, n, part_excluded, candidates, customer_exclusions)
            for part, part_excluded in parts
            if len(part)
        ]
        return pd.concat(parts_scored, ignore_index=True) if len(parts_scored) > 1 else parts_scored[0]

    def rank_unpromoted(self, history: pd.DataFrame, depth: int, special: Ints) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The ranking without boosted and pinned products, and the full lists, which may have more entries below."""
        scored = self.rank(history, depth, excluded=special if len(special) else None)
        return scored, _full_lists(scored, depth)

    def filter_previous(self, previous: pd.DataFrame, special: Ints) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The previous lists without excluded, boosted and pinned products, and those that may go on below."""
        requested = previous[previous["list"].isin(self.names)]
        removed = np.union1d(self.active_rules.excluded_keys, special)
        columns = [*LIST_KEY_COLUMNS, "rank", "product_key", "score", "source"]
        return requested.loc[~requested["product_key"].isin(removed), columns], _full_lists(
            requested, previous["rank"].max()
        )

    def _score_lists(
        self,
        history: pd.DataFrame,
        n: int,
        excluded: Ints,
        candidates: Ints | None,
        customer_exclusions: Mapping[int, Ints],
    ) -> pd.DataFrame:
        """A model excludes products for all customers or per customer; for both, `only` gets the remaining products."""
        exclude: Any = excluded
        if customer_exclusions:
            exclude = customer_exclusions
            if len(excluded) or candidates is not None:
                candidates = np.setdiff1d(
                    self.active_rules.attributes.keys if candidates is None else candidates,
                    excluded,
                    assume_unique=True,
                )
        scored: pd.DataFrame = self.model.score(history, n=n, lists=self.names, exclude=exclude, only=candidates)
        return scored


def _full_lists(lists_frame: pd.DataFrame, depth: float) -> pd.DataFrame:
    """The lists of full length, which may have more entries below: columns customer_key, list."""
    sizes = lists_frame.groupby(LIST_KEY_COLUMNS, sort=False).size()
    return sizes[sizes >= depth].reset_index()[LIST_KEY_COLUMNS]


def _rank_under_rules(
    request: _ListRequest, history: pd.DataFrame, n: int, previous: pd.DataFrame | None
) -> pd.DataFrame:
    depth, parts = _request_depth(request.active_rules, n), list[pd.DataFrame]()
    while True:
        candidates, full = _collect_candidates(request, history, depth, previous)
        listed = _cap_categories(request.active_rules, candidates)
        short = _find_short(listed, history, request.names, full, n)
        parts.append(listed[~listed["customer_key"].isin(short)])
        if not short:
            break
        history, previous = history[history["customer_key"].isin(short)], None
        depth *= DEPTH_FACTOR if request.active_rules.rules.max_per_category else 1
    whole = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    merchandising_rules = request.active_rules.rules
    explored = exploration.explore_lists(
        whole, merchandising_rules.explore, exploration.draw_seeds(request.history, merchandising_rules.seed), n
    )
    customer_positions = pd.Series(np.arange(len(request.history)), request.history["customer_key"])
    list_positions = pd.Series(np.arange(len(request.names)), list(request.names))
    sorted_rows = np.lexsort(
        (explored["rank"], explored["list"].map(list_positions), explored["customer_key"].map(customer_positions))
    )
    return explored.iloc[sorted_rows].reset_index(drop=True)[
        [*LIST_KEY_COLUMNS, "rank", "product_key", "score", "source"]
    ]


def _request_depth(active_rules: ActiveRules, n: int) -> int:
    """How deep the model ranks at first, so that nearly all lists come out long enough."""
    if active_rules.rules.explore:
        return n * (1 + exploration.POOL_FACTOR)
    return n * DEPTH_FACTOR if active_rules.rules.max_per_category else n


def _collect_candidates(
    request: _ListRequest, history: pd.DataFrame, depth: int, previous: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All candidates of the lists, best first in each list, and the lists that may have more entries below.

    Boosted and pinned products are ranked separately: they may be far below the depth of the model's list.
    """
    active_rules = request.active_rules
    groups = [(factor, np.setdiff1d(keys, active_rules.pinned_keys)) for factor, keys in active_rules.boost_groups]
    special = np.unique(np.concatenate([active_rules.pinned_keys, *(keys for _, keys in groups)]))
    unpromoted, full = (
        request.rank_unpromoted(history, depth, special)
        if previous is None
        else request.filter_previous(previous, special)
    )
    parts = [unpromoted.assign(weight=unpromoted["score"], pinned=False)]
    for factor, keys in groups:
        if len(keys):
            boosted = request.rank(history, depth, candidates=keys)
            parts.append(
                boosted.assign(weight=boosted["score"] * factor, score=(boosted["score"] * factor).clip(upper=1.0))
            )
    if len(active_rules.pinned_keys):
        pins = request.rank(history, min(depth, len(active_rules.pinned_keys)), candidates=active_rules.pinned_keys)
        parts.append(_boosted_pins(pins, active_rules).assign(pinned=True))
        parts.append(_unscored(request, history, pins))
    filled = [part for part in parts if len(part)]
    candidates = pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or parts)[0]
    candidates = candidates.assign(pinned=candidates["pinned"].eq(True) if "pinned" in candidates else False)
    ranking = np.lexsort((candidates["rank"], -candidates["weight"], ~candidates["pinned"]))
    return candidates.iloc[ranking], full


def _boosted_pins(pins: pd.DataFrame, active_rules: ActiveRules) -> pd.DataFrame:
    factor = pd.Series(1.0, pins.index)
    for boost, keys in active_rules.boost_groups:
        factor[pins["product_key"].isin(keys)] = boost
    weight = pins["score"] * factor
    return pins.assign(weight=weight, score=weight.clip(upper=1.0))


def _unscored(request: _ListRequest, history: pd.DataFrame, pins: pd.DataFrame) -> pd.DataFrame:
    """Pinned products that the model does not rank in a list, such as one never sold: they come last of the pins.

    Each list is filled by itself: its entries do not depend on the other customers of the request.
    """
    lists = [name for name in request.names if name != "again"]
    pinned_keys = np.setdiff1d(request.active_rules.pinned_keys, request.active_rules.excluded_keys)
    unavailable = _unavailable(request, history).merge(pd.DataFrame({"list": lists}), "cross")
    listed = pd.concat([pins[pins["list"].isin(lists)], unavailable])
    listed = listed.loc[listed["product_key"].isin(pinned_keys), LIST_ITEM_COLUMNS].drop_duplicates()
    # The first MAX_UNSCORED_PINS that a list lacks are within that many keys plus the longest list.
    limit = MAX_UNSCORED_PINS + int(listed.groupby(LIST_KEY_COLUMNS).size().max() if len(listed) else 0)
    all_items = pd.MultiIndex.from_product(
        [history["customer_key"], lists, pinned_keys[:limit]], names=LIST_ITEM_COLUMNS
    )
    unscored = all_items.difference(pd.MultiIndex.from_frame(listed), sort=False).to_frame(index=False)
    unscored = unscored[unscored.groupby(LIST_KEY_COLUMNS, sort=False).cumcount() < MAX_UNSCORED_PINS]
    return unscored.assign(rank=0, score=0.0, weight=0.0, source=PINNED, pinned=True)


def _unavailable(request: _ListRequest, history: pd.DataFrame) -> pd.DataFrame:
    """What each customer has bought and what they may not be shown: columns customer_key, product_key."""
    excluded_by_key = merchandising.excluded_products(history, request.active_rules)
    excluded_pairs = [
        (key, product) for key, product_keys in excluded_by_key.items() for product in product_keys.tolist()
    ]
    without_consent = history.loc[~history["customer_key"].isin(request.consenting), ["customer_key"]]
    hidden = pd.DataFrame({"product_key": np.intersect1d(request.hidden, request.active_rules.pinned_keys)})
    parts = (
        merchandising.flatten_purchases(history),
        pd.DataFrame(excluded_pairs, columns=PURCHASE_COLUMNS),
        without_consent.merge(hidden, "cross"),
    )
    return pd.concat([part[PURCHASE_COLUMNS].astype("int64") for part in parts])


def _cap_categories(active_rules: ActiveRules, candidates: pd.DataFrame) -> pd.DataFrame:
    """The candidates within max_per_category of each list and category, from the top."""
    limit = active_rules.rules.max_per_category
    if limit is None:
        return candidates
    category = active_rules.attributes.categories[
        active_rules.attributes.row_indices(candidates["product_key"].to_numpy(np.int64))
    ]
    nth = (
        candidates.assign(category=category).groupby([*LIST_KEY_COLUMNS, "category"], sort=False).cumcount().to_numpy()
    )
    return candidates[(nth < limit) | (category < 0)]


def _find_short(
    listed: pd.DataFrame, history: pd.DataFrame, names: Sequence[str], full: pd.DataFrame, n: int
) -> set[int]:
    """The customers with a list of fewer than n entries that may have more entries below."""
    if full.empty:
        return set()
    sizes = listed.groupby(LIST_KEY_COLUMNS, sort=False).size().rename("size").reset_index()
    counted = full.merge(sizes, on=LIST_KEY_COLUMNS, how="left").fillna({"size": 0})
    return set(counted.loc[counted["size"] < n, "customer_key"].tolist())
