"""Writing down what was said: every score once a customer, model, version and moment, by night and door."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from customers import consent, scores
from customers.frames import answers
from customers.shop import Shop
from features import needs
from features.store import Store
from models.base import Model
from models.bundle import Champion
from serving import details, offering, related, restocking, rfm, rules, scorer, spending, stall, why
from serving import dropped as left_behind
from serving.details import Row

#: The view whose rows say who has figures for a model.
_VIEW = {
    "recommender": "shelf",
    "offers": "shelf",
    "churn": "rhythm",
    "timing": "rhythm",
    "restock": "needs",
    "value": "rhythm",
}
#: So many customers are scored together at night: lists of a million at once would not fit.
_CHUNK = 20_000
#: With offers fewer: each of them may be made any of hundreds.
_OFFERED = 2_000


def afresh(shop: Shop, champion: Champion, frame: pd.DataFrame, rows: Iterable[Row]) -> None:
    """Keep what the door has just computed for the customers of the frame, if they allow it."""
    moments = dict(zip(frame["customer_key"], frame["as_of"], strict=True))
    by_moment: dict[datetime, list[Row]] = {}
    for row in rows:
        if row[0] in moments:
            by_moment.setdefault(moments[row[0]].to_pydatetime(), []).append(row)
    told = [scores.tell(shop, champion.name, champion.version, as_of, mine) for as_of, mine in by_moment.items()]
    if any(told):
        heard(shop)


def heard(shop: Shop) -> None:
    """Note that what was said of somebody is no longer what was said before."""
    _stamp(shop).touch()


def news(shop: Shop) -> int:
    """A number that changes whenever something new was said at the door about anybody."""
    path = _stamp(shop)
    return path.stat().st_mtime_ns if path.exists() else 0


def _stamp(shop: Shop) -> Path:
    return shop.home / "told.stamp"


def everyone(
    shop: Shop,
    features: Store,
    speakers: Mapping[str, tuple[Any, Model]],
    as_of: datetime,
    *,
    stand_ins: Collection[str] = (),
) -> tuple[int, int]:
    """Score every customer who has figures at `as_of` and allows it, a model at a time; customers and scores written.

    `speakers` gives each model's version and the model itself. Readers see a model's whole night or none.
    `stand_ins` names those that are plain rules where there was too little to learn from, whose scores are
    flagged as fallbacks. Timing agrees with churn where both speak.
    """
    night = _Night(shop, features, speakers, as_of, stand_ins)
    keys: set[int] = set()
    written = 0
    for name, (version, _) in speakers.items():
        run = scores.begin(shop, name, str(version), as_of)
        for rows in night.rows(name):
            written += scores.record(shop, run, rows)
            keys.update(row[0] for row in rows)
        scores.finish(shop, run)
    return len(keys), written


class _Night:
    """What the models say of everybody at one moment, in portions."""

    def __init__(
        self,
        shop: Shop,
        features: Store,
        speakers: Mapping[str, tuple[Any, Model]],
        as_of: datetime,
        stand_ins: Collection[str],
    ) -> None:
        self.shop = shop
        self.features = features
        self.models = {name: model for name, (_, model) in speakers.items()}
        self.as_of = as_of
        self.stand_ins = stand_ins
        self._seen: dict[tuple[str, ...], pd.DataFrame] = {}

    def rows(self, name: str) -> Iterator[list[Row]]:
        """All rows of a model; none where nobody is there to be scored."""
        if self._entities(name).empty:
            return iter(())
        portions = {
            "recommender": self._lists,
            "offers": self._offers,
            "churn": self._churn,
            "timing": self._timing,
            "restock": self._needs,
            "value": self._worth,
        }
        return portions[name]()

    def _churn(self) -> Iterator[list[Row]]:
        frame, drift = self._drift
        yield list(details.of_churn(frame, scorer.flagged(drift, "churn" in self.stand_ins)))

    def _timing(self) -> Iterator[list[Row]]:
        frame = self._everybody("timing")
        drift = self._drift[1] if "churn" in self.models else None
        back = scorer.returning(self.models["timing"], frame, drift)
        yield list(details.of_timing(frame, scorer.flagged(back, "timing" in self.stand_ins)))

    def _worth(self) -> Iterator[list[Row]]:
        frame = self._everybody("value")
        worth = spending.worth(self.models["value"], frame, currency=self.shop.currency)
        yield list(details.of_value(frame, scorer.flagged(worth, "value" in self.stand_ins)))

    def _lists(self) -> Iterator[list[Row]]:
        hidden, order = self._goods.sensitive, rules.order(self.shop, self.as_of)
        for shelf in self._portions("recommender", _CHUNK):
            sees = self._sees(shelf) if hidden else set()
            ranked = scorer.lists(self.models["recommender"], shelf, order, hidden=hidden, sees=sees)
            yield list(details.of_lists(shelf, ranked, self._fallback("recommender", shelf)))

    def _needs(self) -> Iterator[list[Row]]:
        hidden = self._goods.sensitive_categories
        for frame in self._portions("restock", _CHUNK):
            sees = self._sees(frame) if hidden else set()
            rows = restocking.needs(self.models["restock"], needs.pairs(frame), hidden=hidden, sees=sees)
            fallback = self._fallback("restock", frame) | restocking.needless(frame, rows)
            yield list(details.of_restock(frame, rows, fallback))

    def _offers(self) -> Iterator[list[Row]]:
        stock = self._goods.running(self.as_of)
        occasion = offering.Occasion(
            stock,
            stall.on_the_table(self.shop, stock, before=self.as_of),
            stall.prices(self.features.folder),
            self.as_of,
            self.shop.currency,
            related.companions(self.features.folder),
        )
        for figures in self._portions("offers", _OFFERED):
            keys = figures["customer_key"].tolist()
            known = offering.standing(self.shop, keys, self._baskets(keys, stock), before=self.as_of)
            offered = offering.offer(self.models["offers"], occasion, figures, known)
            yield list(details.of_offers(figures, offered.ranked, self._fallback("offers", figures)))

    def _baskets(self, keys: list[int], stock: stall.Stall) -> scorer.Floats | None:
        """What their usual baskets are worth, where an offer asks for a least spend."""
        if not stock.book.offers["min_spend"].notna().any():
            return None
        at = pd.DataFrame({"customer_key": keys, "event_timestamp": self.as_of})
        return self._figures("churn", at)["basket_value_mean"].to_numpy(np.float64)

    def _fallback(self, name: str, frame: pd.DataFrame) -> scorer.Flags:
        return ~scorer.has_figures(frame) | (name in self.stand_ins)

    def _sees(self, frame: pd.DataFrame) -> set[int]:
        """Those of these customers whose sensitive purchases may be looked at."""
        return consent.allowed(self.shop, frame["customer_key"], "profiling_sensitive")

    @cached_property
    def _goods(self) -> stall.Stall:
        return stall.of(self.shop)

    @cached_property
    def _drift(self) -> tuple[pd.DataFrame, scorer.Drift]:
        """Churn of everybody; on the way the lines of RFM are drawn, for the door too."""
        frame = self._everybody("churn")
        lines = rfm.draw(frame, self.as_of)
        rfm.keep(self.shop.home, lines)
        costs, value, dropped = self.shop.retention, self._expected(frame), self._dropped(frame)
        return frame, scorer.churn(self.models["churn"], frame, lines, costs=costs, value=value, dropped=dropped)

    def _expected(self, frame: pd.DataFrame) -> scorer.Floats | None:
        """What each will spend, where bands go by costs: by this night's model, else as it was last said."""
        if self.shop.retention.contact_cost is None:
            return None
        if "value" not in self.models:
            said = answers(self.shop, "value")
            known = said.attrs.get("as_of", self.as_of) <= self.as_of  # a replay does not hear of what was said later
            told = said.set_index("customer_key")["value"]
            return frame["customer_key"].map(told if known else {}).to_numpy(np.float64)
        worth = spending.worth(self.models["value"], self._everybody("value"), currency=self.shop.currency)
        return np.where(worth.fallback, np.nan, worth.expected)

    def _dropped(self, frame: pd.DataFrame) -> why.Dropped:
        entities = frame[["customer_key"]].assign(event_timestamp=self.as_of)

        def dropped(places: Sequence[int]) -> Mapping[int, Sequence[tuple[str, float]]]:
            needed = self._figures("restock", entities.iloc[list(places)].reset_index(drop=True))
            found = left_behind.categories(needed, self._goods.sensitive_categories)
            return {places[at]: names for at, names in found.items()}

        return dropped

    def _portions(self, name: str, size: int) -> Iterator[pd.DataFrame]:
        entities = self._entities(name)
        for start in range(0, len(entities), size):
            yield self._figures(name, entities.iloc[start : start + size].reset_index(drop=True))

    def _everybody(self, name: str) -> pd.DataFrame:
        """Everybody's figures for a model; models that look at the same ones share them."""
        asked = (_VIEW[name], *self.features.columns(f"{name}_v1"))
        if asked not in self._seen:
            self._seen[asked] = self._figures(name, self._entities(name))
        return self._seen[asked]

    def _entities(self, name: str) -> pd.DataFrame:
        """Everybody who has figures at the moment and allows profiling: customer_key, event_timestamp."""
        path = self.features.folder / _VIEW[name] / "part.parquet"
        found = pd.read_parquet(
            path, columns=["customer_key", "event_timestamp"], filters=[("event_timestamp", "==", self.as_of)]
        )
        allowed = consent.allowed(self.shop, found["customer_key"], "profiling")
        return found[found["customer_key"].isin(allowed)].reset_index(drop=True)

    def _figures(self, name: str, entities: pd.DataFrame) -> pd.DataFrame:
        return self.features.history(f"{name}_v1", entities).rename(columns={"event_timestamp": "as_of"})
