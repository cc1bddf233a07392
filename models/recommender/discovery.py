"""List `new`: products that the customer has never bought, by collaborative filtering, a ranker, or popularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from models.arrays import Flags
from models.base import InsufficientData
from models.estimators import isotonic_calibration
from models.recommender import candidate_ranking, matrix_factorisation, ranked_lists, ranking_features
from models.recommender.candidate_ranking import CandidateRanker, RankingExamples
from models.recommender.popularity import Bestsellers
from models.recommender.purchase_history import PurchaseHistory, WindowPurchases
from models.recommender.ranked_lists import ProductFilter, RankedProducts
from models.recommender.ranking_features import RankingContext

POPULARITY, COLLABORATIVE_FILTERING, RANKER = "popularity", "collaborative filtering", "ranker"
#: Candidates of each customer that the ranker scores.
MAX_CANDIDATES = 150


@dataclass(frozen=True)
class Discovery:
    """Ranks products that are new to a customer, by the method that was chosen on the latest labelled window.

    `validation_ndcg` is the capped NDCG@10 of each method on that window. `popularity_weight` is the weight of recent
    popularity beside the customer's factors. `curve` maps the collaborative filtering score to the probability of a
    purchase; a ranker has its own curve.
    """

    method: str
    popularity_weight: float
    curve: isotonic_calibration.IsotonicCalibration
    ranker: CandidateRanker | None
    validation_ndcg: dict[str, float]

    def rank_products(self, context: RankingContext, product_filter: ProductFilter, n: int) -> RankedProducts:
        """Rank the n products that each customer is likeliest to buy for the first time, with the probability of it.

        Empty where popularity is the method: the caller fills the list with best sellers.
        """
        if self.method == POPULARITY:
            return ranked_lists.empty_ranking()
        if self.ranker is None:
            return _candidates(context, self.popularity_weight, product_filter, n).calibrate(self.curve)
        candidates = _candidates(context, self.popularity_weight, product_filter, max(MAX_CANDIDATES, n))
        return _top_products(
            candidates, self.ranker.raw_scores(ranking_features.new_product_features(context, candidates)), n
        ).calibrate(self.ranker.curve)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the ranker's trees, and return everything else as named arrays for the caller to write."""
        curve = {"new_strengths": self.curve.strengths, "new_shares": self.curve.shares}
        return {**curve, **(self.ranker.save(folder, "new_trees") if self.ranker else {})}

    @classmethod
    def load(cls, folder: Path, arrays: dict[str, Any], numbers: dict[str, Any]) -> Self:
        """Read what `save` wrote."""
        curve = isotonic_calibration.IsotonicCalibration(arrays["new_strengths"], arrays["new_shares"])
        candidate_ranker = CandidateRanker.load(folder, "new_trees", arrays)
        return cls(numbers["new_by"], numbers["lean"], curve, candidate_ranker, numbers["new_tried"])


def fit(
    contexts: Sequence[tuple[RankingContext, WindowPurchases]],
    bestsellers: Bestsellers,
    *,
    popularity_weights: Sequence[float],
    seed: int,
    n_earlier: int,
) -> Discovery:
    """Choose the simplest of three methods that no other beats on the latest labelled window.

    The ranker is validated with trees fitted to the first n_earlier contexts, and then refitted to all. `bestsellers`
    are those before the latest labelled cutoff. Raises InsufficientData where no customer has a candidate.
    """
    context, bought = contexts[-1][0], _first_purchases(*contexts[-1])
    popularity_weight = _best_popularity_weight(*contexts[max(n_earlier, 1) - 1], popularity_weights)
    candidates = _candidates(context, popularity_weight, ProductFilter(), MAX_CANDIDATES)
    if not len(candidates.rows):
        raise InsufficientData("there is nothing that a customer has not bought yet, so nothing new to recommend")
    list_sizes = np.full(len(context.history), 10)
    validation_ndcg = {
        POPULARITY: ranked_lists.ndcg(bestsellers.fill(context.history, ProductFilter(), list_sizes), bought),
        COLLABORATIVE_FILTERING: ranked_lists.ndcg(candidates, bought),
    }
    curve = isotonic_calibration.fit_isotonic(candidates.scores, bought.contains(candidates.rows, candidates.products))
    simplest = Discovery(
        max(validation_ndcg, key=lambda method: validation_ndcg[method]),
        popularity_weight,
        curve,
        None,
        validation_ndcg,
    )
    examples = (
        [
            *(
                _ranking_examples(*pair, _candidates(pair[0], popularity_weight, ProductFilter(), MAX_CANDIDATES))
                for pair in contexts[:-1]
            ),
            _ranking_examples(*contexts[-1], candidates),
        ]
        if n_earlier
        else []
    )
    early_ranker = candidate_ranking.fit(examples[:n_earlier], seed=seed) if n_earlier else None
    if early_ranker is None:
        return simplest
    scores = early_ranker.raw_scores(examples[-1].features)
    validation_ndcg[RANKER] = ranked_lists.ndcg(_top_products(candidates, scores, 10), bought)
    if validation_ndcg[RANKER] <= validation_ndcg[simplest.method]:
        return simplest
    final_ranker = candidate_ranking.fit(
        examples, seed=seed, curve=isotonic_calibration.fit_isotonic(scores, examples[-1].is_bought)
    )
    return replace(simplest, method=RANKER, ranker=final_ranker)


def _best_popularity_weight(
    context: RankingContext, bought: WindowPurchases, popularity_weights: Sequence[float]
) -> float:
    """The weight with the best lists of ten at this context, which lies before the validation window if one does."""
    first_purchases = _first_purchases(context, bought)
    return max(
        popularity_weights,
        key=lambda popularity_weight: ranked_lists.ndcg(
            _candidates(context, popularity_weight, ProductFilter(), 10), first_purchases
        ),
    )


def _ranking_examples(context: RankingContext, bought: WindowPurchases, candidates: RankedProducts) -> RankingExamples:
    return RankingExamples(
        ranking_features.new_product_features(context, candidates),
        bought.contains(candidates.rows, candidates.products),
    )


def _candidates(
    context: RankingContext, popularity_weight: float, product_filter: ProductFilter, n: int
) -> RankedProducts:
    """The n products with the highest scores that each customer never bought; scores are raw, not yet probabilities."""
    factorisation = context.product_context.factorisation
    return matrix_factorisation.recommend_new(
        factorisation.products,
        factorisation.product_vectors(popularity_weight),
        context.user_factors,
        context.history,
        product_filter,
        n,
    )


def _top_products(candidates: RankedProducts, scores: np.ndarray, n: int) -> RankedProducts:
    order, ranks = ranked_lists.top_n(candidates.rows, (scores, -candidates.products), n)
    return RankedProducts(
        candidates.rows[order], candidates.products[order], scores[order], candidates.sources[order], ranks
    )


def _first_purchases(context: RankingContext, bought: WindowPurchases) -> WindowPurchases:
    """Purchases in the window of products that the customer had never bought before."""
    return bought.subset(~_is_owned(context.history, bought))


def _is_owned(history: PurchaseHistory, bought: WindowPurchases) -> Flags:
    everyone = np.ones(len(history), bool)
    return WindowPurchases(everyone, history.rows, history.products).contains(bought.rows, bought.products)
