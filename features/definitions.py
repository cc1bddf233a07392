"""Feast definitions: one entity, one view per feature family, and one feature service per model."""

import os
from pathlib import Path
from typing import Any

from features.families import category_history, engagement, product_history, product_mix, recency_frequency, spend

SERVICES = {
    "recommender_v1": (product_history,),
    "churn_v1": (recency_frequency, spend, product_mix, engagement),
    "timing_v1": (recency_frequency, spend, product_mix, engagement),
    "value_v1": (recency_frequency, spend, product_mix, engagement),
    "offers_v1": (product_history, engagement),
    "restock_v1": (category_history, recency_frequency),
}


FAMILIES = (recency_frequency, spend, product_mix, product_history, engagement, category_history)


def feast_objects(home: Path) -> list[Any]:
    """Entity, views and services over the snapshots in `home`; no snapshot needs to exist yet."""
    from feast import FeatureService

    from features.families import feast_views

    views_by_family = {family: family.view(home) for family in FAMILIES}
    services = [
        FeatureService(name=name, features=[views_by_family[family] for family in families])
        for name, families in SERVICES.items()
    ]
    return [feast_views.customer_entity(), *views_by_family.values(), *services]


if "REGULARS_FEAST_HOME" in os.environ:
    # Feast's own command looks for objects among a module's names; FeatureStore.apply registers them itself.
    _objects = feast_objects(Path(os.environ["REGULARS_FEAST_HOME"]))
    globals().update({f"_{feast_object.name}": feast_object for feast_object in _objects})
