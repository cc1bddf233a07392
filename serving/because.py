"""Because: the few figures of a customer's own that say why each product is on their list.

They are kept beside the list and put into words by `customers.reasons`, which says what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import reasons
from customers.shop import Shop
from models.companions import Companions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: What is read of a shelf; a shelf that was computed before one of them was thought of does not have it.
FIGURES = ("times", "last_days", "first_days")


def grounds(
    ranked: pd.DataFrame,
    shelf: pd.DataFrame,
    companions: Companions | None,
    *,
    hidden: Collection[int] = (),
    sees: Collection[int] = (),
) -> list[list[Any]]:
    """Why each product of the ranked lists is there; empty where its source says it all, `words` where they do.

    What was bought before: [times, last_days, first_days]. What is new: [product_key, last_days] of what goes with it
    best on the customer's own shelf, `hidden` products left out but for the customers in `sees`.
    """
    own = flat(shelf)
    words: Sequence[str | None] = ranked["words"].tolist() if "words" in ranked else [None] * len(ranked)
    found: list[list[Any]] = [[] if word is None else [word] for word in words]
    source = ranked["source"].to_numpy()
    place = pd.Index(shelf["customer_key"]).get_indexer(pd.Index(ranked["customer_key"]))
    products = ranked["product_key"].to_numpy(np.int64)
    again = np.flatnonzero(source == "again")
    _note(found, again, _held(own, place[again], products[again]), own, FIGURES)
    if companions is not None:
        told = flat(shelf, hidden=hidden, sees=sees) if hidden else own
        new = np.flatnonzero(source == "new")
        best = companions.because(place[new], products[new], told["row"].to_numpy(), told["product_key"].to_numpy())
        _note(found, new, best, told, ("product_key", "last_days"))
    return found


def said(shop: Shop, ranked: pd.DataFrame) -> list[str]:
    """The reasons of ranked products in words."""
    columns = ("customer_key", "source", "grounds")
    return reasons.speak(shop, zip(*(ranked[name].tolist() for name in columns), strict=True))


def flat(shelf: pd.DataFrame, *, hidden: Collection[int] = (), sees: Collection[int] = ()) -> pd.DataFrame:
    """The shelves laid flat: row, customer_key, product_key and the figures, NaN where a shelf has none.

    Without `hidden` products, but for the customers in `sees`.
    """
    lists = shelf["product_keys"].to_numpy()
    held = np.flatnonzero(shelf["product_keys"].notna().to_numpy())
    sizes = np.array([len(lists[row]) for row in held], np.int64)
    rows = np.repeat(held, sizes)
    columns: dict[str, Any] = {"row": rows, "customer_key": shelf["customer_key"].to_numpy(np.int64)[rows]}
    columns["product_key"] = _flat(lists[held]).astype(np.int64)
    for name in FIGURES:
        told = name in shelf and all(each is not None for each in shelf[name].to_numpy()[held])
        columns[name] = _flat(shelf[name].to_numpy()[held]) if told else np.full(len(rows), np.nan)
    own = pd.DataFrame(columns)
    if not hidden:
        return own
    seen = ~own["product_key"].isin(list(hidden)) | own["customer_key"].isin(list(sees))
    return own[seen].reset_index(drop=True)


def _flat(lists: NDArray[Any]) -> Floats:
    return np.concatenate([np.empty(0), *lists])


def _held(own: pd.DataFrame, rows: Ints, products: Ints) -> Ints:
    """Where each row's product stands among the shelves, -1 for nowhere."""
    shelves = pd.MultiIndex.from_arrays([own["row"], own["product_key"]])
    return np.asarray(shelves.get_indexer(pd.MultiIndex.from_arrays([rows, products])), np.int64)


def _note(found: list[list[Any]], at: Ints, places: Ints, own: pd.DataFrame, names: tuple[str, ...]) -> None:
    known = places >= 0
    figures = own[list(names)].to_numpy(np.float64)[places[known]]
    for place, each in zip(at[known].tolist(), figures.tolist(), strict=True):
        found[place] = [int(figure) for figure in each if figure == figure]
