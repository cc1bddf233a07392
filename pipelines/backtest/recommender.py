"""Backtest of the recommender: ranked lists as of earlier cutoffs, of the model and every benchmark method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from customers import clock
from customers.privacy import consents
from customers.shop.settings import Shop
from features.snapshots import snapshot
from models.base import InsufficientData
from models.benchmarks import next_basket
from pipelines.backtest.cutoffs import METHOD_NAMES, BacktestResult, choose_cutoffs
from pipelines.errors import NothingToDo
from pipelines.nightly.run_context import ProgressCallback, RunContext, open_dry_run
from training import calendar as training_calendar
from training.evaluation import method_comparison, next_basket_holdout
from training.evaluation.benchmark_tuning import BENCHMARKS, choose_settings
from training.evaluation.next_basket_holdout import HoldoutCriteria, HoldoutEvaluation
from training.tasks import all_tasks
from training.tasks.recommender import LIST_DAYS
from training.tasks.task import Task
from training.train import refit

#: Length of the ranked lists; metrics look at the first 10 and 20 places.
DEPTH = 20
#: The upper bound: the model's own candidates in the best possible order.
BEST_ORDER = "best order of the model's candidates"
SEGMENT_NOTE = (
    "segments are groups of activity known before each cutoff: quiet for a whole window, else by thirds of their "
    f"trips in the last three windows; {method_comparison.SMALL_SEGMENT_NOTE}"
)

BenchmarkSettings = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class MethodMetrics:
    """Metrics of one method at one cutoff: of each evaluated customer, and of all lists together."""

    per_customer: pd.DataFrame
    overall: dict[str, float]


def backtest_recommender(
    shop: Shop, *, cutoffs: int = 3, every: int | None = None, criteria: HoldoutCriteria | None = None,
    progress: ProgressCallback, at_cutoffs: list[datetime] | None = None, ceiling_depth: int = 0,
) -> BacktestResult:  # fmt: skip
    """Evaluate lists on the window after each cutoff and on the next trip in it; `at_cutoffs` overrides the choice.

    With a `ceiling_depth`, the table also has the model's lists of that length in the best possible order. Raises
    NothingToDo where the history is too short, nothing was bought after a cutoff, or a learner cannot be trained.
    """
    criteria, window_days = criteria or HoldoutCriteria(), LIST_DAYS
    chosen_cutoffs = at_cutoffs or choose_cutoffs(
        shop, cutoffs, every or window_days, outcome_days=window_days, history_days=3 * window_days
    )
    settings = _tune_benchmarks(shop, chosen_cutoffs[0], window_days, criteria, progress)
    holdouts: list[HoldoutEvaluation] = []
    metrics_by_method: dict[str, list[MethodMetrics]] = {}
    for cutoff in chosen_cutoffs:
        progress(f"recommender as of {cutoff.date()} ...")
        holdout, cutoff_metrics = _evaluate_methods(shop, cutoff, window_days, criteria, settings, ceiling_depth)
        holdouts.append(holdout)
        for method, method_metrics in cutoff_metrics.items():
            metrics_by_method.setdefault(method, []).append(method_metrics)
    model = all_tasks.get_task("recommender").learner
    notes = [f"{len(holdout.customers)} customers and {len(holdout.catalogue)} products as of {holdout.cutoff.date()}"
             for holdout in holdouts]  # fmt: skip
    dates = [str(holdout.cutoff.date()) for holdout in holdouts]
    return BacktestResult(
        "recommender",
        model,
        dates,
        _metrics_table(holdouts, metrics_by_method, model),
        dict(settings),
        [*notes, SEGMENT_NOTE],
    )


def load_holdout(
    shop: Shop,
    cutoff: datetime,
    window_days: int,
    criteria: HoldoutCriteria,
    *,
    allowed_customers: pd.Series | None = None,
) -> HoldoutEvaluation:
    """The hold-out of one cutoff: histories before it and purchases in the `window_days` after it.

    `allowed_customers` (n,) are customer keys; without it, every customer counts.
    """
    ledger, zone, now = shop.ledger, shop.timezone, clock.now(shop)
    calendar = training_calendar.TrainingCalendar(cutoff.date(), now, zone)
    end = calendar.day_start(calendar.days_before_run(cutoff) - window_days)
    before = snapshot.load_product_days(ledger, as_of=cutoff, timezone=zone)
    after = snapshot.load_product_days(ledger, as_of=now, timezone=zone, start=cutoff, end=end)
    if allowed_customers is not None:
        before, after = (rows[rows["customer_key"].isin(allowed_customers)] for rows in (before, after))
    departments = snapshot.load_products(ledger).set_index("product_key")["department"]
    return next_basket_holdout.build_holdout(
        before, after, pd.Timestamp(calendar.local_day(cutoff)), window_days, criteria=criteria, departments=departments
    )


def _tune_benchmarks(
    shop: Shop, first_cutoff: datetime, window_days: int, criteria: HoldoutCriteria, progress: ProgressCallback
) -> BenchmarkSettings:
    """Each benchmark's settings, chosen on the window before the first reported cutoff."""
    progress(f"settings of the benchmarks, chosen on the {window_days} days before {first_cutoff.date()} ...")
    tuning_holdout = _build_tuning_holdout(shop, first_cutoff, window_days, criteria)
    if not len(tuning_holdout.customers):
        return {benchmark.name: benchmark.settings_grid[0] for benchmark in BENCHMARKS}
    tuning_data = (tuning_holdout.histories, tuning_holdout.customers, tuning_holdout.window_purchases)
    return {benchmark.name: choose_settings(benchmark, *tuning_data) for benchmark in BENCHMARKS}


def _build_tuning_holdout(
    shop: Shop, first_cutoff: datetime, window_days: int, criteria: HoldoutCriteria
) -> HoldoutEvaluation:
    """The hold-out of the window before the first cutoff, of customers who allow profiling."""
    calendar = training_calendar.TrainingCalendar(first_cutoff.date(), first_cutoff, shop.timezone)
    purchases = snapshot.load_purchases(shop.ledger, as_of=first_cutoff, timezone=shop.timezone)
    allowed = consents.filter_allowed(shop, purchases[["customer_key"]], "profiling")["customer_key"]
    return load_holdout(shop, calendar.day_start(window_days), window_days, criteria, allowed_customers=allowed)


def _evaluate_methods(
    shop: Shop,
    cutoff: datetime,
    window_days: int,
    criteria: HoldoutCriteria,
    settings: BenchmarkSettings,
    ceiling_depth: int,
) -> tuple[HoldoutEvaluation, dict[str, MethodMetrics]]:
    """The hold-out of one cutoff, and the metrics of every method on it, the model first."""
    task = all_tasks.get_task("recommender")
    with open_dry_run(shop, cutoff, task) as context:
        frame = context.load_task_frame(task)
        current_rows = frame[frame["as_of"] == context.as_of].reset_index(drop=True)
        holdout = load_holdout(shop, cutoff, window_days, criteria, allowed_customers=current_rows["customer_key"])
        if not len(holdout.customers):
            raise NothingToDo(
                f"no customer bought anything in the {window_days} days from {cutoff.date()}; try fewer cutoffs"
            )
        evaluated = current_rows[current_rows["customer_key"].isin(holdout.customers)]
        evaluated = evaluated.sort_values("customer_key", ignore_index=True)
        metrics_by_method: dict[str, MethodMetrics] = {}
        for learner in (task.learner, *task.baselines):
            metrics_by_method |= _evaluate_learner(task, context, frame, learner, holdout, evaluated, ceiling_depth)
    for benchmark in BENCHMARKS:
        fitted = benchmark.fit(holdout.histories, **settings[benchmark.name])
        ranked_lists = next_basket.rank_lists(
            fitted, holdout.histories, holdout.customers, n=DEPTH, window_days=window_days
        )
        metrics_by_method[benchmark.name] = MethodMetrics(
            next_basket_holdout.evaluate_customers(holdout, ranked_lists),
            next_basket_holdout.evaluate_variety(holdout, ranked_lists),
        )
    return holdout, metrics_by_method


def _evaluate_learner(
    task: Task,
    context: RunContext,
    frame: pd.DataFrame,
    learner: str,
    holdout: HoldoutEvaluation,
    evaluated: pd.DataFrame,
    ceiling_depth: int,
) -> dict[str, MethodMetrics]:
    """Metrics of one of regulars' own learners, trained on what was known at the cutoff."""
    try:
        model: Any = refit(task, context.training_data, frame, learner=learner)
    except InsufficientData as error:
        day = context.as_of.date()
        raise NothingToDo(f"as of {day} {learner} cannot be trained: {error}; try fewer cutoffs") from None
    depth = ceiling_depth if learner == task.learner else 0
    ranked_lists = model.score(evaluated, n=max(depth, DEPTH), only=holdout.catalogue.tolist())
    audience_lift = next_basket_holdout.evaluate_audience_lift(
        holdout, partial(_purchase_probabilities, model, evaluated)
    )
    metrics = MethodMetrics(
        next_basket_holdout.evaluate_customers(holdout, ranked_lists),
        next_basket_holdout.evaluate_variety(holdout, ranked_lists) | {"audience_lift_10": audience_lift},
    )
    results = {METHOD_NAMES.get(learner, learner): metrics}
    if depth:
        results[BEST_ORDER] = MethodMetrics(next_basket_holdout.evaluate_upper_bound(holdout, ranked_lists), {})
    return results


def _purchase_probabilities(model: Any, evaluated: pd.DataFrame, products: np.ndarray) -> np.ndarray:
    probabilities: np.ndarray = model.purchase_probabilities(evaluated, products.tolist())
    return probabilities


def _metrics_table(
    holdouts: list[HoldoutEvaluation], metrics_by_method: Mapping[str, list[MethodMetrics]], model: str
) -> pd.DataFrame:
    per_customer = {
        method: pd.concat([method_metrics.per_customer for method_metrics in parts])
        for method, parts in metrics_by_method.items()
    }
    ranked = method_comparison.compare_methods(
        per_customer, pd.concat([holdout.activity for holdout in holdouts]), model=model
    )
    overall = {
        method: _average_metrics([method_metrics.overall for method_metrics in parts])
        for method, parts in metrics_by_method.items()
    }
    overall_rows = method_comparison.overall_rows(overall, sum(len(holdout.customers) for holdout in holdouts))
    return pd.concat([ranked, overall_rows], ignore_index=True)


def _average_metrics(metrics: list[dict[str, float]]) -> dict[str, float]:
    """The mean over cutoffs; a source that filled no place at one of them has a share of 0 there."""
    frame = pd.DataFrame(metrics)
    shares = [name for name in frame if str(name).startswith("source_")]
    return {str(name): float(value) for name, value in frame.fillna(dict.fromkeys(shares, 0.0)).mean().items()}
