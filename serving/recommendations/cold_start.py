"""Cold start: favourite categories for customers without purchases, and a reason text for new products."""

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

#: The reason of a new product, which nothing that the customer bought supports yet.
NEW_PRODUCT_REASON = "new in the shop; others of its kind suit their taste"
#: Favourite categories by customer key, of customers without purchases.
FavouriteCategories = Mapping[int, tuple[str, ...]]


def load_favourites(shop: Shop, keys: Collection[int]) -> FavouriteCategories:
    """The favourite categories of the customers who have named some that the shop sells."""
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
    """The ranked lists, where customers without purchases get first what sells best in their favourite categories.

    ranked: columns customer_key, list, rank, product_key, score, source, a row per list entry. Returns the same columns
    and `words`, the reason text of a favourite (None elsewhere). Lists stay unchanged under rules for categories.
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
            favourites_ranked.assign(words=_favourite_reasons(active_rules.shop, favourites_ranked), priority=0),
            ranked.assign(priority=1),
        ],
        ignore_index=True,
    )
    combined = combined.drop_duplicates([*LIST_KEY_COLUMNS, "product_key"])
    customer_positions = pd.Series(np.arange(len(history)), history["customer_key"])
    list_positions = pd.Series(np.arange(len(names)), list(names))
    sorted_rows = np.lexsort(
        (
            combined["rank"],
            combined["priority"],
            combined["list"].map(list_positions),
            combined["customer_key"].map(customer_positions),
        )
    )
    combined = combined.iloc[sorted_rows].reset_index(drop=True)
    combined["rank"] = combined.groupby(LIST_KEY_COLUMNS, sort=False).cumcount() + 1
    return combined.loc[combined["rank"] <= n, list(ranked)].reset_index(drop=True)


def label_new_products(ranked: pd.DataFrame, new_products: Collection[int]) -> pd.DataFrame:
    """The ranked lists with a reason text in the column `words` for new products without other evidence.

    ranked: columns product_key, source, because (-1 without evidence), a row per list entry; words is added if absent.
    """
    has_no_reason = (ranked["source"].eq("new") & ranked["evidence_key"].lt(0)).to_numpy(bool)
    has_no_reason &= np.isin(ranked["product_key"], np.fromiter(new_products, np.int64, len(new_products)))
    if not has_no_reason.any():
        return ranked
    texts = np.array(ranked["words"] if "words" in ranked else [None] * len(ranked), object)
    texts[has_no_reason & pd.isna(texts)] = NEW_PRODUCT_REASON
    return ranked.assign(words=texts)


def _group_by_favourites(
    active_rules: merchandising.ActiveRules, favourites_by_key: FavouriteCategories
) -> list[tuple[merchandising.ActiveRules, list[int]]]:
    """Customers grouped by favourite categories, with the rules narrowed to these categories."""
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
    """Reason texts of best sellers in favourite categories; None for pinned and explored products."""
    categories = products.load_categories(shop, favourites_ranked["product_key"].unique())
    entries = zip(favourites_ranked["product_key"].tolist(), favourites_ranked["source"].tolist(), strict=True)
    texts = [
        f"sells best in {categories[key][1]}, which they like" if source == "popular" else None
        for key, source in entries
    ]
    return np.array(texts, object)
