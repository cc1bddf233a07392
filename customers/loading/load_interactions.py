"""Logbook: how interactions are written down, one at a time or by the file, and changed when there is news of them."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from customers import checks, clock, database, enrolment, freshness, nights, transactions, vault
from customers.checks import Check
from customers.instants import from_micros, micros
from customers.interactions import ANSWERED, ANSWERED_AT, CHANNELS, KINDS, MIRROR_MARK, PURPOSE, STATUSES
from customers.kinds import Counts, Kind, Writer
from customers.orders import AHEAD
from customers.schema import interactions, person_keys
from customers.shop import Shop
from customers.sources.files import Records, quoted

WORDS = ("owner", "campaign_id", "offer_id", "product_id", "attribution_token")
PLAIN = ("happened_at", "channel", "kind", "status", *WORDS, "rating")
COLUMNS = ("interaction_id", "customer_id", *PLAIN, "text", ANSWERED_AT)
# What makes it this interaction and no other.
FACTS = ("kind", "happened_at", "customer_key", "campaign_id", "offer_id")
SHOWN = tuple(name for name in COLUMNS if name not in ("owner", "text", "attribution_token"))
UNKNOWN = "customer_id is unknown; load customers or sales first"
SLICE = 5_000


def _checks(shop: Shop) -> list[Check]:
    latest = micros(datetime.now(UTC) + AHEAD)
    return [
        checks.identifier("interaction_id"),
        checks.identifier("customer_id"),
        checks.past("happened_at", shop.timezone, latest=latest, required=True),
        checks.choice("channel", CHANNELS),
        checks.choice("kind", KINDS),
        checks.choice("status", STATUSES),
        *(checks.words(name) for name in WORDS),
        checks.scale("rating", 1, 5),
        checks.words("text"),
        _answered(shop, latest),
    ]


def _answered(shop: Shop, latest: int) -> Check:
    """Since when it is answered, as ISO 8601 in UTC."""
    check = checks.past(ANSWERED_AT, shop.timezone, latest=latest)
    return replace(check, value=f"strftime(make_timestamp({check.value}), '%Y-%m-%dT%H:%M:%S.%f+00:00')")


def _judge(shop: Shop, source: str, records: Records) -> None:
    """Of somebody the shop does not know nothing can be kept: there is nobody to show it to or to erase it with."""
    asked = records.connection.sql("select distinct customer_id from checked where reason is null").to_arrow_table()
    ids = asked.column(0).to_pylist()
    with database.reading(shop) as connection:
        known = enrolment.keys_of(connection, source, ids)
    if len(known) == len(ids):
        return
    strangers = [name for name in ids if name not in known]
    records.connection.register("strangers", pa.table({"id": pa.array(strangers, pa.string())}))
    records.connection.execute(
        f"update checked set reason = '{UNKNOWN}' where reason is null and customer_id in (select id from strangers)"
    )


def _keep(shop: Shop, source: str, records: Records, write: Writer) -> Counts:
    extra = [name for name in records.columns if name not in COLUMNS]
    said = [name for name in COLUMNS if name in records.columns]
    values = ", ".join([f"c.{quoted(name)}" for name in said] + [f"raw.{quoted(name)}" for name in extra])
    cursor = records.connection.execute(
        f"""select {values} from checked c
            join (select file_no, row_no{"".join(f", {checks.text(name)} as {quoted(name)}" for name in extra)}
                  from raw) raw using (file_no, row_no)
            where c.reason is null and not c.again order by c.interaction_id"""
    )
    sealed = [name for name in said if name == "text"]
    sealed += [name for name in extra if enrolment.SOUNDS_PERSONAL.search(name)]
    kept = [name for name in (*said, *extra) if name == ANSWERED_AT or (name in extra and name not in sealed)]
    desk = _Desk(shop, source, [*said, *extra], sealed, kept)
    counts = Counts()
    while rows := cursor.fetchmany(SLICE):
        with write() as connection:
            counts += desk.keep(connection, [dict(zip(desk.columns, row, strict=True)) for row in rows])
            if records.touched is not None:
                freshness.fall_behind(connection, desk.touched)
                records.touched |= desk.touched
    return counts


class _Desk:
    """Takes interactions in a slice at a time. A column that the file does not have stays what it was."""

    def __init__(self, shop: Shop, source: str, columns: list[str], sealed: list[str], extra: list[str]) -> None:
        self.shop, self.safe, self.source = shop, vault.of(shop), source
        self.columns, self.sealed, self.extra = columns, sealed, extra
        self.plain = [name for name in PLAIN if name in columns]
        self.touched: set[int] = set()

    def keep(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> Counts:
        """Keep a slice in one transaction; what was known before keeps the time at which it was.

        Unless it is another fact now: the old row is replaced, and no earlier moment may see what was not said then.
        """
        keys = enrolment.keys_of(connection, self.source, list({row["customer_id"] for row in rows}))
        before = self._before(connection, [row["interaction_id"] for row in rows])
        # Somebody who was erased since this load began is as unknown as before it.
        after = {row["interaction_id"]: self._merged(row, keys, before) for row in rows if row["customer_id"] in keys}
        changed = {name: now for name, now in after.items() if now != before.get(name)}
        self._write(connection, changed, before)
        self.touched = {now["customer_key"] for now in changed.values()}
        self.touched |= {before[name]["customer_key"] for name in changed if name in before}
        inserted = sum(name not in before for name in changed)
        return Counts(inserted=inserted, updated=len(changed) - inserted, unchanged=len(rows) - len(changed))

    def _before(self, connection: sa.Connection, names: list[str]) -> dict[str, dict[str, Any]]:
        query = sa.select(interactions, person_keys.c.wrapped).outerjoin(
            person_keys, person_keys.c.customer_key == interactions.c.customer_key
        )
        query = query.where(interactions.c.source == self.source, interactions.c.interaction_id.in_(names))
        return {row["interaction_id"]: self._opened(row) for row in connection.execute(query).mappings()}

    def _opened(self, row: sa.RowMapping) -> dict[str, Any]:
        key, wrapped, sealed = row["customer_key"], row["wrapped"], row["sealed_text"]
        said = self.safe.open(key, wrapped, sealed, PURPOSE) if wrapped and sealed else {}
        plain = {name: row[name] for name in PLAIN}
        return {**plain, "customer_key": key, "said": said, "attributes": json.loads(row["attributes"] or "{}")}

    def _merged(self, row: dict[str, Any], keys: dict[str, int], before: dict[str, dict[str, Any]]) -> dict[str, Any]:
        was = before.get(row["interaction_id"]) or {**dict.fromkeys(PLAIN), "said": {}, "attributes": {}}
        said = {**was["said"], **{name: row[name] for name in self.sealed}}
        extra = {**was["attributes"], **{name: row[name] for name in self.extra}}
        return {
            **{name: was[name] for name in PLAIN},
            **{name: row[name] for name in self.plain},
            "customer_key": keys[row["customer_id"]],
            "said": {name: value for name, value in said.items() if value is not None},
            "attributes": {name: value for name, value in extra.items() if value is not None},
        }

    def _write(self, connection: sa.Connection, changed: dict[str, dict[str, Any]], before: dict[str, Any]) -> None:
        if not changed:
            return
        wrapped = self._wrapped(connection, {now["customer_key"] for now in changed.values() if now["said"]})
        arrived, looked = micros(clock.arrival(self.shop)), nights.last_looked_micros(connection)
        heard = {
            name: arrived if looked and now["happened_at"] < looked else now["happened_at"]
            for name, now in changed.items()
        }
        rows = {name: self._row(self._dated(now, before.get(name), arrived), wrapped) for name, now in changed.items()}
        known_at = {
            name: heard[name]
            for name, row in rows.items()
            if name not in before or any(row[fact] != before[name][fact] for fact in FACTS)
        }
        fresh = ((self.source, name, known_at[name], *row.values()) for name, row in rows.items() if name not in before)
        names = ["source", "interaction_id", "known_at", *next(iter(rows.values()))]
        database.insert_many(connection, interactions, names, fresh)
        for name in rows.keys() & before.keys():
            this_one = (interactions.c.source == self.source) & (interactions.c.interaction_id == name)
            again = {"known_at": known_at[name]} if name in known_at else {}
            connection.execute(interactions.update().where(this_one).values(rows[name] | again))
        transactions.mark(connection, {MIRROR_MARK})

    def _dated(self, now: dict[str, Any], was: dict[str, Any] | None, arrived: int) -> dict[str, Any]:
        """The same with since when it is answered: an earlier moment must still see who was waiting then.

        That is when the shop was told, and not known of what was answered when it was first told of it.
        """
        said, answered = now["attributes"], now["status"] in ANSWERED
        if ANSWERED_AT in self.extra or answered == (ANSWERED_AT in said):
            return now
        if not answered:
            return {**now, "attributes": {name: value for name, value in said.items() if name != ANSWERED_AT}}
        if was is None or was["status"] in ANSWERED:
            return now
        since = from_micros(max(arrived, now["happened_at"]))
        return {**now, "attributes": {**said, ANSWERED_AT: since.isoformat()}}

    def _row(self, now: dict[str, Any], wrapped: dict[int, bytes]) -> dict[str, Any]:
        key, said, extra = now["customer_key"], now["said"], now["attributes"]
        return {
            **{name: now[name] for name in PLAIN},
            "customer_key": key,
            "sealed_text": self.safe.seal(key, wrapped[key], said, PURPOSE) if said else None,
            "attributes": json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else None,
        }

    def _wrapped(self, connection: sa.Connection, keys: set[int]) -> dict[int, bytes]:
        """The wrapped key of each of these people; whoever has none gets one."""
        query = sa.select(person_keys.c.customer_key, person_keys.c.wrapped)
        kept = dict(connection.execute(query.where(person_keys.c.customer_key.in_(list(keys)))).tuples().all())
        fresh = {key: self.safe.new_key(key) for key in sorted(keys - kept.keys())}
        rows = ((key, wrapping, self.safe.name) for key, wrapping in fresh.items())
        database.insert_many(connection, person_keys, ["customer_key", "wrapped", "wrapped_by"], rows)
        return kept | fresh


KIND = Kind(
    name="interactions",
    required=("interaction_id", "customer_id", "happened_at"),
    columns=COLUMNS,
    key=("interaction_id",),
    shown=SHOWN,
    checks=_checks,
    keep=_keep,
    judge=_judge,
    partial=True,
)
