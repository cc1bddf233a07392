"""Moments: what the shop knows of each customer at each moment, written down once as a recipe."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, reduce
from types import ModuleType

import ibis
import ibis.expr.types as ir

from features import engagement, engine, lines, needs, prices, rhythm, spend, staples, taste

FAMILIES: dict[str, ModuleType] = {"rhythm": rhythm, "spend": spend, "taste": taste}

_INSTANT = {"as_of": "timestamp('UTC')", "as_of_day": "int64"}
#: The moments that a recipe is followed for. A *_mornings table has those of the moments before it that cut a day
#: in two; receipts and answers are moments at which only some customers are looked at.
ASKED = {
    **dict.fromkeys(("instants", "shelves", "latest", "priced"), _INSTANT),
    **dict.fromkeys(("instants_mornings", "shelves_mornings", "latest_mornings"), _INSTANT),
    **dict.fromkeys(("receipts", "receipts_mornings", "answers"), {"customer_key": "int64"} | _INSTANT),
}
SOLD = ibis.table(lines.LEDGER, name="sold")
PRODUCTS = ibis.table(lines.PRODUCTS, name="products")
INTERACTIONS = ibis.table(lines.INTERACTIONS, name="interactions")


@cache
def night(timezone: str) -> engine.Recipe:
    """How every family comes from what was sold and what happened, with days in a zone, at many moments.

    Followed over the tables sold, products, interactions, and those of ASKED. Its answers are the families by
    name, and the two tables that no view shows: staples and prices.
    """
    steps = engine.Recipe()
    bought = steps.keep(_bought())
    product_days = steps.keep(staples.product_days(bought, timezone))
    category_lines = steps.keep(needs.dated(bought, PRODUCTS, timezone))
    category_days = steps.keep(needs.category_days(category_lines))
    dated = bought.mutate(day=engine.day_of(bought.sold_at, timezone))
    return _answered(
        steps,
        seen(steps, bought, timezone),
        contacts(timezone),
        shelved(product_days, dated),
        needed(category_days, category_lines),
        staples=_summed_up(stapled(product_days, dated), "product_key", staples.columns),
        prices=prices.paid(bought, asked("priced")),
    )


@cache
def numbers(timezone: str) -> engine.Recipe:
    """Only the families of numbers over customer-days: rhythm, spend and taste."""
    steps = engine.Recipe()
    bought = steps.keep(_bought())
    _numbered(steps, seen(steps, bought, timezone))
    return steps


@cache
def till(timezone: str) -> engine.Recipe:
    """The same, at no other moment than the latest, after which `sold` and `interactions` know of nothing.

    Nothing needs to be cut in two then, which spares half of the steps; staples and prices are left out.
    """
    steps = engine.Recipe()
    bought, latest = steps.keep(_bought()), asked("latest")
    streams = [steps.keep(stream) for stream in happenings(steps, bought, timezone)]
    days = lines.visits(gathered(streams, ["customer_key", "day"]))
    product_days = staples.product_days(bought, timezone)
    category_days = needs.category_days(needs.dated(bought, PRODUCTS, timezone))
    return _answered(
        steps,
        aged(steps.keep(days).cross_join(latest)),
        _happened(timezone).cross_join(latest),
        product_days.cross_join(latest),
        category_days.cross_join(latest),
    )


def _answered(
    steps: engine.Recipe,
    days: ir.Table,
    contacts: ir.Table,
    products: ir.Table,
    categories: ir.Table,
    **others: ir.Table,
) -> engine.Recipe:
    """The end of every recipe: from what each moment sees to the families."""
    _numbered(steps, days)
    steps.answer("engagement", _stamped(_summed_up(contacts, None, engagement.columns)))
    steps.answer("shelf", _stamped(staples.shelf(steps.keep(_summed_up(products, "product_key", staples.weighed)))))
    steps.answer("needs", _stamped(needs.lists(steps.keep(_summed_up(categories, "category", needs.columns)))))
    for name, table in others.items():
        steps.answer(name, _stamped(table))
    return steps


def _numbered(steps: engine.Recipe, days: ir.Table) -> None:
    features = steps.keep(summed(days))
    for name, family in FAMILIES.items():
        steps.answer(name, _stamped(features.select("customer_key", "as_of", *family.columns(lines.SEEN))))


def asked(name: str) -> ir.Table:
    """One of the tables of moments."""
    return ibis.table(ASKED[name], name=name)


def happenings(steps: engine.Recipe, bought: ir.Table, timezone: str) -> list[ir.Table]:
    """What happened, in streams of (customer_key, day, sold_at) and the numbers that add up over days."""
    labelled = steps.keep(lines.labelled(bought, steps.keep(lines.catalogue(PRODUCTS))))
    trips = lines.baskets(SOLD, timezone).drop("order_key")
    kinds = [taste.habits(labelled, kind, timezone) for kind in lines.KINDS]
    return [trips, taste.firsts(labelled, timezone), *kinds]


def gathered(streams: Iterable[ir.Table], keys: list[str]) -> ir.Table:
    """The streams side by side, a row for each of the keys: sums, but the maximum of a column *_top."""
    totals = [_totals(stream, keys) for stream in streams]
    return reduce(lambda left, right: _joined(left, right, keys), totals)


def seen(steps: engine.Recipe, bought: ir.Table, timezone: str) -> ir.Table:
    """Each customer-day, once for each moment that sees it: with as_of, as_of_day, age_days and new_week.

    A moment sees all of the days before its own. Of its own day it sees the morning: what was sold before it.
    """
    streams = [steps.keep(stream) for stream in happenings(steps, bought, timezone)]
    days = steps.keep(lines.visits(gathered(streams, ["customer_key", "day"])))
    instants = asked("instants")
    whole = days.join(instants, days.day < instants.as_of_day)
    early = [_before(stream, asked("instants_mornings")) for stream in streams]
    mornings = lines.visits(gathered(early, ["customer_key", "day", "as_of", "as_of_day"])).drop("gap_days")
    mornings = _since(mornings, days.filter(days.purchase), ["customer_key"])
    mornings = mornings.mutate(gap_days=ibis.cases((mornings.purchase, mornings.gap_days)))
    return aged(whole.union(mornings.select(*whole.columns)))


def aged(days: ir.Table) -> ir.Table:
    """Days with how long they lie back, and whether they are the first purchase of a week."""
    new_week = (days.day + 3) // 7 > (days.day - days.gap_days + 3) // 7
    return days.mutate(
        age_days=days.as_of_day - days.day,
        new_week=ibis.cases((days.purchase & (days.gap_days.isnull() | new_week), 1.0), else_=0.0),
    )


def summed(days: ir.Table) -> ir.Table:
    """Every number of every family, a row for a customer and moment with a purchase before it."""
    named: dict[str, ir.Value] = {}
    for family in FAMILIES.values():
        named |= {name: column.cast("float64") for name, column in family.columns(days).items()}
    return days.group_by("customer_key", "as_of").having(days.visit.sum() > 0).aggregate(**named)


def contacts(timezone: str) -> ir.Table:
    """Each interaction, once for each moment that sees it."""
    happened, instants, answers = _happened(timezone), asked("instants"), asked("answers")
    everyone = happened.join(instants, happened.happened_at < instants.as_of)
    some = _theirs(happened, answers, [happened.happened_at < answers.as_of])
    return everyone.union(some.select(*everyone.columns))


def shelved(days: ir.Table, dated: ir.Table) -> ir.Table:
    """Each product-day, once for each moment of shelves and receipts that sees it."""
    shelves, receipts, mornings = asked("shelves"), asked("receipts"), asked("receipts_mornings")
    parts = [
        days.join(shelves, days.day < shelves.as_of_day),
        _theirs(days, receipts, [days.day < receipts.as_of_day]),
        _before(dated, asked("shelves_mornings")),
        _theirs(dated, mornings, _on_the_morning(dated, mornings)),
    ]
    columns = ["customer_key", "product_key", "day", "as_of", "as_of_day"]
    everyones, theirs, *early = (part.select(*columns) for part in parts)
    return everyones.union(theirs, ibis.union(*early).distinct())


def stapled(days: ir.Table, dated: ir.Table) -> ir.Table:
    """Each product-day that the latest moment sees, with its worth and gap."""
    early = staples.worth(_before(dated, asked("latest_mornings")), "as_of", "as_of_day")
    return _whole(days, early, asked("latest"), "product_key")


def needed(days: ir.Table, dated: ir.Table) -> ir.Table:
    """Each category-day, once for each moment of shelves that sees it, with its worth, pieces and gap."""
    early = needs.worth(_before(dated, asked("shelves_mornings")), "as_of", "as_of_day")
    return _whole(days, early, asked("shelves"), "category")


def _bought() -> ir.Table:
    return lines.bought(SOLD).drop("known_at", "superseded_at", "discount", "kind", "channel")


def _happened(timezone: str) -> ir.Table:
    return INTERACTIONS.mutate(day=engine.day_of(INTERACTIONS.happened_at, timezone))


def _whole(days: ir.Table, early: ir.Table, instants: ir.Table, kind: str) -> ir.Table:
    """All days before each moment's own, and of its own the morning."""
    whole = days.join(instants, days.day < instants.as_of_day)
    return whole.union(_since(early, days, ["customer_key", kind]).select(*whole.columns))


def _summed_up(days: ir.Table, kind: str | None, columns: Callable[[ir.Table], dict[str, ir.Value]]) -> ir.Table:
    """A row for a customer, a moment and each of a kind, with these columns."""
    days = days.mutate(age_days=days.as_of_day - days.day)
    keys = ["customer_key", "as_of", *([kind] if kind else [])]
    return days.group_by(keys).aggregate(**columns(days))


def _totals(stream: ir.Table, keys: list[str]) -> ir.Table:
    numbers_ = [name for name in stream.columns if name not in ("customer_key", "day", "sold_at", *keys)]
    return stream.group_by(keys).aggregate(
        **{name: stream[name].max() if name.endswith("_top") else stream[name].sum() for name in numbers_}
    )


def _joined(left: ir.Table, right: ir.Table, keys: list[str]) -> ir.Table:
    return left.left_join(right, keys).drop(*[f"{key}_right" for key in keys])


def _before(stream: ir.Table, mornings: ir.Table) -> ir.Table:
    return stream.join(mornings, _on_the_morning(stream, mornings))


def _on_the_morning(each: ir.Table, moment: ir.Table) -> list[ir.BooleanValue]:
    return [each.day == moment.as_of_day, each.sold_at < moment.as_of]


def _theirs(each: ir.Table, moments: ir.Table, when: Sequence[ir.BooleanValue]) -> ir.Table:
    """A customer's own rows, seen from their own moments."""
    return each.join(moments, [each.customer_key == moments.customer_key, *when])


def _since(mornings: ir.Table, days: ir.Table, keys: list[str]) -> ir.Table:
    earlier = days.select(*keys, last_day=days.day)
    joined = mornings.asof_join(earlier, mornings.day > earlier.last_day, keys)
    return joined.mutate(gap_days=joined.day - joined.last_day)


def _stamped(table: ir.Table) -> ir.Table:
    keys = [name for name in ("customer_key", "product_key") if name in table.columns]
    first, *second = keys
    moments = {"event_timestamp": table.as_of, "created": table.as_of}
    features = [name for name in table.columns if name not in (*keys, "as_of")]
    ordered = table.select(first, **moments, **{name: table[name] for name in (*second, *features)})
    return ordered.order_by("event_timestamp", *keys)
