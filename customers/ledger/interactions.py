"""Interactions: what was sent, opened, clicked, said and asked between the shop and a customer.

What was written or said in person is sealed under that customer's own key.
"""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa

from customers import database, ids, vault
from customers.instants import from_micros, micros
from customers.schema import interactions, offers, person_keys
from customers.shop import Shop

CHANNELS = ("email", "sms", "phone", "store", "web", "app", "post", "social", "device")
KINDS = (
    "sent",
    "received",
    "opened",
    "clicked",
    "visited",
    "viewed",
    "enquiry",
    "complaint",
    "call",
    "review",
    "survey",
    "redeemed",
    "unsubscribed",
)
STATUSES = ("open", "answered", "closed")
#: Nobody waits for an answer any more.
ANSWERED = ("answered", "closed")
#: The attribute that says since when, as ISO 8601 in UTC: the shop may load it; else it is when the shop was told.
ANSWERED_AT = "answered_at"
PURPOSE = "interaction"
MIRROR_MARK = "interactions"
UNANSWERED = (interactions.c.kind == "complaint") & (
    interactions.c.status.is_(None) | (interactions.c.status == "open")
)
TOLD = (
    "interaction_id",
    "source",
    "channel",
    "kind",
    "status",
    "owner",
    "campaign_id",
    "offer_id",
    "product_id",
    "rating",
    "attribution_token",
)
HAPPENED = ("customer_key", "kind", "happened_at", "campaign_id", "offer_id", "channel")


def happened(
    shop: Shop, kinds: Collection[str], *, as_of: datetime | None = None, keys: Collection[int] | None = None
) -> pd.DataFrame:
    """The interactions of these kinds that were known before a moment, or all: customer, kind, time and what about.

    With `keys`, of these customers alone.
    """
    query = sa.select(*(interactions.c[name] for name in HAPPENED)).where(interactions.c.kind.in_(list(kinds)))
    query = _before(query, as_of).order_by(interactions.c.happened_at, interactions.c.customer_key)
    queries = _of(query, keys)
    with database.reading(shop) as connection:
        rows = [row for each in queries for row in connection.execute(each).tuples()]
    return _timed(pd.DataFrame(rows, columns=list(HAPPENED)), "happened_at")


def redemptions(shop: Shop, as_of: datetime | None = None, *, keys: Collection[int] | None = None) -> pd.DataFrame:
    """Who redeemed which offer and when; of an offer id that several sources use, that of the interaction's own.

    With `keys`, of these customers alone.
    """
    columns = ["customer_key", "offer_key", "redeemed_at"]
    said = interactions.c
    query = sa.select(said.source, said.interaction_id, said.customer_key, said.offer_id, said.happened_at).where(
        said.kind == "redeemed", said.offer_id.is_not(None)
    )
    queries = _of(query, keys)
    offered = sa.select(offers.c.offer_id, offers.c.source, offers.c.offer_key)
    with database.reading(shop) as connection:
        redeemed = pd.DataFrame(
            [row for each in queries for row in connection.execute(_before(each, as_of)).tuples()],
            columns=["source", "interaction_id", "customer_key", "offer_id", "redeemed_at"],
        )
        named = redeemed["offer_id"].unique().tolist()
        if len(named) <= ids.MANY:  # of one customer a few, and a shop may have thousands
            offered = offered.where(offers.c.offer_id.in_(named))
        known = pd.DataFrame(
            connection.execute(offered).tuples().all(), columns=["offer_id", "offered_by", "offer_key"]
        )
    pairs = redeemed.merge(known, on="offer_id")
    own = pairs["source"] == pairs["offered_by"]
    alone = ~pairs.duplicated(["source", "interaction_id"], keep=False)
    frame = pairs.loc[own | alone, columns].sort_values(["redeemed_at", "customer_key", "offer_key"])
    return _timed(frame.reset_index(drop=True), "redeemed_at")


def open_complaints(shop: Shop, as_of: datetime | None = None) -> dict[int, int]:
    """How many complaints of each customer nobody has answered yet, of those known before a moment, if one is given.

    Customers without one are left out. One that was answered at that moment or later was open then; one of which
    nobody knows when it was answered was not.
    """
    said = interactions.c
    at = sa.case((said.attributes.contains(ANSWERED_AT), said.attributes))
    query = _before(sa.select(said.customer_key, UNANSWERED, at).where(said.kind == "complaint"), as_of)
    with database.reading(shop) as connection:
        rows = connection.execute(query).tuples().all()
    then = None if as_of is None else micros(as_of)
    return dict(Counter(key for key, unanswered, since in rows if _open(unanswered, answered_at(since), then)))


def _open(unanswered: bool, since: int | None, then: int | None) -> bool:
    return bool(unanswered) if then is None or since is None else since >= then


def answered_at(attributes: str | None) -> int | None:
    """Since when an interaction is answered, in microseconds; None where that is not said in ISO 8601."""
    try:
        at = datetime.fromisoformat(json.loads(attributes)[ANSWERED_AT]) if attributes else None
    except (ValueError, KeyError, TypeError):
        return None
    return None if at is None else micros(at if at.tzinfo else at.replace(tzinfo=UTC))


def unanswered(connection: sa.Connection, key: int) -> int:
    """How many complaints of one customer nobody has answered yet."""
    query = sa.select(sa.func.count()).select_from(interactions)
    return connection.execute(query.where(UNANSWERED, interactions.c.customer_key == key)).scalar_one()


def told(connection: sa.Connection, shop: Shop, key: int, count: int) -> list[dict[str, Any]]:
    """The latest interactions of a customer, the newest first; `text` and `private` are what lay sealed."""
    query = interactions.select().where(interactions.c.customer_key == key)
    query = query.order_by(interactions.c.happened_at.desc(), interactions.c.source, interactions.c.interaction_id)
    rows = list(connection.execute(query.limit(count)))
    return [_told(row, said) for row, said in zip(rows, opened(connection, shop, key, rows), strict=True)]


def opened(connection: sa.Connection, shop: Shop, key: int, rows: Sequence[sa.Row]) -> list[dict[str, Any]]:
    """What was said in each of a customer's interactions: its sealed fields, `text` and others."""
    query = sa.select(person_keys.c.wrapped).where(person_keys.c.customer_key == key)
    wrapped = connection.execute(query).scalar()
    safe = vault.of(shop)
    return [safe.open(key, wrapped, row.sealed_text, PURPOSE) if wrapped and row.sealed_text else {} for row in rows]


def _told(row: sa.Row, said: dict[str, Any]) -> dict[str, Any]:
    plain = {name: getattr(row, name) for name in TOLD}
    return {
        **plain,
        "happened_at": from_micros(row.happened_at),
        "text": said.pop("text", None),
        "private": said,
        "attributes": json.loads(row.attributes or "{}"),
    }


def _before(query: sa.Select, as_of: datetime | None) -> sa.Select:
    if as_of is None:
        return query
    return query.where(interactions.c.known_at < micros(as_of), interactions.c.happened_at < micros(as_of))


def _of(query: sa.Select, keys: Collection[int] | None) -> list[sa.Select]:
    """The query for everybody, or for these customers, so many at a time."""
    if keys is None:
        return [query]
    return [query.where(interactions.c.customer_key.in_(some)) for some in database.chunks(keys, 5_000)]


def _timed(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    times = pd.to_datetime(frame[name].astype("int64"), unit="us", utc=True).astype("datetime64[us, UTC]")
    keys = {column: "int64" for column in frame.columns if column.endswith("_key")}
    return frame.assign(**{name: times}).astype(keys)
