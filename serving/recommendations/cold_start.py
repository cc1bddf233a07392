"""Newcomers: what to show somebody who has bought nothing yet but has favourites, and what to say of a new product."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.catalogue import products
from customers.people import favourite_categories
from customers.shop.settings import Shop
from serving.recommendations import merchandising, ranked_lists
from serving.recommendations.exploration import LIST_KEY_COLUMNS

#: Why a product is listed that nobody's taste tells of yet.
NEW_PRODUCT_REASON = "new in the shop; others of its kind suit their taste"
#: What each newcomer likes best, by customer key.
FavouriteCategories = Mapping[int, tuple[str, ...]]


def load_favourites(shop: Shop, keys: Collection[int]) -> FavouriteCategories:
    """The favourite categories of those of these customers who have named some that the shop sells."""
    return favourite_categories.load_favourite_categories(shop, keys) if keys else {}


def add_favourites_first(
    ranked: pd.DataFrame,
    model: Any,
    history: pd.DataFrame,
    active_rules: merchandising.ActiveRules,
    favourites_by_key: FavouriteCategories,
    *,
    names: Sequence[str],
    n: int,
    hidden: Collection[int] = (),
    consenting: Collection[int] = (),
) -> pd.DataFrame:
    """The same lists, with `words` (None elsewhere), in which newcomers get first what sells in their favourites.

    A question for certain categories is answered as it is asked.
    """
    ranked = ranked.assign(words=None)
    if not favourites_by_key or active_rules.rules.categories:
        return ranked
    options: dict[str, Any] = {"names": names, "n": n, "hidden": hidden, "consenting": consenting}
    groups = [
        (narrowed_rules, history[history["customer_key"].isin(keys)])
        for narrowed_rules, keys in _group_by_favourites(active_rules, favourites_by_key)
    ]
    favourite_lists = [
        ranked_lists.rank_lists(model, group, narrowed_rules, **options) for narrowed_rules, group in groups
    ]
    favourites_ranked = pd.concat([ranked.head(0), *favourite_lists])
    if favourites_ranked.empty:
        return ranked
    combined = pd.concat(
        [
            favourites_ranked.assign(words=_favourite_reasons(active_rules.shop, favourites_ranked), turn=0),
            ranked.assign(turn=1),
        ],
        ignore_index=True,
    )
    combined = combined.drop_duplicates([*LIST_KEY_COLUMNS, "product_key"])
    list_positions = (
        pd.Series(np.arange(len(history)), history["customer_key"]),
        pd.Series(np.arange(len(names)), list(names)),
    )
    sorted_rows = np.lexsort(
        (
            combined["rank"],
            combined["turn"],
            combined["list"].map(list_positions[1]),
            combined["customer_key"].map(list_positions[0]),
        )
    )
    combined = combined.iloc[sorted_rows].reset_index(drop=True)
    combined["rank"] = combined.groupby(LIST_KEY_COLUMNS, sort=False).cumcount() + 1
    return combined.loc[combined["rank"] <= n, list(ranked)].reset_index(drop=True)


def label_new_products(ranked: pd.DataFrame, new_products: Collection[int]) -> pd.DataFrame:
    """The same lists, in which a product that is itself new says so in `words`, where nothing else speaks for it."""
    has_no_reason = (ranked["source"].eq("new") & ranked["because"].lt(0)).to_numpy(bool)
    has_no_reason &= np.isin(ranked["product_key"], np.fromiter(new_products, np.int64, len(new_products)))
    if not has_no_reason.any():
        return ranked
    texts = np.array(ranked["words"] if "words" in ranked else [None] * len(ranked), object)
    texts[has_no_reason & pd.isna(texts)] = NEW_PRODUCT_REASON
    return ranked.assign(words=texts)


def _group_by_favourites(
    active_rules: merchandising.ActiveRules, favourites_by_key: FavouriteCategories
) -> list[tuple[merchandising.ActiveRules, list[int]]]:
    """Customers of the same favourites together, and the rules narrowed to these."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for key, categories in favourites_by_key.items():
        category_names = tuple(
            sorted(category for category in categories if category in active_rules.attributes.category_names)
        )
        if category_names:
            groups.setdefault(category_names, []).append(key)
    return [
        (
            merchandising.load_active_rules(
                active_rules.shop,
                active_rules.now,
                active_rules.rules.merged_with({"categories": list(category_names)}),
            ),
            keys,
        )
        for category_names, keys in groups.items()
    ]


def _favourite_reasons(shop: Shop, favourites_ranked: pd.DataFrame) -> NDArray[np.object_]:
    """Of what sells best in a favourite category; what the shop put there has a reason of its own."""
    categories = products.load_categories(shop, favourites_ranked["product_key"].unique())
    entries = zip(favourites_ranked["product_key"].tolist(), favourites_ranked["source"].tolist(), strict=True)
    texts = [
        f"sells best in {categories[key][1]}, which they like" if source == "popular" else None
        for key, source in entries
    ]
    return np.array(texts, object)
