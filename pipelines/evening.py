"""The evening: the shop as it was known at a moment, its mirror up to date and every feature computed."""

from __future__ import annotations

import fcntl
import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from customers import clock, consent, interactions, mirror, nights, offers
from customers.shop import Shop, ShopError
from features import appeal, engagement, needs, prices, snapshot, sorts, store, together
from pipelines.failures import NothingToDo, WrongUsage
from training import labels, plans
from training.plans import Plan, World

Tell = Callable[[str], None]

#: A month: a horizon shorter than that would call a customer lost who skipped two weekly trips.
LEAST_CHURN_DAYS = 28
#: Days on which campaigns went out that offers are learned from: the latest, some years of a shop's mailings.
MAILING_DAYS = 40
#: The view whose rows say who has figures, for each way of laying out a plan's rows.
VIEWS = {"recommender_v1": "shelf", "restock_v1": "needs"}


@dataclass(frozen=True)
class Past:
    """What the shop's campaigns came to, as known at a moment: who received which, and which offers were redeemed."""

    book: offers.Book
    received: pd.DataFrame
    redemptions: pd.DataFrame

    @cached_property
    def mailings(self) -> pd.DataFrame:
        """Who received anything at which moment: customer_key, event_timestamp, each pair once."""
        pairs = self.received[["customer_key", "event_timestamp"]].drop_duplicates()
        return pairs.sort_values(["event_timestamp", "customer_key"], ignore_index=True)

    @cached_property
    def wanted(self) -> pd.DataFrame:
        """Every offer that somebody could have redeemed: customer_key, as_of, offer_key, each once."""
        listed = self.book.offers[["offer_key", "campaign_id"]].dropna()
        pairs = self.received.merge(listed, on="campaign_id").rename(columns={"event_timestamp": "as_of"})
        pairs = pairs.sort_values(["as_of", "customer_key", "offer_key"], ignore_index=True)
        return pairs[["customer_key", "as_of", "offer_key"]].drop_duplicates(ignore_index=True)

    def digest(self) -> str:
        """The same for the same campaigns, receipts and redemptions."""
        frames = (self.book.offers.drop(columns="channels"), self.book.covers, self.received, self.redemptions)
        sums = [int(pd.util.hash_pandas_object(frame.astype(str), index=False).sum()) for frame in frames]
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Evening:
    """What a night works on: the shop as it was known at a moment, with its features computed."""

    shop: Shop
    as_of: datetime
    replay: bool
    world: World
    features: store.Store
    ledger: str
    past: Past
    _frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def frame(self, plan: Plan) -> pd.DataFrame:
        """All rows that a plan learns from, in a stable order: customer_key, as_of, features, of whoever allows it.

        One a customer and moment; with `expand`, one a customer, moment and offer or category.
        """
        laid_out = plan.expand or plan.service
        if laid_out not in self._frames:
            entities = allowing(self.shop, self._entities(plan))
            figures = self.features.history(plan.service, entities).rename(columns={"event_timestamp": "as_of"})
            self._frames[laid_out] = self._expanded(plan, figures)
        return self._frames[laid_out]

    def _entities(self, plan: Plan) -> pd.DataFrame:
        if plan.expand == "offers":
            return self.past.mailings
        path = self.features.folder / VIEWS.get(plan.service, "rhythm") / "part.parquet"
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


def outlook(shop: Shop, moment: datetime) -> tuple[World, Past]:
    """What labels are cut from as of a moment, without any features: what may be counted before a night is run."""
    first = snapshot.first_day(shop.home / "ledger", moment, shop.timezone)
    assert first is not None, "whoever asks has seen that somebody bought something"
    calendar = labels.Calendar(first, moment, shop.timezone)
    past = _past(shop, calendar)
    return _world(shop, calendar, past), past


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
    world, past = outlook(shop, as_of)
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
            world, baskets=_baskets(ledger, calendar, shelves, lists),
            prices=prices.going(folder, ledger, as_of=as_of),
            together=together.pairs(ledger, as_of=as_of, timezone=zone),
        )  # fmt: skip
        together.keep(world.together, folder)
    features = opening.result()
    features.apply()
    sales = snapshot.digest(ledger, as_of=as_of)
    return Evening(shop, as_of, replay, world, features, f"{sales}{past.digest()}", past)


def _world(shop: Shop, calendar: labels.Calendar, past: Past) -> World:
    ledger, as_of, zone = shop.home / "ledger", calendar.as_of, shop.timezone
    watched = calendar.back(min(calendar.history_days, 3 * plans.LIST_DAYS))
    return World(
        calendar,
        snapshot.purchases(ledger, as_of=as_of, timezone=zone),
        {},
        _churn_days(shop, calendar),
        value_days=shop.value_days,
        category_days=snapshot.category_days(ledger, as_of=as_of, timezone=zone, start=watched),
        redemptions=past.redemptions,
        offers=past.book.offers[["offer_key", "campaign_id", "starts_at", "ends_at"]],
        products=snapshot.products(ledger),
    )


def _past(shop: Shop, calendar: labels.Calendar) -> Past:
    """Campaigns that went out while the shop's sales were known; what a customer can do with one begins that day."""
    happened = interactions.happened(shop, engagement.REACHING, as_of=calendar.as_of)
    days = happened["happened_at"].dt.tz_convert(calendar.timezone).dt.normalize().dt.tz_convert("UTC")
    received = happened.assign(event_timestamp=days.astype("datetime64[us, UTC]"))
    received = received[
        received["campaign_id"].notna() & (received["event_timestamp"] > calendar.back(calendar.history_days))
    ]
    latest = received["event_timestamp"].drop_duplicates().nlargest(MAILING_DAYS)
    received = received.loc[
        received["event_timestamp"].isin(latest), ["customer_key", "campaign_id", "event_timestamp"]
    ]
    book = offers.book(shop)
    return Past(book, received.reset_index(drop=True), interactions.redemptions(shop, as_of=calendar.as_of))


def _baskets(
    ledger: Path, calendar: labels.Calendar, shelves: list[datetime], lists: int
) -> dict[datetime, pd.DataFrame]:
    """What everybody bought in the window after each of these moments."""
    return {
        moment: snapshot.bought(
            ledger, as_of=calendar.as_of, start=moment, end=calendar.day_start(calendar.days_back(moment) - lists)
        )
        for moment in shelves
    }


def _churn_days(shop: Shop, calendar: labels.Calendar) -> int:
    """The horizon after which silence is news: nearly all of the shop's gaps are shorter, and labels still fit."""
    if shop.churn_days:
        return shop.churn_days
    usual = snapshot.gap_quantile(shop.home / "ledger", as_of=calendar.as_of, timezone=shop.timezone)
    least = LEAST_CHURN_DAYS if math.isnan(usual) else max(LEAST_CHURN_DAYS, math.ceil(usual))
    return max(1, min(least, calendar.history_days // 4))


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
