"""A ranker in a world whose rule is known, and the ways that stand by where it is no better."""

import numpy as np
import pytest

from models import curves, ranker
from models.figures import Sheet
from models.ranker import Lesson

PAIRS = 4_000


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    """What comes true depends on the first figure alone: with a chance of 0.8 where it is high, else of 0.1."""
    made = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        figures = rng.random((PAIRS, 3)).astype(np.float32)
        made.append(
            Lesson(Sheet(("a", "b", "c"), figures), rng.random(PAIRS) < np.where(figures[:, 0] > 0.7, 0.8, 0.1))
        )
    return made


def test_it_finds_the_rule_and_its_chances_are_how_often_things_come_true(lessons):
    grown = ranker.learn(lessons[:1], seed=0)
    assert grown is not None
    strength = grown.strength(lessons[1].figures)
    chance = curves.learn(strength, lessons[1].came)(strength)
    high = lessons[1].figures.values[:, 0] > 0.7
    assert chance[high].mean() == pytest.approx(0.8, abs=0.03)
    assert chance[~high].mean() == pytest.approx(0.1, abs=0.02)


def test_what_was_passed_over_counts_for_as_many_as_it_stands_for(lessons, monkeypatch):
    monkeypatch.setattr(ranker, "PASSED_OVER", 500)
    grown = ranker.learn(lessons, seed=0)
    chance = grown.curve(grown.strength(lessons[0].figures))
    assert chance.mean() == pytest.approx(lessons[0].came.mean(), abs=0.08)  # unweighted it would be 0.8


def test_too_few_purchases_grow_no_trees(lessons):
    few = Lesson(lessons[0].figures, np.arange(PAIRS) < ranker.FEWEST - 1)
    assert ranker.learn([few], seed=0) is None


def test_what_is_saved_ranks_alike(lessons, tmp_path):
    grown = ranker.learn(lessons, seed=0)
    again = ranker.Ranker.load(tmp_path, "trees", grown.save(tmp_path, "trees"))
    np.testing.assert_array_equal(again.strength(lessons[0].figures), grown.strength(lessons[0].figures))
    assert ranker.Ranker.load(tmp_path, "trees", {}) is None


def test_where_more_may_only_raise_the_answer_it_does(lessons):
    backwards = [Lesson(each.figures, ~each.came) for each in lessons]
    grown = ranker.learn(backwards, seed=0, sense=[1, 0, 0])
    rising = np.column_stack([np.linspace(0, 1, 50), np.full(50, 0.5), np.full(50, 0.5)]).astype(np.float32)
    assert (np.diff(grown.strength(Sheet(("a", "b", "c"), rising))) >= 0).all()
