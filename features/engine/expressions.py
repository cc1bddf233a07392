"""Column expressions that run on any Ibis backend."""

from collections.abc import Sequence

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

#: Rows per Parquet row group: a reader of one cutoff reads few rows of the others.
ROW_GROUP_SIZE = 4_096
WEIGHT_STEPS = 2.0**44  # a sum of a few hundred weights stays below 2**53, where doubles add exactly


@ibis.udf.scalar.builtin(name="timezone")
def _local_time(zone: str, at: dt.Timestamp(timezone="UTC")) -> dt.Timestamp():  # type: ignore[valid-type]
    """DuckDB's own conversion of an instant to local wall-clock time."""


def local_day_number(at: ir.TimestampValue, timezone: str) -> ir.IntegerValue:
    """The local day of an instant, as days since 1970-01-01 (a Thursday)."""
    return _local_time(timezone, at).date().epoch_days().cast("int64")


def weekday_of(day: ir.IntegerValue) -> ir.IntegerValue:
    """Weekday of a day number, Monday 0 to Sunday 6."""
    return (day + 3) % 7


def to_whole_steps(number: ir.NumericValue, steps: float) -> ir.FloatingValue:
    """A number in units of 1 / steps, rounded to a whole number and held in a double.

    Sums of whole numbers in doubles are equal to the last digit in whatever order threads add them, so a snapshot made
    twice is the same file, and a model trained twice is the same model.
    """
    return (number * steps).round().cast("float64")


def decay_weight(age_days: ir.NumericValue, half_life_days: float) -> ir.FloatingValue:
    """Exponential decay weight, halved every half_life_days, in units of 1 / WEIGHT_STEPS."""
    return to_whole_steps(ibis.literal(0.5) ** (age_days / half_life_days), WEIGHT_STEPS)


def ratio(numerator: ir.NumericValue, denominator: ir.NumericValue) -> ir.FloatingValue:
    """numerator / denominator; NULL where the denominator is 0."""
    return numerator.cast("float64") / denominator.cast("float64").nullif(0)


def sum_or_zero(number: ir.NumericColumn, where: ir.BooleanValue | None = None) -> ir.NumericValue:
    """A sum that is 0, not NULL, over no rows."""
    return ibis.coalesce(number.sum(where=where), 0.0)


def aggregate_lists(
    rows: ir.Table,
    columns: dict[str, ir.Value],
    *,
    recency_order: Sequence[ir.Value],
    list_order: Sequence[ir.Value],
    max_length: int,
) -> ir.Table:
    """Aggregate rows into aligned lists, one row per customer_key and as_of, sorted by list_order (ascending).

    Of more than max_length rows, the first in recency_order are used.
    """
    order_columns = {f"order_{nth}": value for nth, value in enumerate(list_order)}
    recency_columns = {f"late_{nth}": value for nth, value in enumerate(recency_order)}
    each = rows.select("customer_key", "as_of", row=ibis.struct(columns), **order_columns, **recency_columns)
    truncated = _truncate_lists(each, list(recency_columns), max_length)
    # Sorted once as whole rows, then split into lists: a sort for each list takes four times as long.
    sorted_rows = truncated.row.collect(order_by=[truncated[name] for name in order_columns])
    lists = truncated.group_by("customer_key", "as_of").aggregate(rows=sorted_rows)
    return lists.select("customer_key", "as_of", **{name: _list_field(lists.rows, name) for name in columns})


def _truncate_lists(rows: ir.Table, recency_order: list[str], max_length: int) -> ir.Table:
    """Limit each list to max_length; only customers with too many rows are sorted, the most expensive step."""
    keys = ["customer_key", "as_of"]
    sizes = rows.group_by(keys).aggregate(size=rows.count())
    long = sizes.filter(sizes.size > max_length)
    long_rows = rows.semi_join(long, keys)
    position = ibis.row_number().over(ibis.window(group_by=keys, order_by=recency_order))
    first = long_rows.mutate(place=position).filter(lambda row: row.place < max_length).drop("place")
    return rows.anti_join(long, keys).union(first)


def _list_field(rows: ir.ArrayValue, name: str) -> ir.ArrayValue:
    return rows.map(lambda row: row[name])
