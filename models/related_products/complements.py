"""Companions: what stands in for a product, what goes with it, and what is better and dearer of its kind."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import arrays
from models.arrays import Flags, Floats, Ints
from models.related_products import similarity
from models.related_products.similarity import ProductSimilarity

RELATIONS = ("similar", "together", "upsell")
#: What shares a visit hardly more often than chance would have it goes with everything, as bananas do.
MIN_LIFT = 1.5
#: A dearer product in whose place nobody would take it is no upsell.
UPSELL_PRICE_RATIO = (1.1, 2.5)
#: How many best sellers of its kind speak for a product that never sold.
N_PROXIES = 3
COLUMNS = ("product_key", "rank", "other_key", "score", "together", "followed", "own")


@dataclass(frozen=True)
class RelatedProducts:
    """Pairs of products as places among `likeness.products`: those of place i lie from bounds[i] to bounds[i + 1].

    Of each pair: `others`, `strengths`, and of how many customers it is known: `together` bought both on one
    visit, `followed` the other for the first time on the next. The strongest of a product come first. Nothing of any
    customer is kept.
    """

    similarity: ProductSimilarity
    bounds: Ints
    others: NDArray[np.int32]
    strengths: NDArray[np.float32]
    together: NDArray[np.int32]
    followed: NDArray[np.int32]

    @classmethod
    def fit(
        cls,
        together: pd.DataFrame,
        products: pd.DataFrame,
        prices: pd.DataFrame,
        factors: tuple[Ints, NDArray[Any]] | None = None,
        *,
        min_lift: float = MIN_LIFT,
    ) -> Self:
        """Put in order what is known of products.

        together: product_key, other_key, together, visits, followed, lift, strength, as `features.products.co_purchases.pairs`
        gives them. products: product_key, category, subcategory, brand. prices: product_key, price, sold, once a
        product. factors: rising product keys and what a factorisation says of them, a row each.
        """
        pairs = together[(together["lift"] >= min_lift) | (together["visits"] == 0)]
        paired_products = np.unique(
            np.concatenate([pairs[name].to_numpy(np.int64) for name in ("product_key", "other_key")])
        )
        product_similarity = similarity.fit(products, prices, factors, paired_products)
        pairs = pairs.sort_values(["product_key", "strength", "other_key"], ascending=[True, False, True])
        places, _ = arrays.find_positions(product_similarity.products, pairs["product_key"].to_numpy(np.int64))
        others, _ = arrays.find_positions(product_similarity.products, pairs["other_key"].to_numpy(np.int64))
        return cls(
            product_similarity,
            np.searchsorted(places, np.arange(len(product_similarity.products) + 1)).astype(np.int64),
            others.astype(np.int32),
            pairs["strength"].to_numpy(np.float32),
            pairs["together"].to_numpy(np.int32),
            pairs["followed"].to_numpy(np.int32),
        )

    def arrays(self) -> dict[str, Any]:
        """All that was learned, as arrays that numpy can keep."""
        pairs = {name: getattr(self, name) for name in ("bounds", "others", "strengths", "together", "followed")}
        return {**pairs, **self.similarity.arrays()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """The same again, from what `arrays` gave."""
        pairs = (arrays[name] for name in ("bounds", "others", "strengths", "together", "followed"))
        return cls(ProductSimilarity.from_arrays(arrays), *pairs)

    def find_related(
        self, product_keys: Sequence[int], n: int = 10, relation: str = "similar", exclude: Collection[int] = ()
    ) -> pd.DataFrame:
        """At most n companions of each product: product_key, rank (from 1), other_key, score, together, followed, own.

        "similar" may be taken instead of it, "together" goes with it, "upsell" is dearer of its kind. A score compares
        within one list only. `own` is False where the product has no company of its own yet, and that of the best
        sellers of its kind is given; `exclude` products are never given. One that nobody knows has no rows.
        """
        if relation not in RELATIONS:
            raise ValueError(f"how must be one of {', '.join(RELATIONS)}; got {relation!r}")
        excluded, _ = self._positions(np.fromiter(exclude, np.int64, len(exclude)))
        wanted = np.asarray(list(dict.fromkeys(product_keys)), np.int64)
        places, is_covered = self._positions(wanted)
        rank = {"similar": self._substitutes, "together": self._complements, "upsell": self._upsells}[relation]
        frames = [rank(int(place), np.union1d(excluded, place), n) for place in places[is_covered]]
        return pd.concat([_empty_frame(), *frames], ignore_index=True)

    def top_sellers(self, product_keys: Ints, n: int) -> Ints:
        """The n of these products that sell best."""
        places, is_covered = self._positions(product_keys)
        places = places[is_covered]
        return self.similarity.products[places[np.argsort(-self.similarity.sold[places], kind="stable")[:n]]]

    def lookup_prices(self, product_keys: Ints) -> Floats:
        """What each of these products goes for; NaN where nobody knows."""
        places, is_covered = self._positions(product_keys)
        prices = np.full(len(product_keys), np.nan)
        prices[is_covered] = self.similarity.prices[places[is_covered]]
        return prices

    def supporting_entries(self, rows: Ints, products: Ints, history_rows: Ints, history_products: Ints) -> Ints:
        """For each pair of a row and a product, the entry of the same row's shelf that it goes with best; -1 for none.

        Shelf entries are given as pairs of their row and product, each pair once.
        """
        places, is_covered = self._positions(products)
        history_places, is_history_covered = self._positions(history_products)
        picks, entries = np.flatnonzero(is_covered), np.flatnonzero(is_history_covered)
        picks, entries = (
            each[np.argsort(row_numbers[each], kind="stable")]
            for each, row_numbers in ((picks, rows), (entries, history_rows))
        )
        best, entry_by_product = np.full(len(rows), -1), np.full(len(self.similarity.products), -1)
        requested_rows, firsts = np.unique(rows[picks], return_index=True)
        starts, ends = (np.searchsorted(history_rows[entries], requested_rows, side=side) for side in ("left", "right"))
        for start, end, first, last in zip(starts, ends, firsts, [*firsts[1:], len(picks)][: len(firsts)], strict=True):
            row_entries, row_picks = entries[start:end], picks[first:last]
            entry_by_product[history_places[row_entries]] = (
                row_entries  # one scratch for all: a table of everybody and everything would not fit
            )
            best[row_picks] = self._reverse_pairs.strongest_values(places[row_picks], entry_by_product)
            entry_by_product[history_places[row_entries]] = -1
        return best

    def _substitutes(self, place: int, excluded: Ints, n: int) -> pd.DataFrame:
        candidates = self._exclude(self.similarity.category_members(place, n), excluded)
        scores = self.similarity.similarity_to(
            place, candidates
        ) - similarity.CO_PURCHASE_PENALTY * self._co_purchase_share(place, candidates)
        return self._ranked_frame(place, candidates, scores, n)

    def _upsells(self, place: int, excluded: Ints, n: int) -> pd.DataFrame:
        candidates = self._exclude(self.similarity.category_members(place, n), excluded)
        with np.errstate(invalid="ignore"):
            ratio = self.similarity.prices[candidates] / self.similarity.prices[place]
            candidates = candidates[(ratio >= UPSELL_PRICE_RATIO[0]) & (ratio <= UPSELL_PRICE_RATIO[1])]
        return self._ranked_frame(place, candidates, self.similarity.similarity_to(place, candidates, price=False), n)

    def _complements(self, place: int, excluded: Ints, n: int) -> pd.DataFrame:
        span = slice(self.bounds[place], self.bounds[place + 1])
        own = span.start < span.stop
        proxies = [place] if own else self.similarity.category_bestsellers(place, N_PROXIES).tolist()
        spans = [np.arange(self.bounds[proxy], self.bounds[proxy + 1]) for proxy in proxies]
        entries = np.concatenate([np.empty(0, np.int64), *spans])
        entries = entries[~np.isin(self.others[entries], excluded)]
        # What is of its own kind is bought beside it too, as flavours are; what completes it comes first.
        same_category = self.similarity.is_same_category(place, self.others[entries])
        order = np.lexsort((self.others[entries], -self.strengths[entries], same_category))
        entries = entries[order]
        _, first = np.unique(self.others[entries], return_index=True)
        entries = entries[np.sort(first)][:n]
        return self._to_frame(place, self.others[entries], self.strengths[entries], entries, own)

    def _ranked_frame(self, place: int, candidates: Ints, scores: Floats, n: int) -> pd.DataFrame:
        order = np.lexsort((candidates, -scores))[:n]
        chosen = candidates[order]
        pair_entries = self.bounds[place] + np.arange(self.bounds[place + 1] - self.bounds[place])
        at = pd.Index(self.others[pair_entries]).get_indexer(pd.Index(chosen))
        entries = np.where(at >= 0, self.bounds[place] + at, -1)
        return self._to_frame(place, chosen, scores[order], entries, True)

    def _to_frame(
        self, place: int, chosen: NDArray[Any], scores: NDArray[Any], entries: Ints, own: bool
    ) -> pd.DataFrame:
        together, followed = (
            np.where(entries >= 0, counts[entries] if len(counts) else 0, 0)
            for counts in (self.together, self.followed)
        )
        return pd.DataFrame(
            {
                "product_key": np.full(len(chosen), self.similarity.products[place]),
                "rank": np.arange(1, len(chosen) + 1),
                "other_key": self.similarity.products[chosen],
                "score": np.round(np.asarray(scores, np.float64), 6),
                "together": together.astype(np.int64),
                "followed": followed.astype(np.int64),
                "own": own,
            }
        )

    def _co_purchase_share(self, place: int, candidates: Ints) -> Floats:
        """How much each is in company with the product, from 0 to 1: it was bought beside it, not in its place."""
        span = slice(self.bounds[place], self.bounds[place + 1])
        at = pd.Index(self.others[span]).get_indexer(pd.Index(candidates))
        counts = np.where(at >= 0, self.together[span][at] if span.start < span.stop else 0, 0)
        return np.asarray(counts / (counts + 10.0), np.float64)

    def _exclude(self, candidates: Ints, excluded: Ints) -> Ints:
        return candidates[~np.isin(candidates, excluded)]

    def _positions(self, product_keys: Ints) -> tuple[Ints, Flags]:
        return arrays.find_positions(self.similarity.products, product_keys)

    @cached_property
    def _reverse_pairs(self) -> _ReversePairs:
        """The same pairs from the other side: what each product is bought beside or after, the strongest first."""
        sources = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        order = np.lexsort((sources, -self.strengths, self.others))
        rising = self.others[order].astype(np.int64)
        order = order[arrays.positions_within_rows(rising) < _MAX_REVERSE_PAIRS]
        bounds = np.searchsorted(self.others[order], np.arange(len(self.bounds))).astype(np.int64)
        return _ReversePairs(bounds, sources[order])


#: What sells to everybody goes with everything: its strongest companions are enough.
_MAX_REVERSE_PAIRS = 60


@dataclass(frozen=True)
class _ReversePairs:
    bounds: Ints
    sources: Ints

    def strongest_values(self, places: Ints, values_by_product: Ints) -> Ints:
        """For each product what `at` says of the strongest of its pairs of which it says anything; -1 for none."""
        sizes = self.bounds[places + 1] - self.bounds[places]
        pair_products = np.repeat(np.arange(len(places)), sizes)
        hits = values_by_product[
            self.sources[np.repeat(self.bounds[places], sizes) + arrays.positions_within_rows(pair_products)]
        ]
        hit_positions = np.flatnonzero(hits >= 0)[
            ::-1
        ]  # written last to first: the strongest, which comes first, stays
        best = np.full(len(places), -1)
        best[pair_products[hit_positions]] = hits[hit_positions]
        return best


def _empty_frame() -> pd.DataFrame:
    dtypes = dict.fromkeys(COLUMNS, "int64") | {"score": "float64", "own": "bool"}
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})
