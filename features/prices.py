"""Prices: what a product went for before a moment, how well it sold, and what of its price was given away."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow.parquet as pq

from features import engine, lines
from features.lines import MONEY

#: A deal runs for a week or two; what was given away longer ago says nothing of today's.
LATELY_DAYS = 14


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


def deals(ledger: Path, moments: Sequence[datetime], *, as_of: datetime) -> pd.DataFrame:
    """A row for a product and a moment with a sale before it: product_key, as_of, price, cut, cut_lately.

    Known at `as_of`, sold before each moment. `price` is the mean paid for a piece; `cut` the share of the full
    price that was given away, `cut_lately` the same in the last LATELY_DAYS (NaN where none was sold).
    """
    con = engine.connect()
    try:
        sold = _paid_and_saved(lines.bought(lines.known(ledger, as_of, con)))
        parts = [_deal(sold, engine.utc(moment)) for moment in moments]
        frame = ibis.union(*parts).order_by("as_of", "product_key").execute() if parts else pd.DataFrame()
    finally:
        con.disconnect()
    return frame


def _paid_and_saved(bought: ir.Table) -> ir.Table:
    """What was paid and saved, as whole numbers, which add up alike in any order."""
    return bought.filter(bought.amount.notnull()).select(
        "product_key",
        "sold_at",
        paid=engine.whole(bought.amount, MONEY),
        saved=engine.whole(bought.discount.fill_null(0.0), MONEY),
        pieces=engine.whole(bought.quantity, MONEY),
    )


def _deal(sold: ir.Table, moment: datetime) -> ir.Table:
    seen = sold.filter(sold.sold_at < lines.instant(moment))
    late = seen.sold_at >= lines.instant(moment - timedelta(days=LATELY_DAYS))
    return seen.group_by("product_key").aggregate(
        as_of=lines.instant(moment),
        price=engine.ratio(seen.paid.sum(), seen.pieces.sum()),
        cut=engine.ratio(seen.saved.sum(), seen.paid.sum() + seen.saved.sum()),
        cut_lately=engine.ratio(seen.saved.sum(where=late), seen.paid.sum(where=late) + seen.saved.sum(where=late)),
    )
