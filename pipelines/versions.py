"""Versions: a night's models on record, found again where nothing has changed, and the one that speaks tonight."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
from customers.shop import Shop
from models import bundle, registry
from models.base import Model
from training import plans, promote
from training.plans import Plan
from training.train import Trained
from training.train import train as learn

from pipelines.failures import NothingToDo

if TYPE_CHECKING:
    from pipelines.night import Evening

Tell = Callable[[str], None]
SEED = 0
HOUSE = Path(__file__).parent.parent


def appoint(tonight: Evening, plan: Plan, tell: Tell) -> tuple[dict[str, Any], tuple[str, Model]]:
    """Train or find tonight's version, promote it if it is no worse, and say who speaks: the report, the speaker.

    In a replay the version trained as of that day speaks, since the champion knows later days.
    """
    told, challenger = _version(tonight, plan, tell)
    if tonight.replay:
        return told | {"promoted": False, "why": f"a replay of an earlier day moves no champion; {told['why']}"}, challenger
    if not told["promoted"]:
        return told, champion(tonight.shop, plan)
    promote.promote(tonight.shop, plan.name, version=told["version"], why=told["why"], figures=told["metrics"])
    return told, challenger


def challenge(tonight: Evening, plan: Plan, tell: Tell) -> dict[str, Any]:
    """Train or find tonight's version and register it as challenger."""
    told, _ = _version(tonight, plan, tell)
    registry.set_alias(promote.address(tonight.shop), plan.name, "challenger", told["version"])
    return told


def champion(shop: Shop, plan: Plan) -> tuple[str, Model]:
    """The champion as servers see it: its version and the model."""
    promote.follow(shop, plan.name)
    found = bundle.open_champion(shop.home / "champions", plan.name)
    if found is None:
        raise NothingToDo(f"{plan.name} has no champion yet; run: regulars run")
    return found.version, found.model
