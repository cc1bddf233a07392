"""Nightly batch scoring of every customer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from customers.privacy import consents
from customers.scores import score_store
from customers.shop.settings import DUCKDB, Shop
from features.store.feature_store import FeatureStore, open_store
from models.base import Model
from serving.scoring.fallback import Prediction
from serving.scoring.inputs import NightlyInputs, NightlyRun
from serving.scoring.night_publication import NightPublication
from serving.scoring.questions import PREDICTORS

#: The feature view whose rows are the customers that a model scores.
_VIEWS = {
    "recommender": "shelf",
    "offers": "shelf",
    "churn": "rhythm",
    "timing": "rhythm",
    "restock": "needs",
    "value": "rhythm",
}
#: Customers scored together where a portion must fit in memory: the lists of a million customers would not, and each
#: customer may be eligible for hundreds of offers. Other models score all customers at once.
_PORTION_SIZES = {"recommender": 20_000, "restock": 20_000, "offers": 2_000}


def score_all_customers(
    shop: Shop,
    features: FeatureStore,
    versioned_models: Mapping[str, tuple[Any, Model]],
    as_of: datetime,
    *,
    fallback_names: Collection[str] = (),
) -> tuple[int, int]:
    """Score every customer with features as of `as_of` who allows profiling; return customers and scores written.

    versioned_models: version and model by name. A model's scores become visible to bulk reads together, when all are
    written. fallback_names: baselines that serve where there was too little data; their scores are flagged.
    """
    models = {name: model for name, (_, model) in versioned_models.items()}
    nightly_run = NightlyRun(shop, features, models, as_of, fallback_names)
    portions = _Portions(nightly_run)
    lookup = NightPublication.begin(
        nightly_run, {name: str(version) for name, (version, _) in versioned_models.items()}
    )
    keys: set[int] = set()
    written = 0
    for name, (version, _) in versioned_models.items():
        run = score_store.begin_run(shop, name, str(version), as_of)
        with lookup.open_model(name) as arrays:
            for inputs, prediction in portions.iter_predictions(name):
                rows = list(prediction.iter_rows())
                written += score_store.write_scores(shop, run, rows)
                keys.update(row[0] for row in rows)
                arrays.add(inputs, prediction)
            score_store.finish_run(shop, run)
    return len(keys), written


class _Portions:
    """The customers of a nightly run in portions; models that score everyone of a view at once share their inputs."""

    def __init__(self, nightly_run: NightlyRun) -> None:
        self.nightly_run = nightly_run
        self._everyone_by_view: dict[str, NightlyInputs] = {}

    def iter_predictions(self, name: str) -> Iterator[tuple[NightlyInputs, Prediction]]:
        """The predictions of a model with their inputs, a portion after another; by Spark's tasks where it computes."""
        if name not in _PORTION_SIZES or self.nightly_run.shop.engine == DUCKDB:
            for inputs in self.iter_inputs(name):
                yield inputs, PREDICTORS[name](inputs)
            return
        from features.engine import spark  # imported here: only a shop with this engine has it

        portions = list(self.iter_inputs(name))
        scorer = _PortionScorer(name, self.nightly_run)
        yield from zip(
            portions, spark.map_portions(predict_portion, scorer, [each.keys for each in portions]), strict=True
        )

    def iter_inputs(self, name: str) -> Iterator[NightlyInputs]:
        """Inputs of the customers that a model scores; none where there are no customers."""
        if name in _PORTION_SIZES:
            entities, size = self._load_entities(_VIEWS[name]), _PORTION_SIZES[name]
            for start in range(0, len(entities), size):
                yield NightlyInputs(self.nightly_run, entities.iloc[start : start + size].reset_index(drop=True))
        elif len((everyone := self._everyone(_VIEWS[name])).keys):
            yield everyone

    def _everyone(self, view: str) -> NightlyInputs:
        if view not in self._everyone_by_view:
            self._everyone_by_view[view] = NightlyInputs(self.nightly_run, self._load_entities(view))
        return self._everyone_by_view[view]

    def _load_entities(self, view: str) -> pd.DataFrame:
        """Customers with features at as_of who allow profiling: columns customer_key, event_timestamp."""
        nightly_run = self.nightly_run
        entities = pd.read_parquet(
            nightly_run.store.folder / view / "part.parquet",
            columns=["customer_key", "event_timestamp"],
            filters=[("event_timestamp", "==", nightly_run.as_of)],
        )
        return consents.filter_allowed(nightly_run.shop, entities, "profiling")


class _PortionScorer:
    """What a task of Spark scores a portion of the customers with: the model and the rest of a nightly run.

    It travels to other processes without the shop's key, which scoring does not need, and without open files.
    """

    def __init__(self, name: str, nightly_run: NightlyRun) -> None:
        self.name = name
        self.shop = replace(nightly_run.shop, key=b"")
        self.folder = nightly_run.store.folder
        self.models = {name: nightly_run.models[name]}
        self.as_of = nightly_run.as_of
        self.fallback_names = nightly_run.fallback_names

    @cached_property
    def nightly_run(self) -> NightlyRun:
        """The nightly run as this process opens it, once for all of its portions."""
        return NightlyRun(self.shop, open_store(self.folder), self.models, self.as_of, self.fallback_names)


def predict_portion(scorer: _PortionScorer, keys: Sequence[int]) -> Prediction:
    """The predictions of these customers, in their order."""
    entities = pd.DataFrame({"customer_key": np.asarray(keys, np.int64)})
    return PREDICTORS[scorer.name](NightlyInputs(scorer.nightly_run, entities))
