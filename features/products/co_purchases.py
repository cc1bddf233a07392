"""Together: what goes into one basket with what, and what is bought for the first time on the visit after."""

import os
from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
from ibis.backends.duckdb import Backend

from features import engine, lines

#: A product bought on fewer days than this says nothing about its company.
LEAST_DAYS = 5
#: Fewer customers than this, beside or after, would recognise themselves: of them nothing is counted.
LEAST_CUSTOMERS = 3
#: Others kept of each product: a page shows ten, and a shop's rules may strike out most of them.
MOST_OTHERS = 60
#: A basket of more is a household's whole month, in which everything stands beside everything.
LARGEST_BASKET = 60
#: The latest visits are enough to learn from, and their pairs fit into memory however old the shop is.
MOST_VISITS = 200_000
#: Whoever buys the film weeks after the phone no longer buys it because of the phone.
NEXT_DAYS = 28
#: So many visits more are thought to be shared by chance, lest three of two rare products weigh like a law.
DOUBT = 1.0

COLUMNS = ("product_key", "other_key", "together", "visits", "followed", "lift", "strength")


def pairs(
    ledger: Path,
    *,
    as_of: datetime,
    timezone: str,
    least_days: int = LEAST_DAYS,
    least_customers: int = LEAST_CUSTOMERS,
    most_others: int = MOST_OTHERS,
) -> pd.DataFrame:
    """Products with what is bought beside and after them, the strongest first, at most `most_others` each.

    A row for a product and another, as known before `as_of`: `together` counts the customers who bought both on
    one visit (a day), `visits` such visits, `followed` the customers who bought the other for the first time on
    the visit after one with the product, within NEXT_DAYS. Fewer than least_customers count as none, in each of the
    two: they would recognise themselves. `lift` is how many times as many visits they share as chance would have it;
    `strength` is the customers times that surprise, doubted a little. Lines of sensitive products are seen of those
    customers alone who allow it.
    """
    con = engine.connect()
    try:
        bought = lines.bought(lines.profiled(lines.known(ledger, as_of, con), ledger, con))
        days = _put(con, "days", _product_days(bought, timezone))
        kept = _put(con, "kept", _numbered(days, least_days))
        met = _put(con, "met", _beside(kept, least_customers))
        went = _put(con, "went", _following(kept, least_customers))
        frame = _strongest(_measured(_both(met, went), kept), most_others).execute()
    finally:
        con.disconnect()
    return frame.astype(dict.fromkeys(COLUMNS[:5], "int64"))


def keep(frame: pd.DataFrame, folder: Path) -> None:
    """Lay a night's pairs beside its features, where serving finds them."""
    place = Path(folder) / "together" / "part.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".part.{os.getpid()}.parquet")
    frame.to_parquet(beside, index=False)
    os.replace(beside, place)


def kept(folder: Path) -> Path | None:
    """Where the last night's pairs lie; None before the first."""
    place = Path(folder) / "together" / "part.parquet"
    return place if place.exists() else None


def _put(con: Backend, name: str, table: ir.Table) -> ir.Table:
    return con.create_table(name, table, temp=True)


def _product_days(bought: ir.Table, timezone: str) -> ir.Table:
    """One row for a customer, a day and a product; `first` is the day on which they first bought it."""
    days = bought.select("customer_key", "product_key", day=engine.day_of(bought.sold_at, timezone)).distinct()
    return days.mutate(first=days.day.min().over(ibis.window(group_by=["customer_key", "product_key"])))


def _numbered(days: ir.Table, least_days: int) -> ir.Table:
    """The product-days of the latest visits, none of them too large, and which of the customer's visits each is of."""
    visits = days.group_by("customer_key", "day").aggregate(size=days.count())
    latest = ibis.window(order_by=[ibis.desc("day"), "customer_key"])
    own = ibis.window(group_by="customer_key", order_by="day")
    visits = visits.mutate(visit=ibis.row_number().over(own), late=ibis.row_number().over(latest))
    visits = visits.filter(visits.late < MOST_VISITS, visits.size <= LARGEST_BASKET).drop("late", "size")
    often = days.group_by("product_key").aggregate(often=days.count())
    return days.join(visits, ["customer_key", "day"]).semi_join(often.filter(often.often >= least_days), "product_key")


def _beside(kept: ir.Table, least: int) -> ir.Table:
    """How many customers bought two products on one visit, and on how many visits; for each order of the two."""
    other = kept.view()
    same = (kept.customer_key == other.customer_key) & (kept.day == other.day)
    met = kept.join(other, [same, kept.product_key < other.product_key])
    met = met.select("customer_key", product_key=kept.product_key, other_key=other.product_key)
    each = met.group_by("customer_key", "product_key", "other_key").aggregate(visits=met.count())
    counted = each.group_by("product_key", "other_key").aggregate(together=each.count(), visits=each.visits.sum())
    return counted.filter(counted.together >= least)


def _following(kept: ir.Table, least: int) -> ir.Table:
    """How many customers went from one product to another that they had never bought, on their next visit."""
    new = kept.filter(kept.first == kept.day)
    soon = (kept.visit + 1 == new.visit) & (new.day - kept.day <= NEXT_DAYS)
    went = kept.join(new, [kept.customer_key == new.customer_key, soon, kept.product_key != new.product_key])
    went = went.select(product_key=kept.product_key, other_key=new.product_key)
    counted = went.group_by("product_key", "other_key").aggregate(followed=went.count())
    return counted.filter(counted.followed >= least)


def _both(beside: ir.Table, following: ir.Table) -> ir.Table:
    nothing = ibis.literal(0, "int64")
    columns = ("product_key", "other_key", "together", "visits", "followed")
    one_way = beside.mutate(followed=nothing).select(*columns)
    other_way = one_way.rename(product_key="other_key", other_key="product_key").select(*columns)
    after = following.mutate(together=nothing, visits=nothing).select(*columns)
    met = one_way.union(other_way).union(after)
    return met.group_by("product_key", "other_key").aggregate(**{name: met[name].sum() for name in columns[2:]})


def _measured(met: ir.Table, kept: ir.Table) -> ir.Table:
    visits = kept.select("customer_key", "day").distinct().count().as_scalar()
    sizes = kept.group_by("product_key").aggregate(days=kept.count())
    other = sizes.view().select(other_key="product_key", other_days="days")
    sized = met.join(sizes, "product_key").join(other, "other_key")
    by_chance = sized.days.cast("float64") * sized.other_days / visits
    surprise = (sized.visits + sized.followed) / (by_chance + DOUBT)
    return sized.mutate(lift=sized.visits / by_chance, strength=(sized.together + sized.followed) * surprise)


def _strongest(measured: ir.Table, most: int) -> ir.Table:
    order = [ibis.desc("strength"), "other_key"]
    place = ibis.row_number().over(ibis.window(group_by="product_key", order_by=order))
    ranked = measured.mutate(place=place)
    return ranked.filter(ranked.place < most).order_by("product_key", "place").select(*COLUMNS)
