"""The evening: the shop as it was known at a moment, its mirror up to date and every feature computed."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from customers import clock, consent, mirror, nights
from customers.shop import Shop, ShopError
from features import appeal, needs, prices, snapshot, sorts, store, together
from models import bundle
from pipelines import outlook
from pipelines.failures import NothingToDo, WrongUsage
from training import labels, plans
from training.plans import Plan, World

Tell = Callable[[str], None]

#: The view whose rows say who has figures, for each way of laying out a plan's rows.
VIEWS = {"recommender_v1": "shelf", "restock_v1": "needs"}


@dataclass(frozen=True, slots=True)
class Evening:
    """What a night works on: the shop as it was known at a moment, with its features computed."""

    shop: Shop
    as_of: datetime
    replay: bool
    world: World
    features: store.Store
    ledger: str
    past: outlook.Past
    _frames: dict[str | tuple[str, ...], pd.DataFrame] = field(default_factory=dict)

    def frame(self, plan: Plan) -> pd.DataFrame:
        """All rows that a plan learns from, in a stable order: customer_key, as_of, features, of whoever allows it.

        One a customer and moment; with `expand`, one a customer, moment and offer or category.
        """
        # Churn, timing and value look at the same figures, and asking for them takes as long as some models learn.
        laid_out = plan.expand or (self._view(plan), *self.features.columns(plan.service))
        if laid_out not in self._frames:
            entities = allowing(self.shop, self._entities(plan))
            figures = self.features.history(plan.service, entities).rename(columns={"event_timestamp": "as_of"})
            self._frames[laid_out] = self._expanded(plan, figures)
        return self._frames[laid_out]

    @staticmethod
    def _view(plan: Plan) -> str:
        return VIEWS.get(plan.service, "rhythm")

    def _entities(self, plan: Plan) -> pd.DataFrame:
        if plan.expand == "offers":
            return self.past.mailings
        path = self.features.folder / self._view(plan) / "part.parquet"
        found = pq.read_table(path, columns=["customer_key", "event_timestamp"]).to_pandas()
        if plan.service in VIEWS:  # lists are also kept as of the days on which campaigns went out
            found = found[found["event_timestamp"].isin([*self.world.baskets, self.as_of])]
        return found.reset_index(drop=True)

    def _expanded(self, plan: Plan, figures: pd.DataFrame) -> pd.DataFrame:
        if plan.expand == "needs":
            return needs.pairs(figures)
        if plan.expand == "offers":
            prices = pd.read_parquet(self.features.folder / "prices" / "part.parquet")
            book, catalogue = self.past.book, sorts.Sorts.read(self.world.products)
            return appeal.pairs(figures, self.past.wanted, book.covers, book.offers, prices, catalogue)
        return figures


@contextmanager
def evening(shop: Shop, as_of: str | None, seconds: dict[str, float], tell: Tell) -> Iterator[Evening]:
    """Bring the mirror up to date and compute every feature as of the moment; one night at a time in a home."""
    moment = _moment(shop, as_of)
    with _alone(shop):
        with timed(seconds, "mirror", tell):
            _look(shop, moment)
        replay = moment < (nights.last_looked(shop) or moment)
        folder = shop.home / "features"
        if replay:
            folder = shop.home / "replays" / moment.strftime("%Y%m%dT%H%M%S")
        with timed(seconds, "features", tell):
            tonight = _prepare(shop, moment, folder, replay=replay)
        try:
            yield tonight
        finally:
            if replay:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def rehearsal(shop: Shop, moment: datetime, plan: Plan, *, at: Sequence[datetime] | None = None) -> Iterator[Evening]:
    """The shop as it was known at a moment, with what one plan learns from; nothing is left behind.

    Customers are looked at at the moments `at`, without it at those that the plan itself would learn from. Unlike
    a night it does not say that it looked: no sale is late because somebody tried models out.
    """
    with _alone(shop):
        mirror.refresh(shop)
        _somebody_bought(shop, moment)
        folder = shop.home / "replays" / f"{plan.name}-{moment:%Y%m%dT%H%M%S}"
        try:
            yield _prepare(shop, moment, folder, replay=True, only=plan, at=at)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def allowing(shop: Shop, rows: pd.DataFrame) -> pd.DataFrame:
    """Nobody learns from a customer who does not allow profiling; where nobody does, totals of all are left."""
    allowed = rows["customer_key"].isin(consent.allowed(shop, rows["customer_key"].unique(), "profiling"))
    return rows[allowed].reset_index(drop=True) if allowed.any() else rows


@contextmanager
def timed(seconds: dict[str, float], step: str, tell: Tell) -> Iterator[None]:
    """Say that a step begins, and note how long it took."""
    tell(f"{step} ...")
    began = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - began, 2)


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
    _somebody_bought(shop, moment)
    nights.began(shop, moment)
    mirror.refresh(shop)


def _somebody_bought(shop: Shop, moment: datetime) -> None:
    if snapshot.purchases(shop.home / "ledger", as_of=moment, timezone=shop.timezone).empty:
        raise NothingToDo(
            f"no customer had bought anything before {moment.isoformat()}; run: regulars load transactions FILE"
        )


def _prepare(
    shop: Shop,
    as_of: datetime,
    folder: Path,
    *,
    replay: bool,
    only: Plan | None = None,
    at: Sequence[datetime] | None = None,
) -> Evening:
    ledger, zone = shop.home / "ledger", shop.timezone
    world, past = outlook.of(shop, as_of)
    calendar = world.calendar
    lists = plans.plan("recommender").window(world)
    shelves = [calendar.back(n * lists) for n in (3, 2, 1) if n * lists < calendar.history_days]
    shelves = [] if only and only.service not in VIEWS else shelves
    windows = [plan.window(world) for plan in plans.PLANS if not plan.spread]
    # Lists and offers have moments of their own; whoever asks for them alone needs no others.
    alone = only is not None and only.name in ("recommender", "offers")
    moments = list(at) if at else [as_of] if alone else labels.moments(calendar, windows)
    mailings = None if only and only.expand != "offers" else past.mailings
    # Importing Feast takes as long as computing the features: DuckDB works while Python imports.
    with ThreadPoolExecutor(1) as aside:
        opening = aside.submit(store.open, folder, None if replay else shop.online_store)
        snapshot.write(
            ledger, folder, as_of=as_of, moments=moments, timezone=zone,
            shelf_moments=[*shelves, as_of], receipts=mailings,
        )  # fmt: skip
        world = replace(
            world, baskets=outlook.baskets(ledger, calendar, shelves, lists),
            prices=prices.going(folder, ledger, as_of=as_of),
            together=together.pairs(ledger, as_of=as_of, timezone=zone),
        )  # fmt: skip
        together.keep(world.together, folder)
    features = opening.result()
    features.apply()
    sales = snapshot.digest(ledger, as_of=as_of)
    return Evening(shop, as_of, replay, world, features, f"{sales}{past.digest()}", past)


@contextmanager
def _alone(shop: Shop) -> Iterator[None]:
    """One night at a time: two would write the same features."""
    with (shop.home / "night.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NothingToDo("another night is running in this home; wait for it to end") from None
        # What a killed night left behind: no other one is at work here now, but servers may be following a champion.
        bundle.clear_leftovers(shop.home)
        for leftover in (
            path for name in (".train-*", ".found-*", ".rival-*", "replays/*") for path in shop.home.glob(name)
        ):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
