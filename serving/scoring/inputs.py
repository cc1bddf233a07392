"""Inputs of scoring for some customers: features, models and offer inventory, by one interface online and at night."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from customers.privacy import consents
from customers.scores.score_frames import load_score_details
from customers.shop.settings import Shop
from features.store.feature_store import FeatureStore, WrittenRows
from models.base import Model
from models.registry.bundle import Champion
from serving.offers import offer_inventory
from serving.offers.offer_inventory import OfferInventory
from serving.recommendations import merchandising
from serving.recommendations.merchandising import ActiveRules
from serving.runtime import RESTOCK_SERVICE, SPEND_SERVICE, UNKNOWN_CUSTOMER, ServerRuntime
from serving.scoring import fallback, rfm
from serving.scoring.fallback import Floats

PredictionT = TypeVar("PredictionT", bound=fallback.Prediction)


class ScoringInputs(ABC):
    """Customers to score and what their predictions are made of; features are read once per distinct column set.

    `keys` are the customers who allow profiling. `unprofiled_keys` are others, who get only what needs no profiling.
    """

    def __init__(self, shop: Shop, keys: Sequence[int], unprofiled_keys: Sequence[int] = ()) -> None:
        self.shop = shop
        self.keys = keys
        self.unprofiled_keys = unprofiled_keys
        self._frames: dict[tuple[str, ...], pd.DataFrame] = {}
        self._predictions: dict[str, fallback.Prediction] = {}

    # What differs between online and night

    @property
    @abstractmethod
    def store(self) -> FeatureStore:
        """The feature store."""

    @property
    @abstractmethod
    def now(self) -> datetime:
        """The time at which offers and merchandising rules must hold."""

    @property
    @abstractmethod
    def recorded_before(self) -> datetime | None:
        """Only what was recorded before this time counts; None: everything recorded so far."""

    @property
    @abstractmethod
    def inventory(self) -> OfferInventory:
        """Products and offers."""

    @property
    @abstractmethod
    def active_rules(self) -> ActiveRules:
        """The shop's merchandising rules."""

    @abstractmethod
    def find_model(self, name: str) -> Model | None:
        """The model that scores, if there is one."""

    @abstractmethod
    def uses_fallback(self, name: str) -> bool:
        """Whether a baseline serves as fallback for this model."""

    @abstractmethod
    def feature_service(self, name: str) -> str:
        """The feature service whose columns the model reads."""

    @abstractmethod
    def load_quintiles(self, frame: pd.DataFrame) -> rfm.RfmQuintiles | None:
        """RFM quintiles, for a frame with the columns of the churn model; None before the first nightly run."""

    @abstractmethod
    def load_stored_spend(self) -> Floats | None:
        """Expected spend (n_customers,) where there is no value model; None where none is available."""

    @abstractmethod
    def read_features(self, service: str, rows: Sequence[int] | None = None) -> pd.DataFrame:
        """Read customer_key, as_of and the columns of a service, a row per customer: all, or those at these rows."""

    # What both share

    def load_features(self, name: str) -> pd.DataFrame:
        """The columns that a model reads, with customer_key and as_of, a row per customer."""
        return self.load_service(self.feature_service(name))

    def load_service(self, service: str) -> pd.DataFrame:
        """customer_key, as_of and the columns of a feature service, a row per customer; read once."""
        columns = tuple(self.store.feature_names(service))
        if columns not in self._frames:
            self._frames[columns] = self.read_features(service)
        return self._frames[columns]

    def load_category_history(self, rows: Sequence[int]) -> pd.DataFrame:
        """Category history, a row per requested row number; columns as in `features.families.category_history`."""
        columns = tuple(self.store.feature_names(RESTOCK_SERVICE))
        if columns in self._frames or len(rows) == len(self.keys):
            return self.load_service(RESTOCK_SERVICE).iloc[list(rows)].reset_index(drop=True)
        return self.read_features(RESTOCK_SERVICE, rows)

    def load_basket_values(self, keys: Sequence[int]) -> Floats:
        """Mean basket value (n_keys,) of these customers; NaN where unknown."""
        basket_values = self.load_service(SPEND_SERVICE).set_index("customer_key")["basket_value_mean"]
        return np.asarray(basket_values.reindex(list(keys)), np.float64)

    def get_model(self, name: str) -> Model:
        """The model that scores. Raises LookupError where there is none."""
        model = self.find_model(name)
        if model is None:
            raise LookupError(f"there is no {name} model")
        return model

    def consenting_customers(self, hidden: Collection[Any]) -> set[int]:
        """Customers to whom hidden (sensitive) products or categories may be shown; empty where none is hidden."""
        return consents.allowed_customers(self.shop, self.keys, "profiling_sensitive") if hidden else set()

    def predict_once(self, name: str, predict: Callable[[], PredictionT]) -> PredictionT:
        """The prediction of a question for these customers, computed on the first call and shared by later ones."""
        if name not in self._predictions:
            self._predictions[name] = predict()
        return self._predictions[name]  # type: ignore[return-value]


class OnlineInputs(ScoringInputs):
    """Inputs of one request: newest online features and current champions.

    Frames have a row per key in order, and a last row of the unknown customer. `written`: features that were pushed to
    the online store just now.
    """

    def __init__(
        self,
        runtime: ServerRuntime,
        keys: Sequence[int],
        unprofiled_keys: Sequence[int] = (),
        *,
        written: WrittenRows | None = None,
    ) -> None:
        super().__init__(runtime.shop, keys, unprofiled_keys)
        self.runtime = runtime
        self._written = written
        self._champions: dict[str, Champion | None] = {}

    def find_champion(self, name: str) -> Champion | None:
        """The champion of a question, if there is one; the same for the whole request."""
        if name not in self._champions:
            self._champions[name] = self.runtime.champions.get(name)
        return self._champions[name]

    def champion(self, name: str) -> Champion:
        """The champion of a question. Raises Problem 503 where there is none."""
        return self.find_champion(name) or self.runtime.champion(name)

    @property
    def store(self) -> FeatureStore:
        return self.runtime.features

    @property
    def now(self) -> datetime:
        return self.runtime.now()

    @property
    def recorded_before(self) -> datetime | None:
        return None

    @cached_property
    def inventory(self) -> OfferInventory:
        return self.runtime.get_inventory()

    @cached_property
    def active_rules(self) -> ActiveRules:
        return merchandising.load_active_rules(self.shop, self.now)

    def find_model(self, name: str) -> Model | None:
        champion = self.find_champion(name)
        return champion.model if champion else None

    def uses_fallback(self, name: str) -> bool:
        return fallback.uses_fallback(self.champion(name))

    def feature_service(self, name: str) -> str:
        return self.runtime.feature_service(self.champion(name))

    def load_quintiles(self, frame: pd.DataFrame) -> rfm.RfmQuintiles | None:
        """RFM quintiles of the last nightly run, whatever the columns of the frame."""
        return rfm.load_quintiles(self.shop.home)

    def load_stored_spend(self) -> Floats | None:
        """Always None: without a value champion, bands do not use spend."""
        return None

    def read_features(self, service: str, rows: Sequence[int] | None = None) -> pd.DataFrame:
        """Read the columns of a service from the online store: all customers and the unknown one, or these rows."""
        keys = [*self.keys, UNKNOWN_CUSTOMER]
        requested = keys if rows is None else [keys[row] for row in rows]
        return self.runtime.load_service(service, requested, self._written)


@dataclass(frozen=True)
class NightlyRun:
    """What all inputs of one nightly run share: the shop, the feature store, the models and as_of.

    quintiles: RFM quintiles of all customers, where the inputs have only some of them.
    """

    shop: Shop
    store: FeatureStore
    models: Mapping[str, Model]
    as_of: datetime
    fallback_names: Collection[str]
    quintiles: rfm.RfmQuintiles | None = None

    @cached_property
    def inventory(self) -> OfferInventory:
        """Products, and the offers that are active at as_of."""
        return offer_inventory.load_offer_inventory(self.shop).filter_active(self.as_of)

    @cached_property
    def active_rules(self) -> ActiveRules:
        """The shop's merchandising rules at as_of."""
        return merchandising.load_active_rules(self.shop, self.as_of)


class NightlyInputs(ScoringInputs):
    """Inputs of some customers of a nightly run: features as of the run, from the offline store.

    entities: column customer_key; frames have a row per row of it.
    """

    def __init__(self, nightly_run: NightlyRun, entities: pd.DataFrame) -> None:
        super().__init__(nightly_run.shop, entities["customer_key"].tolist())
        self.nightly_run = nightly_run

    @property
    def store(self) -> FeatureStore:
        return self.nightly_run.store

    @property
    def now(self) -> datetime:
        return self.nightly_run.as_of

    @property
    def recorded_before(self) -> datetime | None:
        return self.nightly_run.as_of

    @property
    def inventory(self) -> OfferInventory:
        return self.nightly_run.inventory

    @property
    def active_rules(self) -> ActiveRules:
        return self.nightly_run.active_rules

    def find_model(self, name: str) -> Model | None:
        return self.nightly_run.models.get(name)

    def uses_fallback(self, name: str) -> bool:
        return name in self.nightly_run.fallback_names

    def feature_service(self, name: str) -> str:
        return f"{name}_v1"

    def load_quintiles(self, frame: pd.DataFrame) -> rfm.RfmQuintiles | None:
        """RFM quintiles of the run, else of the customers of the frame, which are saved for online scoring.

        frame: columns `rfm.RFM_COLUMNS`.
        """
        if self.nightly_run.quintiles is not None:
            return self.nightly_run.quintiles
        quintiles = rfm.compute_quintiles(frame, self.nightly_run.as_of)
        rfm.save_quintiles(self.shop.home, quintiles)
        return quintiles

    def load_stored_spend(self) -> Floats | None:
        """Expected spend (n_customers,) from the newest stored value scores; NaN in a run of an earlier day."""
        key_range = range(min(self.keys, default=0), max(self.keys, default=0) + 1)
        stored = load_score_details(self.shop, "value", key_range=key_range)
        is_current = stored.attrs.get("as_of", self.nightly_run.as_of) <= self.nightly_run.as_of
        value_by_key = stored.set_index("customer_key")["value"]
        keys = pd.Series(self.keys, dtype="int64")
        return keys.map(value_by_key if is_current else {}).to_numpy(np.float64)

    def read_features(self, service: str, rows: Sequence[int] | None = None) -> pd.DataFrame:
        """Read the columns of a service as of the run, for all customers or those at these rows."""
        keys = self.keys if rows is None else [self.keys[row] for row in rows]
        features = self.store.snapshot_features(service, keys, self.nightly_run.as_of)
        return features.rename(columns={"event_timestamp": "as_of"})
