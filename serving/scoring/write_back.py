"""Stores online scores, one per customer, model, version and as_of, and marks that scores have changed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pandas as pd

from customers.scores import score_store
from customers.scores.score_details import ScoreRow
from customers.scores.score_store import OnlineScores
from customers.shop.settings import Shop
from models.registry.bundle import Champion


def store_online_scores(shop: Shop, champion: Champion, frame: pd.DataFrame, rows: Iterable[ScoreRow]) -> None:
    """Store the rows of the customers of the frame who allow profiling; frame: columns customer_key, as_of."""
    store_batches(shop, group_by_as_of(champion, frame, rows))


def group_by_as_of(champion: Champion, frame: pd.DataFrame, rows: Iterable[ScoreRow]) -> list[OnlineScores]:
    """The rows of the customers of the frame, grouped by their as_of; frame: columns customer_key, as_of."""
    as_of_by_key = dict(zip(frame["customer_key"], frame["as_of"], strict=True))
    rows_by_as_of: dict[datetime, list[ScoreRow]] = {}
    for row in rows:
        if row[0] in as_of_by_key:
            rows_by_as_of.setdefault(as_of_by_key[row[0]].to_pydatetime(), []).append(row)
    return [OnlineScores(champion.name, str(champion.version), as_of, group) for as_of, group in rows_by_as_of.items()]


def store_batches(shop: Shop, batches: Iterable[OnlineScores]) -> None:
    """Store scores of several models in one transaction."""
    if score_store.write_online_batches(shop, batches):
        touch_change_marker(shop)


def touch_change_marker(shop: Shop) -> None:
    """Mark that the score of some customer has changed."""
    _marker_path(shop).touch()


def read_change_marker(shop: Shop) -> int:
    """A number that changes whenever an online score has changed; 0 before the first change."""
    path = _marker_path(shop)
    return path.stat().st_mtime_ns if path.exists() else 0


def _marker_path(shop: Shop) -> Path:
    return shop.home / "told.stamp"
