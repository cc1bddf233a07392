"""Uplift: whom the shop's campaigns brought back, and whether that is known well enough to go by.

Every campaign that reached some customers and left others out is a trial, though seldom a fair one: who was reached
was chosen. So customers are compared with customers like them, the same comparison is made of the days before, and
the answer is `not enough evidence` wherever the figures could be chance or choice.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from customers import clock, mirror
from customers.persuasion import EVIDENCE, TOO_LITTLE, Finding
from customers.shop import Shop
from features import snapshot
from models import registry
from models.base import TooLittle
from models.trial import Trial, some
from models.unseen import Reach, Tried, tried
from models.uplift import Uplift
from pipelines import mailings, outlook, persuaded, pictures
from pipelines.evening import Evening, Tell, rehearsal
from pipelines.failures import NothingToDo
from pipelines.mailings import DAYS, Mailings
from training import labels, plans, promote, uplift
from training.plans import World
from training.uplift import Judged, Verdict

#: What contact may raise, and how it is called: a purchase within DAYS, and what is spent in them.
OUTCOMES = {"return": f"bought within {DAYS} days", "spend": f"spent within {DAYS} days"}
#: The days before a mailing are asked about with fewer folds: they only need to show that nothing happened.
PLACEBO_FOLDS = 3
PARTS = ("value", "low", "high")


@dataclass(frozen=True)
class Asked:
    """One outcome: its trial, what was held of each row, and what was found, after contact and before it."""

    trial: Trial
    seen: Tried
    found: Judged
    placebo: Judged | None = None

    @cached_property
    def verdict(self) -> Verdict:
        return uplift.verdict(self.found, self.placebo)


def run(shop: Shop, *, out: Path | None = None, tell: Tell, seed: int = 0) -> dict[str, Any]:
    """Look back on the shop's mailings; keep the finding, its table and its picture, and all of it in MLflow."""
    began, now = time.perf_counter(), clock.now(shop)
    mirror.refresh(shop)
    if snapshot.first_day(shop.home / "ledger", now, shop.timezone) is None:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    world, _ = outlook.of(shop, now)
    sent = mailings.find(shop, world)
    firsts = sent.began.values()
    moments = sorted({*sent.days, *firsts, *(mailings.before(day, world.calendar) for day in firsts)})
    tell(f"customers before {len(sent.days)} mailings ...")
    with rehearsal(shop, now, plans.plan("churn"), at=moments) as evening:
        frame = evening.frame(plans.plan("churn"))
        asked = _asked(evening, frame, sent, seed, tell)
    finding, model = _concluded(now, asked, seed)
    told = _told(shop, finding, asked, sent, world)
    files = _publish(told, asked, out or shop.home / "exports" / "uplift")
    note = _note(shop, told, files)
    persuaded.keep(shop, finding, model)
    return told | {
        "files": [str(path) for path in files],
        "run": note,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _asked(evening: Evening, frame: pd.DataFrame, sent: Mailings, seed: int, tell: Tell) -> dict[str, Asked]:
    """Every outcome that varies at all, asked about after the mailings and before them."""
    rows = sent.rows(frame, evening.world.calendar)
    rows = rows[some(rows["customer_key"].to_numpy(np.int64), seed)].reset_index(drop=True)
    contacted = sent.contacted(rows, evening.world.calendar)
    reach: Reach | None = None
    asked: dict[str, Asked] = {}
    for name, outcome in _outcomes(evening.world, rows).items():
        tell(f"who {OUTCOMES[name]} because of them ...")
        trial = Trial.of(rows, pd.DataFrame({"contacted": contacted, "outcome": outcome}))
        reach = reach or Reach.of(trial, seed=seed)
        seen = tried(trial, reach, seed=seed)
        asked[name] = Asked(trial, seen, uplift.judged(trial, seen, seed=seed))
    tell("whether they had been alike in the days before ...")
    earlier = _earlier(evening, frame, rows, contacted, sent, asked, seed) if asked else {}
    return {name: replace(one, placebo=earlier.get(name)) for name, one in asked.items()}


def _outcomes(world: World, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """What became of each row; a shop without prices has no spend."""
    quiet = labels.gone_quiet(rows, world.purchases, days=DAYS, calendar=world.calendar)
    spent = labels.spent_next(rows, world.purchases, days=DAYS, calendar=world.calendar)
    found = {"return": 1 - quiet, "spend": uplift.winsorised(np.nan_to_num(spent))}
    return {name: outcome for name, outcome in found.items() if len(outcome) and np.ptp(outcome) > 0}


def _earlier(
    evening: Evening, frame: pd.DataFrame, rows: pd.DataFrame, contacted: np.ndarray, sent: Mailings,
    asked: dict[str, Asked], seed: int,
) -> dict[str, Judged]:  # fmt: skip
    """The same question of the same customers in the month before the mailing began, unless reached in it."""
    calendar, kept = evening.world.calendar, next(iter(asked.values())).seen.kept
    then = {day: mailings.before(first, calendar) for day, first in sent.began.items()}
    told = pd.DataFrame({
        "customer_key": rows["customer_key"], "as_of": rows["as_of"].map(then).astype(frame["as_of"].dtype),
        "row": np.arange(len(rows)),
    })[kept & ~sent.otherwise(rows, calendar)]  # fmt: skip
    before = frame.merge(told, on=["customer_key", "as_of"])
    row = before.pop("row").to_numpy(np.int64)
    reach: Reach | None = None
    found: dict[str, Judged] = {}
    for name, outcome in _outcomes(evening.world, before).items():
        try:
            trial = Trial.of(before, pd.DataFrame({"contacted": contacted[row], "outcome": outcome}))
            reach = reach or Reach.of(trial, seed=seed, folds=PLACEBO_FOLDS)
            seen = tried(trial, reach, seed=seed)
        except TooLittle:
            return {}
        if name in asked:
            foretold = {learner: effect[row] for learner, effect in asked[name].seen.effects.items()}
            found[name] = uplift.judged(trial, replace(seen, effects=foretold), drawn=asked[name].found.draws)
    return found


def _concluded(now: datetime, asked: dict[str, Asked], seed: int) -> tuple[Finding, Uplift | None]:
    """The first outcome that is known to be raised speaks for the shop: a return, for its value comes with it."""
    held = next((name for name, one in asked.items() if one.verdict.holds), None)
    if held is None:
        return Finding(now.isoformat(), TOO_LITTLE, _doubts(asked), None, DAYS, None), None
    one = asked[held]
    model = Uplift.of(one.trial, one.seen, seed=seed)
    return Finding(now.isoformat(), EVIDENCE, f"{held}: {one.verdict.why[0]}", held, DAYS, None), model


def _doubts(asked: dict[str, Asked]) -> str:
    """Every doubt once, with the outcomes that it is about."""
    about: dict[str, list[str]] = {}
    for name, one in asked.items():
        for doubt in one.verdict.why:
            about.setdefault(doubt, []).append(name)
    told = "; ".join(f"{' and '.join(names)}: {doubt}" for doubt, names in about.items())
    return told or "nobody bought anything in the days after the mailings, or everybody did"


def _told(shop: Shop, finding: Finding, asked: dict[str, Asked], sent: Mailings, world: World) -> dict[str, Any]:
    about = {
        name: {
            "verdict": one.verdict.verdict, "why": one.verdict.why,
            "unit": "chance" if name == "return" else shop.currency,
            "contacted": one.found.contacted, "others": one.found.others,
            "figures": _figures(one.found), "placebo": _figures(one.placebo) if one.placebo else None,
        }
        for name, one in asked.items()
    }  # fmt: skip
    return {
        "as_of": finding.as_of, "verdict": finding.verdict, "why": finding.why, "outcome": finding.outcome,
        "days": DAYS, "mailings": [str(world.calendar.day_of(day)) for day in sent.began.values()],
        "left_out": sent.left_out, "outcomes": about,
    }  # fmt: skip


def _figures(found: Judged) -> dict[str, dict[str, float | None]]:
    told = {name: {part: getattr(figure, part) for part in PARTS} for name, figure in found.figures.items()}
    return {
        name: {part: None if np.isnan(each) else float(each) for part, each in parts.items()}
        for name, parts in told.items()
    }


def _publish(told: dict[str, Any], asked: dict[str, Asked], folder: Path) -> list[Path]:
    """The table as CSV, all of it as JSON, and the Qini curves where they can be drawn; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table, whole = folder / "uplift.csv", folder / "uplift.json"
    rows = [
        {"outcome": name, "asked": when, "figure": figure, **value}
        for name, about in told["outcomes"].items()
        for when, figures in (("after", about["figures"]), ("before", about["placebo"] or {}))
        for figure, value in figures.items()
    ]
    pd.DataFrame(rows, columns=["outcome", "asked", "figure", "value", "low", "high"]).to_csv(table, index=False)
    whole.write_text(json.dumps(told, indent=1), encoding="utf-8")
    drawn = {OUTCOMES[name]: one.found.curves for name, one in asked.items()}
    picture = pictures.qini(drawn, folder / "uplift.png", title=f"whom contact brings back: {told['verdict']}")
    return [table, whole, *([picture] if picture else [])]


def _note(shop: Shop, told: dict[str, Any], files: list[Path]) -> str:
    metrics = {
        f"{name}.{when}.{figure}.{part}".removesuffix(".value"): each
        for name, about in told["outcomes"].items()
        for when, figures in (("after", about["figures"]), ("before", about["placebo"] or {}))
        for figure, value in figures.items()
        for part, each in value.items()
        if each is not None
    }
    settings = {"verdict": told["verdict"], "outcome": told["outcome"], "mailings": ", ".join(told["mailings"])}
    return registry.note(
        promote.address(shop), "uplift", metrics=metrics, params=settings,
        artifacts={path.name: path for path in files},
    )  # fmt: skip
