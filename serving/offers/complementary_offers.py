"""Related: offers on what goes with something that a customer has just bought for the first time.

They may take a place of their own among those that are made, and no chance is raised for it: on Complete Journey's
campaigns of August to October 2017, of 3,052 such offers none was redeemed, where four were expected anyway.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.products import co_purchases

#: Whoever buys a case weeks after the phone no longer buys it because of the phone.
RECENT_DAYS = 28
#: What is bought together twice as often as by chance goes with each other in any full basket.
MIN_LIFT = 3.0
#: So many companions of each product, the strongest, are looked at.
MAX_COMPLEMENTS = 10

COLUMNS = ("row", "offer_key", "lift", "because", "days")
_NO_OFFERS = pd.DataFrame({name: pd.Series(dtype="float64" if name == "lift" else "int64") for name in COLUMNS})


def load_complements(folder: Path) -> pd.DataFrame:
    """What goes with what as of the last night: product_key, other_key, lift, strongest first; nothing before it."""
    path = co_purchases.co_purchases_path(folder)
    return _NO_PAIRS if path is None else _read(path, path.stat().st_mtime_ns)


_NO_PAIRS = pd.DataFrame({"product_key": pd.Series(dtype="int64"), "other_key": pd.Series(dtype="int64"),
                          "lift": pd.Series(dtype="float64")})  # fmt: skip


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int) -> pd.DataFrame:
    pairs = pd.read_parquet(path, columns=["product_key", "other_key", "lift", "strength"])
    pairs = pairs[pairs["lift"] >= MIN_LIFT].sort_values("strength", ascending=False, kind="stable")
    return (
        pairs.groupby("product_key", sort=False).head(MAX_COMPLEMENTS).drop(columns="strength").reset_index(drop=True)
    )


def find_complementary_offers(
    features: pd.DataFrame, covers: pd.DataFrame, pairs: pd.DataFrame, *, hidden: Collection[int] = (),
    is_consenting: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """For each row of figures (shelves) the offers that go with a new purchase: row, offer_key, lift, because, days.

    `because` is the product bought `days` ago, once and never before; of several, the one with the highest lift.
    It is none of the `hidden` products, but in the rows that `sees` says; without it in none.
    """
    pairs = pairs[pairs["other_key"].isin(covers["product_key"].unique())]
    new_purchases = _new_purchases(features, pairs["product_key"].unique())
    if hidden:
        is_shown = np.zeros(len(features), bool) if is_consenting is None else is_consenting
        new_purchases = new_purchases[
            ~new_purchases["because"].isin(list(hidden)) | is_shown[new_purchases["row"].to_numpy(np.int64)]
        ]
    if new_purchases.empty or pairs.empty:
        return _NO_OFFERS
    matches = new_purchases.merge(pairs, left_on="because", right_on="product_key").drop(columns="product_key")
    matches = matches.merge(covers, left_on="other_key", right_on="product_key")
    best = matches.sort_values(["lift", "because"], ascending=[False, True]).drop_duplicates(["row", "offer_key"])
    return best[list(COLUMNS)].sort_values(["row", "offer_key"], ignore_index=True)


def _new_purchases(features: pd.DataFrame, wanted: np.ndarray) -> pd.DataFrame:
    """Of these products, those that were bought once, and lately: row, because, days."""
    has_products = features["product_keys"].map(lambda keys: isinstance(keys, np.ndarray | list)).to_numpy(bool)
    with_products = features[has_products]
    flat = {column: np.concatenate([*with_products[name], np.empty(0, np.int64)]).astype(np.int64)
            for column, name in (("because", "product_keys"), ("times", "times"), ("days", "last_days"))}  # fmt: skip
    rows = np.repeat(np.flatnonzero(has_products), with_products["product_keys"].map(len).to_numpy(np.int64))
    purchases = pd.DataFrame({"row": rows, **flat})
    purchases = purchases[
        (purchases["times"] == 1) & (purchases["days"] <= RECENT_DAYS) & purchases["because"].isin(wanted)
    ]
    return purchases[["row", "because", "days"]].reset_index(drop=True)
