"""Column expressions that run on any Ibis backend."""

from collections.abc import Sequence

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

#: Rows that lie together in a file: whoever asks for one moment reads little of any other.
ROW_GROUP_SIZE = 4_096
WEIGHT_STEPS = 2.0**44  # a sum of a few hundred weights stays below 2**53, where doubles add exactly


@ibis.udf.scalar.builtin(name="timezone")
def _local_time(zone: str, at: dt.Timestamp(timezone="UTC")) -> dt.Timestamp():  # type: ignore[valid-type]
    """DuckDB's own conversion of an instant to the time on a wall clock."""


def local_day_number(at: ir.TimestampValue, timezone: str) -> ir.IntegerValue:
    """The shop's day that an instant falls on, counted from 1970-01-01 (a Thursday)."""
    return _local_time(timezone, at).date().epoch_days().cast("int64")


def weekday_of(day: ir.IntegerValue) -> ir.IntegerValue:
    """Monday 0 to Sunday 6, of a day number."""
    return (day + 3) % 7


def to_whole_steps(number: ir.NumericValue, steps: float) -> ir.FloatingValue:
    """A number as a whole count of small steps, in a double.

    Doubles that hold whole numbers add up to the same last digit in whatever order threads bring them, so a
    snapshot made twice is the same file, and a model trained twice is the same model.
    """
    return (number * steps).round().cast("float64")


def decay_weight(age_days: ir.NumericValue, half_life_days: float) -> ir.FloatingValue:
    """What a day counts for after age_days, when it loses half its weight every half_life_days; in steps."""
    return to_whole_steps(ibis.literal(0.5) ** (age_days / half_life_days), WEIGHT_STEPS)


def ratio(numerator: ir.NumericValue, denominator: ir.NumericValue) -> ir.FloatingValue:
    """part / of, and NULL where there is nothing to divide by."""
    return numerator.cast("float64") / denominator.cast("float64").nullif(0)


def sum_or_zero(number: ir.NumericColumn, where: ir.BooleanValue | None = None) -> ir.NumericValue:
    """A sum that is 0, and not NULL, over nothing."""
    return ibis.coalesce(number.sum(where=where), 0.0)


def aggregate_lists(
    rows: ir.Table,
    columns: dict[str, ir.Value],
    *,
    recency_order: Sequence[ir.Value],
    list_order: Sequence[ir.Value],
    max_length: int,
) -> ir.Table:
    """Rows of a customer and a moment as aligned lists, in the order of `heaviest` (all rising).

    Of more rows than the longest list may have, the first in the order of `lately` are kept.
    """
    order_columns = {f"order_{nth}": value for nth, value in enumerate(list_order)}
    recency_columns = {f"late_{nth}": value for nth, value in enumerate(recency_order)}
    each = rows.select("customer_key", "as_of", row=ibis.struct(columns), **order_columns, **recency_columns)
    truncated = _truncate_lists(each, list(recency_columns), max_length)
    # Sorted once as whole rows, then taken apart: a sort for each list takes four times as long.
    sorted_rows = truncated.row.collect(order_by=[truncated[name] for name in order_columns])
    lists = truncated.group_by("customer_key", "as_of").aggregate(rows=sorted_rows)
    return lists.select("customer_key", "as_of", **{name: _list_field(lists.rows, name) for name in columns})


def _truncate_lists(rows: ir.Table, recency_order: list[str], max_length: int) -> ir.Table:
    """Only the few customers with too many rows have theirs put in order, which costs more than all the rest."""
    keys = ["customer_key", "as_of"]
    sizes = rows.group_by(keys).aggregate(size=rows.count())
    long = sizes.filter(sizes.size > max_length)
    long_rows = rows.semi_join(long, keys)
    position = ibis.row_number().over(ibis.window(group_by=keys, order_by=recency_order))
    first = long_rows.mutate(place=position).filter(lambda row: row.place < max_length).drop("place")
    return rows.anti_join(long, keys).union(first)


def _list_field(rows: ir.ArrayValue, name: str) -> ir.ArrayValue:
    return rows.map(lambda row: row[name])
