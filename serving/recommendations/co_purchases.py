"""Company: which products go together, as the champion knows it or else as the last night saw it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pandas as pd

from features import together
from models.companions import Companions
from serving import stall
from serving.desk import Desk


def of(desk: Desk) -> Companions | None:
    """What the recommender has learned; where a plain rule serves, the same from the last night's pairs.

    None before the first night.
    """
    champion = desk.champions.get("recommender")
    learned: Companions | None = getattr(champion.model, "companions", None) if champion else None
    if learned is not None:
        return learned
    pairs = together.kept(desk.features.folder)
    if pairs is None:
        return None
    return _of(pairs, pairs.stat().st_mtime_ns, desk.features.folder, desk.shop.home / "ledger" / "products.parquet")


@lru_cache(maxsize=2)
def _of(pairs: Path, _changed: int, features: Path, catalogue: Path) -> Companions:
    words = ["product_key", "category", "subcategory", "brand"]
    products = pd.read_parquet(catalogue, columns=words) if catalogue.exists() else pd.DataFrame(columns=words)
    return Companions.learn(pd.read_parquet(pairs), products, stall.prices(features)[["product_key", "price", "sold"]])
