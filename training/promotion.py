"""Promotion and rollback: which version of a model is the champion, in the registry and for servers; moves are logged.

Whether a new version is to become champion is decided in `training/challenger.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from customers.scores import promotion_log
from customers.scores.promotion_log import Promotion
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from models.base import Model
from models.registry import bundle, champion_checks, mlflow_registry
from training.tasks.all_tasks import TASKS
from training.tasks.task import Task

ROLLED_BACK = "rolled back"


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
        published=_intact_version(shop, name),
        history=promotion_log.load_history(shop, name),
    )


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
    return make_champion(shop, state, version, why=why, action=action, metrics=metrics or {})


def rollback(shop: Shop, name: str) -> str:
    """Go back to the champion before the present one in the promotion log; its version. Repeated, one more back.

    Raises ShopError where the log has no earlier champion.
    """
    state = read_registry_state(shop, name)
    current, history = state.champion, state.history
    if history and (history[-1].version, history[-1].action) == (current, ROLLED_BACK) and state.published != current:
        return publish(shop, state) or history[-1].version  # killed on its last step: finish that one, go no further
    earlier = [entry.previous for entry in history if entry.version == current and entry.action != ROLLED_BACK]
    if not earlier or earlier[-1] is None:
        raise ShopError(f"{name} has no earlier champion to go back to; see: regulars models")
    why = f"rolled back from version {current}"
    return make_champion(shop, state, earlier[-1], why=why, action=ROLLED_BACK, metrics={})


def publish_champion(shop: Shop, name: str) -> str | None:
    """Publish the registry's champion, also one whose alias was set by hand in MLflow; its version."""
    return publish(shop, read_registry_state(shop, name))


def make_champion(
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
    publish(shop, replace(state, champion=version))
    if state.challenger == version:
        mlflow_registry.set_alias(uri, name, "challenger", None)
    return version


def publish(shop: Shop, state: RegistryState) -> str | None:
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


def _intact_version(shop: Shop, name: str) -> str | None:
    """The version that servers open; None for none, or for a copy that is damaged and must be made again."""
    champions = shop.home / "champions"
    try:
        pointer = bundle.read_pointer(champions, name)
        manifest = bundle.verify(champions / name / pointer.version) if pointer else None
    except bundle.InvalidBundle:
        return None
    return pointer.version if pointer and manifest and manifest.sha256 == pointer.sha256 else None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered model: its version number, its facts (metrics, settings, fallback ...), and the model."""

    number: str
    facts: dict[str, Any]
    model: Model


def load_champions(shop: Shop, tasks: Sequence[Task]) -> dict[str, ModelVersion]:
    """The champions of these tasks as servers open them; a task without one is left out."""
    versions: dict[str, ModelVersion] = {}
    for task in tasks:
        publish_champion(shop, task.name)
        champion = open_published(shop, task.name)
        if champion is not None:
            versions[task.name] = champion
    return versions


def open_published(shop: Shop, name: str) -> ModelVersion | None:
    """The champion of a model as servers open it; None where there is none."""
    champion = bundle.open_champion(shop.home / "champions", name)
    return ModelVersion(champion.version, champion.facts, champion.model) if champion else None
