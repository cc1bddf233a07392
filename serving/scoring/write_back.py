"""Writing down what was said: every score once a customer, model, version and moment, by night and door."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pandas as pd

from customers.scores import score_store
from customers.scores.score_details import ScoreRow
from customers.shop.settings import Shop
from models.registry.bundle import Champion


def store_online_scores(shop: Shop, champion: Champion, frame: pd.DataFrame, rows: Iterable[ScoreRow]) -> None:
    """Keep what the door has just computed for the customers of the frame, if they allow it."""
    as_of_by_key = dict(zip(frame["customer_key"], frame["as_of"], strict=True))
    rows_by_as_of: dict[datetime, list[ScoreRow]] = {}
    for row in rows:
        if row[0] in as_of_by_key:
            rows_by_as_of.setdefault(as_of_by_key[row[0]].to_pydatetime(), []).append(row)
    written_counts = [
        score_store.write_online_scores(shop, champion.name, champion.version, as_of, group)
        for as_of, group in rows_by_as_of.items()
    ]
    if any(written_counts):
        touch_change_marker(shop)


def touch_change_marker(shop: Shop) -> None:
    """Note that what was said of somebody is no longer what was said before."""
    _marker_path(shop).touch()


def read_change_marker(shop: Shop) -> int:
    """A number that changes whenever something new was said at the door about anybody."""
    path = _marker_path(shop)
    return path.stat().st_mtime_ns if path.exists() else 0


def _marker_path(shop: Shop) -> Path:
    return shop.home / "told.stamp"
