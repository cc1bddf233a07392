"""The nightly run: compute features, train, evaluate, promote what is no worse, score every customer, write back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from customers.ledger import refresh_queue
from customers.scores import night_marker, score_store
from customers.shop.settings import Shop
from models.registry import mlflow_registry
from pipelines.errors import NothingToDo, WrongUsage
from pipelines.nightly import model_versions, uplift_scores
from pipelines.nightly.run_context import ProgressCallback, RunContext, open_run_context, time_step
from serving import runtime
from serving.privacy import erasure
from serving.scoring import batch, refresh
from training import challenger, promotion
from training.challenger import PromotionDecision
from training.promotion import ModelVersion
from training.tasks import all_tasks
from training.tasks.task import Task
from training.train import train as train_model


def run_nightly(
    shop: Shop, *, as_of: str | None = None, only: Sequence[str] | None = None, progress: ProgressCallback
) -> dict[str, Any]:
    """Run every step as of `as_of` (default: now) and return the report of the run.

    A historical run (`as_of` before the last run) uses only what was recorded by then and promotes nothing. With
    `only`, these models are trained; except in a historical run, the champions of the others score too. Raises
    WrongUsage for an unknown model or a time in the future, NothingToDo without purchases or while another run works.
    """
    tasks = _select_tasks(only)
    seconds: dict[str, float] = {}
    reports: dict[str, dict[str, Any]] = {}
    with open_run_context(shop, as_of, seconds, progress) as context:
        with time_step(seconds, "training", progress):
            challengers = _train_challengers(context, tasks, progress)
        with time_step(seconds, "promotion", progress):
            champions = (
                {}
                if context.is_historical
                else promotion.load_champions(shop, [other for other in all_tasks.TASKS if other not in tasks])
            )
            for task in tasks:
                reports[task.name], champion = challenger.promote_challenger(shop, task, *challengers[task.name])
                champions |= {task.name: champion} if champion else {}
        customer_count, score_count = _score_and_write_back(context, champions, seconds, progress)
    return {
        "as_of": context.as_of.isoformat(),
        "customers": customer_count,
        "churn_horizon_days": context.training_data.churn_days,
        "models": reports,
        "scores_written": score_count,
        "seconds": seconds,
    }


def train_challenger(shop: Shop, name: str, *, as_of: str | None = None, progress: ProgressCallback) -> dict[str, Any]:
    """Train one model and register it as challenger; the champion does not change.

    Raises NothingToDo where the model has no row to train on, WrongUsage for an unknown model.
    """
    with open_run_context(shop, as_of, {}, progress) as context:
        version = model_versions.train_or_reuse_version(context, _select_tasks([name])[0], progress)
        if version is None:
            raise NothingToDo(f"there is nothing to train {name} on; load more sales")
        mlflow_registry.set_alias(promotion.registry_uri(shop), name, "challenger", version.number)
        return challenger.report_version(version, promoted=False, why=version.facts["why"])


def score_everyone(shop: Shop, *, as_of: str | None = None, progress: ProgressCallback) -> dict[str, Any]:
    """Score every customer with the present champions, without training.

    Raises NothingToDo where no model has a champion.
    """
    seconds: dict[str, float] = {}
    with open_run_context(shop, as_of, seconds, progress) as context:
        champions = promotion.load_champions(shop, all_tasks.TASKS)
        if not champions:
            raise NothingToDo("no model has a champion yet; run: regulars run")
        customer_count, score_count = _score_and_write_back(context, champions, seconds, progress)
    return {
        "as_of": context.as_of.isoformat(),
        "customers": customer_count,
        "scores_written": score_count,
        "seconds": seconds,
    }


def retrain_version(shop: Shop, name: str, version: str, *, progress: ProgressCallback) -> pd.DataFrame:
    """Train a registered version again with its recorded as_of and seed, and score the customers of that as_of.

    Columns customer_key and score, one row per customer. Nothing is registered: it shows that a score can be
    reproduced from its version. Raises NothingToDo where the sales known at that as_of, or the code, have changed.
    """
    task = _select_tasks([name])[0]
    recorded = mlflow_registry.get_version(promotion.registry_uri(shop), name, version)
    with open_run_context(shop, recorded.params["as_of"], {}, progress) as context:
        if recorded.tags["fingerprint"] != model_versions.fingerprint(context, task):
            raise NothingToDo(f"{name} version {version} came from other sales or other code: it cannot be made again")
        frame = context.load_task_frame(task)
        trained = train_model(task, context.training_data, frame, seed=int(recorded.params["seed"]), progress=progress)
        latest_rows = frame[frame["as_of"] == frame["as_of"].max()].reset_index(drop=True)
        return latest_rows[["customer_key"]].assign(score=trained.model.score(latest_rows))


def _train_challengers(
    context: RunContext, tasks: Sequence[Task], progress: ProgressCallback
) -> dict[str, tuple[ModelVersion | None, PromotionDecision]]:
    """The version of each task, and whether it is to be promoted.

    One task after the other, and compared with its champion while its rows are held: so a run holds the rows of one
    task. In parallel threads, two tasks take a third more CPU time, since they wait for each other's caches and for the
    interpreter.
    """
    challengers = {}
    for task in context.group_by_rows(tasks):
        version = model_versions.train_or_reuse_version(context, task, progress)
        decision = challenger.compare_with_champion(
            context.shop, task, version, training_data=context.training_data,
            load_frame=partial(context.load_task_frame, task), is_historical=context.is_historical,
        )  # fmt: skip
        challengers[task.name] = version, decision
    return challengers


def _score_and_write_back(
    context: RunContext,
    champions: dict[str, promotion.ModelVersion],
    seconds: dict[str, float],
    progress: ProgressCallback,
) -> tuple[int, int]:
    context.free_frames()
    with time_step(seconds, "online features", progress):
        if not context.is_historical:
            context.features.materialise(context.as_of)
    with time_step(seconds, "scores", progress):
        counts = batch.score_all_customers(
            context.shop,
            context.features,
            {name: (version.number, version.model) for name, version in champions.items()},
            context.as_of,
            fallback_names=[name for name, version in champions.items() if version.facts["fallback"]],
        )
        if not context.is_historical:
            uplift_scores.write_uplift_scores(context.shop, context.features, context.as_of)
    _apply_late_changes(context)
    if not context.is_historical:
        night_marker.write_marker(context.shop.home, context.as_of)
    return counts


def _apply_late_changes(context: RunContext) -> None:
    """Apply what arrived during the run: delete derived data of erased customers, rescore those with late sales."""
    if context.is_historical:
        return  # its features are deleted at its end; those of today are left to the next nightly run
    erasure.erase_derived_data(context.shop, context.features, held_lock=erasure.NIGHT_LOCK)
    if refresh_queue.list_pending(context.shop) or score_store.customers_scored_after(context.shop, context.as_of):
        refresh.rescore_after_batch(runtime.open_runtime(context.shop), context.as_of)


def _select_tasks(only: Sequence[str] | None) -> list[Task]:
    tasks = {task.name: task for task in all_tasks.TASKS}
    unknown = set(only or ()) - set(tasks)
    if unknown:
        raise WrongUsage(f"there is no model called {', '.join(sorted(unknown))}; there are {', '.join(tasks)}")
    return [task for name, task in tasks.items() if not only or name in only]
