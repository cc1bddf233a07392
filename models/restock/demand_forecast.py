"""Supply: how much of each product will be sold in each of the next weeks, to know how much to have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import btyd, stocks
from models.base import Floats

#: So many weeks are foretold, from as many that tell the level.
WEEKS = 4
#: What a product's share of its category is read from: weeks, counted half for every so many that they lie back.
MEMORY, HALF_LIFE = 26, 6.0
#: A category of fewer expected purchases than this leans on what became of all needs.
LEANING = 20.0
LAST_WEEK, MEAN, SHARED, NEEDED = "last week", "mean of 4 weeks", "category mean, shared", "needs of customers, shared"


@dataclass(frozen=True)
class Sold:
    """Pieces sold of each product, (products, weeks), the latest week first; its category's number, and its price."""

    units: Floats
    category: NDArray[np.int64]
    price: Floats

    def before(self, weeks: int) -> Sold:
        """The same as known so many weeks earlier."""
        return Sold(self.units[:, weeks:], self.category, self.price)

    def came(self, weeks: int) -> Floats:
        """What was sold in the weeks that came after, (products, WEEKS), the first of them first."""
        return self.units[:, weeks - WEEKS : weeks][:, ::-1]


def expected(sold: Sold, ways: tuple[str, ...], growth: Floats | None = None) -> dict[str, Floats]:
    """What each way expects of each product in each of the next weeks, (products, WEEKS).

    growth: (categories, WEEKS), what customers' needs will be over what the last weeks made of them; see `grown`.
    """
    mean = sold.units[:, :WEEKS].mean(axis=1)
    shared = _shared(sold)
    each = {LAST_WEEK: sold.units[:, 0], MEAN: mean, SHARED: shared}
    said = {way: np.repeat(column[:, None], WEEKS, axis=1) for way, column in each.items()}
    if growth is not None:
        said[NEEDED] = shared[:, None] * growth[sold.category]
    return {way: said[way] for way in ways if way in said}


def _shared(sold: Sold) -> Floats:
    """Each category's mean of the last weeks, by the shares that its products have had for longer.

    What sold well for a month by chance does not go on so: on Complete Journey the error over products falls by a
    fortieth, and over categories it is that of the mean.
    """
    seen = sold.units[:, :MEMORY]
    weight = 0.5 ** (np.arange(seen.shape[1]) / HALF_LIFE)
    usual = seen @ (weight / weight.sum())
    count = int(sold.category.max(initial=-1)) + 1
    level, held = (np.bincount(sold.category, part, count) for part in (seen[:, :WEEKS].mean(axis=1), usual))
    ratio = np.divide(level, held, out=np.zeros(count), where=held > 0)
    return np.asarray(usual * ratio[sold.category])


def purchases(needs: pd.DataFrame, categories: pd.Index, *, seed: int = 0) -> Floats:
    """The purchases expected of all customers' needs, (categories, WEEKS), from the needs of one moment.

    needs: category and the numbers of a need (see stocks). Each has its own rhythm (BG/NBD).
    """
    kept = needs[stocks.is_need(needs)]
    past = stocks.history(kept)
    rhythm = stocks.rhythm(kept, seed=seed) if len(kept) else btyd.BgNbd(1.0, 1.0, 1.0, 1.0)
    place = categories.get_indexer(pd.Index(kept["category"]))
    reached = np.column_stack(
        [np.maximum(rhythm.expected_purchases(*past, 7.0 * week), 0.0) for week in range(WEEKS + 1)]
    )
    ahead = np.diff(reached, axis=1)
    found = place >= 0
    return np.column_stack([np.bincount(place[found], part[found], len(categories)) for part in ahead.T])


def grown(now: Floats, then: Floats) -> Floats:
    """What is expected of the needs of each category now over what was expected WEEKS weeks ago, (categories, WEEKS).

    The last weeks' sales are what became of the earlier needs, so their level carries over: unknown customers and
    pieces at a time are in it. A category of few needs leans on all.
    """
    usual = now.sum() / then.sum() if then.sum() > 0 else 1.0
    ratio = (now.sum(axis=1) + LEANING * usual) / (then.sum(axis=1) + LEANING)
    return np.repeat(ratio[:, None], WEEKS, axis=1)


def error(sold: Sold, came: Floats, said: Floats, *, by_category: bool = False) -> float:
    """What was foretold wrongly over what was sold, in money: the weighted absolute percentage error (WAPE).

    In money, lest litres of petrol drown everything that is sold by the piece.
    """
    came, said = came * sold.price[:, None], said * sold.price[:, None]
    if by_category:
        count = int(sold.category.max(initial=-1)) + 1
        came, said = (_together(sold.category, part, count) for part in (came, said))
    total = float(came.sum())
    return float(np.abs(came - said).sum()) / total if total > 0 else float("nan")


def _together(category: NDArray[np.int64], weekly: Floats, count: int) -> Floats:
    piles = [np.bincount(category, week, count) for week in weekly.T]
    return np.column_stack(piles).astype(np.float64)


def best(figures: pd.DataFrame) -> str:
    """The way with the smallest error over products and categories together, over the cutoffs that all ways have.

    figures: way, weeks_back, products, categories; a row a way and cutoff, plainest way first, which wins a tie.
    """
    each = figures.groupby("weeks_back")["way"].transform("nunique")
    fair = figures[each == figures["way"].nunique()]
    means = fair.groupby("way", sort=False)[["products", "categories"]].mean().sum(axis=1)
    known = means[np.isfinite(means)]
    return MEAN if known.empty else str(known.idxmin())
