"""Promote: a challenger becomes champion only by being no worse on the same unseen days, and every move is logged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from customers import champions
from customers.shop import Shop, ShopError
from models import bundle, registry
from models.base import Model, Unfit
from training.plans import PLANS, Incomparable, Plan, World
from training.train import examine, not_worse, too_alike

ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger may speak for the shop, and why in words."""

    promoted: bool
    why: str


def address(shop: Shop) -> str:
    """Where the registry is: MLflow's own variable, else a database in the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{shop.home / 'mlflow' / 'mlflow.db'}"


@dataclass(frozen=True, slots=True)
class Rival:
    """The champion as it was before it learned from its last window; no model where nothing judged it."""

    version: str
    model: Model | None


def decide(plan: Plan, world: World, facts: Mapping[str, Any], frame: pd.DataFrame, rival: Rival | None) -> Verdict:
    """Compare a challenger (its facts) with the champion's judged twin on the challenger's own holdout.

    Neither of the two has seen the days they are compared on. Without a champion the challenger takes the place.
    """
    why = facts["why"]
    if rival is None:
        return Verdict(True, f"the first of its name; {why}")
    if rival.model is None:
        return Verdict(True, f"version {rival.version} cannot be judged; {why}")
    if facts["fallback"]:
        return Verdict(False, f"the champion stays; {why}")
    try:
        mine, theirs = facts["metrics"], examine(plan, world, frame, rival.model)
    except (Incomparable, Unfit) as reason:
        return Verdict(True, f"version {rival.version} cannot be compared: {reason}; {why}")
    figures = (
        f"{plan.decisive} {mine[plan.decisive]:.4f} against {theirs[plan.decisive]:.4f} of version {rival.version}"
    )
    if not not_worse(plan, mine, theirs):
        return Verdict(False, f"the champion stays: {figures}")
    if alike := too_alike(plan, mine, theirs):
        return Verdict(False, f"the champion stays: lists are too much the same for everyone, {alike}")
    return Verdict(True, f"{figures}; {why}")


def promote(
    shop: Shop, name: str, *, version: str | None = None, why: str, action: str = "promoted",
    figures: dict[str, Any] | None = None,
) -> str:  # fmt: skip
    """Make a version the champion (the newest challenger, if none is named) and publish it to the servers.

    The log is written first, then the pointer that servers follow, and the challenger keeps its name until both are:
    a kill in between is healed by doing it again.
    """
    uri = address(shop)
    version = version or registry.alias(uri, name, "challenger")
    if version is None:
        raise ShopError(f"{name} has no challenger; run: regulars train {name}")
    registry.facts(uri, name, version)  # raises NoVersion before anything is written to the log
    previous = registry.alias(uri, name, "champion")
    if previous != version:
        if not _begun(shop, name, (version, previous, action)):
            champions.append(
                shop, name=name, version=version, previous=previous, action=action, why=why, metrics=figures or {}
            )
        registry.set_alias(uri, name, "champion", version)
    follow(shop, name)
    if registry.alias(uri, name, "challenger") == version:
        registry.set_alias(uri, name, "challenger", None)
    return version


def rollback(shop: Shop, name: str) -> str:
    """Go back to the champion before this one, as the promotion log tells it; again goes back one more."""
    current = registry.alias(address(shop), name, "champion")
    moves = champions.history(shop, name)
    if moves and (moves[-1].version, moves[-1].action) == (current, ROLLED_BACK) and _published(shop, name) != current:
        return follow(shop, name) or moves[-1].version  # killed on its last step: not one more back, this one
    earlier = [move.previous for move in moves if move.version == current and move.action != ROLLED_BACK]
    if not earlier or earlier[-1] is None:
        raise ShopError(f"{name} has no earlier champion to go back to; see: regulars models")
    return promote(shop, name, version=earlier[-1], why=f"rolled back from version {current}", action=ROLLED_BACK)


def withdrawn(shop: Shop, name: str) -> set[str]:
    """Versions that somebody rolled back from and nobody promoted since: a night leaves them alone."""
    gone: set[str] = set()
    for move in champions.history(shop, name):
        gone.discard(move.version)
        if move.action == ROLLED_BACK and move.previous:
            gone.add(move.previous)
    return gone


def follow(shop: Shop, name: str) -> str | None:
    """Publish whoever the registry calls champion, also one that was named so by hand in MLflow; its version."""
    uri = address(shop)
    version = registry.alias(uri, name, "champion")
    if version is None or version == _published(shop, name):
        return version
    with TemporaryDirectory(dir=shop.home, prefix=".promote-", suffix=f".{os.getpid()}") as folder:
        bundle.publish(
            registry.download(uri, name, version, Path(folder) / "bundle"),
            shop.home / "champions",
            name,
            version,
        )
    return version


def overview(shop: Shop) -> list[dict[str, Any]]:
    """Every model's champion: version, learner, the day it was trained as of, and why it was promoted."""
    rows = []
    for plan in PLANS:
        version = registry.alias(address(shop), plan.name, "champion")
        if version is not None:
            facts = registry.facts(address(shop), plan.name, version)
            moves = [entry for entry in champions.history(shop, plan.name) if entry.version == version]
            rows.append({
                "name": plan.name, "version": version, "learner": facts.tags["learner"],
                "since": moves[-1].at.isoformat(timespec="minutes") if moves else None,
                "as_of": facts.params["as_of"], "why": moves[-1].why if moves else "named champion by hand",
            })  # fmt: skip
    return rows


def _begun(shop: Shop, name: str, move: tuple[str, str | None, str]) -> bool:
    """Whether the log ends with this very move: whoever wrote it was killed before the move was made."""
    moves = champions.history(shop, name)
    return bool(moves) and (moves[-1].version, moves[-1].previous, moves[-1].action) == move


def _published(shop: Shop, name: str) -> str | None:
    try:
        champion = bundle.open_champion(shop.home / "champions", name)
    except bundle.BadBundle:
        return None
    return champion.version if champion else None
