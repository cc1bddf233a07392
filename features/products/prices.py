"""Product prices and lines sold before a cutoff."""

from datetime import UTC, datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow.parquet as pq

from features.engine import duckdb, expressions, ledger_lines
from features.engine.ledger_lines import MONEY_STEPS


def sum_sales(bought: ir.Table, cutoffs: ir.Table) -> ir.Table:
    """Sales by product and the first cutoff after them: product_key, until, worth, pieces, sold (number of lines).

    Each line is counted once. Sums of several parts of the lines add up; amounts are in whole ten-thousandths.
    """
    has_amount = bought.amount.notnull()
    sales = bought.select(
        "product_key",
        "sold_at",
        worth=expressions.to_whole_steps(bought.amount.fill_null(0.0), MONEY_STEPS),
        pieces=ibis.cases((has_amount, expressions.to_whole_steps(bought.quantity, MONEY_STEPS)), else_=0.0),
    )
    before_all = ledger_lines.timestamp_literal(datetime.min.replace(tzinfo=UTC))
    start = cutoffs.as_of.lag().over(ibis.window(order_by="as_of")).fill_null(before_all)
    spans = cutoffs.select(start=start, until="as_of")
    after = sales.join(spans, [sales.sold_at >= spans.start, sales.sold_at < spans.until])
    return after.group_by("product_key", "until").aggregate(
        worth=after.worth.sum(), pieces=after.pieces.sum(), sold=after.count()
    )


def mean_prices(sums: ir.Table, cutoffs: ir.Table) -> ir.Table:
    """One row per product and cutoff with a sale before it: product_key, as_of, price, sold.

    sums: columns of `sum_sales`. price is the mean paid per piece, NULL where no amount in the shop's currency is
    available; sold is the number of lines.
    """
    earlier = sums.join(cutoffs, sums.until <= cutoffs.as_of)
    grouped = earlier.group_by("product_key", "as_of").aggregate(
        price=expressions.ratio(earlier.worth.sum(), earlier.pieces.sum()), sold=earlier.sold.sum().cast("float64")
    )
    return grouped.select("product_key", "as_of", "price", "sold")


def load_prices(folder: Path, ledger: Path, *, as_of: datetime) -> pd.DataFrame:
    """Price of every product as of a cutoff of the snapshot in `folder`: columns product_key, price, sold.

    The price is the mean paid per piece; where that is unknown, the catalogue's price, and NaN where it has none. sold
    is the number of lines before the cutoff.
    """
    at_cutoff = [("event_timestamp", "==", duckdb.to_utc(as_of))]
    observed_prices = pd.read_parquet(
        Path(folder) / "prices" / "part.parquet", columns=["product_key", "price", "sold"], filters=at_cutoff
    )
    path = Path(ledger) / "products.parquet"
    if not path.exists():
        return observed_prices.sort_values("product_key", ignore_index=True)
    list_prices = (
        pq.read_table(path, columns=["product_key", "price"]).to_pandas().rename(columns={"price": "list_price"})
    )
    both = observed_prices.merge(list_prices, on="product_key", how="outer")
    both = both.assign(price=both["price"].fillna(both["list_price"]), sold=both["sold"].fillna(0.0))
    return both[["product_key", "price", "sold"]].sort_values("product_key", ignore_index=True)
