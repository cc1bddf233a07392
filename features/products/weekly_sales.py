"""Units sold of each product per week, over all customers."""

from datetime import datetime
from pathlib import Path

import pandas as pd

from features.engine import duckdb, expressions, ledger_lines


def load_weekly_units(ledger: Path, *, as_of: datetime, timezone: str, weeks: int) -> pd.DataFrame:
    """Pieces sold per product and week: columns product_key, weeks_back, units, worth; sorted by the first two.

    weeks_back 1 is the seven local days before the day of `as_of`. Sales without a customer count too, and so do those
    of customers who refuse profiling: these are totals of demand.
    """
    con = duckdb.connect()
    try:
        cutoff = ledger_lines.timestamp_literal(as_of)
        all_lines = ledger_lines.read_lines(ledger, con)
        current = all_lines.superseded_at.isnull() | (all_lines.superseded_at >= cutoff)
        sales = ledger_lines.purchased_lines(
            all_lines.filter(all_lines.known_at < cutoff, all_lines.sold_at < cutoff, current)
        )
        days_back = duckdb.day_number(as_of, timezone) - 1 - expressions.local_day_number(sales.sold_at, timezone)
        dated = sales.select("product_key", "quantity", "amount", weeks_back=(days_back / 7).floor().cast("int64") + 1)
        dated = dated.filter(dated.product_key.notnull(), dated.weeks_back.between(1, weeks))
        grouped = dated.group_by("product_key", "weeks_back").aggregate(
            units=expressions.to_whole_steps(dated.quantity, ledger_lines.MONEY_STEPS).sum() / ledger_lines.MONEY_STEPS,
            worth=expressions.to_whole_steps(dated.amount.fill_null(0.0), ledger_lines.MONEY_STEPS).sum()
            / ledger_lines.MONEY_STEPS,
        )
        return grouped.order_by("product_key", "weeks_back").execute()
    finally:
        con.disconnect()
