"""One training loop for every task: the best on hold-out days is served, and the metrics of all are recorded."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from training import calendar, train
from training.tasks import all_tasks
from training.tasks.task import Incomparable, TrainingData

CALENDAR = calendar.TrainingCalendar(date(2024, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), "UTC")


def training_data(customers: int, *, churn_days: int = 28, seed: int = 3) -> tuple[TrainingData, pd.DataFrame]:
    """Customers with exponential gaps and dropout, as in BG/NBD; and their rows at many cutoffs."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, datetime]] = []
    for key in range(1, customers + 1):
        gap, day = rng.gamma(2, 6), rng.uniform(0, 60)
        while day < 366 and rng.random() > 0.02:
            rows.append((key, datetime(2024, 1, 1) + pd.Timedelta(days=int(day))))
            day += 1 + rng.exponential(gap)
    purchases = pd.DataFrame(rows, columns=["customer_key", "day"])
    history = TrainingData(CALENDAR, purchases, {}, churn_days)
    cutoffs = calendar.training_cutoffs(CALENDAR, [28, 90])
    return history, pd.concat([_features(purchases, cutoff) for cutoff in cutoffs], ignore_index=True)


def _features(purchases: pd.DataFrame, cutoff: datetime) -> pd.DataFrame:
    day = pd.Timestamp(cutoff).tz_convert("UTC").tz_localize(None)
    days = purchases[purchases["day"] < day].groupby("customer_key")["day"].agg(["min", "max", "count"])
    columns: dict[str, Any] = {
        "recency_days": (day - days["max"]).dt.days, "tenure_days": (day - days["min"]).dt.days,
        "purchase_days": days["count"], "span_days": (days["max"] - days["min"]).dt.days,
    }  # fmt: skip
    frame = pd.DataFrame(columns).astype("float64").reset_index()
    frame["gap_mean_days"] = frame["span_days"] / (frame["purchase_days"] - 1).replace(0, np.nan)
    frame = frame.assign(purchase_days_28d=1.0, basket_value_mean=10.0, gap_median_days=frame["gap_mean_days"])
    return frame.assign(as_of=pd.Timestamp(cutoff).tz_convert("UTC"))


def test_the_last_window_is_held_out_and_all_candidates_are_evaluated_on_it() -> None:
    history, frame = training_data(600)
    trained = train.train(all_tasks.get_task("churn"), history, frame)
    assert trained.holdout == CALENDAR.cutoff_before(28)
    assert trained.rows["trial"] + trained.rows["holdout"] < len(frame)
    assert {trained.learner, *trained.baselines} == {"churn.Churn", *all_tasks.get_task("churn").baselines}
    assert not trained.fallback


def test_a_better_baseline_is_served_and_the_learner_reported_beside_it() -> None:
    task = all_tasks.get_task("churn")
    better = {"log_loss": 0.30}
    worse = {"log_loss": 0.31}
    candidates = [
        train.Candidate("baselines.BgNbdChurn", None, better, 0.0),  # type: ignore[arg-type]
        train.Candidate(task.learner, None, worse, 0.0),  # type: ignore[arg-type]
    ]
    best, why = train._choose_candidate(task, candidates, "")
    assert best.learner == "baselines.BgNbdChurn"
    assert "the baseline baselines.BgNbdChurn is served" in why
    trained = train.TrainingResult(task, None, best.learner, best, candidates, None, False, why)  # type: ignore[arg-type]
    assert trained.baselines[task.learner] == worse


def test_the_best_over_all_cutoffs_is_served_and_not_the_best_of_the_last() -> None:
    task, earlier_cutoff = all_tasks.get_task("churn"), CALENDAR.cutoff_before(56)

    def make_candidate(learner: str, last_loss: float, earlier_loss: float) -> train.Candidate:
        past = {earlier_cutoff: {"log_loss": earlier_loss}}
        return train.Candidate(learner, None, {"log_loss": last_loss}, 0.0, past)  # type: ignore[arg-type]

    steady, unstable = make_candidate("baselines.BgNbdChurn", 0.30, 0.30), make_candidate(task.learner, 0.28, 0.34)
    best, why = train._choose_candidate(task, [steady, unstable], "")
    assert best is steady
    assert "log_loss 0.3100 against 0.3000" in why
    assert "the mean of 2 cutoffs" in why


def test_an_earlier_cutoff_counts_where_all_candidates_could_be_fitted_before_it() -> None:
    task = all_tasks.get_task("churn")
    trained = train.train(task, *training_data(600))
    assert {tuple(each.earlier_metrics) for each in trained.candidates} == {(CALENDAR.cutoff_before(56),)}
    short_calendar = calendar.TrainingCalendar(date(2024, 1, 1), datetime(2024, 3, 1, tzinfo=UTC), "UTC")
    history, frame = training_data(600)
    short = TrainingData(short_calendar, history.purchases[history.purchases["day"] < "2024-03-01"], {}, 28)
    frame = frame[frame["as_of"] <= short_calendar.as_of]
    now = _features(history.purchases, short_calendar.as_of)
    earlier = _features(history.purchases, short_calendar.cutoff_before(28))
    trained = train.train(task, short, pd.concat([frame, earlier, now], ignore_index=True))
    assert all(not each.earlier_metrics for each in trained.candidates)


def test_a_tie_goes_to_the_learner() -> None:
    task = all_tasks.get_task("churn")
    assert train.is_not_worse(task, {"log_loss": 0.3010}, {"log_loss": 0.3000})
    assert not train.is_not_worse(task, {"log_loss": 0.3100}, {"log_loss": 0.3000})


def test_too_few_customers_to_evaluate_give_the_simplest_baseline_as_fallback() -> None:
    history, frame = training_data(12)
    trained = train.train(all_tasks.get_task("churn"), history, frame)
    assert trained.fallback
    assert trained.learner == all_tasks.get_task("churn").baselines[-1]
    assert np.isfinite(trained.model.score(frame)).all()


def test_purchases_in_the_last_window_do_not_change_the_holdout_model() -> None:
    history, frame = training_data(600)
    earlier_purchases = history.purchases[history.purchases["day"] < pd.Timestamp("2024-12-04")]
    blinded = TrainingData(CALENDAR, earlier_purchases, {}, 28)
    task = all_tasks.get_task("churn")
    holdout, holdout_without_window = (
        train.train(task, each, frame).candidates[-1].model for each in (history, blinded)
    )
    np.testing.assert_array_equal(holdout.score(frame), holdout_without_window.score(frame))


def test_models_of_different_horizons_are_not_compared() -> None:
    history, frame = training_data(600)
    trained = train.train(all_tasks.get_task("churn"), history, frame)
    longer_horizon = TrainingData(CALENDAR, history.purchases, {}, 35)
    with pytest.raises(Incomparable, match="28 days, that of this run 35"):
        train.evaluate(all_tasks.get_task("churn"), longer_horizon, frame, trained.model)


def candidate(learner: str, ndcg: float, distinct: float) -> train.Candidate:
    metrics = {"ndcg_10": ndcg, "distinct_lists": distinct, "products_shown": 100 * distinct}
    return train.Candidate(learner, None, metrics, 0.0)  # type: ignore[arg-type]


def test_the_same_list_for_all_customers_is_not_served_however_good_it_is() -> None:
    task = all_tasks.get_task("recommender")
    popular, frequent = candidate(task.baselines[0], 0.9, 0.0), candidate(task.baselines[1], 0.3, 1.0)
    best, why = train._choose_candidate(task, [popular, frequent, candidate(task.learner, 0.8, 0.1)], "")
    assert best is frequent
    assert "distinct_lists 0.1000 is less than 0.8 of 1.0000" in why
    best, _ = train._choose_candidate(task, [popular, frequent, candidate(task.learner, 0.4, 0.9)], "")
    assert best.learner == task.learner


def test_a_challenger_with_less_varied_lists_than_the_champion_violates_a_guardrail() -> None:
    task = all_tasks.get_task("recommender")
    champion = {"distinct_lists": 0.9, "products_shown": 900.0}
    assert train.guardrail_violation(task, {"distinct_lists": 0.8 * 0.9, "products_shown": 180.0}, champion) == ""
    assert train.guardrail_violation(task, {"distinct_lists": 0.9, "products_shown": 100.0}, champion).startswith(
        "products_shown"
    )
    assert train.guardrail_violation(all_tasks.get_task("churn"), {}, {}) == "", (
        "only tasks with a guardrail are checked"
    )
