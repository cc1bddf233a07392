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

from features import together

#: Whoever buys a case weeks after the phone no longer buys it because of the phone.
RECENT_DAYS = 28
#: What is bought together twice as often as by chance goes with each other in any full basket.
LEAST_LIFT = 3.0
#: So many companions of each product, the strongest, are looked at.
COMPANIONS = 10

COLUMNS = ("row", "offer_key", "lift", "because", "days")
_NONE = pd.DataFrame({name: pd.Series(dtype="float64" if name == "lift" else "int64") for name in COLUMNS})


def companions(folder: Path) -> pd.DataFrame:
    """What goes with what as of the last night: product_key, other_key, lift, strongest first; nothing before it."""
    path = together.kept(folder)
    return _NO_PAIRS if path is None else _read(path, path.stat().st_mtime_ns)


_NO_PAIRS = pd.DataFrame({"product_key": pd.Series(dtype="int64"), "other_key": pd.Series(dtype="int64"),
                          "lift": pd.Series(dtype="float64")})  # fmt: skip


@lru_cache(maxsize=2)
def _read(path: Path, _changed: int) -> pd.DataFrame:
    pairs = pd.read_parquet(path, columns=["product_key", "other_key", "lift", "strength"])
    pairs = pairs[pairs["lift"] >= LEAST_LIFT].sort_values("strength", ascending=False, kind="stable")
    return pairs.groupby("product_key", sort=False).head(COMPANIONS).drop(columns="strength").reset_index(drop=True)


def offers(
    figures: pd.DataFrame, covers: pd.DataFrame, pairs: pd.DataFrame, *, hidden: Collection[int] = (),
    sees: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """For each row of figures (shelves) the offers that go with a new purchase: row, offer_key, lift, because, days.

    `because` is the product bought `days` ago, once and never before; of several, the one with the highest lift.
    It is none of the `hidden` products, but in the rows that `sees` says; without it in none.
    """
    pairs = pairs[pairs["other_key"].isin(covers["product_key"].unique())]
    new = _new(figures, pairs["product_key"].unique())
    if hidden:
        shown = np.zeros(len(figures), bool) if sees is None else sees
        new = new[~new["because"].isin(list(hidden)) | shown[new["row"].to_numpy(np.int64)]]
    if new.empty or pairs.empty:
        return _NONE
    found = new.merge(pairs, left_on="because", right_on="product_key").drop(columns="product_key")
    found = found.merge(covers, left_on="other_key", right_on="product_key")
    best = found.sort_values(["lift", "because"], ascending=[False, True]).drop_duplicates(["row", "offer_key"])
    return best[list(COLUMNS)].sort_values(["row", "offer_key"], ignore_index=True)


def _new(figures: pd.DataFrame, wanted: np.ndarray) -> pd.DataFrame:
    """Of these products, those that were bought once, and lately: row, because, days."""
    known = figures["product_keys"].map(lambda keys: isinstance(keys, np.ndarray | list)).to_numpy(bool)
    full = figures[known]
    flat = {to: np.concatenate([*full[name], np.empty(0, np.int64)]).astype(np.int64)
            for to, name in (("because", "product_keys"), ("times", "times"), ("days", "last_days"))}  # fmt: skip
    rows = np.repeat(np.flatnonzero(known), full["product_keys"].map(len).to_numpy(np.int64))
    new = pd.DataFrame({"row": rows, **flat})
    new = new[(new["times"] == 1) & (new["days"] <= RECENT_DAYS) & new["because"].isin(wanted)]
    return new[["row", "because", "days"]].reset_index(drop=True)
