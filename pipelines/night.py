"""The night: features, training, judging, promotion if better, and a score for everyone, written back."""

from __future__ import annotations

import fcntl
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from customers import clock, mirror, nights
from customers.shop import Shop, ShopError
from features import snapshot, store
from models import registry
from pipelines import versions
from pipelines.failures import NothingToDo, WrongUsage
from serving import writeback
from training import labels, plans, promote
from training.plans import Plan, World
from training.train import train as learn

Tell = Callable[[str], None]

#: A month: a horizon shorter than that would call a customer lost who skipped two weekly trips.
LEAST_CHURN_DAYS = 28


@dataclass(frozen=True, slots=True)
class Evening:
    """What a night works on: the shop as it was known at a moment, with its features computed."""

    shop: Shop
    as_of: datetime
    replay: bool
    world: World
    features: store.Store
    ledger: str
    _frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def frame(self, plan: Plan) -> pd.DataFrame:
        """All rows of the plan's feature service, from Feast: customer_key, as_of, features, in a stable order."""
        if plan.service not in self._frames:
            history = self.features.history(plan.service, self._entities(plan))
            self._frames[plan.service] = history.rename(columns={"event_timestamp": "as_of"})
        return self._frames[plan.service]

    def _entities(self, plan: Plan) -> pd.DataFrame:
        view = "shelf" if plan.name == "recommender" else "rhythm"
        return pq.read_table(
            self.features.folder / view / "part.parquet", columns=["customer_key", "event_timestamp"]
        ).to_pandas()


def run(shop: Shop, *, as_of: str | None = None, only: Sequence[str] | None = None, tell: Tell) -> dict[str, Any]:
    """One night. With `as_of` in the past it gives what would have been given then, and moves no champion.

    With `only`, those models are trained; tonight everyone is scored by the others' champions too.
    """
    chosen = _plans(only)
    seconds: dict[str, float] = {}
    told: dict[str, dict[str, Any]] = {}
    with evening(shop, as_of, seconds, tell) as tonight:
        with _timed(seconds, "training", tell):
            trained = versions.tonight(tonight, chosen, tell)
        with _timed(seconds, "promotion", tell):
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
        last = frame[frame["as_of"] == tonight.as_of].reset_index(drop=True)
        return last[["customer_key"]].assign(score=trained.model.score(last))


@contextmanager
def evening(shop: Shop, as_of: str | None, seconds: dict[str, float], tell: Tell) -> Iterator[Evening]:
    """Bring the mirror up to date and compute every feature as of the moment; one night at a time in a home."""
    moment = _moment(shop, as_of)
    with _alone(shop):
        with _timed(seconds, "mirror", tell):
            _look(shop, moment)
        replay = moment < (nights.last_looked(shop) or moment)
        folder = shop.home / "features"
        if replay:
            folder = shop.home / "replays" / moment.strftime("%Y%m%dT%H%M%S")
        with _timed(seconds, "features", tell):
            world, features = _prepare(shop, moment, folder, replay=replay)
        try:
            sales = snapshot.digest(shop.home / "ledger", as_of=moment)
            yield Evening(shop, moment, replay, world, features, sales)
        finally:
            if replay:
                shutil.rmtree(folder, ignore_errors=True)


def _moment(shop: Shop, as_of: str | None) -> datetime:
    now = clock.now(shop)
    if as_of is None:
        return now
    try:
        moment = clock.moment(shop, as_of)
    except ShopError as error:
        raise WrongUsage(str(error)) from None
    if moment > now:
        raise WrongUsage(f"{as_of} has not come yet: in this shop it is {now.isoformat(timespec='minutes')}")
    return moment


def _look(shop: Shop, moment: datetime) -> None:
    """Say that this night looks at everything before the moment, and bring the mirror up to what is known.

    Said only where there is something to see: what is loaded later would count as late for ever. Said before the
    mirror is read for good: what arrives in between is late.
    """
    mirror.refresh(shop)
    if snapshot.purchases(shop.home / "ledger", as_of=moment, timezone=shop.timezone).empty:
        raise NothingToDo(
            f"no customer had bought anything before {moment.isoformat()}; run: regulars load transactions FILE"
        )
    nights.began(shop, moment)
    mirror.refresh(shop)


def _prepare(shop: Shop, as_of: datetime, folder: Path, *, replay: bool) -> tuple[World, store.Store]:
    ledger, zone = shop.home / "ledger", shop.timezone
    first = snapshot.first_day(ledger, as_of, zone)
    assert first is not None, "a night looks only where somebody bought something"
    calendar = labels.Calendar(first, as_of, zone)
    bought = snapshot.purchases(ledger, as_of=as_of, timezone=zone)
    world = World(calendar, bought, {}, _churn_days(shop, calendar, as_of))
    lists = plans.plan("recommender").window(world)
    shelves = [calendar.back(n * lists) for n in (3, 2, 1) if n * lists < calendar.history_days]
    moments = labels.moments(calendar, [plan.window(world) for plan in plans.PLANS])
    # Importing Feast takes as long as computing the features: DuckDB works while Python imports.
    with ThreadPoolExecutor(1) as aside:
        opening = aside.submit(store.open, folder, None if replay else shop.online_store)
        snapshot.write(ledger, folder, as_of=as_of, moments=moments, timezone=zone, shelf_moments=[*shelves, as_of])
    features = opening.result()
    features.apply()
    baskets = {
        moment: snapshot.bought(
            ledger, as_of=as_of, start=moment, end=calendar.day_start(calendar.days_back(moment) - lists)
        )
        for moment in shelves
    }
    return replace(world, baskets=baskets), features


def _churn_days(shop: Shop, calendar: labels.Calendar, as_of: datetime) -> int:
    """The horizon after which silence is news: nearly all of the shop's gaps are shorter, and labels still fit."""
    if shop.churn_days:
        return shop.churn_days
    usual = snapshot.gap_quantile(shop.home / "ledger", as_of=as_of, timezone=shop.timezone)
    least = LEAST_CHURN_DAYS if math.isnan(usual) else max(LEAST_CHURN_DAYS, math.ceil(usual))
    return max(1, min(least, calendar.history_days // 4))


def _tell_everyone(
    tonight: Evening, speakers: dict[str, versions.Version], seconds: dict[str, float], tell: Tell
) -> tuple[int, int]:
    with _timed(seconds, "online features", tell):
        if not tonight.replay:
            tonight.features.materialise(tonight.as_of)
    with _timed(seconds, "scores", tell):
        return writeback.everyone(
            tonight.shop,
            tonight.features,
            {name: (version.number, version.model) for name, version in speakers.items()},
            tonight.as_of,
            stand_ins=[name for name, version in speakers.items() if version.facts["fallback"]],
        )


def _plans(only: Sequence[str] | None) -> list[Plan]:
    known = {plan.name: plan for plan in plans.PLANS}
    unknown = set(only or ()) - set(known)
    if unknown:
        raise WrongUsage(f"there is no model called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [plan for name, plan in known.items() if not only or name in only]


@contextmanager
def _alone(shop: Shop) -> Iterator[None]:
    """One night at a time: two would write the same features."""
    with (shop.home / "night.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NothingToDo("another night is running in this home; wait for it to end") from None
        # What a killed night left behind; nobody else is at work here now.
        for leftover in (
            path for name in (".train-*", ".found-*", ".rival-*", "replays/*") for path in shop.home.glob(name)
        ):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextmanager
def _timed(seconds: dict[str, float], step: str, tell: Tell) -> Iterator[None]:
    tell(f"{step} ...")
    began = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - began, 2)
