"""Promotion: a challenger becomes champion if it is not worse on the same hold-out, and every move is logged.

What counts as not worse (ties included) and the guardrails are in `training/train.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from customers.scores import promotion_log
from customers.scores.promotion_log import Promotion
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from models.base import MissingFeatures, Model
from models.registry import bundle, champion_checks, mlflow_registry
from training.tasks.all_tasks import TASKS
from training.tasks.task import Incomparable, Task, TrainingData
from training.train import evaluate, guardrail_violation, is_not_worse

ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """Whether the challenger becomes champion, and why in words.

    In a historical run (`is_historical`) nothing at all is changed.
    """

    promoted: bool
    why: str
    is_historical: bool = False


def registry_uri(shop: Shop) -> str:
    """Address of the model registry: MLFLOW_TRACKING_URI, else a database in the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{shop.home / 'mlflow' / 'mlflow.db'}"


@dataclass(frozen=True, slots=True)
class RegistryState:
    """One model as the registry, the servers' pointer and the promotion log have it, read once for one decision.

    `champion` and `challenger` are versions by alias, `published` is the version that servers open (None for none, or
    one that does not verify), `history` is the promotion log of this model, oldest first.
    """

    name: str
    champion: str | None
    challenger: str | None
    published: str | None
    history: Sequence[Promotion]

    @property
    def rolled_back_versions(self) -> set[str]:
        """Versions that were rolled back from and not promoted since: a nightly run does not promote them again."""
        versions: set[str] = set()
        for entry in self.history:
            versions.discard(entry.version)
            if entry.action == ROLLED_BACK and entry.previous:
                versions.add(entry.previous)
        return versions

    def is_last_logged(self, version: str, action: str) -> bool:
        """Whether the log ends with this move from the present champion: its run was killed before the alias moved."""
        entries = [(entry.version, entry.previous, entry.action) for entry in self.history[-1:]]
        return entries == [(version, self.champion, action)]


def read_registry_state(shop: Shop, name: str) -> RegistryState:
    """Read one model's aliases, published version and promotion log."""
    uri = registry_uri(shop)
    return RegistryState(
        name,
        champion=mlflow_registry.version_by_alias(uri, name, "champion"),
        challenger=mlflow_registry.version_by_alias(uri, name, "challenger"),
        published=_published_version(shop, name),
        history=promotion_log.load_history(shop, name),
    )


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


def promote(
    shop: Shop,
    name: str,
    *,
    version: str | None = None,
    why: str,
    action: str = "promoted",
    metrics: dict[str, Any] | None = None,
) -> str:
    """Make a version the champion (the newest challenger, if none is named) and publish it to the servers.

    Raises ShopError where no version is named and there is no challenger, UnknownVersion for one that is not
    registered, both before anything is written.
    """
    state = read_registry_state(shop, name)
    version = version or state.challenger
    if version is None:
        raise ShopError(f"{name} has no challenger; run: regulars train {name}")
    return _make_champion(shop, state, version, why=why, action=action, metrics=metrics or {})


def rollback(shop: Shop, name: str) -> str:
    """Go back to the champion before the present one in the promotion log; its version. Repeated, one more back.

    Raises ShopError where the log has no earlier champion.
    """
    state = read_registry_state(shop, name)
    current, history = state.champion, state.history
    if history and (history[-1].version, history[-1].action) == (current, ROLLED_BACK) and state.published != current:
        return _publish(shop, state) or history[-1].version  # killed on its last step: finish that one, go no further
    earlier = [entry.previous for entry in history if entry.version == current and entry.action != ROLLED_BACK]
    if not earlier or earlier[-1] is None:
        raise ShopError(f"{name} has no earlier champion to go back to; see: regulars models")
    why = f"rolled back from version {current}"
    return _make_champion(shop, state, earlier[-1], why=why, action=ROLLED_BACK, metrics={})


def publish_champion(shop: Shop, name: str) -> str | None:
    """Publish the registry's champion, also one whose alias was set by hand in MLflow; its version."""
    return _publish(shop, read_registry_state(shop, name))


def _make_champion(
    shop: Shop, state: RegistryState, version: str, *, why: str, action: str, metrics: dict[str, Any]
) -> str:
    """Log the move, set the champion alias, publish, and free the challenger alias last, in this order.

    A run that is killed in between is completed by promoting the same version again.
    """
    uri, name = registry_uri(shop), state.name
    mlflow_registry.get_version(uri, name, version)  # raises UnknownVersion before anything is written to the log
    if state.champion != version:
        if not state.is_last_logged(version, action):
            promotion_log.append_promotion(
                shop, name=name, version=version, previous=state.champion, action=action, why=why, metrics=metrics
            )
        mlflow_registry.set_alias(uri, name, "champion", version)
    _publish(shop, replace(state, champion=version))
    if state.challenger == version:
        mlflow_registry.set_alias(uri, name, "challenger", None)
    return version


def _publish(shop: Shop, state: RegistryState) -> str | None:
    """Copy the champion's bundle to where servers open it, unless it is published already; its version."""
    version = state.champion
    if version is None or version == state.published:
        return version
    with TemporaryDirectory(dir=shop.home, prefix=".promote-", suffix=f".{os.getpid()}") as folder:
        bundle.publish(
            mlflow_registry.download_bundle(registry_uri(shop), state.name, version, Path(folder) / "bundle"),
            shop.home / "champions",
            state.name,
            version,
        )
    return version


def summarise_champions(shop: Shop) -> list[dict[str, Any]]:
    """Every model's champion, one dict each: name, version, learner, since, as_of, why, refused.

    `since` is when it was promoted, `as_of` the cutoff it was trained at, and `refused` why servers do not open it
    and serve with the one before; None where they do.
    """
    rows = []
    for task in TASKS:
        version = mlflow_registry.version_by_alias(registry_uri(shop), task.name, "champion")
        if version is not None:
            facts = mlflow_registry.get_version(registry_uri(shop), task.name, version)
            moves = [entry for entry in promotion_log.load_history(shop, task.name) if entry.version == version]
            rows.append(
                {
                    "name": task.name,
                    "version": version,
                    "learner": facts.tags["learner"],
                    "since": moves[-1].at.isoformat(timespec="minutes") if moves else None,
                    "as_of": facts.params["as_of"],
                    "why": moves[-1].why if moves else "named champion by hand",
                    "refused": champion_checks.read_refusal(shop.home / "champions", task.name),
                }
            )
    return rows


def _published_version(shop: Shop, name: str) -> str | None:
    try:
        champion = bundle.open_champion(shop.home / "champions", name)
    except bundle.InvalidBundle:
        return None
    return champion.version if champion else None


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
class ModelVersion:
    """A registered model: its version number, its facts (metrics, settings, fallback ...), and the model."""

    number: str
    facts: dict[str, Any]
    model: Model


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
    state = read_registry_state(shop, task.name)
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
    mlflow_registry.set_alias(registry_uri(shop), task.name, "challenger", version.number)
    state = read_registry_state(shop, task.name)
    if decision.promoted:
        _make_champion(
            shop, state, version.number, why=decision.why, action="promoted", metrics=version.facts["metrics"]
        )
        return report, version
    _publish(shop, state)
    return report, _open_published(shop, task.name)


def load_champions(shop: Shop, tasks: Sequence[Task]) -> dict[str, ModelVersion]:
    """The champions of these tasks as servers open them; a task without one is left out."""
    versions: dict[str, ModelVersion] = {}
    for task in tasks:
        publish_champion(shop, task.name)
        champion = _open_published(shop, task.name)
        if champion is not None:
            versions[task.name] = champion
    return versions


def _open_published(shop: Shop, name: str) -> ModelVersion | None:
    champion = bundle.open_champion(shop.home / "champions", name)
    return ModelVersion(champion.version, champion.facts, champion.model) if champion else None


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
            registry_uri(shop), task.name, champion_version, "judged", Path(folder)
        )
        try:
            return HoldoutChampion(champion_version, bundle.open_model(holdout_folder)[1] if holdout_folder else None)
        except bundle.InvalidBundle:
            # A learner that no longer exists cannot be compared.
            return HoldoutChampion(champion_version, None)
