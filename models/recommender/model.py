"""The recommender: products that a customer will buy again, and products that are new to the customer.

Two stages: a few candidates for each customer (own products, and collaborative filtering), which boosted trees then
rank by features of customer and product. Scores are probabilities of a purchase within the window, so that one list
can hold both kinds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from models import base
from models.arrays import Floats, Ints, read_arrays, write_arrays
from models.recommender import (
    cold_start,
    decayed_frequency,
    discovery,
    matrix_factorisation,
    popularity,
    product_statistics,
    purchase_history,
    ranked_lists,
    ranking_features,
    repeat_purchases,
)
from models.recommender.decayed_frequency import DecayedFrequency
from models.recommender.discovery import Discovery
from models.recommender.matrix_factorisation import MatrixFactorisation
from models.recommender.product_categories import ProductCategories
from models.recommender.purchase_history import PurchaseHistory
from models.recommender.ranked_lists import ProductFilter, RankedProducts
from models.recommender.ranking_features import ProductContext, RankingContext
from models.recommender.repeat_purchases import RepeatPurchases
from models.related_products.complements import RelatedProducts

#: Weights of recent popularity beside the customer's factors, among which `fit` chooses.
POPULARITY_WEIGHTS = (0.02, 0.05, 0.1, 0.2)
#: The fewest customers who bought in the latest labelled window that the recommender is trained on.
MIN_BUYERS = 50
#: Raised by one whenever the features or their stored form change: saved trees would read the wrong columns.
FORMAT_VERSION = 3


class Recommender:
    """Ranks products for customers: repeat purchases, products that are new to them, and both in one list."""

    def __init__(
        self,
        product_context: ProductContext,
        repeat_purchases: RepeatPurchases,
        discovery: Discovery,
        related_products: RelatedProducts | None = None,
    ) -> None:
        self.product_context = product_context
        self.repeat_purchases = repeat_purchases
        self.discovery = discovery
        self.related_products = related_products

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: Any,
        *,
        seed: int = 0,
        window_days: int = 28,
        factors: int = 48,
        iterations: int = 8,
        threads: int = 1,
        min_buyers: int = MIN_BUYERS,
        popularity_weights: Sequence[float] = POPULARITY_WEIGHTS,
        products: pd.DataFrame | None = None,
        prices: pd.DataFrame | None = None,
        together: pd.DataFrame | None = None,
    ) -> Self:
        """Train on the labelled cutoffs; serve the products as of the frame's latest cutoff.

        frame: a row per customer and cutoff, with columns customer_key, as_of, product_keys, times, last_days,
        first_days and weights_<days>d. label: for each row the products bought in the window after as_of, None where
        not observed. Methods are chosen at the latest labelled cutoff, with products as of that cutoff. products: the
        catalogue, with columns product_key and CATEGORY_LEVELS; with it, prices and together, related products are
        fitted too (see RelatedProducts.fit). Raises InsufficientData where fewer than min_buyers customers bought in
        the latest labelled window.
        """
        past_cutoffs = decayed_frequency.labelled_cutoffs(frame, label, n_cutoffs=3)
        if not past_cutoffs or past_cutoffs[-1].n_buyers < min_buyers:
            raise base.InsufficientData(f"fewer than {min_buyers} customers bought something in a window that is over")
        als_settings = {"seed": seed, "factors": factors, "iterations": iterations, "threads": threads}
        categories = ProductCategories.from_catalogue(products)

        def product_context_at(cutoff: Any) -> ProductContext:
            return _fit_product_context(popularity.rows_at(frame, cutoff), categories, window_days, als_settings)

        latest_cutoff = past_cutoffs[-1].cutoff
        contexts = [
            (product_context_at(labelled.cutoff).ranking_context(_read_history(labelled.frame)), labelled.bought)
            for labelled in past_cutoffs
        ]
        n_earlier = sum(labelled.cutoff <= latest_cutoff - pd.Timedelta(days=window_days) for labelled in past_cutoffs)
        baseline = DecayedFrequency.fit(frame, label, window_days=window_days, min_buyers=0)
        top_sellers = popularity.rank_bestsellers(popularity.rows_at(frame, latest_cutoff), window_days=window_days)
        repeats = repeat_purchases.fit(contexts, baseline, top_sellers, seed=seed, n_earlier=n_earlier)
        discoveries = discovery.fit(
            contexts, top_sellers, popularity_weights=popularity_weights, seed=seed, n_earlier=n_earlier
        )
        latest_context = product_context_at(frame["as_of"].max())
        return cls(
            latest_context,
            repeats,
            discoveries,
            _fit_related_products(latest_context.factorisation, products, prices, together),
        )

    def score(
        self,
        frame: pd.DataFrame,
        n: int = 50,
        lists: Sequence[str] = ranked_lists.LISTS,
        exclude: ranked_lists.Excluded = None,
        only: Collection[int] | None = None,
    ) -> pd.DataFrame:
        """Rank products for every customer: columns customer_key, list, rank (from 1), product_key, score, source.

        List `again` holds products that the customer has bought, `new` the others, `any` both; score is P(purchase
        within the window). `exclude` leaves products out, for all customers or, as a mapping, for each; `only` allows
        no others. A list is shorter than n where there are not enough products.
        """
        ranked_lists.check_lists(lists)
        product_filter = ProductFilter(exclude, only)
        return pd.concat(
            [self._score(part, product_filter, n, lists) for part in purchase_history.customer_batches(frame)],
            ignore_index=True,
        )

    def purchase_probabilities(self, frame: pd.DataFrame, products: Collection[int]) -> Floats:
        """P(each customer of the frame buys at least one of these products within the window): (n,).

        The probability of a new product is capped at the share of all customers who bought it in the last window, if
        it sold at all: far down a long list, collaborative filtering scores are too high, and over a whole category
        that adds up.
        """
        ranked = self.score(frame, lists=("again", "new"), only=products)
        population_shares = self.repeat_purchases.baseline.bestsellers.lookup_shares(
            ranked["product_key"].to_numpy(np.int64)
        )
        is_capped = (ranked["source"] != "again").to_numpy() & (population_shares > 0)
        return ranked_lists.probability_of_any(
            ranked.assign(score=ranked["score"].where(~is_capped, ranked["score"].clip(upper=population_shares))), frame
        )

    def _score(self, frame: pd.DataFrame, product_filter: ProductFilter, n: int, lists: Sequence[str]) -> pd.DataFrame:
        context = self.product_context.ranking_context(_read_history(frame))
        rankings: dict[str, RankedProducts] = {}
        if {"any", "again"} & set(lists):
            rankings["again"] = self.repeat_purchases.rank_products(context, product_filter, n)
        if {"any", "new"} & set(lists):
            rankings["new"] = self._rank_new(context, product_filter, n)
        if "any" in lists:
            rankings["any"] = ranked_lists.merge_lists((rankings["again"], rankings["new"]), n)
        return ranked_lists.to_frame(context.history, {name: rankings[name] for name in lists})

    def _rank_new(self, context: RankingContext, product_filter: ProductFilter, n: int) -> RankedProducts:
        discovered = self.discovery.rank_products(context, product_filter, n)
        missing = n - np.bincount(discovered.rows, minlength=len(context.history))
        fillers = self.repeat_purchases.baseline.bestsellers.fill(
            context.history, product_filter, missing, already_listed=discovered
        )
        return ranked_lists.append_list(discovered, fillers, n)

    def population_average(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: keys, and share of customers who bought each in the last window, (n,) each."""
        return self.repeat_purchases.baseline.population_average(n)

    @property
    def cold_start_products(self) -> Ints:
        """Ascending keys (n,) of new products, which have the mean factors of their category instead of their own."""
        return self.product_context.factorisation.new_products

    @property
    def settings(self) -> dict[str, Any]:
        """Methods and values that `fit` has chosen, with their validation metrics, for the training record."""
        validation_ndcg = {"again": self.repeat_purchases.validation_ndcg, "new": self.discovery.validation_ndcg}
        return {
            **self.repeat_purchases.baseline.settings,
            "again_by": self.repeat_purchases.method,
            "new_by": self.discovery.method,
            **{f"{name}_tried": _format_methods(ndcg_by_method) for name, ndcg_by_method in validation_ndcg.items()},
            "factorised_products": len(self.product_context.factorisation.products),
            "factors": self.product_context.factorisation.factors.shape[1],
            "regularisation": round(self.product_context.factorisation.regularisation, 6),
            "lean": self.discovery.popularity_weight,
        }

    def save(self, folder: Path) -> None:
        """Write arrays.npz, recommender.json and the trees into an existing folder; no data of any customer."""
        pairs = self.related_products.arrays() if self.related_products else {}
        write_arrays(
            folder,
            **self.product_context.arrays(),
            **self.repeat_purchases.save(folder),
            **self.discovery.save(folder),
            **{f"{_RELATED_PREFIX}{name}": array for name, array in pairs.items()},
        )
        numbers = {
            "shape": FORMAT_VERSION,
            "half_life_days": self.repeat_purchases.baseline.half_life,
            "again_tried": self.repeat_purchases.validation_ndcg,
            "new_by": self.discovery.method,
            "new_tried": self.discovery.validation_ndcg,
            "lean": self.discovery.popularity_weight,
        }
        base.write_json(folder / "recommender.json", numbers)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises MissingFeatures where the format is that of another version."""
        stored, numbers = read_arrays(folder), base.read_json(folder / "recommender.json")
        if numbers.get("shape") != FORMAT_VERSION:
            raise base.MissingFeatures("this recommender was saved by another version of regulars; run: regulars run")
        pairs = {
            name.removeprefix(_RELATED_PREFIX): part
            for name, part in stored.items()
            if name.startswith(_RELATED_PREFIX)
        }
        related_products = RelatedProducts.from_arrays(pairs) if pairs else None
        methods = RepeatPurchases.load(folder, stored, numbers), Discovery.load(folder, stored, numbers)
        return cls(ProductContext.from_arrays(stored), *methods, related_products)


_RELATED_PREFIX = "companions_"


def _fit_related_products(
    factorisation: MatrixFactorisation, products: Any, prices: Any, together: Any
) -> RelatedProducts | None:
    if products is None or prices is None or together is None:
        return None
    return RelatedProducts.fit(together, products, prices, (factorisation.products, factorisation.factors))


def _fit_product_context(
    frame: pd.DataFrame, categories: ProductCategories, window_days: int, als_settings: dict[str, Any]
) -> ProductContext:
    history, half_life_days = _read_history(frame), purchase_history.half_lives(frame)
    statistics = product_statistics.compute_statistics(
        history, (half_life_days[0], half_life_days[-1]), window_days=window_days
    )
    factorisation = matrix_factorisation.factorise(frame, window_days=window_days, **als_settings)
    return ProductContext(
        half_life_days,
        statistics,
        categories,
        cold_start.add_new_products(factorisation, history, categories, window_days=window_days),
    )


def _read_history(frame: pd.DataFrame) -> PurchaseHistory:
    return purchase_history.read(frame, ranking_features.history_columns(purchase_history.half_lives(frame)))


def _format_methods(ndcg_by_method: dict[str, float]) -> str:
    return ", ".join(f"{method} {ndcg:.4f}" for method, ndcg in ndcg_by_method.items())
