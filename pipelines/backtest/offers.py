"""Earlier offers: which offers customers would have been foretold to redeem, and which they did."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from customers import clock
from customers.shop import Shop
from models.base import TooLittle
from pipelines.earlier import NAMES, Backtest, moments
from pipelines.evening import Evening, Tell, rehearsal
from pipelines.failures import NothingToDo
from training import backtest, exams, plans
from training.plans import Plan
from training.train import rehearse

#: Columns of an offer's appeal that rank by themselves, each followed by what breaks its ties.
PLAIN = {"affinity": ("affinity_84d", "popularity"), "popularity": ("popularity", "popularity")}
SEGMENTS = (
    f"segments are thirds of what customers had bought lately, known when the campaign went out; {backtest.UNTOLD}"
)


def offers(
    shop: Shop, *, cutoffs: int = 3, every: int | None = None, tell: Tell, at: list[datetime] | None = None
) -> Backtest:
    """Offers of the campaigns that went out from each cutoff until the next; `at` names the cutoffs.

    Models are made from outcomes known at the cutoff; features are those of the day on which a campaign went out.
    """
    plan, step = plans.plan("offers"), every or plans.OFFER_DAYS // 3
    chosen = at or moments(shop, cutoffs, step, ahead=step, behind=plans.OFFER_DAYS)
    with rehearsal(shop, clock.now(shop), plan) as evening:
        frame = evening.frame(plan)
        parts = []
        for moment, end in zip(chosen, [*chosen[1:], evening.as_of], strict=True):
            tell(f"offers as of {moment.date()} ...")
            parts.append(_answers(plan, evening, frame, moment, end))
        told = [part for part in parts if len(part)]
        if not any(part["redeemed"].any() for part in told):
            raise NothingToDo(
                f"no offer of a campaign from {chosen[0].date()} on was redeemed; try more cutoffs, or load offers "
                "and interactions of kind received and redeemed"
            )
        answers = pd.concat(told, ignore_index=True)
        table = _table(plan, evening, answers)
    notes = [
        f"{len(answers):,} pairs of a customer and an offer, {int(answers['redeemed'].sum()):,} redeemed",
        SEGMENTS,
    ]
    return Backtest("offers", plan.learner, [str(moment.date()) for moment in chosen], table, {}, notes)


def _answers(plan: Plan, evening: Evening, frame: pd.DataFrame, moment: datetime, end: datetime) -> pd.DataFrame:
    """The offers of one stretch of campaigns whose fate is known, with every method's chance of it."""
    rows = frame[(frame["as_of"] >= moment) & (frame["as_of"] < end)].reset_index(drop=True)
    if rows.empty:
        return rows
    fate = plan.label(evening.world, rows, evening.world.calendar.known_until)
    known = plan.take(evening.world, rows, fate)
    rows = rows[known].reset_index(drop=True)
    said = {NAMES.get(learner, learner): _chances(plan, evening, frame, moment, learner, rows)
            for learner in (plan.learner, *plan.baselines)}  # fmt: skip
    said |= {name: _plainly(rows, *by) for name, by in PLAIN.items()}
    return rows[["customer_key", "as_of", "offer_key", "shelf_weight"]].assign(redeemed=fate[known], **said)


def _chances(
    plan: Plan, evening: Evening, frame: pd.DataFrame, moment: datetime, learner: str, rows: pd.DataFrame
) -> np.ndarray:
    try:
        chances: np.ndarray = rehearse(plan, evening.world, frame, moment, learner=learner).score(rows)
    except TooLittle as reason:
        raise NothingToDo(f"as of {moment.date()} {learner} cannot learn: {reason}; try fewer cutoffs") from None
    return chances


def _plainly(rows: pd.DataFrame, first: str, then: str) -> np.ndarray:
    """A column's own order, ties broken by another column; a number that means nothing but its place."""
    by, also = (np.nan_to_num(rows[name].to_numpy(np.float64)) for name in (first, then))
    return np.asarray(by + 1e-6 * also)


def _table(plan: Plan, evening: Evening, answers: pd.DataFrame) -> pd.DataFrame:
    offered = evening.world.offers.drop_duplicates("offer_key").set_index("offer_key")
    campaign = answers["offer_key"].map(offered["campaign_id"]).fillna("")
    group = pd.MultiIndex.from_arrays([answers["customer_key"], answers["as_of"], campaign]).factorize()[0]
    methods = [plan.learner, *(NAMES.get(learner, learner) for learner in plan.baselines), *PLAIN]
    bought = answers["shelf_weight"].fillna(0.0).rank(method="dense", pct=True).to_numpy(np.float64)
    third = np.array(exams.ACTIVITY[:3], dtype=object)[np.clip(((1 - bought) * 3).astype(np.int64), 0, 2)]
    return backtest.offers(
        answers["customer_key"].to_numpy(np.int64), group.astype(np.int64),
        answers["redeemed"].to_numpy(np.float64), {name: answers[name].to_numpy(np.float64) for name in methods},
        third, model=plan.learner,
    )  # fmt: skip
