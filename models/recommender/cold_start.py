"""Newcomers: products too young for anybody's taste to tell, taken for what is usual of their kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.kinds import SORTS, Kinds
from models.shelves import Flags, Floats, Ints, Shelves
from models.tastes import Singles, Tastes

#: More newcomers than this at once are a catalogue that was loaded, not a launch.
MOST = 1_000


def welcome(known: Tastes, stock: Shelves, kinds: Kinds, *, window_days: int) -> Tastes:
    """The tastes with the newcomers among them, each with the mean factors of its subcategory, else of its category.

    New is what first sold within the window, to two customers at least; of what never sold nobody can say at a past
    moment whether it was there yet. Their heat is that of the coldest product, for nobody knows better.
    """
    young = _young(known, stock, window_days)
    factors, found = _usual(known, kinds, young)
    young, factors = young[found][-MOST:], factors[found][-MOST:]
    if not len(young):
        return known
    products = np.concatenate([known.products, young])
    order = np.argsort(products)
    cold = np.full(len(young), known.heat.min(), np.float32)
    return replace(
        known,
        products=products[order],
        factors=np.concatenate([known.factors, factors.astype(np.float32)])[order],
        heat=np.concatenate([known.heat, cold])[order],
        young=np.sort(young),
    )


def _young(known: Tastes, stock: Shelves, window_days: int) -> Ints:
    sold, place = np.unique(stock.products, return_inverse=True)
    opened = np.zeros(len(sold))
    np.maximum.at(opened, place, stock.columns["first_days"])
    return np.setdiff1d(sold[(opened <= window_days) & (np.bincount(place) > 1)], known.products)


def _usual(known: Tastes, kinds: Kinds, young: Ints) -> tuple[Singles, Flags]:
    """The mean factors of the finest kind that is known of each, and whether there is any."""
    factors, found = np.zeros((len(young), known.factors.shape[1]), np.float32), np.zeros(len(young), bool)
    for sort in SORTS[:2]:
        means, counts = _means(known, kinds.of(known.products, sort))
        codes = kinds.of(young, sort)
        told = (codes >= 0) & (codes < len(counts)) & ~found
        told[told] = counts[codes[told]] > 0
        factors[told] = means[codes[told]]
        found |= told
    return factors, found


def _means(known: Tastes, codes: Ints) -> tuple[Floats, Floats]:
    told = codes >= 0
    size = int(codes.max(initial=-1)) + 1
    counts = np.bincount(codes[told], minlength=size).astype(np.float64)
    sums = np.zeros((size, known.factors.shape[1]))
    np.add.at(sums, codes[told], known.factors[told])
    return sums / np.maximum(counts, 1)[:, None], counts
