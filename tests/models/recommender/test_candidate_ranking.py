"""The candidate ranker, on examples drawn from a known rule."""

import numpy as np
import pytest

from models.estimators import isotonic_calibration
from models.recommender import candidate_ranking
from models.recommender.candidate_ranking import RankingExamples
from models.recommender.ranking_features import RankingFeatures

PAIRS = 4_000


@pytest.fixture(scope="module")
def examples() -> list[RankingExamples]:
    """Purchases depend on the first feature only: probability 0.8 where it is high, else 0.1."""
    drawn = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        features = rng.random((PAIRS, 3)).astype(np.float32)
        drawn.append(
            RankingExamples(
                RankingFeatures(("a", "b", "c"), features), rng.random(PAIRS) < np.where(features[:, 0] > 0.7, 0.8, 0.1)
            )
        )
    return drawn


def test_the_ranker_finds_the_rule_and_its_probabilities_are_calibrated(examples):
    ranker = candidate_ranking.fit(examples[:1], seed=0)
    assert ranker is not None
    scores = ranker.raw_scores(examples[1].features)
    probability = isotonic_calibration.fit_isotonic(scores, examples[1].is_bought)(scores)
    is_high = examples[1].features.values[:, 0] > 0.7
    assert probability[is_high].mean() == pytest.approx(0.8, abs=0.03)
    assert probability[~is_high].mean() == pytest.approx(0.1, abs=0.02)


def test_sampled_negatives_are_weighted_to_represent_all(examples, monkeypatch):
    monkeypatch.setattr(candidate_ranking, "MAX_NEGATIVES", 500)
    ranker = candidate_ranking.fit(examples, seed=0)
    probability = ranker.curve(ranker.raw_scores(examples[0].features))
    assert probability.mean() == pytest.approx(examples[0].is_bought.mean(), abs=0.08)  # unweighted it would be 0.8


def test_too_few_purchases_fit_no_ranker(examples):
    too_few = RankingExamples(examples[0].features, np.arange(PAIRS) < candidate_ranking.MIN_PURCHASES - 1)
    assert candidate_ranking.fit([too_few], seed=0) is None


def test_a_saved_ranker_gives_the_same_scores(examples, tmp_path):
    ranker = candidate_ranking.fit(examples, seed=0)
    loaded = candidate_ranking.CandidateRanker.load(tmp_path, "trees", ranker.save(tmp_path, "trees"))
    np.testing.assert_array_equal(loaded.raw_scores(examples[0].features), ranker.raw_scores(examples[0].features))
    assert candidate_ranking.CandidateRanker.load(tmp_path, "trees", {}) is None


def test_a_monotone_constraint_holds(examples):
    inverted = [RankingExamples(each.features, ~each.is_bought) for each in examples]
    ranker = candidate_ranking.fit(inverted, seed=0, monotone_constraints=[1, 0, 0])
    rising = np.column_stack([np.linspace(0, 1, 50), np.full(50, 0.5), np.full(50, 0.5)]).astype(np.float32)
    assert (np.diff(ranker.raw_scores(RankingFeatures(("a", "b", "c"), rising))) >= 0).all()
