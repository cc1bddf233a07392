"""Newcomers: what to show somebody who has bought nothing yet but has favourites, and what to say of a new product."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import catalogue, favourites
from customers.shop import Shop
from serving import ranking, rules
from serving.exploring import WITHIN

#: Why a product is listed that nobody's taste tells of yet.
YOUNG = "new in the shop; others of its kind suit their taste"
#: What each newcomer likes best, by customer key.
Favourites = Mapping[int, tuple[str, ...]]


def liked(shop: Shop, keys: Collection[int]) -> Favourites:
    """The favourite categories of those of these customers who have named some that the shop sells."""
    return favourites.of(shop, keys) if keys else {}


def welcomed(
    ranked: pd.DataFrame,
    model: Any,
    shelf: pd.DataFrame,
    order: rules.Order,
    liking: Favourites,
    *,
    names: Sequence[str],
    n: int,
    hidden: Collection[int] = (),
    sees: Collection[int] = (),
) -> pd.DataFrame:
    """The same lists, with `words` (None elsewhere), in which newcomers get first what sells in their favourites.

    A question for certain categories is answered as it is asked.
    """
    ranked = ranked.assign(words=None)
    if not liking or order.wishes.categories:
        return ranked
    asked: dict[str, Any] = {"names": names, "n": n, "hidden": hidden, "sees": sees}
    groups = [(narrowed, shelf[shelf["customer_key"].isin(keys)]) for narrowed, keys in _alike(order, liking)]
    first = [ranking.ranked(model, group, narrowed, **asked) for narrowed, group in groups]
    mine = pd.concat([ranked.head(0), *first])
    if mine.empty:
        return ranked
    both = pd.concat([mine.assign(words=_words(order.shop, mine), turn=0), ranked.assign(turn=1)], ignore_index=True)
    both = both.drop_duplicates([*WITHIN, "product_key"])
    place = pd.Series(np.arange(len(shelf)), shelf["customer_key"]), pd.Series(np.arange(len(names)), list(names))
    at = np.lexsort((both["rank"], both["turn"], both["list"].map(place[1]), both["customer_key"].map(place[0])))
    both = both.iloc[at].reset_index(drop=True)
    both["rank"] = both.groupby(WITHIN, sort=False).cumcount() + 1
    return both.loc[both["rank"] <= n, list(ranked)].reset_index(drop=True)


def introduced(ranked: pd.DataFrame, young: Collection[int]) -> pd.DataFrame:
    """The same lists, in which a product that is itself new says so in `words`, where nothing else speaks for it."""
    alone = (ranked["source"].eq("new") & ranked["because"].lt(0)).to_numpy(bool)
    alone &= np.isin(ranked["product_key"], np.fromiter(young, np.int64, len(young)))
    if not alone.any():
        return ranked
    words = np.array(ranked["words"] if "words" in ranked else [None] * len(ranked), object)
    words[alone & pd.isna(words)] = YOUNG
    return ranked.assign(words=words)


def _alike(order: rules.Order, liking: Favourites) -> list[tuple[rules.Order, list[int]]]:
    """Customers of the same favourites together, and the rules narrowed to these."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for key, words in liking.items():
        known = tuple(sorted(word for word in words if word in order.goods.category_names))
        if known:
            groups.setdefault(known, []).append(key)
    return [
        (rules.order(order.shop, order.now, order.wishes.beside({"categories": list(known)})), keys)
        for known, keys in groups.items()
    ]


def _words(shop: Shop, mine: pd.DataFrame) -> NDArray[np.object_]:
    """Of what sells best in a favourite category; what the shop put there has a reason of its own."""
    kinds = catalogue.kinds_of(shop, mine["product_key"].unique())
    listed = zip(mine["product_key"].tolist(), mine["source"].tolist(), strict=True)
    said = [
        f"sells best in {kinds[key][1]}, which they like" if source == "popular" else None for key, source in listed
    ]
    return np.array(said, object)
