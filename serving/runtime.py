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

from customers import assortment, clock, instants
from customers import shop as shops
from customers.shop import Shop
from features import store
from models import bundle
from models.bundle import Champion
from serving import details, rfm, stall, writeback
from serving.problems import Problem

MODELS = ("recommender", "offers", "churn", "timing", "restock", "value")
#: A service that knows what baskets are worth; and one that knows whoever bought or was written to.
SPENDING = "churn_v1"
EVERYBODY = "offers_v1"
#: And one that knows how often they bought of each category.
NEEDS = "restock_v1"
#: Figures that were read already, by their columns.
Seen = dict[tuple[str, ...], pd.DataFrame]
#: Stands for everybody the shop does not know: a key that nobody has.
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether anything can be answered, by which versions, and what is missing."""

    ready: bool
    models: dict[str, str]
    reasons: list[str]


@dataclass(frozen=True)
class Desk:
    """What every answer needs."""

    shop: Shop
    features: store.Store
    champions: bundle.Champions = field(repr=False)
    #: Feast has one connection, and hushes all threads while it works for one: they take turns.
    turn: Lock = field(default_factory=Lock, repr=False)
    #: Whose figures could not be computed again: nobody else waits for them.
    stuck: set[int] = field(default_factory=set, repr=False)

    def champion(self, name: str) -> Champion:
        """Who speaks for the shop now; a promotion is noticed between two questions."""
        champion = self.champions.get(name)
        if champion is None:
            raise Problem(503, _missing(name), headers={"Retry-After": "60"})
        return champion

    def figures(self, champion: Champion, keys: Sequence[int], seen: Seen | None = None) -> pd.DataFrame:
        """The newest features that a champion asks for, a row a key in order, and a last one for nobody.

        `seen` remembers what was read of the same customers for another champion.
        """
        service = champion.facts.get("service", f"{champion.name}_v1")
        columns = tuple(self.features.columns(service))
        if seen is not None and columns in seen:
            return seen[columns]
        with self.turn:
            frame = self.features.now(service, [*keys, NOBODY]).rename(columns={"event_timestamp": "as_of"})
        if seen is not None:
            seen[columns] = frame
        return frame

    @property
    def begun(self) -> bool:
        """Whether a night has computed any figures yet."""
        return any(self.features.folder.glob("*/part.parquet"))

    def warm(self) -> None:
        """Ask once for nobody, so that the first customer does not wait for libraries to load."""
        for champion in filter(None, map(self.champions.get, MODELS)):
            self.figures(champion, [])

    def keep(self, champion: Champion, frame: pd.DataFrame, rows: Iterable[details.Row]) -> None:
        """Write down what a champion said of the customers of a frame, before anybody hears it."""
        writeback.afresh(self.shop, champion, frame, rows)

    def goods(self) -> stall.Stall:
        """What there is to sell and to offer now."""
        return stall.of(self.shop)

    def baskets(self, keys: Sequence[int]) -> NDArray[np.float64]:
        """What the usual basket of each of these customers is worth; NaN where unknown."""
        with self.turn:
            frame = self.features.now(SPENDING, keys)
        return frame["basket_value_mean"].to_numpy(np.float64)

    def needs(self, keys: Sequence[int]) -> pd.DataFrame:
        """What each of these customers buys of each category, as lists (see features.needs), a row a key."""
        with self.turn:
            return self.features.now(NEEDS, keys)

    def seen_until(self, keys: Sequence[int]) -> datetime | None:
        """The newest moment that the online features of any of these customers speak of."""
        with self.turn:
            at = self.features.now(EVERYBODY, keys)["event_timestamp"].max()
        return None if pd.isna(at) else pd.Timestamp(at).to_pydatetime()

    def in_categories(self, categories: Sequence[str]) -> list[int]:
        """Products of these categories, whatever their capitals."""
        return assortment.of(self.shop).within(categories).tolist()

    def now(self) -> datetime:
        """The shop's own now."""
        return clock.now(self.shop)

    def lines(self) -> rfm.Lines | None:
        """Where RFM's fifths end, as of the last night."""
        return rfm.kept(self.shop.home)

    def readiness(self) -> Readiness:
        """Whether there is anybody to answer; the first night brings the first champions."""
        speaking = {name: self.champions.get(name) for name in MODELS}
        wrong = self.champions.errors
        return Readiness(
            ready=any(speaking.values()),
            models={name: str(champion.version) for name, champion in speaking.items() if champion},
            reasons=[
                f"{name}: its newest version is refused, {wrong[name]}" if name in wrong else _missing(name)
                for name, champion in speaking.items()
                if name in wrong or champion is None
            ],
        )

    def token(self, request_id: str, versions: dict[str, str], as_of: datetime) -> str:
        """What ties a later outcome to this answer; sealed, so that nobody can claim one never given."""
        said = json.dumps([request_id, versions, instants.micros(as_of)], separators=(",", ":")).encode()
        seal = hmac.new(self.shop.key, b"attribution:" + said, hashlib.sha256).digest()[:12]
        return base64.urlsafe_b64encode(seal + said).decode().rstrip("=")


def _missing(name: str) -> str:
    return f"{name} has no champion yet; run: regulars run"


def here() -> Desk:
    """The desk of the home that this process serves."""
    return of(shops.open())


def of(shop: Shop) -> Desk:
    """The desk of a shop, opened at most once a process: Feast and the champions take a while."""
    return _opened(shop.home)


@cache
def _opened(home: Path) -> Desk:
    shop = shops.open(home)
    with _without_torch():
        features = store.open(home / "features", shop.online_store)
    return Desk(shop, features, bundle.Champions(home / "champions"))


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
