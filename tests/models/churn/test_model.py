"""The churn model and its baselines, on a shop where some purchase rates fall and one feature shows whose."""

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
    customers: int = 500, cutoffs: int = 6, *, seed: int = 0, is_informative: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Customers with a rate each, observed every two weeks; annoyed customers then buy at a fifth of their rate.

    Only complaints_28d shows who is annoyed. Returns the features, with P(no purchase within H days) in column
    `truth`, and the outcomes: the days to the next purchase, drawn with that probability.
    """
    rng = np.random.default_rng(seed)
    rate = rng.gamma(1.5, 1 / 15, customers)
    frames = []
    for number in range(cutoffs):
        T = 200.0 + 14 * number
        x = rng.poisson(rate * T).astype(float)
        t_x = np.where(x > 0, T * rng.beta(np.maximum(x, 1), 1), 0.0)
        annoyed = rng.random(customers) < 0.3
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
                    "purchase_days_28d": rng.binomial(x.astype(int), H / T).astype(float),
                    "basket_value_mean": rng.gamma(4, 5, customers),
                    "complaints_28d": annoyed * 2.0 if is_informative else rng.random(customers),
                    "truth": truth,
                }
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    days = np.ceil(rng.exponential(1.0, len(frame)) * H / -np.log(frame["truth"].to_numpy()))
    return frame, pd.DataFrame({"churned": (days > H) * 1.0, "duration_days": days, "observed": True})


def training_and_current_rows(**shop_settings: Any) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Features and outcomes of cutoffs complete by the last cutoff; features and truth of the last cutoff."""
    frame, outcomes = shop(**shop_settings)
    features = frame.drop(columns="truth")
    is_complete = frame["as_of"] + pd.Timedelta(days=H) <= frame["as_of"].max()
    is_last = frame["as_of"] == frame["as_of"].max()
    return (
        features[is_complete],
        outcomes[is_complete],
        features[is_last].reset_index(drop=True),
        frame.loc[is_last, "truth"].to_numpy(),
    )


def log_loss(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The expected log loss of predictions where the true probabilities are known."""
    return float(-(truth * np.log(predicted) + (1 - truth) * np.log(1 - predicted)).mean())


def test_the_churn_model_finds_what_bg_nbd_cannot() -> None:
    rows, outcomes, now, truth = training_and_current_rows(customers=1500)
    predicted = churn_model.ChurnModel.fit(rows, outcomes, horizon_days=H).score(now)
    bgnbd = churn_baselines.BgNbdChurn.fit(rows, outcomes, horizon_days=H).score(now)
    limit = log_loss(truth, truth)
    assert log_loss(truth, predicted) - limit < 0.25 * (log_loss(truth, bgnbd) - limit)
    assert log_loss(truth, predicted) - limit < 0.02


def test_without_signal_in_the_features_the_churn_model_is_as_good_as_bg_nbd() -> None:
    frame, _ = shop(customers=600, is_informative=False)
    rows = frame.drop(columns="truth")
    past = bg_nbd.purchase_summary(rows)
    truth = np.exp(-H * (1.5 + past.x) / (15 + past.T))
    days = np.ceil(np.random.default_rng(5).exponential(1.0, len(rows)) * H / -np.log(truth))
    outcomes = pd.DataFrame({"churned": (days > H) * 1.0, "duration_days": days, "observed": True})
    now = rows[rows["as_of"] == rows["as_of"].max()]
    predicted = churn_model.ChurnModel.fit(rows, outcomes, horizon_days=H).score(now)
    bgnbd = churn_baselines.BgNbdChurn.fit(rows, outcomes, horizon_days=H).score(now)
    is_active = (now["recency_days"] <= 2 * H).to_numpy()
    assert (
        log_loss(truth[-600:][is_active], predicted[is_active])
        < log_loss(truth[-600:][is_active], bgnbd[is_active]) + 0.01
    )


def test_churn_probabilities_are_calibrated() -> None:
    rows, outcomes, now, truth = training_and_current_rows(customers=1500)
    predicted = churn_model.ChurnModel.fit(rows, outcomes, horizon_days=H).score(now)
    for fifth in np.array_split(np.argsort(predicted), 5):
        assert truth[fifth].mean() == pytest.approx(predicted[fifth].mean(), abs=0.06)


def test_person_periods_for_early_stopping_hold_nothing_after_their_cutoff() -> None:
    frame, outcomes = shop(customers=50, cutoffs=6)
    durations = CensoredDurations.from_label(frame, outcomes, H)
    latest = durations.cutoff.max()
    past = durations.censored_at(latest)
    inputs = person_periods.PeriodInputs(
        np.zeros((len(frame), 1)), np.zeros((len(frame), 4)), np.zeros(len(frame)), np.zeros((len(frame), 0))
    )
    periods = person_periods.expand_periods(inputs, past, person_periods.period_edges(H), latest)
    days = (latest - past.cutoff[periods.row]) // np.timedelta64(1, "D")
    assert (person_periods.period_edges(H)[1:][periods.period] <= days).all()
    assert sorted(set(zip(days.tolist(), periods.period.tolist(), strict=True)))[:3] == [(14, 0), (14, 1), (28, 0)]


def test_a_period_that_is_not_over_has_no_rows_even_for_a_buyer() -> None:
    now = pd.Timestamp("2025-06-01T00:00Z")
    frame = pd.DataFrame({"as_of": [now - pd.Timedelta(days=10), now - pd.Timedelta(days=10)]})
    durations = CensoredDurations.from_label(
        frame, pd.DataFrame({"duration_days": [9.0, 10.0], "observed": [True, False]}), H
    )
    inputs = person_periods.PeriodInputs(np.zeros((2, 1)), np.zeros((2, 4)), np.zeros(2), np.zeros((2, 0)))
    periods = person_periods.expand_periods(
        inputs, durations, np.array([0, 7, 14, 21, 28]), censored_durations.end_of_follow_up(durations)
    )
    assert periods.row.tolist() == [0, 1]
    assert periods.period.tolist() == [0, 0]
    assert periods.has_purchase.tolist() == [0.0, 0.0]


def test_customers_followed_for_part_of_the_horizon_are_used_too() -> None:
    frame, outcomes = shop(customers=300)
    is_latest = frame["as_of"] == frame["as_of"].max() - pd.Timedelta(days=14)
    followed = outcomes.assign(
        churned=outcomes["churned"].where(~is_latest),
        observed=outcomes["observed"] & (~is_latest | (outcomes["duration_days"] <= 14)),
        duration_days=outcomes["duration_days"].where(~is_latest, outcomes["duration_days"].clip(upper=14)),
    )
    is_early = (frame["as_of"] < frame["as_of"].max()).to_numpy()
    rows, early_outcomes = frame[is_early].drop(columns="truth"), followed[is_early]
    predicted = churn_model.ChurnModel.fit(rows, early_outcomes, horizon_days=H).score(rows)
    swapped = rows.assign(complaints_28d=np.where(is_latest[is_early], 9.0, rows["complaints_28d"]))
    assert (
        np.abs(churn_model.ChurnModel.fit(swapped, early_outcomes, horizon_days=H).score(rows) - predicted).max() > 1e-3
    )


def test_later_rows_do_not_change_the_bg_nbd_predictions_of_earlier_ones() -> None:
    frame, outcomes = shop(customers=300)
    is_early = (frame["as_of"] < frame["as_of"].max()).to_numpy()
    churned = outcomes["churned"].to_numpy()
    alone = seasonal_bg_nbd.past_predictions(
        frame[is_early], churned[is_early], H, seasonal_bg_nbd.fit_bgnbd_by_cutoff(frame[is_early])
    )
    together = seasonal_bg_nbd.past_predictions(frame, churned, H, seasonal_bg_nbd.fit_bgnbd_by_cutoff(frame))
    assert together.log_odds[: len(alone.log_odds)] == pytest.approx(alone.log_odds)
    assert alone.history_days.min() == 201


def test_outcomes_that_are_still_open_are_left_out() -> None:
    frame, outcomes = shop(customers=300)
    rows = frame.drop(columns="truth")
    is_latest = (rows["as_of"] == rows["as_of"].max()).to_numpy()
    open_outcomes = outcomes.assign(
        churned=outcomes["churned"].where(~is_latest),
        duration_days=outcomes["duration_days"].where(~is_latest, 0.0),
        observed=outcomes["observed"] & ~is_latest,
    )
    model = churn_model.ChurnModel.fit(rows, open_outcomes, horizon_days=H)
    changed_rows = rows.assign(basket_value_mean=np.where(is_latest, 900.0, rows["basket_value_mean"]))
    changed = churn_model.ChurnModel.fit(changed_rows, open_outcomes, horizon_days=H)
    assert model.period_hazard.no_purchase_log_odds(rows, model.bgnbd) == pytest.approx(
        changed.period_hazard.no_purchase_log_odds(rows, model.bgnbd)
    )
    assert model.logistic.to_dict() == changed.logistic.to_dict()


def test_an_array_of_churned_flags_is_a_label_too() -> None:
    rows, outcomes, now, truth = training_and_current_rows(customers=800)
    predicted = churn_model.ChurnModel.fit(rows, outcomes["churned"].to_numpy(), horizon_days=H).score(now)
    bgnbd = churn_baselines.BgNbdChurn.fit(rows, outcomes, horizon_days=H).score(now)
    assert log_loss(truth, predicted) < log_loss(truth, bgnbd)


def test_contributions_name_the_feature_that_moves_the_prediction() -> None:
    rows, outcomes, now, _ = training_and_current_rows(customers=800)
    model, now = churn_model.ChurnModel.fit(rows, outcomes, horizon_days=H), now.head(150)
    is_annoyed = (now["complaints_28d"] > 0).to_numpy()
    parts = model.contributions(now)
    assert sorted(parts.columns) == sorted(model.columns)
    assert parts.loc[is_annoyed, "complaints_28d"].mean() > 0.3 > 0 > parts.loc[~is_annoyed, "complaints_28d"].mean()


@pytest.mark.parametrize("learner", LEARNERS)
def test_contributions_add_up_to_the_prediction(learner: Any) -> None:
    rows, outcomes, now, _ = training_and_current_rows(customers=400)
    model = learner.fit(rows, outcomes, horizon_days=H)
    gap = logit(model.score(now)) - model.contributions(now).sum(axis=1)
    assert gap.to_numpy() == pytest.approx(np.full(len(now), gap.mean()), abs=1e-6)


@pytest.mark.parametrize("learner", [churn_baselines.RecencyChurn, churn_baselines.RfmLogistic])
def test_a_longer_recency_contributes_more_to_churn(learner: Any) -> None:
    rows, outcomes, now, _ = training_and_current_rows(customers=400)
    contributions = learner.fit(rows, outcomes, horizon_days=H).contributions(now)["recency_days"]
    assert contributions.corr(now["recency_days"], method="spearman") > 0.4


def test_bg_nbd_contributions_separate_long_recency_from_rare_purchases() -> None:
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
def test_the_saved_model_gives_the_same_predictions(learner: Any, tmp_path: Path) -> None:
    rows, outcomes, now, _ = training_and_current_rows(customers=300)
    model = learner.fit(rows, outcomes, horizon_days=H)
    model.save(tmp_path)
    loaded = learner.load(tmp_path)
    assert (loaded.score(now) == model.score(now)).all()
    pd.testing.assert_frame_equal(loaded.contributions(now), model.contributions(now))
    assert (
        loaded.population_average()
        == model.population_average()
        == pytest.approx(np.nanmean(survival_outcomes.read_churned(outcomes)), abs=0.15)
    )
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".txt"}


@pytest.mark.parametrize("learner", LEARNERS)
def test_any_customer_can_be_scored_however_few_features_are_available(learner: Any) -> None:
    rows, outcomes, now, _ = training_and_current_rows(customers=300)
    model = learner.fit(rows, outcomes, horizon_days=H)
    unusual = now.head(4).copy()
    unusual.loc[0, unusual.columns[2:]] = np.nan
    unusual.loc[1, ["recency_days", "tenure_days"]] = 4000.0
    unusual.loc[2, ["purchase_days", "gap_mean_days"]] = [4000.0, np.inf]
    predicted = model.score(unusual)
    assert np.isfinite(predicted).all()
    assert ((predicted > 0) & (predicted < 1)).all()
    assert np.isfinite(model.contributions(unusual)).all(axis=None)
    assert len(model.score(now.head(0))) == 0


def test_the_same_seed_gives_the_same_trees() -> None:
    rows, outcomes, now, _ = training_and_current_rows(customers=300)
    first, second = (churn_model.ChurnModel.fit(rows, outcomes, seed=3, horizon_days=H).score(now) for _ in range(2))
    assert (first == second).all()
    assert (churn_model.ChurnModel.fit(rows, outcomes, seed=4, horizon_days=H).score(now) != first).any()


@pytest.mark.parametrize("learner", [churn_baselines.RecencyChurn, churn_baselines.RfmLogistic, churn_model.ChurnModel])
def test_thirty_customers_are_too_few_and_the_message_counts_them(learner: Any) -> None:
    frame, outcomes = shop(customers=30, cutoffs=1)
    with pytest.raises(InsufficientData, match=r"\d+ active customers.* 30 of each are needed"):
        learner.fit(frame.drop(columns="truth"), outcomes, horizon_days=H)


def test_bg_nbd_alone_scores_a_shop_with_one_customer() -> None:
    frame, _ = shop(customers=1, cutoffs=1)
    model = churn_baselines.BgNbdChurn.fit(frame, np.array([np.nan]), horizon_days=H)
    assert 0 < model.score(frame)[0] < 1
    assert model.population_average() == pytest.approx(model.score(frame)[0])


def test_a_missing_feature_is_refused_by_name() -> None:
    rows, outcomes, now, _ = training_and_current_rows(customers=300)
    model = churn_model.ChurnModel.fit(rows, outcomes, horizon_days=H)
    with pytest.raises(MissingFeatures, match="complaints_28d"):
        model.score(now.drop(columns="complaints_28d"))


def test_the_recency_curve_is_the_share_that_churned_and_never_falls() -> None:
    days = np.repeat([5.0, 10.0, 20.0], 100)
    churned = np.concatenate([np.arange(100) < share for share in (30, 20, 60)]).astype(float)
    model = churn_baselines.RecencyChurn.fit(pd.DataFrame({"recency_days": days}), churned, horizon_days=H)
    rows = pd.DataFrame({"recency_days": [5.0, 10.0, 20.0, 900.0, np.nan]})
    pooled = (30 + 20) / 200
    assert model.score(rows) == pytest.approx([pooled, pooled, 0.6, 0.6, (30 + 20 + 60) / 300])
    assert isotonic_regression([0.3, 0.2, 0.6]).x.tolist() == model.chance.tolist()


@pytest.mark.parametrize("weights", [(0.5, -1.0), (-2.0, 0.0)])
def test_the_logistic_regression_recovers_the_weights_of_its_data(weights: tuple[float, float]) -> None:
    rng = np.random.default_rng(2)
    term = rng.normal(size=40_000)
    label = (rng.random(40_000) < expit(weights[0] + weights[1] * term)).astype(float)
    assert logistic_regression.fit_weights(term[:, None], label) == pytest.approx(weights, abs=0.04)


@pytest.mark.parametrize("remove_columns", [lambda frame: frame.drop(columns="recency_days"), lambda frame: frame[[]]])
def test_fitting_without_recency_is_refused(remove_columns: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame, outcomes = shop(customers=50, cutoffs=1)
    with pytest.raises(MissingFeatures, match="recency_days"):
        churn_model.ChurnModel.fit(remove_columns(frame), outcomes, horizon_days=H)


def two_years(customers: int = 600, *, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Cutoffs of a shop where customers come 2.5 times as often in one month a year; the last is its first day.

    Returns the features, the outcomes as known at the last cutoff, and who then came within 28 days.
    """
    days, rng = 364 + 330 + H, np.random.default_rng(seed)
    now = days - H
    is_busy = np.isin((np.arange(days) - now) % 364, np.arange(H))
    bought = rng.random((customers, days)) < rng.gamma(2.0, 0.012, (customers, 1)) * np.where(is_busy, 2.5, 1.0)
    bought[:, 0] = True
    frames, outcomes = [], []
    for day in [*range(120, now - 364, 42), now - 364, *range(now - 322, now, 42), now]:
        history = bought[:, :day]
        last = day - 1 - np.argmax(history[:, ::-1], axis=1)
        days_to_next = np.argmax(np.column_stack([bought[:, day:now], np.ones(customers, bool)]), axis=1) + 1.0
        came = days_to_next <= now - day
        frames.append(
            pd.DataFrame(
                {
                    "customer_key": np.arange(customers),
                    "as_of": FIRST + pd.Timedelta(days=int(day)),
                    "recency_days": day - last + 0.0,
                    "purchase_days": history.sum(axis=1) + 0.0,
                    "span_days": last + 0.0,
                    "tenure_days": float(day),
                    "purchase_days_28d": history[:, -H:].sum(axis=1) + 0.0,
                }
            )
        )
        churned = np.where(day + H <= now, (days_to_next > H) * 1.0, np.nan)
        outcomes.append(
            pd.DataFrame(
                {"churned": churned, "duration_days": np.where(came, days_to_next, now - day), "observed": came}
            )
        )
    return pd.concat(frames, ignore_index=True), pd.concat(outcomes, ignore_index=True), bought[:, now:].any(axis=1)


def test_before_christmas_churn_is_predicted_from_last_year_and_not_from_autumn() -> None:
    frame, outcomes, came = two_years()
    now = frame[frame["as_of"] == frame["as_of"].max()]
    is_active = (now["recency_days"] <= 2 * H).to_numpy()
    churn_rate = (~came[is_active]).mean()
    model = churn_model.ChurnModel.fit(frame, outcomes, horizon_days=H)
    bgnbd = churn_baselines.BgNbdChurn.fit(frame, outcomes, horizon_days=H)
    seasonal_bgnbd = seasonal_bg_nbd.SeasonalBgNbdChurn.fit(frame, outcomes, horizon_days=H)
    assert model.season.source == seasonal_calibration.A_YEAR_AGO
    assert bgnbd.score(now)[is_active].mean() > churn_rate + 0.08
    for seasonal in (model, seasonal_bgnbd):
        assert seasonal.score(now)[is_active].mean() == pytest.approx(churn_rate, abs=0.04)
