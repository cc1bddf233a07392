"""Which customers are still as a nightly run scored them: what happened to each since, read in one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from customers.database import engine
from customers.database.direct_reads import DirectReader
from customers.database.schema import consents, interactions, score_runs
from customers.shop import timestamps
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

#: So many ids are looked up by one statement.
CHUNK_SIZE = 1_000
_STATEMENT = """
select i.customer_id, i.source, i.customer_key,
       (select count(*) from consents c where c.customer_key = i.customer_key),
       exists (select 1 from unrefreshed u where u.customer_key = i.customer_key)
       or exists (select 1 from scores s join score_runs r on r.run_id = s.run_id
                  where s.customer_key = i.customer_key and s.run_id >= ?
                    and (r.as_of > ? or (r.as_of = ? and r.model = ? and s.run_id > ?)))
from identities i where i.customer_id in ({marks})"""

_INTERACTIONS_STATEMENT = """
select customer_key, count(*), sum(known_at / 1000000) from interactions
where customer_key in ({marks}) group by customer_key"""


@dataclass(frozen=True, slots=True)
class RunWatermark:
    """From where on a score is newer than those of a night by one model.

    `first_run_id` is the least id of a run with a later as_of: runs are numbered as they begin, but may begin with an
    as_of before that of another. Runs after `last_run_id` with the night's own as_of are those of another version,
    which has answered since.
    """

    model: str
    as_of_micros: int
    first_run_id: int
    last_run_id: int


@dataclass(frozen=True, slots=True)
class CustomerStatus:
    """A customer key, the number of their consent statements, and whether anything else of them has changed."""

    customer_key: int
    consent_count: int
    is_changed: bool


def find_statuses(
    reader: DirectReader, customer_ids: Sequence[str], watermark: RunWatermark
) -> dict[str, CustomerStatus]:
    """The status of each customer by id, as it is written outside; ids that need a closer look are left out.

    Those are unknown ids, ids of several customers, and ids written as source:id. A customer is changed who is queued
    for new features, or for whom a score was stored after the watermark.
    """
    statuses: dict[str, CustomerStatus] = {}
    ambiguous: set[str] = set()
    as_of = watermark.as_of_micros
    later_scores = (watermark.first_run_id, as_of, as_of, watermark.model, watermark.last_run_id)
    for start in range(0, len(customer_ids), CHUNK_SIZE):
        chunk = customer_ids[start : start + CHUNK_SIZE]
        statement = _STATEMENT.format(marks=", ".join("?" * len(chunk)))
        for name, _source, key, consent_count, is_changed in reader.read(statement, (*later_scores, *chunk)):
            if name in statuses and statuses[name].customer_key != key:
                ambiguous.add(name)
            statuses[name] = CustomerStatus(key, consent_count, bool(is_changed))
    return {name: status for name, status in statuses.items() if name not in ambiguous}


def count_consents(shop: Shop) -> dict[int, int]:
    """The number of consent statements of every customer who made one, by customer key."""
    query = sa.select(consents.c.customer_key, sa.func.count()).group_by(consents.c.customer_key)
    with engine.read_transaction(shop) as connection:
        return dict(connection.execute(query).tuples().all())


def count_interactions(shop: Shop) -> dict[int, tuple[int, int]]:
    """The number of interactions of every customer who has any, and the sum of the seconds at which each was known."""
    seconds = sa.func.sum(interactions.c.known_at / sa.literal_column("1000000"))
    query = sa.select(interactions.c.customer_key, sa.func.count(), sa.cast(seconds, sa.BigInteger))
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(query.group_by(interactions.c.customer_key)).tuples()
        return {key: (count, int(total)) for key, count, total in rows}


def read_interaction_counts(reader: DirectReader, customer_keys: Sequence[int]) -> dict[int, tuple[int, int]]:
    """As `count_interactions`, of these customers."""
    counts: dict[int, tuple[int, int]] = {}
    for start in range(0, len(customer_keys), CHUNK_SIZE):
        chunk = customer_keys[start : start + CHUNK_SIZE]
        statement = _INTERACTIONS_STATEMENT.format(marks=", ".join("?" * len(chunk)))
        counts |= {key: (count, int(total)) for key, count, total in reader.read(statement, chunk)}
    return counts


def read_run_watermark(shop: Shop, model: str, as_of: datetime) -> RunWatermark:
    """The watermark of a night, taken after the model's scores were written."""
    is_later = score_runs.c.as_of > to_micros(as_of)
    with engine.read_transaction(shop) as connection:
        last_run_id = int(connection.execute(sa.select(sa.func.max(score_runs.c.run_id))).scalar() or 0)
        first_run_id = connection.execute(sa.select(sa.func.min(score_runs.c.run_id)).where(is_later)).scalar()
    return RunWatermark(model, to_micros(as_of), int(first_run_id or last_run_id + 1), last_run_id)


def read_latest_as_of(shop: Shop) -> datetime | None:
    """The latest as_of of any score, open runs included; None before the first."""
    with engine.read_transaction(shop) as connection:
        return timestamps.from_micros_or_none(connection.execute(sa.select(sa.func.max(score_runs.c.as_of))).scalar())
