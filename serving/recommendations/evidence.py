"""Because: the few figures of a customer's own that say why each product is on their list.

They are kept beside the list and put into words by `customers.reasons`, which says what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import reasons
from customers.shop import Shop
from models.companions import Companions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: What is noted of each product, and what is read of a shelf; an old shelf may lack some.
COLUMNS = ("because", "days", "since")
FIGURES = ("times", "last_days", "first_days")
#: What was bought longer ago is no reason to buy what goes with it.
LATELY = 90


def grounds(
    ranked: pd.DataFrame,
    shelf: pd.DataFrame,
    companions: Companions | None,
    *,
    hidden: Collection[int] = (),
    sees: Collection[int] = (),
) -> pd.DataFrame:
    """Ranked lists with why each product is there: columns `because`, `days` and `since`, -1 for nothing.

    Of what was bought before: on how many days, and how long ago the last and the first of them are. Of what is new:
    the product_key and days of what goes with it best among what they bought lately, `hidden` products left out but
    for the customers in `sees`.
    """
    own, source = flat(shelf), ranked["source"].to_numpy()
    why = np.full((len(ranked), len(COLUMNS)), -1, np.int64)
    place = pd.Index(shelf["customer_key"]).get_indexer(pd.Index(ranked["customer_key"]))
    products = ranked["product_key"].to_numpy(np.int64)
    again, new = np.flatnonzero(source == "again"), np.flatnonzero(source == "new")
    _note(why, again, _held(own, place[again], products[again]), own, FIGURES)
    if companions is not None:
        told = flat(shelf, hidden=hidden, sees=sees) if hidden else own
        told = told[told["last_days"] <= LATELY]
        best = companions.because(
            place[new], products[new], *(told[name].to_numpy() for name in ("row", "product_key"))
        )
        _note(why, new, best, told, ("product_key", "last_days"))
    return ranked.assign(**dict(zip(COLUMNS, why.T, strict=True)))


def kept(ranked: pd.DataFrame) -> Iterator[list[Any]]:
    """What is kept of each product's grounds: as many numbers as there are, or the `words` of a list that has some."""
    words = ranked["words"].tolist() if "words" in ranked else [None] * len(ranked)
    for said, first, days, since in zip(words, *(ranked[name].tolist() for name in COLUMNS), strict=True):
        if said is not None:
            yield [said]
        elif first < 0:
            yield []
        else:
            yield [first, days] if since < 0 else [first, days, since]


def said(shop: Shop, ranked: pd.DataFrame) -> list[str]:
    """The reasons of ranked products in words."""
    told = zip(ranked["customer_key"].tolist(), ranked["source"].tolist(), kept(ranked), strict=True)
    return reasons.speak(shop, told)


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
    width = 1 + max(own["product_key"].max() if len(own) else 0, products.max(initial=0))
    shelves = pd.Index(own["row"].to_numpy() * width + own["product_key"].to_numpy())
    return np.asarray(shelves.get_indexer(pd.Index(rows * width + products)), np.int64)


def _note(why: Ints, at: Ints, places: Ints, own: pd.DataFrame, names: Sequence[str]) -> None:
    known = places >= 0
    for column, name in enumerate(names):
        figures = own[name].to_numpy(np.float64)[places[known]]
        why[at[known], column] = np.where(np.isnan(figures), -1, figures).astype(np.int64)
