"""Every customer in memory, as last read: for a server that must answer while the database does not.

What is read again and again is only what has been added: consent statements, later scores, the refresh queue, erasures.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from customers.database import change_counters, engine
from customers.database.ids import DEFAULT_SOURCE
from customers.database.schema import consents, erasures, identities, score_runs, scores, unrefreshed
from customers.scores.current_scores import CustomerStatus, RunWatermark
from customers.shop.settings import Shop

#: All ids are read again at most this often, where a customer may be new, and in at most this share of the time.
REBUILD_SECONDS, REBUILD_SHARE = 60.0, 0.01
BATCH_SIZE = 50_000
NO_KEY = -1

_Keys = NDArray[np.int64]


class _KeysByText:
    """Keys by texts of which only hashes are stored: 16 bytes each, sorted.

    Two texts with one hash count as one that belongs to two customers. Hashes differ from process to process.
    """

    def __init__(self, hashes: _Keys, keys: _Keys, ranks: _Keys) -> None:
        """Of several keys of a hash the one of rank 0 counts, else none; all of shape (n,)."""
        order = np.lexsort((ranks, hashes))
        hashes, keys, ranks = hashes[order], keys[order], ranks[order]
        self._hashes, first = np.unique(hashes, return_index=True)
        if len(first):
            is_unique = np.minimum.reduceat(keys, first) == np.maximum.reduceat(keys, first)
            self._keys = np.where(is_unique | (ranks[first] == 0), keys[first], NO_KEY)

    def find(self, texts: Sequence[str]) -> _Keys:
        """The key of each text, shape (n,); NO_KEY where there is none."""
        wanted = np.array([hash(text) for text in texts], np.int64)
        if not len(self._hashes):
            return np.full(len(wanted), NO_KEY)
        nearest = np.searchsorted(self._hashes, wanted).clip(max=len(self._hashes) - 1)
        return np.where(self._hashes[nearest] == wanted, self._keys[nearest], NO_KEY)


_NOBODY = _KeysByText(*np.empty((3, 0), np.int64))


@dataclass
class _Customers:
    """What was read of all customers at once, and what has been added up to the last ids; replaced as a whole.

    `consent_keys`, ascending, and `consent_counts` have shape (n,).
    """

    watermark: RunWatermark | None = None
    first_run_id: int = 0
    last_consent_id: int = 0
    last_erasure_id: int = 0
    plain: _KeysByText = _NOBODY
    prefixed: _KeysByText = _NOBODY
    consent_keys: _Keys = field(default_factory=lambda: np.empty(0, np.int64))
    consent_counts: _Keys = field(default_factory=lambda: np.empty(0, np.int64))
    later_consents: Counter[int] = field(default_factory=Counter)
    changed: set[int] = field(default_factory=set)
    erased: set[int] = field(default_factory=set)

    def count_consents(self, keys: _Keys) -> _Keys:
        """The number of consent statements at the time of the read, of keys of shape (n,)."""
        if not len(self.consent_keys):
            return np.zeros(len(keys), np.int64)
        nearest = np.searchsorted(self.consent_keys, keys).clip(max=len(self.consent_keys) - 1)
        return np.where(self.consent_keys[nearest] == keys, self.consent_counts[nearest], 0)


class CustomerIndex:
    """The key of every id, and of each customer the number of consent statements and whether anything has changed."""

    def __init__(self, shop: Shop, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shop = shop
        self._clock = clock
        self._rebuild_after = float("-inf")
        self._counter: int | None = None
        self._customers = _Customers()

    def follow(self, watermark: RunWatermark) -> None:
        """Read what has been added since the last call; everything, where the watermark of the night is another one.

        Raises ShopUnavailable where the database does not answer.
        """
        with engine.read_transaction(self._shop) as connection:
            counter = change_counters.read_counters(connection).get(change_counters.CONSENTS_COUNTER, 0)
            began_at = self._clock()
            is_night_new = watermark != self._customers.watermark
            if is_night_new or (counter != self._counter and began_at >= self._rebuild_after):
                customers = self._build(connection, watermark)
                self._add(connection, watermark, customers)
                self._customers = customers
                took_seconds = self._clock() - began_at
                self._counter = counter
                self._rebuild_after = began_at + max(REBUILD_SECONDS, took_seconds / REBUILD_SHARE)
            else:
                self._add(connection, watermark, self._customers)

    def find_statuses(self, customer_ids: Sequence[str]) -> list[CustomerStatus | None]:
        """The status of each customer as last read; None for an id of nobody, or of several customers.

        Changed is who is or was queued for new features, or has had another score, since the night of the watermark.
        """
        customers = self._customers  # one for all of it: another thread may replace it
        keys = customers.plain.find(customer_ids)
        prefixed = [position for position in np.flatnonzero(keys == NO_KEY).tolist() if ":" in customer_ids[position]]
        keys[prefixed] = customers.prefixed.find([customer_ids[position] for position in prefixed])
        counts = customers.count_consents(keys)
        return [
            None
            if key == NO_KEY or key in customers.erased
            else CustomerStatus(key, count + customers.later_consents[key], key in customers.changed)
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
        ]

    def _build(self, connection: sa.Connection, watermark: RunWatermark) -> _Customers:
        """Read all ids and the consents of all; what is older than the watermark's night has not changed since."""
        plain: list[_Keys] = []
        prefixed: list[_Keys] = []
        query = sa.select(identities.c.source, identities.c.customer_id, identities.c.customer_key)
        for rows in engine.fetch_batches(connection, query, BATCH_SIZE):
            plain.append(_to_array((hash(name), key, source != DEFAULT_SOURCE) for source, name, key in rows))
            prefixed.append(_to_array((hash(f"{source}:{name}"), key, 0) for source, name, key in rows))
        counted = sa.select(consents.c.customer_key, sa.func.count()).group_by(consents.c.customer_key)
        parts = [
            _to_array((*row, 0) for row in rows)
            for rows in engine.fetch_batches(connection, counted.order_by(consents.c.customer_key), BATCH_SIZE)
        ]
        keys, counts, _ = _join(parts)
        is_same_night = watermark == self._customers.watermark
        return _Customers(
            watermark=watermark,
            first_run_id=self._customers.first_run_id if is_same_night else watermark.first_run_id,
            last_consent_id=_read_number(connection, sa.func.max(consents.c.consent_id)),
            last_erasure_id=_read_number(connection, sa.func.max(erasures.c.erasure_id)),
            plain=_KeysByText(*_join(plain)),
            prefixed=_KeysByText(*_join(prefixed)),
            consent_keys=keys,
            consent_counts=counts,
            changed=set(self._customers.changed) if is_same_night else set(),
        )

    def _add(self, connection: sa.Connection, watermark: RunWatermark, customers: _Customers) -> None:
        is_new = consents.c.consent_id > customers.last_consent_id
        for consent_id, key in connection.execute(
            sa.select(consents.c.consent_id, consents.c.customer_key).where(is_new)
        ):
            customers.later_consents[key] += 1
            customers.last_consent_id = max(customers.last_consent_id, consent_id)
        is_later = erasures.c.erasure_id > customers.last_erasure_id
        for erasure_id, key in connection.execute(
            sa.select(erasures.c.erasure_id, erasures.c.customer_key).where(is_later)
        ):
            customers.erased.add(key)
            customers.last_erasure_id = max(customers.last_erasure_id, erasure_id)
        customers.changed.update(connection.execute(sa.select(unrefreshed.c.customer_key)).scalars())
        customers.changed.update(connection.execute(_later_scores(watermark, customers.first_run_id)).scalars())
        # Of the runs that were last begun more customers may follow.
        newest = sa.select(sa.func.max(score_runs.c.as_of)).scalar_subquery()
        first_open = sa.select(sa.func.min(score_runs.c.run_id)).where(score_runs.c.as_of == newest)
        run_id = connection.execute(first_open).scalar() or 0
        customers.first_run_id = max(customers.first_run_id, run_id)


def _later_scores(watermark: RunWatermark, first_run_id: int) -> sa.Select:
    """The customers with a score after the watermark, among the runs from this id on."""
    at, runs = watermark.as_of_micros, score_runs.c
    is_other_version = (runs.as_of == at) & (runs.model == watermark.model) & (runs.run_id > watermark.last_run_id)
    query = sa.select(scores.c.customer_key).join(score_runs, runs.run_id == scores.c.run_id)
    return query.where(scores.c.run_id >= first_run_id, (runs.as_of > at) | is_other_version).distinct()


def _to_array(rows: Iterable[tuple[int, ...]]) -> _Keys:
    """The columns of rows of three numbers, shape (3, n)."""
    return np.array(list(rows), np.int64).reshape(-1, 3).T


def _join(parts: Sequence[_Keys]) -> _Keys:
    return np.concatenate([np.empty((3, 0), np.int64), *parts], axis=1)


def _read_number(connection: sa.Connection, expression: sa.ColumnElement[int]) -> int:
    return int(connection.execute(sa.select(expression)).scalar() or 0)
