"""Speed benchmark: the time of each big step as a multiple of a named reference, both measured in turns in one run.

Seconds mean little on a shared machine, so every result is a ratio: ours over a reference that does the same on the
same records (the Complete Journey), round by round, in CPU time and wall time. Run it with `make bench`; `--only NAME`
measures the rows whose name begins with NAME, `--json` writes one JSON object instead of the table. An aim is compared
with the median of the CPU ratios, which other processes disturb least; where a server does the work, with the median of
the clock ratios. The rows of PostgreSQL need POSTGRES_URL, a server on which databases may be made.
"""

from __future__ import annotations

import os

# As in the command, and before numpy is imported: idle threads do not spin.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", OPENBLAS_NUM_THREADS="1", DO_NOT_TRACK="true")

import argparse
import gc
import json
import resource
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import pandas as pd
import psycopg
import scipy.sparse
from implicit.cpu.als import AlternatingLeastSquares

from customers import clock, setup
from customers.database import engine, schema
from customers.loading import load
from customers.loading.connectors import complete_journey
from customers.parquet import mirror
from customers.scores import score_store
from customers.shop import settings
from features.engine import duckdb as feature_engine
from features.snapshots import point_in_time, snapshot
from models import arrays
from models.recommender import purchase_history, ranked_lists
from models.recommender.model import Recommender
from training import calendar, labels

ZONE, CURRENCY = complete_journey.TIMEZONE, complete_journey.CURRENCY
#: Twelve cutoffs, spread as in a nightly run: the earliest still has a third of a year before it.
EVERY_DAYS, CUTOFFS = 23, 12
WINDOW_DAYS, LENGTH = 28, 50
#: Such as postgresql://user@host:5432, without a database.
POSTGRES_URL = os.environ.get("POSTGRES_URL", "")
REFERENCE = Path(__file__).parents[1] / "features" / "reference.sql"

Work = Callable[[], object]


@dataclass(frozen=True)
class SpeedComparison:
    """One row: each side prepares a round, untimed, and returns the work that is timed.

    `aim` is the largest allowed multiple of the reference's CPU time, of its wall time where a server does the work;
    `within` is the largest wall time in seconds.
    """

    name: str
    against: str
    ours: Callable[[CompleteJourneyShop], Work]
    reference: Callable[[CompleteJourneyShop], Work]
    rounds: int = 5
    aim: float | None = None
    within: float | None = None
    on_server: bool = False


@dataclass(frozen=True)
class ElapsedSeconds:
    """Seconds of one piece of work; the CPU time counts all threads and child processes."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class RatioSummary:
    """The median over the rounds, and their range."""

    median: float
    least: float
    most: float

    @classmethod
    def summarise(cls, numbers: Sequence[float]) -> RatioSummary:
        """Summarise one number per round."""
        return cls(statistics.median(numbers), min(numbers), max(numbers))


@dataclass(frozen=True)
class Measurement:
    """The result of a row: ratios of ours over the reference, and the median seconds of each."""

    name: str
    against: str
    rounds: int
    cpu: RatioSummary
    wall: RatioSummary
    ours: ElapsedSeconds
    reference: ElapsedSeconds
    aim: str
    met: bool | None


def main() -> None:
    """Measure the chosen rows and print them."""
    arguments = _parse_arguments()
    with TemporaryDirectory(prefix="regulars-bench-") as folder:
        journey = CompleteJourneyShop(Path(folder))
        measurements = [
            measure(comparison, journey)
            for comparison in COMPARISONS
            if comparison.name.startswith(arguments.only) and (POSTGRES_URL or not comparison.on_server)
        ]
    sys.stdout.write(format_json(measurements) if arguments.json else format_table(measurements))
    sys.stdout.flush()
    # Skip the normal exit: DuckDB's binding writes about a lost lock when the interpreter shuts down.
    os._exit(0)


def measure(comparison: SpeedComparison, journey: CompleteJourneyShop) -> Measurement:
    """Time both sides in turns, round by round."""
    _print_progress(f"{comparison.name} ...")
    rounds = [
        (time_work(comparison.ours(journey)), time_work(comparison.reference(journey)))
        for _ in range(comparison.rounds)
    ]
    _print_progress(f"\r{' ' * 60}\r")
    ours, reference = (_median_seconds([pair[side] for pair in rounds]) for side in (0, 1))
    cpu = RatioSummary.summarise([ours.cpu / reference.cpu for ours, reference in rounds])
    wall = RatioSummary.summarise([ours.wall / reference.wall for ours, reference in rounds])
    aim_result = _check_aim(comparison, wall if comparison.on_server else cpu, ours)
    return Measurement(comparison.name, comparison.against, comparison.rounds, cpu, wall, ours, reference, *aim_result)


def time_work(work: Work) -> ElapsedSeconds:
    """Do the work once, after collecting the garbage of the previous round."""
    gc.collect()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    work()
    return ElapsedSeconds(_cpu_seconds() - cpu, time.perf_counter() - wall)


def format_table(measurements: Sequence[Measurement]) -> str:
    """The results as a text table."""
    head = ("what", "against", "CPU ratio", "clock ratio", "ours s", "reference s", "aim", "")
    rows = [
        (
            row.name,
            row.against,
            _format_ratio(row.cpu),
            _format_ratio(row.wall),
            *(f"{side.cpu:.3f}/{side.wall:.3f}" for side in (row.ours, row.reference)),
            row.aim,
            {True: "met", False: "missed", None: ""}[row.met],
        )
        for row in measurements
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    table = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )
    return f"{table}\n\nRatios: median (range) over the rounds. Seconds: medians, CPU/clock.\n"


def format_json(measurements: Sequence[Measurement]) -> str:
    """The results as JSON."""
    return json.dumps({"benches": [asdict(row) for row in measurements]}, indent=2) + "\n"


class CompleteJourneyShop:
    """The Complete Journey in a temporary home, and what the comparisons need of it, each made on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make_folder(self) -> Path:
        """Create an empty folder."""
        return Path(mkdtemp(dir=self.folder))

    @cached_property
    def record_files(self) -> Path:
        """The records as files to load."""
        folder = self.make_folder()
        complete_journey.write_files(folder)
        return folder

    @cached_property
    def shop(self) -> settings.Shop:
        """A shop with all records loaded, and its mirror."""
        shop = self.make_stocked_shop()
        load.load_files(shop, "transactions", [self.record_files / "transactions.parquet"])
        mirror.refresh(shop)
        return shop

    def make_stocked_shop(self) -> settings.Shop:
        """Create a shop with customers and products, but no sales."""
        shop = self.make_empty_shop()
        for kind in ("customers", "products"):
            load.load_files(shop, kind, [self.record_files / f"{kind}.parquet"])
        return shop

    def make_empty_shop(self, database_url: str | None = None) -> settings.Shop:
        """Create a shop without records, by default on SQLite in its home."""
        if database_url:
            os.environ["REGULARS_DATABASE_URL"] = database_url
        try:
            return setup.init_home(self.make_folder() / "home", timezone=ZONE, currency=CURRENCY, now="last-sale")
        finally:
            os.environ.pop("REGULARS_DATABASE_URL", None)

    @cached_property
    def calendar(self) -> calendar.TrainingCalendar:
        """The shop's days up to the day after the last sale."""
        as_of = clock.now(self.shop)
        first = snapshot.first_sale_day(self.ledger, as_of, ZONE)
        assert first is not None
        return calendar.TrainingCalendar(first, as_of, ZONE)

    @property
    def ledger(self) -> Path:
        """The mirror of all sales."""
        return self.shop.home / "ledger"

    def cutoffs(self, count: int) -> list[datetime]:
        """`count` cutoffs, EVERY_DAYS apart, the latest first."""
        return [self.calendar.cutoff_before(EVERY_DAYS * nth) for nth in range(count)]

    @cached_property
    def history_frame(self) -> pd.DataFrame:
        """Product histories (view "shelf"), a row per customer and as_of: now and the three training cutoffs."""
        cutoffs = [self.calendar.cutoff_before(WINDOW_DAYS * nth) for nth in range(4)]
        now, out = cutoffs[0], self.make_folder()
        snapshot.write_snapshot(self.ledger, out, as_of=now, cutoffs=[now], timezone=ZONE, list_cutoffs=cutoffs)
        return pd.read_parquet(out / "shelf" / "part.parquet").rename(columns={"event_timestamp": "as_of"})

    @cached_property
    def recommender(self) -> Recommender:
        """The recommender that a nightly run would train on them."""
        cutoffs = [self.calendar.cutoff_before(WINDOW_DAYS * nth) for nth in range(4)]
        bought = {
            start: snapshot.load_baskets(self.ledger, as_of=cutoffs[0], start=start, end=end)
            for end, start in pairwise(cutoffs)
        }
        label, products = labels.products_bought_next(self.history_frame, bought), snapshot.load_products(self.ledger)
        return Recommender.fit(self.history_frame, label, window_days=WINDOW_DAYS, products=products)

    @cached_property
    def current_rows(self) -> pd.DataFrame:
        """The rows of `history_frame` as of now, a row per customer."""
        return self.history_frame[self.history_frame["as_of"] == self.calendar.as_of].reset_index(drop=True)

    @cached_property
    def implicit_model(self) -> tuple[AlternatingLeastSquares, scipy.sparse.csr_matrix]:
        """implicit's model with the same factors, and its customer-product matrix (n_customers, n_products)."""
        factorisation = self.recommender.product_context.factorisation
        history = purchase_history.read(self.current_rows, [purchase_history.weight_column(factorisation.half_life)])
        positions, is_present = arrays.find_positions(factorisation.products, history.products)
        weights = history.weights(factorisation.half_life)[is_present].astype(np.float32)
        shape = (len(history), len(factorisation.products))
        model = AlternatingLeastSquares(
            factors=factorisation.factors.shape[1], regularization=factorisation.regularisation, num_threads=1
        )
        model.item_factors, model.user_factors = factorisation.factors, factorisation.fold_in(history)
        return model, scipy.sparse.csr_matrix((weights, (history.rows[is_present], positions[is_present])), shape=shape)


# Features --------------------------------------------------------------------------------------------------------


def compute_features(journey: CompleteJourneyShop, *, count: int) -> Work:
    """Compute every numeric feature at `count` cutoffs, from the mirror to Parquet files."""
    ledger, cutoffs, out = journey.ledger, journey.cutoffs(count), journey.make_folder()

    def work() -> None:
        with _open_connection() as con:
            cutoff_tables = snapshot.build_cutoff_tables(
                cutoffs[0], cutoffs, cutoffs[:1], snapshot.customer_cutoff_pairs(None, cutoffs[0]), ZONE
            )
            snapshot.register_inputs(con, ledger, cutoffs[0], cutoff_tables)
            plan = feature_engine.compile_plan(point_in_time.numeric_plan(ZONE))
            feature_engine.write_outputs(con, plan, out)

    return work


def compute_features_by_sql(journey: CompleteJourneyShop, *, count: int) -> Work:
    """Compute the same columns and rows by reference.sql, with the same DuckDB settings."""
    ledger, cutoffs, out = journey.ledger, journey.cutoffs(count), journey.make_folder() / "features.parquet"
    query = REFERENCE.read_text(encoding="utf-8").format(
        lines=f"read_parquet('{ledger}/month=*/part.parquet', hive_partitioning = false)",
        products=f"read_parquet('{ledger}/products.parquet')",
        timezone=ZONE,
        as_of=f"timestamptz '{cutoffs[0].isoformat()}'",
        before="<",
    )
    rows = [(cutoff, feature_engine.day_number(cutoff, ZONE)) for cutoff in cutoffs]

    def work() -> None:
        with _open_connection() as con:
            con.con.execute("create table cutoffs (as_of timestamptz, as_of_day bigint)")
            con.con.executemany("insert into cutoffs values (?, ?)", rows)
            con.con.execute(f"copy ({query}) to '{out}' (format parquet)")

    return work


@contextmanager
def _open_connection() -> Iterator[Any]:
    con = feature_engine.connect()
    try:
        yield con
    finally:
        con.disconnect()


# The load --------------------------------------------------------------------------------------------------------


def load_transactions(journey: CompleteJourneyShop) -> Work:
    """Load a year of transaction lines into a shop with customers and products."""
    return partial(
        load.load_files,
        journey.make_stocked_shop(),
        "transactions",
        [journey.record_files / "transactions.parquet"],
    )


def copy_transactions(journey: CompleteJourneyShop) -> Work:
    """Copy the same file with DuckDB."""
    records, out = journey.record_files / "transactions.parquet", journey.make_folder() / "copy.parquet"

    def work() -> None:
        with duckdb.connect() as con:
            con.execute(f"copy (from '{records}') to '{out}' (format parquet, compression zstd)")

    return work


# Recommending ----------------------------------------------------------------------------------------------------


def recommend_products(journey: CompleteJourneyShop, *, lists: Sequence[str]) -> Work:
    """Rank these lists for every customer."""
    return partial(journey.recommender.score, journey.current_rows, n=LENGTH, lists=lists)


def recommend_with_implicit(journey: CompleteJourneyShop, *, fold: bool) -> Work:
    """Rank new products with implicit for every customer; with `fold` it computes the user factors too."""
    model, bought = journey.implicit_model
    return partial(model.recommend, np.arange(bought.shape[0]), bought, N=LENGTH, recalculate_user=fold)


# Writing back ----------------------------------------------------------------------------------------------------


def write_scores(journey: CompleteJourneyShop, *, count: int, on_server: bool = False) -> Work:
    """Write `count` scores into a new shop with these customers."""
    shop, rows = journey.make_empty_shop(new_database() if on_server else None), _make_scores(count)
    customer_rows = ((key, "active", 0) for key, _, _ in rows)
    with engine.write_transaction(shop) as connection:
        engine.insert_many(connection, schema.customers, ["customer_key", "stage", "made_at"], customer_rows)
    run_id = score_store.begin_run(shop, "churn", "1", datetime(2018, 1, 1, tzinfo=UTC))
    return partial(score_store.write_scores, shop, run_id, rows)


#: The columns of the table of scores, without its other indexes and references.
BARE_SCORES = """create table scores (run_id bigint, customer_key bigint, value double precision, detail text not null,
                                     told_at bigint not null, primary key (run_id, customer_key))"""
UPSERT_SCORES = """on conflict (run_id, customer_key) do update
                   set value = excluded.value, detail = excluded.detail, told_at = excluded.told_at"""


def upsert_scores(journey: CompleteJourneyShop, *, count: int) -> Work:
    """Write the same columns with one executemany into one bare table, in a new file with the same pragmas."""
    database_file, rows = journey.make_folder() / "bare.db", _make_stored_rows(count)

    def work() -> None:
        with closing(sqlite3.connect(database_file, isolation_level=None)) as connection:
            for pragma in engine.PRAGMAS:
                connection.execute(f"pragma {pragma}")
            connection.execute(f"{BARE_SCORES} without rowid")
            connection.execute("begin immediate")
            connection.executemany(f"insert into scores values (?, ?, ?, ?, ?) {UPSERT_SCORES}", rows)
            connection.execute("commit")

    return work


def copy_scores(journey: CompleteJourneyShop, *, count: int) -> Work:
    """Write the same columns with one binary COPY and one upsert into one bare table of PostgreSQL."""
    url, rows = new_database().replace("+psycopg", ""), _make_stored_rows(count)

    def work() -> None:
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(BARE_SCORES)
            cursor.execute("create temp table staging as select * from scores with no data")
            with cursor.copy("copy staging from stdin (format binary)") as copy:
                copy.set_types(["int8", "int8", "float8", "text", "int8"])
                for row in rows:
                    copy.write_row(row)
            cursor.execute(f"insert into scores select * from staging {UPSERT_SCORES}")

    return work


def new_database() -> str:
    """Create a database on the server of POSTGRES_URL; its address."""
    name = f"speed_{uuid4().hex}"
    with psycopg.connect(f"{POSTGRES_URL}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return f"{POSTGRES_URL}/{name}".replace("postgresql:", "postgresql+psycopg:")


def _make_stored_rows(count: int) -> list[tuple[int, int, float, str, int]]:
    return [(1, key, value, detail, 1_514_764_800_000_000) for key, value, detail in _make_scores(count)]


def _make_scores(count: int) -> list[tuple[int, float, str]]:
    probabilities = np.random.default_rng(1).random(count).round(6).tolist()
    return [(key, probability, _score_detail(probability)) for key, probability in enumerate(probabilities, start=1)]


def _score_detail(probability: float) -> str:
    reasons = ["has not come for longer than usual", "spends less than before", "buys fewer kinds of things"]
    return json.dumps(
        {"horizon_days": 28, "band": "high" if probability > 0.5 else "low", "reasons": reasons, "rfm": "543"}
    )


# The command -----------------------------------------------------------------------------------------------------


def run_command(journey: CompleteJourneyShop, *, words: Sequence[str | Path]) -> Work:
    """Run a command as a process, from start to end."""
    return partial(subprocess.run, words, stdout=subprocess.DEVNULL, check=True)


BIN = Path(sys.executable).parent
COMPARISONS: tuple[SpeedComparison, ...] = (
    SpeedComparison(
        "help", "python -c pass",
        ours=partial(run_command, words=[BIN / "regulars", "--help"]),
        reference=partial(run_command, words=[sys.executable, "-c", "pass"]),
        within=0.5,
    ),
    SpeedComparison(
        f"features of {CUTOFFS} cutoffs", "features of 1 cutoff",
        ours=partial(compute_features, count=CUTOFFS), reference=partial(compute_features, count=1), rounds=3, aim=1.5,
    ),
    SpeedComparison(
        f"features by Ibis, {CUTOFFS} cutoffs", "two-level SQL by hand",
        ours=partial(compute_features, count=CUTOFFS), reference=partial(compute_features_by_sql, count=CUTOFFS),
        rounds=3, aim=1.15,
    ),
    SpeedComparison(
        "load", "DuckDB copies the same Parquet", ours=load_transactions, reference=copy_transactions, rounds=3,
        aim=10,
    ),
    SpeedComparison(
        "recommend new", "implicit.recommend",
        ours=partial(recommend_products, lists=["new"]), reference=partial(recommend_with_implicit, fold=False),
    ),
    SpeedComparison(
        "recommend new, folding", "implicit.recommend, folding too",
        ours=partial(recommend_products, lists=["new"]), reference=partial(recommend_with_implicit, fold=True),
    ),
    SpeedComparison(
        "recommend all lists", "implicit.recommend",
        ours=partial(recommend_products, lists=ranked_lists.LISTS),
        reference=partial(recommend_with_implicit, fold=False),
    ),
    SpeedComparison(
        "write back 2,469", "bare bulk upsert",
        ours=partial(write_scores, count=2_469), reference=partial(upsert_scores, count=2_469),
    ),
    SpeedComparison(
        "write back 200,000", "bare bulk upsert",
        ours=partial(write_scores, count=200_000), reference=partial(upsert_scores, count=200_000), rounds=3,
    ),
    SpeedComparison(
        "write back 1,000,000", "bare bulk upsert",
        ours=partial(write_scores, count=1_000_000), reference=partial(upsert_scores, count=1_000_000), rounds=3,
        aim=1 / 0.7,
    ),
    SpeedComparison(
        "write back 1,000,000 on PostgreSQL", "COPY and upsert",
        ours=partial(write_scores, count=1_000_000, on_server=True), reference=partial(copy_scores, count=1_000_000),
        rounds=3, aim=1 / 0.7, on_server=True,
    ),
)  # fmt: skip


def _check_aim(comparison: SpeedComparison, ratio: RatioSummary, ours: ElapsedSeconds) -> tuple[str, bool | None]:
    if comparison.aim is not None:
        return f"<= {comparison.aim:.3g}x", ratio.median <= comparison.aim
    if comparison.within is not None:
        return f"<= {comparison.within:g} s", ours.wall <= comparison.within
    return "", None


def _median_seconds(rounds: Sequence[ElapsedSeconds]) -> ElapsedSeconds:
    cpu, wall = (statistics.median(getattr(each, name) for each in rounds) for name in ("cpu", "wall"))
    return ElapsedSeconds(cpu, wall)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _format_ratio(ratio: RatioSummary) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f}-{ratio.most:.2f})"


def _print_progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()


def _parse_arguments() -> Any:
    parser = argparse.ArgumentParser(description="Ratios of our time over that of named references.")
    parser.add_argument("--only", default="", metavar="NAME", help="only the rows whose name begins with NAME")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
