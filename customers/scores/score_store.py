"""Scores: what the models said about each customer, once for a model, version and moment.

`told_at` is when a row was last said, by the real clock. Of one moment the profile shows what was said last,
whichever version said it. Nothing is kept about, nor shown of, a customer who does not allow profiling.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa

from customers import consent, database
from customers.instants import from_micros, maybe, micros
from customers.schema import customers, nights, score_runs, scores
from customers.shop import Shop, ShopError

SLICE = 20_000
#: Of no more customers than this, only their own scores are read.
FEW = 1_000
_upsert = """insert into scores (run_id, customer_key, value, detail, told_at) values ({marks})
             on conflict (run_id, customer_key) do update
             set value = excluded.value, detail = excluded.detail, told_at = excluded.told_at"""

Row = tuple[int, float | None, str]


@dataclass(frozen=True, slots=True)
class Score:
    """One number a model said about one customer at one moment, with the rest of its answer in `detail`."""

    customer_key: int
    model: str
    version: str
    as_of: datetime
    value: float | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One model's scores of one moment; bulk readers see them once the run is finished."""

    run_id: int
    model: str
    version: str
    as_of: datetime
    finished_at: datetime | None


def begin(shop: Shop, model: str, version: str | int, as_of: datetime) -> int:
    """The run of this model, version and moment: a new one, or the one that was begun before."""
    with database.writing(shop) as connection:
        return _begin(connection, model, str(version), as_of)


def record(shop: Shop, run_id: int, rows: Iterable[Row]) -> int:
    """Write (customer_key, value, JSON detail) of a run; again is the same as once. Returns how many."""
    written = 0
    for chunk in database.chunks(rows, SLICE):
        kept = _allowed(shop, chunk)
        with database.writing(shop) as connection:
            written += _write(connection, run_id, kept)
    return written


def tell(shop: Shop, model: str, version: str | int, as_of: datetime, rows: Iterable[Row]) -> int:
    """Write what the door has just computed, where it is not what was said last. Returns how many.

    The run stays as it is: finished, if the night wrote it, and else open, for it is not everybody's.
    """
    mine = _allowed(shop, rows)
    # Read first: asking again must not wait its turn among the writers.
    last = _last(shop, model, as_of, [key for key, _, _ in mine])
    news = [(key, value, detail) for key, value, detail in mine if last.get(key) != (str(version), value, detail)]
    if news:
        with database.writing(shop) as connection:
            return _write(connection, _begin(connection, model, str(version), as_of), news)
    return 0


def finish(shop: Shop, run_id: int) -> None:
    """From now on bulk readers see this run, whole."""
    with database.writing(shop) as connection:
        change = score_runs.update().where(score_runs.c.run_id == run_id)
        if not connection.execute(change.values(finished_at=micros(datetime.now(UTC)))).rowcount:
            raise ShopError(f"there is no run {run_id} of scores to finish; begin one first")


def latest(shop: Shop, customer_key: int) -> dict[str, Score]:
    """What each model said last about a customer's newest moment, by model; of runs still open too."""
    if not consent.allowed(shop, [customer_key], "profiling"):
        return {}
    query = (
        sa.select(score_runs, scores.c.value, scores.c.detail)
        .join(scores, scores.c.run_id == score_runs.c.run_id)
        .where(scores.c.customer_key == customer_key)
        .order_by(score_runs.c.as_of, scores.c.told_at)
    )
    with database.reading(shop) as connection:
        rows = connection.execute(query).all()
    # In rising order, so that the last word is what stays.
    return {row.model: _score(customer_key, row) for row in rows}


def newest(shop: Shop, model: str, as_of: datetime | None = None) -> Run | None:
    """The newest finished run of a model, or the one of a given moment."""
    columns = score_runs.c
    query = sa.select(score_runs).where(columns.model == model, columns.finished_at.is_not(None))
    if as_of is not None:
        query = query.where(columns.as_of == micros(as_of))
    query = query.order_by(columns.as_of.desc(), columns.finished_at.desc(), columns.run_id.desc()).limit(1)
    with database.reading(shop) as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    return Run(row.run_id, row.model, row.version, from_micros(row.as_of), maybe(row.finished_at))


def told_after(shop: Shop, as_of: datetime) -> list[int]:
    """The keys of customers of whom something was said as of a later moment."""
    later = sa.select(score_runs.c.run_id).where(score_runs.c.as_of > micros(as_of))
    query = sa.select(scores.c.customer_key).where(scores.c.run_id.in_(later)).distinct()
    with database.reading(shop) as connection:
        return sorted(connection.execute(query).scalars())


def last_told(shop: Shop) -> datetime | None:
    """The moment of the scores that were finished last, which may be a replay of an earlier day."""
    query = sa.select(score_runs.c.as_of).where(score_runs.c.finished_at.is_not(None))
    with database.reading(shop) as connection:
        return maybe(connection.execute(query.order_by(score_runs.c.finished_at.desc()).limit(1)).scalar())


def current(
    shop: Shop, model: str, as_of: datetime | None = None, *, keys: Collection[int] | None = None
) -> pd.DataFrame:
    """The newest finished run: customer_key int64, value float64, detail JSON text, by rising key.

    Its model's version and moment are in `attrs`; without a finished run the frame is empty. With `keys`, of these
    customers alone.
    """
    run = newest(shop, model, as_of)
    query = sa.select(scores.c.customer_key, scores.c.value, scores.c.detail)
    query = query.where(scores.c.run_id == (run.run_id if run else None), _whose(keys))
    with database.reading(shop) as connection:
        rows = connection.execute(query.order_by(scores.c.customer_key)).tuples().all()
    return _shown(shop, pd.DataFrame(rows, columns=["customer_key", "value", "detail"]), run)


def newest_of_each(shop: Shop, model: str, *, keys: Collection[int] | None = None) -> pd.DataFrame:
    """As `current`, with what was told of single customers since that run, and `as_of`, the moment of each row.

    Of a night that is still writing nothing is shown.
    """
    run = newest(shop, model)
    rows = _told_since(shop, run, keys) if run else []
    frame = pd.DataFrame(rows, columns=["customer_key", "value", "detail", "as_of", "told_at"])
    frame = frame.sort_values(["as_of", "told_at"], kind="stable").drop_duplicates("customer_key", keep="last")
    frame = frame.drop(columns="told_at").sort_values("customer_key")
    frame["as_of"] = pd.to_datetime(frame["as_of"].astype("int64"), unit="us", utc=True).astype("datetime64[us, UTC]")
    return _shown(shop, frame, run)


def _whose(keys: Collection[int] | None) -> sa.ColumnElement[bool]:
    """Scores of these customers; of everybody, where they are not said or so many that nearly all are read anyway."""
    if keys is None or len(keys) > FEW:
        return sa.true()
    return scores.c.customer_key.in_([int(key) for key in keys])


def _told_since(shop: Shop, run: Run, keys: Collection[int] | None) -> Sequence[tuple]:
    began = sa.select(nights.c.as_of, sa.func.min(nights.c.began_at).label("began_at")).group_by(nights.c.as_of)
    night = began.subquery()
    columns = score_runs.c
    by_a_night = night.c.began_at.is_not(None) & (scores.c.told_at >= night.c.began_at)
    query = (
        sa.select(scores.c.customer_key, scores.c.value, scores.c.detail, columns.as_of, scores.c.told_at)
        .join(scores, scores.c.run_id == columns.run_id)
        .outerjoin(night, night.c.as_of == columns.as_of)
        .where(columns.model == run.model, columns.as_of >= micros(run.as_of), _whose(keys))
        .where(columns.finished_at.is_not(None) | (columns.as_of == micros(run.as_of)) | ~by_a_night)
    )
    with database.reading(shop) as connection:
        return connection.execute(query).tuples().all()


def _shown(shop: Shop, frame: pd.DataFrame, run: Run | None) -> pd.DataFrame:
    """The rows of customers who allow profiling, and the run they are of."""
    frame = frame[frame["customer_key"].isin(consent.allowed(shop, frame["customer_key"], "profiling"))]
    frame = frame.astype({"customer_key": "int64", "value": "float64", "detail": "object"}).reset_index(drop=True)
    frame.attrs = {"version": run.version, "as_of": run.as_of, "run_id": run.run_id} if run else {}
    return frame


def _begin(connection: sa.Connection, model: str, version: str, as_of: datetime) -> int:
    same = {"model": model, "version": version, "as_of": micros(as_of)}
    known = connection.execute(sa.select(score_runs.c.run_id).filter_by(**same)).scalar()
    if known is not None:
        return int(known)
    inserted = connection.execute(score_runs.insert().values(**same)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])


def _allowed(shop: Shop, rows: Iterable[Row]) -> list[Row]:
    """The rows about customers who allow profiling."""
    plain = [(int(key), _number(value), detail) for key, value, detail in rows]
    allowed = consent.allowed(shop, (key for key, _, _ in plain), "profiling")
    return [row for row in plain if row[0] in allowed]


def _last(shop: Shop, model: str, as_of: datetime, keys: list[int]) -> dict[int, tuple[str, float | None, str]]:
    """What was said last about each customer at a moment: version, value, detail."""
    query = (
        sa.select(scores.c.customer_key, score_runs.c.version, scores.c.value, scores.c.detail)
        .join(scores, scores.c.run_id == score_runs.c.run_id)
        .where(score_runs.c.model == model, score_runs.c.as_of == micros(as_of), scores.c.customer_key.in_(keys))
        .order_by(scores.c.told_at)
    )
    with database.reading(shop) as connection:
        return {key: (version, value, detail) for key, version, value, detail in connection.execute(query)}


def _write(connection: sa.Connection, run_id: int, rows: list[Row]) -> int:
    """The rows of who is still a customer: a model may speak of somebody who was erased a moment ago."""
    there = _there(connection, [key for key, _, _ in rows])
    told_at = micros(datetime.now(UTC))
    full = [(run_id, key, value, detail, told_at) for key, value, detail in rows if key in there]
    if full:
        connection.exec_driver_sql(_upsert.format(marks=database.marks(connection, 5)), full)
    return len(full)


def _there(connection: sa.Connection, keys: list[int]) -> set[int]:
    found: set[int] = set()
    for chunk in database.chunks(keys, 5_000):
        query = sa.select(customers.c.customer_key).where(customers.c.customer_key.in_(chunk))
        found.update(connection.execute(query).scalars())
    return found


def _number(value: float | None) -> float | None:
    """NaN says nothing, and SQL's word for nothing is null."""
    return None if value is None or value != value else float(value)


def _score(customer_key: int, row: sa.Row) -> Score:
    return Score(
        customer_key, row.model, row.version, from_micros(row.as_of), row.value, json.loads(row.detail or "{}")
    )
