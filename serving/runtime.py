"""The desk: one shop, its online features and its champions together, opened once and asked all day."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import clock
from customers.catalogue import product_attributes
from customers.scores import score_details
from customers.shop import settings, timestamps
from customers.shop.settings import Shop
from features.store import feature_store
from models.registry import champions
from models.registry.bundle import Champion
from serving.http.problems import Problem
from serving.offers import offer_inventory
from serving.scoring import rfm, write_back

MODEL_NAMES = ("recommender", "offers", "churn", "timing", "restock", "value")
#: A service that knows what baskets are worth; and one that knows whoever bought or was written to.
SPEND_SERVICE = "churn_v1"
ALL_CUSTOMERS_SERVICE = "offers_v1"
#: And one that knows how often they bought of each category.
RESTOCK_SERVICE = "restock_v1"
#: Figures that were read already, by their columns.
FeatureCache = dict[tuple[str, ...], pd.DataFrame]
#: Stands for everybody the shop does not know: a key that nobody has.
UNKNOWN_CUSTOMER = -1


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether anything can be answered, by which versions, and what is missing."""

    is_ready: bool
    models: dict[str, str]
    reasons: list[str]


@dataclass(frozen=True)
class ServerRuntime:
    """What every answer needs."""

    shop: Shop
    features: feature_store.FeatureStore
    champions: champions.Champions = field(repr=False)
    #: Feast has one connection, and hushes all threads while it works for one: they take turns.
    store_lock: Lock = field(default_factory=Lock, repr=False)
    #: Whose figures could not be computed again: nobody else waits for them.
    failed_customer_keys: set[int] = field(default_factory=set, repr=False)

    def champion(self, name: str) -> Champion:
        """Who speaks for the shop now; a promotion is noticed between two questions."""
        champion = self.champions.get(name)
        if champion is None:
            raise Problem(503, _no_champion_detail(name), headers={"Retry-After": "60"})
        return champion

    def load_features(
        self, champion: Champion, keys: Sequence[int], feature_cache: FeatureCache | None = None
    ) -> pd.DataFrame:
        """The newest features that a champion asks for, a row a key in order, and a last one for nobody.

        `seen` remembers what was read of the same customers for another champion.
        """
        service = champion.facts.get("service", f"{champion.name}_v1")
        columns = tuple(self.features.feature_names(service))
        if feature_cache is not None and columns in feature_cache:
            return feature_cache[columns]
        with self.store_lock:
            frame = self.features.online_features(service, [*keys, UNKNOWN_CUSTOMER]).rename(columns={"event_timestamp": "as_of"})
        if feature_cache is not None:
            feature_cache[columns] = frame
        return frame

    @property
    def has_computed_features(self) -> bool:
        """Whether a night has computed any figures yet."""
        return any(self.features.folder.glob("*/part.parquet"))

    def warm_up(self) -> None:
        """Ask once for nobody, so that the first customer does not wait for libraries to load."""
        for champion in filter(None, map(self.champions.get, MODEL_NAMES)):
            self.load_features(champion, [])

    def store_scores(self, champion: Champion, frame: pd.DataFrame, rows: Iterable[score_details.ScoreRow]) -> None:
        """Write down what a champion said of the customers of a frame, before anybody hears it."""
        write_back.store_online_scores(self.shop, champion, frame, rows)

    def get_inventory(self) -> offer_inventory.OfferInventory:
        """What there is to sell and to offer now."""
        return offer_inventory.load_offer_inventory(self.shop)

    def load_basket_values(self, keys: Sequence[int]) -> NDArray[np.float64]:
        """What the usual basket of each of these customers is worth; NaN where unknown."""
        with self.store_lock:
            frame = self.features.online_features(SPEND_SERVICE, keys)
        return frame["basket_value_mean"].to_numpy(np.float64)

    def load_category_history(self, keys: Sequence[int]) -> pd.DataFrame:
        """What each of these customers buys of each category, as lists (see features.families.category_history), a row a key."""
        with self.store_lock:
            return self.features.online_features(RESTOCK_SERVICE, keys)

    def latest_features_at(self, keys: Sequence[int]) -> datetime | None:
        """The newest moment that the online features of any of these customers speak of."""
        with self.store_lock:
            latest_at = self.features.online_features(ALL_CUSTOMERS_SERVICE, keys)["event_timestamp"].max()
        return None if pd.isna(latest_at) else pd.Timestamp(latest_at).to_pydatetime()

    def products_in_categories(self, categories: Sequence[str]) -> list[int]:
        """Products of these categories, whatever their capitals."""
        return product_attributes.load_attributes(self.shop).keys_in_categories(categories).tolist()

    def now(self) -> datetime:
        """The shop's own now."""
        return clock.now(self.shop)

    def load_rfm_quintiles(self) -> rfm.RfmQuintiles | None:
        """Where RFM's fifths end, as of the last night."""
        return rfm.load_quintiles(self.shop.home)

    def check_readiness(self) -> Readiness:
        """Whether there is anybody to answer; the first night brings the first champions."""
        champions = {name: self.champions.get(name) for name in MODEL_NAMES}
        errors = self.champions.errors
        return Readiness(
            is_ready=any(champions.values()),
            models={name: str(champion.version) for name, champion in champions.items() if champion},
            reasons=[
                f"{name}: its newest version is refused, {errors[name]}"
                if name in errors
                else _no_champion_detail(name)
                for name, champion in champions.items()
                if name in errors or champion is None
            ],
        )

    def attribution_token(self, request_id: str, versions: dict[str, str], as_of: datetime) -> str:
        """What ties a later outcome to this answer; sealed, so that nobody can claim one never given."""
        payload = json.dumps([request_id, versions, timestamps.to_micros(as_of)], separators=(",", ":")).encode()
        signature = hmac.new(self.shop.key, b"attribution:" + payload, hashlib.sha256).digest()[:12]
        return base64.urlsafe_b64encode(signature + payload).decode().rstrip("=")


def _no_champion_detail(name: str) -> str:
    return f"{name} has no champion yet; run: regulars run"


def get_runtime() -> ServerRuntime:
    """The desk of the home that this process serves."""
    return open_runtime(settings.open_shop())


def open_runtime(shop: Shop) -> ServerRuntime:
    """The desk of a shop, opened at most once a process: Feast and the champions take a while."""
    return _open_home(shop.home)


@cache
def _open_home(home: Path) -> ServerRuntime:
    shop = settings.open_shop(home)
    with _without_torch():
        features = feature_store.open_store(home / "features", shop.online_store)
    return ServerRuntime(shop, features, champions.Champions(home / "champions"))


@contextmanager
def _without_torch() -> Iterator[None]:
    """Feast would load torch for pictures that nobody has here: 190 MB a worker. Others may load it later."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
