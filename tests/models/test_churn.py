"""Churn and its baselines, on a shop where some habits break and one feature tells whose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from models import baselines, btyd, churn
from models.base import TooLittle, Unfit

FIRST = pd.Timestamp("2025-06-01T04:00Z")
H = 28
LEARNERS = [baselines.RecencyChurn, baselines.RfmLogistic, baselines.BgNbdChurn, churn.Churn]


def shop(
    customers: int = 500, moments: int = 6, *, seed: int = 0, told: bool = True
) -> tuple[pd.DataFrame, np.ndarray]:
    """Customers with a rate each, seen every two weeks; the annoyed come back five times more rarely than before.

    Whether they are annoyed stands in complaints_28d and in no other feature. Returns the frame, the outcome
    within 28 days as drawn, and in the frame's `truth` the chance that it was drawn with.
    """
    chance = np.random.default_rng(seed)
    rate = chance.gamma(1.5, 1 / 15, customers)
    frames = []
    for number in range(moments):
        T = 200.0 + 14 * number
        x = chance.poisson(rate * T).astype(float)
        t_x = np.where(x > 0, T * chance.beta(np.maximum(x, 1), 1), 0.0)
        annoyed = chance.random(customers) < 0.3
        truth = np.exp(-H * (1.5 + x) / (15 + T) * np.where(annoyed, 0.2, 1.0))
        frames.append(
            pd.DataFrame(
                {
                    "customer_key": np.arange(customers),
                    "as_of": FIRST + pd.Timedelta(days=14 * number),
                    "recency_days": T - t_x + 1,
                    "purchase_days": x + 1,
                    "span_days": t_x,
                    "tenure_days": T + 1,
                    "gap_mean_days": np.where(x > 0, t_x / np.maximum(x, 1), np.nan),
                    "purchase_days_28d": chance.binomial(x.astype(int), H / T).astype(float),
                    "basket_value_mean": chance.gamma(4, 5, customers),
                    "complaints_28d": annoyed * 2.0 if told else chance.random(customers),
                    "truth": truth,
                }
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    return frame, (chance.random(len(frame)) < frame["truth"]).astype(float).to_numpy()


def before_and_now(**world: Any) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame, np.ndarray]:
    """Moments whose outcome is complete by the last one, and the last one."""
    frame, quiet = shop(**world)
    features = frame.drop(columns="truth")
    complete = frame["as_of"] + pd.Timedelta(days=H) <= frame["as_of"].max()
    now = frame["as_of"] == frame["as_of"].max()
    return features[complete], quiet[complete], features[now].reset_index(drop=True), frame.loc[now, "truth"].to_numpy()


def log_loss(truth: np.ndarray, answer: np.ndarray) -> float:
    """The expected log loss of an answer where the chances are known."""
    return float(-(truth * np.log(answer) + (1 - truth) * np.log(1 - answer)).mean())


def test_the_trees_find_what_the_rhythm_cannot_know() -> None:
    rows, quiet, now, truth = before_and_now(customers=1500)
    answer = churn.Churn.fit(rows, quiet, horizon_days=H).score(now)
    rhythm = baselines.BgNbdChurn.fit(rows, quiet, horizon_days=H).score(now)
    limit = log_loss(truth, truth)
    assert log_loss(truth, answer) - limit < 0.25 * (log_loss(truth, rhythm) - limit)
    assert log_loss(truth, answer) - limit < 0.02


def test_where_there_is_nothing_to_find_the_answer_stays_the_rhythms() -> None:
    frame, _ = shop(customers=600, told=False)
    rows = frame.drop(columns="truth")
    past = btyd.history(rows)
    steady = np.exp(-H * (1.5 + past.x) / (15 + past.T))
    quiet = (np.random.default_rng(5).random(len(rows)) < steady).astype(float)
    now = rows[rows["as_of"] == rows["as_of"].max()]
    answer = churn.Churn.fit(rows, quiet, horizon_days=H).score(now)
    rhythm = baselines.BgNbdChurn.fit(rows, quiet, horizon_days=H).score(now)
    active = (now["recency_days"] <= 2 * H).to_numpy()
    assert log_loss(steady[-600:][active], answer[active]) < log_loss(steady[-600:][active], rhythm[active]) + 0.01


def test_a_probability_means_what_it_says() -> None:
    rows, quiet, now, truth = before_and_now(customers=1500)
    answer = churn.Churn.fit(rows, quiet, horizon_days=H).score(now)
    for fifth in np.array_split(np.argsort(answer), 5):
        assert truth[fifth].mean() == pytest.approx(answer[fifth].mean(), abs=0.06)


def test_outcomes_that_overlap_the_latest_moments_never_teach_the_trees_it_judges() -> None:
    frame, quiet = shop(customers=50, moments=6)
    lesson = churn._lesson(frame.drop(columns="truth"), quiet, H)
    before, judge = churn._before_and_latest(lesson, H)
    days = (judge.moment.max() - np.unique(before.moment)) // np.timedelta64(1, "D")
    assert days.tolist() == [5 * 14, 4 * 14, 3 * 14, 2 * 14]
    assert len(np.unique(judge.moment)) == 1


def test_the_future_of_the_frame_does_not_change_the_rhythm_of_a_row() -> None:
    frame, quiet = shop(customers=300)
    early = frame["as_of"] < frame["as_of"].max()
    alone = churn._lesson(frame[early].drop(columns="truth"), quiet[early], H)
    among = churn._lesson(frame.drop(columns="truth"), quiet, H)
    assert among.rows.start[: len(alone.rows.start)] == pytest.approx(alone.rows.start)


def test_outcomes_that_are_not_known_yet_are_left_out() -> None:
    frame, quiet = shop(customers=300)
    rows = frame.drop(columns="truth")
    unknown = quiet.copy()
    latest = (rows["as_of"] == rows["as_of"].max()).to_numpy()
    unknown[latest] = np.nan
    told = churn.Churn.fit(rows, unknown, horizon_days=H)
    swapped = churn.Churn.fit(rows.assign(complaints_28d=np.where(latest, 9.0, rows["complaints_28d"])), unknown)
    assert told.score(rows) == pytest.approx(swapped.score(rows))


def test_a_line_is_drawn_only_where_it_clearly_helps() -> None:
    chance = np.random.default_rng(1)
    odds = chance.normal(-1, 1.5, 3000)
    honest = (chance.random(3000) < expit(odds)).astype(float)
    assert churn._calibrated(odds, honest) == churn.Calibration()
    boastful = churn._calibrated(3 * odds + 1, honest)
    assert boastful.slope == pytest.approx(1 / 3, rel=0.15)
    assert boastful(3 * odds + 1) == pytest.approx(odds, abs=0.4)


def test_reasons_name_what_moves_the_answer_and_speak_for_it() -> None:
    rows, quiet, now, _ = before_and_now(customers=800)
    model, now = churn.Churn.fit(rows, quiet, horizon_days=H), now.head(150)
    annoyed = (now["complaints_28d"] > 0).to_numpy()
    parts = model.contributions(now)
    assert list(parts.columns) == model.columns
    assert parts.loc[annoyed, "complaints_28d"].mean() > 0.3 > 0 > parts.loc[~annoyed, "complaints_28d"].mean()
    for names, (_, row) in zip(model.explain(now), parts.iterrows(), strict=True):
        assert names[0] == row.index[np.argmax(row * np.sign(row.sum()))]
        assert all(row[name] * row.sum() > 0 for name in names)


def test_contributions_add_up_to_the_answer() -> None:
    rows, quiet, now, _ = before_and_now(customers=400)
    model = churn.Churn.fit(rows, quiet, horizon_days=H)
    gap = logit(model.score(now)) - model.contributions(now).sum(axis=1)
    assert gap.to_numpy() == pytest.approx(np.full(len(now), gap.mean()), abs=1e-6)


def test_a_long_silence_and_rare_visits_are_told_apart_by_the_rhythm() -> None:
    model = baselines.BgNbdChurn(btyd.BgNbd(1.0, 10.0, 0.5, 2.0), H, base=0.3)
    frame = pd.DataFrame(
        {"purchase_days": [41.0, 2.0, 41.0], "span_days": [140.0, 190.0, 199.0], "tenure_days": [201.0] * 3}
    )
    assert [names[0] for names in model.explain(frame)] == ["recency_days", "purchase_days", "purchase_days"]
    assert model.score(frame)[0] > 0.5 > 0.3 > model.score(frame)[2]


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_saved_model_gives_the_same_answers(learner: Any, tmp_path: Path) -> None:
    rows, quiet, now, _ = before_and_now(customers=300)
    model = learner.fit(rows, quiet, horizon_days=H)
    model.save(tmp_path)
    again = learner.load(tmp_path)
    assert (again.score(now) == model.score(now)).all()
    assert again.explain(now) == model.explain(now)
    assert again.typical() == model.typical() == pytest.approx(np.nanmean(quiet), abs=0.15)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".txt"}


@pytest.mark.parametrize("learner", LEARNERS)
def test_anybody_can_be_scored_however_little_is_known(learner: Any) -> None:
    rows, quiet, now, _ = before_and_now(customers=300)
    model = learner.fit(rows, quiet, horizon_days=H)
    strange = now.head(4).copy()
    strange.loc[0, strange.columns[2:]] = np.nan
    strange.loc[1, ["recency_days", "tenure_days"]] = 4000.0
    strange.loc[2, ["purchase_days", "gap_mean_days"]] = [4000.0, np.inf]
    answer = model.score(strange)
    assert np.isfinite(answer).all()
    assert ((answer > 0) & (answer < 1)).all()
    assert len(model.explain(strange)) == 4
    assert len(model.score(now.head(0))) == 0


def test_the_same_seed_gives_the_same_trees() -> None:
    rows, quiet, now, _ = before_and_now(customers=300)
    first, second = (churn.Churn.fit(rows, quiet, seed=3, horizon_days=H).score(now) for _ in range(2))
    assert (first == second).all()
    assert (churn.Churn.fit(rows, quiet, seed=4, horizon_days=H).score(now) != first).any()


@pytest.mark.parametrize("learner", [baselines.RecencyChurn, baselines.RfmLogistic, churn.Churn])
def test_thirty_customers_are_too_few_and_the_message_counts_them(learner: Any) -> None:
    frame, quiet = shop(customers=30, moments=1)
    with pytest.raises(TooLittle, match=r"\d+ active customers.* 30 of each are needed"):
        learner.fit(frame.drop(columns="truth"), quiet, horizon_days=H)


def test_the_rhythm_alone_answers_for_a_shop_with_one_customer() -> None:
    frame, _ = shop(customers=1, moments=1)
    model = baselines.BgNbdChurn.fit(frame, np.array([np.nan]), horizon_days=H)
    assert 0 < model.score(frame)[0] < 1
    assert model.typical() == pytest.approx(model.score(frame)[0])


def test_a_frame_without_a_feature_is_refused_by_name() -> None:
    rows, quiet, now, _ = before_and_now(customers=300)
    model = churn.Churn.fit(rows, quiet, horizon_days=H)
    with pytest.raises(Unfit, match="complaints_28d"):
        model.score(now.drop(columns="complaints_28d"))


def test_the_recency_curve_is_the_share_that_stayed_away_and_never_falls() -> None:
    days = np.repeat([5.0, 10.0, 20.0], 100)
    quiet = np.concatenate([np.arange(100) < share for share in (30, 20, 60)]).astype(float)
    model = baselines.RecencyChurn.fit(pd.DataFrame({"recency_days": days}), quiet, horizon_days=H)
    asked = pd.DataFrame({"recency_days": [5.0, 10.0, 20.0, 900.0, np.nan]})
    pooled = (30 + 20) / 200
    assert model.score(asked) == pytest.approx([pooled, pooled, 0.6, 0.6, (30 + 20 + 60) / 300])
    assert isotonic_regression([0.3, 0.2, 0.6]).x.tolist() == model.chance.tolist()


@pytest.mark.parametrize("weights", [(0.5, -1.0), (-2.0, 0.0)])
def test_the_logistic_regression_finds_the_weights_it_was_drawn_from(weights: tuple[float, float]) -> None:
    chance = np.random.default_rng(2)
    term = chance.normal(size=40_000)
    label = (chance.random(40_000) < expit(weights[0] + weights[1] * term)).astype(float)
    assert baselines.logistic(term[:, None], label) == pytest.approx(weights, abs=0.04)


@pytest.mark.parametrize("wrong", [lambda frame: frame.drop(columns="recency_days"), lambda frame: frame[[]]])
def test_learning_without_recency_is_refused(wrong: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame, quiet = shop(customers=50, moments=1)
    with pytest.raises(Unfit, match="recency_days"):
        churn.Churn.fit(wrong(frame), quiet, horizon_days=H)
