"""Live: what has just happened to a customer changes what is said of them, before the next question.

The news is in the books already. Their figures are computed again by the night's own expressions, put before every
question, and whatever the champions now say of them is written down. What is cut short is made up for later.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from customers import freshness, mirror
from customers.instants import ONE_MICROSECOND
from customers.shop import Shop
from serving import fresh, problems
from serving.desk import Desk

log = logging.getLogger("regulars.live")

#: So many are seen to at once: a thousand sales of one request take a few turns, each soon over.
AT_ONCE = 200


def catch_up(desk: Desk) -> bool:
    """See to everybody whose figures lag behind the books; whether nobody is left behind.

    A failure here undoes nothing: whom it concerns stays on the list, and the log says where it failed.
    """
    try:
        while lagging := freshness.lagging(desk.shop):
            some = dict(list(lagging.items())[:AT_ONCE])
            with alone(desk.shop):
                refresh(desk, list(some))
                freshness.caught_up(desk.shop, some)
        return True
    except Exception as error:
        log.error("features lag behind the books: %s", problems.whereabouts(error))
        return False


def refresh(desk: Desk, keys: Sequence[int]) -> datetime:
    """Compute the figures of these customers again, show them, and say everything of them anew; as of when."""
    from features import live as figures

    shop = desk.shop
    sold, met = mirror.lines_of(shop, keys), mirror.interactions_of(shop, keys)
    as_of = _moment(desk, keys, sold, met)
    views = figures.figures(sold, met, shop.home / "ledger", as_of=as_of, timezone=shop.timezone)
    with desk.turn:
        for view, rows in views.items():
            desk.features.push(view, rows)
    fresh.everything(desk, fresh.profiled(desk, keys))
    return as_of


@contextmanager
def alone(shop: Shop) -> Iterator[None]:
    """One at a time in a home: of two that read the books at once, the older could speak last."""
    with (shop.home / "live.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _moment(desk: Desk, keys: Sequence[int], *told: pa.Table) -> datetime:
    """A moment that sees all that was told, and is later than any that was shown of these customers."""
    seen = [desk.seen_until(keys)]
    for table in told:
        for name in ("sold_at", "happened_at", "known_at", "superseded_at"):
            if name in table.column_names and len(table):
                seen.append(pc.max(table[name]).as_py())
    return max(desk.now(), *(at + ONE_MICROSECOND for at in seen if at is not None))
