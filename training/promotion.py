"""Promote: a challenger becomes champion only by being no worse on the same unseen days, and every move is logged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from customers.scores import promotion_log
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from models.base import MissingFeatures, Model
from models.registry import bundle, mlflow_registry
from training.tasks.all_tasks import TASKS
from training.tasks.task import Incomparable, Task, TrainingData
from training.train import evaluate, guardrail_violation, is_not_worse

if TYPE_CHECKING:
    from pipelines.nightly.run_context import RunContext


ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """Whether the challenger may speak for the shop, and why in words."""

    promoted: bool
    why: str


def registry_uri(shop: Shop) -> str:
    """Where the registry is: MLflow's own variable, else a database in the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{shop.home / 'mlflow' / 'mlflow.db'}"


@dataclass(frozen=True, slots=True)
class ReigningChampion:
    """The champion as it was before it learned from its last window; no model where nothing judged it."""

    version: str
    model: Model | None


def decide_promotion(
    task: Task,
    training_data: TrainingData,
    facts: Mapping[str, Any],
    frame: pd.DataFrame,
    champion: ReigningChampion | None,
) -> PromotionDecision:
    """Compare a challenger (its facts) with the champion's judged twin on the challenger's own holdout.

    Neither of the two has seen the days they are compared on. Without a champion the challenger takes the place.
    """
    why = facts["why"]
    if champion is None:
        return PromotionDecision(True, f"the first of its name; {why}")
    if champion.model is None:
        return PromotionDecision(True, f"version {champion.version} cannot be judged; {why}")
    if facts["fallback"]:
        return PromotionDecision(False, f"the champion stays; {why}")
    try:
        challenger_metrics, champion_metrics = facts["metrics"], evaluate(task, training_data, frame, champion.model)
    except (Incomparable, MissingFeatures) as reason:
        return PromotionDecision(True, f"version {champion.version} cannot be compared: {reason}; {why}")
    comparison = f"{task.primary_metric} {challenger_metrics[task.primary_metric]:.4f} against {champion_metrics[task.primary_metric]:.4f} of version {champion.version}"
    if not is_not_worse(task, challenger_metrics, champion_metrics):
        return PromotionDecision(False, f"the champion stays: {comparison}")
    if violation := guardrail_violation(task, challenger_metrics, champion_metrics):
        return PromotionDecision(False, f"the champion stays: lists are too much the same for everyone, {violation}")
    return PromotionDecision(True, f"{comparison}; {why}")


def promote(
    shop: Shop, name: str, *, version: str | None = None, why: str, action: str = "promoted",
    metrics: dict[str, Any] | None = None,
) -> str:  # fmt: skip
    """Make a version the champion (the newest challenger, if none is named) and publish it to the servers.

    The log is written first, then the pointer that servers follow, and the challenger keeps its name until both are:
    a kill in between is healed by doing it again.
    """
    uri = registry_uri(shop)
    version = version or mlflow_registry.version_by_alias(uri, name, "challenger")
    if version is None:
        raise ShopError(f"{name} has no challenger; run: regulars train {name}")
    mlflow_registry.get_version(uri, name, version)  # raises NoVersion before anything is written to the log
    previous = mlflow_registry.version_by_alias(uri, name, "champion")
    if previous != version:
        if not _is_logged(shop, name, (version, previous, action)):
            promotion_log.append_promotion(
                shop, name=name, version=version, previous=previous, action=action, why=why, metrics=metrics or {}
            )
        mlflow_registry.set_alias(uri, name, "champion", version)
    publish_champion(shop, name)
    if mlflow_registry.version_by_alias(uri, name, "challenger") == version:
        mlflow_registry.set_alias(uri, name, "challenger", None)
    return version


def rollback(shop: Shop, name: str) -> str:
    """Go back to the champion before this one, as the promotion log tells it; again goes back one more."""
    current = mlflow_registry.version_by_alias(registry_uri(shop), name, "champion")
    moves = promotion_log.load_history(shop, name)
    if (
        moves
        and (moves[-1].version, moves[-1].action) == (current, ROLLED_BACK)
        and _published_version(shop, name) != current
    ):
        return publish_champion(shop, name) or moves[-1].version  # killed on its last step: not one more back, this one
    earlier = [move.previous for move in moves if move.version == current and move.action != ROLLED_BACK]
    if not earlier or earlier[-1] is None:
        raise ShopError(f"{name} has no earlier champion to go back to; see: regulars models")
    return promote(shop, name, version=earlier[-1], why=f"rolled back from version {current}", action=ROLLED_BACK)


def rolled_back_versions(shop: Shop, name: str) -> set[str]:
    """Versions that somebody rolled back from and nobody promoted since: a night leaves them alone."""
    versions: set[str] = set()
    for move in promotion_log.load_history(shop, name):
        versions.discard(move.version)
        if move.action == ROLLED_BACK and move.previous:
            versions.add(move.previous)
    return versions


def publish_champion(shop: Shop, name: str) -> str | None:
    """Publish whoever the registry calls champion, also one that was named so by hand in MLflow; its version."""
    uri = registry_uri(shop)
    version = mlflow_registry.version_by_alias(uri, name, "champion")
    if version is None or version == _published_version(shop, name):
        return version
    with TemporaryDirectory(dir=shop.home, prefix=".promote-", suffix=f".{os.getpid()}") as folder:
        bundle.publish(
            mlflow_registry.download_bundle(uri, name, version, Path(folder) / "bundle"),
            shop.home / "champions",
            name,
            version,
        )
    return version


def summarise_champions(shop: Shop) -> list[dict[str, Any]]:
    """Every model's champion: version, learner, the day it was trained as of, and why it was promoted."""
    rows = []
    for task in TASKS:
        version = mlflow_registry.version_by_alias(registry_uri(shop), task.name, "champion")
        if version is not None:
            facts = mlflow_registry.get_version(registry_uri(shop), task.name, version)
            moves = [entry for entry in promotion_log.load_history(shop, task.name) if entry.version == version]
            rows.append({
                "name": task.name, "version": version, "learner": facts.tags["learner"],
                "since": moves[-1].at.isoformat(timespec="minutes") if moves else None,
                "as_of": facts.params["as_of"], "why": moves[-1].why if moves else "named champion by hand",
            })  # fmt: skip
    return rows


def _is_logged(shop: Shop, name: str, move: tuple[str, str | None, str]) -> bool:
    """Whether the log ends with this very move: whoever wrote it was killed before the move was made."""
    moves = promotion_log.load_history(shop, name)
    return bool(moves) and (moves[-1].version, moves[-1].previous, moves[-1].action) == move


def _published_version(shop: Shop, name: str) -> str | None:
    try:
        champion = bundle.open_champion(shop.home / "champions", name)
    except bundle.InvalidBundle:
        return None
    return champion.version if champion else None


#: What is reported of a plan that had nothing to learn from.
UNTRAINED_REPORT: dict[str, Any] = {
    "version": None,
    "learner": None,
    "promoted": False,
    "fallback": True,
    "metrics": {},
    "baselines": {},
}
#: What a command reports of a version, out of the facts that its bundle carries.
REPORT_FIELDS = ("version", "learner", "promoted", "why", "fallback", "metrics", "baselines")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model on record: its number, what it says of itself, and the model."""

    number: str
    facts: dict[str, Any]
    model: Model


def promote_if_better(
    context: RunContext, task: Task, version: ModelVersion | None
) -> tuple[dict[str, Any], ModelVersion | None]:
    """Promote a version if it is no worse than the champion; the report, and who speaks tonight, if anybody.

    In a replay the version trained as of that day speaks, since the champion knows later days.
    """
    if version is None:
        return UNTRAINED_REPORT | {"why": "there was nothing to learn from"}, None
    if context.is_historical:
        why = f"a replay of an earlier day moves no champion; {version.facts['why']}"
        return report_version(version, promoted=False, why=why), version
    verdict = _compare_with_champion(context, task, version)
    summary = report_version(version, promoted=verdict.promoted, why=verdict.why)
    mlflow_registry.set_alias(registry_uri(context.shop), task.name, "challenger", version.number)
    if not verdict.promoted:
        return summary, load_champions(context.shop, [task])[task.name]
    metrics = version.facts["metrics"]
    promote(context.shop, task.name, version=version.number, why=verdict.why, metrics=metrics)
    return summary, version


def load_champions(shop: Shop, tasks: Sequence[Task]) -> dict[str, ModelVersion]:
    """The champions of these plans as servers see them; a plan without one is left out."""
    versions: dict[str, ModelVersion] = {}
    for task in tasks:
        publish_champion(shop, task.name)
        champion = bundle.open_champion(shop.home / "champions", task.name)
        if champion is not None:
            versions[task.name] = ModelVersion(champion.version, champion.facts, champion.model)
    return versions


def _compare_with_champion(context: RunContext, task: Task, version: ModelVersion) -> PromotionDecision:
    champion_version = mlflow_registry.version_by_alias(registry_uri(context.shop), task.name, "champion")
    if champion_version == version.number:
        return PromotionDecision(True, version.facts["why"])
    if version.number in rolled_back_versions(context.shop, task.name):
        return PromotionDecision(False, f"version {version.number} was rolled back by hand")
    reigning_champion = _load_reigning_champion(context.shop, task, champion_version)
    return decide_promotion(
        task, context.training_data, version.facts, context.load_task_frame(task), reigning_champion
    )


def report_version(version: ModelVersion, *, promoted: bool, why: str) -> dict[str, Any]:
    """What a command says of a version."""
    summary = {**version.facts, "version": version.number, "promoted": promoted, "why": why}
    return {name: summary[name] for name in REPORT_FIELDS}


def _load_reigning_champion(shop: Shop, task: Task, champion_version: str | None) -> ReigningChampion | None:
    """The champion's twin from before it learned from its last window; its model is None if nothing judged it."""
    if champion_version is None:
        return None
    with TemporaryDirectory(dir=shop.home, prefix=".rival-") as folder:
        holdout_folder = mlflow_registry.download_artifact(
            registry_uri(shop), task.name, champion_version, "judged", Path(folder)
        )
        try:
            return ReigningChampion(champion_version, bundle.open_model(holdout_folder)[1] if holdout_folder else None)
        except bundle.InvalidBundle:
            # A learner that the house no longer has: it cannot be asked, so it cannot be better.
            return ReigningChampion(champion_version, None)
