"""Co-purchases: products bought on the same visit, and products first bought on the visit after."""

import os
from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
from ibis.backends import BaseBackend

from customers.shop.settings import DUCKDB
from features.engine import engines, expressions, ledger_lines

#: Products bought on fewer days are left out: too few to count pairs.
MIN_DAYS = 5
#: Counts of fewer customers are left out, because those customers could recognise themselves.
MIN_CUSTOMERS = 3
#: Rows per product: a page shows ten, and merchandising rules may exclude most of them.
MAX_OTHERS = 60
#: Larger baskets are left out: they are the purchases of a whole month, where every product pairs with every other.
MAX_BASKET_SIZE = 60
#: The latest visits are enough to learn from, and their pairs fit into memory however old the shop is.
MAX_VISITS = 200_000
#: A film that is bought weeks after the phone is no longer bought because of the phone.
FOLLOW_UP_DAYS = 28
#: Added to the expected visits, so that three visits with two rare products do not get a huge lift.
SMOOTHING_VISITS = 1.0

COLUMNS = ("product_key", "other_key", "together", "visits", "followed", "lift", "strength")


def count_co_purchases(
    ledger: Path,
    *,
    as_of: datetime,
    timezone: str,
    min_days: int = MIN_DAYS,
    min_customers: int = MIN_CUSTOMERS,
    max_others: int = MAX_OTHERS,
    engine: str = DUCKDB,
) -> pd.DataFrame:
    """Pairs of products bought on one visit or on successive visits, one row per product_key and other_key.

    Only what was known before `as_of` counts; at most max_others rows per product, the strongest first. Further
    columns: `together`, customers who bought both products on one visit (a local day); `visits`, such visits;
    `followed`, customers who bought the other product for the first time on the visit after one with the product,
    within FOLLOW_UP_DAYS; `lift`, shared visits over those expected by chance; `strength`, customers times a smoothed
    lift. Keys and counts are int64, the last two float64.

    A count of fewer than min_customers customers is 0 in either of the two: those customers could recognise themselves.
    Lines of sensitive products count only for customers who allow their use.
    """
    with engines.open_engine(engine) as con:
        bought = ledger_lines.purchased_lines(
            ledger_lines.drop_profiling_refusals(ledger_lines.lines_as_of(ledger, as_of, con), ledger, con)
        )
        days = _create_table(con, "days", _product_days(bought, timezone))
        visit_products = _create_table(con, "visit_products", _recent_visits(days, min_days))
        same_visit = _create_table(con, "same_visit", _same_visit_pairs(visit_products, min_customers))
        next_visit = _create_table(con, "next_visit", _next_visit_pairs(visit_products, min_customers))
        pairs = _with_lift(_combine_pairs(same_visit, next_visit), visit_products)
        frame = con.execute(_strongest_pairs(pairs, max_others))
    return frame.astype(dict.fromkeys(COLUMNS[:5], "int64"))


def save_co_purchases(frame: pd.DataFrame, folder: Path) -> None:
    """Write the columns of count_co_purchases to folder/together/part.parquet, where serving reads them."""
    path = Path(folder) / "together" / "part.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".part.{os.getpid()}.parquet")
    frame.to_parquet(partial, index=False)
    os.replace(partial, path)


def co_purchases_path(folder: Path) -> Path | None:
    """Path of the latest co-purchases; None before the first run."""
    path = Path(folder) / "together" / "part.parquet"
    return path if path.exists() else None


def _create_table(con: BaseBackend, name: str, table: ir.Table) -> ir.Table:
    return con.create_table(name, table, temp=True)


def _product_days(bought: ir.Table, timezone: str) -> ir.Table:
    """One row per customer, local day and product; `first` is the day of the first purchase of that product."""
    days = bought.select(
        "customer_key", "product_key", day=expressions.local_day_number(bought.sold_at, timezone)
    ).distinct()
    return days.mutate(first=days.day.min().over(ibis.window(group_by=["customer_key", "product_key"])))


def _recent_visits(days: ir.Table, min_days: int) -> ir.Table:
    """Product-days of the latest visits that are not too large, with the visit's number among the customer's visits."""
    visits = days.group_by("customer_key", "day").aggregate(size=days.count())
    latest = ibis.window(order_by=[ibis.desc("day"), "customer_key"])
    by_customer = ibis.window(group_by="customer_key", order_by="day")
    visits = visits.mutate(visit=ibis.row_number().over(by_customer), late=ibis.row_number().over(latest))
    visits = visits.filter(visits.late < MAX_VISITS, visits.size <= MAX_BASKET_SIZE).drop("late", "size")
    day_counts = days.group_by("product_key").aggregate(often=days.count())
    return days.join(visits, ["customer_key", "day"]).semi_join(
        day_counts.filter(day_counts.often >= min_days), "product_key"
    )


def _same_visit_pairs(visit_products: ir.Table, min_customers: int) -> ir.Table:
    """Numbers of customers and visits that share two products, for product_key < other_key."""
    other = visit_products.view()
    same = (visit_products.customer_key == other.customer_key) & (visit_products.day == other.day)
    pairs = visit_products.join(other, [same, visit_products.product_key < other.product_key])
    pairs = pairs.select("customer_key", product_key=visit_products.product_key, other_key=other.product_key)
    each = pairs.group_by("customer_key", "product_key", "other_key").aggregate(visits=pairs.count())
    counted = each.group_by("product_key", "other_key").aggregate(together=each.count(), visits=each.visits.sum())
    return counted.filter(counted.together >= min_customers)


def _next_visit_pairs(visit_products: ir.Table, min_customers: int) -> ir.Table:
    """Number of customers who bought a product, then another one for the first time on their next visit."""
    new = visit_products.filter(visit_products.first == visit_products.day)
    is_next_visit = (visit_products.visit + 1 == new.visit) & (new.day - visit_products.day <= FOLLOW_UP_DAYS)
    pairs = visit_products.join(
        new,
        [visit_products.customer_key == new.customer_key, is_next_visit, visit_products.product_key != new.product_key],
    )
    pairs = pairs.select(product_key=visit_products.product_key, other_key=new.product_key)
    counted = pairs.group_by("product_key", "other_key").aggregate(followed=pairs.count())
    return counted.filter(counted.followed >= min_customers)


def _combine_pairs(same_visit: ir.Table, next_visit: ir.Table) -> ir.Table:
    zero = ibis.literal(0, "int64")
    columns = ("product_key", "other_key", "together", "visits", "followed")
    one_way = same_visit.mutate(followed=zero).select(*columns)
    other_way = one_way.rename(product_key="other_key", other_key="product_key").select(*columns)
    next_visits = next_visit.mutate(together=zero, visits=zero).select(*columns)
    all_pairs = one_way.union(other_way).union(next_visits)
    return all_pairs.group_by("product_key", "other_key").aggregate(
        **{name: all_pairs[name].sum() for name in columns[2:]}
    )


def _with_lift(pairs: ir.Table, visit_products: ir.Table) -> ir.Table:
    visits = visit_products.select("customer_key", "day").distinct().count().as_scalar()
    sizes = visit_products.group_by("product_key").aggregate(days=visit_products.count())
    other = sizes.view().select(other_key="product_key", other_days="days")
    sized = pairs.join(sizes, "product_key").join(other, "other_key")
    expected_visits = sized.days.cast("float64") * sized.other_days / visits
    smoothed_lift = (sized.visits + sized.followed) / (expected_visits + SMOOTHING_VISITS)
    return sized.mutate(lift=sized.visits / expected_visits, strength=(sized.together + sized.followed) * smoothed_lift)


def _strongest_pairs(pairs: ir.Table, max_others: int) -> ir.Table:
    order = [ibis.desc("strength"), "other_key"]
    position = ibis.row_number().over(ibis.window(group_by="product_key", order_by=order))
    ranked = pairs.mutate(place=position)
    return ranked.filter(ranked.place < max_others).order_by("product_key", "place").select(*COLUMNS)
