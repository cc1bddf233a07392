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

from customers.database import engine, ids
from customers.database.schema import interactions, offers, person_keys
from customers.security import encryption
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros, to_micros

CHANNELS = ("email", "sms", "phone", "store", "web", "app", "post", "social", "device")
INTERACTION_KINDS = (
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
ANSWERED_STATUSES = ("answered", "closed")
#: The attribute that says since when, as ISO 8601 in UTC: the shop may load it; else it is when the shop was told.
ANSWERED_AT_ATTRIBUTE = "answered_at"
ENCRYPTION_PURPOSE = "interaction"
IS_UNANSWERED = (interactions.c.kind == "complaint") & (
    interactions.c.status.is_(None) | (interactions.c.status == "open")
)
VIEW_COLUMNS = (
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
FRAME_COLUMNS = ("customer_key", "kind", "happened_at", "campaign_id", "offer_id", "channel")


def load_by_kind(
    shop: Shop, kinds: Collection[str], *, as_of: datetime | None = None, keys: Collection[int] | None = None
) -> pd.DataFrame:
    """The interactions of these kinds that were known before a moment, or all: customer, kind, time and what about.

    With `keys`, of these customers alone.
    """
    query = sa.select(*(interactions.c[name] for name in FRAME_COLUMNS)).where(interactions.c.kind.in_(list(kinds)))
    query = _filter_before(query, as_of).order_by(interactions.c.happened_at, interactions.c.customer_key)
    queries = _filter_customers(query, keys)
    with engine.read_transaction(shop) as connection:
        rows = [row for chunk_query in queries for row in connection.execute(chunk_query).tuples()]
    return _with_times(pd.DataFrame(rows, columns=list(FRAME_COLUMNS)), "happened_at")


def load_redemptions(shop: Shop, as_of: datetime | None = None, *, keys: Collection[int] | None = None) -> pd.DataFrame:
    """Who redeemed which offer and when; of an offer id that several sources use, that of the interaction's own.

    With `keys`, of these customers alone.
    """
    columns = ["customer_key", "offer_key", "redeemed_at"]
    fields = interactions.c
    query = sa.select(
        fields.source, fields.interaction_id, fields.customer_key, fields.offer_id, fields.happened_at
    ).where(fields.kind == "redeemed", fields.offer_id.is_not(None))
    queries = _filter_customers(query, keys)
    offer_query = sa.select(offers.c.offer_id, offers.c.source, offers.c.offer_key)
    with engine.read_transaction(shop) as connection:
        redeemed = pd.DataFrame(
            [row for chunk_query in queries for row in connection.execute(_filter_before(chunk_query, as_of)).tuples()],
            columns=["source", "interaction_id", "customer_key", "offer_id", "redeemed_at"],
        )
        offer_ids = redeemed["offer_id"].unique().tolist()
        if len(offer_ids) <= ids.FULL_SCAN_ABOVE:  # of one customer a few, and a shop may have thousands
            offer_query = offer_query.where(offers.c.offer_id.in_(offer_ids))
        offer_keys = pd.DataFrame(
            connection.execute(offer_query).tuples().all(), columns=["offer_id", "offered_by", "offer_key"]
        )
    pairs = redeemed.merge(offer_keys, on="offer_id")
    is_own_source = pairs["source"] == pairs["offered_by"]
    is_unambiguous = ~pairs.duplicated(["source", "interaction_id"], keep=False)
    frame = pairs.loc[is_own_source | is_unambiguous, columns].sort_values(["redeemed_at", "customer_key", "offer_key"])
    return _with_times(frame.reset_index(drop=True), "redeemed_at")


def count_open_complaints(shop: Shop, as_of: datetime | None = None) -> dict[int, int]:
    """How many complaints of each customer nobody has answered yet, of those known before a moment, if one is given.

    Customers without one are left out. One that was answered at that moment or later was open then; one of which
    nobody knows when it was answered was not.
    """
    fields = interactions.c
    answer_attributes = sa.case((fields.attributes.contains(ANSWERED_AT_ATTRIBUTE), fields.attributes))
    query = _filter_before(
        sa.select(fields.customer_key, IS_UNANSWERED, answer_attributes).where(fields.kind == "complaint"), as_of
    )
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(query).tuples().all()
    as_of_micros = None if as_of is None else to_micros(as_of)
    return dict(
        Counter(
            key
            for key, is_unanswered, answer_text in rows
            if _is_open(is_unanswered, parse_answered_at(answer_text), as_of_micros)
        )
    )


def _is_open(is_unanswered: bool, answered_micros: int | None, as_of_micros: int | None) -> bool:
    return bool(is_unanswered) if as_of_micros is None or answered_micros is None else answered_micros >= as_of_micros


def parse_answered_at(attributes: str | None) -> int | None:
    """Since when an interaction is answered, in microseconds; None where that is not said in ISO 8601."""
    try:
        answered = datetime.fromisoformat(json.loads(attributes)[ANSWERED_AT_ATTRIBUTE]) if attributes else None
    except (ValueError, KeyError, TypeError):
        return None
    return None if answered is None else to_micros(answered if answered.tzinfo else answered.replace(tzinfo=UTC))


def count_unanswered(connection: sa.Connection, key: int) -> int:
    """How many complaints of one customer nobody has answered yet."""
    query = sa.select(sa.func.count()).select_from(interactions)
    return connection.execute(query.where(IS_UNANSWERED, interactions.c.customer_key == key)).scalar_one()


def latest_interactions(connection: sa.Connection, shop: Shop, key: int, limit: int) -> list[dict[str, Any]]:
    """The latest interactions of a customer, the newest first; `text` and `private` are what lay sealed."""
    query = interactions.select().where(interactions.c.customer_key == key)
    query = query.order_by(interactions.c.happened_at.desc(), interactions.c.source, interactions.c.interaction_id)
    rows = list(connection.execute(query.limit(limit)))
    return [
        _view_entry(row, texts) for row, texts in zip(rows, decrypt_texts(connection, shop, key, rows), strict=True)
    ]


def decrypt_texts(connection: sa.Connection, shop: Shop, key: int, rows: Sequence[sa.Row]) -> list[dict[str, Any]]:
    """What was said in each of a customer's interactions: its sealed fields, `text` and others."""
    query = sa.select(person_keys.c.wrapped).where(person_keys.c.customer_key == key)
    wrapped = connection.execute(query).scalar()
    cipher = encryption.get_cipher(shop)
    return [
        cipher.decrypt(key, wrapped, row.sealed_text, ENCRYPTION_PURPOSE) if wrapped and row.sealed_text else {}
        for row in rows
    ]


def _view_entry(row: sa.Row, texts: dict[str, Any]) -> dict[str, Any]:
    columns = {name: getattr(row, name) for name in VIEW_COLUMNS}
    return {
        **columns,
        "happened_at": from_micros(row.happened_at),
        "text": texts.pop("text", None),
        "private": texts,
        "attributes": json.loads(row.attributes or "{}"),
    }


def _filter_before(query: sa.Select, as_of: datetime | None) -> sa.Select:
    if as_of is None:
        return query
    return query.where(interactions.c.known_at < to_micros(as_of), interactions.c.happened_at < to_micros(as_of))


def _filter_customers(query: sa.Select, keys: Collection[int] | None) -> list[sa.Select]:
    """The query for everybody, or for these customers, so many at a time."""
    if keys is None:
        return [query]
    return [query.where(interactions.c.customer_key.in_(chunk)) for chunk in engine.chunks(keys, 5_000)]


def _with_times(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    times = pd.to_datetime(frame[name].astype("int64"), unit="us", utc=True).astype("datetime64[us, UTC]")
    keys = {column: "int64" for column in frame.columns if column.endswith("_key")}
    return frame.assign(**{name: times}).astype(keys)
