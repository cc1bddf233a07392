"""Reads interactions between the shop and its customers: contacts, reactions, complaints, visits, redemptions.

Free text is encrypted under the customer's own key.
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
#: Statuses in which no answer is due any more.
ANSWERED_STATUSES = ("answered", "closed")
#: The attribute with the time of the answer, ISO 8601 in UTC: as loaded, else when the new status was loaded.
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
    """Interactions of these kinds that happened and were known before `as_of`; without `as_of`, all.

    With `keys`, only those of these customers. Columns customer_key (int64), kind, happened_at (datetime64[us, UTC]),
    campaign_id, offer_id, channel; sorted by happened_at and customer_key, within each batch of 5,000 `keys`.
    """
    query = sa.select(*(interactions.c[name] for name in FRAME_COLUMNS)).where(interactions.c.kind.in_(list(kinds)))
    query = _filter_before(query, as_of).order_by(interactions.c.happened_at, interactions.c.customer_key)
    queries = _filter_customers(query, keys)
    with engine.read_transaction(shop) as connection:
        rows = [row for chunk_query in queries for row in connection.execute(chunk_query).tuples()]
    return _with_times(pd.DataFrame(rows, columns=list(FRAME_COLUMNS)), "happened_at")


def load_redemptions(shop: Shop, as_of: datetime | None = None, *, keys: Collection[int] | None = None) -> pd.DataFrame:
    """Redemptions of offers that happened and were known before `as_of`; without `as_of`, all.

    With `keys`, only those of these customers. An offer id that several sources use is resolved in the interaction's
    own source. Columns customer_key, offer_key (int64) and redeemed_at (datetime64[us, UTC]), sorted by time.
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
        if len(offer_ids) <= ids.FULL_SCAN_ABOVE:  # one customer has a few offers, a shop may have thousands
            offer_query = offer_query.where(offers.c.offer_id.in_(offer_ids))
        offer_keys = pd.DataFrame(
            connection.execute(offer_query).tuples().all(), columns=["offer_id", "offer_source", "offer_key"]
        )
    pairs = redeemed.merge(offer_keys, on="offer_id")
    is_own_source = pairs["source"] == pairs["offer_source"]
    is_unambiguous = ~pairs.duplicated(["source", "interaction_id"], keep=False)
    frame = pairs.loc[is_own_source | is_unambiguous, columns].sort_values(["redeemed_at", "customer_key", "offer_key"])
    return _with_times(frame.reset_index(drop=True), "redeemed_at")


def count_open_complaints(shop: Shop, as_of: datetime | None = None) -> dict[int, int]:
    """Number of unanswered complaints per customer_key, as of `as_of` where given; customers without one are left out.

    A complaint answered at `as_of` or later counts as open; one answered at an unknown time counts as answered.
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
    """The time of the answer in an interaction's attributes (JSON), in microseconds since 1970, by default in UTC.

    None where there is none in ISO 8601.
    """
    try:
        answered = datetime.fromisoformat(json.loads(attributes)[ANSWERED_AT_ATTRIBUTE]) if attributes else None
    except (ValueError, KeyError, TypeError):
        return None
    return None if answered is None else to_micros(answered if answered.tzinfo else answered.replace(tzinfo=UTC))


def count_unanswered(connection: sa.Connection, key: int) -> int:
    """Number of unanswered complaints of one customer."""
    query = sa.select(sa.func.count()).select_from(interactions)
    return connection.execute(query.where(IS_UNANSWERED, interactions.c.customer_key == key)).scalar_one()


def latest_interactions(connection: sa.Connection, shop: Shop, key: int, limit: int) -> list[dict[str, Any]]:
    """The latest interactions of a customer, newest first; `text` and `private` are the decrypted fields."""
    query = interactions.select().where(interactions.c.customer_key == key)
    query = query.order_by(interactions.c.happened_at.desc(), interactions.c.source, interactions.c.interaction_id)
    rows = list(connection.execute(query.limit(limit)))
    return [
        _view_entry(row, texts) for row, texts in zip(rows, decrypt_texts(connection, shop, key, rows), strict=True)
    ]


def decrypt_texts(connection: sa.Connection, shop: Shop, key: int, rows: Sequence[sa.Row]) -> list[dict[str, Any]]:
    """The decrypted fields (`text` and others) of each of these interactions of one customer; empty where none."""
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
    """The query for all customers, or one query for each batch of 5,000 of these customers."""
    if keys is None:
        return [query]
    return [query.where(interactions.c.customer_key.in_(chunk)) for chunk in engine.chunks(keys, 5_000)]


def _with_times(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    times = pd.to_datetime(frame[name].astype("int64"), unit="us", utc=True).astype("datetime64[us, UTC]")
    keys = {column: "int64" for column in frame.columns if column.endswith("_key")}
    return frame.assign(**{name: times}).astype(keys)
