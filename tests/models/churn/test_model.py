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

from models.base import InsufficientData, MissingFeatures
from models.btyd import bg_nbd
from models.churn import baselines as churn_baselines
from models.churn import model as churn_model
from models.churn import person_periods, seasonal_bg_nbd, seasonal_calibration
from models.estimators import logistic_regression
from models.survival import censored_durations
from models.survival import outcomes as survival_outcomes
from models.survival.censored_durations import CensoredDurations

FIRST = pd.Timestamp("2025-06-01T04:00Z")
H = 28
LEARNERS = [
    churn_baselines.RecencyChurn,
    churn_baselines.RfmLogistic,
    churn_baselines.BgNbdChurn,
    seasonal_bg_nbd.SeasonalBgNbdChurn,
    churn_model.ChurnModel,
]


def shop(
    customers: int = 500, moments: int = 6, *, seed: int = 0, told: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Customers with a rate each, seen every two weeks; the annoyed come back five times more rarely than before.

    Whether they are annoyed stands in complaints_28d and in no other feature. Returns the frame, with the chance of
    a quiet month in `truth`, and what became of everybody: the days to the next purchase as drawn with it.
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
    days = np.ceil(chance.exponential(1.0, len(frame)) * H / -np.log(frame["truth"].to_numpy()))
    return frame, pd.DataFrame({"quiet": (days > H) * 1.0, "duration_days": days, "observed": True})


def before_and_now(**world: Any) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Moments whose outcome is complete by the last one, and the last one."""
    frame, fate = shop(**world)
    features = frame.drop(columns="truth")
    complete = frame["as_of"] + pd.Timedelta(days=H) <= frame["as_of"].max()
    now = frame["as_of"] == frame["as_of"].max()
    return features[complete], fate[complete], features[now].reset_index(drop=True), frame.loc[now, "truth"].to_numpy()


def log_loss(truth: np.ndarray, answer: np.ndarray) -> float:
    """The expected log loss of an answer where the chances are known."""
    return float(-(truth * np.log(answer) + (1 - truth) * np.log(1 - answer)).mean())


def test_the_trees_find_what_the_rhythm_cannot_know() -> None:
    rows, quiet, now, truth = before_and_now(customers=1500)
    answer = churn_model.ChurnModel.fit(rows, quiet, horizon_days=H).score(now)
    rhythm = churn_baselines.BgNbdChurn.fit(rows, quiet, horizon_days=H).score(now)
    limit = log_loss(truth, truth)
    assert log_loss(truth, answer) - limit < 0.25 * (log_loss(truth, rhythm) - limit)
    assert log_loss(truth, answer) - limit < 0.02


def test_where_there_is_nothing_to_find_the_answer_stays_the_rhythms() -> None:
    frame, _ = shop(customers=600, told=False)
    rows = frame.drop(columns="truth")
    past = bg_nbd.purchase_summary(rows)
    steady = np.exp(-H * (1.5 + past.x) / (15 + past.T))
    days = np.ceil(np.random.default_rng(5).exponential(1.0, len(rows)) * H / -np.log(steady))
    quiet = pd.DataFrame({"quiet": (days > H) * 1.0, "duration_days": days, "observed": True})
    now = rows[rows["as_of"] == rows["as_of"].max()]
    answer = churn_model.ChurnModel.fit(rows, quiet, horizon_days=H).score(now)
    rhythm = churn_baselines.BgNbdChurn.fit(rows, quiet, horizon_days=H).score(now)
    active = (now["recency_days"] <= 2 * H).to_numpy()
    assert log_loss(steady[-600:][active], answer[active]) < log_loss(steady[-600:][active], rhythm[active]) + 0.01


def test_a_probability_means_what_it_says() -> None:
    rows, quiet, now, truth = before_and_now(customers=1500)
    answer = churn_model.ChurnModel.fit(rows, quiet, horizon_days=H).score(now)
    for fifth in np.array_split(np.argsort(answer), 5):
        assert truth[fifth].mean() == pytest.approx(answer[fifth].mean(), abs=0.06)


def test_trees_that_say_when_to_stop_have_seen_nothing_of_what_came_later() -> None:
    frame, fate = shop(customers=50, moments=6)
    watch = CensoredDurations.from_label(frame, fate, H)
    latest = watch.cutoff.max()
    past = watch.censored_at(latest)
    given = person_periods.PeriodInputs(
        np.zeros((len(frame), 1)), np.zeros((len(frame), 4)), np.zeros(len(frame)), np.zeros((len(frame), 0))
    )
    asked = person_periods.expand_periods(given, past, person_periods.period_edges(H), latest)
    days = (latest - past.cutoff[asked.row]) // np.timedelta64(1, "D")
    assert (person_periods.period_edges(H)[1:][asked.period] <= days).all()
    assert sorted(set(zip(days.tolist(), asked.period.tolist(), strict=True)))[:3] == [(14, 0), (14, 1), (28, 0)]


def test_a_quarter_that_is_not_over_asks_nobody_not_even_who_has_bought() -> None:
    moment = pd.Timestamp("2025-06-01T00:00Z")
    frame = pd.DataFrame({"as_of": [moment - pd.Timedelta(days=10), moment - pd.Timedelta(days=10)]})
    watch = CensoredDurations.from_label(
        frame, pd.DataFrame({"duration_days": [9.0, 10.0], "observed": [True, False]}), H
    )
    given = person_periods.PeriodInputs(np.zeros((2, 1)), np.zeros((2, 4)), np.zeros(2), np.zeros((2, 0)))
    asked = person_periods.expand_periods(
        given, watch, np.array([0, 7, 14, 21, 28]), censored_durations.end_of_follow_up(watch)
    )
    assert asked.row.tolist() == [0, 1]
    assert asked.period.tolist() == [0, 0]
    assert asked.has_purchase.tolist() == [0.0, 0.0]


def test_who_was_watched_for_part_of_the_horizon_teaches_too() -> None:
    frame, fate = shop(customers=300)
    latest = frame["as_of"] == frame["as_of"].max() - pd.Timedelta(days=14)
    seen = fate.assign(
        quiet=fate["quiet"].where(~latest),
        observed=fate["observed"] & (~latest | (fate["duration_days"] <= 14)),
        duration_days=fate["duration_days"].where(~latest, fate["duration_days"].clip(upper=14)),
    )
    early = (frame["as_of"] < frame["as_of"].max()).to_numpy()
    rows, known = frame[early].drop(columns="truth"), seen[early]
    told = churn_model.ChurnModel.fit(rows, known, horizon_days=H).score(rows)
    swapped = rows.assign(complaints_28d=np.where(latest[early], 9.0, rows["complaints_28d"]))
    assert np.abs(churn_model.ChurnModel.fit(swapped, known, horizon_days=H).score(rows) - told).max() > 1e-3


def test_the_future_of_the_frame_does_not_change_the_rhythm_of_a_row() -> None:
    frame, fate = shop(customers=300)
    early = (frame["as_of"] < frame["as_of"].max()).to_numpy()
    quiet = fate["quiet"].to_numpy()
    alone = seasonal_bg_nbd.past_predictions(
        frame[early], quiet[early], H, seasonal_bg_nbd.fit_bgnbd_by_cutoff(frame[early])
    )
    among = seasonal_bg_nbd.past_predictions(frame, quiet, H, seasonal_bg_nbd.fit_bgnbd_by_cutoff(frame))
    assert among.log_odds[: len(alone.log_odds)] == pytest.approx(alone.log_odds)
    assert alone.history_days.min() == 201


def test_outcomes_that_are_not_known_yet_are_left_out() -> None:
    frame, fate = shop(customers=300)
    rows = frame.drop(columns="truth")
    latest = (rows["as_of"] == rows["as_of"].max()).to_numpy()
    unknown = fate.assign(
        quiet=fate["quiet"].where(~latest),
        duration_days=fate["duration_days"].where(~latest, 0.0),
        observed=fate["observed"] & ~latest,
    )
    told = churn_model.ChurnModel.fit(rows, unknown, horizon_days=H)
    odd = rows.assign(basket_value_mean=np.where(latest, 900.0, rows["basket_value_mean"]))
    swapped = churn_model.ChurnModel.fit(odd, unknown, horizon_days=H)
    assert told.period_hazard.no_purchase_log_odds(rows, told.bgnbd) == pytest.approx(
        swapped.period_hazard.no_purchase_log_odds(rows, told.bgnbd)
    )
    assert told.logistic.to_dict() == swapped.logistic.to_dict()


def test_an_outcome_alone_is_a_label_too() -> None:
    rows, fate, now, truth = before_and_now(customers=800)
    answer = churn_model.ChurnModel.fit(rows, fate["quiet"].to_numpy(), horizon_days=H).score(now)
    rhythm = churn_baselines.BgNbdChurn.fit(rows, fate, horizon_days=H).score(now)
    assert log_loss(truth, answer) < log_loss(truth, rhythm)


def test_contributions_name_what_moves_the_answer() -> None:
    rows, quiet, now, _ = before_and_now(customers=800)
    model, now = churn_model.ChurnModel.fit(rows, quiet, horizon_days=H), now.head(150)
    annoyed = (now["complaints_28d"] > 0).to_numpy()
    parts = model.contributions(now)
    assert sorted(parts.columns) == sorted(model.columns)
    assert parts.loc[annoyed, "complaints_28d"].mean() > 0.3 > 0 > parts.loc[~annoyed, "complaints_28d"].mean()


@pytest.mark.parametrize("learner", LEARNERS)
def test_contributions_add_up_to_the_answer(learner: Any) -> None:
    rows, quiet, now, _ = before_and_now(customers=400)
    model = learner.fit(rows, quiet, horizon_days=H)
    gap = logit(model.score(now)) - model.contributions(now).sum(axis=1)
    assert gap.to_numpy() == pytest.approx(np.full(len(now), gap.mean()), abs=1e-6)


@pytest.mark.parametrize("learner", [churn_baselines.RecencyChurn, churn_baselines.RfmLogistic])
def test_the_longer_the_silence_the_more_it_speaks_for_staying_away(learner: Any) -> None:
    rows, quiet, now, _ = before_and_now(customers=400)
    said = learner.fit(rows, quiet, horizon_days=H).contributions(now)["recency_days"]
    assert said.corr(now["recency_days"], method="spearman") > 0.4


def test_a_long_silence_and_rare_visits_are_told_apart_by_the_rhythm() -> None:
    model = churn_baselines.BgNbdChurn(bg_nbd.BgNbd(1.0, 10.0, 0.5, 2.0), H, base=0.3)
    frame = pd.DataFrame(
        {"purchase_days": [41.0, 2.0, 41.0], "span_days": [140.0, 190.0, 199.0], "tenure_days": [201.0] * 3}
    )
    parts = model.contributions(frame)
    assert parts.loc[0].idxmax() == "recency_days"
    assert parts.loc[1].idxmax() == "purchase_days"
    assert parts.loc[2].idxmin() == "purchase_days"
    assert model.score(frame)[0] > 0.5 > 0.3 > model.score(frame)[2]


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_saved_model_gives_the_same_answers(learner: Any, tmp_path: Path) -> None:
    rows, quiet, now, _ = before_and_now(customers=300)
    model = learner.fit(rows, quiet, horizon_days=H)
    model.save(tmp_path)
    again = learner.load(tmp_path)
    assert (again.score(now) == model.score(now)).all()
    pd.testing.assert_frame_equal(again.contributions(now), model.contributions(now))
    assert (
        again.population_average()
        == model.population_average()
        == pytest.approx(np.nanmean(survival_outcomes.read_churned(quiet)), abs=0.15)
    )
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
    assert np.isfinite(model.contributions(strange)).all(axis=None)
    assert len(model.score(now.head(0))) == 0


def test_the_same_seed_gives_the_same_trees() -> None:
    rows, quiet, now, _ = before_and_now(customers=300)
    first, second = (churn_model.ChurnModel.fit(rows, quiet, seed=3, horizon_days=H).score(now) for _ in range(2))
    assert (first == second).all()
    assert (churn_model.ChurnModel.fit(rows, quiet, seed=4, horizon_days=H).score(now) != first).any()


@pytest.mark.parametrize("learner", [churn_baselines.RecencyChurn, churn_baselines.RfmLogistic, churn_model.ChurnModel])
def test_thirty_customers_are_too_few_and_the_message_counts_them(learner: Any) -> None:
    frame, quiet = shop(customers=30, moments=1)
    with pytest.raises(InsufficientData, match=r"\d+ active customers.* 30 of each are needed"):
        learner.fit(frame.drop(columns="truth"), quiet, horizon_days=H)


def test_the_rhythm_alone_answers_for_a_shop_with_one_customer() -> None:
    frame, _ = shop(customers=1, moments=1)
    model = churn_baselines.BgNbdChurn.fit(frame, np.array([np.nan]), horizon_days=H)
    assert 0 < model.score(frame)[0] < 1
    assert model.population_average() == pytest.approx(model.score(frame)[0])


def test_a_frame_without_a_feature_is_refused_by_name() -> None:
    rows, quiet, now, _ = before_and_now(customers=300)
    model = churn_model.ChurnModel.fit(rows, quiet, horizon_days=H)
    with pytest.raises(MissingFeatures, match="complaints_28d"):
        model.score(now.drop(columns="complaints_28d"))


def test_the_recency_curve_is_the_share_that_stayed_away_and_never_falls() -> None:
    days = np.repeat([5.0, 10.0, 20.0], 100)
    quiet = np.concatenate([np.arange(100) < share for share in (30, 20, 60)]).astype(float)
    model = churn_baselines.RecencyChurn.fit(pd.DataFrame({"recency_days": days}), quiet, horizon_days=H)
    asked = pd.DataFrame({"recency_days": [5.0, 10.0, 20.0, 900.0, np.nan]})
    pooled = (30 + 20) / 200
    assert model.score(asked) == pytest.approx([pooled, pooled, 0.6, 0.6, (30 + 20 + 60) / 300])
    assert isotonic_regression([0.3, 0.2, 0.6]).x.tolist() == model.chance.tolist()


@pytest.mark.parametrize("weights", [(0.5, -1.0), (-2.0, 0.0)])
def test_the_logistic_regression_finds_the_weights_it_was_drawn_from(weights: tuple[float, float]) -> None:
    chance = np.random.default_rng(2)
    term = chance.normal(size=40_000)
    label = (chance.random(40_000) < expit(weights[0] + weights[1] * term)).astype(float)
    assert logistic_regression.fit_weights(term[:, None], label) == pytest.approx(weights, abs=0.04)


@pytest.mark.parametrize("wrong", [lambda frame: frame.drop(columns="recency_days"), lambda frame: frame[[]]])
def test_learning_without_recency_is_refused(wrong: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame, quiet = shop(customers=50, moments=1)
    with pytest.raises(MissingFeatures, match="recency_days"):
        churn_model.ChurnModel.fit(wrong(frame), quiet, horizon_days=H)


def two_years(customers: int = 600, *, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Moments of a shop where everybody comes twice as often in every twelfth month; the last is its first day.

    Returns the frame, what was known by the last moment of what became of everybody, and who then came within 28 days.
    """
    days, chance = 364 + 330 + H, np.random.default_rng(seed)
    now = days - H
    busy = np.isin((np.arange(days) - now) % 364, np.arange(H))
    bought = chance.random((customers, days)) < chance.gamma(2.0, 0.012, (customers, 1)) * np.where(busy, 2.5, 1.0)
    bought[:, 0] = True
    frames, fates = [], []
    for day in [*range(120, now - 364, 42), now - 364, *range(now - 322, now, 42), now]:
        seen = bought[:, :day]
        last = day - 1 - np.argmax(seen[:, ::-1], axis=1)
        ahead = np.argmax(np.column_stack([bought[:, day:now], np.ones(customers, bool)]), axis=1) + 1.0
        came = ahead <= now - day
        frames.append(
            pd.DataFrame(
                {
                    "customer_key": np.arange(customers),
                    "as_of": FIRST + pd.Timedelta(days=int(day)),
                    "recency_days": day - last + 0.0,
                    "purchase_days": seen.sum(axis=1) + 0.0,
                    "span_days": last + 0.0,
                    "tenure_days": float(day),
                    "purchase_days_28d": seen[:, -H:].sum(axis=1) + 0.0,
                }
            )
        )
        quiet = np.where(day + H <= now, (ahead > H) * 1.0, np.nan)
        fates.append(
            pd.DataFrame({"quiet": quiet, "duration_days": np.where(came, ahead, now - day), "observed": came})
        )
    return pd.concat(frames, ignore_index=True), pd.concat(fates, ignore_index=True), bought[:, now:].any(axis=1)


def test_before_christmas_as_many_come_as_last_year_and_not_as_in_autumn() -> None:
    frame, fate, came = two_years()
    now = frame[frame["as_of"] == frame["as_of"].max()]
    active = (now["recency_days"] <= 2 * H).to_numpy()
    rate = (~came[active]).mean()
    model = churn_model.ChurnModel.fit(frame, fate, horizon_days=H)
    rhythm = churn_baselines.BgNbdChurn.fit(frame, fate, horizon_days=H)
    put_right = seasonal_bg_nbd.SeasonalBgNbdChurn.fit(frame, fate, horizon_days=H)
    assert model.season.source == seasonal_calibration.A_YEAR_AGO
    assert rhythm.score(now)[active].mean() > rate + 0.08
    for seasonal in (model, put_right):
        assert seasonal.score(now)[active].mean() == pytest.approx(rate, abs=0.04)
