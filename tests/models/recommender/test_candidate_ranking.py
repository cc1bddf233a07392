"""A ranker in a world whose rule is known, and the ways that stand by where it is no better."""

import numpy as np
import pytest

from models.estimators import isotonic_calibration
from models.recommender import candidate_ranking
from models.recommender.candidate_ranking import RankingExamples
from models.recommender.ranking_features import RankingFeatures

PAIRS = 4_000


@pytest.fixture(scope="module")
def lessons() -> list[RankingExamples]:
    """What comes true depends on the first figure alone: with a chance of 0.8 where it is high, else of 0.1."""
    made = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        figures = rng.random((PAIRS, 3)).astype(np.float32)
        made.append(
            RankingExamples(
                RankingFeatures(("a", "b", "c"), figures), rng.random(PAIRS) < np.where(figures[:, 0] > 0.7, 0.8, 0.1)
            )
        )
    return made


def test_it_finds_the_rule_and_its_chances_are_how_often_things_come_true(lessons):
    grown = candidate_ranking.fit(lessons[:1], seed=0)
    assert grown is not None
    strength = grown.raw_scores(lessons[1].features)
    chance = isotonic_calibration.fit_isotonic(strength, lessons[1].is_bought)(strength)
    high = lessons[1].features.values[:, 0] > 0.7
    assert chance[high].mean() == pytest.approx(0.8, abs=0.03)
    assert chance[~high].mean() == pytest.approx(0.1, abs=0.02)


def test_what_was_passed_over_counts_for_as_many_as_it_stands_for(lessons, monkeypatch):
    monkeypatch.setattr(candidate_ranking, "MAX_NEGATIVES", 500)
    grown = candidate_ranking.fit(lessons, seed=0)
    chance = grown.curve(grown.raw_scores(lessons[0].features))
    assert chance.mean() == pytest.approx(lessons[0].is_bought.mean(), abs=0.08)  # unweighted it would be 0.8


def test_too_few_purchases_grow_no_trees(lessons):
    few = RankingExamples(lessons[0].features, np.arange(PAIRS) < candidate_ranking.MIN_PURCHASES - 1)
    assert candidate_ranking.fit([few], seed=0) is None


def test_what_is_saved_ranks_alike(lessons, tmp_path):
    grown = candidate_ranking.fit(lessons, seed=0)
    again = candidate_ranking.CandidateRanker.load(tmp_path, "trees", grown.save(tmp_path, "trees"))
    np.testing.assert_array_equal(again.raw_scores(lessons[0].features), grown.raw_scores(lessons[0].features))
    assert candidate_ranking.CandidateRanker.load(tmp_path, "trees", {}) is None


def test_where_more_may_only_raise_the_answer_it_does(lessons):
    backwards = [RankingExamples(each.features, ~each.is_bought) for each in lessons]
    grown = candidate_ranking.fit(backwards, seed=0, monotone_constraints=[1, 0, 0])
    rising = np.column_stack([np.linspace(0, 1, 50), np.full(50, 0.5), np.full(50, 0.5)]).astype(np.float32)
    assert (np.diff(grown.raw_scores(RankingFeatures(("a", "b", "c"), rising))) >= 0).all()
