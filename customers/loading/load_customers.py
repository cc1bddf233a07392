"""Enrolment: how somebody becomes a customer of the shop, and how what is known of them is kept up to date."""

import json
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from tqdm import tqdm

from customers import checks, database, tombstones, transactions, vault
from customers.checks import Check
from customers.instants import micros
from customers.kinds import Counts, Kind, Writer
from customers.schema import attributes, customers, erasures, identities, lookups, person_keys, personal
from customers.shop import Shop
from customers.sources.files import Records, quoted

PERSONAL = (
    "given_name",
    "family_name",
    "email",
    "phone",
    "birth_date",
    "gender",
    "address",
    "city",
    "postcode",
    "country",
    "language",
    "preferences",
)
OPEN = ("joined_at", "stage", "referred_by")
COLUMNS = ("customer_id", *PERSONAL, *OPEN)
# A column of the shop's own that speaks of a person is sealed like those that we know.
SOUNDS_PERSONAL = re.compile(r"name|mail|phone|mobile|tel$|address|street|birth|passport|tax_id|ssn|iban|notes?$")
SLICE = 5_000
# What everybody allows is a row a customer in the mirror: a new customer makes it stale, like a new consent.
MIRROR_MARK = "consents"
# Keys rise by random steps: in the order of enrolment, and not to be guessed from one another.
STEP = 1 << 20


def _checks(shop: Shop) -> list[Check]:
    own = {"birth_date": checks.day("birth_date"), "preferences": checks.json_object("preferences")}
    return [
        checks.identifier("customer_id"),
        *(own.get(name) or checks.words(name) for name in PERSONAL),
        checks.instant("joined_at", shop.timezone),
        checks.choice("stage", ("prospect", "customer")),
        checks.words("referred_by"),
    ]


def enrol(
    shop: Shop, write: Writer, source: str, customer_ids: Sequence[str], stage: str = "customer"
) -> dict[str, int]:
    """The key of each of these ids of a source; whoever is not known yet becomes a customer. The erased get none."""
    with write() as connection:
        known = keys_of(connection, source, customer_ids)
        unknown = [customer_id for customer_id in customer_ids if customer_id not in known]
        gone = tombstones.of(connection, shop, source, unknown)
        welcome = [customer_id for customer_id in unknown if customer_id not in gone]
        return known | _admit(connection, source, dict.fromkeys(welcome, (stage, None, None)))


def keys_of(connection: sa.Connection, source: str, customer_ids: Sequence[str]) -> dict[str, int]:
    """The key of each of these ids of a source that is known."""
    query = sa.select(identities.c.customer_id, identities.c.customer_key).where(identities.c.source == source)
    if len(customer_ids) > 2 * SLICE:
        wanted = set(customer_ids)
        return {name: key for name, key in connection.execute(query).tuples() if name in wanted}
    found: dict[str, int] = {}
    for chunk in database.chunks(customer_ids, SLICE):
        found.update(connection.execute(query.where(identities.c.customer_id.in_(chunk))).tuples().all())
    return found


def _admit(
    connection: sa.Connection, source: str, newcomers: dict[str, tuple[str, int | None, str | None]]
) -> dict[str, int]:
    """Customers and their ids, with (stage, joined_at, referred_by) of each."""
    if not newcomers:
        return {}
    # The key of an erased customer is never given again.
    highest = [sa.select(sa.func.max(table.c.customer_key)) for table in (customers, erasures)]
    last = max(connection.execute(query).scalar() or 0 for query in highest)
    steps = np.frombuffer(secrets.token_bytes(4 * len(newcomers)), np.uint32).astype(np.int64) % STEP + 1
    keys = dict(zip(newcomers, (last + np.cumsum(steps)).tolist(), strict=True))
    made_at = micros(datetime.now(UTC))
    columns = ["customer_key", "stage", "joined_at", "referred_by", "made_at"]
    rows = ((keys[name], *open_fields, made_at) for name, open_fields in newcomers.items())
    database.insert_many(connection, customers, columns, rows)
    named = ((name, source, key) for name, key in keys.items())
    database.insert_many(connection, identities, ["customer_id", "source", "customer_key"], named)
    transactions.mark(connection, {MIRROR_MARK})
    return keys


def _keep(shop: Shop, source: str, records: Records, write: Writer) -> Counts:
    extra = [name for name in records.columns if name not in COLUMNS]
    said = [name for name in COLUMNS if name in records.columns]
    sealed = [name for name in said if name in PERSONAL] + [name for name in extra if SOUNDS_PERSONAL.search(name)]
    plain = [name for name in extra if name not in sealed]
    values = ", ".join(f"c.{quoted(name)}" for name in said)
    others = "".join(f", {checks.text(name)}" for name in extra)
    total = records.count("checked", "reason is null and not again")
    # By id, not by row: keys rise with enrolment, and the same customers in another order get the same order.
    cursor = records.connection.execute(
        f"""select {values}{others} from checked c
            join (select * exclude ({", ".join(quoted(name) for name in COLUMNS)}) from raw) raw
              using (file_no, row_no)
            where c.reason is null and not c.again order by c.customer_id"""
    )
    counts = Counts()
    desk = _Desk(shop, source, [*said, *extra], sealed, plain)
    with tqdm(total=total, unit=" customers", disable=None, leave=False) as bar:
        while rows := cursor.fetchmany(SLICE):
            with write() as connection:
                counts += desk.keep(connection, rows, records.touched)
            bar.update(len(rows))
    return counts


class _Desk:
    """Takes customers in a slice at a time: a column that the file has is what holds now, also where it is empty."""

    def __init__(self, shop: Shop, source: str, columns: list[str], sealed: list[str], plain: list[str]) -> None:
        self.shop, self.safe, self.source = shop, vault.of(shop), source
        self.columns, self.sealed, self.plain = columns, sealed, plain

    def keep(self, connection: sa.Connection, rows: Sequence[tuple], touched: set[int] | None = None) -> Counts:
        """Keep a slice in one transaction."""
        people = {row[0]: dict(zip(self.columns, row, strict=True)) for row in rows}
        known = keys_of(connection, self.source, list(people))
        # Turned away before, unless they were erased since this load began.
        gone = tombstones.of(connection, self.shop, self.source, [name for name in people if name not in known])
        people = {name: person for name, person in people.items() if name not in gone}
        newcomers = {
            name: (person.get("stage") or "prospect", person.get("joined_at"), person.get("referred_by"))
            for name, person in people.items()
            if name not in known
        }
        keys = known | _admit(connection, self.source, newcomers)
        by_key = {keys[name]: person for name, person in people.items()}
        changed = self._open_fields(connection, {known[name]: people[name] for name in known})
        changed |= self._personal(connection, by_key)
        changed |= self._attributes(connection, by_key)
        updated = len(changed - {keys[name] for name in newcomers})
        if touched is not None:
            touched |= changed | {keys[name] for name in newcomers}
        return Counts(inserted=len(newcomers), updated=updated, unchanged=len(known) - updated + len(gone))

    def _open_fields(self, connection: sa.Connection, people: dict[int, dict[str, Any]]) -> set[int]:
        said = [name for name in OPEN if name in self.columns]
        changed = set()
        for row in _of(connection, customers, people):
            now = {name: people[row.customer_key][name] for name in said}
            # A stage that is not said stays what it was; a customer has bought and is no prospect again.
            if now.get("stage", "") is None or row.stage == "customer":
                now.pop("stage", None)
            if any(getattr(row, name) != value for name, value in now.items()):
                changed.add(row.customer_key)
                connection.execute(customers.update().where(customers.c.customer_key == row.customer_key).values(now))
        return changed

    def _personal(self, connection: sa.Connection, people: dict[int, dict[str, Any]]) -> set[int]:
        if not self.sealed:
            return set()
        wrapped = {row.customer_key: row.wrapped for row in _of(connection, person_keys, people)}
        before = {
            row.customer_key: self.safe.open(row.customer_key, wrapped[row.customer_key], row.sealed)
            for row in _of(connection, personal, people)
        }
        after = {key: self._merged(before.get(key, {}), person) for key, person in people.items()}
        changed = {key for key, fields in after.items() if fields != before.get(key, {})}
        fresh = {key: self.safe.new_key(key) for key in sorted(changed) if key not in wrapped}
        self._write_personal(connection, {key: after[key] for key in sorted(changed)}, wrapped | fresh, fresh)
        return changed

    def _merged(self, before: dict[str, Any], person: dict[str, Any]) -> dict[str, Any]:
        said = {name: person[name] for name in self.sealed}
        if said.get("preferences"):
            said["preferences"] = json.loads(said["preferences"])
        return {name: value for name, value in {**before, **said}.items() if value is not None}

    def _write_personal(
        self,
        connection: sa.Connection,
        people: dict[int, dict[str, Any]],
        wrapped: dict[int, bytes],
        fresh: dict[int, bytes],
    ) -> None:
        kept = ((key, wrapping, self.safe.name) for key, wrapping in fresh.items())
        database.insert_many(connection, person_keys, ["customer_key", "wrapped", "wrapped_by"], kept)
        _forget(connection, personal, people)
        _forget(connection, lookups, people)
        changed_at = micros(datetime.now(UTC))
        sealed = ((key, self.safe.seal(key, wrapped[key], fields), changed_at) for key, fields in people.items())
        database.insert_many(connection, personal, ["customer_key", "sealed", "changed_at"], sealed)
        tokens = (
            (token, key, kind) for key, fields in people.items() for token, kind in self.safe.tokens(fields).items()
        )
        database.insert_many(connection, lookups, ["token", "customer_key", "kind"], tokens)

    def _attributes(self, connection: sa.Connection, people: dict[int, dict[str, Any]]) -> set[int]:
        if not self.plain:
            return set()
        before: dict[int, dict[str, str]] = {}
        for row in _of(connection, attributes, people):
            before.setdefault(row.customer_key, {})[row.name] = row.value
        after = {
            key: {
                name: value
                for name, value in {**before.get(key, {}), **{name: person[name] for name in self.plain}}.items()
                if value is not None
            }
            for key, person in people.items()
        }
        changed = sorted(key for key, said in after.items() if said != before.get(key, {}))
        _forget(connection, attributes, changed)
        rows = ((key, name, value) for key in changed for name, value in after[key].items())
        database.insert_many(connection, attributes, ["customer_key", "name", "value"], rows)
        return set(changed)


def _of(connection: sa.Connection, table: sa.Table, keys: Sequence[int] | dict[int, Any]) -> list[sa.Row]:
    return list(connection.execute(table.select().where(table.c.customer_key.in_(list(keys)))))


def _forget(connection: sa.Connection, table: sa.Table, keys: Sequence[int] | dict[int, Any]) -> None:
    if keys:
        connection.execute(table.delete().where(table.c.customer_key.in_(list(keys))))


KIND = Kind(
    name="customers",
    required=("customer_id",),
    columns=COLUMNS,
    key=("customer_id",),
    # Nothing of a customer's record lies on disk in clear: line and reason must do.
    shown=(),
    checks=_checks,
    keep=_keep,
    partial=True,
)
