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

from customers import clock
from customers.ledger import watermark
from customers.parquet import mirror
from customers.privacy import consents
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from features.families import category_history
from features.offers import affinity, category_affinity
from features.products import co_purchases, prices
from features.snapshots import snapshot
from features.store import feature_store
from models.registry import bundle
from pipelines.errors import NothingToDo, WrongUsage
from pipelines.nightly import training_data
from pipelines.nightly.training_data import CampaignHistory
from training import calendar as training_calendar
from training.tasks import all_tasks
from training.tasks.task import Task, TrainingData

ProgressCallback = Callable[[str], None]

#: The view whose rows say who has figures, for each way of laying out a plan's rows.
ENTITY_VIEWS = {"recommender_v1": "shelf", "restock_v1": "needs"}


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a night works on: the shop as it was known at a moment, with its features computed."""

    shop: Shop
    as_of: datetime
    is_historical: bool
    training_data: TrainingData
    features: feature_store.FeatureStore
    ledger_digest: str
    campaigns: CampaignHistory
    _frames: dict[str | tuple[str, ...], pd.DataFrame] = field(default_factory=dict)

    def load_task_frame(self, task: Task) -> pd.DataFrame:
        """All rows that a plan learns from, in a stable order: customer_key, as_of, features, of whoever allows it.

        One a customer and moment; with `expand`, one a customer, moment and offer or category.
        """
        # Churn, timing and value look at the same figures, and asking for them takes as long as some models learn.
        frame_key = task.expand or (self._entity_view(task), *self.features.feature_names(task.service))
        if frame_key not in self._frames:
            entities = filter_profiling_allowed(self.shop, self._load_entities(task))
            features = self.features.historical_features(task.service, entities).rename(columns={"event_timestamp": "as_of"})
            self._frames[frame_key] = self._expand_rows(task, features)
        return self._frames[frame_key]

    @staticmethod
    def _entity_view(task: Task) -> str:
        return ENTITY_VIEWS.get(task.service, "rhythm")

    def _load_entities(self, task: Task) -> pd.DataFrame:
        if task.expand == "offers":
            return self.campaigns.deliveries
        path = self.features.folder / self._entity_view(task) / "part.parquet"
        entities = pq.read_table(path, columns=["customer_key", "event_timestamp"]).to_pandas()
        if task.service in ENTITY_VIEWS:  # lists are also kept as of the days on which campaigns went out
            entities = entities[entities["event_timestamp"].isin([*self.training_data.baskets, self.as_of])]
        return entities.reset_index(drop=True)

    def _expand_rows(self, task: Task, features: pd.DataFrame) -> pd.DataFrame:
        if task.expand == "needs":
            return category_history.explode_lists(features)
        if task.expand == "offers":
            prices = pd.read_parquet(self.features.folder / "prices" / "part.parquet")
            offer_catalogue, product_categories = (
                self.campaigns.catalogue,
                category_affinity.ProductCategoryCodes.from_catalogue(self.training_data.products),
            )
            return affinity.build_affinity_features(
                features,
                self.campaigns.redeemable_offers,
                offer_catalogue.covered_products,
                offer_catalogue.offers,
                prices,
                product_categories,
            )
        return features


@contextmanager
def open_run_context(
    shop: Shop, as_of: str | None, seconds: dict[str, float], progress: ProgressCallback
) -> Iterator[RunContext]:
    """Bring the mirror up to date and compute every feature as of the moment; one night at a time in a home."""
    cutoff = _parse_as_of(shop, as_of)
    with _lock_home(shop):
        with time_step(seconds, "mirror", progress):
            _advance_watermark(shop, cutoff)
        is_historical = cutoff < (watermark.read_watermark(shop) or cutoff)
        folder = shop.home / "features"
        if is_historical:
            folder = shop.home / "replays" / cutoff.strftime("%Y%m%dT%H%M%S")
        with time_step(seconds, "features", progress):
            context = _build_context(shop, cutoff, folder, is_historical=is_historical)
        try:
            yield context
        finally:
            if is_historical:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_dry_run(
    shop: Shop, as_of: datetime, task: Task, *, cutoffs: Sequence[datetime] | None = None
) -> Iterator[RunContext]:
    """The shop as it was known at a moment, with what one plan learns from; nothing is left behind.

    Customers are looked at at the moments `at`, without it at those that the plan itself would learn from. Unlike
    a night it does not say that it looked: no sale is late because somebody tried models out.
    """
    with _lock_home(shop):
        mirror.refresh(shop)
        _require_purchases(shop, as_of)
        folder = shop.home / "replays" / f"{task.name}-{as_of:%Y%m%dT%H%M%S}"
        try:
            yield _build_context(shop, as_of, folder, is_historical=True, only_task=task, cutoffs=cutoffs)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def filter_profiling_allowed(shop: Shop, rows: pd.DataFrame) -> pd.DataFrame:
    """Nobody learns from a customer who does not allow profiling; where nobody does, totals of all are left."""
    is_allowed = rows["customer_key"].isin(consents.allowed_customers(shop, rows["customer_key"].unique(), "profiling"))
    return rows[is_allowed].reset_index(drop=True) if is_allowed.any() else rows


@contextmanager
def time_step(seconds: dict[str, float], step: str, progress: ProgressCallback) -> Iterator[None]:
    """Say that a step begins, and note how long it took."""
    progress(f"{step} ...")
    started = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - started, 2)


def _parse_as_of(shop: Shop, as_of: str | None) -> datetime:
    now = clock.now(shop)
    if as_of is None:
        return now
    try:
        cutoff = clock.parse_time(shop, as_of)
    except ShopError as error:
        raise WrongUsage(str(error)) from None
    if cutoff > now:
        raise WrongUsage(f"{as_of} has not come yet: in this shop it is {now.isoformat(timespec='minutes')}")
    return cutoff


def _advance_watermark(shop: Shop, as_of: datetime) -> None:
    """Say that this night looks at everything before the moment, and bring the mirror up to what is known.

    Said only where there is something to see: what is loaded later would count as late for ever. Said before the
    mirror is read for good: what arrives in between is late.
    """
    mirror.refresh(shop)
    _require_purchases(shop, as_of)
    watermark.record_run_start(shop, as_of)
    mirror.refresh(shop)


def _require_purchases(shop: Shop, as_of: datetime) -> None:
    if snapshot.load_purchases(shop.home / "ledger", as_of=as_of, timezone=shop.timezone).empty:
        raise NothingToDo(
            f"no customer had bought anything before {as_of.isoformat()}; run: regulars load transactions FILE"
        )


def _build_context(
    shop: Shop,
    as_of: datetime,
    folder: Path,
    *,
    is_historical: bool,
    only_task: Task | None = None,
    cutoffs: Sequence[datetime] | None = None,
) -> RunContext:
    ledger, zone = shop.home / "ledger", shop.timezone
    dataset, campaigns = training_data.load_training_data(shop, as_of)
    calendar = dataset.calendar
    list_days = all_tasks.get_task("recommender").holdout_days(dataset)
    list_cutoffs = [calendar.cutoff_before(n * list_days) for n in (3, 2, 1) if n * list_days < calendar.history_days]
    list_cutoffs = [] if only_task and only_task.service not in ENTITY_VIEWS else list_cutoffs
    windows = [task.holdout_days(dataset) for task in all_tasks.TASKS if not task.is_event_based]
    # Lists and offers have moments of their own; whoever asks for them alone needs no others.
    needs_no_other_cutoffs = only_task is not None and only_task.name in ("recommender", "offers")
    feature_cutoffs = (
        list(cutoffs)
        if cutoffs
        else [as_of]
        if needs_no_other_cutoffs
        else training_calendar.training_cutoffs(calendar, windows)
    )
    deliveries = None if only_task and only_task.expand != "offers" else campaigns.deliveries
    # Importing Feast takes as long as computing the features: DuckDB works while Python imports.
    with ThreadPoolExecutor(1) as executor:
        store_future = executor.submit(feature_store.open_store, folder, None if is_historical else shop.online_store)
        snapshot.write_snapshot(
            ledger, folder, as_of=as_of, cutoffs=feature_cutoffs, timezone=zone,
            list_cutoffs=[*list_cutoffs, as_of], customer_cutoffs=deliveries,
        )  # fmt: skip
        dataset = replace(
            dataset, baskets=training_data.load_window_baskets(ledger, calendar, list_cutoffs, list_days),
            prices=prices.load_prices(folder, ledger, as_of=as_of),
            together=co_purchases.count_co_purchases(ledger, as_of=as_of, timezone=zone),
        )  # fmt: skip
        co_purchases.save_co_purchases(dataset.together, folder)
    features = store_future.result()
    features.apply()
    sales_digest = snapshot.digest(ledger, as_of=as_of)
    return RunContext(shop, as_of, is_historical, dataset, features, f"{sales_digest}{campaigns.digest()}", campaigns)


@contextmanager
def _lock_home(shop: Shop) -> Iterator[None]:
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
