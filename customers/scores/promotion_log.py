"""Append-only log of decisions about champions: which version was promoted, kept back or rolled back, when and why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import promotions
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros, to_micros


@dataclass(frozen=True, slots=True)
class Promotion:
    """One decision about a model version, with the metrics it was based on."""

    name: str
    version: str
    previous: str | None
    action: str
    why: str
    metrics: dict[str, Any]
    at: datetime


def append_promotion(
    shop: Shop,
    *,
    name: str,
    version: str | int,
    previous: str | int | None,
    action: str,
    why: str,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Append a decision to the log."""
    with engine.write_transaction(shop) as connection:
        connection.execute(
            promotions.insert().values(
                name=name,
                version=str(version),
                previous=None if previous is None else str(previous),
                action=action,
                why=why,
                metrics=json.dumps(dict(metrics or {}), sort_keys=True),
                at=to_micros(datetime.now(UTC)),
            )
        )


def load_champion_versions(shop: Shop) -> dict[str, str]:
    """The version of each model that the log names champion, by model name."""
    latest = sa.select(sa.func.max(promotions.c.promotion_id)).group_by(promotions.c.name)
    query = sa.select(promotions.c.name, promotions.c.version).where(promotions.c.promotion_id.in_(latest))
    with engine.read_transaction(shop) as connection:
        return dict(connection.execute(query).tuples().all())


def load_history(shop: Shop, name: str | None = None) -> list[Promotion]:
    """All decisions, or those about one model, oldest first."""
    query = sa.select(promotions).order_by(promotions.c.promotion_id)
    if name is not None:
        query = query.where(promotions.c.name == name)
    with engine.read_transaction(shop) as connection:
        return [
            Promotion(
                row.name, row.version, row.previous, row.action, row.why, json.loads(row.metrics), from_micros(row.at)
            )
            for row in connection.execute(query)
        ]
