"""Versions: a night's models on record, found again where nothing has changed, and the one that speaks tonight."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from customers.shop import Shop
from models import bundle, registry
from models.base import Model
from training import promote
from training.plans import Plan
from training.train import Trained
from training.train import train as learn

if TYPE_CHECKING:
    from pipelines.evening import Evening

Tell = Callable[[str], None]

SEED = 0
HOUSE = Path(__file__).parent.parent
#: The rooms whose code decides what a model becomes: a change in any of them is a reason to train again.
RECIPE = ("features", "models", "training")
#: What is reported of a plan that had nothing to learn from.
NOTHING: dict[str, Any] = {
    "version": None,
    "learner": None,
    "promoted": False,
    "fallback": True,
    "metrics": {},
    "baselines": {},
}
#: What a command reports of a version, out of the facts that its bundle carries.
REPORTED = ("version", "learner", "promoted", "why", "fallback", "metrics", "baselines")


@dataclass(frozen=True, slots=True)
class Version:
    """A model on record: its number, what it says of itself, and the model."""

    number: str
    facts: dict[str, Any]
    model: Model


def tonight(evening: Evening, chosen: Sequence[Plan], tell: Tell) -> dict[str, Version | None]:
    """Each plan's version of this evening: the one on record from the same sales and code, else a new one.

    None where there is not a single row to learn from. Plans learn side by side, since their libraries leave the
    interpreter alone for most of their time; what touches Feast or MLflow goes one after the other.
    """
    found = {plan.name: _found(evening, plan, tell) for plan in chosen}
    frames = {plan: evening.frame(plan) for plan in chosen if found[plan.name] is None}
    with ThreadPoolExecutor(max_workers=max(1, len(os.sched_getaffinity(0)))) as pool:
        lessons = {
            plan: pool.submit(learn, plan, evening.world, frame, seed=SEED, tell=tell)
            for plan, frame in frames.items()
            if len(frame)
        }
        trained = {plan: lesson.result() for plan, lesson in lessons.items()}
    return found | {plan.name: _recorded(evening, plan, lesson) for plan, lesson in trained.items()}


def appoint(evening: Evening, plan: Plan, version: Version | None) -> tuple[dict[str, Any], Version | None]:
    """Promote a version if it is no worse than the champion; the report, and who speaks tonight, if anybody.

    In a replay the version trained as of that day speaks, since the champion knows later days.
    """
    if version is None:
        return NOTHING | {"why": "there was nothing to learn from"}, None
    if evening.replay:
        why = f"a replay of an earlier day moves no champion; {version.facts['why']}"
        return report(version, promoted=False, why=why), version
    verdict = _verdict(evening, plan, version)
    told = report(version, promoted=verdict.promoted, why=verdict.why)
    registry.set_alias(promote.address(evening.shop), plan.name, "challenger", version.number)
    if not verdict.promoted:
        return told, champions(evening.shop, [plan])[plan.name]
    figures = version.facts["metrics"]
    promote.promote(evening.shop, plan.name, version=version.number, why=verdict.why, figures=figures)
    return told, version


def champions(shop: Shop, chosen: Sequence[Plan]) -> dict[str, Version]:
    """The champions of these plans as servers see them; a plan without one is left out."""
    found: dict[str, Version] = {}
    for plan in chosen:
        promote.follow(shop, plan.name)
        champion = bundle.open_champion(shop.home / "champions", plan.name)
        if champion is not None:
            found[plan.name] = Version(champion.version, champion.facts, champion.model)
    return found


def _verdict(evening: Evening, plan: Plan, version: Version) -> promote.Verdict:
    speaking = registry.alias(promote.address(evening.shop), plan.name, "champion")
    if speaking == version.number:
        return promote.Verdict(True, version.facts["why"])
    if version.number in promote.withdrawn(evening.shop, plan.name):
        return promote.Verdict(False, f"version {version.number} was rolled back by hand")
    rival = _rival(evening.shop, plan, speaking)
    return promote.decide(plan, evening.world, version.facts, evening.frame(plan), rival)


def report(version: Version, *, promoted: bool, why: str) -> dict[str, Any]:
    """What a command says of a version."""
    told = {**version.facts, "version": version.number, "promoted": promoted, "why": why}
    return {name: told[name] for name in REPORTED}


def _found(evening: Evening, plan: Plan, tell: Tell) -> Version | None:
    """The version on record from the same sales by the same code, if there is one."""
    shop = evening.shop
    number = registry.find(promote.address(shop), plan.name, fingerprint(evening, plan))
    if number is None:
        return None
    tell(f"{plan.name}: the same sales and the same code as version {number}")
    with TemporaryDirectory(dir=shop.home, prefix=".found-") as folder:
        lying = registry.download(promote.address(shop), plan.name, number, Path(folder) / "bundle")
        manifest, model = bundle.open_model(lying)
    return Version(number, manifest.facts, model)


def _rival(shop: Shop, plan: Plan, speaking: str | None) -> promote.Rival | None:
    """The champion's twin from before it learned from its last window; its model is None if nothing judged it."""
    if speaking is None:
        return None
    with TemporaryDirectory(dir=shop.home, prefix=".rival-") as folder:
        twin = registry.artifact(promote.address(shop), plan.name, speaking, "judged", Path(folder))
        try:
            return promote.Rival(speaking, bundle.open_model(twin)[1] if twin else None)
        except bundle.BadBundle:
            # A learner that the house no longer has: it cannot be asked, so it cannot be better.
            return promote.Rival(speaking, None)


def _recorded(evening: Evening, plan: Plan, trained: Trained) -> Version:
    facts = _facts(evening, plan, trained)
    with TemporaryDirectory(dir=evening.shop.home, prefix=".train-") as folder:
        number = _record(evening, plan, trained, facts, Path(folder))
    return Version(number, facts, trained.model)


def _record(evening: Evening, plan: Plan, trained: Trained, facts: dict[str, Any], folder: Path) -> str:
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
    figures = {facts["holdout"]: _side_by_side(facts["metrics"], facts["baselines"])} if trained.holdout else {}
    if trained.judged:
        others = [each for each in trained.contestants if each is not trained.judged]
        for cutoff, mine in trained.judged.earlier.items():
            theirs = {each.learner: _plain(each.earlier[cutoff]) for each in others}
            figures[cutoff.isoformat()] = _side_by_side(_plain(mine), theirs)
    version, _ = registry.record(
        promote.address(evening.shop), plan.name, folder / "served", params=params,
        metrics=figures,
        tags={"learner": trained.learner, "fingerprint": facts["fingerprint"], "service": plan.service},
        artifacts=artifacts,
    )  # fmt: skip
    return version


def _side_by_side(
    mine: Mapping[str, float | None], others: Mapping[str, Mapping[str, float | None]]
) -> dict[str, float]:
    """One cutoff's figures as a run holds them: the served learner's under their names, the others' under theirs."""
    theirs = {
        f"{learner.split('.')[1]}.{name}": value for learner, row in others.items() for name, value in row.items()
    }
    return {name: value for name, value in {**mine, **theirs}.items() if value is not None}


def _facts(evening: Evening, plan: Plan, trained: Trained) -> dict[str, Any]:
    """What a version says of itself, wherever it goes; nothing in it is about a customer."""
    calendar = evening.world.calendar
    return {
        "name": plan.name, "question": plan.question, "service": plan.service, "learner": trained.learner,
        "as_of": calendar.as_of.isoformat(), "first_day": calendar.first_day.isoformat(),
        "holdout": trained.holdout.isoformat() if trained.holdout else "", "timezone": calendar.timezone,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"), "seed": SEED, "fallback": trained.fallback,
        "why": trained.why, "columns": evening.features.columns(plan.service), "rows": trained.rows,
        "settings": plan.settings(evening.world) | getattr(trained.model, "settings", {}),
        "metrics": _plain(trained.metrics), "baselines": {n: _plain(m) for n, m in trained.baselines.items()},
        "ledger": evening.ledger, "revision": _revision(), "recipe": _recipe(),
        "fingerprint": fingerprint(evening, plan),
    }  # fmt: skip


def fingerprint(evening: Evening, plan: Plan) -> str:
    """The same for the same question over the same sales, as of the same moment, by the same code."""
    said = [
        plan.name,
        plan.settings(evening.world),
        evening.as_of.isoformat(),
        evening.ledger,
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
