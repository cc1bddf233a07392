"""Writing down what was said: every score once a customer, model, version and moment, by night and door.

Churn's value is the probability of no purchase within the horizon. Timing's is the median wait in days, one
day past the curve where that ends first. The recommender's is the score of the best product.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from customers import consent, scores
from customers.shop import Shop
from features.store import Store
from models.base import Model
from models.bundle import Champion
from serving import rfm, scorer, words

Row = tuple[int, float, str]

#: The view whose rows say who has figures for a model.
_VIEW = {"recommender": "shelf", "churn": "rhythm", "timing": "rhythm"}
#: So many customers are scored together at night: lists of a million at once would not fit.
_CHUNK = 20_000


# What is kept -----------------------------------------------------------------------------------------


def of_churn(frame: pd.DataFrame, drift: scorer.Drift) -> Iterator[Row]:
    """A row a customer: probability, and {"horizon_days", "band", "reasons", "rfm", "fallback"}."""
    columns = zip(
        frame["customer_key"].tolist(), drift.probability.tolist(), drift.band, drift.reasons, drift.rfm,
        drift.fallback.tolist(), strict=True,
    )  # fmt: skip
    for key, probability, band, reasons, digits, fallback in columns:
        detail = {
            "horizon_days": drift.horizon_days,
            "band": band,
            "reasons": reasons,
            "rfm": digits,
            "fallback": fallback,
        }
        yield key, probability, _dumps(detail)


def of_timing(frame: pd.DataFrame, back: scorer.Return) -> Iterator[Row]:
    """A row a customer: median wait, and {"p": within days, "days": quantiles, "cdf", "fallback"}."""
    median = back.quantile(0.5).tolist()
    quantiles = days(back)
    rounded = np.round(back.cdf, 6).tolist()
    for row, key in enumerate(frame["customer_key"].tolist()):
        detail = {
            "p": chances(back, row),
            "days": {name: at[row] for name, at in quantiles.items()},
            "cdf": rounded[row],
            "fallback": bool(back.fallback[row]),
        }
        yield key, float(median[row]), _dumps(detail)


def of_lists(shelf: pd.DataFrame, ranked: pd.DataFrame, fallback: scorer.Flags) -> Iterator[Row]:
    """A row a customer: best score, and a list each of "any", "again" and "new", and "fallback".

    An entry of a list is [product_key, score, source, reason], best first; the reason is left out where the
    source says it all, and `listed` puts it back.
    """
    flags = dict(zip(shelf["customer_key"].tolist(), fallback.tolist(), strict=True))
    columns = ("customer_key", "list", "product_key", "score", "source", "reason")
    entries = zip(*(ranked[name].tolist() for name in columns), strict=True)
    for key, mine in groupby(entries, key=itemgetter(0)):
        detail: dict[str, Any] = {name: [] for name in scorer.LISTS} | {"fallback": flags[key]}
        for _, name, *entry in mine:
            detail[name].append(entry if entry[2] == "again" else entry[:3])
        best = max((entry[1] for name in scorer.LISTS for entry in detail[name]), default=0.0)
        yield key, best, _dumps(detail)


def listed(detail: Mapping[str, Any], name: str) -> Iterator[tuple[int, int, float, str, str]]:
    """One kept list again: rank, product_key, score, source, reason."""
    for rank, (product_key, score, source, *reason) in enumerate(detail[name], start=1):
        yield rank, product_key, score, source, reason[0] if reason else words.why_product(source)


def chances(back: scorer.Return, row: int) -> dict[int, float | None]:
    """P(purchase within so many days) of one customer; None beyond the curve."""
    length = back.cdf.shape[1]
    cdf = back.cdf[row].tolist()
    return {within: cdf[within - 1] if within <= length else None for within in scorer.WITHIN_DAYS}


def days(back: scorer.Return) -> dict[str, list[int | None]]:
    """Days by which one in ten, half, and nine in ten such customers have come; None beyond the curve."""
    length = back.cdf.shape[1]
    return {
        name: [day if day <= length else None for day in back.quantile(share).tolist()]
        for name, share in scorer.QUANTILES.items()
    }


def _dumps(detail: Mapping[str, Any]) -> str:
    return json.dumps(detail, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# Who keeps it -----------------------------------------------------------------------------------------


def afresh(shop: Shop, champion: Champion, frame: pd.DataFrame, rows: Iterable[Row]) -> None:
    """Keep what the door has just computed for the customers of the frame, if they allow it."""
    moments = dict(zip(frame["customer_key"], frame["as_of"], strict=True))
    by_moment: dict[datetime, list[Row]] = {}
    for row in rows:
        if row[0] in moments:
            by_moment.setdefault(moments[row[0]].to_pydatetime(), []).append(row)
    for as_of, mine in by_moment.items():
        scores.tell(shop, champion.name, champion.version, as_of, mine)


def everyone(
    shop: Shop,
    features: Store,
    speakers: Mapping[str, tuple[Any, Model]],
    as_of: datetime,
    *,
    stand_ins: Collection[str] = (),
    quiet: Model | None = None,
) -> tuple[int, int]:
    """Score every customer who has figures at `as_of` and allows it, a model at a time; customers and scores written.

    `speakers` gives each model's version and the model itself. Readers see a model's whole night or none.
    `stand_ins` names those that are plain rules where there was too little to learn from, whose scores are
    flagged as fallbacks. `quiet` is the churn model that timing agrees with in a night that leaves churn alone.
    """
    night = _Night(shop, features, speakers, as_of, stand_ins, quiet)
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
        quiet: Model | None,
    ) -> None:
        self.shop = shop
        self.features = features
        self.models = {name: model for name, (_, model) in speakers.items()}
        if quiet is not None:
            self.models.setdefault("churn", quiet)
        self.as_of = as_of
        self.stand_ins = stand_ins

    def rows(self, name: str) -> Iterator[list[Row]]:
        """All rows of a model; none where nobody is there to be scored."""
        if self._entities(name).empty:
            return iter(())
        portions = {"churn": self._churn, "timing": self._timing, "recommender": self._lists}
        return portions[name]()

    def _churn(self) -> Iterator[list[Row]]:
        frame, drift = self._drift
        yield list(of_churn(frame, scorer.flagged(drift, "churn" in self.stand_ins)))

    def _timing(self) -> Iterator[list[Row]]:
        frame = self._figures("timing", self._entities("timing"))
        drift = self._drift[1] if "churn" in self.models else None
        back = scorer.returning(self.models["timing"], frame, drift)
        yield list(of_timing(frame, scorer.flagged(back, "timing" in self.stand_ins)))

    def _lists(self) -> Iterator[list[Row]]:
        entities = self._entities("recommender")
        for start in range(0, len(entities), _CHUNK):
            shelf = self._figures("recommender", entities.iloc[start : start + _CHUNK].reset_index(drop=True))
            fallback = ~scorer.has_figures(shelf) | ("recommender" in self.stand_ins)
            yield list(of_lists(shelf, scorer.lists(self.models["recommender"], shelf), fallback))

    @cached_property
    def _drift(self) -> tuple[pd.DataFrame, scorer.Drift]:
        """Churn of everybody; on the way the lines of RFM are drawn, for the door too."""
        frame = self._figures("churn", self._entities("churn"))
        lines = rfm.draw(frame, self.as_of)
        rfm.keep(self.shop.home, lines)
        return frame, scorer.churn(self.models["churn"], frame, lines)

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
