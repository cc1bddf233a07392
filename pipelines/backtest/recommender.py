"""Earlier lists: what customers would have been recommended at earlier moments, by the model and by every rival."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from customers import clock, consent
from customers.shop import Shop
from features import snapshot
from models import rivals
from models.base import TooLittle
from pipelines.earlier import NAMES, Backtest, moments
from pipelines.evening import Evening, Tell, rehearsal
from pipelines.failures import NothingToDo
from training import backtest, exams, labels, plans
from training.exams import Exam, Terms
from training.plans import Plan
from training.rivals import ENTRANTS, choose
from training.train import refit

#: How deep lists are asked for: the figures look at 10 and 20 places.
DEPTH = 20
#: What the model's own candidates would come to in the best order there is.
CEILING = "best order of the model's candidates"
SEGMENTS = (
    "segments are groups of activity known before each cutoff: quiet for a whole window, else by thirds of their "
    f"trips in the last three windows; {backtest.UNTOLD}"
)

Settings = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """One method at one cutoff: figures of each judged customer, and those of all lists together."""

    look: pd.DataFrame
    whole: dict[str, float]


def recommender(
    shop: Shop, *, cutoffs: int = 3, every: int | None = None, terms: Terms | None = None, tell: Tell,
    at: list[datetime] | None = None, ceiling: int = 0,
) -> Backtest:  # fmt: skip
    """Lists of products for the window after each cutoff, and for the next trip in it; `at` names the cutoffs.

    With a `ceiling`, the model's lists of that depth stand in the table a second time, in the best order there is.
    """
    terms, days = terms or Terms(), plans.LIST_DAYS
    chosen = at or moments(shop, cutoffs, every or days, ahead=days, behind=3 * days)
    settings = _tuned(shop, chosen[0], days, terms, tell)
    asked: list[Exam] = []
    answers: dict[str, list[Answer]] = {}
    for moment in chosen:
        tell(f"recommender as of {moment.date()} ...")
        exam, answered = _answers(shop, moment, days, terms, settings, ceiling)
        asked.append(exam)
        for method, answer in answered.items():
            answers.setdefault(method, []).append(answer)
    model = plans.plan("recommender").learner
    notes = [f"{len(exam.customers)} customers and {len(exam.catalogue)} products as of {exam.cutoff.date()}"
             for exam in asked]  # fmt: skip
    dates = [str(exam.cutoff.date()) for exam in asked]
    return Backtest("recommender", model, dates, _table(asked, answers, model), dict(settings), [*notes, SEGMENTS])


def examine(shop: Shop, moment: datetime, days: int, terms: Terms, *, allowed: pd.Series | None = None) -> Exam:
    """The exam of one cutoff, of customers who are `allowed` (all, if none are named)."""
    ledger, zone, now = shop.home / "ledger", shop.timezone, clock.now(shop)
    calendar = labels.Calendar(moment.date(), now, zone)
    end = calendar.day_start(calendar.days_back(moment) - days)
    before = snapshot.product_days(ledger, as_of=moment, timezone=zone)
    after = snapshot.product_days(ledger, as_of=now, timezone=zone, start=moment, end=end)
    if allowed is not None:
        before, after = (rows[rows["customer_key"].isin(allowed)] for rows in (before, after))
    said = snapshot.products(ledger).set_index("product_key")["department"]
    return exams.exam(before, after, pd.Timestamp(calendar.day_of(moment)), days, terms=terms, departments=said)


def _tuned(shop: Shop, first: datetime, days: int, terms: Terms, tell: Tell) -> Settings:
    """Every rival's settings, chosen on the window before the first cutoff that is reported."""
    tell(f"settings of the rivals, on the {days} days before {first.date()} ...")
    earlier = _earlier(shop, first, days, terms)
    if not len(earlier.customers):
        return {entrant.name: entrant.tries[0] for entrant in ENTRANTS}
    known = (earlier.histories, earlier.customers, earlier.month)
    return {entrant.name: choose(entrant, *known) for entrant in ENTRANTS}


def _earlier(shop: Shop, first: datetime, days: int, terms: Terms) -> Exam:
    """The exam before the first one, of whoever allows profiling."""
    calendar = labels.Calendar(first.date(), first, shop.timezone)
    customers = snapshot.purchases(shop.home / "ledger", as_of=first, timezone=shop.timezone)["customer_key"]
    allowed = customers[customers.isin(consent.allowed(shop, customers.unique(), "profiling"))]
    return examine(shop, calendar.day_start(days), days, terms, allowed=allowed)


def _answers(
    shop: Shop, moment: datetime, days: int, terms: Terms, settings: Settings, ceiling: int
) -> tuple[Exam, dict[str, Answer]]:
    """One cutoff: the exam, and what everybody says to it, the model first."""
    plan = plans.plan("recommender")
    with rehearsal(shop, moment, plan) as evening:
        frame = evening.frame(plan)
        now = frame[frame["as_of"] == evening.as_of].reset_index(drop=True)
        exam = examine(shop, moment, days, terms, allowed=now["customer_key"])
        if not len(exam.customers):
            raise NothingToDo(f"nobody bought anything in the {days} days from {moment.date()}; try fewer cutoffs")
        judged = now[now["customer_key"].isin(exam.customers)].sort_values("customer_key", ignore_index=True)
        answers: dict[str, Answer] = {}
        for learner in (plan.learner, *plan.baselines):
            answers |= _model(plan, evening, frame, learner, exam, judged, ceiling)
    for entrant in ENTRANTS:
        rival = entrant.fit(exam.histories, **settings[entrant.name])
        shown = rivals.ranked(rival, exam.histories, exam.customers, n=DEPTH, window_days=days)
        answers[entrant.name] = Answer(exams.look(exam, shown), exams.spread(exam, shown))
    return exam, answers


def _model(
    plan: Plan, evening: Evening, frame: pd.DataFrame, learner: str, exam: Exam, judged: pd.DataFrame, ceiling: int
) -> dict[str, Answer]:
    """One of the house's own learners, made from what was known at the cutoff."""
    try:
        model: Any = refit(plan, evening.world, frame, learner=learner)
    except TooLittle as reason:
        raise NothingToDo(f"as of {evening.as_of.date()} {learner} cannot learn: {reason}; try fewer cutoffs") from None
    deep = ceiling if learner == plan.learner else 0
    shown = model.score(judged, n=max(deep, DEPTH), only=exam.catalogue.tolist())
    lift = exams.audience_lift(exam, partial(_chances, model, judged))
    answer = Answer(exams.look(exam, shown), exams.spread(exam, shown) | {"audience_lift_10": lift})
    best = {CEILING: Answer(exams.ceiling(exam, shown), {})} if deep else {}
    return {NAMES.get(learner, learner): answer, **best}


def _chances(model: Any, judged: pd.DataFrame, products: np.ndarray) -> np.ndarray:
    chances: np.ndarray = model.chances(judged, products.tolist())
    return chances


def _table(asked: list[Exam], answers: Mapping[str, list[Answer]], model: str) -> pd.DataFrame:
    looks = {method: pd.concat([answer.look for answer in parts]) for method, parts in answers.items()}
    ranked = backtest.table(looks, pd.concat([exam.activity for exam in asked]), model=model)
    wholes = {method: _mean([answer.whole for answer in parts]) for method, parts in answers.items()}
    together = backtest.whole(wholes, sum(len(exam.customers) for exam in asked))
    return pd.concat([ranked, together], ignore_index=True)


def _mean(figures: list[dict[str, float]]) -> dict[str, float]:
    """The mean over cutoffs; a source that filled no place at one of them has a share of 0 there."""
    frame = pd.DataFrame(figures)
    shares = [name for name in frame if str(name).startswith("source_")]
    return {str(name): float(value) for name, value in frame.fillna(dict.fromkeys(shares, 0.0)).mean().items()}
