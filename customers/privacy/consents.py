"""Consent: what each customer allows, for which purpose, since when; who has said nothing is held to the default."""

from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from customers import checks, database, enrolment, freshness, transactions
from customers.checks import Check
from customers.instants import from_micros, micros
from customers.kinds import Counts, Kind, Writer
from customers.schema import consents, customers
from customers.shop import PURPOSES, STATES, Shop
from customers.sources.files import Records, quoted

COLUMNS = ("customer_id", "purpose", "state", "at", "source", "wording")
# What changes what may be computed of a customer, and not only how they may be reached.
PROFILING = ("profiling", "profiling_sensitive")
# Two machines' clocks differ; a consent further ahead than this is a mistake.
AHEAD = timedelta(minutes=5)
SLICE = 5_000
# Contact on these channels needs a consent; in the store and on the web site nobody is written to.
CHANNELS = ("email", "sms", "phone", "post", "app", "social")
OPEN_CHANNELS = ("store", "web", "device")
# More than this at once, and reading every statement is quicker than asking for each customer.
MANY = 5_000
# Of two statements of one moment the stricter one holds.
STRICTER = sa.case({state: rank for rank, state in enumerate(STATES)}, value=consents.c.state)


def by_default(shop: Shop, purpose: str) -> bool:
    """Whether a customer who has said nothing allows this."""
    return shop.consent_default[purpose] == "granted"


def allowed(shop: Shop, keys: Iterable[int], purpose: str) -> set[int]:
    """Those of these customers who allow this now: by their newest statement, else by the shop's default."""
    asked = {int(key) for key in keys}
    with database.reading(shop) as connection:
        return _allowing(connection, shop, asked, purpose)


def granted(connection: sa.Connection, shop: Shop, purpose: str) -> set[int]:
    """As `allowed`, of everybody, inside a transaction of the caller."""
    return _allowing(connection, shop, set(connection.execute(sa.select(customers.c.customer_key)).scalars()), purpose)


def channels(shop: Shop, keys: Iterable[int]) -> dict[int, list[str]]:
    """The channels on which each of these customers may be contacted; in the store and on the web anybody may."""
    asked = [int(key) for key in keys]
    purposes = {f"marketing_{channel}": channel for channel in CHANNELS}
    default = {purpose for purpose in purposes if by_default(shop, purpose)}
    with database.reading(shop) as connection:
        said = _newest(connection, set(asked), list(purposes))
    open_to = {key: set(default) for key in asked}
    for key, purpose, state in said:
        (open_to[key].add if state == "granted" else open_to[key].discard)(purpose)
    return {key: [purposes[purpose] for purpose in purposes if purpose in open_to[key]] for key in asked}


def of(shop: Shop, key: int) -> list[dict[str, Any]]:
    """What holds for a customer, one entry a purpose, each with its history, the newest statement first."""
    with database.reading(shop) as connection:
        return holding(connection, shop, key)


def holding(connection: sa.Connection, shop: Shop, key: int) -> list[dict[str, Any]]:
    """As `of`, inside a transaction of the caller."""
    query = consents.select().where(consents.c.customer_key == key)
    said: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(query.order_by(consents.c.at.desc(), STRICTER.desc(), consents.c.consent_id.desc())):
        said.setdefault(row.purpose, []).append(_statement(row))
    return [_effective(shop, purpose, said.get(purpose, [])) for purpose in PURPOSES]


def _allowing(connection: sa.Connection, shop: Shop, asked: set[int], purpose: str) -> set[int]:
    said = _newest(connection, asked, [purpose])
    yes = {key for key, _, state in said if state == "granted"}
    return (asked - {key for key, *_ in said}) | yes if by_default(shop, purpose) else yes


def _effective(shop: Shop, purpose: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    newest = history[0] if history else {"state": shop.consent_default[purpose], "at": None, "source": "default"}
    return {
        "purpose": purpose,
        "state": newest["state"],
        "since": newest["at"],
        "source": newest["source"],
        "history": history,
    }


def _statement(row: sa.Row) -> dict[str, Any]:
    return {
        "state": row.state,
        "at": from_micros(row.at),
        "source": row.source,
        "wording": row.wording,
        "known_at": from_micros(row.known_at),
    }


def _newest(connection: sa.Connection, keys: set[int], purposes: list[str]) -> list[tuple[int, str, str]]:
    """(customer, purpose, state) of the newest statement of each of these customers who made one."""
    order = [consents.c.at.desc(), STRICTER.desc()]
    nth = sa.func.row_number().over(partition_by=[consents.c.customer_key, consents.c.purpose], order_by=order)
    query = sa.select(consents.c.customer_key, consents.c.purpose, consents.c.state, nth.label("nth"))
    query = query.where(consents.c.purpose.in_(purposes))
    wanted = [query] if len(keys) > MANY else [query.where(consents.c.customer_key.in_(list(keys)))]
    found = []
    for each in wanted:
        ranked = each.subquery()
        rows = connection.execute(sa.select(ranked).where(ranked.c.nth == 1)).tuples()
        found += [(key, purpose, state) for key, purpose, state, _ in rows if key in keys]
    return found


def _checks(shop: Shop) -> list[Check]:
    latest = micros(datetime.now(UTC) + AHEAD)
    return [
        checks.identifier("customer_id"),
        _required(checks.choice("purpose", PURPOSES)),
        _required(checks.choice("state", STATES)),
        checks.past("at", shop.timezone, latest=latest, required=True),
        # Part of what tells one statement from another, so it is never null.
        Check("source", "coalesce(source, '')", checks.reference("source").wrong),
        checks.words("wording"),
    ]


def _required(check: Check) -> Check:
    return Check(check.name, check.value, ((f"{check.name} is null", f"{check.name} is empty"), *check.wrong))


def _keep(shop: Shop, source: str, records: Records, write: Writer) -> Counts:
    """Every statement is kept once and for good; who makes one before anything else is known of them is a prospect."""
    cursor = records.connection.execute(
        f"select {', '.join(map(quoted, COLUMNS))} from checked where reason is null and not again order by 1, 4"
    )
    counts = Counts()
    while rows := cursor.fetchmany(SLICE):
        with write() as connection:
            counts += _say(shop, connection, source, rows, records.touched)
    return counts


def _say(shop: Shop, connection: sa.Connection, source: str, rows: list[tuple], touched: set[int] | None) -> Counts:
    names = list(dict.fromkeys(row[0] for row in rows))
    keys = enrolment.enrol(shop, lambda: nullcontext(connection), source, names, stage="prospect")
    said = {
        (keys[name], purpose, at, told_by or source, state): wording
        for name, purpose, state, at, told_by, wording in rows
        if name in keys
    }
    columns = [consents.c[name] for name in ("customer_key", "purpose", "at", "source", "state")]
    query = sa.select(*columns).where(consents.c.customer_key.in_(list(keys.values())))
    kept = set(connection.execute(query).tuples())
    fresh = [statement for statement in said if statement not in kept]
    known_at = micros(datetime.now(UTC))
    values = ((*statement, said[statement], known_at) for statement in fresh)
    names_ = ["customer_key", "purpose", "at", "source", "state", "wording", "known_at"]
    database.insert_many(connection, consents, names_, values)
    if fresh:
        transactions.mark(connection, {enrolment.MIRROR_MARK})
    if touched is not None:
        touched |= {key for key, *_ in fresh}
        freshness.fall_behind(connection, {key for key, purpose, *_ in fresh if purpose in PROFILING})
    return Counts(inserted=len(fresh), unchanged=len(rows) - len(fresh))


KIND = Kind(
    name="consents",
    required=("customer_id", "purpose", "state", "at"),
    columns=COLUMNS,
    key=("customer_id", "purpose", "at", "state", "source"),
    shown=("customer_id", "purpose", "state", "at", "source"),
    checks=_checks,
    keep=_keep,
)
