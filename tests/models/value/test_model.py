"""Value and its baselines, on a shop where some customers are about to spend far more than ever."""

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


def shop(customers: int = 800, moments: int = 5, *, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Customers with a rate and a usual spend each, seen every two weeks; who moved house spends four times as much.

    Whether they moved stands in moved_28d and in no other feature. Returns the frame, whose `truth` is what they
    spend on average, and what they did spend.
    """
    chance = np.random.default_rng(seed)
    rate, usual = chance.gamma(1.5, 1 / 15, customers), chance.gamma(3, 10, customers)
    frames = []
    for number in range(moments):
        T = 200.0 + 14 * number
        x = chance.poisson(rate * T).astype(float)
        t_x = np.where(x > 0, T * chance.beta(np.maximum(x, 1), 1), 0.0)
        moved = chance.random(customers) < 0.25
        mean = usual * chance.gamma(4 * (x + 1), 1 / (4 * (x + 1)))
        figures = {
            "customer_key": np.arange(customers), "as_of": FIRST + pd.Timedelta(days=14 * number),
            "purchase_days": x + 1, "span_days": t_x, "tenure_days": T + 1, "recency_days": T - t_x + 1,
            "spend_total": mean * (x + 1), "moved_28d": moved * 1.0,
            "truth": rate * H * usual * np.where(moved, 4.0, 1.0),
        }  # fmt: skip
        frames.append(pd.DataFrame(figures))
    frame = pd.concat(frames, ignore_index=True)
    visits = chance.poisson(frame["truth"] / np.tile(usual, moments))
    each = np.tile(usual, moments) * chance.gamma(4 * np.maximum(visits, 1), 1 / (4 * np.maximum(visits, 1)))
    return frame, visits * each


def before_and_now(**world: Any) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Moments whose outcome is complete by the last one, and the last one."""
    frame, spent = shop(**world)
    complete = frame["as_of"] + pd.Timedelta(days=H) <= frame["as_of"].max()
    return frame[complete].drop(columns="truth"), spent[complete], frame[frame["as_of"] == frame["as_of"].max()]


def test_the_trees_find_who_is_about_to_spend_more() -> None:
    rows, spent, now = before_and_now(customers=1500)
    figures = now.drop(columns="truth")
    answer = value_model.ValueModel.fit(rows, spent, horizon_days=H).score(figures)
    rhythm = value_baselines.BgNbdGammaGamma.fit(rows, spent, horizon_days=H).score(figures)
    truth, moved = now["truth"].to_numpy(), now["moved_28d"].to_numpy() > 0
    assert np.abs(answer - truth).mean() < 0.7 * np.abs(rhythm - truth).mean()
    assert answer[moved].mean() > 2 * answer[~moved].mean()
    assert answer.sum() == pytest.approx(truth.sum(), rel=0.15)


def test_outcomes_that_are_not_known_yet_teach_nothing() -> None:
    frame, spent = shop(customers=300)
    rows = frame.drop(columns="truth")
    latest = (rows["as_of"] == rows["as_of"].max()).to_numpy()
    told = value_model.ValueModel.fit(rows, np.where(latest, np.nan, spent), horizon_days=H)
    swapped = rows.assign(moved_28d=np.where(latest, 9.0, rows["moved_28d"]))
    other = value_model.ValueModel.fit(swapped, np.where(latest, np.nan, spent), horizon_days=H)
    first, second = (model.score(rows) for model in (told, other))  # the total is that of the customers of today
    np.testing.assert_allclose(first / first.sum(), second / second.sum())


def test_one_wholesaler_does_not_teach_what_everybody_spends() -> None:
    rows, spent, now = before_and_now(customers=600)
    whale = spent.copy()
    whale[7] = 1e7
    calm, shaken = (value_model.ValueModel.fit(rows, each, horizon_days=H).score(now) for each in (spent, whale))
    assert shaken.sum() < 1.5 * calm.sum()


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_saved_model_gives_the_same_answers(learner: Any, tmp_path: Path) -> None:
    rows, spent, now = before_and_now(customers=300)
    model = learner.fit(rows, spent, horizon_days=H)
    model.save(tmp_path)
    again = learner.load(tmp_path)
    np.testing.assert_array_equal(again.score(now), model.score(now))
    assert again.population_average() == model.population_average() == pytest.approx(spent.mean())
    assert again.horizon_days == H
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".txt"}


@pytest.mark.parametrize("learner", LEARNERS)
def test_nobody_is_expected_to_spend_less_than_nothing(learner: Any) -> None:
    rows, spent, now = before_and_now(customers=300)
    model = learner.fit(rows, spent, horizon_days=H)
    strange = now.head(4).copy()
    strange.loc[strange.index[0], strange.columns[2:]] = np.nan
    strange.loc[strange.index[1], "spend_total"] = -40.0
    strange.loc[strange.index[2], ["purchase_days", "tenure_days"]] = [4000.0, 4001.0]
    answer = model.score(strange)
    assert np.isfinite(answer).all()
    assert (answer >= 0).all()
    assert len(model.score(now.head(0))) == 0


@pytest.mark.parametrize("learner", [value_baselines.RateValue, value_model.ValueModel])
def test_too_few_buyers_are_counted_in_the_message(learner: Any) -> None:
    frame, spent = shop(customers=20, moments=1)
    with pytest.raises(InsufficientData, match=r"\d+ customers were seen spending over 30 days and 30 are needed"):
        learner.fit(frame, spent, horizon_days=H)


def test_the_rhythm_alone_answers_for_a_shop_with_one_customer() -> None:
    frame, _ = shop(customers=1, moments=1)
    model = value_baselines.BgNbdGammaGamma.fit(frame, np.array([np.nan]), horizon_days=H)
    assert 0 < model.score(frame)[0] < 10 * frame["spend_total"][0]
    assert model.population_average() == pytest.approx(model.score(frame)[0])


def test_a_shop_without_prices_is_worth_nothing_but_gets_an_answer() -> None:
    frame, _ = shop(customers=50, moments=1)
    model = value_baselines.BgNbdGammaGamma.fit(frame.assign(spend_total=0.0), np.full(50, np.nan), horizon_days=H)
    assert model.score(frame.assign(spend_total=0.0)) == pytest.approx(np.zeros(50))


def test_a_rate_is_what_was_spent_so_far_a_day_over_the_horizon() -> None:
    rows = pd.DataFrame({"spend_total": [100.0, 50.0], "tenure_days": [200.0, 1.0]})
    assert value_baselines.RateValue(H, 0.0).score(rows) == pytest.approx([100 / 200 * 30, 50 / 28 * 30])


def test_gamma_gamma_finds_the_spread_it_was_drawn_from() -> None:
    chance = np.random.default_rng(1)
    p, q, gamma, customers = 5.0, 4.0, 60.0, 6000
    scale = chance.gamma(q, 1 / gamma, customers)
    x = chance.integers(1, 12, customers).astype(float)
    mean = chance.gamma(p * x, 1 / (scale * x))
    found = gamma_gamma.GammaGamma.fit(x, mean)
    assert found.expected_spend([0.0], [0.0])[0] == pytest.approx(p * gamma / (q - 1), rel=0.05)
    assert found.expected_spend([10.0], [50.0])[0] == pytest.approx(p * (gamma + 10 * 50) / (p * 10 + q - 1), rel=0.05)


def test_the_more_purchases_the_more_their_own_mean_counts() -> None:
    worth = gamma_gamma.GammaGamma(p=4.0, q=3.0, gamma=30.0)
    everybody = 4 * 30 / (3 - 1)
    once, often = worth.expected_spend([1.0, 50.0], [10.0, 10.0])
    assert 10 < often < once < everybody


def test_a_frame_without_a_feature_is_refused_by_name() -> None:
    rows, spent, now = before_and_now(customers=300)
    model = value_model.ValueModel.fit(rows, spent, horizon_days=H)
    with pytest.raises(MissingFeatures, match="moved_28d"):
        model.score(now.drop(columns="moved_28d"))


def test_the_part_of_a_horizon_that_is_over_teaches_too() -> None:
    """Who moves house began to spend more only lately: whole horizons do not know it yet."""
    frame, spent = shop(customers=1200)
    rows, truth = frame.drop(columns="truth"), frame["truth"].to_numpy()
    age = ((rows["as_of"].max() - rows["as_of"]).dt.days).to_numpy()
    moved = rows["moved_28d"].to_numpy() > 0
    spent = np.where(moved & (age >= H), spent / 4, spent)
    days = np.minimum(age, H).astype(float)
    part = pd.DataFrame({"spent": spent * days / H, "days": days})
    whole = pd.DataFrame({"spent": spent, "days": np.where(days >= H, H, 0.0)})
    now = rows[age == 0]
    early, late = (value_model.ValueModel.fit(rows, label, horizon_days=H).score(now) for label in (whole, part))
    assert late[moved[age == 0]].mean() > 1.2 * early[moved[age == 0]].mean()
    assert truth[age == 0][moved[age == 0]].mean() > early[moved[age == 0]].mean()


def test_a_frame_of_outcomes_says_what_an_array_of_them_says() -> None:
    rows, spent, now = before_and_now(customers=300)
    told = pd.DataFrame({"spent": spent, "days": float(H)})
    for learner in LEARNERS:
        array, frame = (learner.fit(rows, label, horizon_days=H) for label in (spent, told))
        np.testing.assert_array_equal(array.score(now), frame.score(now))


def test_contributions_add_up_to_the_logarithm_of_the_answer() -> None:
    rows, spent, now = before_and_now(customers=600)
    model = value_model.ValueModel.fit(rows, spent, horizon_days=H)
    parts = model.contributions(now)
    apart = np.log(model.score(now)) - parts.sum(axis=1).to_numpy()
    assert np.ptp(apart) < 1e-6
    moved = now["moved_28d"].to_numpy() > 0
    assert parts["moved_28d"][moved].mean() > 0.5 > 0 > parts["moved_28d"][~moved].mean()


def test_one_purchase_each_on_one_day_gets_an_answer() -> None:
    frame, spent = shop(customers=60, moments=3)
    once = frame.drop(columns="truth").assign(
        purchase_days=1.0, span_days=0.0, tenure_days=5.0, recency_days=5.0, spend_total=12.0, moved_28d=0.0
    )
    answer = value_model.ValueModel.fit(once, np.where(spent > 0, 12.0, 0.0), horizon_days=H).score(once)
    assert np.isfinite(answer).all()
    assert answer.max() < 100
