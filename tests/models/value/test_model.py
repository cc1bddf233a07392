"""The value model and its baselines, on a shop where some customers are about to spend far more than before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.base import InsufficientData, MissingFeatures
from models.value import baselines as value_baselines
from models.value import gamma_gamma
from models.value import model as value_model

FIRST = pd.Timestamp("2025-06-01T04:00Z")
H = 30
LEARNERS = [value_baselines.RateValue, value_baselines.BgNbdGammaGamma, value_model.ValueModel]


def shop(customers: int = 800, cutoffs: int = 5, *, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Customers with a rate and a mean spend each, observed every two weeks; those who moved home spend 4 times that.

    Only moved_28d shows who moved. Returns the features, with the expected spend within H days in column `truth`,
    and the actual spend.
    """
    rng = np.random.default_rng(seed)
    rate, mean_spend = rng.gamma(1.5, 1 / 15, customers), rng.gamma(3, 10, customers)
    frames = []
    for number in range(cutoffs):
        T = 200.0 + 14 * number
        x = rng.poisson(rate * T).astype(float)
        t_x = np.where(x > 0, T * rng.beta(np.maximum(x, 1), 1), 0.0)
        has_moved = rng.random(customers) < 0.25
        observed_mean = mean_spend * rng.gamma(4 * (x + 1), 1 / (4 * (x + 1)))
        features = {
            "customer_key": np.arange(customers), "as_of": FIRST + pd.Timedelta(days=14 * number),
            "purchase_days": x + 1, "span_days": t_x, "tenure_days": T + 1, "recency_days": T - t_x + 1,
            "spend_total": observed_mean * (x + 1), "moved_28d": has_moved * 1.0,
            "truth": rate * H * mean_spend * np.where(has_moved, 4.0, 1.0),
        }  # fmt: skip
        frames.append(pd.DataFrame(features))
    frame = pd.concat(frames, ignore_index=True)
    purchases = rng.poisson(frame["truth"] / np.tile(mean_spend, cutoffs))
    mean_basket = np.tile(mean_spend, cutoffs) * rng.gamma(
        4 * np.maximum(purchases, 1), 1 / (4 * np.maximum(purchases, 1))
    )
    return frame, purchases * mean_basket


def training_and_current_rows(**shop_settings: Any) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Features and spend of cutoffs complete by the last cutoff; features and truth of the last cutoff."""
    frame, spent = shop(**shop_settings)
    is_complete = frame["as_of"] + pd.Timedelta(days=H) <= frame["as_of"].max()
    return frame[is_complete].drop(columns="truth"), spent[is_complete], frame[frame["as_of"] == frame["as_of"].max()]


def test_the_value_model_finds_customers_who_are_about_to_spend_more() -> None:
    rows, spent, now = training_and_current_rows(customers=1500)
    features = now.drop(columns="truth")
    predicted = value_model.ValueModel.fit(rows, spent, horizon_days=H).score(features)
    baseline = value_baselines.BgNbdGammaGamma.fit(rows, spent, horizon_days=H).score(features)
    truth, has_moved = now["truth"].to_numpy(), now["moved_28d"].to_numpy() > 0
    assert np.abs(predicted - truth).mean() < 0.7 * np.abs(baseline - truth).mean()
    assert predicted[has_moved].mean() > 2 * predicted[~has_moved].mean()
    assert predicted.sum() == pytest.approx(truth.sum(), rel=0.15)


def test_outcomes_that_are_still_open_are_left_out() -> None:
    frame, spent = shop(customers=300)
    rows = frame.drop(columns="truth")
    is_latest = (rows["as_of"] == rows["as_of"].max()).to_numpy()
    model = value_model.ValueModel.fit(rows, np.where(is_latest, np.nan, spent), horizon_days=H)
    changed_rows = rows.assign(moved_28d=np.where(is_latest, 9.0, rows["moved_28d"]))
    changed = value_model.ValueModel.fit(changed_rows, np.where(is_latest, np.nan, spent), horizon_days=H)
    first, second = (fitted.score(rows) for fitted in (model, changed))  # the total is scaled to the current customers
    np.testing.assert_allclose(first / first.sum(), second / second.sum())


def test_one_wholesaler_does_not_raise_the_predictions_of_all() -> None:
    rows, spent, now = training_and_current_rows(customers=600)
    spent_with_outlier = spent.copy()
    spent_with_outlier[7] = 1e7
    without_outlier, with_outlier = (
        value_model.ValueModel.fit(rows, each, horizon_days=H).score(now) for each in (spent, spent_with_outlier)
    )
    assert with_outlier.sum() < 1.5 * without_outlier.sum()


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_saved_model_gives_the_same_predictions(learner: Any, tmp_path: Path) -> None:
    rows, spent, now = training_and_current_rows(customers=300)
    model = learner.fit(rows, spent, horizon_days=H)
    model.save(tmp_path)
    loaded = learner.load(tmp_path)
    np.testing.assert_array_equal(loaded.score(now), model.score(now))
    assert loaded.population_average() == model.population_average() == pytest.approx(spent.mean())
    assert loaded.horizon_days == H
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".txt"}


@pytest.mark.parametrize("learner", LEARNERS)
def test_expected_spend_is_never_negative(learner: Any) -> None:
    rows, spent, now = training_and_current_rows(customers=300)
    model = learner.fit(rows, spent, horizon_days=H)
    unusual = now.head(4).copy()
    unusual.loc[unusual.index[0], unusual.columns[2:]] = np.nan
    unusual.loc[unusual.index[1], "spend_total"] = -40.0
    unusual.loc[unusual.index[2], ["purchase_days", "tenure_days"]] = [4000.0, 4001.0]
    predicted = model.score(unusual)
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()
    assert len(model.score(now.head(0))) == 0


@pytest.mark.parametrize("learner", [value_baselines.RateValue, value_model.ValueModel])
def test_too_few_buyers_are_counted_in_the_message(learner: Any) -> None:
    frame, spent = shop(customers=20, cutoffs=1)
    with pytest.raises(InsufficientData, match=r"\d+ customers were seen spending over 30 days and 30 are needed"):
        learner.fit(frame, spent, horizon_days=H)


def test_bg_nbd_gamma_gamma_alone_scores_a_shop_with_one_customer() -> None:
    frame, _ = shop(customers=1, cutoffs=1)
    model = value_baselines.BgNbdGammaGamma.fit(frame, np.array([np.nan]), horizon_days=H)
    assert 0 < model.score(frame)[0] < 10 * frame["spend_total"][0]
    assert model.population_average() == pytest.approx(model.score(frame)[0])


def test_a_shop_without_prices_has_a_predicted_value_of_zero() -> None:
    frame, _ = shop(customers=50, cutoffs=1)
    model = value_baselines.BgNbdGammaGamma.fit(frame.assign(spend_total=0.0), np.full(50, np.nan), horizon_days=H)
    assert model.score(frame.assign(spend_total=0.0)) == pytest.approx(np.zeros(50))


def test_the_rate_baseline_is_spend_so_far_a_day_over_the_horizon() -> None:
    rows = pd.DataFrame({"spend_total": [100.0, 50.0], "tenure_days": [200.0, 1.0]})
    assert value_baselines.RateValue(H, 0.0).score(rows) == pytest.approx([100 / 200 * 30, 50 / 28 * 30])


def test_gamma_gamma_recovers_the_distribution_of_its_data() -> None:
    rng = np.random.default_rng(1)
    p, q, gamma, customers = 5.0, 4.0, 60.0, 6000
    scale = rng.gamma(q, 1 / gamma, customers)
    x = rng.integers(1, 12, customers).astype(float)
    mean = rng.gamma(p * x, 1 / (scale * x))
    fitted = gamma_gamma.GammaGamma.fit(x, mean)
    assert fitted.expected_spend([0.0], [0.0])[0] == pytest.approx(p * gamma / (q - 1), rel=0.05)
    assert fitted.expected_spend([10.0], [50.0])[0] == pytest.approx(p * (gamma + 10 * 50) / (p * 10 + q - 1), rel=0.05)


def test_more_purchases_give_the_customers_own_mean_more_weight() -> None:
    spend_model = gamma_gamma.GammaGamma(p=4.0, q=3.0, gamma=30.0)
    population_mean = 4 * 30 / (3 - 1)
    rarely, often = spend_model.expected_spend([1.0, 50.0], [10.0, 10.0])
    assert 10 < often < rarely < population_mean


def test_a_missing_feature_is_refused_by_name() -> None:
    rows, spent, now = training_and_current_rows(customers=300)
    model = value_model.ValueModel.fit(rows, spent, horizon_days=H)
    with pytest.raises(MissingFeatures, match="moved_28d"):
        model.score(now.drop(columns="moved_28d"))


def test_the_elapsed_part_of_a_horizon_is_used_too() -> None:
    """Customers who moved home began to spend more only recently: complete horizons do not show it yet."""
    frame, spent = shop(customers=1200)
    rows, truth = frame.drop(columns="truth"), frame["truth"].to_numpy()
    age = ((rows["as_of"].max() - rows["as_of"]).dt.days).to_numpy()
    has_moved = rows["moved_28d"].to_numpy() > 0
    spent = np.where(has_moved & (age >= H), spent / 4, spent)
    days = np.minimum(age, H).astype(float)
    partial_label = pd.DataFrame({"spent": spent * days / H, "days": days})
    complete_label = pd.DataFrame({"spent": spent, "days": np.where(days >= H, H, 0.0)})
    now = rows[age == 0]
    complete_predictions, partial_predictions = (
        value_model.ValueModel.fit(rows, label, horizon_days=H).score(now) for label in (complete_label, partial_label)
    )
    assert partial_predictions[has_moved[age == 0]].mean() > 1.2 * complete_predictions[has_moved[age == 0]].mean()
    assert truth[age == 0][has_moved[age == 0]].mean() > complete_predictions[has_moved[age == 0]].mean()


def test_a_frame_and_an_array_of_outcomes_give_the_same_model() -> None:
    rows, spent, now = training_and_current_rows(customers=300)
    outcomes = pd.DataFrame({"spent": spent, "days": float(H)})
    for learner in LEARNERS:
        array, frame = (learner.fit(rows, label, horizon_days=H) for label in (spent, outcomes))
        np.testing.assert_array_equal(array.score(now), frame.score(now))


def test_contributions_add_up_to_the_logarithm_of_the_prediction() -> None:
    rows, spent, now = training_and_current_rows(customers=600)
    model = value_model.ValueModel.fit(rows, spent, horizon_days=H)
    parts = model.contributions(now)
    difference = np.log(model.score(now)) - parts.sum(axis=1).to_numpy()
    assert np.ptp(difference) < 1e-6
    has_moved = now["moved_28d"].to_numpy() > 0
    assert parts["moved_28d"][has_moved].mean() > 0.5 > 0 > parts["moved_28d"][~has_moved].mean()


def test_customers_with_one_purchase_each_get_a_prediction() -> None:
    frame, spent = shop(customers=60, cutoffs=3)
    one_purchase_rows = frame.drop(columns="truth").assign(
        purchase_days=1.0, span_days=0.0, tenure_days=5.0, recency_days=5.0, spend_total=12.0, moved_28d=0.0
    )
    predicted = value_model.ValueModel.fit(one_purchase_rows, np.where(spent > 0, 12.0, 0.0), horizon_days=H).score(
        one_purchase_rows
    )
    assert np.isfinite(predicted).all()
    assert predicted.max() < 100
