"""The offer model and its baseline, on a shop whose households redeem by affinity, and some hardly ever redeem."""

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


def shop(households: int = 300, offers_each: int = 40, *, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A campaign of the same number of offers to every household: features, redemptions, and their true probability.

    The probability rises with affinity and rate, and is multiplied by 0.4 for offers of expensive products.
    """
    rng = np.random.default_rng(seed)
    rate = np.repeat(rng.beta(1, 6, households), offers_each)
    affinity = rng.gamma(0.15, 4.0, households * offers_each)
    is_expensive = rng.random(households * offers_each) < 0.5
    truth = np.where(is_expensive, 0.4, 1.0) * expit(-5 + 2.2 * np.log1p(affinity) + 6 * rate)
    frame = pd.DataFrame(
        {
            "customer_key": np.repeat(np.arange(households), offers_each), "as_of": SENT,
            "offer_key": np.tile(np.arange(1, offers_each + 1), households), "affinity_84d": affinity,
            "popularity": 0.01, "price": np.where(is_expensive, 20.0, 2.0), "response_rate": rate,
        }
    )  # fmt: skip
    return frame, (rng.random(len(frame)) < truth).astype(float), truth


def test_the_offer_model_finds_what_affinity_and_rate_do_not_show() -> None:
    frame, redeemed, _ = shop(800)
    model, baseline = (
        learner.fit(frame, redeemed) for learner in (offers_model.OfferModel, offers_baselines.AffinityRate)
    )
    new_frame, _, new_truth = shop(300, seed=9)
    error, baseline_error = (np.abs(fitted.score(new_frame) - new_truth).mean() for fitted in (model, baseline))
    assert error < 0.8 * baseline_error
    assert model.score(new_frame).mean() == pytest.approx(new_truth.mean(), rel=0.15)


def test_more_affinity_never_lowers_the_redemption_probability() -> None:
    frame, redeemed, _ = shop()
    model = offers_model.OfferModel.fit(frame, redeemed)
    rows = frame.head(1).loc[[0] * 50].assign(affinity_84d=np.linspace(0, 40, 50))
    assert (np.diff(model.score(rows)) >= 0).all()
    assert [offers_model.MONOTONE_CONSTRAINTS[name] for name in ("affinity_84d", "last_days", "price")] == [1, -1, 0]


def test_the_key_of_an_offer_is_no_feature() -> None:
    frame, redeemed, _ = shop()
    assert set(offers_model.OfferModel.fit(frame, redeemed).columns) == {
        "affinity_84d",
        "popularity",
        "price",
        "response_rate",
    }


def test_offers_without_an_outcome_yet_are_left_out() -> None:
    frame, redeemed, _ = shop()
    is_late = frame["customer_key"].to_numpy() >= 200
    open_outcomes = np.where(is_late, np.nan, redeemed)
    changed = frame.assign(price=np.where(is_late, 99.0, frame["price"]))
    for learner in LEARNERS:
        first, second = (learner.fit(each, open_outcomes).score(frame) for each in (frame, changed))
        np.testing.assert_array_equal(first, second)


def test_sampled_negatives_are_weighted_to_represent_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers_model, "MAX_NEGATIVES", 100)
    rows, weight = offers_model._sample(np.arange(10), np.arange(10, 510), seed=1)
    assert len(rows) == 10 + 100
    assert weight.sum() == pytest.approx(10 + 500)
    assert weight[rows < 10].tolist() == [1.0] * 10


def test_the_baseline_orders_by_affinity_times_rate() -> None:
    frame, redeemed, _ = shop()
    predicted = offers_baselines.AffinityRate.fit(frame, redeemed).score(frame)
    strength = (frame["affinity_84d"] + 0.01 + offers_model.AFFINITY_FLOOR) * np.maximum(
        frame["response_rate"], offers_model.AFFINITY_FLOOR
    )
    assert (np.argsort(predicted, kind="stable") == np.argsort(strength.to_numpy(), kind="stable")).mean() > 0.99
    assert predicted.mean() == pytest.approx(redeemed.mean(), rel=0.05)


def test_without_redemptions_one_offer_in_a_hundred_is_predicted_to_be_redeemed() -> None:
    frame, _, _ = shop(20)
    model = offers_baselines.AffinityRate.fit(frame, np.full(len(frame), np.nan))
    assert model.population_average() == pytest.approx(0.01)
    empty_model = offers_baselines.AffinityRate.fit(frame.head(0), np.empty(0))
    assert np.isfinite(empty_model.score(frame)).all()


def test_a_few_redemptions_scale_the_baseline_and_are_too_few_for_the_offer_model() -> None:
    frame, _, _ = shop(50)
    redeemed = np.zeros(len(frame))
    redeemed[:20] = 1.0
    assert offers_baselines.AffinityRate.fit(frame, redeemed).slope == 1.0
    assert offers_baselines.AffinityRate.fit(frame, redeemed).population_average() == pytest.approx(
        (20 + 1) / (2000 + 100)
    )
    with pytest.raises(InsufficientData, match="20 offers were redeemed and 1980 passed over; 50 of each"):
        offers_model.OfferModel.fit(frame, redeemed)


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_saved_model_gives_the_same_predictions(learner: Any, tmp_path: Path) -> None:
    frame, redeemed, _ = shop()
    model = learner.fit(frame, redeemed)
    model.save(tmp_path)
    loaded = learner.load(tmp_path)
    np.testing.assert_array_equal(loaded.score(frame), model.score(frame))
    assert loaded.population_average() == model.population_average() == pytest.approx(redeemed.mean(), rel=0.05)


@pytest.mark.parametrize("learner", LEARNERS)
def test_an_unknown_customer_gets_a_probability_between_zero_and_one(learner: Any) -> None:
    frame, redeemed, _ = shop()
    model = learner.fit(frame, redeemed)
    unusual = frame.head(3).copy()
    unusual.loc[0, ["affinity_84d", "popularity", "price", "response_rate"]] = np.nan
    unusual.loc[1, "affinity_84d"] = 1e6
    predicted = model.score(unusual)
    assert ((predicted > 0) & (predicted < 1)).all()
    assert len(model.score(frame.head(0))) == 0
    with pytest.raises(MissingFeatures, match="popularity"):
        model.score(frame.drop(columns="popularity"))


def test_boosting_stops_early_on_validation_rows() -> None:
    rng = np.random.default_rng(0)
    design, noise = rng.normal(size=(800, 3)), rng.random(800)
    rows = boosted_trees.TrainingRows(design, (noise < expit(design[:, 0])).astype(float))
    is_training = np.arange(800) < 400
    params = boosted_trees.lightgbm_params({"num_leaves": 7}, objective="binary", seed=0)
    trees = boosted_trees.fit_with_early_stopping(
        rows.subset(is_training), rows.subset(~is_training), params, max_trees=300, patience=10
    )
    assert 0 < trees.tree_count < 100
    assert trees.contributions(design).shape == (800, 4)
    np.testing.assert_allclose(trees.contributions(design).sum(axis=1), trees.raw_score(design))
    np.testing.assert_allclose(expit(trees.raw_score(design)), trees.score(design))


def test_a_column_that_is_no_feature_changes_nothing() -> None:
    frame, redeemed, _ = shop()
    model = offers_model.OfferModel.fit(frame, redeemed)
    with_extra_column = offers_model.OfferModel.fit(frame.assign(weather=redeemed), redeemed)
    assert with_extra_column.columns == model.columns
    np.testing.assert_array_equal(with_extra_column.score(frame), model.score(frame))
