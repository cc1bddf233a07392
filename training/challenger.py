"""Challengers: a new version becomes champion if it is not worse than the present one on the same hold-out.

What counts as not worse (ties included) and the guardrails are in `training/train.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from customers.shop.settings import Shop
from models.base import MissingFeatures, Model
from models.registry import bundle, mlflow_registry
from training import promotion
from training.promotion import ModelVersion
from training.tasks.task import Incomparable, Task, TrainingData
from training.train import evaluate, guardrail_violation, is_not_worse

#: Report of a task without anything to train on.
UNTRAINED_REPORT: dict[str, Any] = {
    "version": None,
    "learner": None,
    "promoted": False,
    "fallback": True,
    "metrics": {},
    "baselines": {},
}
#: Fields of a version's facts that a command reports.
REPORT_FIELDS = ("version", "learner", "promoted", "why", "fallback", "metrics", "baselines")


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """Whether the challenger becomes champion, and why in words.

    In a historical run (`is_historical`) nothing at all is changed.
    """

    promoted: bool
    why: str
    is_historical: bool = False


@dataclass(frozen=True, slots=True)
class HoldoutChampion:
    """The present champion as fitted before its own hold-out.

    `model` is None where it was never evaluated, or can no longer be opened.
    """

    version: str
    model: Model | None


def decide_promotion(
    task: Task,
    training_data: TrainingData,
    facts: Mapping[str, Any],
    frame: pd.DataFrame,
    champion: HoldoutChampion | None,
) -> PromotionDecision:
    """Compare a challenger, by its facts, with the champion on the challenger's own hold-out.

    Both models were fitted before the hold-out. Without a champion the challenger is promoted. frame: one row per
    customer (category, offer) and cutoff, columns as in train.train.
    """
    why = facts["why"]
    if champion is None:
        return PromotionDecision(True, f"the first champion; {why}")
    if champion.model is None:
        return PromotionDecision(True, f"version {champion.version} cannot be evaluated; {why}")
    if facts["fallback"]:
        return PromotionDecision(False, f"the champion stays; {why}")
    try:
        challenger_metrics, champion_metrics = facts["metrics"], evaluate(task, training_data, frame, champion.model)
    except (Incomparable, MissingFeatures) as reason:
        return PromotionDecision(True, f"version {champion.version} cannot be compared: {reason}; {why}")
    metric, champion_metric = challenger_metrics[task.primary_metric], champion_metrics[task.primary_metric]
    comparison = f"{task.primary_metric} {metric:.4f} against {champion_metric:.4f} of version {champion.version}"
    if not is_not_worse(task, challenger_metrics, champion_metrics):
        return PromotionDecision(False, f"the champion stays: {comparison}")
    if violation := guardrail_violation(task, challenger_metrics, champion_metrics):
        return PromotionDecision(False, f"the champion stays: lists differ too little between customers, {violation}")
    return PromotionDecision(True, f"{comparison}; {why}")


def compare_with_champion(
    shop: Shop,
    task: Task,
    version: ModelVersion | None,
    *,
    training_data: TrainingData,
    load_frame: Callable[[], pd.DataFrame],
    is_historical: bool = False,
) -> PromotionDecision:
    """Whether a version is no worse than the champion on the same hold-out; nothing is changed.

    `load_frame` returns the task's rows, one row per customer (offer, category) and as_of, and is called only where
    the two are compared. A historical run promotes nothing, since the champion has learned from later days.
    """
    if version is None:
        return PromotionDecision(False, "there was nothing to train on")
    if is_historical:
        return PromotionDecision(False, f"a historical run promotes nothing; {version.facts['why']}", is_historical)
    state = promotion.read_registry_state(shop, task.name)
    if state.champion == version.number:
        return PromotionDecision(True, version.facts["why"])
    if version.number in state.rolled_back_versions:
        return PromotionDecision(False, f"version {version.number} was rolled back by hand")
    champion = _load_holdout_champion(shop, task, state.champion)
    return decide_promotion(task, training_data, version.facts, load_frame(), champion)


def promote_challenger(
    shop: Shop, task: Task, version: ModelVersion | None, decision: PromotionDecision
) -> tuple[dict[str, Any], ModelVersion | None]:
    """Carry out what `compare_with_champion` decided; the report, and the version to score with, if any.

    A historical run scores with its own version, others with the champion.
    """
    if version is None:
        return UNTRAINED_REPORT | {"why": decision.why}, None
    report = report_version(version, promoted=decision.promoted, why=decision.why)
    if decision.is_historical:
        return report, version
    mlflow_registry.set_alias(promotion.registry_uri(shop), task.name, "challenger", version.number)
    state = promotion.read_registry_state(shop, task.name)
    if decision.promoted:
        promotion.make_champion(
            shop, state, version.number, why=decision.why, action="promoted", metrics=version.facts["metrics"]
        )
        return report, version
    promotion.publish(shop, state)
    return report, promotion.open_published(shop, task.name)


def report_version(version: ModelVersion, *, promoted: bool, why: str) -> dict[str, Any]:
    """REPORT_FIELDS of a version, for a command's report."""
    summary = {**version.facts, "version": version.number, "promoted": promoted, "why": why}
    return {name: summary[name] for name in REPORT_FIELDS}


def _load_holdout_champion(shop: Shop, task: Task, champion_version: str | None) -> HoldoutChampion | None:
    """The champion as fitted before its own hold-out; its model is None where it was not evaluated."""
    if champion_version is None:
        return None
    with TemporaryDirectory(dir=shop.home, prefix=".rival-") as folder:
        holdout_folder = mlflow_registry.download_artifact(
            promotion.registry_uri(shop), task.name, champion_version, "judged", Path(folder)
        )
        try:
            return HoldoutChampion(champion_version, bundle.open_model(holdout_folder)[1] if holdout_folder else None)
        except bundle.InvalidBundle:
            # A learner that no longer exists cannot be compared.
            return HoldoutChampion(champion_version, None)
