"""Nightly batch scoring of every customer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from serving.arrays.digests import DEPENDENCIES
from serving.scoring.fallback import Prediction
from serving.scoring.inputs import NightlyInputs, NightlyRun
from serving.scoring.night_publication import NightPublication
from serving.scoring.questions import PREDICTORS
from serving.scoring.rfm import RfmQuintiles

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
_PORTION_SIZES = {"recommender": 5_000, "restock": 5_000, "offers": 2_000}
#: Customers of a task of Spark, which scores no one model for all customers at once.
_TASK_PORTION_SIZE = 20_000


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
        run_id = score_store.begin_run(shop, name, str(version), as_of)
        with lookup.open_model(name) as arrays:
            for inputs, stored in portions.iter_stored(name, run_id):
                written += stored.written
                keys.update(stored.keys)
                arrays.add(inputs, stored.prediction)
            score_store.finish_run(shop, run_id)
    return len(keys), written


@dataclass(frozen=True)
class StoredPrediction:
    """The prediction of a portion of the customers, whose scores are stored: keys of those with one, and how many."""

    prediction: Prediction
    keys: list[int]
    written: int


def store_prediction(shop: Shop, run_id: int, prediction: Prediction, *, is_parallel: bool = False) -> StoredPrediction:
    """Store the scores of a portion; idempotent. is_parallel: others store those of other customers meanwhile."""
    rows = list(prediction.iter_rows())
    written = score_store.write_scores(shop, run_id, rows, is_parallel=is_parallel)
    return StoredPrediction(prediction, [row[0] for row in rows], written)


class _Portions:
    """The customers of a nightly run in portions; models that score everyone of a view at once share their inputs."""

    def __init__(self, nightly_run: NightlyRun) -> None:
        self.nightly_run = nightly_run
        self._everyone_by_view: dict[str, NightlyInputs] = {}

    def iter_stored(self, name: str, run_id: int) -> Iterator[tuple[NightlyInputs, StoredPrediction]]:
        """Score and store a portion after another; by tasks where Spark is the engine. The predictions, with inputs."""
        shop = self.nightly_run.shop
        if shop.engine == DUCKDB:
            for inputs in self.iter_inputs(name):
                yield inputs, store_prediction(shop, run_id, PREDICTORS[name](inputs))
            return
        for inputs, result in self._iter_by_tasks(name, run_id):
            yield inputs, result if isinstance(result, StoredPrediction) else store_prediction(shop, run_id, result)

    def _iter_by_tasks(self, name: str, run_id: int) -> Iterator[tuple[NightlyInputs, StoredPrediction | Prediction]]:
        """Predictions; already stored where the database takes several writers: SQLite has one, this process."""
        from features.engine import spark  # imported here: only a shop with this engine has it

        nightly_run = replace(self.nightly_run, quintiles=self._load_quintiles(name))
        portions = list(self._split(_VIEWS[name], _PORTION_SIZES.get(name, _TASK_PORTION_SIZE)))
        scorer = _PortionScorer(name, nightly_run, None if nightly_run.shop.has_one_writer else run_id)
        keys = [each.keys for each in portions]
        yield from zip(portions, spark.map_portions(score_portion, scorer, keys), strict=True)

    def _load_quintiles(self, name: str) -> RfmQuintiles | None:
        """Those of all customers, for models that need them: a task has a portion of the customers only."""
        if "churn" not in DEPENDENCIES[name] or "churn" not in self.nightly_run.models:
            return None
        everyone = self._everyone(_VIEWS["churn"])
        return everyone.load_quintiles(everyone.load_features("churn"))

    def iter_inputs(self, name: str) -> Iterator[NightlyInputs]:
        """Inputs of the customers that a model scores; none where there are no customers."""
        if name in _PORTION_SIZES:
            yield from self._split(_VIEWS[name], _PORTION_SIZES[name])
        elif len((everyone := self._everyone(_VIEWS[name])).keys):
            yield everyone

    def _split(self, view: str, size: int) -> Iterator[NightlyInputs]:
        entities = self._load_entities(view)
        for start in range(0, len(entities), size):
            yield NightlyInputs(self.nightly_run, entities.iloc[start : start + size].reset_index(drop=True))

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
    """What a task of Spark scores a portion of the customers with: the models and the rest of a nightly run.

    It travels to other processes without the shop's key, which scoring does not need, and without open files. With
    run_id, tasks store the scores.
    """

    def __init__(self, name: str, nightly_run: NightlyRun, run_id: int | None = None) -> None:
        self.name = name
        self.run_id = run_id
        self.shop = replace(nightly_run.shop, key=b"")
        self.folder = nightly_run.store.folder
        self.models = {each: nightly_run.models[each] for each in DEPENDENCIES[name] if each in nightly_run.models}
        self.as_of = nightly_run.as_of
        self.fallback_names = nightly_run.fallback_names
        self.quintiles = nightly_run.quintiles

    @cached_property
    def nightly_run(self) -> NightlyRun:
        """The nightly run as this process opens it, once for all of its portions."""
        store = open_store(self.folder)
        return NightlyRun(self.shop, store, self.models, self.as_of, self.fallback_names, self.quintiles)


def score_portion(scorer: _PortionScorer, keys: Sequence[int]) -> StoredPrediction | Prediction:
    """The predictions of these customers, in their order; stored where tasks may write."""
    entities = pd.DataFrame({"customer_key": np.asarray(keys, np.int64)})
    prediction = PREDICTORS[scorer.name](NightlyInputs(scorer.nightly_run, entities))
    if scorer.run_id is None:
        return prediction
    return store_prediction(scorer.shop, scorer.run_id, prediction, is_parallel=True)
