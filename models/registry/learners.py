"""Public ids of learners: stable names in bundles, the registry and reports, independent of module paths.

An id is written into every bundle, promotion and MLflow run, so it never changes; the path beside it may.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: The class of each id, as module:class. A bundle holds an id, never an import path.
LEARNERS = {
    "recommender.Recommender": "models.recommender.model:Recommender",
    "bestsellers.Popularity": "models.recommender.popularity:Popularity",
    "bestsellers.DecayedFrequency": "models.recommender.decayed_frequency:DecayedFrequency",
    "churn.Churn": "models.churn.model:ChurnModel",
    "seasoned.SeasonedBgNbd": "models.churn.seasonal_bg_nbd:SeasonalBgNbdChurn",
    "timing.Timing": "models.timing.model:TimingModel",
    "hazard.Hazard": "models.timing.hazard_trees:HazardTrees",
    "offers.Offers": "models.offers.model:OfferModel",
    "offers.AffinityRate": "models.offers.baselines:AffinityRate",
    "restock.Restock": "models.restock.model:RestockModel",
    "stocks.OwnRate": "models.restock.baselines:PoissonRestock",
    "stocks.PairRhythm": "models.restock.baselines:BgNbdRestock",
    "value.Value": "models.value.model:ValueModel",
    "spending.BgNbdGammaGamma": "models.value.baselines:BgNbdGammaGamma",
    "spending.RateValue": "models.value.baselines:RateValue",
    "uplift.Uplift": "models.uplift.model:UpliftModel",
    "baselines.RecencyChurn": "models.churn.baselines:RecencyChurn",
    "baselines.RfmLogistic": "models.churn.baselines:RfmLogistic",
    "baselines.BgNbdChurn": "models.churn.baselines:BgNbdChurn",
    "baselines.BgNbdTiming": "models.timing.baselines:BgNbdTiming",
    "baselines.KaplanMeierTiming": "models.timing.baselines:KaplanMeierTiming",
}
_IDS = {path: learner for learner, path in LEARNERS.items()}


def learner_class(learner: str) -> Any:
    """The class of a learner id, imported on first use. Raises KeyError for an id that is not in the table."""
    module, name = LEARNERS[learner].split(":")
    return getattr(import_module(module), name)


def learner_id(learner: type) -> str | None:
    """The id of a learner's class; None where the table does not have it."""
    return _IDS.get(f"{learner.__module__}:{learner.__qualname__}")
