"""Live: what has just happened to a customer changes what is said of them, before the next question.

The news is in the books already. Their figures are computed again by the night's own expressions, put before every
question, and whatever the champions now say of them is written down. What is cut short is made up for later.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from customers import freshness, mirror, scores
from customers.instants import ONE_MICROSECOND
from customers.shop import Shop
from serving import fresh, problems
from serving.desk import Desk

log = logging.getLogger("regulars.live")

#: So many are seen to at once: a thousand sales of one request take a few turns, each soon over.
AT_ONCE = 200
#: Where it fails for so many and works for nobody, it is not they whom it fails for.
IN_VAIN = 10
#: Kinds whose copy beside the ledger is read with every customer's figures, not only with the night's.
COPIED = ("products", "consents")


def catch_up(desk: Desk, keys: Collection[int] | None = None) -> bool:
    """See to everybody whose figures lag behind the books; whether nobody is left behind.

    With `keys` to these, and on the way to some who wait since longer; whether none of these is left behind. A
    failure here undoes nothing: whom it concerns stays on the list, and the log says where it failed. Before the
    first night there are no figures that could lag: it sees to whoever is on the list.
    """
    try:
        behind = _see_to_all(desk, _due(desk, keys)) if desk.begun else set(freshness.lagging(desk.shop))
    except Exception as error:
        log.error("features lag behind the books: %s", problems.whereabouts(error))
        return False
    return not (behind if keys is None else behind & set(keys))


def overtaken(desk: Desk, as_of: datetime) -> list[int]:
    """Of whom something was said already as of a moment later than a night's: they still hear its older champions."""
    return scores.told_after(desk.shop, as_of)


def retell(desk: Desk, as_of: datetime) -> bool:
    """What a night does at its end: see to those whom live sales put ahead of it, and to late news; as `catch_up`."""
    freshness.note(desk.shop, overtaken(desk, as_of))
    return catch_up(desk)


def _due(desk: Desk, keys: Collection[int] | None) -> list[list[int]]:
    """Whom to see to, in turns: who waits longest first, and last those for whom it failed before."""
    lagging = list(freshness.lagging(desk.shop))
    stuck = [key for key in lagging if key in desk.stuck]
    sound = [key for key in lagging if key not in desk.stuck]
    if keys is not None:
        mine = set(keys)
        sound = sorted(sound, key=lambda key: key not in mine)[: max(AT_ONCE, len(mine))]
    return [some[at : at + AT_ONCE] for some in (sound, stuck) for at in range(0, len(some), AT_ONCE)]


def _see_to_all(desk: Desk, turns: list[list[int]]) -> set[int]:
    """Those whom it could not see to, and whom it did not get to: where it fails for all of a turn it ends there."""
    left = {key for some in turns for key in some}
    behind: set[int] = set()
    for some in turns:
        failed = _see_to(desk, some)
        if len(failed) == len(some) >= IN_VAIN:
            return behind | left
        behind |= failed
        left.difference_update(some)
    return behind


def _see_to(desk: Desk, keys: list[int]) -> set[int]:
    """Those of these customers for whom it failed: one of them must not keep the others behind."""
    try:
        _renew(desk, keys)
    except Exception as error:
        if len(keys) > 1:
            return _one_by_one(desk, keys)
        log.error("a customer's features lag behind the books: %s", problems.whereabouts(error))
        desk.stuck.update(keys)
        return set(keys)
    desk.stuck.difference_update(keys)
    return set()


def _one_by_one(desk: Desk, keys: list[int]) -> set[int]:
    failed: set[int] = set()
    for tried, key in enumerate(keys, start=1):
        failed |= _see_to(desk, [key])
        if len(failed) == tried >= IN_VAIN:
            return set(keys)
    return failed


def _renew(desk: Desk, keys: list[int]) -> None:
    """Refresh those of these customers who still wait, from copies of today, and strike them off the list."""
    shop = desk.shop
    with alone(shop):
        lagging = freshness.lagging(shop)
        some = {key: lagging[key] for key in keys if key in lagging}
        if some:
            mirror.refresh(shop, only=COPIED)
            refresh(desk, list(some))
            freshness.caught_up(shop, some)


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
