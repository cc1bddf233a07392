"""Lines: what was bought, as far as it was known at a moment, and the baskets and days that lines make up."""

from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from features import engine

MONEY = 10_000.0  # amounts are counted in ten-thousandths, as whole numbers; see engine.whole

KINDS = ("department", "category", "brand", "store")

LEDGER = ibis.schema(
    {
        "customer_key": "int64",
        "order_key": "int64",
        "product_key": "int64",
        "sold_at": "timestamp('UTC')",
        "known_at": "timestamp('UTC')",
        "superseded_at": "timestamp('UTC')",
        "quantity": "float64",
        "amount": "float64",
        "discount": "float64",
        "kind": "string",
        "store_id": "string",
        "channel": "string",
    }
)
PRODUCTS = ibis.schema({"product_key": "int64", "department": "string", "category": "string", "brand": "string"})

_MONEYS = ("sales", "returned", "saved", "pieces", "spend", "squares")
_COUNTS = ("lines", "bought_lines", "unpriced", "baskets", "new_products")
_KINDS = [f"{kind}_{what}" for kind in KINDS for what in ("new", "worth", "nlogn", "top")]
SEEN = ibis.table(
    {
        "customer_key": "int64",
        "as_of": "timestamp('UTC')",
        "as_of_day": "int64",
        "day": "int64",
        "age_days": "int64",
        "purchase": "boolean",
        "visit": "float64",
        "visit_day": "int64",
        "gap_days": "int64",
        "new_week": "float64",
        **dict.fromkeys((*_MONEYS, *_COUNTS, *_KINDS), "float64"),
    },
    name="seen",
)


def known(ledger: Path, as_of: datetime, con: Backend | None = None) -> ir.Table:
    """The lines of known customers that a run as of this moment may see: sold before it, and known before it.

    A line that was corrected later is seen as it stood then. Anonymous lines are left out.
    """
    lines = ledger_lines(ledger, con or engine.connect())
    cut = _instant(as_of)
    current = lines.superseded_at.isnull() | (lines.superseded_at >= cut)
    return lines.filter(lines.customer_key.notnull(), lines.known_at < cut, current, lines.sold_at < cut)


def ledger_lines(ledger: Path, con: Backend) -> ir.Table:
    """Every version of every line in the mirror; no row at all where nothing was loaded yet."""
    months = sorted(str(part) for part in Path(ledger).glob("month=*/part.parquet"))
    if not months:
        return con.create_table(ibis.util.gen_name("ledger"), schema=LEDGER, temp=True)
    return con.read_parquet(months, hive_partitioning=False).select(*LEDGER.names)


def catalogue(ledger: Path, con: Backend) -> ir.Table:
    """Products with numbers for their department, category and brand: equal words, equal number; -1 for none."""
    path = Path(ledger) / "products.parquet"
    products = con.read_parquet(str(path)) if path.exists() else _no_products(con)
    said = {kind: products[kind].nullif("") for kind in PRODUCTS.names[1:]}
    numbered = {kind: ibis.cases((word.notnull(), word.dense_rank()), else_=-1) for kind, word in said.items()}
    return products.select("product_key", **numbered)


def bought(lines: ir.Table) -> ir.Table:
    """The lines in which a product was really taken home: sales of more than nothing."""
    return lines.filter(lines.kind == "sale", lines.quantity > 0)


def labelled(bought_lines: ir.Table, products: ir.Table) -> ir.Table:
    """Bought lines with what kind of thing each is; -1 for a product that the catalogue does not know."""
    return bought_lines.left_join(products, "product_key").select(
        "customer_key",
        "order_key",
        "product_key",
        "sold_at",
        "amount",
        store=bought_lines.store_id.fill_null(""),
        **{kind: products[kind].fill_null(-1) for kind in PRODUCTS.names[1:]},
    )


def baskets(lines: ir.Table, timezone: str) -> ir.Table:
    """One row for a customer, an order and a day: what was paid, returned, saved, and how much was in it.

    A basket has one time, that of its last line. A return that comes on a later day under the old order
    number is a basket of its own, so that it does not move the sale. Money and pieces are in ten-thousandths
    (see engine.whole).
    """
    sale, back = lines.kind == "sale", lines.kind == "return"
    slips = lines.group_by("customer_key", "order_key", "sold_at").aggregate(
        sales=lines.amount.sum(where=sale),
        returned=lines.amount.abs().sum(where=back),
        saved=lines.discount.sum(where=sale),
        pieces=lines.quantity.sum(where=sale),
        lines=sale.sum(),
        bought_lines=(sale & (lines.quantity > 0)).sum(),
        unpriced=(sale & lines.amount.isnull()).any(),
    )
    slips = slips.mutate(day=engine.day_of(slips.sold_at, timezone))
    grouped = slips.group_by("customer_key", "order_key", "day").aggregate(
        sold_at=slips.sold_at.max(),
        sales=_money(slips.sales),
        returned=_money(slips.returned),
        saved=_money(slips.saved),
        pieces=_money(slips.pieces),
        lines=slips.lines.sum().cast("float64"),
        bought_lines=slips.bought_lines.sum().cast("float64"),
        unpriced=slips.unpriced.any().cast("float64"),
    )
    filled = (grouped.lines > 0).cast("float64")
    return grouped.mutate(spend=grouped.sales - grouped.returned, baskets=filled, squares=grouped.sales**2)


def visits(days: ir.Table) -> ir.Table:
    """Add to customer-days which of them are purchase days, and the gap to the purchase day before.

    A purchase day is one with net positive spend; a sale in another currency (no amount) counts as one too.
    """
    purchase = (days.spend > 0) | (days.unpriced > 0)
    days = days.mutate(purchase=purchase, visit=purchase.cast("float64"))
    before = ibis.window(group_by=["customer_key", "purchase"], order_by="day")
    gap = ibis.cases((days.purchase, days.day - days.day.lag().over(before)))
    return days.mutate(gap_days=gap, visit_day=ibis.cases((days.purchase, days.day)))


def purchase_days(lines: ir.Table, timezone: str) -> ir.Table:
    """One row for a customer and a day of purchase: customer_key, day (day number), spend, baskets."""
    trips = baskets(lines, timezone)
    days = trips.group_by("customer_key", "day").aggregate(
        spend=trips.spend.sum(), unpriced=trips.unpriced.max(), baskets=trips.baskets.sum()
    )
    days = days.filter((days.spend > 0) | (days.unpriced > 0))
    return days.select("customer_key", "day", "baskets", spend=days.spend / MONEY)


def _no_products(con: Backend) -> ir.Table:
    return con.create_table(ibis.util.gen_name("products"), schema=PRODUCTS, temp=True)


def _money(amount: ir.FloatingColumn) -> ir.FloatingScalar:
    return engine.whole(engine.total(amount), MONEY)


def _instant(moment: datetime) -> ir.TimestampScalar:
    return ibis.literal(engine.utc(moment), type="timestamp('UTC')")
