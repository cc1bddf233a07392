"""Kinds: what sort of thing each product is, and how much of each sort a customer's shelf holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import shelves
from models.shelves import Floats, Ints, Shelves

#: From the finest to the coarsest; a subcategory is one only within its category.
SORTS = ("subcategory", "category", "department", "brand")


@dataclass(frozen=True)
class Kinds:
    """The sort of every product in the catalogue: `codes` is (products, sorts), -1 where the catalogue is silent."""

    products: Ints
    codes: NDArray[np.int32]

    @classmethod
    def read(cls, catalogue: pd.DataFrame | None) -> Self:
        """From product_key and the columns of SORTS, as words; without a catalogue nothing is known of any product."""
        if catalogue is None:
            return cls(np.empty(0, np.int64), np.empty((0, len(SORTS)), np.int32))
        told = catalogue.sort_values("product_key")
        codes = [_numbered(told, sort) for sort in SORTS]
        return cls(told["product_key"].to_numpy(np.int64), np.column_stack(codes).astype(np.int32))

    def of(self, products: Ints, sort: str) -> Ints:
        """The code of each product, -1 for unknown."""
        places, known = shelves.find(self.products, products)
        codes = np.full(len(products), -1, np.int64)
        codes[known] = self.codes[places[known], SORTS.index(sort)]
        return codes

    def all_of(self, products: Ints) -> Ints:
        """The codes of each product, a column for each of SORTS; -1 for unknown."""
        places, known = shelves.find(self.products, products)
        codes = np.full((len(products), len(SORTS)), -1, np.int64)
        codes[known] = self.codes[places[known]]
        return codes

    @property
    def sorts(self) -> int:
        """How many codes there may be of any sort, also of what nobody has bought yet."""
        return int(self.codes.max(initial=-1)) + 1

    def arrays(self) -> dict[str, Any]:
        """All there is to keep."""
        return {"kinds_products": self.products, "kinds_codes": self.codes}

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any]) -> Self:
        """The kinds again, from what `arrays` gave."""
        return cls(arrays["kinds_products"], arrays["kinds_codes"])


def _numbered(told: pd.DataFrame, sort: str) -> NDArray[Any]:
    words = told[sort].replace("", None)
    if sort != "subcategory":
        return pd.factorize(words)[0]
    within = pd.Series(list(zip(told["category"].replace("", None), words, strict=True)), index=told.index)
    return pd.factorize(within.where(words.notna()))[0]


@dataclass(frozen=True)
class Held:
    """What each customer's shelf holds of each sort: `keys` are rising codes of (row, sort), numbers aligned."""

    width: int
    keys: Ints
    numbers: dict[str, Floats]

    def of(self, rows: Ints, codes: Ints) -> dict[str, Floats]:
        """The numbers of each pair of a row and a sort; NaN where the sort is unknown, 0 where none is held."""
        places, found = shelves.find(self.keys, rows * self.width + codes + 1)
        found &= codes >= 0
        given = {}
        for name, values in self.numbers.items():
            given[name] = np.where(codes >= 0, np.nan if name == "last_days" else 0.0, np.nan)
            given[name][found] = values[places[found]]
        return given


def held(stock: Shelves, codes: Ints, half_lives: tuple[int, int], sorts: int, asked: Ints) -> Held:
    """Per customer and sort: decayed purchases, lately and for long, days since the last, and how many products.

    `codes` is the sort of every entry, of so many `sorts` that there are; of those `asked` about alone the numbers are
    worked out. `half_lives` (days) are those of `lately` and `long`.
    """
    width = sorts + 1
    wanted = np.zeros(width, bool)
    wanted[asked + 1] = True
    here = np.flatnonzero(wanted[codes + 1])
    keys, place = np.unique(stock.rows[here] * width + codes[here] + 1, return_inverse=True)
    last = np.full(len(keys), np.inf)
    np.minimum.at(last, place, stock.columns["last_days"][here])
    short, long = half_lives
    numbers = {
        "lately": np.bincount(place, stock.weights(short)[here], len(keys)),
        "long": np.bincount(place, stock.weights(long)[here], len(keys)),
        "last_days": last,
        "products": np.bincount(place, minlength=len(keys)).astype(np.float64),
    }
    return Held(width, keys, numbers)
