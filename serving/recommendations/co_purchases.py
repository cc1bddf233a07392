"""Co-purchase index: related products, from the recommender champion or from the last nightly run."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pandas as pd

from models.related_products.complements import RelatedProducts
from serving.offers import offer_inventory
from serving.runtime import ServerRuntime


def load_co_purchase_index(runtime: ServerRuntime) -> RelatedProducts | None:
    """The related products of the recommender champion; without any, fitted on co-purchases of the last nightly run.

    None before the first run.
    """
    champion = runtime.champions.get("recommender")
    trained_index: RelatedProducts | None = getattr(champion.model, "related_products", None) if champion else None
    if trained_index is not None:
        return trained_index
    from features.products import co_purchases  # imported here: Ibis is slow to load

    pairs = co_purchases.co_purchases_path(runtime.features.folder)
    if pairs is None:
        return None
    return _build_index(
        pairs, pairs.stat().st_mtime_ns, runtime.features.folder, runtime.shop.ledger / "products.parquet"
    )


@lru_cache(maxsize=2)
def _build_index(pairs: Path, _changed: int, feature_folder: Path, catalogue: Path) -> RelatedProducts:
    attribute_columns = ["product_key", "category", "subcategory", "brand"]
    products = (
        pd.read_parquet(catalogue, columns=attribute_columns)
        if catalogue.exists()
        else pd.DataFrame(columns=attribute_columns)
    )
    return RelatedProducts.fit(
        pd.read_parquet(pairs), products, offer_inventory.load_prices(feature_folder)[["product_key", "price", "sold"]]
    )
