"""Point-in-time computation: the query plans of every feature family at every cutoff."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, reduce
from types import ModuleType

import ibis
import ibis.expr.types as ir

from features.engine import expressions, ledger_lines
from features.engine.query_plan import QueryPlan
from features.families import category_history, engagement, product_history, product_mix, recency_frequency, spend
from features.products import prices

FAMILIES: dict[str, ModuleType] = {"rhythm": recency_frequency, "spend": spend, "taste": product_mix}
#: The output with the numbers of all FAMILIES in one table.
ALL_NUMBERS = "numbers"
#: The output with what customers add to the prices.
PRICE_SUMS = "price_sums"

_CUTOFF_SCHEMA = {"as_of": "timestamp('UTC')", "as_of_day": "int64"}
#: Tables of cutoffs that a plan reads. A *_mid_day table holds the cutoffs of the table before it that split a day in
#: two; customer_* tables hold cutoffs of single customers.
CUTOFF_TABLES = {
    **dict.fromkeys(("cutoffs", "list_cutoffs", "latest", "price_cutoffs"), _CUTOFF_SCHEMA),
    **dict.fromkeys(("cutoffs_mid_day", "list_cutoffs_mid_day", "latest_mid_day"), _CUTOFF_SCHEMA),
    **dict.fromkeys(
        ("customer_list_cutoffs", "customer_list_cutoffs_mid_day", "customer_cutoffs"),
        {"customer_key": "int64"} | _CUTOFF_SCHEMA,
    ),
}
SALES = ibis.table(ledger_lines.LEDGER_SCHEMA, name="sold")
PRODUCTS = ibis.table(ledger_lines.PRODUCT_SCHEMA, name="products")
INTERACTIONS = ibis.table(ledger_lines.INTERACTION_SCHEMA, name="interactions")


@cache
def batch_plan(timezone: str) -> QueryPlan:
    """Plan of every family at many cutoffs, with local days in `timezone`.

    Inputs are the tables sold, products, interactions and CUTOFF_TABLES, with the rows of all customers or of a portion
    of them. Outputs are the families by name, and staples (customer and product), which has no view.
    """
    steps = QueryPlan()
    bought = steps.add_step(_purchased_lines())
    product_days = steps.add_step(product_history.product_days(bought, timezone))
    category_lines = steps.add_step(category_history.categorised_lines(bought, PRODUCTS, timezone))
    category_days = steps.add_step(category_history.category_days(category_lines))
    dated = bought.mutate(day=expressions.local_day_number(bought.sold_at, timezone))
    _add_numeric_outputs(steps, visible_days(steps, bought, timezone))
    return _add_other_outputs(
        steps,
        visible_interactions(timezone),
        visible_product_days(product_days, dated),
        visible_category_days(category_days, category_lines),
        staples=_aggregate_by(latest_product_days(product_days, dated), "product_key", product_history.columns),
    )


@cache
def price_plan() -> QueryPlan:
    """Plan of the output prices: product prices at the price cutoffs, over the lines of all customers in `sold`."""
    steps = QueryPlan()
    sums = prices.sum_sales(_purchased_lines(), cutoff_table("price_cutoffs"))
    steps.add_output("prices", _with_timestamps(prices.mean_prices(sums, cutoff_table("price_cutoffs"))))
    return steps


@cache
def price_sums_plan() -> QueryPlan:
    """Plan of the output PRICE_SUMS: what the lines of some customers in `sold` add to the prices."""
    steps = QueryPlan()
    steps.add_output(PRICE_SUMS, prices.sum_sales(_purchased_lines(), cutoff_table("price_cutoffs")))
    return steps


@cache
def summed_price_plan() -> QueryPlan:
    """Plan of the output prices from the table PRICE_SUMS, with the sums of all customers in any number of parts."""
    steps = QueryPlan()
    sums = ibis.table(price_sums_plan().outputs[PRICE_SUMS].schema(), name=PRICE_SUMS)
    steps.add_output("prices", _with_timestamps(prices.mean_prices(sums, cutoff_table("price_cutoffs"))))
    return steps


@cache
def numeric_plan(timezone: str) -> QueryPlan:
    """Plan of the families of numbers over customer-days only: rhythm, spend and taste."""
    steps = QueryPlan()
    bought = steps.add_step(_purchased_lines())
    _add_numeric_outputs(steps, visible_days(steps, bought, timezone))
    return steps


@cache
def single_cutoff_plan(timezone: str) -> QueryPlan:
    """Plan of the families at the latest cutoff only, where `sold` and `interactions` have no row after it.

    No day needs to be split then, which saves half of the steps; staples and prices are left out. The families of
    numbers are one output, ALL_NUMBERS.
    """
    steps = QueryPlan()
    bought, latest = steps.add_step(_purchased_lines()), cutoff_table("latest")
    streams = [steps.add_step(stream) for stream in daily_streams(steps, bought, timezone, product_mix.grouping_totals)]
    days = ledger_lines.mark_purchase_days(combine_streams(streams, ["customer_key", "day"]))
    product_days = product_history.product_days(bought, timezone)
    category_days = category_history.category_days(category_history.categorised_lines(bought, PRODUCTS, timezone))
    numbers = aggregate_families(with_age(steps.add_step(days).cross_join(latest)))
    steps.add_output(ALL_NUMBERS, _with_timestamps(numbers))
    return _add_other_outputs(
        steps,
        _dated_interactions(timezone).cross_join(latest),
        product_days.cross_join(latest),
        category_days.cross_join(latest),
    )


def _add_other_outputs(
    steps: QueryPlan,
    interactions: ir.Table,
    products: ir.Table,
    categories: ir.Table,
    **others: ir.Table,
) -> QueryPlan:
    """Add the outputs of interactions, products and categories, from the rows that each cutoff includes."""
    steps.add_output("engagement", _with_timestamps(_aggregate_by(interactions, None, engagement.columns)))
    steps.add_output(
        "shelf",
        _with_timestamps(
            product_history.product_lists(
                steps.add_step(_aggregate_by(products, "product_key", product_history.list_columns))
            )
        ),
    )
    steps.add_output(
        "needs",
        _with_timestamps(
            category_history.category_lists(
                steps.add_step(_aggregate_by(categories, "category", category_history.columns))
            )
        ),
    )
    for name, table in others.items():
        steps.add_output(name, _with_timestamps(table))
    return steps


def _add_numeric_outputs(steps: QueryPlan, days: ir.Table) -> None:
    features = steps.add_step(aggregate_families(days))
    for name, family in FAMILIES.items():
        steps.add_output(
            name, _with_timestamps(features.select("customer_key", "as_of", *family.columns(ledger_lines.VISIBLE_DAYS)))
        )


def cutoff_table(name: str) -> ir.Table:
    """One of CUTOFF_TABLES, as an unbound table."""
    return ibis.table(CUTOFF_TABLES[name], name=name)


def daily_streams(
    steps: QueryPlan,
    bought: ir.Table,
    timezone: str,
    grouping_stream: Callable[[ir.Table, str, str], ir.Table] = product_mix.grouping_spend,
) -> list[ir.Table]:
    """Events as streams: customer_key, day, sold_at, and columns that add up over days.

    `grouping_stream` gives what is spent by group: by purchase, or in total where there is one cutoff.
    """
    labelled = steps.add_step(
        ledger_lines.with_categories(bought, steps.add_step(ledger_lines.encode_categories(PRODUCTS)))
    )
    trips = ledger_lines.basket_totals(SALES, timezone).drop("order_key")
    grouping_streams = [grouping_stream(labelled, grouping, timezone) for grouping in ledger_lines.GROUPINGS]
    return [trips, product_mix.first_purchases(labelled, timezone), *grouping_streams]


def combine_streams(streams: Iterable[ir.Table], keys: list[str]) -> ir.Table:
    """The streams joined, one row per combination of `keys`: sums, but the maximum for columns *_top."""
    totals = [_sum_stream(stream, keys) for stream in streams]
    return reduce(lambda left, right: _left_join(left, right, keys), totals)


def visible_days(steps: QueryPlan, bought: ir.Table, timezone: str) -> ir.Table:
    """Each customer-day once per cutoff that includes it, with as_of, as_of_day, age_days and new_week.

    A cutoff includes all days before its own, and of its own day what was sold before it (its morning).
    """
    streams = [steps.add_step(stream) for stream in daily_streams(steps, bought, timezone)]
    days = steps.add_step(ledger_lines.mark_purchase_days(combine_streams(streams, ["customer_key", "day"])))
    cutoffs = cutoff_table("cutoffs")
    whole = days.join(cutoffs, days.day < cutoffs.as_of_day)
    early = [_morning_rows(stream, cutoff_table("cutoffs_mid_day")) for stream in streams]
    mornings = ledger_lines.mark_purchase_days(
        combine_streams(early, ["customer_key", "day", "as_of", "as_of_day"])
    ).drop("gap_days")
    mornings = _with_gap(mornings, days.filter(days.purchase), ["customer_key"])
    mornings = mornings.mutate(gap_days=ibis.cases((mornings.purchase, mornings.gap_days)))
    return with_age(whole.union(mornings.select(*whole.columns)))


def with_age(days: ir.Table) -> ir.Table:
    """Add age_days, and new_week: 1 on the first purchase day of a calendar week, else 0."""
    new_week = (days.day + 3) // 7 > (days.day - days.gap_days + 3) // 7
    return days.mutate(
        age_days=days.as_of_day - days.day,
        new_week=ibis.cases((days.purchase & (days.gap_days.isnull() | new_week), 1.0), else_=0.0),
    )


def aggregate_families(days: ir.Table) -> ir.Table:
    """Every number of FAMILIES as float64, one row per customer and cutoff with a purchase before it."""
    named: dict[str, ir.Value] = {}
    for family in FAMILIES.values():
        named |= {name: column.cast("float64") for name, column in family.columns(days).items()}
    return days.group_by("customer_key", "as_of").having(days.visit.sum() > 0).aggregate(**named)


def visible_interactions(timezone: str) -> ir.Table:
    """Each interaction once per cutoff that includes it."""
    interactions, cutoffs, customer_cutoffs = (
        _dated_interactions(timezone),
        cutoff_table("cutoffs"),
        cutoff_table("customer_cutoffs"),
    )
    all_rows = interactions.join(cutoffs, interactions.happened_at < cutoffs.as_of)
    own_rows = _own_cutoffs(interactions, customer_cutoffs, [interactions.happened_at < customer_cutoffs.as_of])
    return all_rows.union(own_rows.select(*all_rows.columns))


def visible_product_days(days: ir.Table, dated: ir.Table) -> ir.Table:
    """Each product-day once per list cutoff, common or customer-specific, that includes it."""
    list_cutoffs, customer_cutoffs, mornings = (
        cutoff_table("list_cutoffs"),
        cutoff_table("customer_list_cutoffs"),
        cutoff_table("customer_list_cutoffs_mid_day"),
    )
    parts = [
        days.join(list_cutoffs, days.day < list_cutoffs.as_of_day),
        _own_cutoffs(days, customer_cutoffs, [days.day < customer_cutoffs.as_of_day]),
        _morning_rows(dated, cutoff_table("list_cutoffs_mid_day")),
        _own_cutoffs(dated, mornings, _is_on_morning(dated, mornings)),
    ]
    columns = ["customer_key", "product_key", "day", "as_of", "as_of_day"]
    all_rows, own_rows, *early = (part.select(*columns) for part in parts)
    return all_rows.union(own_rows, ibis.union(*early).distinct())


def latest_product_days(days: ir.Table, dated: ir.Table) -> ir.Table:
    """Each product-day that the latest cutoff includes, with worth and gap_days."""
    early = product_history.daily_totals(_morning_rows(dated, cutoff_table("latest_mid_day")), "as_of", "as_of_day")
    return _full_days_and_morning(days, early, cutoff_table("latest"), "product_key")


def visible_category_days(days: ir.Table, dated: ir.Table) -> ir.Table:
    """Each category-day once per list cutoff that includes it, with worth, pieces and gap_days."""
    early = category_history.daily_totals(
        _morning_rows(dated, cutoff_table("list_cutoffs_mid_day")), "as_of", "as_of_day"
    )
    return _full_days_and_morning(days, early, cutoff_table("list_cutoffs"), "category")


def _purchased_lines() -> ir.Table:
    return ledger_lines.purchased_lines(SALES).drop("known_at", "superseded_at", "discount", "kind", "channel")


def _dated_interactions(timezone: str) -> ir.Table:
    return INTERACTIONS.mutate(day=expressions.local_day_number(INTERACTIONS.happened_at, timezone))


def _full_days_and_morning(days: ir.Table, early: ir.Table, cutoffs: ir.Table, item_key: str) -> ir.Table:
    """All days before each cutoff's own day, and of that day the morning."""
    whole = days.join(cutoffs, days.day < cutoffs.as_of_day)
    return whole.union(_with_gap(early, days, ["customer_key", item_key]).select(*whole.columns))


def _aggregate_by(days: ir.Table, item_key: str | None, columns: Callable[[ir.Table], dict[str, ir.Value]]) -> ir.Table:
    """One row per customer, cutoff and item, with these columns."""
    days = days.mutate(age_days=days.as_of_day - days.day)
    keys = ["customer_key", "as_of", *([item_key] if item_key else [])]
    return days.group_by(keys).aggregate(**columns(days))


def _sum_stream(stream: ir.Table, keys: list[str]) -> ir.Table:
    value_columns = [name for name in stream.columns if name not in ("customer_key", "day", "sold_at", *keys)]
    return stream.group_by(keys).aggregate(
        **{name: stream[name].max() if name.endswith("_top") else stream[name].sum() for name in value_columns}
    )


def _left_join(left: ir.Table, right: ir.Table, keys: list[str]) -> ir.Table:
    return left.left_join(right, keys).drop(*[f"{key}_right" for key in keys])


def _morning_rows(stream: ir.Table, mornings: ir.Table) -> ir.Table:
    return stream.join(mornings, _is_on_morning(stream, mornings))


def _is_on_morning(rows: ir.Table, cutoffs: ir.Table) -> list[ir.BooleanValue]:
    return [rows.day == cutoffs.as_of_day, rows.sold_at < cutoffs.as_of]


def _own_cutoffs(rows: ir.Table, cutoffs: ir.Table, conditions: Sequence[ir.BooleanValue]) -> ir.Table:
    """Rows of a customer, once per cutoff of that same customer."""
    return rows.join(cutoffs, [rows.customer_key == cutoffs.customer_key, *conditions])


def _with_gap(mornings: ir.Table, days: ir.Table, keys: list[str]) -> ir.Table:
    """Add gap_days since the last of `days` with the same keys before each row's own day."""
    own_days = mornings.select(*keys, "day").distinct()
    earlier_days = days.select(*keys, last_day=days.day)
    earlier = own_days.join(earlier_days, [*keys, own_days.day > earlier_days.last_day])
    latest = earlier.group_by(*keys, "day").aggregate(last_day=earlier.last_day.max())
    joined = _left_join(mornings, latest, [*keys, "day"])
    return joined.mutate(gap_days=joined.day - joined.last_day)


def _with_timestamps(table: ir.Table) -> ir.Table:
    keys = [name for name in ("customer_key", "product_key") if name in table.columns]
    first, *second = keys
    timestamps = {"event_timestamp": table.as_of, "created": table.as_of}
    features = [name for name in table.columns if name not in (*keys, "as_of")]
    ordered = table.select(first, **timestamps, **{name: table[name] for name in (*second, *features)})
    return ordered.order_by("event_timestamp", *keys)
