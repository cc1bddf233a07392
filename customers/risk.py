"""Risk: who is drifting away, the likeliest first, since when they are late, and what may be done about it."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import duckdb
import pandas as pd
import pyarrow as pa

from customers import clock, consent, interactions, mirror, money, offers
from customers.frames import answers, named
from customers.instants import micros
from customers.shop import Shop, ShopError
from customers.sources.files import literal

AT_RISK = {
    "customer_id": "object",
    "as_of": "datetime64[us, UTC]",
    "churn_probability": "float64",
    "churn_band": "object",
    "value_at_risk": "float64",
    "last_purchase_at": "datetime64[us, UTC]",
    "expected_next_purchase_at": "datetime64[us, UTC]",
    "days_overdue": "float64",
    "open_complaints": "Int64",
    "reasons": "object",
    "suggested_offer_id": "object",
    "contactable": "object",
}

# Whoever is in one of these bands may still be kept; the lapsed have left, the low ones have not.
BANDS = ("high", "medium")
# Nobody has to be written to where they come by themselves.
OPEN_CHANNELS = ("store", "web", "device")


def at_risk(
    shop: Shop,
    *,
    as_of: datetime | None = None,
    n: int | None = None,
    min_value: float | None = None,
    segment: str | None = None,
    bands: Sequence[str] = BANDS,
    live: bool = False,
) -> pd.DataFrame:
    """The customers who are drifting away, the likeliest first; `n` of them, or all.

    `min_value` leaves out whom less than that is at risk with. `live` looks at what was told since the last
    night too, and at sales that the mirror does not have yet.
    """
    if segment is not None:
        raise ShopError(f"there is no segment {segment!r}; the shop has none yet, so ask without one")
    churn = answers(shop, "churn", as_of, live=live)
    churn["churn_band"] = [answer.get("band") for answer in churn["answer"]]
    churn = churn[churn["churn_band"].isin(list(bands))]
    churn["value_at_risk"] = _value_at_risk(shop, churn, as_of, live)
    if min_value is not None:
        churn = churn[churn["value_at_risk"] >= min_value]
    churn = churn.sort_values(["value", "customer_key"], ascending=[False, True], kind="stable")[:n]
    keys = churn["customer_key"]
    visits = _visits(shop, churn)
    contactable = consent.channels(shop, keys)
    frame = pd.DataFrame(
        {
            **churn[["customer_key", "as_of", "churn_band", "value_at_risk"]],
            "churn_probability": churn["value"],
            "last_purchase_at": keys.map(visits["last_purchase_at"]),
            "expected_next_purchase_at": keys.map(_awaited(shop, as_of, live)),
            "days_overdue": keys.map(visits["days_overdue"]),
            "open_complaints": keys.map(interactions.open_complaints(shop)).fillna(0),
            "reasons": [answer.get("reasons", []) for answer in churn["answer"]],
            "suggested_offer_id": keys.map(_suggested(shop, contactable, as_of, live)),
            "contactable": keys.map(contactable),
        }
    )
    return named(shop, frame, AT_RISK)


def _value_at_risk(shop: Shop, churn: pd.DataFrame, as_of: datetime | None, live: bool) -> pd.Series:
    """What each is expected to spend, times the chance that they do not come: to the smallest coin."""
    value = answers(shop, "value", as_of, live=live).set_index("customer_key")["value"]
    return (churn["customer_key"].map(value) * churn["value"]).round(money.EXPONENTS[shop.currency])


def _awaited(shop: Shop, as_of: datetime | None, live: bool) -> dict[int, datetime]:
    """By when each customer is as likely as not to have come again, in the words of the timing run."""
    timing = answers(shop, "timing", as_of, live=live)
    now = as_of or clock.now(shop)
    expected: dict[tuple[datetime, int], datetime] = {}
    awaited = {}
    for key, moment, answer in zip(timing["customer_key"], timing["as_of"], timing["answer"], strict=True):
        wait = (answer.get("days") or {}).get("p50")
        if wait is not None:
            place = moment, int(wait)
            if place not in expected:
                expected[place] = clock.expected_at(moment, int(wait), shop.zone, now=now)
            awaited[key] = expected[place]
    return awaited


def _suggested(shop: Shop, contactable: dict[int, list[str]], as_of: datetime | None, live: bool) -> dict[int, str]:
    """The best of the offers that a model found for each customer which may still be made to them."""
    said = answers(shop, "offers", as_of, live=live)
    said = said[said["customer_key"].isin(contactable.keys())]
    book = offers.book(shop, at=as_of or clock.now(shop)).offers
    channels = dict(zip(book["offer_key"], map(set, book["channels"]), strict=True))
    guarded = set(book.loc[book["sensitive"], "offer_key"])
    sees = consent.allowed(shop, said["customer_key"], "profiling_sensitive") if guarded else set()
    redemptions = interactions.redemptions(shop, as_of)
    redeemed = set(zip(redemptions["customer_key"], redemptions["offer_key"], strict=True))
    best = {}
    for key, answer in zip(said["customer_key"], said["answer"], strict=True):
        reach = {*contactable[key], *OPEN_CHANNELS}
        for offer, *_ in answer.get("items") or []:
            running = offer in channels and (not channels[offer] or channels[offer] & reach)
            if running and (offer not in guarded or key in sees) and (key, offer) not in redeemed:
                best[key] = offer
                break
    names = offers.ids_of(shop, set(best.values()))
    return {key: names[offer] for key, offer in best.items()}


def _visits(shop: Shop, churn: pd.DataFrame) -> pd.DataFrame:
    """Last purchase before the moment of each row, and by how many days the usual gap is exceeded.

    From the mirror; of whom something was told since the night, from the ledger itself.
    """
    night = churn.attrs.get("as_of")
    files = sorted((shop.home / "ledger").glob("month=*/part.parquet"))
    visits = _mirrored(shop, night, tuple((str(file), file.stat().st_mtime_ns) for file in files))
    told = churn.loc[churn["as_of"] != night, ["customer_key", "as_of"]]
    if told.empty:
        return visits
    return pd.concat([visits[~visits.index.isin(told["customer_key"])], _told(shop, told)])


@lru_cache(maxsize=2)
def _mirrored(shop: Shop, night: datetime | None, files: tuple[tuple[str, int], ...]) -> pd.DataFrame:
    """Of everybody in these files as of a night; they are read again only when they are new."""
    if night is None or not files:
        return pd.DataFrame({"last_purchase_at": pd.to_datetime([], utc=True), "days_overdue": []})
    listed = ", ".join(literal(file) for file, _ in files)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute(f"create view lines as from read_parquet([{listed}])")
        connection.execute(f"create view moments as select distinct customer_key, {micros(night)} as at_us from lines")
        return connection.execute(_overdue(shop)).df().set_index("customer_key")


def _told(shop: Shop, told: pd.DataFrame) -> pd.DataFrame:
    """Of these customers, each as of their own moment."""
    moments = {"customer_key": told["customer_key"], "at_us": told["as_of"].map(micros)}
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("lines", mirror.lines_of(shop, told["customer_key"].tolist()))
        connection.register("moments", pa.table({name: pa.array(column) for name, column in moments.items()}))
        return connection.execute(_overdue(shop)).df().set_index("customer_key")


def _overdue(shop: Shop) -> str:
    """Over `lines` in the mirror's columns, as of `moments` (customer_key, at_us)."""
    zone = literal(shop.timezone)
    return f"""
        with days as (
          select l.customer_key, cast(timezone({zone}, l.sold_at) as date) as day, max(l.sold_at) as last_at,
                 any_value(cast(timezone({zone}, make_timestamptz(m.at_us)) as date)) as today
          from lines l join moments m using (customer_key)
          where l.kind = 'sale' and epoch_us(l.sold_at) < m.at_us and epoch_us(l.known_at) < m.at_us
            and (l.superseded_at is null or epoch_us(l.superseded_at) >= m.at_us)
          group by all),
        gaps as (select *, day - lag(day) over (partition by customer_key order by day) as gap from days)
        select customer_key, max(last_at) as last_purchase_at,
               case when count(gap) > 0 then greatest(0, any_value(today) - max(day) - median(gap)) end as days_overdue
        from gaps group by customer_key"""
