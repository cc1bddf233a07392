"""Earlier answers: what a shop would have been told of churn, returns, needs and value, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from customers import clock
from customers.shop import Shop
from features import snapshot
from models import timing
from models.base import TooLittle
from models.plain import Plain
from pipelines import outlook
from pipelines.earlier import NAMES, SERVED, Backtest, moments
from pipelines.evening import Evening, Tell, rehearsal
from pipelines.failures import NothingToDo
from training import backtest, curves, plans
from training.intervals import Draws
from training.plans import Plan, World
from training.train import refit, train

#: Draws of customers behind an interval: figures that are no means are measured anew for each.
DRAWS = 200
#: Of more customers so many are judged: every figure is measured again for every draw.
MOST = 6_000
#: How far ahead a return is looked at in pictures, where the curve goes so far.
LOOK_DAYS = 28
#: Questions that a plain LightGBM can be asked, and its outcome in their labels.
PLAIN: Mapping[str, Callable[[Any], np.ndarray]] = {
    "churn": lambda label: label["quiet"].to_numpy(np.float64),
    "value": lambda label: label["spent"].to_numpy(np.float64),
    "restock": lambda label: label[f"within_{plans.RESTOCK_DAYS[1]}"].to_numpy(np.float64),
}


@dataclass(frozen=True)
class Sitting:
    """One cutoff: whoever is judged, what became of them, and every method's answers in the same order."""

    world: World
    rows: pd.DataFrame
    label: Any
    answers: Mapping[str, np.ndarray]

    def figures(self, plan: Plan, method: str, places: np.ndarray | None = None) -> dict[str, float]:
        """A method's figures over everybody, or over some places, which may come up more than once."""
        if places is None:
            return plan.judge(self.world, self.rows, self.label, self.answers[method])
        label = self.label.iloc[places] if hasattr(self.label, "iloc") else self.label[places]
        return plan.judge(self.world, self.rows.iloc[places], label, self.answers[method][places])


def answers(
    shop: Shop, name: str, *, cutoffs: int = 3, every: int | None = None, tell: Tell,
    at: list[datetime] | None = None, wait_days: int | None = None,
) -> Backtest:  # fmt: skip
    """Churn, timing, restock or value as of earlier cutoffs, a window of its own apart; `at` names the cutoffs.

    At each one everything is made again from what was known then, the choice between model and baselines too: that
    choice is the method called "served"; of timing, the curve as bent to churn's number. `wait_days` is how long
    returns are watched when timing is judged.
    """
    plan = plans.plan(name)
    reach = _window(shop, plan, wait_days)
    chosen = at or moments(shop, cutoffs, every or reach, ahead=reach, behind=2 * reach)
    sittings, notes = [], []
    for moment in chosen:
        tell(f"{name} as of {moment.astimezone(shop.zone).date()} ...")
        sitting, note = _sat(shop, moment, plan, wait_days, tell)
        sittings.append(sitting)
        notes.append(note)
    dates = [str(moment.astimezone(shop.zone).date()) for moment in chosen]
    tell("how far the figures would move with other customers like these ...")
    return Backtest(name, SERVED, dates, _table(plan, dates, sittings), {}, notes, _drawn(plan, sittings))


def _window(shop: Shop, plan: Plan, wait_days: int | None) -> int:
    """The days that are watched after a cutoff, as a night of today would watch them."""
    now = clock.now(shop)
    if snapshot.first_day(shop.home / "ledger", now, shop.timezone) is None:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    world, _ = outlook.of(shop, now)
    return plan.window(world if wait_days is None else replace(world, wait_days=wait_days))


def _sat(shop: Shop, moment: datetime, plan: Plan, wait_days: int | None, tell: Tell) -> tuple[Sitting, str]:
    with rehearsal(shop, moment, plan) as evening:
        frame = evening.frame(plan)
        truth = _truth(shop, evening, wait_days)
        rows = frame[frame["as_of"] == evening.as_of].reset_index(drop=True)
        label = plan.label(truth, rows, truth.calendar.known_until)
        kept = plan.take(truth, rows, label)
        if not kept.any():
            raise NothingToDo(f"as of {moment.date()} there is nobody whose fate is known; try fewer cutoffs")
        kept &= _some(rows["customer_key"], kept)
        label = label[kept].reset_index(drop=True) if hasattr(label, "iloc") else label[kept]
        judged = rows[kept].reset_index(drop=True)
        said, note = _said(plan, evening, frame, judged, tell)
    judged = judged[["customer_key", "as_of"]]
    day = moment.astimezone(shop.zone).date()
    return Sitting(truth, judged, label, said), f"as of {day}, {len(judged):,} judged: {note}"


def _some(customers: pd.Series, kept: np.ndarray) -> np.ndarray:
    """The rows of so many of the customers who are kept, drawn once and for all where they are more."""
    known = customers[kept].unique()
    if len(known) > MOST:
        known = np.random.default_rng(0).choice(np.sort(known), MOST, replace=False)
    return customers.isin(known).to_numpy()


def _truth(shop: Shop, evening: Evening, wait_days: int | None) -> World:
    """The evening's questions, answered with what is known today."""
    ledger, now, world = shop.home / "ledger", clock.now(shop), evening.world
    return replace(
        world,
        calendar=replace(world.calendar, as_of=now),
        purchases=snapshot.purchases(ledger, as_of=now, timezone=shop.timezone),
        category_days=snapshot.category_days(ledger, as_of=now, timezone=shop.timezone, start=evening.as_of),
        value_days=plans.plan("value").window(world),
        wait_days=wait_days or world.wait_days,
    )


def _said(
    plan: Plan, evening: Evening, frame: pd.DataFrame, judged: pd.DataFrame, tell: Tell
) -> tuple[dict[str, np.ndarray], str]:
    """What each method says of the judged customers, and what the night would have served and why."""
    night = train(plan, evening.world, frame, tell=tell)
    own = np.asarray(night.model.score(judged))
    said = {SERVED: _agreed(evening, judged, own, tell) if plan.name == "timing" else own}
    for learner in (plan.learner, *plan.baselines):
        name = NAMES.get(learner, learner)
        if learner == night.learner:
            said[name] = own
            continue
        try:
            said[name] = np.asarray(refit(plan, evening.world, frame, learner=learner).score(judged))
        except TooLittle as reason:
            raise NothingToDo(
                f"as of {evening.as_of.date()} {learner} cannot learn: {reason}; try fewer cutoffs"
            ) from None
    if plan.name in PLAIN:
        said["plain LightGBM"] = _plainly(plan, evening, frame, judged)
    return said, f"{night.learner} is served ({night.why})"


def _agreed(evening: Evening, judged: pd.DataFrame, survival: np.ndarray, tell: Tell) -> np.ndarray:
    """The curves as customers are told of them: at churn's horizon they say what that night's churn model says."""
    churn = plans.plan("churn")
    frame = evening.frame(churn)
    night = train(churn, evening.world, frame, tell=tell)
    now = frame[frame["as_of"] == evening.as_of].set_index("customer_key").loc[judged["customer_key"]].reset_index()
    quiet = np.asarray(night.model.score(now))
    return timing.told(survival, evening.world.churn_days, quiet)


def _plainly(plan: Plan, evening: Evening, frame: pd.DataFrame, judged: pd.DataFrame) -> np.ndarray:
    """What people would try first, taught by the same rows."""
    label = plan.label(evening.world, frame, evening.world.calendar.known_until)
    active = plan.take(evening.world, frame, label)
    rows, outcome = frame[active], PLAIN[plan.name](label)[active]
    said = Plain.fit(rows, outcome, amounts=plan.name == "value").score(judged)
    return said if plan.name != "restock" else np.column_stack([said, said, said])


def _table(plan: Plan, dates: list[str], sittings: list[Sitting]) -> pd.DataFrame:
    """Every figure of every method: the mean over the cutoffs, and each cutoff's own."""
    customers = np.concatenate([sitting.rows["customer_key"].to_numpy(np.int64) for sitting in sittings])
    draws = Draws.of(customers, draws=DRAWS)
    each = [{method: pd.Series(sitting.figures(plan, method)) for method in sitting.answers} for sitting in sittings]
    drawn = [_resampled(plan, sitting, draws) for sitting in sittings]
    count = [len(sitting.rows) for sitting in sittings]
    parts = [backtest.figures(_mean(each), _mean(drawn), sum(count), segment=backtest.EVERYONE, model=SERVED)]
    if len(sittings) > 1:
        parts += [
            backtest.figures(figures, moved, n, segment=f"as of {date}", model=SERVED)
            for date, figures, moved, n in zip(dates, each, drawn, count, strict=True)
        ]
    return pd.concat(parts, ignore_index=True)


def _resampled(plan: Plan, sitting: Sitting, draws: Draws) -> dict[str, pd.DataFrame]:
    customers = sitting.rows["customer_key"].to_numpy(np.int64)

    def of(method: str) -> pd.DataFrame:
        return draws.measured(customers, lambda places: sitting.figures(plan, method, places))

    return {method: of(method) for method in sitting.answers}


def _mean(each: list[Any]) -> dict[str, Any]:
    """The mean over the cutoffs, of a method's figures or of what they came to in every draw."""
    return {method: sum(one[method] for one in each) / len(each) for method in each[0]}


def _drawn(plan: Plan, sittings: list[Sitting]) -> dict[str, pd.DataFrame]:
    """What was said against what came, and how much the first of the list hold, over all cutoffs."""
    shown: dict[str, list[pd.DataFrame]] = {"reliability": [], "gains": []}
    for method in sittings[0].answers:
        told = [_one_number(plan, sitting, method) for sitting in sittings]
        said, seen = (np.concatenate(parts) for parts in zip(*told, strict=True))
        shown["reliability"].append(curves.reliability(said, seen).assign(method=method))
        shown["gains"].append(curves.gains(said, seen).assign(method=method))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in shown.items()}


def _one_number(plan: Plan, sitting: Sitting, method: str) -> tuple[np.ndarray, np.ndarray]:
    """One number of each answer, and what came: a chance and whether it happened, or money and what was spent."""
    said = sitting.answers[method]
    if plan.name == "timing":
        days = min(LOOK_DAYS, said.shape[1])
        came = sitting.label["observed"] & (sitting.label["duration_days"] <= days)
        return 1 - said[:, days - 1], came.to_numpy(np.float64)
    if plan.name == "restock":
        return said[:, 1], sitting.label[f"within_{plans.RESTOCK_DAYS[1]}"].to_numpy(np.float64)
    column = {"churn": "quiet", "value": "spent"}[plan.name]
    return said, sitting.label[column].to_numpy(np.float64)
