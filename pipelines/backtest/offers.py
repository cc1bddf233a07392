"""Backtest of the offer model: redemption probabilities of past campaigns against the redemptions that followed."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from customers import clock
from customers.shop.settings import Shop
from models.base import InsufficientData
from pipelines.backtest.cutoffs import METHOD_NAMES, BacktestResult, choose_cutoffs
from pipelines.errors import NothingToDo
from pipelines.nightly.run_context import ProgressCallback, RunContext, open_dry_run
from training.evaluation import method_comparison, next_basket_holdout
from training.tasks import all_tasks
from training.tasks.offers import OFFER_DAYS
from training.tasks.task import Task
from training.train import fit_before_holdout

#: Single affinity features as ranking methods: the column, and the column that breaks its ties.
SINGLE_COLUMN_METHODS = {"affinity": ("affinity_84d", "popularity"), "popularity": ("popularity", "popularity")}
SEGMENT_NOTE = (
    "segments are thirds of what customers had bought lately, known when the campaign went out; "
    f"{method_comparison.SMALL_SEGMENT_NOTE}"
)


def backtest_offers(
    shop: Shop,
    *,
    cutoffs: int = 3,
    every: int | None = None,
    progress: ProgressCallback,
    at_cutoffs: list[datetime] | None = None,
) -> BacktestResult:
    """Evaluate offers of the campaigns sent from each cutoff until the next; `at_cutoffs` overrides the choice.

    Models are trained on outcomes known at the cutoff; features are those of the day on which a campaign went out.
    Raises NothingToDo where no offer of these campaigns was redeemed, or a learner has too little to learn from.
    """
    task, step_days = all_tasks.get_task("offers"), every or OFFER_DAYS // 3
    chosen_cutoffs = at_cutoffs or choose_cutoffs(
        shop, cutoffs, step_days, outcome_days=step_days, history_days=OFFER_DAYS
    )
    with open_dry_run(shop, clock.now(shop), task) as context:
        frame = context.load_task_frame(task)
        parts = []
        for cutoff, end in zip(chosen_cutoffs, [*chosen_cutoffs[1:], context.as_of], strict=True):
            progress(f"offers as of {cutoff.date()} ...")
            parts.append(_predict_campaigns(task, context, frame, cutoff, end))
        nonempty_parts = [part for part in parts if len(part)]
        if not any(part["redeemed"].any() for part in nonempty_parts):
            raise NothingToDo(
                f"no offer of a campaign from {chosen_cutoffs[0].date()} on was redeemed; try more cutoffs, or load "
                "offers and interactions of kind received and redeemed"
            )
        predictions = pd.concat(nonempty_parts, ignore_index=True)
        table = _metrics_table(task, context, predictions)
    notes = [
        f"{len(predictions):,} pairs of a customer and an offer, {int(predictions['redeemed'].sum()):,} redeemed",
        SEGMENT_NOTE,
    ]
    return BacktestResult("offers", task.learner, [str(cutoff.date()) for cutoff in chosen_cutoffs], table, {}, notes)


def _predict_campaigns(
    task: Task, context: RunContext, frame: pd.DataFrame, cutoff: datetime, end: datetime
) -> pd.DataFrame:
    """Offers of the campaigns in [cutoff, end) whose outcome is known: redeemed, and a column per method."""
    rows = frame[(frame["as_of"] >= cutoff) & (frame["as_of"] < end)].reset_index(drop=True)
    if rows.empty:
        return rows
    outcome = task.label(context.training_data, rows, context.training_data.calendar.complete_until)
    has_outcome = task.evaluated_rows(context.training_data, rows, outcome)
    rows = rows[has_outcome].reset_index(drop=True)
    predictions = {
        METHOD_NAMES.get(learner, learner): _redemption_probabilities(task, context, frame, cutoff, learner, rows)
        for learner in (task.learner, *task.baselines)
    }
    predictions |= {name: _rank_by_columns(rows, *columns) for name, columns in SINGLE_COLUMN_METHODS.items()}
    return rows[["customer_key", "as_of", "offer_key", "shelf_weight"]].assign(
        redeemed=outcome[has_outcome], **predictions
    )


def _redemption_probabilities(
    task: Task, context: RunContext, frame: pd.DataFrame, cutoff: datetime, learner: str, rows: pd.DataFrame
) -> np.ndarray:
    try:
        probabilities: np.ndarray = fit_before_holdout(
            task, context.training_data, frame, cutoff, learner=learner
        ).score(rows)
    except InsufficientData as error:
        raise NothingToDo(f"as of {cutoff.date()} {learner} cannot be trained: {error}; try fewer cutoffs") from None
    return probabilities


def _rank_by_columns(rows: pd.DataFrame, first: str, then: str) -> np.ndarray:
    """Scores in the order of one column, ties broken by another; only their order has a meaning."""
    primary, tie_breaker = (np.nan_to_num(rows[name].to_numpy(np.float64)) for name in (first, then))
    return np.asarray(primary + 1e-6 * tie_breaker)


def _metrics_table(task: Task, context: RunContext, predictions: pd.DataFrame) -> pd.DataFrame:
    offer_table = context.training_data.offers.drop_duplicates("offer_key").set_index("offer_key")
    campaign = predictions["offer_key"].map(offer_table["campaign_id"]).fillna("")
    group = pd.MultiIndex.from_arrays([predictions["customer_key"], predictions["as_of"], campaign]).factorize()[0]
    baselines = (METHOD_NAMES.get(learner, learner) for learner in task.baselines)
    methods = [task.learner, *baselines, *SINGLE_COLUMN_METHODS]
    activity = predictions["shelf_weight"].fillna(0.0).rank(method="dense", pct=True).to_numpy(np.float64)
    third = np.clip(((1 - activity) * 3).astype(np.int64), 0, 2)
    segments = np.array(next_basket_holdout.ACTIVITY_SEGMENTS[:3], dtype=object)[third]
    return method_comparison.compare_offers(
        predictions["customer_key"].to_numpy(np.int64),
        group.astype(np.int64),
        predictions["redeemed"].to_numpy(np.float64),
        {name: predictions[name].to_numpy(np.float64) for name in methods},
        segments,
        model=task.learner,
    )
