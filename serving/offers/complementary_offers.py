"""Finds offers on complements of a product that a customer has recently bought for the first time.

Such an offer may take a place of its own in a list, but its redemption probability is not raised: in Complete Journey's
campaigns of August to October 2017 none of 3,052 such offers was redeemed, where four were expected without the effect.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: A case that is bought more than so many days after the phone is not bought because of the phone.
RECENT_DAYS = 28
#: Pairs with a lower lift are no complements: in full baskets any two products have a lift of about two.
MIN_LIFT = 3.0
#: So many complements of each product are considered, the strongest.
MAX_COMPLEMENTS = 10

COLUMNS = ("row", "offer_key", "lift", "evidence_key", "days")
_NO_OFFERS = pd.DataFrame({name: pd.Series(dtype="float64" if name == "lift" else "int64") for name in COLUMNS})


def load_complements(folder: Path) -> pd.DataFrame:
    """Complements as of the last night, strongest first: columns product_key, other_key, lift; empty before a night."""
    from features.products import co_purchases  # imported here: Ibis is slow to load

    path = co_purchases.co_purchases_path(folder)
    return _NO_PAIRS if path is None else _read(path, path.stat().st_mtime_ns)


_NO_PAIRS = pd.DataFrame(
    {
        "product_key": pd.Series(dtype="int64"),
        "other_key": pd.Series(dtype="int64"),
        "lift": pd.Series(dtype="float64"),
    }
)


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int) -> pd.DataFrame:
    columns = ["product_key", "other_key", "lift", "strength"]
    pairs = pd.read_parquet(path, columns=columns, filters=[("lift", ">=", MIN_LIFT)])
    pairs = pairs.sort_values("strength", ascending=False, kind="stable")
    return (
        pairs.groupby("product_key", sort=False).head(MAX_COMPLEMENTS).drop(columns="strength").reset_index(drop=True)
    )


def find_complementary_offers(
    features: pd.DataFrame,
    covers: pd.DataFrame,
    pairs: pd.DataFrame,
    *,
    hidden: Collection[int] = (),
    is_consenting: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Offers on a complement of a new purchase, one row per row of `features` and offer, in the columns of COLUMNS.

    `features` has the columns product_keys, times and last_days, lists per customer; `covers` offer_key, product_key;
    `pairs` those of `load_complements`. `evidence_key` is the product bought `days` ago for the first time; of several,
    the one with the highest lift. `hidden` products are used only in rows where `is_consenting`, shape (n_rows,), is
    true; without it in none.
    """
    pairs = pairs[pairs["other_key"].isin(covers["product_key"].unique())]
    new_purchases = _new_purchases(features, pairs["product_key"].unique())
    if hidden:
        is_shown = np.zeros(len(features), bool) if is_consenting is None else is_consenting
        new_purchases = new_purchases[
            ~new_purchases["evidence_key"].isin(list(hidden)) | is_shown[new_purchases["row"].to_numpy(np.int64)]
        ]
    if new_purchases.empty or pairs.empty:
        return _NO_OFFERS
    matches = new_purchases.merge(pairs, left_on="evidence_key", right_on="product_key").drop(columns="product_key")
    matches = matches.merge(covers, left_on="other_key", right_on="product_key")
    best = matches.sort_values(["lift", "evidence_key"], ascending=[False, True]).drop_duplicates(["row", "offer_key"])
    return best[list(COLUMNS)].sort_values(["row", "offer_key"], ignore_index=True)


def _new_purchases(features: pd.DataFrame, candidate_keys: np.ndarray) -> pd.DataFrame:
    """The candidate products bought once, within RECENT_DAYS: columns row, evidence_key (product key), days."""
    has_products = features["product_keys"].map(lambda keys: isinstance(keys, np.ndarray | list)).to_numpy(bool)
    with_products = features[has_products]
    flat = {
        column: np.concatenate([*with_products[name], np.empty(0, np.int64)]).astype(np.int64)
        for column, name in (("evidence_key", "product_keys"), ("times", "times"), ("days", "last_days"))
    }
    rows = np.repeat(np.flatnonzero(has_products), with_products["product_keys"].map(len).to_numpy(np.int64))
    purchases = pd.DataFrame({"row": rows, **flat})
    purchases = purchases[
        (purchases["times"] == 1) & (purchases["days"] <= RECENT_DAYS) & purchases["evidence_key"].isin(candidate_keys)
    ]
    return purchases[["row", "evidence_key", "days"]].reset_index(drop=True)
