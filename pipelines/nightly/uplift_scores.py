"""Uplift scores: store the result of an uplift analysis, and score each customer by its effect model at every run."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from customers.scores import score_details, score_store, uplift_result
from customers.scores.uplift_result import UpliftResult
from customers.shop.settings import Shop
from features.store import feature_store
from models.base import MissingFeatures
from models.registry import bundle
from models.registry.bundle import Champion, InvalidBundle
from models.uplift.model import UpliftModel
from training.tasks import all_tasks

#: Customers are described by the features of churn: behaviour only, no personal data.
SERVICE = all_tasks.get_task("churn").service


def store_result(shop: Shop, result: UpliftResult, model: UpliftModel | None) -> UpliftResult:
    """Save the result, publish its effect model, and score every customer of the last nightly run by it."""
    if model is not None:
        result = replace(result, version=_publish_model(shop, result, model))
    uplift_result.save_result(shop, result)
    latest_run = score_store.newest_run(shop, "churn")
    if latest_run is not None and (shop.home / "features").exists():
        write_uplift_scores(shop, feature_store.open_store(shop.home / "features", shop.online_store), latest_run.as_of)
    return result


def write_uplift_scores(shop: Shop, features: feature_store.FeatureStore, as_of: datetime) -> int:
    """Write the estimated effect of contact for each customer as of a run; how many scores were written.

    Writes nothing where the result is not conclusive; a model that no longer opens makes the result inconclusive.
    """
    result = uplift_result.load_result(shop)
    if result is None or not result.is_conclusive:
        return 0
    try:
        champion = bundle.open_champion(shop.home / "champions", uplift_result.MODEL)
        rows = _estimate_effects(features, champion, as_of) if champion else []
    except (InvalidBundle, MissingFeatures) as error:
        why = f"{error}; run: regulars uplift"
        uplift_result.save_result(
            shop, replace(result, verdict=uplift_result.NOT_ENOUGH_EVIDENCE, why=why, outcome=None)
        )
        return 0
    if not champion or not rows:
        return 0
    run_id = score_store.begin_run(shop, uplift_result.MODEL, champion.version, as_of)
    encoded_rows = score_details.encode_uplift(rows, outcome=result.outcome, days=result.days)
    written = score_store.write_scores(shop, run_id, encoded_rows)
    score_store.finish_run(shop, run_id)
    return written


def _estimate_effects(
    features: feature_store.FeatureStore, champion: Champion, as_of: datetime
) -> list[tuple[int, float]]:
    path = features.folder / "rhythm" / "part.parquet"
    if not path.exists():
        return []
    entities = pq.read_table(path, columns=["customer_key", "event_timestamp"]).to_pandas()
    frame = features.historical_features(SERVICE, entities[entities["event_timestamp"] == as_of])
    effects = champion.model.score(frame) if len(frame) else []
    return list(zip(frame["customer_key"].tolist(), map(float, effects), strict=True))


def _publish_model(shop: Shop, result: UpliftResult, model: UpliftModel) -> str:
    version = "".join(letter for letter in result.as_of[:19] if letter.isalnum())
    # The next nightly run deletes a folder of this name that a killed run leaves behind.
    with tempfile.TemporaryDirectory(prefix=".found-", dir=shop.home) as folder:
        manifest = bundle.write(model, Path(folder) / "bundle", facts={"as_of": result.as_of, "days": result.days})
        version = f"{version}-{manifest.sha256[:8]}"
        bundle.publish(Path(folder) / "bundle", shop.home / "champions", uplift_result.MODEL, version)
    return version
