"""Order lines and interactions as known at a cutoff (bitemporal reads), and the baskets and days built from them."""

from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends import BaseBackend

from features.engine import duckdb, expressions

MONEY_STEPS = 10_000.0  # amounts are summed as whole ten-thousandths; see expressions.to_whole_steps

GROUPINGS = ("department", "category", "brand", "store")

LEDGER_SCHEMA = ibis.schema(
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
INTERACTION_SCHEMA = ibis.schema(
    {
        "customer_key": "int64",
        "happened_at": "timestamp('UTC')",
        "known_at": "timestamp('UTC')",
        "channel": "string",
        "kind": "string",
        "status": "string",
        "campaign_id": "string",
        "offer_id": "string",
        "answered_at": "timestamp('UTC')",
    }
)
CUSTOMER_KEY_SCHEMA = ibis.schema({"customer_key": "int64"})
PRODUCT_SCHEMA = ibis.schema({"product_key": "int64", "department": "string", "category": "string", "brand": "string"})
#: With further product columns that models read and no feature family does.
PRODUCT_DETAIL_SCHEMA = ibis.schema({**PRODUCT_SCHEMA, "subcategory": "string", "price": "float64"})

_MONEY_COLUMNS = ("sales", "returned", "saved", "pieces", "spend", "squares")
_COUNT_COLUMNS = ("lines", "bought_lines", "unpriced", "baskets", "new_products")
_GROUPING_COLUMNS = [f"{grouping}_{suffix}" for grouping in GROUPINGS for suffix in ("new", "worth", "nlogn", "top")]
VISIBLE_DAYS = ibis.table(
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
        **dict.fromkeys((*_MONEY_COLUMNS, *_COUNT_COLUMNS, *_GROUPING_COLUMNS), "float64"),
    },
    name="visible_days",
)


def lines_as_of(ledger: Path, as_of: datetime, con: BaseBackend | None = None) -> ir.Table:
    """Order lines with a customer, sold before `as_of` and known before it; columns of LEDGER_SCHEMA.

    A line that was corrected later is returned as it stood then. Lines of sensitive products are left out, except those
    of customers who allow their use.
    """
    con = con or duckdb.connect()
    visible = visible_versions(read_lines(ledger, con), timestamp_literal(as_of))
    if not has_sensitive_products(ledger):
        return visible
    return drop_sensitive(visible, _sensitive_products(ledger, con), customers_allowing_sensitive(ledger, con))


def create_record_views(con: BaseBackend, ledger: Path, as_of: datetime) -> None:
    """Let the names sold and interactions stand for what was recorded before `as_of` in the queries of `con`."""
    con.create_view("sold", lines_as_of(ledger, as_of, con))
    con.create_view("interactions", interactions_as_of(ledger, as_of, con))


def visible_versions(lines: ir.Table, cutoff: ir.TimestampValue) -> ir.Table:
    """The line versions that stood at `cutoff`, of sales before it, with a customer."""
    current = lines.superseded_at.isnull() | (lines.superseded_at >= cutoff)
    return lines.filter(lines.customer_key.notnull(), lines.known_at < cutoff, current, lines.sold_at < cutoff)


def drop_sensitive(lines: ir.Table, sensitive: ir.Table, allowing_customers: ir.Table) -> ir.Table:
    """Lines without those of sensitive products, except those of customers who allow their use."""
    is_not_sensitive = lines.product_key.notin(sensitive.product_key)
    return lines.filter(is_not_sensitive | lines.customer_key.isin(allowing_customers.customer_key))


def has_sensitive_products(ledger: Path) -> bool:
    """Whether any product is sensitive; most shops have none, and then no consents are read."""
    path = Path(ledger) / "products.parquet"
    if not path.exists() or "sensitive" not in pq.read_schema(path).names:
        return False
    return bool(pc.any(pq.read_table(path, columns=["sensitive"])["sensitive"]).as_py())


def customers_allowing_sensitive(ledger: Path, con: BaseBackend) -> ir.Table:
    """customer_key of those who allow profiling on sensitive products; none without a consents file."""
    path = Path(ledger) / "consents.parquet"
    if not path.exists():
        return con.create_table(ibis.util.gen_name("consents"), schema=CUSTOMER_KEY_SCHEMA, temp=True)
    consents = con.read_parquet(str(path))
    return consents.filter(consents.profiling_sensitive.fill_null(False)).select("customer_key")


def drop_profiling_refusals(lines: ir.Table, ledger: Path, con: BaseBackend) -> ir.Table:
    """Lines without those of customers who refuse profiling."""
    path = Path(ledger) / "consents.parquet"
    if not path.exists():
        return lines
    consents = con.read_parquet(str(path))
    refusing = consents.filter(~consents.profiling.fill_null(True))
    return lines.filter(lines.customer_key.notin(refusing.customer_key))


def interactions_as_of(ledger: Path, as_of: datetime, con: BaseBackend) -> ir.Table:
    """Interactions that happened before `as_of` and were known before it; columns of INTERACTION_SCHEMA."""
    path = Path(ledger) / "interactions.parquet"
    if not path.exists():
        return con.create_table(ibis.util.gen_name("interactions"), schema=INTERACTION_SCHEMA, temp=True)
    mirrored = con.read_parquet(str(path))
    absent = {name: ibis.null(dtype) for name, dtype in INTERACTION_SCHEMA.items() if name not in mirrored.columns}
    return interactions_before(mirrored.mutate(**absent).select(*INTERACTION_SCHEMA.names), timestamp_literal(as_of))


def interactions_before(interactions: ir.Table, cutoff: ir.TimestampValue) -> ir.Table:
    """Interactions with a customer that happened before `cutoff` and were known before it."""
    before = (interactions.happened_at < cutoff) & (interactions.known_at < cutoff)
    return interactions.filter(interactions.customer_key.notnull(), before)


def read_lines(ledger: Path, con: BaseBackend) -> ir.Table:
    """Every version of every line in the mirror; no row where nothing has been loaded."""
    months = sorted(str(part) for part in Path(ledger).glob("month=*/part.parquet"))
    if not months:
        return con.create_table(ibis.util.gen_name("ledger"), schema=LEDGER_SCHEMA, temp=True)
    return con.read_parquet(months, hive_partitioning=False).select(*LEDGER_SCHEMA.names)


def read_products(ledger: Path, con: BaseBackend, schema: ibis.Schema = PRODUCT_SCHEMA) -> ir.Table:
    """The mirror's products with the columns of `schema`; no row where there is no file."""
    path = Path(ledger) / "products.parquet"
    if not path.exists():
        return con.create_table(ibis.util.gen_name("products"), schema=schema, temp=True)
    return con.read_parquet(str(path)).select(*schema.names)


def encode_categories(products: ir.Table) -> ir.Table:
    """Products with codes for department, category and brand: equal words, equal code; -1 for none."""
    category_words = {column: products[column].nullif("") for column in PRODUCT_SCHEMA.names[1:]}
    codes = {
        column: ibis.cases((words.notnull(), words.dense_rank()), else_=-1) for column, words in category_words.items()
    }
    return products.select("product_key", **codes)


def purchased_lines(lines: ir.Table) -> ir.Table:
    """Lines of purchases: sales with a positive quantity."""
    return lines.filter(lines.kind == "sale", lines.quantity > 0)


def with_categories(bought_lines: ir.Table, products: ir.Table) -> ir.Table:
    """Purchased lines with the codes of their product; -1 for a product that the catalogue does not have."""
    return bought_lines.left_join(products, "product_key").select(
        "customer_key",
        "order_key",
        "product_key",
        "sold_at",
        "amount",
        store=bought_lines.store_id.fill_null(""),
        **{column: products[column].fill_null(-1) for column in PRODUCT_SCHEMA.names[1:]},
    )


def basket_totals(lines: ir.Table, timezone: str) -> ir.Table:
    """One row per customer, order and day: amounts paid, returned and saved, and counts of lines and pieces.

    The time of a basket is that of its last line. A return on a later day under the old order number is a basket of its
    own, so that it does not move the sale. Money and pieces are in ten-thousandths (see expressions.to_whole_steps).
    """
    is_sale, is_return = lines.kind == "sale", lines.kind == "return"
    orders = lines.group_by("customer_key", "order_key", "sold_at").aggregate(
        sales=lines.amount.sum(where=is_sale),
        returned=lines.amount.abs().sum(where=is_return),
        saved=lines.discount.sum(where=is_sale),
        pieces=lines.quantity.sum(where=is_sale),
        lines=is_sale.sum(),
        bought_lines=(is_sale & (lines.quantity > 0)).sum(),
        unpriced=(is_sale & lines.amount.isnull()).any(),
    )
    orders = orders.mutate(day=expressions.local_day_number(orders.sold_at, timezone))
    grouped = orders.group_by("customer_key", "order_key", "day").aggregate(
        sold_at=orders.sold_at.max(),
        sales=_sum_money(orders.sales),
        returned=_sum_money(orders.returned),
        saved=_sum_money(orders.saved),
        pieces=_sum_money(orders.pieces),
        lines=orders.lines.sum().cast("float64"),
        bought_lines=orders.bought_lines.sum().cast("float64"),
        unpriced=orders.unpriced.any().cast("float64"),
    )
    has_sales = (grouped.lines > 0).cast("float64")
    return grouped.mutate(spend=grouped.sales - grouped.returned, baskets=has_sales, squares=grouped.sales**2)


def mark_purchase_days(days: ir.Table) -> ir.Table:
    """Add to customer-days: purchase, visit, visit_day, and gap_days since the previous purchase day.

    A purchase day has positive net spend; a sale in another currency (no amount) counts as one too.
    """
    purchase = (days.spend > 0) | (days.unpriced > 0)
    days = days.mutate(purchase=purchase, visit=purchase.cast("float64"))
    before = ibis.window(group_by=["customer_key", "purchase"], order_by="day")
    gap = ibis.cases((days.purchase, days.day - days.day.lag().over(before)))
    return days.mutate(gap_days=gap, visit_day=ibis.cases((days.purchase, days.day)))


def purchase_days(lines: ir.Table, timezone: str) -> ir.Table:
    """One row per customer and purchase day: customer_key, day (day number), baskets, spend."""
    baskets = basket_totals(lines, timezone)
    days = baskets.group_by("customer_key", "day").aggregate(
        spend=baskets.spend.sum(), unpriced=baskets.unpriced.max(), baskets=baskets.baskets.sum()
    )
    days = days.filter((days.spend > 0) | (days.unpriced > 0))
    return days.select("customer_key", "day", "baskets", spend=days.spend / MONEY_STEPS)


def timestamp_literal(instant: datetime) -> ir.TimestampScalar:
    """An instant as a timestamp literal in UTC."""
    return ibis.literal(duckdb.to_utc(instant), type="timestamp('UTC')")


def _sensitive_products(ledger: Path, con: BaseBackend) -> ir.Table:
    products = con.read_parquet(str(Path(ledger) / "products.parquet"))
    return products.filter(products.sensitive.fill_null(False)).select("product_key")


def _sum_money(amount: ir.FloatingColumn) -> ir.FloatingScalar:
    return expressions.to_whole_steps(expressions.sum_or_zero(amount), MONEY_STEPS)
