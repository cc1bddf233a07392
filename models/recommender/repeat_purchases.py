"""List `again`: products that the customer buys again, by boosted trees or, if no worse, by decayed frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from models.arrays import Flags, Floats, Ints
from models.estimators import isotonic_calibration
from models.recommender import candidate_ranking, ranked_lists, ranking_features
from models.recommender.candidate_ranking import CandidateRanker, RankingExamples
from models.recommender.decayed_frequency import DecayedFrequency
from models.recommender.popularity import Bestsellers
from models.recommender.purchase_history import WindowPurchases
from models.recommender.ranked_lists import AGAIN, ProductFilter, RankedProducts
from models.recommender.ranking_features import RankingContext, RankingFeatures

BASELINE, RANKER = "decayed frequency", "ranker"
#: Products of a history, those with the highest decayed weights, that the ranker scores: on Complete Journey the
#: metrics of longer lists differ in the fourth digit.
MAX_CANDIDATES = 100
#: Weight of the baseline's log score beside the ranker's: months differ, and trees are fitted to the last few only. On
#: Complete Journey's earlier windows it costs nothing close to the training months, and gains where half a year lies
#: between.
BASELINE_WEIGHT = 0.3


@dataclass(frozen=True)
class RepeatPurchases:
    """Ranks a customer's own products by the probability that they are bought again within the window.

    `validation_ndcg` is the capped NDCG@10 of each method on the latest labelled window.
    """

    baseline: DecayedFrequency
    ranker: CandidateRanker | None
    validation_ndcg: dict[str, float]

    @property
    def method(self) -> str:
        """The method that serves."""
        return RANKER if self.ranker else BASELINE

    def rank_products(self, context: RankingContext, product_filter: ProductFilter, n: int) -> RankedProducts:
        """Rank the n products that each customer is likeliest to buy again, with the probability of it."""
        if self.ranker is None:
            return self.baseline.rank_repeats(context.history, product_filter, n)
        entries = _candidates(
            context, self.baseline.half_life, max(MAX_CANDIDATES, n), product_filter.is_entry_allowed(context.history)
        )
        scores = _ranking_scores(
            self.ranker,
            ranking_features.own_product_features(context, entries),
            context,
            entries,
            self.baseline.half_life,
        )
        return _top_products(context, entries, scores, n).calibrate(self.ranker.curve)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the ranker's trees, and return everything else as named arrays for the caller to write."""
        return {**self.baseline.arrays(), **(self.ranker.save(folder, "again_trees") if self.ranker else {})}

    @classmethod
    def load(cls, folder: Path, arrays: dict[str, Any], numbers: dict[str, Any]) -> Self:
        """Read what `save` wrote."""
        baseline = DecayedFrequency.from_arrays(arrays, numbers["half_life_days"])
        return cls(baseline, CandidateRanker.load(folder, "again_trees", arrays), numbers["again_tried"])


def fit(
    contexts: Sequence[tuple[RankingContext, WindowPurchases]],
    baseline: DecayedFrequency,
    bestsellers: Bestsellers,
    *,
    seed: int,
    n_earlier: int,
) -> RepeatPurchases:
    """Fit a ranker if one that was fitted to the earlier contexts beats the baseline on the latest labelled window.

    It is validated with trees fitted to the first n_earlier contexts, and then refitted to all. `bestsellers` are
    those before the latest labelled cutoff; the baseline breaks ties by them.
    """
    context, bought = contexts[-1]
    earlier_baseline = DecayedFrequency(bestsellers, baseline.half_life, baseline.curve)
    validation_ndcg = {
        BASELINE: ranked_lists.ndcg(earlier_baseline.rank_repeats(context.history, ProductFilter(), 10), bought)
    }
    examples = [_ranking_examples(*pair, baseline.half_life) for pair in contexts] if n_earlier else []
    monotone_constraints = examples[-1].features.monotone_constraints if examples else []
    early_ranker = (
        candidate_ranking.fit(examples[:n_earlier], seed=seed, monotone_constraints=monotone_constraints)
        if n_earlier
        else None
    )
    if early_ranker is None:
        return RepeatPurchases(baseline, None, validation_ndcg)
    latest = examples[-1]
    entries = _candidates(context, baseline.half_life, MAX_CANDIDATES, np.ones(len(context.history.rows), bool))
    scores = _ranking_scores(early_ranker, latest.features, context, entries, baseline.half_life)
    validation_ndcg[RANKER] = ranked_lists.ndcg(_top_products(context, entries, scores, 10), bought)
    if validation_ndcg[RANKER] <= validation_ndcg[BASELINE]:
        return RepeatPurchases(baseline, None, validation_ndcg)
    curve = isotonic_calibration.fit_isotonic(scores, latest.is_bought)
    return RepeatPurchases(
        baseline,
        candidate_ranking.fit(examples, seed=seed, monotone_constraints=monotone_constraints, curve=curve),
        validation_ndcg,
    )


def _ranking_scores(
    model: CandidateRanker, features: RankingFeatures, context: RankingContext, entries: Ints, half_life: int
) -> Floats:
    return model.raw_scores(features) + BASELINE_WEIGHT * np.log(context.history.weights(half_life)[entries] + 1e-3)


def _ranking_examples(context: RankingContext, bought: WindowPurchases, half_life: int) -> RankingExamples:
    history = context.history
    entries = _candidates(context, half_life, MAX_CANDIDATES, np.ones(len(history.rows), bool))
    is_bought = bought.contains(history.rows[entries], history.products[entries])
    return RankingExamples(ranking_features.own_product_features(context, entries), is_bought)


def _candidates(context: RankingContext, half_life: int, limit: int, is_allowed: Flags) -> Ints:
    """Positions of the entries of each history with the highest decayed weights, in the history's order."""
    history, allowed_entries = context.history, np.flatnonzero(is_allowed)
    weight, products = history.weights(half_life)[allowed_entries], history.products[allowed_entries]
    chosen, _ = ranked_lists.top_n(history.rows[allowed_entries], (weight, -products), limit)
    return np.sort(allowed_entries[chosen])


def _top_products(context: RankingContext, entries: Ints, scores: Floats, n: int) -> RankedProducts:
    rows, products = context.history.rows[entries], context.history.products[entries]
    order, ranks = ranked_lists.top_n(rows, (scores, -products), n)
    return RankedProducts(rows[order], products[order], scores[order], np.full(len(order), AGAIN, np.int8), ranks)
