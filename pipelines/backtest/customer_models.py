"""Backtest of churn, timing, restock and value: predictions as of earlier cutoffs against what customers then did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from customers import clock
from customers.shop.settings import Shop
from features.snapshots import snapshot
from models.base import InsufficientData
from models.benchmarks.plain_lightgbm import DefaultLightGbm
from models.timing import model as timing_model
from pipelines.backtest.cutoffs import METHOD_NAMES, SERVED, BacktestResult, choose_cutoffs
from pipelines.errors import NothingToDo
from pipelines.nightly import training_data
from pipelines.nightly.run_context import ProgressCallback, RunContext, open_dry_run
from training.evaluation import calibration_curves, method_comparison
from training.evaluation.bootstrap import BootstrapDraws
from training.tasks import all_tasks, restock
from training.tasks.task import Task, TrainingData
from training.train import refit, train

#: Bootstrap draws of customers behind an interval; metrics that are no means are computed anew for each.
DRAWS = 200
#: At most this many customers are evaluated, since every metric is computed again for every draw.
MAX_CUSTOMERS = 6_000
#: Plots of timing show the probability of a return within this many days, where the curve is as long.
PLOT_DAYS = 28
#: Tasks that a LightGBM with default settings is compared on, and how its outcome (n,) is read from their labels.
LIGHTGBM_OUTCOMES: Mapping[str, Callable[[Any], np.ndarray]] = {
    "churn": lambda label: label["churned"].to_numpy(np.float64),
    "value": lambda label: label["spent"].to_numpy(np.float64),
    "restock": lambda label: label[f"within_{restock.RESTOCK_DAYS[1]}"].to_numpy(np.float64),
}


@dataclass(frozen=True)
class CutoffEvaluation:
    """One cutoff: the evaluated rows, their labels, and every method's predictions, all in the same order."""

    training_data: TrainingData
    rows: pd.DataFrame
    label: Any
    predictions: Mapping[str, np.ndarray]

    def evaluate(self, task: Task, method: str, positions: np.ndarray | None = None) -> dict[str, float]:
        """Metrics of a method over all rows, or over the rows at `positions` (n,), which may repeat."""
        if positions is None:
            return task.evaluate(self.training_data, self.rows, self.label, self.predictions[method])
        label = self.label.iloc[positions] if hasattr(self.label, "iloc") else self.label[positions]
        return task.evaluate(self.training_data, self.rows.iloc[positions], label, self.predictions[method][positions])


def backtest_customer_model(
    shop: Shop, name: str, *, cutoffs: int = 3, every: int | None = None, progress: ProgressCallback,
    at_cutoffs: list[datetime] | None = None, follow_up_days: int | None = None,
) -> BacktestResult:  # fmt: skip
    """Backtest churn, timing, restock or value at cutoffs one outcome window apart, or at `at_cutoffs`.

    At each cutoff everything is trained anew on what was known then, including the choice between model and baselines;
    the chosen one is the method "served" (for timing: its curve, reconciled with the churn probability).
    `follow_up_days` is the follow-up that timing is evaluated with. Raises NothingToDo where the history is too short.
    """
    task = all_tasks.get_task(name)
    window_days = _outcome_window_days(shop, task, follow_up_days)
    chosen_cutoffs = at_cutoffs or choose_cutoffs(
        shop, cutoffs, every or window_days, outcome_days=window_days, history_days=2 * window_days
    )
    evaluations, notes = [], []
    for cutoff in chosen_cutoffs:
        progress(f"{name} as of {cutoff.astimezone(shop.zone).date()} ...")
        evaluation, note = _evaluate_cutoff(shop, cutoff, task, follow_up_days, progress)
        evaluations.append(evaluation)
        notes.append(note)
    dates = [str(cutoff.astimezone(shop.zone).date()) for cutoff in chosen_cutoffs]
    progress("bootstrap intervals of the metrics ...")
    return BacktestResult(
        name, SERVED, dates, _metrics_table(task, dates, evaluations), {}, notes, _calibration_tables(task, evaluations)
    )


def _outcome_window_days(shop: Shop, task: Task, follow_up_days: int | None) -> int:
    """The days that follow a cutoff and count for its outcome, as a run of today would set them."""
    now = clock.now(shop)
    if snapshot.first_sale_day(shop.ledger, now, shop.timezone) is None:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    dataset, _ = training_data.load_training_data(shop, now)
    return task.holdout_days(dataset if follow_up_days is None else replace(dataset, follow_up_days=follow_up_days))


def _evaluate_cutoff(
    shop: Shop, cutoff: datetime, task: Task, follow_up_days: int | None, progress: ProgressCallback
) -> tuple[CutoffEvaluation, str]:
    with open_dry_run(shop, cutoff, task) as context:
        frame = context.load_task_frame(task)
        truth = _load_truth(shop, context, follow_up_days)
        rows = frame[frame["as_of"] == context.as_of].reset_index(drop=True)
        label = task.label(truth, rows, truth.calendar.complete_until)
        is_included = task.evaluated_rows(truth, rows, label)
        if not is_included.any():
            raise NothingToDo(f"as of {cutoff.date()} no customer has a known outcome; try fewer cutoffs")
        is_included &= _is_sampled(rows["customer_key"], is_included)
        label = label[is_included].reset_index(drop=True) if hasattr(label, "iloc") else label[is_included]
        evaluated = rows[is_included].reset_index(drop=True)
        predictions, served = _predict_methods(task, context, frame, evaluated, progress)
    evaluated = evaluated[["customer_key", "as_of"]]
    day = cutoff.astimezone(shop.zone).date()
    return CutoffEvaluation(truth, evaluated, label, predictions), f"as of {day}, {len(evaluated):,} judged: {served}"


def _is_sampled(customers: pd.Series, is_included: np.ndarray) -> np.ndarray:
    """Flags (n,): rows of the included customers, or of MAX_CUSTOMERS of them, drawn with a fixed seed."""
    customer_keys = customers[is_included].unique()
    if len(customer_keys) > MAX_CUSTOMERS:
        customer_keys = np.random.default_rng(0).choice(np.sort(customer_keys), MAX_CUSTOMERS, replace=False)
    return customers.isin(customer_keys).to_numpy()


def _load_truth(shop: Shop, context: RunContext, follow_up_days: int | None) -> TrainingData:
    """Training data of the cutoff with the purchases known today: what its labels are computed from."""
    ledger, as_of, training_data = shop.ledger, clock.now(shop), context.training_data
    return replace(
        training_data,
        calendar=replace(training_data.calendar, as_of=as_of),
        purchases=snapshot.load_purchases(ledger, as_of=as_of, timezone=shop.timezone),
        category_days=snapshot.load_category_days(ledger, as_of=as_of, timezone=shop.timezone, start=context.as_of),
        value_days=all_tasks.get_task("value").holdout_days(training_data),
        follow_up_days=follow_up_days or training_data.follow_up_days,
    )


def _predict_methods(
    task: Task, context: RunContext, frame: pd.DataFrame, evaluated: pd.DataFrame, progress: ProgressCallback
) -> tuple[dict[str, np.ndarray], str]:
    """Each method's predictions for the evaluated rows, and which learner would have been served, and why."""
    trained = train(task, context.training_data, frame, progress=progress)
    own_predictions = np.asarray(trained.model.score(evaluated))
    predictions = {
        SERVED: _reconcile_with_churn(context, evaluated, own_predictions, progress)
        if task.name == "timing"
        else own_predictions
    }
    for learner in (task.learner, *task.baselines):
        name = METHOD_NAMES.get(learner, learner)
        if learner == trained.learner:
            predictions[name] = own_predictions
            continue
        try:
            predictions[name] = np.asarray(refit(task, context.training_data, frame, learner=learner).score(evaluated))
        except InsufficientData as error:
            raise NothingToDo(
                f"as of {context.as_of.date()} {learner} cannot be trained: {error}; try fewer cutoffs"
            ) from None
    if task.name in LIGHTGBM_OUTCOMES:
        predictions["plain LightGBM"] = _predict_lightgbm(task, context, frame, evaluated)
    return predictions, f"{trained.learner} is served ({trained.why})"


def _reconcile_with_churn(
    context: RunContext, evaluated: pd.DataFrame, survival: np.ndarray, progress: ProgressCallback
) -> np.ndarray:
    """Survival curves (n, n_days) as they are served: at the churn horizon they equal the churn model's probability."""
    churn_task = all_tasks.get_task("churn")
    frame = context.load_task_frame(churn_task)
    trained = train(churn_task, context.training_data, frame, progress=progress)
    current_rows = frame[frame["as_of"] == context.as_of].set_index("customer_key")
    churn_probability = np.asarray(trained.model.score(current_rows.loc[evaluated["customer_key"]].reset_index()))
    return timing_model.reconcile(survival, context.training_data.churn_days, churn_probability)


def _predict_lightgbm(task: Task, context: RunContext, frame: pd.DataFrame, evaluated: pd.DataFrame) -> np.ndarray:
    """Predictions of LightGBM with default settings, trained on the same rows: what a team would try first."""
    label = task.label(context.training_data, frame, context.training_data.calendar.complete_until)
    active = task.evaluated_rows(context.training_data, frame, label)
    rows, outcome = frame[active], LIGHTGBM_OUTCOMES[task.name](label)[active]
    predictions = DefaultLightGbm.fit(rows, outcome, amounts=task.name == "value").score(evaluated)
    return predictions if task.name != "restock" else np.column_stack([predictions, predictions, predictions])


def _metrics_table(task: Task, dates: list[str], evaluations: list[CutoffEvaluation]) -> pd.DataFrame:
    """Every metric of every method: the mean over the cutoffs, and the values of each cutoff."""
    customers = np.concatenate([evaluation.rows["customer_key"].to_numpy(np.int64) for evaluation in evaluations])
    draws = BootstrapDraws.from_customers(customers, draws=DRAWS)
    each = [
        {method: pd.Series(evaluation.evaluate(task, method)) for method in evaluation.predictions}
        for evaluation in evaluations
    ]
    resampled = [_resample_metrics(task, evaluation, draws) for evaluation in evaluations]
    counts = [len(evaluation.rows) for evaluation in evaluations]
    parts = [
        method_comparison.compare_drawn_metrics(
            _average_metrics(each),
            _average_metrics(resampled),
            sum(counts),
            segment=method_comparison.ALL_CUSTOMERS,
            model=SERVED,
        )
    ]
    if len(evaluations) > 1:
        parts += [
            method_comparison.compare_drawn_metrics(
                metrics, resampled_metrics, n, segment=f"as of {date}", model=SERVED
            )
            for date, metrics, resampled_metrics, n in zip(dates, each, resampled, counts, strict=True)
        ]
    return pd.concat(parts, ignore_index=True)


def _resample_metrics(task: Task, evaluation: CutoffEvaluation, draws: BootstrapDraws) -> dict[str, pd.DataFrame]:
    customers = evaluation.rows["customer_key"].to_numpy(np.int64)

    def resample(method: str) -> pd.DataFrame:
        return draws.resampled_metrics(customers, lambda positions: evaluation.evaluate(task, method, positions))

    return {method: resample(method) for method in evaluation.predictions}


def _average_metrics(by_cutoff: list[Any]) -> dict[str, Any]:
    """The mean over the cutoffs of each method's metrics, or of its metrics in every draw."""
    return {method: sum(metrics[method] for metrics in by_cutoff) / len(by_cutoff) for method in by_cutoff[0]}


def _calibration_tables(task: Task, evaluations: list[CutoffEvaluation]) -> dict[str, pd.DataFrame]:
    """Reliability and cumulative gains of every method, over all cutoffs together."""
    tables: dict[str, list[pd.DataFrame]] = {"reliability": [], "gains": []}
    for method in evaluations[0].predictions:
        pairs = [_score_and_outcome(task, evaluation, method) for evaluation in evaluations]
        predicted, observed = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        tables["reliability"].append(calibration_curves.reliability_curve(predicted, observed).assign(method=method))
        tables["gains"].append(calibration_curves.gains_curve(predicted, observed).assign(method=method))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def _score_and_outcome(task: Task, evaluation: CutoffEvaluation, method: str) -> tuple[np.ndarray, np.ndarray]:
    """One predicted number per row and its outcome, both (n,): a probability and 0 or 1, or two amounts of money."""
    predictions = evaluation.predictions[method]
    if task.name == "timing":
        days = min(PLOT_DAYS, predictions.shape[1])
        has_returned = evaluation.label["observed"] & (evaluation.label["duration_days"] <= days)
        return 1 - predictions[:, days - 1], has_returned.to_numpy(np.float64)
    if task.name == "restock":
        return predictions[:, 1], evaluation.label[f"within_{restock.RESTOCK_DAYS[1]}"].to_numpy(np.float64)
    column = {"churn": "churned", "value": "spent"}[task.name]
    return predictions, evaluation.label[column].to_numpy(np.float64)
