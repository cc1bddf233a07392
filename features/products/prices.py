"""Prices: what a product went for before a moment, and how well it sold; a table beside the families."""

from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow.parquet as pq

from features.engine import duckdb, expressions
from features.engine.ledger_lines import MONEY_STEPS


def mean_prices(bought: ir.Table, cutoffs: ir.Table) -> ir.Table:
    """A row for a product and a moment with a sale of it before: price (mean paid for a piece), sold (lines).

    Columns: product_key, as_of, price (NULL where no amount in the shop's currency is known), sold.
    """
    priced = bought.amount.notnull()
    sales = bought.select(
        "product_key",
        "sold_at",
        worth=expressions.to_whole_steps(bought.amount.fill_null(0.0), MONEY_STEPS),
        pieces=ibis.cases((priced, expressions.to_whole_steps(bought.quantity, MONEY_STEPS)), else_=0.0),
    )
    # Each line is counted once, towards the first moment after it; moments then add up those before them.
    cutoff_ends = cutoffs.select(until="as_of")
    after = sales.asof_join(cutoff_ends, sales.sold_at < cutoff_ends.until)
    after = after.filter(after.until.notnull())
    parts = after.group_by("product_key", "until").aggregate(
        worth=after.worth.sum(), pieces=after.pieces.sum(), sold=after.count()
    )
    so_far = parts.join(cutoffs, parts.until <= cutoffs.as_of)
    grouped = so_far.group_by("product_key", "as_of").aggregate(
        price=expressions.ratio(so_far.worth.sum(), so_far.pieces.sum()), sold=so_far.sold.sum().cast("float64")
    )
    return grouped.select("product_key", "as_of", "price", "sold")


def load_prices(folder: Path, ledger: Path, *, as_of: datetime) -> pd.DataFrame:
    """What every product goes for at a moment of the snapshot in `folder`: product_key, price, sold (lines before it).

    The price is the mean paid for a piece; where nobody bought any, what the catalogue asks, and NaN where that
    says nothing either.
    """
    wanted = [("event_timestamp", "==", duckdb.to_utc(as_of))]
    observed_prices = pd.read_parquet(Path(folder) / "prices" / "part.parquet", columns=["product_key", "price", "sold"],
                            filters=wanted)  # fmt: skip
    path = Path(ledger) / "products.parquet"
    if not path.exists():
        return observed_prices.sort_values("product_key", ignore_index=True)
    list_prices = pq.read_table(path, columns=["product_key", "price"]).to_pandas().rename(columns={"price": "asked"})
    both = observed_prices.merge(list_prices, on="product_key", how="outer")
    both = both.assign(price=both["price"].fillna(both["asked"]), sold=both["sold"].fillna(0.0))
    return both[["product_key", "price", "sold"]].sort_values("product_key", ignore_index=True)
