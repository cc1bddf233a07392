"""Frames: what the models said, with customers by their ids and under promised columns."""

import json
from datetime import datetime
from typing import Any

import pandas as pd

from customers import profiles, scores
from customers.shop import Shop


def answers(shop: Shop, model: str, as_of: datetime | None = None) -> pd.DataFrame:
    """The newest finished run of a model, or that of a moment, with each detail read, column `answer`."""
    frame = scores.current(shop, model, as_of)
    frame["answer"] = [json.loads(detail) for detail in frame.pop("detail")]
    return frame


def named(shop: Shop, rows: list[dict[str, Any]] | pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Customers by their ids, and the promised columns in their order and types."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    if "customer_key" in frame:
        frame["customer_id"] = frame["customer_key"].map(profiles.ids_of(shop, frame["customer_key"].unique()))
    return frame.reindex(columns=list(columns)).astype(columns).reset_index(drop=True)
