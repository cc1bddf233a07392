"""Bench: how many times as long as a plain reference each big step takes; both in turns, in one run.

Seconds say little on a machine that others use too, so every figure is a ratio: ours over a named reference that
does the same on the same records (the Complete Journey), round by round, in CPU time and on the clock. Run it
with `make bench`; `--only NAME` measures the rows whose name begins so, `--json` writes one JSON object instead
of the table. An aim is judged by the median of the CPU ratios: it is the one that neighbours do not move.
"""

from __future__ import annotations

import os

# As in the command: two cores that are not fought over, set before numpy is loaded.
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

import duckdb
import numpy as np
import pandas as pd
import scipy.sparse
from implicit.cpu.als import AlternatingLeastSquares

from customers import clock, database, loading, mirror, schema, scores
from customers import shop as shops
from customers.sources import complete_journey
from features import engine, snapshot
from features import moments as recipes
from models import shelves
from models.recommender import Recommender
from training import labels

ZONE, CURRENCY = complete_journey.TIMEZONE, complete_journey.CURRENCY
#: Twelve cutoffs as a night spreads them: the earliest still has a third of a year behind it.
EVERY_DAYS, CUTOFFS = 23, 12
WINDOW_DAYS, LENGTH = 28, 50
REFERENCE = Path(__file__).parent / "features" / "reference.sql"

Work = Callable[[], object]


@dataclass(frozen=True)
class Bench:
    """One row: a side makes everything ready for a round, untimed, and gives back the work that is timed.

    `aim` is the most that ours may take as a multiple of the reference, `within` the most in seconds on the clock.
    """

    name: str
    against: str
    ours: Callable[[World], Work]
    reference: Callable[[World], Work]
    rounds: int = 5
    aim: float | None = None
    within: float | None = None


@dataclass(frozen=True)
class Spent:
    """What one piece of work took, in seconds; the CPU time counts all threads and child processes."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Figure:
    """The median over the rounds, and how far they ranged."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Figure:
        """Of one number a round."""
        return cls(statistics.median(numbers), min(numbers), max(numbers))


@dataclass(frozen=True)
class Measured:
    """What came of a row: ratios of ours over the reference, and the median seconds behind them."""

    name: str
    against: str
    rounds: int
    cpu: Figure
    wall: Figure
    ours: Spent
    reference: Spent
    aim: str
    met: bool | None


def main() -> None:
    """Measure what is asked for, and print it."""
    asked = _arguments()
    with TemporaryDirectory(prefix="regulars-bench-") as folder:
        world = World(Path(folder))
        measured = [measure(bench, world) for bench in BENCHES if bench.name.startswith(asked.only)]
    sys.stdout.write(as_json(measured) if asked.json else as_table(measured))
    sys.stdout.flush()
    # DuckDB's binding writes of a lost lock when the interpreter takes it down; there is nothing left to lose.
    os._exit(0)


def measure(bench: Bench, world: World) -> Measured:
    """Both sides in turns, round by round."""
    _say(f"{bench.name} ...")
    rounds = [(timed(bench.ours(world)), timed(bench.reference(world))) for _ in range(bench.rounds)]
    _say(f"\r{' ' * 60}\r")
    ours, reference = (_middle([pair[side] for pair in rounds]) for side in (0, 1))
    cpu = Figure.of([ours.cpu / reference.cpu for ours, reference in rounds])
    wall = Figure.of([ours.wall / reference.wall for ours, reference in rounds])
    judged = _judged(bench, cpu, ours)
    return Measured(bench.name, bench.against, bench.rounds, cpu, wall, ours, reference, *judged)


def timed(work: Work) -> Spent:
    """Do it once, with nothing of the round before left to clear away."""
    gc.collect()
    cpu, wall = _cpu(), time.perf_counter()
    work()
    return Spent(_cpu() - cpu, time.perf_counter() - wall)


def as_table(measured: Sequence[Measured]) -> str:
    """Rows that a person reads."""
    head = ("what", "against", "CPU ratio", "clock ratio", "ours s", "reference s", "aim", "")
    rows = [
        (
            row.name,
            row.against,
            _ratio(row.cpu),
            _ratio(row.wall),
            *(f"{side.cpu:.3f}/{side.wall:.3f}" for side in (row.ours, row.reference)),
            row.aim,
            {True: "met", False: "missed", None: ""}[row.met],
        )
        for row in measured
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    table = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )
    return f"{table}\n\nRatios: median (range) over the rounds. Seconds: medians, CPU/clock.\n"


def as_json(measured: Sequence[Measured]) -> str:
    """The same for a program."""
    return json.dumps({"benches": [asdict(row) for row in measured]}, indent=2) + "\n"


class World:
    """The Complete Journey in a temporary home, and what the rows need of it; each made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fresh(self) -> Path:
        """An empty folder."""
        return Path(mkdtemp(dir=self.folder))

    @cached_property
    def records(self) -> Path:
        """The records as files to load."""
        folder = self.fresh()
        complete_journey.write(folder)
        return folder

    @cached_property
    def shop(self) -> shops.Shop:
        """A shop that has loaded them, with its mirror."""
        shop = self.stocked()
        loading.load(shop, "transactions", [self.records / "transactions.parquet"])
        mirror.refresh(shop)
        return shop

    def stocked(self) -> shops.Shop:
        """A fresh shop that knows its customers and products, and has sold nothing yet."""
        shop = self.empty()
        for kind in ("customers", "products"):
            loading.load(shop, kind, [self.records / f"{kind}.parquet"])
        return shop

    def empty(self) -> shops.Shop:
        """A fresh shop that knows nothing."""
        return shops.init(self.fresh() / "home", timezone=ZONE, currency=CURRENCY, now="last-sale")

    @cached_property
    def calendar(self) -> labels.Calendar:
        """The shop's days up to the morning after the last sale."""
        as_of = clock.now(self.shop)
        first = snapshot.first_day(self.ledger, as_of, ZONE)
        assert first is not None
        return labels.Calendar(first, as_of, ZONE)

    @property
    def ledger(self) -> Path:
        """The mirror of all sales."""
        return self.shop.home / "ledger"

    def cutoffs(self, count: int) -> list[datetime]:
        """So many moments, the latest first."""
        return [self.calendar.back(EVERY_DAYS * nth) for nth in range(count)]

    @cached_property
    def shelves(self) -> pd.DataFrame:
        """Everybody's shelf, now and at the three moments that a night learns from."""
        moments = [self.calendar.back(WINDOW_DAYS * nth) for nth in range(4)]
        now, out = moments[0], self.fresh()
        snapshot.write(self.ledger, out, as_of=now, moments=[now], timezone=ZONE, shelf_moments=moments)
        return pd.read_parquet(out / "shelf" / "part.parquet").rename(columns={"event_timestamp": "as_of"})

    @cached_property
    def recommender(self) -> Recommender:
        """What a night learns from them."""
        moments = [self.calendar.back(WINDOW_DAYS * nth) for nth in range(4)]
        bought = {
            start: snapshot.bought(self.ledger, as_of=moments[0], start=start, end=end)
            for end, start in pairwise(moments)
        }
        label, products = labels.bought_next(self.shelves, bought), snapshot.products(self.ledger)
        return Recommender.fit(self.shelves, label, window_days=WINDOW_DAYS, products=products)

    @cached_property
    def everyone(self) -> pd.DataFrame:
        """All customers as they are now."""
        return self.shelves[self.shelves["as_of"] == self.calendar.as_of].reset_index(drop=True)

    @cached_property
    def implicit(self) -> tuple[AlternatingLeastSquares, scipy.sparse.csr_matrix]:
        """The same factors as implicit holds them, and who has bought what of the same products."""
        known = self.recommender.known.tastes
        stock = shelves.read(self.everyone, [shelves.weights_name(known.half_life)])
        places, sold = shelves.find(known.products, stock.products)
        weights = stock.weights(known.half_life)[sold].astype(np.float32)
        shape = (len(stock), len(known.products))
        model = AlternatingLeastSquares(
            factors=known.factors.shape[1], regularization=known.regularisation, num_threads=1
        )
        model.item_factors, model.user_factors = known.factors, known.fold(stock)
        return model, scipy.sparse.csr_matrix((weights, (stock.rows[sold], places[sold])), shape=shape)


# Features --------------------------------------------------------------------------------------------------------


def features(world: World, *, count: int) -> Work:
    """Every number of every family at so many cutoffs, from the mirror to files."""
    ledger, moments, out = world.ledger, world.cutoffs(count), world.fresh()

    def work() -> None:
        with _connected() as con:
            looks = snapshot.looking(moments[0], moments, moments[:1], snapshot.pairs(None, moments[0]), ZONE)
            snapshot.lay_out(con, ledger, moments[0], looks)
            recipe = recipes.numbers(ZONE)
            recipe.follow(con)
            for name, query in recipe.answers.items():
                engine.save(con, query, out / f"{name}.parquet")

    return work


def by_hand(world: World, *, count: int) -> Work:
    """The same columns and rows by reference.sql, on an engine with the same settings."""
    ledger, moments, out = world.ledger, world.cutoffs(count), world.fresh() / "features.parquet"
    query = REFERENCE.read_text(encoding="utf-8").format(
        lines=f"read_parquet('{ledger}/month=*/part.parquet', hive_partitioning = false)",
        products=f"read_parquet('{ledger}/products.parquet')",
        timezone=ZONE,
        as_of=f"timestamptz '{moments[0].isoformat()}'",
        before="<",
    )
    rows = [(moment, engine.day_number(moment, ZONE)) for moment in moments]

    def work() -> None:
        with _connected() as con:
            con.con.execute("create table moments (as_of timestamptz, as_of_day bigint)")
            con.con.executemany("insert into moments values (?, ?)", rows)
            con.con.execute(f"copy ({query}) to '{out}' (format parquet)")

    return work


@contextmanager
def _connected() -> Iterator[Any]:
    con = engine.connect()
    try:
        yield con
    finally:
        con.disconnect()


# The load --------------------------------------------------------------------------------------------------------


def load(world: World) -> Work:
    """A year of lines into the ledger of a shop that knows its customers and products."""
    return partial(loading.load, world.stocked(), "transactions", [world.records / "transactions.parquet"])


def copy(world: World) -> Work:
    """The same file through DuckDB."""
    records, out = world.records / "transactions.parquet", world.fresh() / "copy.parquet"

    def work() -> None:
        with duckdb.connect() as con:
            con.execute(f"copy (from '{records}') to '{out}' (format parquet, compression zstd)")

    return work


# Recommending ----------------------------------------------------------------------------------------------------


def recommend(world: World, *, lists: Sequence[str]) -> Work:
    """These lists for everybody."""
    return partial(world.recommender.score, world.everyone, n=LENGTH, lists=lists)


def implicit(world: World, *, fold: bool) -> Work:
    """What implicit would recommend to everybody; with `fold` it too has to work out their tastes first."""
    model, bought = world.implicit
    everybody = np.arange(bought.shape[0])
    return partial(model.recommend, everybody, bought, N=LENGTH, recalculate_user=fold)


# Writing back ----------------------------------------------------------------------------------------------------


def record(world: World, *, count: int) -> Work:
    """So many scores into a fresh shop that knows these customers."""
    shop, rows = world.empty(), _scores(count)
    people = ((key, "active", 0) for key, _, _ in rows)
    with database.writing(shop) as connection:
        database.insert_many(connection, schema.customers, ["customer_key", "stage", "made_at"], people)
    run_id = scores.begin(shop, "churn", "1", datetime(2018, 1, 1, tzinfo=UTC))
    return partial(scores.record, shop, run_id, rows)


def upsert(world: World, *, count: int) -> Work:
    """The same rows by one executemany into one bare table, in a fresh file with the same pragmas."""
    place, rows = world.fresh() / "bare.db", _scores(count)

    def work() -> None:
        with closing(sqlite3.connect(place, isolation_level=None)) as connection:
            for pragma in database.PRAGMAS:
                connection.execute(f"pragma {pragma}")
            connection.execute(
                """create table scores (run_id integer, customer_key integer, value double, detail text not null,
                                        primary key (run_id, customer_key)) without rowid"""
            )
            connection.execute("begin immediate")
            connection.executemany(
                """insert into scores values (1, ?, ?, ?) on conflict (run_id, customer_key)
                   do update set value = excluded.value, detail = excluded.detail""",
                rows,
            )
            connection.execute("commit")

    return work


def _scores(count: int) -> list[tuple[int, float, str]]:
    chances = np.random.default_rng(1).random(count).round(6).tolist()
    return [(key, chance, _detail(chance)) for key, chance in enumerate(chances, start=1)]


def _detail(chance: float) -> str:
    reasons = ["has not come for longer than usual", "spends less than before", "buys fewer kinds of things"]
    return json.dumps({"horizon_days": 28, "band": "high" if chance > 0.5 else "low", "reasons": reasons, "rfm": "543"})


# The command -----------------------------------------------------------------------------------------------------


def command(world: World, *, words: Sequence[str | Path]) -> Work:
    """A process of its own, from start to end."""
    return partial(subprocess.run, words, stdout=subprocess.DEVNULL, check=True)


BIN = Path(sys.executable).parent
BENCHES: tuple[Bench, ...] = (
    Bench(
        "help", "python -c pass",
        ours=partial(command, words=[BIN / "regulars", "--help"]),
        reference=partial(command, words=[sys.executable, "-c", "pass"]),
        within=0.5,
    ),
    Bench(
        f"features of {CUTOFFS} cutoffs", "features of 1 cutoff",
        ours=partial(features, count=CUTOFFS), reference=partial(features, count=1), rounds=3, aim=1.5,
    ),
    Bench(
        f"features by Ibis, {CUTOFFS} cutoffs", "two-level SQL by hand",
        ours=partial(features, count=CUTOFFS), reference=partial(by_hand, count=CUTOFFS), rounds=3, aim=1.15,
    ),
    Bench("load", "DuckDB copies the same Parquet", ours=load, reference=copy, rounds=3),
    Bench(
        "recommend new", "implicit.recommend",
        ours=partial(recommend, lists=["new"]), reference=partial(implicit, fold=False),
    ),
    Bench(
        "recommend new, folding", "implicit.recommend, folding too",
        ours=partial(recommend, lists=["new"]), reference=partial(implicit, fold=True),
    ),
    Bench(
        "recommend all lists", "implicit.recommend",
        ours=partial(recommend, lists=shelves.LISTS), reference=partial(implicit, fold=False),
    ),
    Bench(
        "write back 2,469", "bare bulk upsert",
        ours=partial(record, count=2_469), reference=partial(upsert, count=2_469),
    ),
    Bench(
        "write back 200,000", "bare bulk upsert",
        ours=partial(record, count=200_000), reference=partial(upsert, count=200_000), rounds=3,
    ),
)  # fmt: skip


def _judged(bench: Bench, cpu: Figure, ours: Spent) -> tuple[str, bool | None]:
    if bench.aim is not None:
        return f"<= {bench.aim:g}x", cpu.median <= bench.aim
    if bench.within is not None:
        return f"<= {bench.within:g} s", ours.wall <= bench.within
    return "", None


def _middle(spent: Sequence[Spent]) -> Spent:
    return Spent(statistics.median(one.cpu for one in spent), statistics.median(one.wall for one in spent))


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _ratio(figure: Figure) -> str:
    return f"{figure.median:.2f} ({figure.least:.2f}-{figure.most:.2f})"


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="Ratios of our time over that of named references.")
    parser.add_argument("--only", default="", metavar="NAME", help="rows whose name begins so")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
