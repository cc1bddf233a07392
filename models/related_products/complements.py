"""Related products: substitutes, complements, and up-sells (dearer products of the same category)."""

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
#: Products that share visits hardly more often than by chance go with everything, as bananas do.
MIN_LIFT = 1.5
#: An up-sell's price against the product's: beyond this, customers would not take it instead.
UPSELL_PRICE_RATIO = (1.1, 2.5)
#: Best sellers of the category whose pairs stand in for those of a product without any.
N_PROXIES = 3
COLUMNS = ("product_key", "rank", "other_key", "score", "together", "followed", "own")


@dataclass(frozen=True)
class RelatedProducts:
    """Pairs of products as positions in similarity.products: those of position i are bounds[i] to bounds[i + 1].

    For each pair (n_pairs,), the strongest of a product first: `others`, the position of the other product;
    `strengths`; and how many customers bought both on one visit (`together`), or the other for the first time on the
    next visit (`followed`). No data of any customer is stored.
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
        """Combine co-purchase pairs of at least min_lift with the similarity of products.

        together: columns product_key, other_key, together, visits, followed, lift, strength, as
        `features.products.co_purchases.count_co_purchases` returns them. products: columns product_key, category,
        subcategory, brand. prices: columns product_key, price, sold, one row per product. factors: ascending product
        keys (n,) and their factors (n, n_factors).
        """
        pairs = together[(together["lift"] >= min_lift) | (together["visits"] == 0)]
        paired_products = np.unique(
            np.concatenate([pairs[name].to_numpy(np.int64) for name in ("product_key", "other_key")])
        )
        product_similarity = similarity.fit(products, prices, factors, paired_products)
        pairs = pairs.sort_values(["product_key", "strength", "other_key"], ascending=[True, False, True])
        positions, _ = arrays.find_positions(product_similarity.products, pairs["product_key"].to_numpy(np.int64))
        others, _ = arrays.find_positions(product_similarity.products, pairs["other_key"].to_numpy(np.int64))
        return cls(
            product_similarity,
            np.searchsorted(positions, np.arange(len(product_similarity.products) + 1)).astype(np.int64),
            others.astype(np.int32),
            pairs["strength"].to_numpy(np.float32),
            pairs["together"].to_numpy(np.int32),
            pairs["followed"].to_numpy(np.int32),
        )

    def arrays(self) -> dict[str, Any]:
        """Everything that is saved, as named arrays."""
        pairs = {name: getattr(self, name) for name in ("bounds", "others", "strengths", "together", "followed")}
        return {**pairs, **self.similarity.arrays()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Rebuild the model from what `arrays` returned."""
        pairs = (arrays[name] for name in ("bounds", "others", "strengths", "together", "followed"))
        return cls(ProductSimilarity.from_arrays(arrays), *pairs)

    def find_related(
        self, product_keys: Sequence[int], n: int = 10, relation: str = "similar", exclude: Collection[int] = ()
    ) -> pd.DataFrame:
        """Find at most n related products of each product.

        Returns columns product_key, rank (from 1), other_key, score, together, followed and own. Relation "similar"
        finds substitutes, "together" complements, "upsell" dearer products of the category. Scores compare within one
        list only. `together` and `followed` count customers of the pair. `own` is False where the product has no pairs
        of its own and gets those of its category's best sellers. Products in `exclude` are never returned; unknown
        products have no rows. Raises ValueError for an unknown relation.
        """
        if relation not in RELATIONS:
            raise ValueError(f"relation must be one of {', '.join(RELATIONS)}; got {relation!r}")
        excluded, _ = self._positions(np.fromiter(exclude, np.int64, len(exclude)))
        requested = np.asarray(list(dict.fromkeys(product_keys)), np.int64)
        positions, is_covered = self._positions(requested)
        rank = {"similar": self._substitutes, "together": self._complements, "upsell": self._upsells}[relation]
        frames = [rank(int(position), np.union1d(excluded, position), n) for position in positions[is_covered]]
        return pd.concat([_empty_frame(), *frames], ignore_index=True)

    def top_sellers(self, product_keys: Ints, n: int) -> Ints:
        """Keys of the n of these products (n_products,) that sell best, best first."""
        positions, is_covered = self._positions(product_keys)
        positions = positions[is_covered]
        return self.similarity.products[positions[np.argsort(-self.similarity.sold[positions], kind="stable")[:n]]]

    def lookup_prices(self, product_keys: Ints) -> Floats:
        """The price of each product, NaN where it is unknown: (n,)."""
        positions, is_covered = self._positions(product_keys)
        prices = np.full(len(product_keys), np.nan)
        prices[is_covered] = self.similarity.prices[positions[is_covered]]
        return prices

    def supporting_entries(self, rows: Ints, products: Ints, history_rows: Ints, history_products: Ints) -> Ints:
        """For each pair of a row and a product, the row's history entry that supports the product best; -1 for none.

        rows and products are (n_pairs,); history_rows and history_products (n_entries,), each pair once. Returns
        positions of entries, (n_pairs,).
        """
        positions, is_covered = self._positions(products)
        history_positions, is_history_covered = self._positions(history_products)
        pairs, entries = np.flatnonzero(is_covered), np.flatnonzero(is_history_covered)
        pairs, entries = (
            each[np.argsort(row_numbers[each], kind="stable")]
            for each, row_numbers in ((pairs, rows), (entries, history_rows))
        )
        best, entry_by_product = np.full(len(rows), -1), np.full(len(self.similarity.products), -1)
        requested_rows, first_pairs = np.unique(rows[pairs], return_index=True)
        starts, ends = (np.searchsorted(history_rows[entries], requested_rows, side=side) for side in ("left", "right"))
        for start, end, first, last in zip(
            starts, ends, first_pairs, [*first_pairs[1:], len(pairs)][: len(first_pairs)], strict=True
        ):
            row_entries, row_pairs = entries[start:end], pairs[first:last]
            # One scratch array for all rows: a table of rows x products would not fit into memory.
            entry_by_product[history_positions[row_entries]] = row_entries
            best[row_pairs] = self._reverse_pairs.strongest_values(positions[row_pairs], entry_by_product)
            entry_by_product[history_positions[row_entries]] = -1
        return best

    def _substitutes(self, position: int, excluded: Ints, n: int) -> pd.DataFrame:
        candidates = self._exclude(self.similarity.category_members(position, n), excluded)
        scores = self.similarity.similarity_to(
            position, candidates
        ) - similarity.CO_PURCHASE_PENALTY * self._co_purchase_share(position, candidates)
        return self._ranked_frame(position, candidates, scores, n)

    def _upsells(self, position: int, excluded: Ints, n: int) -> pd.DataFrame:
        candidates = self._exclude(self.similarity.category_members(position, n), excluded)
        with np.errstate(invalid="ignore"):
            ratio = self.similarity.prices[candidates] / self.similarity.prices[position]
            candidates = candidates[(ratio >= UPSELL_PRICE_RATIO[0]) & (ratio <= UPSELL_PRICE_RATIO[1])]
        return self._ranked_frame(
            position, candidates, self.similarity.similarity_to(position, candidates, price=False), n
        )

    def _complements(self, position: int, excluded: Ints, n: int) -> pd.DataFrame:
        span = slice(self.bounds[position], self.bounds[position + 1])
        own = span.start < span.stop
        proxies = [position] if own else self.similarity.category_bestsellers(position, N_PROXIES).tolist()
        spans = [np.arange(self.bounds[proxy], self.bounds[proxy + 1]) for proxy in proxies]
        entries = np.concatenate([np.empty(0, np.int64), *spans])
        entries = entries[~np.isin(self.others[entries], excluded)]
        # Products of its own category are bought with it too (flavours); those that complete it come first.
        same_category = self.similarity.is_same_category(position, self.others[entries])
        order = np.lexsort((self.others[entries], -self.strengths[entries], same_category))
        entries = entries[order]
        _, first = np.unique(self.others[entries], return_index=True)
        entries = entries[np.sort(first)][:n]
        return self._to_frame(position, self.others[entries], self.strengths[entries], entries, own)

    def _ranked_frame(self, position: int, candidates: Ints, scores: Floats, n: int) -> pd.DataFrame:
        order = np.lexsort((candidates, -scores))[:n]
        chosen = candidates[order]
        pair_entries = self.bounds[position] + np.arange(self.bounds[position + 1] - self.bounds[position])
        pair_offsets = pd.Index(self.others[pair_entries]).get_indexer(pd.Index(chosen))
        entries = np.where(pair_offsets >= 0, self.bounds[position] + pair_offsets, -1)
        return self._to_frame(position, chosen, scores[order], entries, True)

    def _to_frame(
        self, position: int, chosen: NDArray[Any], scores: NDArray[Any], entries: Ints, own: bool
    ) -> pd.DataFrame:
        together, followed = (
            np.where(entries >= 0, counts[entries] if len(counts) else 0, 0)
            for counts in (self.together, self.followed)
        )
        return pd.DataFrame(
            {
                "product_key": np.full(len(chosen), self.similarity.products[position]),
                "rank": np.arange(1, len(chosen) + 1),
                "other_key": self.similarity.products[chosen],
                "score": np.round(np.asarray(scores, np.float64), 6),
                "together": together.astype(np.int64),
                "followed": followed.astype(np.int64),
                "own": own,
            }
        )

    def _co_purchase_share(self, position: int, candidates: Ints) -> Floats:
        """How much each is bought with the product, not in its place: 0 to 1, n / (n + 10) for n customers of both."""
        span = slice(self.bounds[position], self.bounds[position + 1])
        pair_offsets = pd.Index(self.others[span]).get_indexer(pd.Index(candidates))
        counts = np.where(pair_offsets >= 0, self.together[span][pair_offsets] if span.start < span.stop else 0, 0)
        return np.asarray(counts / (counts + 10.0), np.float64)

    def _exclude(self, candidates: Ints, excluded: Ints) -> Ints:
        return candidates[~np.isin(candidates, excluded)]

    def _positions(self, product_keys: Ints) -> tuple[Ints, Flags]:
        return arrays.find_positions(self.similarity.products, product_keys)

    @cached_property
    def _reverse_pairs(self) -> _ReversePairs:
        """The same pairs by the other product: what each is bought with or after, the strongest first."""
        sources = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        order = np.lexsort((sources, -self.strengths, self.others))
        rising = self.others[order].astype(np.int64)
        order = order[arrays.positions_within_rows(rising) < _MAX_REVERSE_PAIRS]
        bounds = np.searchsorted(self.others[order], np.arange(len(self.bounds))).astype(np.int64)
        return _ReversePairs(bounds, sources[order])


#: A product that sells to everyone is paired with everything: its strongest pairs are enough.
_MAX_REVERSE_PAIRS = 60


@dataclass(frozen=True)
class _ReversePairs:
    bounds: Ints
    sources: Ints

    def strongest_values(self, positions: Ints, values_by_product: Ints) -> Ints:
        """For each product, the value of its strongest pair that has one in values_by_product (not -1); -1 for none."""
        sizes = self.bounds[positions + 1] - self.bounds[positions]
        pair_products = np.repeat(np.arange(len(positions)), sizes)
        hits = values_by_product[
            self.sources[np.repeat(self.bounds[positions], sizes) + arrays.positions_within_rows(pair_products)]
        ]
        # Written last to first, so that the strongest pair, which comes first, remains.
        hit_positions = np.flatnonzero(hits >= 0)[::-1]
        best = np.full(len(positions), -1)
        best[pair_products[hit_positions]] = hits[hit_positions]
        return best


def _empty_frame() -> pd.DataFrame:
    dtypes = dict.fromkeys(COLUMNS, "int64") | {"score": "float64", "own": "bool"}
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})
