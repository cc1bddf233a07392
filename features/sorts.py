"""Sorts: of what sort the products of an offer are, and how much of that sort a customer buys anyway."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy import sparse

from features import goods

#: From the coarsest to the finest; a subcategory is one only within its category, a line is one of a brand.
SORTS = ("category", "subcategory", "line")
#: How the sorts of an offer's products are weighed: each as one, by its share of products, and by its share of sales.
WEIGHED = ("any", "mix", "sold")
COLUMNS = (*(f"{sort}_{how}" for sort in SORTS for how in WEIGHED), "subcategory_last_days")


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

    def of(self, products: np.ndarray, sort: str) -> np.ndarray:
        """The code of each product, -1 for unknown."""
        if not len(self.products):
            return np.full(len(products), -1)
        places = goods.find(self.products, products)
        return np.where(places < 0, -1, self.codes[places, SORTS.index(sort)])


@dataclass(frozen=True, slots=True)
class Held:
    """Products on the shelves of so many people: whose each is, how much it weighs and when it was last bought."""

    people: int
    owners: np.ndarray
    products: np.ndarray
    weights: np.ndarray
    last_days: np.ndarray


def liking(
    sorts: Sorts, held: Held, wares: goods.Goods, person: np.ndarray, offer: np.ndarray
) -> dict[str, np.ndarray]:
    """COLUMNS for pairs of a person and an offer's place: weights of 84 days, summed over products of the sort.

    `*_any` is what they buy of all sorts that the offer is for, `*_mix` and `*_sold` the mean over its products and
    over its sales; `subcategory_last_days` the days since they bought of the subcategory most of it is for.
    """
    made = {}
    for sort in SORTS:
        mine, theirs = sorts.of(held.products, sort), sorts.of(wares.covered, sort)
        width = int(max(mine.max(initial=-1), theirs.max(initial=-1))) + 1
        liked = _table(held.owners, mine, held.weights, (held.people, width))
        counted = _table(wares.owners, theirs, np.ones(len(theirs)), (len(wares.offers), width))
        bought = _table(wares.owners, theirs, wares.sold, counted.shape)
        for how, meant in zip(WEIGHED, (counted.sign(), _shares(counted), _shares(bought)), strict=True):
            made[f"{sort}_{how}"] = (liked @ meant.T).toarray()[person, offer]
        if sort == "subcategory":
            made[f"{sort}_last_days"] = _last_days(held, mine, counted, person, offer)
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


def _last_days(
    held: Held, mine: np.ndarray, counted: sparse.csr_matrix, person: np.ndarray, offer: np.ndarray
) -> np.ndarray:
    """Days since each person bought of the code that most of the offer's products have; NaN for never or no code."""
    most = np.asarray(counted.argmax(axis=1)).ravel() if counted.shape[1] else np.zeros(counted.shape[0], "int64")
    asked, place = np.unique(most, return_inverse=True)
    found = goods.find(asked, mine)
    here = (found >= 0) & (mine >= 0)
    least = np.full((held.people, len(asked)), np.inf)
    np.minimum.at(least, (held.owners[here], found[here]), held.last_days[here])
    days = least[person, place[offer]]
    return np.where((np.diff(counted.indptr)[offer] > 0) & np.isfinite(days), days, np.nan)
