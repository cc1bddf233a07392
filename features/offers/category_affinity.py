"""Sorts: of what sort the products of an offer are, and how much of that sort a customer buys anyway."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy import sparse

from features import goods

#: From the coarsest to the finest; a subcategory is one only within its category, a line is one of a brand.
SORTS = ("category", "subcategory", "line")
COLUMNS = tuple(f"{sort}_sold" for sort in SORTS)


@dataclass(frozen=True, slots=True)
class Sorts:
    """The sorts of each product: `codes` is (products, SORTS), -1 where the catalogue is silent."""

    products: np.ndarray  # product keys, rising
    codes: np.ndarray

    @classmethod
    def read(cls, catalogue: pd.DataFrame) -> Self:
        """From what the catalogue says: product_key, category, subcategory, brand."""
        told = catalogue.sort_values("product_key")
        words = {name: pd.factorize(told[name].replace("", None))[0] for name in ("category", "subcategory", "brand")}
        category, unknown = words["category"], words["subcategory"] < 0
        subcategory = np.where(unknown, -1, _within(category, words["subcategory"]))
        line = np.where(unknown, -1, _within(subcategory, words["brand"]))
        codes = np.column_stack([category, subcategory, line]).astype("int32")
        return cls(told["product_key"].to_numpy("int64"), codes)

    def of(self, products: np.ndarray) -> dict[str, np.ndarray]:
        """The code of each product in each of SORTS, -1 for unknown."""
        places = goods.find(self.products, products)
        known = places >= 0
        codes = np.full((len(SORTS), len(products)), -1, dtype="int32")
        codes[:, known] = self.codes[places[known]].T
        return dict(zip(SORTS, codes, strict=True))


@dataclass(frozen=True, slots=True)
class Held:
    """Products on the shelves of so many people: whose each is, and how much it weighs."""

    people: int
    owners: np.ndarray
    products: np.ndarray
    weights: np.ndarray


def liking(
    sorts: Sorts, held: Held, wares: goods.Goods, person: np.ndarray, offer: np.ndarray
) -> dict[str, np.ndarray]:
    """COLUMNS for pairs of a person and an offer's place.

    What they buy of the sorts that the offer is for, by the share that each has in its sales: weights of 84 days,
    summed over products of the sort.
    """
    made, held_codes, wares_codes = {}, sorts.of(held.products), sorts.of(wares.covered)
    for sort in SORTS:
        mine, theirs = held_codes[sort], wares_codes[sort]
        width = int(max(mine.max(initial=-1), theirs.max(initial=-1))) + 1
        liked = _table(held.owners, mine, held.weights, (held.people, width))
        shares = _shares(_table(wares.owners, theirs, wares.sold, (len(wares.offers), width)))
        made[f"{sort}_sold"] = (liked @ shares.T).toarray()[person, offer]
    return made


def _within(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """A code for each pair of codes."""
    return np.unique((outer.astype("int64") + 1) * (inner.max(initial=0) + 2) + inner + 1, return_inverse=True)[1]


def _table(rows: np.ndarray, codes: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """The sum of values for each row and code; what has no code is left out."""
    known = codes >= 0
    return sparse.csr_matrix((values[known], (rows[known], codes[known])), shape=shape)


def _shares(table: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each row as shares of its sum."""
    total = np.asarray(table.sum(axis=1)).ravel()
    return sparse.diags(np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)) @ table
