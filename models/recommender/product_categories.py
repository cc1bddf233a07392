"""Kinds: what sort of thing each product is, and how much of each sort a customer's shelf holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import arrays
from models.arrays import Floats, Ints
from models.recommender.purchase_history import PurchaseHistory

#: From the finest to the coarsest; a subcategory is one only within its category.
CATEGORY_LEVELS = ("subcategory", "category", "department", "brand")


@dataclass(frozen=True)
class ProductCategories:
    """The sort of every product in the catalogue: `codes` is (products, sorts), -1 where the catalogue is silent."""

    products: Ints
    codes: NDArray[np.int32]

    @classmethod
    def from_catalogue(cls, catalogue: pd.DataFrame | None) -> Self:
        """From product_key and the columns of SORTS, as words; without a catalogue nothing is known of any product."""
        if catalogue is None:
            return cls(np.empty(0, np.int64), np.empty((0, len(CATEGORY_LEVELS)), np.int32))
        rows = catalogue.sort_values("product_key")
        codes = [_level_codes(rows, level) for level in CATEGORY_LEVELS]
        return cls(rows["product_key"].to_numpy(np.int64), np.column_stack(codes).astype(np.int32))

    def codes_at_level(self, products: Ints, level: str) -> Ints:
        """The code of each product, -1 for unknown."""
        places, is_listed = arrays.find_positions(self.products, products)
        codes = np.full(len(products), -1, np.int64)
        codes[is_listed] = self.codes[places[is_listed], CATEGORY_LEVELS.index(level)]
        return codes

    def all_codes(self, products: Ints) -> Ints:
        """The codes of each product, a column for each of SORTS; -1 for unknown."""
        places, is_listed = arrays.find_positions(self.products, products)
        codes = np.full((len(products), len(CATEGORY_LEVELS)), -1, np.int64)
        codes[is_listed] = self.codes[places[is_listed]]
        return codes

    @property
    def n_codes(self) -> int:
        """How many codes there may be of any sort, also of what nobody has bought yet."""
        return int(self.codes.max(initial=-1)) + 1

    def arrays(self) -> dict[str, Any]:
        """All there is to keep."""
        return {"kinds_products": self.products, "kinds_codes": self.codes}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """The kinds again, from what `arrays` gave."""
        return cls(arrays["kinds_products"], arrays["kinds_codes"])


def _level_codes(catalogue: pd.DataFrame, level: str) -> NDArray[Any]:
    names = catalogue[level].replace("", None)
    if level != "subcategory":
        return pd.factorize(names)[0]
    within = pd.Series(list(zip(catalogue["category"].replace("", None), names, strict=True)), index=catalogue.index)
    return pd.factorize(within.where(names.notna()))[0]


@dataclass(frozen=True)
class CategoryTotals:
    """What each customer's shelf holds of each sort: `keys` are rising codes of (row, sort), numbers aligned."""

    width: int
    keys: Ints
    totals: dict[str, Floats]

    def lookup(self, rows: Ints, codes: Ints) -> dict[str, Floats]:
        """The numbers of each pair of a row and a sort; NaN where the sort is unknown, 0 where none is held."""
        places, has_totals = arrays.find_positions(self.keys, rows * self.width + codes + 1)
        has_totals &= codes >= 0
        columns = {}
        for name, values in self.totals.items():
            columns[name] = np.where(codes >= 0, np.nan if name == "last_days" else 0.0, np.nan)
            columns[name][has_totals] = values[places[has_totals]]
        return columns


def compute_category_totals(
    history: PurchaseHistory, entry_codes: Ints, half_lives: tuple[int, int], n_codes: int, requested_codes: Ints
) -> CategoryTotals:
    """Per customer and sort: decayed purchases, lately and for long, days since the last, and how many products.

    `codes` is the sort of every entry, of so many `sorts` that there are; of those `asked` about alone the numbers are
    worked out. `half_lives` (days) are those of `lately` and `long`.
    """
    width = n_codes + 1
    is_requested = np.zeros(width, bool)
    is_requested[requested_codes + 1] = True
    entries = np.flatnonzero(is_requested[entry_codes + 1])
    keys, place = np.unique(history.rows[entries] * width + entry_codes[entries] + 1, return_inverse=True)
    last = np.full(len(keys), np.inf)
    np.minimum.at(last, place, history.columns["last_days"][entries])
    short, long = half_lives
    totals = {
        "lately": np.bincount(place, history.weights(short)[entries], len(keys)),
        "long": np.bincount(place, history.weights(long)[entries], len(keys)),
        "last_days": last,
        "products": np.bincount(place, minlength=len(keys)).astype(np.float64),
    }
    return CategoryTotals(width, keys, totals)
