"""Backtest: what the shop would have been told at earlier moments, by its model and by every rival, and what came.

At each cutoff the model is made again from what was known then, never taken from the champion; every rival sees the
same customers, the same products and the same days. The home is left as it was, but for a run in MLflow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from customers import clock
from customers.shop import Shop
from features import snapshot
from models import registry, rivals
from models.base import Model, TooLittle
from pipelines import pictures
from pipelines.evening import Evening, Tell, rehearsal
from pipelines.failures import NothingToDo, WrongUsage
from training import backtest, exams, labels, plans, promote
from training.exams import Exam, Terms
from training.plans import Plan
from training.rivals import ENTRANTS, Entrant, choose
from training.train import refit, rehearse

#: How the baselines of the night are called beside the rivals.
NAMES = {
    "bestsellers.Popularity": "popularity, lately",
    "bestsellers.DecayedFrequency": "decayed frequency",
    "offers.AffinityRate": "affinity x rate",
}
#: How deep lists are asked for: the figures look at 10 and 20 places.
DEPTH = 20
#: What the model's own candidates would come to in the best order there is.
CEILING = "best order of the model's candidates"
#: Columns of an offer's appeal that rank by themselves, each followed by what breaks its ties.
PLAIN = {"affinity": ("affinity_84d", "popularity"), "popularity": ("popularity", "popularity")}


@dataclass(frozen=True)
class Backtest:
    """What a backtest found: the long table (training.backtest.COLUMNS), and what it was made of."""

    name: str
    model: str
    cutoffs: list[str]
    table: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(shop: Shop, name: str, *, cutoffs: int, every: int | None, out: Path | None, tell: Tell) -> dict[str, Any]:
    """Backtest `recommender` or `offers`; write the table and its picture to a folder, and all of it to MLflow."""
    kinds = {"recommender": recommender, "offers": offers}
    if name not in kinds:
        raise WrongUsage(f"there is no backtest of {name}; there are {', '.join(kinds)}")
    began = time.perf_counter()
    found = kinds[name](shop, cutoffs=cutoffs, every=every, tell=tell)
    folder = out or shop.home / "exports" / f"backtest-{name}"
    files = publish(found, folder)
    told = {
        "name": name, "model": found.model, "cutoffs": found.cutoffs, "settings": found.settings,
        "notes": found.notes, "files": [str(path) for path in files],
        "seconds": round(time.perf_counter() - began, 1), "table": records(found.table),
    }  # fmt: skip
    return told | {"run": _note(shop, found, files)}


def publish(found: Backtest, folder: Path) -> list[Path]:
    """Write the table as CSV and JSON, and a picture where one can be drawn; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table, told = folder / f"{found.name}.csv", folder / f"{found.name}.json"
    found.table.to_csv(table, index=False)
    about = {"cutoffs": found.cutoffs, "settings": found.settings, "notes": found.notes}
    told.write_text(json.dumps(about | {"table": records(found.table)}, indent=1, default=str), encoding="utf-8")
    picture = pictures.backtest(found.table, folder / f"{found.name}.png", title=f"{found.name}: {_span(found)}")
    return [table, told, *([picture] if picture else [])]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON holds them: what is not known is None."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _note(shop: Shop, found: Backtest, files: list[Path]) -> str:
    everyone = found.table[found.table["segment"] == backtest.EVERYONE].dropna(subset=["value"])
    figures = {
        f"{_plain(method)}.{figure}": float(value)
        for method, figure, value in everyone[["method", "figure", "value"]].itertuples(index=False)
    }
    settings = {_plain(method): chosen for method, chosen in found.settings.items()}
    params = {"cutoffs": ", ".join(found.cutoffs), "model": found.model, **settings}
    return registry.note(
        promote.address(shop), f"backtest-{found.name}", params=params, metrics=figures,
        artifacts={path.name: path for path in files},
    )  # fmt: skip


def _plain(method: str) -> str:
    """A method's name as MLflow lets metrics be called."""
    return method.replace(",", "").replace(" ", "_")


def _span(found: Backtest) -> str:
    return found.cutoffs[0] if len(found.cutoffs) == 1 else f"{found.cutoffs[0]} to {found.cutoffs[-1]}"


def _cutoffs(shop: Shop, count: int, every: int, *, ahead: int, behind: int) -> list[datetime]:
    """Starts of days, oldest first: `ahead` days are known after each, and `behind` days before the first."""
    if count < 1 or every < 1:
        raise WrongUsage("a backtest needs at least one cutoff, and days between them")
    now = clock.now(shop)
    first = snapshot.first_day(shop.home / "ledger", now, shop.timezone)
    if first is None:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    calendar = labels.Calendar(first, now, shop.timezone)
    days = [ahead + every * nth for nth in range(count)]
    known = [calendar.day_start(back) for back in reversed(days) if calendar.history_days - back >= behind]
    if not known:
        raise NothingToDo(
            f"{calendar.history_days} days of sales; a backtest needs {ahead + behind}: {behind} to learn from and "
            f"{ahead} to judge on"
        )
    return known


# Lists of products ---------------------------------------------------------------------------------------------


def recommender(
    shop: Shop, *, cutoffs: int = 3, every: int | None = None, terms: Terms | None = None, tell: Tell,
    moments: list[datetime] | None = None, ceiling: int = 0,
) -> Backtest:  # fmt: skip
    """Lists of products for the window after each cutoff, and for the next trip in it.

    With a `ceiling`, the model's lists of that depth stand in the table a second time, in the best order there is.
    """
    plan, terms = plans.plan("recommender"), terms or Terms()
    days = plans.LIST_DAYS
    chosen = moments or _cutoffs(shop, cutoffs, every or days, ahead=days, behind=3 * days)
    settings = _tuned(shop, chosen[0], days, terms, tell)
    looks: dict[str, list[pd.DataFrame]] = {}
    wholes: dict[str, list[dict[str, float]]] = {}
    asked: list[Exam] = []
    for moment in chosen:
        tell(f"{plan.name} as of {moment.date()} ...")
        exam, answers = _answers(shop, plan, moment, days, terms, settings, max(ceiling, DEPTH))
        asked.append(exam)
        for method, lists in answers.items():
            looks.setdefault(method, []).append(exams.look(exam, lists))
            wholes.setdefault(method, []).append(exams.spread(exam, lists))
        if ceiling:
            looks.setdefault(CEILING, []).append(exams.ceiling(exam, answers[plan.learner]))
    model = plan.learner
    table = backtest.table(
        {method: pd.concat(parts) for method, parts in looks.items()},
        pd.concat([exam.activity for exam in asked]), model=model,
    )  # fmt: skip
    means = {method: pd.DataFrame(parts).fillna(0.0).mean().to_dict() for method, parts in wholes.items()}
    table = pd.concat([table, backtest.whole(means, sum(len(exam.customers) for exam in asked))], ignore_index=True)
    notes = [
        f"{len(exam.customers)} customers and {len(exam.catalogue)} products as of {exam.cutoff.date()}"
        for exam in asked
    ]
    notes.append(
        "segments are groups of activity known before each cutoff: quiet for a whole window, "
        "else by thirds of their trips in the last three windows"
    )
    return Backtest("recommender", model, [str(exam.cutoff.date()) for exam in asked], table, settings, notes)


def _answers(
    shop: Shop,
    plan: Plan,
    moment: datetime,
    days: int,
    terms: Terms,
    settings: Mapping[str, dict[str, Any]],
    depth: int,
) -> tuple[Exam, dict[str, pd.DataFrame]]:
    """One cutoff: the exam, and everybody's lists for the customers who are judged; the model's first."""
    with rehearsal(shop, moment, plan) as evening:
        frame = evening.frame(plan)
        now = frame[frame["as_of"] == evening.as_of].reset_index(drop=True)
        exam = examine(shop, moment, days, terms, allowed=now["customer_key"])
        if not len(exam.customers):
            raise NothingToDo(f"nobody bought anything in the {days} days from {moment.date()}; try fewer cutoffs")
        judged = now[now["customer_key"].isin(exam.customers)].reset_index(drop=True)
        answers = {}
        for learner in (plan.learner, *plan.baselines):
            model = _fitted(plan, evening, frame, learner)
            answers[NAMES.get(learner, learner)] = _shown(
                model, judged, exam, depth if learner == plan.learner else DEPTH
            )
    for entrant in ENTRANTS:
        rival = entrant.kind.fit(exam.histories, **settings[entrant.name])
        answers[entrant.name] = rivals.ranked(rival, exam.histories, exam.customers, n=DEPTH, window_days=days)
    return exam, answers


def _shown(model: Any, judged: pd.DataFrame, exam: Exam, n: int) -> pd.DataFrame:
    """A model's three lists for the judged customers, of the exam's catalogue."""
    lists: pd.DataFrame = model.score(judged, n=n, only=exam.catalogue.tolist())
    return lists


def _fitted(plan: Plan, evening: Evening, frame: pd.DataFrame, learner: str) -> Model:
    try:
        return refit(plan, evening.world, frame, learner=learner)
    except TooLittle as reason:
        raise NothingToDo(f"as of {evening.as_of.date()} {learner} cannot learn: {reason}; try fewer cutoffs") from None


def examine(shop: Shop, moment: datetime, days: int, terms: Terms, *, allowed: pd.Series | None = None) -> Exam:
    """The exam of one cutoff, of customers who are `allowed` (all, if none are named)."""
    ledger, zone = shop.home / "ledger", shop.timezone
    now = clock.now(shop)
    calendar = labels.Calendar(moment.date(), now, zone)
    end = calendar.day_start(calendar.days_back(moment) - days)
    before = snapshot.product_days(ledger, as_of=moment, timezone=zone)
    after = snapshot.product_days(ledger, as_of=now, timezone=zone, start=moment, end=end)
    if allowed is not None:
        before, after = (rows[rows["customer_key"].isin(allowed)] for rows in (before, after))
    said = snapshot.products(ledger).set_index("product_key")["department"]
    cutoff = pd.Timestamp(calendar.day_of(moment))
    return exams.exam(before, after, cutoff, days, terms=terms, departments=said)


def _tuned(shop: Shop, first: datetime, days: int, terms: Terms, tell: Tell) -> dict[str, dict[str, Any]]:
    """Every rival's settings, chosen on the window before the first cutoff that is reported."""
    tell(f"settings of the rivals, on the {days} days before {first.date()} ...")
    calendar = labels.Calendar(first.date(), first, shop.timezone)
    earlier = examine(shop, calendar.day_start(days), days, terms)
    if not len(earlier.customers):
        return {entrant.name: entrant.tries[0] for entrant in ENTRANTS}
    return {entrant.name: _choice(entrant, earlier) for entrant in ENTRANTS}


def _choice(entrant: Entrant, earlier: Exam) -> dict[str, Any]:
    return choose(entrant, earlier.histories, earlier.customers, earlier.month)


# Offers --------------------------------------------------------------------------------------------------------


def offers(
    shop: Shop, *, cutoffs: int = 3, every: int | None = None, tell: Tell, moments: list[datetime] | None = None,
) -> Backtest:  # fmt: skip
    """Offers of the campaigns that went out after each cutoff and before the next, ranked by who knew only what was
    known at the cutoff; features are those of the day on which each campaign went out."""
    plan = plans.plan("offers")
    season = plans.OFFER_DAYS
    step = every or season // 3
    chosen = moments or _cutoffs(shop, cutoffs, step, ahead=step, behind=season)
    with rehearsal(shop, clock.now(shop), plan) as evening:
        frame = evening.frame(plan)
        ends = [*chosen[1:], evening.as_of]
        parts = []
        for moment, end in zip(chosen, ends, strict=True):
            tell(f"{plan.name} as of {moment.date()} ...")
            parts.append(_redeemed(plan, evening, frame, moment, end))
        parts = [part for part in parts if len(part)]
        groups = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["redeemed"])
        if not groups["redeemed"].sum():
            raise NothingToDo("no offer of these campaigns was redeemed; try more cutoffs, or load interactions")
        table = _offers_table(plan, evening, groups)
    notes = [
        f"{len(groups):,} pairs of a customer and an offer, {int(groups['redeemed'].sum())} redeemed",
        "segments are thirds of what customers had bought lately, known when the campaign went out",
    ]
    dates = [str(moment.date()) for moment in chosen]
    return Backtest("offers", plan.learner, dates, table, {}, notes)


def _redeemed(plan: Plan, evening: Evening, frame: pd.DataFrame, moment: datetime, end: datetime) -> pd.DataFrame:
    """The offers of one stretch of campaigns whose fate is known, with every method's chance of it."""
    rows = frame[(frame["as_of"] >= moment) & (frame["as_of"] < end)].reset_index(drop=True)
    if rows.empty:
        return rows
    fate = plan.label(evening.world, rows, evening.world.calendar.known_until)
    rows = rows[plan.take(evening.world, rows, fate)].assign(redeemed=fate[plan.take(evening.world, rows, fate)])
    for learner in (plan.learner, *plan.baselines):
        try:
            model = rehearse(plan, evening.world, frame, moment, learner=learner)
        except TooLittle as reason:
            raise NothingToDo(f"as of {moment.date()} {learner} cannot learn: {reason}; try fewer cutoffs") from None
        rows[NAMES.get(learner, learner)] = model.score(rows)
    return rows.assign(**{name: _plainly(rows, *by) for name, by in PLAIN.items()}).reset_index(drop=True)


def _plainly(rows: pd.DataFrame, first: str, then: str) -> np.ndarray:
    """A column's own order as a number that only matters for ranking; ties are broken by another column."""
    return np.nan_to_num(rows[first].to_numpy(np.float64)) + 1e-6 * np.nan_to_num(rows[then].to_numpy(np.float64))


def _offers_table(plan: Plan, evening: Evening, groups: pd.DataFrame) -> pd.DataFrame:
    campaign = groups["offer_key"].map(
        evening.world.offers.drop_duplicates("offer_key").set_index("offer_key")["campaign_id"]
    )
    group = pd.MultiIndex.from_arrays([groups["customer_key"], groups["as_of"], campaign.fillna("")]).factorize()[0]
    methods = [plan.learner, *(NAMES[learner] for learner in plan.baselines), *PLAIN]
    third = pd.qcut(groups["shelf_weight"].fillna(0.0).rank(method="first"), 3, labels=list(exams.ACTIVITY[2::-1]))
    return backtest.offers(
        groups["customer_key"].to_numpy(np.int64), group, groups["redeemed"].to_numpy(np.float64),
        {method: groups[method].to_numpy(np.float64) for method in methods},
        third.astype(object).to_numpy(), model=plan.learner,
    )  # fmt: skip
