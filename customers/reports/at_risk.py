"""Risk: who is drifting away, the likeliest first, since when they are late, and what may be done about it."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import duckdb
import pandas as pd
import pyarrow as pa

from customers import catalogue, clock, consent, interactions, mirror, money, offers, persuasion, reasons, validity
from customers.frames import answers, named
from customers.instants import micros
from customers.orderings import ORDERS
from customers.shop import Shop, ShopError
from customers.sources.files import literal

AT_RISK = {
    "customer_id": "object",
    "as_of": "datetime64[us, UTC]",
    "churn_probability": "float64",
    "churn_band": "object",
    "value_at_risk": "float64",
    "saved_value": "float64",
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


def at_risk(
    shop: Shop,
    *,
    as_of: datetime | None = None,
    n: int | None = None,
    min_value: float | None = None,
    segment: str | None = None,
    bands: Sequence[str] = BANDS,
    order: str = "probability",
    live: bool = False,
) -> pd.DataFrame:
    """The customers who are drifting away, the likeliest first, or in another of ORDERS; `n` of them, or all.

    `min_value` leaves out whom less than that is at risk with. `live` looks at what was told since the last
    night too, and at sales that the mirror does not have yet.
    """
    listed = ranked(shop, as_of=as_of, segment=segment, order=order, live=live)
    listed = listed[listed["churn_band"].isin(list(bands))]
    if min_value is not None:
        listed = listed[listed["value_at_risk"] >= min_value]
    return told(shop, listed[:n], as_of=as_of, live=live)


def ranked(
    shop: Shop,
    *,
    as_of: datetime | None = None,
    segment: str | None = None,
    order: str = "probability",
    live: bool = False,
) -> pd.DataFrame:
    """Everybody in the order of a list, with no more than what orders it: see `told` for the rest.

    Columns customer_key, as_of, churn_probability, churn_band, value_at_risk, saved_value. Who has no number to be
    ordered by comes last, likeliest to leave first.
    """
    if segment is not None:
        raise ShopError(f"there is no segment {segment!r}; the shop has none yet, so ask without one")
    if order not in ORDERS:
        raise ShopError(f"a list cannot be ordered by {order!r}; take one of {', '.join(ORDERS)}")
    churn = answers(shop, "churn", as_of, live=live)
    listed = churn[["customer_key", "as_of"]].assign(
        churn_probability=churn["value"], churn_band=[answer.get("band") for answer in churn["answer"]]
    )
    value = answers(shop, "value", as_of, live=live).set_index("customer_key")["value"]
    expected = listed["customer_key"].map(value).astype("float64")
    exponent = money.EXPONENTS[shop.currency]
    listed["value_at_risk"] = (expected * listed["churn_probability"]).round(exponent)
    keys, quiet = listed["customer_key"], listed["churn_probability"]
    saved = persuasion.saved_value(shop, keys, expected, quiet, as_of=as_of, live=live)
    listed["saved_value"] = saved.round(exponent)
    by = list(dict.fromkeys([ORDERS[order], "churn_probability"]))
    listed = listed.sort_values([*by, "customer_key"], ascending=[*[False] * len(by), True], kind="stable")
    listed.attrs = churn.attrs
    return listed.reset_index(drop=True)


def told(shop: Shop, listed: pd.DataFrame, *, as_of: datetime | None = None, live: bool = False) -> pd.DataFrame:
    """Everything that a list shows of these rows of `ranked`, in their order, as AT_RISK."""
    keys = listed["customer_key"]
    visits = _visits(shop, listed)
    said = answers(shop, "churn", as_of, live=live, keys=keys).set_index("customer_key")["answer"]
    guarded = catalogue.sensitive(shop)[1]
    why = said.map(lambda answer: reasons.discreet(answer, guarded).get("reasons", []))
    frame = listed.assign(
        last_purchase_at=keys.map(visits["last_purchase_at"]),
        expected_next_purchase_at=keys.map(_awaited(shop, keys, as_of, live)),
        days_overdue=keys.map(visits["days_overdue"]),
        open_complaints=keys.map(interactions.open_complaints(shop, as_of)).fillna(0),
        reasons=keys.map(why),
        suggested_offer_id=keys.map(_suggested(shop, keys, as_of, live)),
        contactable=keys.map(consent.channels(shop, keys)),
    )
    return named(shop, frame, AT_RISK)


def _awaited(shop: Shop, keys: pd.Series, as_of: datetime | None, live: bool) -> dict[int, datetime]:
    """By when each customer is as likely as not to have come again, in the words of the timing run."""
    timing = answers(shop, "timing", as_of, live=live, keys=keys)
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


def _suggested(shop: Shop, keys: pd.Series, as_of: datetime | None, live: bool) -> dict[int, str]:
    """The best of the offers that a model found for each customer which may still be made to them."""
    said = answers(shop, "offers", as_of, live=live, keys=keys)
    said = said[said["customer_key"].isin(keys)]
    found = pd.DataFrame(
        [
            (key, offer)
            for key, answer in zip(said["customer_key"], said["answer"], strict=True)
            for offer, *_ in answer.get("items") or []
        ],
        columns=["customer_key", "offer_key"],
    )
    best = found[validity.may_be_made(shop, found, as_of=as_of)].drop_duplicates("customer_key")
    return dict(zip(best["customer_key"], best["offer_key"].map(offers.ids_of(shop, best["offer_key"])), strict=True))


def _visits(shop: Shop, churn: pd.DataFrame) -> pd.DataFrame:
    """Last purchase before the moment of each row, and by how many days the usual gap is exceeded.

    Of whom has not allowed it, what they bought of sensitive products is not looked at.
    """
    guarded = frozenset(catalogue.sensitive(shop)[0])
    visits = _seen(shop, churn, guarded)
    if not guarded:
        return visits
    sees = list(consent.allowed(shop, churn["customer_key"], "profiling_sensitive"))
    whole = _seen(shop, churn[churn["customer_key"].isin(sees)], frozenset())
    return pd.concat([visits[~visits.index.isin(sees)], whole[whole.index.isin(sees)]])


def _seen(shop: Shop, churn: pd.DataFrame, guarded: frozenset[int]) -> pd.DataFrame:
    """From the mirror; of whom something was told since the night, from the ledger itself."""
    night = churn.attrs.get("as_of")
    files = sorted((shop.home / "ledger").glob("month=*/part.parquet"))
    visits = _mirrored(shop, night, tuple((str(file), file.stat().st_mtime_ns) for file in files), guarded)
    told = churn.loc[churn["as_of"] != night, ["customer_key", "as_of"]]
    if told.empty:
        return visits
    return pd.concat([visits[~visits.index.isin(told["customer_key"])], _told(shop, told, guarded)])


@lru_cache(maxsize=4)
def _mirrored(
    shop: Shop, night: datetime | None, files: tuple[tuple[str, int], ...], guarded: frozenset[int]
) -> pd.DataFrame:
    """Of everybody in these files as of a night; they are read again only when they are new."""
    if night is None or not files:
        return pd.DataFrame({"last_purchase_at": pd.to_datetime([], utc=True), "days_overdue": []})
    listed = ", ".join(literal(file) for file, _ in files)
    with duckdb.connect() as connection:
        connection.execute(f"create view lines as from read_parquet([{listed}])")
        connection.execute(f"create view moments as select distinct customer_key, {micros(night)} as at_us from lines")
        return _overdue(shop, connection, guarded)


def _told(shop: Shop, told: pd.DataFrame, guarded: frozenset[int]) -> pd.DataFrame:
    """Of these customers, each as of their own moment."""
    moments = {"customer_key": told["customer_key"], "at_us": told["as_of"].map(micros)}
    with duckdb.connect() as connection:
        connection.register("lines", mirror.lines_of(shop, told["customer_key"].tolist()))
        connection.register("moments", pa.table({name: pa.array(column) for name, column in moments.items()}))
        return _overdue(shop, connection, guarded)


def _overdue(shop: Shop, connection: duckdb.DuckDBPyConnection, guarded: frozenset[int]) -> pd.DataFrame:
    """Over `lines` in the mirror's columns, as of `moments` (customer_key, at_us); the guarded products left out.

    A purchase day is what it is to the models: more was paid on it than given back, or a sale has no known amount.
    """
    zone = literal(shop.timezone)
    connection.execute("set timezone = 'UTC'")
    connection.register("guarded", pa.table({"product_key": pa.array(sorted(guarded), pa.int64())}))
    query = f"""
        with days as (
          select l.customer_key, cast(timezone({zone}, l.sold_at) as date) as day,
                 max(l.sold_at) filter (l.kind = 'sale') as last_at,
                 any_value(cast(timezone({zone}, make_timestamptz(m.at_us)) as date)) as today
          from lines l join moments m using (customer_key)
          where epoch_us(l.sold_at) < m.at_us and epoch_us(l.known_at) < m.at_us
            and (l.superseded_at is null or epoch_us(l.superseded_at) >= m.at_us)
            and l.product_key not in (select product_key from guarded)
          group by all
          having round(10000 * sum(case when l.kind = 'sale' then l.amount else -abs(l.amount) end)) > 0
              or bool_or(l.kind = 'sale' and l.amount is null)),
        gaps as (select *, day - lag(day) over (partition by customer_key order by day) as gap from days)
        select customer_key, max(last_at) as last_purchase_at,
               case when count(gap) > 0 then greatest(0, any_value(today) - max(day) - median(gap)) end as days_overdue
        from gaps group by customer_key"""
    return connection.execute(query).df().set_index("customer_key")
