"""Versions: a night's models on record, found again where nothing has changed, and the one that speaks tonight."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from customers.shop import Shop
from models import bundle, registry
from models.base import Model
from pipelines.failures import NothingToDo
from training import promote
from training.plans import Plan
from training.train import Trained
from training.train import train as learn

if TYPE_CHECKING:
    from pipelines.night import Evening

Tell = Callable[[str], None]
Speaker = tuple[str, Model]

SEED = 0
HOUSE = Path(__file__).parent.parent
#: The rooms whose code decides what a model becomes: a change in any of them is a reason to train again.
RECIPE = ("features", "models", "training")
#: What a command reports of a version, out of the facts that its bundle carries.
REPORTED = ("version", "learner", "promoted", "why", "fallback", "metrics", "baselines")


def appoint(tonight: Evening, plan: Plan, tell: Tell) -> tuple[dict[str, Any], Speaker]:
    """Train or find tonight's version, promote it if it is no worse; the report, and who speaks tonight.

    In a replay the version trained as of that day speaks, since the champion knows later days.
    """
    version, facts, model = _version(tonight, plan, tell)
    if tonight.replay:
        why = f"a replay of an earlier day moves no champion; {facts['why']}"
        return _report(version, facts, promoted=False, why=why), (version, model)
    speaking = registry.alias(promote.address(tonight.shop), plan.name, "champion")
    if speaking == version:
        verdict = promote.Verdict(True, facts["why"])
    else:
        verdict = promote.decide(plan, tonight.world, facts, tonight.frame(plan), _rival(tonight.shop, plan, speaking))
    report = _report(version, facts, promoted=verdict.promoted, why=verdict.why)
    if not verdict.promoted:
        return report, champion(tonight.shop, plan)
    promote.promote(tonight.shop, plan.name, version=version, why=verdict.why, figures=facts["metrics"])
    return report, (version, model)


def challenge(tonight: Evening, plan: Plan, tell: Tell) -> dict[str, Any]:
    """Train or find tonight's version and name it challenger; who speaks for the shop does not change."""
    version, facts, _ = _version(tonight, plan, tell)
    registry.set_alias(promote.address(tonight.shop), plan.name, "challenger", version)
    return _report(version, facts, promoted=False, why=facts["why"])


def champion(shop: Shop, plan: Plan) -> Speaker:
    """The champion as servers see it: its version and the model."""
    promote.follow(shop, plan.name)
    found = bundle.open_champion(shop.home / "champions", plan.name)
    if found is None:
        raise NothingToDo(f"{plan.name} has no champion yet; run: regulars run")
    return found.version, found.model


def _version(tonight: Evening, plan: Plan, tell: Tell) -> tuple[str, dict[str, Any], Model]:
    """Tonight's version: trained and recorded, or the one recorded before from the same sales by the same code."""
    uri = promote.address(tonight.shop)
    fingerprint = _fingerprint(tonight, plan)
    with TemporaryDirectory(dir=tonight.shop.home, prefix=".train-") as folder:
        found = registry.find(uri, plan.name, fingerprint)
        if found is None:
            trained = learn(plan, tonight.world, tonight.frame(plan), seed=SEED, tell=tell)
            facts = _facts(tonight, plan, trained, fingerprint)
            found = _record(tonight, plan, trained, facts, Path(folder))
            return found, facts, trained.model
        tell(f"{plan.name}: the same sales and the same code as version {found}")
        manifest, model = bundle.open_model(registry.download(uri, plan.name, found, Path(folder) / "found"))
        return found, manifest.facts, model


def _rival(shop: Shop, plan: Plan, speaking: str | None) -> promote.Rival | None:
    """The champion's twin from before it learned from its last window; its model is None if nothing judged it."""
    if speaking is None:
        return None
    with TemporaryDirectory(dir=shop.home, prefix=".rival-") as folder:
        twin = registry.artifact(promote.address(shop), plan.name, speaking, "judged", Path(folder))
        return promote.Rival(speaking, bundle.open_model(twin)[1] if twin else None)


def _record(tonight: Evening, plan: Plan, trained: Trained, facts: dict[str, Any], folder: Path) -> str:
    bundle.write(trained.model, folder / "served", facts=facts)
    artifacts: dict[str, Any] = {"features.json": facts["columns"]}
    if trained.judged:
        bundle.write(trained.judged.model, folder / "judged", facts=facts)
        artifacts |= {f"judged/{file.name}": file for file in (folder / "judged").iterdir()}
    kept = (
        "as_of",
        "seed",
        "first_day",
        "holdout",
        "timezone",
        "service",
        "ledger",
        "revision",
        "recipe",
        "settings",
    )
    params = {name: facts[name] for name in kept} | {f"rows_{name}": count for name, count in trained.rows.items()}
    figures = {f"{learner.split('.')[1]}.{name}": value
               for learner, row in facts["baselines"].items() for name, value in row.items()}  # fmt: skip
    figures = {name: value for name, value in (facts["metrics"] | figures).items() if value is not None}
    version, _ = registry.record(
        promote.address(tonight.shop), plan.name, folder / "served", params=params,
        metrics={facts["holdout"]: figures} if figures else {},
        tags={"learner": trained.learner, "fingerprint": facts["fingerprint"], "service": plan.service},
        artifacts=artifacts,
    )  # fmt: skip
    return version


def _facts(tonight: Evening, plan: Plan, trained: Trained, fingerprint: str) -> dict[str, Any]:
    """What a version says of itself, wherever it goes; nothing in it is about a customer."""
    calendar = tonight.world.calendar
    return {
        "name": plan.name, "question": plan.question, "service": plan.service, "learner": trained.learner,
        "as_of": calendar.as_of.isoformat(), "first_day": calendar.first_day.isoformat(),
        "holdout": trained.holdout.isoformat() if trained.holdout else "", "timezone": calendar.timezone,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"), "seed": SEED, "fallback": trained.fallback,
        "why": trained.why, "columns": tonight.features.columns(plan.service), "rows": trained.rows,
        "settings": plan.settings(tonight.world) | getattr(trained.model, "settings", {}),
        "metrics": _plain(trained.metrics), "baselines": {n: _plain(m) for n, m in trained.baselines.items()},
        "ledger": tonight.ledger, "revision": _revision(), "recipe": _recipe(), "fingerprint": fingerprint,
    }  # fmt: skip


def _report(version: str, facts: Mapping[str, Any], *, promoted: bool, why: str) -> dict[str, Any]:
    told = {**facts, "version": version, "promoted": promoted, "why": why}
    return {name: told[name] for name in REPORTED}


def _fingerprint(tonight: Evening, plan: Plan) -> str:
    """The same for the same question over the same sales, as of the same moment, by the same code."""
    said = [
        plan.name,
        plan.settings(tonight.world),
        tonight.as_of.isoformat(),
        tonight.ledger,
        _recipe(),
        SEED,
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def _recipe() -> str:
    files = sorted(path for room in RECIPE for path in (HOUSE / room).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _revision() -> str:
    """The commit that the code stands on, where it is a checkout."""
    asked = ["git", "-C", str(HOUSE), "rev-parse", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a checkout"


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as JSON holds them: what could not be measured is None."""
    return {name: round(float(value), 6) if math.isfinite(value) else None for name, value in figures.items()}
