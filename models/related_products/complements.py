"""Companions: what stands in for a product, what goes with it, and what is better and dearer of its kind."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import resemblance, shelves
from models.resemblance import Likeness
from models.shelves import Flags, Floats, Ints

HOW = ("similar", "together", "upsell")
#: What shares a visit hardly more often than chance would have it goes with everything, as bananas do.
LEAST_LIFT = 1.5
#: A dearer product in whose place nobody would take it is no upsell.
DEARER = (1.1, 2.5)
#: How many best sellers of its kind speak for a product that never sold.
PROXIES = 3
COLUMNS = ("product_key", "rank", "other_key", "score", "together", "followed", "own")


@dataclass(frozen=True)
class Companions:
    """Pairs of products as places among `likeness.products`: those of place i lie from bounds[i] to bounds[i + 1].

    Of each pair: `others`, `strengths`, and of how many customers it is known: `together` bought both on one
    visit, `followed` the other for the first time on the next. The strongest of a product come first. Nothing of any
    customer is kept.
    """

    likeness: Likeness
    bounds: Ints
    others: NDArray[np.int32]
    strengths: NDArray[np.float32]
    together: NDArray[np.int32]
    followed: NDArray[np.int32]

    @classmethod
    def learn(
        cls,
        together: pd.DataFrame,
        products: pd.DataFrame,
        prices: pd.DataFrame,
        factors: tuple[Ints, NDArray[Any]] | None = None,
        *,
        least_lift: float = LEAST_LIFT,
    ) -> Self:
        """Put in order what is known of products.

        together: product_key, other_key, together, visits, followed, lift, strength, as `features.together.pairs`
        gives them. products: product_key, category, subcategory, brand. prices: product_key, price, sold, once a
        product. factors: rising product keys and what a factorisation says of them, a row each.
        """
        met = together[(together["lift"] >= least_lift) | (together["visits"] == 0)]
        known = np.unique(np.concatenate([met[name].to_numpy(np.int64) for name in ("product_key", "other_key")]))
        likeness = resemblance.learn(products, prices, factors, known)
        met = met.sort_values(["product_key", "strength", "other_key"], ascending=[True, False, True])
        places, _ = shelves.find(likeness.products, met["product_key"].to_numpy(np.int64))
        others, _ = shelves.find(likeness.products, met["other_key"].to_numpy(np.int64))
        return cls(
            likeness,
            np.searchsorted(places, np.arange(len(likeness.products) + 1)).astype(np.int64),
            others.astype(np.int32),
            met["strength"].to_numpy(np.float32),
            met["together"].to_numpy(np.int32),
            met["followed"].to_numpy(np.int32),
        )

    def arrays(self) -> dict[str, Any]:
        """All that was learned, as arrays that numpy can keep."""
        pairs = {name: getattr(self, name) for name in ("bounds", "others", "strengths", "together", "followed")}
        return {**pairs, **self.likeness.arrays()}

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> Self:
        """The same again, from what `arrays` gave."""
        pairs = (arrays[name] for name in ("bounds", "others", "strengths", "together", "followed"))
        return cls(Likeness.of(arrays), *pairs)

    def find(
        self, product_keys: Sequence[int], n: int = 10, how: str = "similar", exclude: Collection[int] = ()
    ) -> pd.DataFrame:
        """At most n companions of each product: product_key, rank (from 1), other_key, score, together, followed, own.

        "similar" may be taken instead of it, "together" goes with it, "upsell" is dearer of its kind. A score compares
        within one list only. `own` is False where the product has no company of its own yet, and that of the best
        sellers of its kind is given; `exclude` products are never given. One that nobody knows has no rows.
        """
        if how not in HOW:
            raise ValueError(f"how must be one of {', '.join(HOW)}; got {how!r}")
        out, _ = self._places(np.fromiter(exclude, np.int64, len(exclude)))
        wanted = np.asarray(list(dict.fromkeys(product_keys)), np.int64)
        places, known = self._places(wanted)
        ask = {"similar": self._similar, "together": self._beside, "upsell": self._dearer}[how]
        found = [ask(int(place), np.union1d(out, place), n) for place in places[known]]
        return pd.concat([_nothing(), *found], ignore_index=True)

    def best_sold(self, product_keys: Ints, n: int) -> Ints:
        """The n of these products that sell best."""
        places, known = self._places(product_keys)
        places = places[known]
        return self.likeness.products[places[np.argsort(-self.likeness.sold[places], kind="stable")[:n]]]

    def prices_of(self, product_keys: Ints) -> Floats:
        """What each of these products goes for; NaN where nobody knows."""
        places, known = self._places(product_keys)
        prices = np.full(len(product_keys), np.nan)
        prices[known] = self.likeness.prices[places[known]]
        return prices

    def because(self, rows: Ints, products: Ints, shelf_rows: Ints, shelf_products: Ints) -> Ints:
        """For each pair of a row and a product, the entry of the same row's shelf that it goes with best; -1 for none.

        Shelf entries are given as pairs of their row and product, each pair once.
        """
        places, known = self._places(products)
        mine, found = self._places(shelf_products)
        picks, entries = np.flatnonzero(known), np.flatnonzero(found)
        picks, entries = (
            each[np.argsort(of[each], kind="stable")] for each, of in ((picks, rows), (entries, shelf_rows))
        )
        best, at = np.full(len(rows), -1), np.full(len(self.likeness.products), -1)
        asked, firsts = np.unique(rows[picks], return_index=True)
        starts, ends = (np.searchsorted(shelf_rows[entries], asked, side=side) for side in ("left", "right"))
        for start, end, first, last in zip(starts, ends, firsts, [*firsts[1:], len(picks)][: len(firsts)], strict=True):
            own, theirs = entries[start:end], picks[first:last]
            at[mine[own]] = own  # one scratch for all: a table of everybody and everything would not fit
            best[theirs] = self._before.first(places[theirs], at)
            at[mine[own]] = -1
        return best

    def _similar(self, place: int, out: Ints, n: int) -> pd.DataFrame:
        candidates = self._without(self.likeness.of_its_kind(place, n), out)
        worth = self.likeness.likeness(place, candidates) - resemblance.COMPANY * self._company(place, candidates)
        return self._table(place, candidates, worth, n)

    def _dearer(self, place: int, out: Ints, n: int) -> pd.DataFrame:
        candidates = self._without(self.likeness.of_its_kind(place, n), out)
        with np.errstate(invalid="ignore"):
            ratio = self.likeness.prices[candidates] / self.likeness.prices[place]
            candidates = candidates[(ratio >= DEARER[0]) & (ratio <= DEARER[1])]
        return self._table(place, candidates, self.likeness.likeness(place, candidates, price=False), n)

    def _beside(self, place: int, out: Ints, n: int) -> pd.DataFrame:
        mine = slice(self.bounds[place], self.bounds[place + 1])
        own = mine.start < mine.stop
        speakers = [place] if own else self.likeness.best_sellers_like(place, PROXIES).tolist()
        spans = [np.arange(self.bounds[speaker], self.bounds[speaker + 1]) for speaker in speakers]
        entries = np.concatenate([np.empty(0, np.int64), *spans])
        entries = entries[~np.isin(self.others[entries], out)]
        # What is of its own kind is bought beside it too, as flavours are; what completes it comes first.
        behind = self.likeness.same_kind(place, self.others[entries])
        order = np.lexsort((self.others[entries], -self.strengths[entries], behind))
        entries = entries[order]
        _, first = np.unique(self.others[entries], return_index=True)
        entries = entries[np.sort(first)][:n]
        return self._rows(place, self.others[entries], self.strengths[entries], entries, own)

    def _table(self, place: int, candidates: Ints, worth: Floats, n: int) -> pd.DataFrame:
        order = np.lexsort((candidates, -worth))[:n]
        chosen = candidates[order]
        known = self.bounds[place] + np.arange(self.bounds[place + 1] - self.bounds[place])
        at = pd.Index(self.others[known]).get_indexer(pd.Index(chosen))
        entries = np.where(at >= 0, self.bounds[place] + at, -1)
        return self._rows(place, chosen, worth[order], entries, True)

    def _rows(self, place: int, chosen: NDArray[Any], worth: NDArray[Any], entries: Ints, own: bool) -> pd.DataFrame:
        together, followed = (
            np.where(entries >= 0, counts[entries] if len(counts) else 0, 0)
            for counts in (self.together, self.followed)
        )
        return pd.DataFrame(
            {
                "product_key": np.full(len(chosen), self.likeness.products[place]),
                "rank": np.arange(1, len(chosen) + 1),
                "other_key": self.likeness.products[chosen],
                "score": np.round(np.asarray(worth, np.float64), 6),
                "together": together.astype(np.int64),
                "followed": followed.astype(np.int64),
                "own": own,
            }
        )

    def _company(self, place: int, candidates: Ints) -> Floats:
        """How much each is in company with the product, from 0 to 1: it was bought beside it, not in its place."""
        mine = slice(self.bounds[place], self.bounds[place + 1])
        at = pd.Index(self.others[mine]).get_indexer(pd.Index(candidates))
        counts = np.where(at >= 0, self.together[mine][at] if mine.start < mine.stop else 0, 0)
        return np.asarray(counts / (counts + 10.0), np.float64)

    def _without(self, candidates: Ints, out: Ints) -> Ints:
        return candidates[~np.isin(candidates, out)]

    def _places(self, product_keys: Ints) -> tuple[Ints, Flags]:
        return shelves.find(self.likeness.products, product_keys)

    @cached_property
    def _before(self) -> _Before:
        """The same pairs from the other side: what each product is bought beside or after, the strongest first."""
        sources = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        order = np.lexsort((sources, -self.strengths, self.others))
        rising = self.others[order].astype(np.int64)
        order = order[shelves.places(rising) < _MOST_BEFORE]
        bounds = np.searchsorted(self.others[order], np.arange(len(self.bounds))).astype(np.int64)
        return _Before(bounds, sources[order])


#: What sells to everybody goes with everything: its strongest companions are enough.
_MOST_BEFORE = 60


@dataclass(frozen=True)
class _Before:
    bounds: Ints
    sources: Ints

    def first(self, places: Ints, at: Ints) -> Ints:
        """For each product what `at` says of the strongest of its pairs of which it says anything; -1 for none."""
        sizes = self.bounds[places + 1] - self.bounds[places]
        asked = np.repeat(np.arange(len(places)), sizes)
        hits = at[self.sources[np.repeat(self.bounds[places], sizes) + shelves.places(asked)]]
        told = np.flatnonzero(hits >= 0)[::-1]  # written last to first: the strongest, which comes first, stays
        best = np.full(len(places), -1)
        best[asked[told]] = hits[told]
        return best


def _nothing() -> pd.DataFrame:
    kinds = dict.fromkeys(COLUMNS, "int64") | {"score": "float64", "own": "bool"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
