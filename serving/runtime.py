"""Server runtime: one shop with its online features and its champion models, opened once per process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import clock, tracing
from customers.catalogue import product_attributes
from customers.database import direct_reads
from customers.privacy import consents
from customers.scores import current_scores
from customers.shop import settings, timestamps
from customers.shop.errors import ShopUnavailable
from customers.shop.settings import Shop
from features.store import feature_store
from features.store.online_values import OnlineStoreUnavailable
from models.registry import champions
from models.registry.bundle import Champion
from serving.http import request_context
from serving.http.problems import Problem
from serving.http.request_context import Degradation
from serving.offers import offer_inventory

MODEL_NAMES = ("recommender", "offers", "churn", "timing", "restock", "value")
#: A feature service with basket values, and one that covers every customer who bought or was contacted.
SPEND_SERVICE = "churn_v1"
ALL_CUSTOMERS_SERVICE = "offers_v1"
#: The feature service with the category history.
RESTOCK_SERVICE = "restock_v1"
LOST_VALUES_REASON = "the online store has lost its features, and is being filled again"
#: The key that stands for every unknown customer; no customer has it.
UNKNOWN_CUSTOMER = -1


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether any model can answer, the version of each that can, and the reason for each that cannot."""

    is_ready: bool
    models: dict[str, str]
    reasons: list[str]


@dataclass(frozen=True)
class ServerRuntime:
    """What every endpoint needs: the shop, its feature store and its champions."""

    shop: Shop
    features: feature_store.FeatureStore
    champions: champions.Champions = field(repr=False)
    #: Held while customers are deleted from the feature store.
    store_lock: Lock = field(default_factory=Lock, repr=False)
    #: Customers whose features could not be refreshed: later requests do not wait for them again.
    failed_customer_keys: set[int] = field(default_factory=set, repr=False)

    def champion(self, name: str) -> Champion:
        """The current champion of a model; a promotion takes effect between two requests.

        Raises Problem (503) when the model has no champion yet.
        """
        champion = self.champions.get(name)
        if champion is None:
            raise Problem(503, _no_champion_detail(name), headers={"Retry-After": "60"})
        return champion

    def feature_service(self, champion: Champion) -> str:
        """The feature service whose columns a champion reads."""
        return champion.facts.get("service", f"{champion.name}_v1")

    @tracing.traced("feature read")
    def load_service(
        self, service: str, keys: Sequence[int], written: feature_store.WrittenRows | None = None
    ) -> pd.DataFrame:
        """The newest online features of a feature service, a row per key in order.

        Columns: customer_key, as_of (UTC; NaT without features) and the features of the service. `written`: rows that
        were pushed just now.
        """
        try:
            # Before the read: a store that is filled by then has every view of each customer.
            has_lost_values = self.features.has_lost_values()
            frame = self.features.online_features(service, keys, written)
            is_missing = (frame["event_timestamp"].isna() & (frame["customer_key"] >= 0)).to_numpy(bool)
            if has_lost_values or (is_missing.any() and self.features.has_lost_values()):
                is_missing |= self._is_of_snapshot(service, frame)
                frame = self._complete_from_snapshot(service, frame, is_missing) if is_missing.any() else frame
        except OnlineStoreUnavailable as error:
            frame = self._load_snapshot(service, keys, str(error))
        return frame.rename(columns={"event_timestamp": "as_of"})

    def _is_of_snapshot(self, service: str, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Rows no newer than the night, (n_rows,): parts of them may be missing while the store is filled."""
        latest_at = self.features.latest_snapshot_at(service)
        if latest_at is None:
            return np.zeros(len(frame), bool)
        return (frame["event_timestamp"] <= pd.Timestamp(latest_at)).to_numpy(bool)

    def _complete_from_snapshot(self, service: str, frame: pd.DataFrame, is_missing: NDArray[np.bool_]) -> pd.DataFrame:
        """The same rows and columns, with the night's features of the missing customers; is_missing: (n_rows,)."""
        stored = self._load_snapshot(service, frame["customer_key"][is_missing].tolist(), LOST_VALUES_REASON)
        combined = pd.concat([frame[~is_missing], stored], ignore_index=True)
        order = np.argsort(np.concatenate([np.flatnonzero(~is_missing), np.flatnonzero(is_missing)]))
        return combined.take(order).reset_index(drop=True)

    def _load_snapshot(self, service: str, keys: Sequence[int], reason: str) -> pd.DataFrame:
        """The features of the last nightly run, columns as of `load_service`; the answer is marked as degraded.

        A customer who has withdrawn the use of sensitive products has none: the night's may have been made of them.
        """
        latest_at = self.features.latest_snapshot_at(service)
        if latest_at is None:
            raise ShopUnavailable(reason)
        age = self.now() - latest_at
        request_context.current().degraded = Degradation(reason, latest_at, max(0.0, age.total_seconds()))
        frame = self.features.snapshot_features(service, sorted(self._without_withdrawn(keys)), latest_at)
        has_features = frame.drop(columns=["customer_key", "event_timestamp"]).notna().any(axis=1)
        frame["event_timestamp"] = frame["event_timestamp"].where(has_features)
        return frame.set_index("customer_key").reindex(list(keys)).rename_axis("customer_key").reset_index()

    def _without_withdrawn(self, keys: Sequence[int]) -> set[int]:
        """Customers whose night's features may be used now: those who have not withdrawn the use of sensitive ones."""
        if not self.get_inventory().sensitive_products:
            return set(keys)
        return set(keys) - consents.withdrawn_customers(self.shop, keys, "profiling_sensitive")

    def load_features(self, champion: Champion, keys: Sequence[int]) -> pd.DataFrame:
        """As `load_service`, of a champion's service, with a last row for UNKNOWN_CUSTOMER; columns as there."""
        return self.load_service(self.feature_service(champion), [*keys, UNKNOWN_CUSTOMER])

    @property
    def has_computed_features(self) -> bool:
        """Whether a nightly run has written any features yet."""
        return any(self.features.folder.glob("*/part.parquet"))

    def warm_up(self) -> None:
        """Read features once without any customer, so that the first request does not wait for libraries to load."""
        for champion in filter(None, map(self.champions.get, MODEL_NAMES)):
            self.load_features(champion, [])

    def get_inventory(self) -> offer_inventory.OfferInventory:
        """The current offers, with sold-out and sensitive products."""
        return offer_inventory.load_offer_inventory(self.shop)

    def load_basket_values(self, keys: Sequence[int]) -> NDArray[np.float64]:
        """The mean basket value of each customer, shape (n_keys,); NaN where unknown."""
        return self.load_service(SPEND_SERVICE, keys)["basket_value_mean"].to_numpy(np.float64)

    def latest_features_at(self, keys: Sequence[int]) -> datetime | None:
        """The newest as_of of the online features of any of these customers; None where they have none.

        Where the online store has lost them, that of any score: new features must be later than the lost ones.
        """
        latest_at = self.features.latest_event_at(ALL_CUSTOMERS_SERVICE, keys)
        if latest_at is None and self.features.has_lost_values():
            return current_scores.read_latest_as_of(self.shop) or self.features.latest_snapshot_at(
                ALL_CUSTOMERS_SERVICE
            )
        return latest_at

    def products_in_categories(self, categories: Sequence[str]) -> list[int]:
        """The keys of the products of these categories, compared without regard to upper or lower case."""
        return product_attributes.load_attributes(self.shop).keys_in_categories(categories).tolist()

    def now(self) -> datetime:
        """The current time by the shop's clock."""
        return clock.now(self.shop)

    def check_readiness(self) -> Readiness:
        """Whether any model has a champion; the first nightly run creates the first champions."""
        champions = {name: self.champions.get(name) for name in MODEL_NAMES}
        errors = self.champions.errors
        outages = list(self._find_outages())
        return Readiness(
            is_ready=any(champions.values()),
            models={name: str(champion.version) for name, champion in champions.items() if champion},
            reasons=[
                f"{name}: its newest version is refused, {errors[name]}"
                if name in errors
                else _no_champion_detail(name)
                for name, champion in champions.items()
                if name in errors or champion is None
            ]
            + outages,
        )

    def _find_outages(self) -> Iterator[str]:
        """Why answers are degraded or missing at present: the stores that do not answer."""
        try:
            direct_reads.get_reader(self.shop).read_version()  # fails within seconds
        except ShopUnavailable as error:
            yield f"{error}; answers are of the last nightly run and of what was read last, marked as degraded"
        if self.has_computed_features:
            try:
                if self.features.has_lost_values():
                    yield f"{LOST_VALUES_REASON}; until then answers are of the last nightly run, marked as degraded"
            except OnlineStoreUnavailable as error:
                yield f"{error}; answers are of the features of the last nightly run, marked as degraded"

    def attribution_token(self, request_id: str, versions: dict[str, str], as_of: datetime) -> str:
        """A token that links a later outcome to this response; signed (HMAC-SHA256), so that it cannot be forged."""
        payload = json.dumps([request_id, versions, timestamps.to_micros(as_of)], separators=(",", ":")).encode()
        signature = hmac.new(self.shop.key, b"attribution:" + payload, hashlib.sha256).digest()[:12]
        return base64.urlsafe_b64encode(signature + payload).decode().rstrip("=")


def _no_champion_detail(name: str) -> str:
    return f"{name} has no champion yet; run: regulars run"


def get_runtime() -> ServerRuntime:
    """The runtime of the shop home that this process serves."""
    return _open_home(settings.home_folder(None))


def open_runtime(shop: Shop) -> ServerRuntime:
    """The runtime of a shop, opened at most once per process: Feast and the champions are slow to load."""
    return _open_home(shop.home)


@cache
def _open_home(home: Path) -> ServerRuntime:
    shop = settings.open_shop(home)
    features = feature_store.open_store(home / "features", shop.online_store)
    return ServerRuntime(shop, features, champions.Champions(home / "champions"))
