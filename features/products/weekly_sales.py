"""Weeks: how much of each product was sold in each of the last weeks, to anybody."""

from datetime import datetime
from pathlib import Path

import pandas as pd

from features import engine, lines


def sold(ledger: Path, *, as_of: datetime, timezone: str, weeks: int) -> pd.DataFrame:
    """Pieces sold of each product in each of the last weeks: product_key, weeks_back, units, worth; sorted by both.

    weeks_back 1 is the seven days before the day of as_of. Everybody's purchases count, named or not: these are
    totals, and a shelf does not ask who emptied it. A day is the shop's.
    """
    con = engine.connect()
    try:
        cut = lines.instant(as_of)
        every = lines.ledger_lines(ledger, con)
        current = every.superseded_at.isnull() | (every.superseded_at >= cut)
        seen = lines.bought(every.filter(every.known_at < cut, every.sold_at < cut, current))
        back = engine.day_number(as_of, timezone) - 1 - engine.day_of(seen.sold_at, timezone)
        dated = seen.select("product_key", "quantity", "amount", weeks_back=(back / 7).floor().cast("int64") + 1)
        dated = dated.filter(dated.product_key.notnull(), dated.weeks_back.between(1, weeks))
        grouped = dated.group_by("product_key", "weeks_back").aggregate(
            units=engine.whole(dated.quantity, lines.MONEY).sum() / lines.MONEY,
            worth=engine.whole(dated.amount.fill_null(0.0), lines.MONEY).sum() / lines.MONEY,
        )
        return grouped.order_by("product_key", "weeks_back").execute()
    finally:
        con.disconnect()
