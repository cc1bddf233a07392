"""Train: one loop for every plan. Learn from the past, be judged on days nobody saw, then learn from those too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib import import_module
from typing import Any

import pandas as pd

from models import bundle
from models.base import Model, TooLittle
from training.metrics import better
from training.plans import TIE, Incomparable, Plan, World

#: Fewer customers than this in a holdout say nothing about which of two models is better.
JUDGES = 30


@dataclass(frozen=True, slots=True)
class Contestant:
    """A learner after its trial: fitted on what was known before the holdout, judged on the holdout.

    `earlier` are its figures at earlier cutoffs, fitted and judged anew for each.
    """

    learner: str
    model: Model
    metrics: dict[str, float]
    seconds: float
    earlier: Mapping[datetime, dict[str, float]] = field(default_factory=dict)

    def decisive(self, plan: Plan) -> float:
        """The figure that decides, its mean over all cutoffs."""
        figures = [each[plan.decisive] for each in (self.metrics, *self.earlier.values())]
        return sum(figures) / len(figures)


@dataclass(frozen=True, slots=True)
class Trained:
    """What one plan came to: the model to serve, its twin that was judged, and everybody's figures side by side."""

    plan: Plan
    model: Model
    learner: str
    judged: Contestant | None
    contestants: list[Contestant]
    holdout: datetime | None
    fallback: bool
    why: str
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """The held-out figures of the learner that is served; empty where nothing could be judged."""
        return self.judged.metrics if self.judged else {}

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Everybody else's held-out figures on the same window: the baselines', and the learner's where it lost."""
        lost = self.learner != self.plan.learner
        return {c.learner: c.metrics for c in self.contestants if lost or c.learner != self.plan.learner}


def train(
    plan: Plan,
    world: World,
    frame: pd.DataFrame,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Fit a plan's learner and baselines before the last window, judge them on it, and refit the best on everything.

    A plan of several cutoffs has them judged at earlier ones too, where the history is long enough for everybody: the
    best over all of them is served. frame: one row per customer and moment (customer_key, as_of, features), features
    known before as_of.
    Where too little is known to learn or to judge, the answer is the plan's simplest baseline, flagged `fallback`.
    """
    holdout = world.calendar.back(plan.window(world))
    trial = _trial(plan, world, frame, holdout)
    exam = _exam(plan, world, frame, holdout)
    if len(trial[0]) == 0 or len(exam[0]) < JUDGES:
        return _simplest(plan, world, frame, seed, f"{len(exam[0])} customers to judge on; {JUDGES} are needed")
    contestants, refused = _trials(plan, world, trial, exam, seed, tell)
    if not contestants:
        return _simplest(plan, world, frame, seed, refused)
    counts = {"trial": len(trial[0]), "holdout": len(exam[0])}
    del trial, exam  # rows of needs are many: three copies of them would not fit beside each other
    contestants = _tried_before(plan, world, frame, contestants, seed, tell)
    best, why = _choose(plan, contestants, refused)
    tell(f"{plan.name}: {best.learner} learns from all days")
    rows, label = _rows_before(plan, world, frame, world.calendar.as_of)
    model = _fit(plan, world, best.learner, rows, label, seed)
    counts["served"] = len(rows)
    stands_in = all(contestant.learner != plan.learner for contestant in contestants)
    return Trained(plan, model, best.learner, best, contestants, holdout, stands_in, why, counts)


def refit(plan: Plan, world: World, frame: pd.DataFrame, *, learner: str | None = None, seed: int = 0) -> Model:
    """One learner (the plan's own, if none is named) on all that is known, as a night's last step fits what it serves.

    Raises TooLittle where the learner does.
    """
    rows, label = _rows_before(plan, world, frame, world.calendar.as_of)
    return _fit(plan, world, learner or plan.learner, rows, label, seed)


def rehearse(
    plan: Plan, world: World, frame: pd.DataFrame, holdout: datetime, *, learner: str | None = None, seed: int = 0
) -> Model:
    """One learner of a spread plan on what was known before a holdout that may lie anywhere."""
    return _fit(plan, world, learner or plan.learner, *_trial(plan, world, frame, holdout), seed)


def examine(plan: Plan, world: World, frame: pd.DataFrame, model: Model) -> dict[str, float]:
    """A fitted model's figures on this run's holdout: how a champion is compared with its challenger.

    Raises Incomparable for a model of another horizon or a shorter curve, Unfit for one of other features.
    """
    asked = plan.settings(world).get("horizon_days")
    answered = getattr(model, "horizon_days", asked)
    if answered != asked:
        raise Incomparable(f"it speaks of {answered} days, this night of {asked}")
    rows, label = _exam(plan, world, frame, world.calendar.back(plan.window(world)))
    return plan.judge(world, rows, label, model.score(rows))


def not_worse(plan: Plan, mine: dict[str, float], other: dict[str, float]) -> bool:
    """Is the decisive figure as good as the other's, a tie counting as good?"""
    return _as_good(plan, mine[plan.decisive], other[plan.decisive])


def too_alike(plan: Plan, mine: dict[str, float], other: dict[str, float]) -> str:
    """Which figure of the plan's floor is too far below another's, in words; empty where none is."""
    for figure, share in plan.floor.items():
        a, b = mine.get(figure, math.nan), other.get(figure, math.nan)
        if a < share * b:
            return f"{figure} {a:.4f} is less than {share:g} of {b:.4f}"
    return ""


def _trials(
    plan: Plan, world: World, trial: tuple[pd.DataFrame, Any], exam: tuple[pd.DataFrame, Any], seed: int,
    tell: Callable[[str], None],
) -> tuple[list[Contestant], str]:  # fmt: skip
    contestants, refused = [], ""
    for learner in (*plan.baselines, plan.learner):
        tell(f"{plan.name}: {learner} before {exam[0]['as_of'].max():%Y-%m-%d}")
        began = time.perf_counter()
        try:
            model = _fit(plan, world, learner, *trial, seed)
        except TooLittle as reason:
            refused = f"{learner}: {reason}"
            continue
        figures = plan.judge(world, *exam, model.score(exam[0]))
        if math.isfinite(figures[plan.decisive]):
            contestants.append(Contestant(learner, model, figures, time.perf_counter() - began))
        else:
            refused = f"{learner}: its {plan.decisive} cannot be measured on the last window"
    return contestants, refused


def _tried_before(
    plan: Plan, world: World, frame: pd.DataFrame, contestants: list[Contestant], seed: int,
    tell: Callable[[str], None],
) -> list[Contestant]:  # fmt: skip
    """The same with their figures at earlier cutoffs; one before which not all of them could learn is left out."""
    for back in range(2, plan.cutoffs + 1):
        cutoff = world.calendar.back(back * plan.window(world))
        trial, exam = (cut(plan, world, frame, cutoff) for cut in (_trial, _exam))
        if len(trial[0]) == 0 or len(exam[0]) < JUDGES:
            break
        found = {each.learner: each.metrics for each in _trials(plan, world, trial, exam, seed, tell)[0]}
        if not all(each.learner in found for each in contestants):
            break
        contestants = [replace(each, earlier={**each.earlier, cutoff: found[each.learner]}) for each in contestants]
    return contestants


def _choose(plan: Plan, contestants: list[Contestant], refused: str) -> tuple[Contestant, str]:
    """The learner where it is not worse than every baseline, else the best baseline; of those above the floor."""
    ahead = better(plan.decisive)
    contestants, below = _above_floor(plan, contestants)
    refused = below or refused
    rivals = [c for c in contestants if c.learner != plan.learner]
    learners = [c for c in contestants if c.learner == plan.learner]
    best = rivals[0] if rivals else learners[0]
    for rival in rivals[1:]:
        best = rival if ahead(rival.decisive(plan), best.decisive(plan)) else best
    if not learners:
        return best, f"{best.learner} is served; {refused}"
    mine = learners[0]
    text = f"{plan.decisive} {mine.decisive(plan):.4f} against {best.decisive(plan):.4f} of {best.learner}"
    text += f", the mean of {1 + len(mine.earlier)} cutoffs" if mine.earlier else ""
    if _as_good(plan, mine.decisive(plan), best.decisive(plan)):
        return mine, text
    return best, f"the baseline {best.learner} is served: {plan.learner} has {text}"


def _as_good(plan: Plan, a: float, b: float) -> bool:
    return not better(plan.decisive)(b, a) or abs(a - b) <= TIE * abs(b)


def _above_floor(plan: Plan, contestants: list[Contestant]) -> tuple[list[Contestant], str]:
    """Who tells customers apart nearly as well as the last baseline does; and why the learner is not among them."""
    level = next((c.metrics for c in contestants if c.learner in plan.baselines[-1:]), {})
    reasons = {c.learner: too_alike(plan, c.metrics, level) for c in contestants}
    why = reasons.get(plan.learner, "")
    return [c for c in contestants if not reasons[c.learner]], f"{plan.learner}: {why}" if why else ""


def _simplest(plan: Plan, world: World, frame: pd.DataFrame, seed: int, why: str) -> Trained:
    rows, label = _rows_before(plan, world, frame, world.calendar.as_of)
    learner = plan.baselines[-1]
    model = _fit(plan, world, learner, rows, label, seed)
    why = f"too little history, {learner} is served: {why}"
    return Trained(plan, model, learner, None, [], None, True, why, {"served": len(rows)})


def _fit(plan: Plan, world: World, learner: str, rows: pd.DataFrame, label: Any, seed: int) -> Model:
    room, name = bundle.LEARNERS[learner].split(":")
    told = plan.told(world) if learner == plan.learner else {}
    fitted: Model = getattr(import_module(room), name).fit(rows, label, seed=seed, **plan.settings(world), **told)
    return fitted


def _rows_before(plan: Plan, world: World, frame: pd.DataFrame, until: datetime) -> tuple[pd.DataFrame, Any]:
    """All rows up to a moment, with the outcomes that were complete by then; learners choose among them."""
    known = frame["as_of"] <= until
    rows = frame if known.all() and isinstance(frame.index, pd.RangeIndex) else frame[known].reset_index(drop=True)
    return rows, plan.label(world, rows, world.calendar.day_of(until))


def _trial(plan: Plan, world: World, frame: pd.DataFrame, holdout: datetime) -> tuple[pd.DataFrame, Any]:
    """What may be learned from before the holdout; of a spread plan, whose exam is every row from then on, less."""
    rows, label = _rows_before(plan, world, frame, holdout)
    return _some(rows, label, (rows["as_of"] < holdout).to_numpy()) if plan.spread else (rows, label)


def _exam(plan: Plan, world: World, frame: pd.DataFrame, holdout: datetime) -> tuple[pd.DataFrame, Any]:
    """The rows that are judged, with all that became of them."""
    asked = frame["as_of"] >= holdout if plan.spread else frame["as_of"] == holdout
    rows = frame[asked].reset_index(drop=True)
    label = plan.label(world, rows, world.calendar.known_until)
    return _some(rows, label, plan.take(world, rows, label))


def _some(rows: pd.DataFrame, label: Any, keep: Any) -> tuple[pd.DataFrame, Any]:
    kept = label[keep].reset_index(drop=True) if isinstance(label, pd.DataFrame | pd.Series) else label[keep]
    return rows[keep].reset_index(drop=True), kept
