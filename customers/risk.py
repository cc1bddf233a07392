"""Risk: who is drifting away, the likeliest first, and since when they are late."""

from collections.abc import Sequence
from datetime import datetime

import duckdb
import pandas as pd

from customers import clock, consent
from customers.frames import answers, named
from customers.instants import micros
from customers.shop import Shop
from customers.sources.files import literal

AT_RISK = {
    "customer_id": "object",
    "churn_probability": "float64",
    "churn_band": "object",
    "value_at_risk": "float64",
    "last_purchase_at": "datetime64[us, UTC]",
    "expected_next_purchase_at": "datetime64[us, UTC]",
    "days_overdue": "float64",
    "open_complaints": "Int64",
    "reasons": "object",
    "suggested_offer_id": "object",
    "contactable": "bool",
}

# Whoever is in one of these bands may still be kept; the lapsed have left, the low ones have not.
BANDS = ("high", "medium")


def at_risk(
    shop: Shop,
    *,
    as_of: datetime | None = None,
    n: int | None = None,
    min_value: float | None = None,
    bands: Sequence[str] = BANDS,
) -> pd.DataFrame:
    """The customers who are drifting away, the likeliest first; `n` of them, or all."""
    churn = answers(shop, "churn", as_of)
    moment = churn.attrs.get("as_of")
    churn["churn_band"] = [answer.get("band") for answer in churn["answer"]]
    churn = churn[churn["churn_band"].isin(list(bands))]
    churn = churn.sort_values(["value", "customer_key"], ascending=[False, True], kind="stable")[:n]
    if min_value is not None:
        churn = churn.head(0)  # without a value of each customer nobody is known to be worth that much
    visits = _visits(shop, moment)
    frame = pd.DataFrame(
        {
            "customer_key": churn["customer_key"],
            "churn_probability": churn["value"],
            "churn_band": churn["churn_band"],
            "last_purchase_at": churn["customer_key"].map(visits["last_purchase_at"]),
            "expected_next_purchase_at": churn["customer_key"].map(_awaited(shop, as_of)),
            "days_overdue": churn["customer_key"].map(visits["days_overdue"]),
            "reasons": [answer.get("reasons", []) for answer in churn["answer"]],
            "contactable": _contactable(shop),
        }
    )
    return named(shop, frame, AT_RISK)


def _awaited(shop: Shop, as_of: datetime | None) -> pd.Series:
    """By when each customer is as likely as not to have come again, in the words of the timing run."""
    timing = answers(shop, "timing", as_of)
    days = pd.Series([(answer.get("days") or {}).get("p50") for answer in timing["answer"]], timing["customer_key"])
    now = as_of or clock.now(shop)
    expected = {
        wait: clock.expected_at(timing.attrs["as_of"], int(wait), shop.zone, now=now) for wait in days.dropna().unique()
    }
    return days.map(expected).astype("datetime64[us, UTC]")


def _contactable(shop: Shop) -> bool:
    """Whether a customer who has said nothing may be written to or called."""
    return any(
        consent.by_default(shop, purpose) for purpose in shop.consent_default if purpose.startswith("marketing_")
    )


def _visits(shop: Shop, as_of: datetime | None) -> pd.DataFrame:
    """From the mirror: last purchase before `as_of`, and by how many days the usual gap is exceeded."""
    files = str(shop.home / "ledger" / "month=*" / "part.parquet")
    if as_of is None or not list((shop.home / "ledger").glob("month=*/part.parquet")):
        return pd.DataFrame(columns=["last_purchase_at", "days_overdue"])
    today = as_of.astimezone(shop.zone).date()
    query = f"""
        with days as (
          select customer_key, cast(timezone({literal(shop.timezone)}, sold_at) as date) as day,
                 max(sold_at) as last_at
          from read_parquet({literal(files)})
          where customer_key is not null and kind = 'sale'
            and epoch_us(sold_at) < {micros(as_of)} and epoch_us(known_at) < {micros(as_of)}
            and (superseded_at is null or epoch_us(superseded_at) >= {micros(as_of)})
          group by all),
        gaps as (select *, day - lag(day) over (partition by customer_key order by day) as gap from days)
        select customer_key, max(last_at) as last_purchase_at,
               greatest(0, (date '{today}' - max(day)) - median(gap)) as days_overdue
        from gaps group by customer_key"""
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        return connection.execute(query).df().set_index("customer_key")
