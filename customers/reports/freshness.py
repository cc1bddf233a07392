"""Freshness of a shop's records and scores: the last sale, the last finished nightly run, and what is still pending."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import erasures, score_runs, transactions
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros_or_none


@dataclass(frozen=True, slots=True)
class Freshness:
    """Times are UTC; None where there is none yet.

    `last_run_as_of` is the time up to which the last finished nightly run has read records, by the shop's clock;
    `last_run_finished_at` is when it ended, by the real clock. Historical runs of earlier days do not count.
    """

    last_sold_at: datetime | None
    last_run_as_of: datetime | None
    last_run_finished_at: datetime | None
    pending_erasures: int


def read_freshness(shop: Shop) -> Freshness:
    """The freshness of a shop now, read in one transaction."""
    finished = score_runs.c.finished_at.is_not(None)
    with engine.read_transaction(shop) as connection:
        last_sold_at = connection.execute(sa.select(sa.func.max(transactions.c.sold_at))).scalar()
        as_of = connection.execute(sa.select(sa.func.max(score_runs.c.as_of)).where(finished)).scalar()
        finished_at = connection.execute(
            sa.select(sa.func.max(score_runs.c.finished_at)).where(score_runs.c.as_of == as_of)
        ).scalar()
        pending_erasures = connection.execute(
            sa.select(sa.func.count()).select_from(erasures).where(erasures.c.forgotten_at.is_(None))
        ).scalar_one()
    return Freshness(
        from_micros_or_none(last_sold_at),
        from_micros_or_none(as_of),
        from_micros_or_none(finished_at),
        pending_erasures,
    )
