"""The night: features, training, judging, promotion if better, and a score for everyone, written back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from customers import freshness, scores
from customers.shop import Shop
from models import registry
from pipelines import persuaded, versions
from pipelines.evening import Evening, Tell, evening, timed
from pipelines.failures import NothingToDo, WrongUsage
from serving import desk, forget, live, writeback
from training import plans, promote
from training.plans import Plan
from training.train import train as learn


def run(shop: Shop, *, as_of: str | None = None, only: Sequence[str] | None = None, tell: Tell) -> dict[str, Any]:
    """One night. With `as_of` in the past it gives what would have been given then, and moves no champion.

    With `only`, those models are trained; tonight everyone is scored by the others' champions too.
    """
    chosen = _plans(only)
    seconds: dict[str, float] = {}
    told: dict[str, dict[str, Any]] = {}
    with evening(shop, as_of, seconds, tell) as tonight:
        with timed(seconds, "training", tell):
            trained = versions.tonight(tonight, chosen, tell)
        with timed(seconds, "promotion", tell):
            speakers = {} if tonight.replay else versions.champions(shop, [p for p in plans.PLANS if p not in chosen])
            for plan in chosen:
                told[plan.name], speaker = versions.appoint(tonight, plan, trained[plan.name])
                speakers |= {plan.name: speaker} if speaker else {}
        customers, written = _tell_everyone(tonight, speakers, seconds, tell)
    return {
        "as_of": tonight.as_of.isoformat(), "customers": customers, "churn_horizon_days": tonight.world.churn_days,
        "models": told, "scores_written": written, "seconds": seconds,
    }  # fmt: skip


def train(shop: Shop, name: str, *, as_of: str | None = None, tell: Tell) -> dict[str, Any]:
    """Train one model and register it as challenger; who speaks for the shop does not change."""
    with evening(shop, as_of, {}, tell) as tonight:
        version = versions.tonight(tonight, _plans([name]), tell)[name]
        if version is None:
            raise NothingToDo(f"there is nothing to train {name} on; load more sales")
        registry.set_alias(promote.address(shop), name, "challenger", version.number)
        return versions.report(version, promoted=False, why=version.facts["why"])


def score(shop: Shop, *, as_of: str | None = None, tell: Tell) -> dict[str, Any]:
    """Score everyone with the champions as they are; nothing is trained."""
    seconds: dict[str, float] = {}
    with evening(shop, as_of, seconds, tell) as tonight:
        speakers = versions.champions(shop, plans.PLANS)
        if not speakers:
            raise NothingToDo("no model has a champion yet; run: regulars run")
        customers, written = _tell_everyone(tonight, speakers, seconds, tell)
    return {
        "as_of": tonight.as_of.isoformat(), "customers": customers, "scores_written": written, "seconds": seconds,
    }  # fmt: skip


def retrain(shop: Shop, name: str, version: str, *, tell: Tell) -> pd.DataFrame:
    """Train a recorded version again from what its run says, and score its day: customer_key, score.

    Nothing is registered: this is how somebody checks that a score can be explained by its version. Refused where
    the sales known at that day, or the code, are not those of the run.
    """
    plan = _plans([name])[0]
    recorded = registry.facts(promote.address(shop), name, version)
    with evening(shop, recorded.params["as_of"], {}, tell) as tonight:
        if recorded.tags["fingerprint"] != versions.fingerprint(tonight, plan):
            raise NothingToDo(f"{name} version {version} came from other sales or other code: it cannot be made again")
        frame = tonight.frame(plan)
        trained = learn(plan, tonight.world, frame, seed=int(recorded.params["seed"]), tell=tell)
        last = frame[frame["as_of"] == frame["as_of"].max()].reset_index(drop=True)
        return last[["customer_key"]].assign(score=trained.model.score(last))


def _tell_everyone(
    tonight: Evening, speakers: dict[str, versions.Version], seconds: dict[str, float], tell: Tell
) -> tuple[int, int]:
    with timed(seconds, "online features", tell):
        if not tonight.replay:
            tonight.features.materialise(tonight.as_of)
    with timed(seconds, "scores", tell):
        told = writeback.everyone(
            tonight.shop,
            tonight.features,
            {name: (version.number, version.model) for name, version in speakers.items()},
            tonight.as_of,
            stand_ins=[name for name, version in speakers.items() if version.facts["fallback"]],
        )
        if not tonight.replay:
            persuaded.tell(tonight.shop, tonight.features, tonight.as_of)
    _make_up(tonight)
    return told


def _make_up(tonight: Evening) -> None:
    """What happened while the night was at work: whoever was erased is forgotten, and late sales are seen to."""
    if tonight.replay:
        return  # its features are gone in a moment, and those of today are the next night's care
    forget.forget(tonight.shop, tonight.features, at_night=True)
    if freshness.lagging(tonight.shop) or scores.told_after(tonight.shop, tonight.as_of):
        live.retell(desk.of(tonight.shop), tonight.as_of)


def _plans(only: Sequence[str] | None) -> list[Plan]:
    known = {plan.name: plan for plan in plans.PLANS}
    unknown = set(only or ()) - set(known)
    if unknown:
        raise WrongUsage(f"there is no model called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [plan for name, plan in known.items() if not only or name in only]
