"""Definitions: what Feast is told, one entity, one view a family, and one feature service a model."""

import os
from pathlib import Path
from typing import Any

from features import engagement, needs, rhythm, spend, staples, taste

SERVICES = {
    "recommender_v1": (staples,),
    "churn_v1": (rhythm, spend, taste, engagement),
    "timing_v1": (rhythm, spend, taste, engagement),
    "value_v1": (rhythm, spend, taste, engagement),
    "offers_v1": (staples, engagement),
    "restock_v1": (needs, rhythm),
}


FAMILIES = (rhythm, spend, taste, staples, engagement, needs)


def everything(home: Path) -> list[Any]:
    """The entity, views and services over the snapshots in a folder; nothing needs to lie there yet."""
    from feast import FeatureService

    from features import views

    shown = {family: family.view(home) for family in FAMILIES}
    services = [
        FeatureService(name=name, features=[shown[family] for family in families])
        for name, families in SERVICES.items()
    ]
    return [views.customer(), *shown.values(), *services]


if "REGULARS_FEAST_HOME" in os.environ:
    # Feast's own command looks for objects among a module's names; store.apply calls everything itself.
    _all = everything(Path(os.environ["REGULARS_FEAST_HOME"]))
    globals().update({f"_{thing.name}": thing for thing in _all})
