"""Offers and their baseline, on a shop whose households redeem what they like, and some never redeem at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from models.base import InsufficientData, MissingFeatures
from models.estimators import boosted_trees
from models.offers import baselines as offers_baselines
from models.offers import model as offers_model

SENT = pd.Timestamp("2025-06-01T04:00Z")
LEARNERS = [offers_baselines.AffinityRate, offers_model.OfferModel]


def shop(households: int = 300, each: int = 40, *, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A campaign of so many offers to every household: the frame, what was redeemed, and the chance it was drawn with.

    Chance rises with affinity and rate, and halves for offers of dear products.
    """
    chance = np.random.default_rng(seed)
    rate = np.repeat(chance.beta(1, 6, households), each)
    affinity = chance.gamma(0.15, 4.0, households * each)
    dear = chance.random(households * each) < 0.5
    truth = np.where(dear, 0.4, 1.0) * expit(-5 + 2.2 * np.log1p(affinity) + 6 * rate)
    frame = pd.DataFrame(
        {
            "customer_key": np.repeat(np.arange(households), each), "as_of": SENT,
            "offer_key": np.tile(np.arange(1, each + 1), households), "affinity_84d": affinity,
            "popularity": 0.01, "price": np.where(dear, 20.0, 2.0), "response_rate": rate,
        }
    )  # fmt: skip
    return frame, (chance.random(len(frame)) < truth).astype(float), truth


def test_the_trees_find_what_affinity_and_rate_do_not_say() -> None:
    frame, taken, _ = shop(800)
    model, plain = (learner.fit(frame, taken) for learner in (offers_model.OfferModel, offers_baselines.AffinityRate))
    other, _, fresh = shop(300, seed=9)
    gap, usual = (np.abs(each.score(other) - fresh).mean() for each in (model, plain))
    assert gap < 0.8 * usual
    assert model.score(other).mean() == pytest.approx(fresh.mean(), rel=0.15)


def test_more_affinity_never_makes_an_offer_less_welcome() -> None:
    frame, taken, _ = shop()
    model = offers_model.OfferModel.fit(frame, taken)
    rows = frame.head(1).loc[[0] * 50].assign(affinity_84d=np.linspace(0, 40, 50))
    assert (np.diff(model.score(rows)) >= 0).all()
    assert [offers_model.MONOTONE_CONSTRAINTS[name] for name in ("affinity_84d", "last_days", "price")] == [1, -1, 0]


def test_the_key_of_an_offer_is_no_reason() -> None:
    frame, taken, _ = shop()
    assert set(offers_model.OfferModel.fit(frame, taken).columns) == {
        "affinity_84d",
        "popularity",
        "price",
        "response_rate",
    }


def test_offers_that_nobody_can_judge_yet_are_left_out() -> None:
    frame, taken, _ = shop()
    late = frame["customer_key"].to_numpy() >= 200
    unknown = np.where(late, np.nan, taken)
    swapped = frame.assign(price=np.where(late, 99.0, frame["price"]))
    for learner in LEARNERS:
        first, second = (learner.fit(each, unknown).score(frame) for each in (frame, swapped))
        np.testing.assert_array_equal(first, second)


def test_a_sample_of_the_passed_over_stands_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers_model, "MAX_NEGATIVES", 100)
    rows, weight = offers_model._sample(np.arange(10), np.arange(10, 510), seed=1)
    assert len(rows) == 10 + 100
    assert weight.sum() == pytest.approx(10 + 500)
    assert weight[rows < 10].tolist() == [1.0] * 10


def test_the_baseline_orders_by_affinity_times_rate() -> None:
    frame, taken, _ = shop()
    answer = offers_baselines.AffinityRate.fit(frame, taken).score(frame)
    strength = (frame["affinity_84d"] + 0.01 + offers_model.AFFINITY_FLOOR) * np.maximum(
        frame["response_rate"], offers_model.AFFINITY_FLOOR
    )
    assert (np.argsort(answer, kind="stable") == np.argsort(strength.to_numpy(), kind="stable")).mean() > 0.99
    assert answer.mean() == pytest.approx(taken.mean(), rel=0.05)


def test_without_redemptions_an_offer_in_a_hundred_is_redeemed() -> None:
    frame, _, _ = shop(20)
    model = offers_baselines.AffinityRate.fit(frame, np.full(len(frame), np.nan))
    assert model.population_average() == pytest.approx(0.01)
    nobody = offers_baselines.AffinityRate.fit(frame.head(0), np.empty(0))
    assert np.isfinite(nobody.score(frame)).all()


def test_a_few_redemptions_scale_the_baseline_and_are_too_few_for_trees() -> None:
    frame, _, _ = shop(50)
    taken = np.zeros(len(frame))
    taken[:20] = 1.0
    assert offers_baselines.AffinityRate.fit(frame, taken).slope == 1.0
    assert offers_baselines.AffinityRate.fit(frame, taken).population_average() == pytest.approx(
        (20 + 1) / (2000 + 100)
    )
    with pytest.raises(InsufficientData, match="20 offers were redeemed and 1980 passed over; 50 of each"):
        offers_model.OfferModel.fit(frame, taken)


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_saved_model_gives_the_same_answers(learner: Any, tmp_path: Path) -> None:
    frame, taken, _ = shop()
    model = learner.fit(frame, taken)
    model.save(tmp_path)
    again = learner.load(tmp_path)
    np.testing.assert_array_equal(again.score(frame), model.score(frame))
    assert again.population_average() == model.population_average() == pytest.approx(taken.mean(), rel=0.05)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_stranger_gets_a_chance_between_nothing_and_certainty(learner: Any) -> None:
    frame, taken, _ = shop()
    model = learner.fit(frame, taken)
    strange = frame.head(3).copy()
    strange.loc[0, ["affinity_84d", "popularity", "price", "response_rate"]] = np.nan
    strange.loc[1, "affinity_84d"] = 1e6
    answer = model.score(strange)
    assert ((answer > 0) & (answer < 1)).all()
    assert len(model.score(frame.head(0))) == 0
    with pytest.raises(MissingFeatures, match="popularity"):
        model.score(frame.drop(columns="popularity"))


def test_trees_stop_growing_where_a_judge_says_so() -> None:
    chance = np.random.default_rng(0)
    design, noise = chance.normal(size=(800, 3)), chance.random(800)
    rows = boosted_trees.TrainingRows(design, (noise < expit(design[:, 0])).astype(float))
    half = np.arange(800) < 400
    how = boosted_trees.lightgbm_params({"num_leaves": 7}, objective="binary", seed=0)
    grown = boosted_trees.fit_with_early_stopping(
        rows.subset(half), rows.subset(~half), how, max_trees=300, patience=10
    )
    assert 0 < grown.tree_count < 100
    assert grown.contributions(design).shape == (800, 4)
    np.testing.assert_allclose(grown.contributions(design).sum(axis=1), grown.raw_score(design))
    np.testing.assert_allclose(expit(grown.raw_score(design)), grown.score(design))


def test_what_the_trees_were_not_told_to_look_at_changes_nothing() -> None:
    frame, taken, _ = shop()
    plain = offers_model.OfferModel.fit(frame, taken)
    told = offers_model.OfferModel.fit(frame.assign(weather=taken), taken)
    assert told.columns == plain.columns
    np.testing.assert_array_equal(told.score(frame), plain.score(frame))
