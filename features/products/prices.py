"""Prices: what a product went for before a moment, and how well it sold; a table beside the families."""

from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow.parquet as pq

from features import engine
from features.lines import MONEY


def paid(bought: ir.Table, instants: ir.Table) -> ir.Table:
    """A row for a product and a moment with a sale of it before: price (mean paid for a piece), sold (lines).

    Columns: product_key, as_of, price (NULL where no amount in the shop's currency is known), sold.
    """
    priced = bought.amount.notnull()
    sales = bought.select(
        "product_key",
        "sold_at",
        worth=engine.whole(bought.amount.fill_null(0.0), MONEY),
        pieces=ibis.cases((priced, engine.whole(bought.quantity, MONEY)), else_=0.0),
    )
    # Each line is counted once, towards the first moment after it; moments then add up those before them.
    ends = instants.select(until="as_of")
    after = sales.asof_join(ends, sales.sold_at < ends.until)
    after = after.filter(after.until.notnull())
    parts = after.group_by("product_key", "until").aggregate(
        worth=after.worth.sum(), pieces=after.pieces.sum(), sold=after.count()
    )
    so_far = parts.join(instants, parts.until <= instants.as_of)
    grouped = so_far.group_by("product_key", "as_of").aggregate(
        price=engine.ratio(so_far.worth.sum(), so_far.pieces.sum()), sold=so_far.sold.sum().cast("float64")
    )
    return grouped.select("product_key", "as_of", "price", "sold")


def going(folder: Path, ledger: Path, *, as_of: datetime) -> pd.DataFrame:
    """What every product goes for at a moment of the snapshot in `folder`: product_key, price, sold (lines before it).

    The price is the mean paid for a piece; where nobody bought any, what the catalogue asks, and NaN where that
    says nothing either.
    """
    wanted = [("event_timestamp", "==", engine.utc(as_of))]
    paid_ = pd.read_parquet(Path(folder) / "prices" / "part.parquet", columns=["product_key", "price", "sold"],
                            filters=wanted)  # fmt: skip
    path = Path(ledger) / "products.parquet"
    if not path.exists():
        return paid_.sort_values("product_key", ignore_index=True)
    asked = pq.read_table(path, columns=["product_key", "price"]).to_pandas().rename(columns={"price": "asked"})
    both = paid_.merge(asked, on="product_key", how="outer")
    both = both.assign(price=both["price"].fillna(both["asked"]), sold=both["sold"].fillna(0.0))
    return both[["product_key", "price", "sold"]].sort_values("product_key", ignore_index=True)
