"""Run context: the shop as it was known at one as_of, with its Parquet mirror up to date and every feature computed."""

from __future__ import annotations

import ctypes
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from customers import clock
from customers.database import shop_lock
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

#: The feature view whose rows name the customers and times of a service; "rhythm" for every other service.
ENTITY_VIEWS = {"recommender_v1": "shelf", "restock_v1": "needs"}


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything that one run works on: the shop, its as_of, training data and computed features.

    A historical run has an `as_of` before that of the last run, or is a dry run; it works in a folder of its own, which
    is deleted.
    """

    shop: Shop
    as_of: datetime
    is_historical: bool
    training_data: TrainingData
    features: feature_store.FeatureStore
    ledger_digest: str
    campaigns: CampaignHistory
    training_customers: NDArray[np.int64]
    _frames: dict[tuple[str, ...], pd.DataFrame] = field(default_factory=dict)

    def load_task_frame(self, task: Task) -> pd.DataFrame:
        """All rows of a task, of at most task.max_customers of the customers to train on, in a stable order.

        Columns customer_key, as_of and the task's features; one row per customer and as_of, with `expand` one row per
        customer, as_of and offer or category.
        """
        frame_key = self._frame_key(task)
        if frame_key not in self._frames:
            self.free_frames()  # before the next one is read: a frame is among the largest things of a run
            entities = filter_for_training(self.shop, self._load_entities(task))
            entities = entities[entities["customer_key"].isin(self.training_customers)]
            entities = sample_customers(entities, task.max_customers).reset_index(drop=True)
            features = self.features.historical_features(task.service, entities)
            self._frames[frame_key] = self._expand_rows(task, features.rename(columns={"event_timestamp": "as_of"}))
            del features
            _return_freed_memory()
        return self._frames[frame_key]

    def free_frames(self) -> None:
        """Give back the memory of the rows that were read last; they are read again where they are needed."""
        self._frames.clear()
        _return_freed_memory()

    def group_by_rows(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks in their order, but those with the same rows one after the other: only the last rows are held."""
        keys = list(dict.fromkeys(map(self._frame_key, tasks)))
        return sorted(tasks, key=lambda task: keys.index(self._frame_key(task)))

    def _frame_key(self, task: Task) -> tuple[str, ...]:
        """What the rows of a task are made of: churn, timing and value have the same."""
        columns = self.features.feature_names(task.service)
        return (task.expand or "", self._entity_view(task), *columns, str(task.max_customers))

    @staticmethod
    def _entity_view(task: Task) -> str:
        return ENTITY_VIEWS.get(task.service, "rhythm")

    def _load_entities(self, task: Task) -> pd.DataFrame:
        if task.expand == "offers":
            return self.campaigns.deliveries
        path = self.features.folder / self._entity_view(task) / "part.parquet"
        entities = pq.read_table(path, columns=["customer_key", "event_timestamp"]).to_pandas()
        if task.service in ENTITY_VIEWS:  # there are lists for the days on which campaigns went out too
            entities = entities[entities["event_timestamp"].isin([*self.training_data.baskets, self.as_of])]
        return entities.reset_index(drop=True)

    def _expand_rows(self, task: Task, features: pd.DataFrame) -> pd.DataFrame:
        if task.expand == "needs":
            return category_history.explode_lists(features)
        if task.expand == "offers":
            prices = pd.read_parquet(self.features.folder / "prices" / "part.parquet")
            catalogue, pairs = self.campaigns.catalogue, self.campaigns.redeemable_offers
            pairs = pairs[pairs["customer_key"].isin(features["customer_key"])].reset_index(drop=True)
            category_codes = category_affinity.ProductCategoryCodes.from_catalogue(self.training_data.products)
            return affinity.build_affinity_features(
                features, pairs, catalogue.covered_products, catalogue.offers, prices, category_codes
            )  # fmt: skip
        return features


@contextmanager
def open_run_context(
    shop: Shop, as_of: str | None, seconds: dict[str, float], progress: ProgressCallback
) -> Iterator[RunContext]:
    """Bring the mirror up to date and compute every feature as of `as_of` (default: now), holding the home's lock.

    Raises WrongUsage for a time that cannot be read or lies in the future, NothingToDo without purchases before it or
    while another run works in this home.
    """
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
    """The shop as it was known at `as_of`, with the training rows of one task; its folder is deleted at the end.

    Rows lie at `cutoffs`, by default at those of the task's own training. Unlike a nightly run it does not advance the
    watermark, so that trying a model out makes no sale late. Raises NothingToDo as `open_run_context` does.
    """
    with _lock_home(shop):
        mirror.refresh(shop)
        _require_purchases(shop, as_of)
        folder = shop.home / "replays" / f"{task.name}-{as_of:%Y%m%dT%H%M%S}"
        try:
            yield _build_context(shop, as_of, folder, is_historical=True, only_task=task, cutoffs=cutoffs)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def filter_for_training(shop: Shop, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows to train on, by column customer_key: those of customers who allow profiling.

    All rows where no customer allows it: without any row there would be no model, and not even the averages over all
    customers that are served to those who do not allow profiling. Scoring never uses this fallback.
    """
    allowed_rows = consents.filter_allowed(shop, rows, "profiling")
    return rows if allowed_rows.empty else allowed_rows


def choose_training_customers(shop: Shop, purchases: pd.DataFrame, deliveries: pd.DataFrame) -> NDArray[np.int64]:
    """Keys of the customers to train on, (n,), sorted: a sample of the buyers, and one of those who received offers.

    Each (by column customer_key) is as large as the largest that a task takes; who may not be profiled is left out.
    """
    offers = all_tasks.get_task("offers").max_customers
    samples = [
        _sample_keys(shop, purchases, max(task.max_customers for task in all_tasks.TASKS)),
        _sample_keys(shop, deliveries, offers),
    ]
    return np.unique(np.concatenate(samples))


def _sample_keys(shop: Shop, rows: pd.DataFrame, max_customers: int) -> NDArray[np.int64]:
    keys = pd.DataFrame({"customer_key": rows["customer_key"].unique()})
    return sample_customers(filter_for_training(shop, keys), max_customers)["customer_key"].to_numpy(np.int64)


def sample_customers(rows: pd.DataFrame, max_customers: int) -> pd.DataFrame:
    """All rows of at most max_customers customers, by column customer_key: the same ones every night, in their order.

    What a model learns from a customer does not depend on how many others there are, but the memory and time of
    training do.
    """
    keys = np.sort(rows["customer_key"].unique())
    if len(keys) <= max_customers:
        return rows
    chosen = keys[np.argsort(pd.util.hash_array(keys), kind="stable")[:max_customers]]
    return rows[rows["customer_key"].isin(chosen)].reset_index(drop=True)


@contextmanager
def time_step(seconds: dict[str, float], step: str, progress: ProgressCallback) -> Iterator[None]:
    """Report that a step begins, and add its duration to `seconds`."""
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
    """Record that this run covers every sale before `as_of`, and bring the mirror up to date.

    Recorded only where there are purchases, else everything loaded later would count as late for ever. Recorded before
    the mirror is refreshed for the last time: a sale that arrives in between is late.
    """
    mirror.refresh(shop)
    _require_purchases(shop, as_of)
    watermark.record_run_start(shop, as_of)
    mirror.refresh(shop)


def _require_purchases(shop: Shop, as_of: datetime) -> None:
    if not snapshot.has_purchases(shop.ledger, as_of=as_of, timezone=shop.timezone):
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
    ledger, zone = shop.ledger, shop.timezone
    dataset, campaigns = training_data.load_training_data(shop, as_of)
    calendar = dataset.calendar
    list_days = all_tasks.get_task("recommender").holdout_days(dataset)
    list_cutoffs = [calendar.cutoff_before(n * list_days) for n in (3, 2, 1) if n * list_days < calendar.history_days]
    list_cutoffs = [] if only_task and only_task.service not in ENTITY_VIEWS else list_cutoffs
    windows = [task.holdout_days(dataset) for task in all_tasks.TASKS if not task.is_event_based]
    # The recommender and offers have cutoffs of their own; a dry run of one of them needs no others.
    needs_no_other_cutoffs = only_task is not None and only_task.name in ("recommender", "offers")
    feature_cutoffs = (
        list(cutoffs)
        if cutoffs
        else [as_of]
        if needs_no_other_cutoffs
        else training_calendar.training_cutoffs(calendar, windows)
    )
    training_customers = choose_training_customers(shop, dataset.purchases, campaigns.deliveries)
    needs_deliveries = only_task is None or only_task.expand == "offers"
    deliveries = campaigns.deliveries[campaigns.deliveries["customer_key"].isin(training_customers)]
    features = feature_store.open_store(folder, None if is_historical else shop.online_store)
    # Importing Feast takes as long as computing the features: DuckDB works while Python imports.
    with ThreadPoolExecutor(1) as executor:
        feast_future = executor.submit(lambda: features.feast)
        snapshot.write_snapshot(
            ledger, folder, as_of=as_of, cutoffs=feature_cutoffs, timezone=zone,
            list_cutoffs=[*list_cutoffs, as_of], customer_cutoffs=deliveries if needs_deliveries else None,
            training_customers=training_customers, engine=shop.engine,
        )  # fmt: skip
        dataset = replace(
            dataset, baskets=training_data.load_window_baskets(shop, calendar, list_cutoffs, list_days),
            prices=prices.load_prices(folder, ledger, as_of=as_of),
            together=co_purchases.count_co_purchases(ledger, as_of=as_of, timezone=zone, engine=shop.engine),
        )  # fmt: skip
        co_purchases.save_co_purchases(dataset.together, folder)
    feast_future.result()
    features.apply()
    sales_digest = snapshot.digest(ledger, as_of=as_of)
    input_digest = f"{sales_digest}{campaigns.digest()}"
    return RunContext(shop, as_of, is_historical, dataset, features, input_digest, campaigns, training_customers)


def _return_freed_memory() -> None:
    """Give freed memory back to the system: of lists, freed one by one, glibc would keep hundreds of megabytes."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def _lock_home(shop: Shop) -> Iterator[None]:
    """Hold the lock of nightly runs: two at once would write the same scores. Raises NothingToDo while it is held."""
    with ExitStack() as stack:
        try:
            stack.enter_context(shop_lock.hold(shop, "night", wait=False))
        except shop_lock.LockHeld:
            raise NothingToDo("another nightly run works on this shop; wait for it to end") from None
        # Delete what a killed run left; folders of living servers that publish a champion stay.
        bundle.clear_leftovers(shop.home)
        for leftover in (
            path for name in (".train-*", ".found-*", ".rival-*", "replays/*") for path in shop.home.glob(name)
        ):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
