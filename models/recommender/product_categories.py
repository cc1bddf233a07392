"""Category codes of products at four levels, and totals of each customer's history by category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import arrays
from models.arrays import Floats, Ints
from models.recommender.purchase_history import PurchaseHistory

#: From the finest to the coarsest; the name of a subcategory is unique only within its category.
CATEGORY_LEVELS = ("subcategory", "category", "department", "brand")


@dataclass(frozen=True)
class ProductCategories:
    """Category codes of every product in the catalogue.

    `products` are ascending keys (n_products,); `codes` is (n_products, n_levels), a column for each of
    CATEGORY_LEVELS, -1 where the catalogue has no value.
    """

    products: Ints
    codes: NDArray[np.int32]

    @classmethod
    def from_catalogue(cls, catalogue: pd.DataFrame | None) -> Self:
        """Build from columns product_key and CATEGORY_LEVELS (text); without a catalogue, every code is unknown."""
        if catalogue is None:
            return cls(np.empty(0, np.int64), np.empty((0, len(CATEGORY_LEVELS)), np.int32))
        rows = catalogue.sort_values("product_key")
        codes = [_level_codes(rows, level) for level in CATEGORY_LEVELS]
        return cls(rows["product_key"].to_numpy(np.int64), np.column_stack(codes).astype(np.int32))

    def codes_at_level(self, products: Ints, level: str) -> Ints:
        """The code of each product at one level, -1 for unknown: (n,)."""
        positions, is_listed = arrays.find_positions(self.products, products)
        codes = np.full(len(products), -1, np.int64)
        codes[is_listed] = self.codes[positions[is_listed], CATEGORY_LEVELS.index(level)]
        return codes

    def all_codes(self, products: Ints) -> Ints:
        """The codes of each product, a column for each of CATEGORY_LEVELS, -1 for unknown: (n, n_levels)."""
        positions, is_listed = arrays.find_positions(self.products, products)
        codes = np.full((len(products), len(CATEGORY_LEVELS)), -1, np.int64)
        codes[is_listed] = self.codes[positions[is_listed]]
        return codes

    @property
    def n_codes(self) -> int:
        """Number of codes that a level may have, including those of products that were never bought."""
        return int(self.codes.max(initial=-1)) + 1

    def arrays(self) -> dict[str, Any]:
        """Everything that is saved, as named arrays."""
        return {"kinds_products": self.products, "kinds_codes": self.codes}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Rebuild the categories from what `arrays` returned."""
        return cls(arrays["kinds_products"], arrays["kinds_codes"])


def _level_codes(catalogue: pd.DataFrame, level: str) -> NDArray[Any]:
    names = catalogue[level].replace("", None)
    if level != "subcategory":
        return pd.factorize(names)[0]
    within = pd.Series(list(zip(catalogue["category"].replace("", None), names, strict=True)), index=catalogue.index)
    return pd.factorize(within.where(names.notna()))[0]


@dataclass(frozen=True)
class CategoryTotals:
    """Totals by customer and category: `keys` (n_keys,) are ascending codes of both, `totals` in the same order."""

    width: int
    keys: Ints
    totals: dict[str, Floats]

    def lookup(self, rows: Ints, codes: Ints) -> dict[str, Floats]:
        """The totals of each pair of row and category, (n_pairs,) each.

        NaN where the category is unknown. Where the customer has nothing of it: 0, and NaN for last_days.
        """
        positions, has_totals = arrays.find_positions(self.keys, rows * self.width + codes + 1)
        has_totals &= codes >= 0
        columns = {}
        for name, values in self.totals.items():
            columns[name] = np.where(codes >= 0, np.nan if name == "last_days" else 0.0, np.nan)
            columns[name][has_totals] = values[positions[has_totals]]
        return columns


def compute_category_totals(
    history: PurchaseHistory, entry_codes: Ints, half_lives: tuple[int, int], n_codes: int, requested_codes: Ints
) -> CategoryTotals:
    """Total by customer and category: decayed purchases (lately, long), days since the last, and number of products.

    entry_codes: the category of every history entry (n_entries,), below n_codes, -1 for unknown. Only categories in
    requested_codes are totalled. half_lives (days) are those of lately and long.
    """
    width = n_codes + 1
    is_requested = np.zeros(width, bool)
    is_requested[requested_codes + 1] = True
    entries = np.flatnonzero(is_requested[entry_codes + 1])
    keys, position = np.unique(history.rows[entries] * width + entry_codes[entries] + 1, return_inverse=True)
    last = np.full(len(keys), np.inf)
    np.minimum.at(last, position, history.columns["last_days"][entries])
    short, long = half_lives
    totals = {
        "lately": np.bincount(position, history.weights(short)[entries], len(keys)),
        "long": np.bincount(position, history.weights(long)[entries], len(keys)),
        "last_days": last,
        "products": np.bincount(position, minlength=len(keys)).astype(np.float64),
    }
    return CategoryTotals(width, keys, totals)
