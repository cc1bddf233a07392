"""Store of scores: one row per customer, model, version and as_of.

`told_at` is when a row was last written, by the real clock. Of several rows with one as_of, of any version, the one
written last is current. No score of a customer who does not allow profiling is stored or returned.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pandas as pd
import sqlalchemy as sa

from customers.database import bulk_writes, engine
from customers.database.schema import customers, nights, score_runs, scores
from customers.privacy import consents
from customers.scores.score_details import ScoreRow
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros, from_micros_or_none, to_micros

BATCH_SIZE = 20_000
#: For at most this many customers only their own scores are read; for more, all customers' scores.
FILTER_UP_TO = 1_000


#: Model, as_of in microseconds and customer; version, value and detail.
_ScoreKey = tuple[str, int, int]
_ScoreContent = tuple[str, float | None, str | None]


@dataclass(frozen=True, slots=True)
class StoredScore:
    """Score of one customer by one model as of one time; `detail` is JSON text for `score_details.decode_*`."""

    customer_key: int
    model: str
    version: str
    as_of: datetime
    value: float | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class ScoreRun:
    """Scores of one model version as of one time; bulk reads return them once the run is finished."""

    run_id: int
    model: str
    version: str
    as_of: datetime
    finished_at: datetime | None


def begin_run(shop: Shop, model: str, version: str | int, as_of: datetime) -> int:
    """Id of the run of this model, version and as_of, which is created unless it exists."""
    with engine.write_transaction(shop) as connection:
        return _get_or_create_run(connection, model, str(version), as_of)


def write_scores(shop: Shop, run_id: int, rows: Iterable[ScoreRow], *, is_parallel: bool = False) -> int:
    """Upsert the rows of a run, in transactions of 20,000; return the number written. Idempotent.

    is_parallel: other processes write rows of other customers at the same time, where the database allows that. Raises
    ShopError where there is no such run.
    """
    written = 0
    for chunk in engine.chunks(rows, BATCH_SIZE):
        allowed = consents.allowed_customers(shop, (row[0] for row in chunk), "profiling")
        allowed_rows = [row for row in chunk if row[0] in allowed]
        with engine.write_transaction(shop, is_parallel=is_parallel) as connection:
            _require_run(connection, run_id)
            written += _upsert_rows(connection, run_id, allowed_rows)
    return written


def _require_run(connection: sa.Connection, run_id: int) -> None:
    query = sa.select(score_runs.c.run_id).where(score_runs.c.run_id == run_id)
    if connection.execute(query).first() is None:
        raise ShopError(f"there is no run {run_id} of scores; begin one first")


def write_online_scores(shop: Shop, model: str, version: str | int, as_of: datetime, rows: Iterable[ScoreRow]) -> int:
    """Upsert online scores that differ from the last stored ones of this as_of; return the number written.

    The run keeps its state: finished if the nightly run wrote it, else open, since it does not hold all customers.
    """
    return write_online_batches(shop, [OnlineScores(model, str(version), as_of, list(rows))])


@dataclass(frozen=True, slots=True)
class OnlineScores:
    """Scores that one version of a model gave online to some customers, all as of one time."""

    model: str
    version: str
    as_of: datetime
    rows: list[ScoreRow]


def write_online_batches(shop: Shop, batches: Iterable[OnlineScores]) -> int:
    """As `write_online_scores`, for several models in one transaction; return the number of scores written."""
    changed = _changed_batches(shop, batches)
    written = 0
    if any(batch.rows for batch in changed):
        with engine.write_transaction(shop) as connection:
            for batch in changed:
                if batch.rows:
                    run_id = _get_or_create_run(connection, batch.model, batch.version, batch.as_of)
                    written += _upsert_rows(connection, run_id, batch.rows)
    return written


def _changed_batches(shop: Shop, batches: Iterable[OnlineScores]) -> list[OnlineScores]:
    """Each batch with the rows that differ from what is stored, of customers who allow profiling.

    They are read first: a repeated request must not wait for the write lock.
    """
    typed = [replace(batch, rows=[_typed_row(row) for row in batch.rows]) for batch in batches]
    allowed = consents.allowed_customers(shop, {row[0] for batch in typed for row in batch.rows}, "profiling")
    stored = _last_scores(shop, typed, allowed)
    return [
        replace(batch, rows=[row for row in batch.rows if row[0] in allowed and _is_changed(batch, row, stored)])
        for batch in typed
    ]


def _is_changed(batch: OnlineScores, row: ScoreRow, stored: dict[_ScoreKey, _ScoreContent]) -> bool:
    key, value, detail = row
    return stored.get((batch.model, to_micros(batch.as_of), int(key))) != (batch.version, value, detail)


def finish_run(shop: Shop, run_id: int) -> None:
    """Mark a run as finished, which makes it visible to bulk reads. Raises ShopError where there is no such run."""
    with engine.write_transaction(shop) as connection:
        change = score_runs.update().where(score_runs.c.run_id == run_id)
        if not connection.execute(change.values(finished_at=to_micros(datetime.now(UTC)))).rowcount:
            raise ShopError(f"there is no run {run_id} of scores to finish; begin one first")


def load_customer_scores(shop: Shop, customer_key: int) -> dict[str, StoredScore]:
    """The current score of a customer by model: newest as_of, last written; open runs included."""
    if not consents.allowed_customers(shop, [customer_key], "profiling"):
        return {}
    query = (
        sa.select(score_runs, scores.c.value, scores.c.detail)
        .join(scores, scores.c.run_id == score_runs.c.run_id)
        .where(scores.c.customer_key == customer_key)
        .order_by(score_runs.c.as_of, scores.c.told_at)
    )
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(query).all()
    # In ascending order, so that the last row of each model remains.
    return {row.model: _to_score(customer_key, row) for row in rows}


def newest_run(shop: Shop, model: str, as_of: datetime | None = None) -> ScoreRun | None:
    """The newest finished run of a model, or the newest one with this as_of; None without any."""
    columns = score_runs.c
    query = sa.select(score_runs).where(columns.model == model, columns.finished_at.is_not(None))
    if as_of is not None:
        query = query.where(columns.as_of == to_micros(as_of))
    query = query.order_by(columns.as_of.desc(), columns.finished_at.desc(), columns.run_id.desc()).limit(1)
    with engine.read_transaction(shop) as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    return ScoreRun(row.run_id, row.model, row.version, from_micros(row.as_of), from_micros_or_none(row.finished_at))


def customers_scored_after(shop: Shop, as_of: datetime) -> list[int]:
    """Keys of customers with a score whose as_of is later, ascending."""
    later = sa.select(score_runs.c.run_id).where(score_runs.c.as_of > to_micros(as_of))
    query = sa.select(scores.c.customer_key).where(scores.c.run_id.in_(later)).distinct()
    with engine.read_transaction(shop) as connection:
        return sorted(connection.execute(query).scalars())


def last_finished_as_of(shop: Shop) -> datetime | None:
    """The as_of of the run that was finished last, which may be a historical run of an earlier day."""
    query = sa.select(score_runs.c.as_of).where(score_runs.c.finished_at.is_not(None))
    with engine.read_transaction(shop) as connection:
        return from_micros_or_none(
            connection.execute(query.order_by(score_runs.c.finished_at.desc()).limit(1)).scalar()
        )


def load_run_scores(
    shop: Shop,
    model: str,
    as_of: datetime | None = None,
    *,
    keys: Collection[int] | None = None,
    key_range: range | None = None,
) -> pd.DataFrame:
    """Scores of the newest finished run, or of the one with this as_of, ascending by customer_key.

    Columns customer_key int64, value float64, detail JSON text; `attrs` holds version, as_of and run_id. Empty without
    a finished run. keys: read only these customers, unless they are more than FILTER_UP_TO. key_range: only those with
    a customer_key in this range.
    """
    run = newest_run(shop, model, as_of)
    query = sa.select(scores.c.customer_key, scores.c.value, scores.c.detail)
    query = query.where(scores.c.run_id == (run.run_id if run else None), _customer_filter(keys))
    if key_range is not None:
        query = query.where(scores.c.customer_key >= key_range.start, scores.c.customer_key < key_range.stop)
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(query.order_by(scores.c.customer_key)).tuples().all()
    return _allowed_frame(shop, pd.DataFrame(rows, columns=["customer_key", "value", "detail"]), run)


def load_latest_scores(shop: Shop, model: str, *, keys: Collection[int] | None = None) -> pd.DataFrame:
    """As `load_run_scores`, with scores stored online since that run and column as_of of each row.

    Rows of a nightly run that is not finished are left out.
    """
    run = newest_run(shop, model)
    rows = _select_since(shop, run, keys) if run else []
    frame = pd.DataFrame(rows, columns=["customer_key", "value", "detail", "as_of", "told_at"])
    frame = frame.sort_values(["as_of", "told_at"], kind="stable").drop_duplicates("customer_key", keep="last")
    frame = frame.drop(columns="told_at").sort_values("customer_key")
    frame["as_of"] = pd.to_datetime(frame["as_of"].astype("int64"), unit="us", utc=True).astype("datetime64[us, UTC]")
    return _allowed_frame(shop, frame, run)


def _customer_filter(keys: Collection[int] | None) -> sa.ColumnElement[bool]:
    """Condition on these customers; true without keys, or where they are so many that a full scan is faster."""
    if keys is None or len(keys) > FILTER_UP_TO:
        return sa.true()
    return scores.c.customer_key.in_([int(key) for key in keys])


def _select_since(shop: Shop, run: ScoreRun, keys: Collection[int] | None) -> Sequence[tuple]:
    run_starts = sa.select(nights.c.as_of, sa.func.min(nights.c.began_at).label("began_at")).group_by(nights.c.as_of)
    nightly_run = run_starts.subquery()
    columns = score_runs.c
    is_nightly = nightly_run.c.began_at.is_not(None) & (scores.c.told_at >= nightly_run.c.began_at)
    query = (
        sa.select(scores.c.customer_key, scores.c.value, scores.c.detail, columns.as_of, scores.c.told_at)
        .join(scores, scores.c.run_id == columns.run_id)
        .outerjoin(nightly_run, nightly_run.c.as_of == columns.as_of)
        .where(columns.model == run.model, columns.as_of >= to_micros(run.as_of), _customer_filter(keys))
        .where(columns.finished_at.is_not(None) | (columns.as_of == to_micros(run.as_of)) | ~is_nightly)
    )
    with engine.read_transaction(shop) as connection:
        return connection.execute(query).tuples().all()


def _allowed_frame(shop: Shop, frame: pd.DataFrame, run: ScoreRun | None) -> pd.DataFrame:
    """The rows of customers who allow profiling, with the run in `attrs`."""
    frame = consents.filter_allowed(shop, frame, "profiling")
    frame = frame.astype({"customer_key": "int64", "value": "float64", "detail": "object"})
    frame.attrs = {"version": run.version, "as_of": run.as_of, "run_id": run.run_id} if run else {}
    return frame


def _get_or_create_run(connection: sa.Connection, model: str, version: str, as_of: datetime) -> int:
    run_values = {"model": model, "version": version, "as_of": to_micros(as_of)}
    run_id = connection.execute(sa.select(score_runs.c.run_id).filter_by(**run_values)).scalar()
    if run_id is not None:
        return int(run_id)
    inserted = connection.execute(score_runs.insert().values(**run_values)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])


def _typed_row(row: ScoreRow) -> ScoreRow:
    key, value, detail = row
    return int(key), _nan_to_none(value), detail


def _last_scores(
    shop: Shop, batches: Collection[OnlineScores], keys: Collection[int]
) -> dict[_ScoreKey, _ScoreContent]:
    """The last written score of each of these customers, by model and as_of of the batches."""
    columns = score_runs.c
    instants = sorted({to_micros(batch.as_of) for batch in batches})
    query = (
        sa.select(columns.model, columns.as_of, columns.version, scores.c.customer_key, scores.c.value, scores.c.detail)
        .join(scores, scores.c.run_id == columns.run_id)
        .where(columns.model.in_(sorted({batch.model for batch in batches})), columns.as_of.in_(instants))
        .order_by(scores.c.told_at)
    )
    with engine.read_transaction(shop) as connection:
        query = query.where(bulk_writes.matches_any(connection, scores.c.customer_key, sorted(keys)))
        return {(row[0], row[1], row[3]): (row[2], row[4], row[5]) for row in connection.execute(query).tuples()}


def _upsert_rows(connection: sa.Connection, run_id: int, rows: list[ScoreRow]) -> int:
    """Upsert the rows of existing customers: one may have been erased since it was scored."""
    keys = [int(key) for key, _, _ in rows]
    if _count_existing(connection, keys) < len(rows):  # of two rows of a customer the last one counts
        existing = _existing_customers(connection, keys)
        rows = list({row[0]: row for row in rows if row[0] in existing}.values())
        keys = [int(key) for key, _, _ in rows]
    if rows:
        values = [_nan_to_none(value) for _, value, _ in rows]
        columns = {"customer_key": keys, "value": values, "detail": [detail for _, _, detail in rows]}
        single_values = {"run_id": run_id, "told_at": to_micros(datetime.now(UTC))}
        # A night's rows are new: PostgreSQL copies them into the table itself, which takes half the time.
        write = bulk_writes.upsert_columns if _may_exist(connection, run_id, keys) else bulk_writes.insert_columns
        write(connection, scores, columns, single_values)
    return len(rows)


def _may_exist(connection: sa.Connection, run_id: int, keys: list[int]) -> bool:
    """Whether the run has a score of a customer between the first and the last of these keys."""
    between = scores.c.customer_key.between(min(keys), max(keys))
    query = sa.select(sa.literal(1)).where(scores.c.run_id == run_id, between).limit(1)
    return connection.execute(query).first() is not None


def _count_existing(connection: sa.Connection, keys: list[int]) -> int:
    """How many different customers of these exist: counted there, for they hardly ever differ from all of them."""
    query = sa.select(sa.func.count()).where(bulk_writes.matches_any(connection, customers.c.customer_key, keys))
    return int(connection.execute(query).scalar_one())


def _existing_customers(connection: sa.Connection, keys: list[int]) -> set[int]:
    query = sa.select(customers.c.customer_key)
    query = query.where(bulk_writes.matches_any(connection, customers.c.customer_key, keys))
    return {key for rows in engine.fetch_batches(connection, query, BATCH_SIZE) for (key,) in rows}


def _nan_to_none(value: float | None) -> float | None:
    """NaN is stored as SQL null."""
    return None if value is None or value != value else float(value)


def _to_score(customer_key: int, row: sa.Row) -> StoredScore:
    return StoredScore(customer_key, row.model, row.version, from_micros(row.as_of), row.value, row.detail)
