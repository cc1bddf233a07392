"""Scoring: from customers' figures and a model to what is said about them, the same at the door and at night.

Frames have one row a customer: `customer_key`, `as_of` (the moment the figures speak of, NaT where the shop
has no figures of theirs yet), then features. Who has none gets what holds for customers in general.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.retention import Retention
from models import timing
from models.base import Model, Telling
from serving import because, newcomers, ranking, rfm, rules, why
from serving.schemas import Band

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Flagged(Protocol):
    """Something said of many customers, with a flag for each who got what holds for all."""

    @property
    def fallback(self) -> Flags: ...


Scored = TypeVar("Scored", bound=Flagged)

#: Silent for more horizons than this: a band of their own, lest they crowd out who can still be kept.
LAPSED_HORIZONS = 2
WITHIN_DAYS = (7, 14, 28, 90)
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
LISTS = ("any", "again", "new")
#: Scored beside others, a row may differ in its last digits; nobody should see that.
DIGITS = 9
#: Lists are kept this deep: what campaigns ask for, with room for exclusions.
DEEP = 50


@dataclass(frozen=True, slots=True)
class Drift:
    """Who is drifting away: a row a customer, in the frame's order."""

    probability: Floats
    horizon_days: int
    band: list[Band]
    #: Each with what it adds to the log odds of the probability.
    reasons: list[list[why.Reason]]
    rfm: list[str | None]
    fallback: Flags


@dataclass(frozen=True, slots=True)
class Return:
    """When they come back: `cdf[i, d - 1]` is P(customer i buys within d days), never falling."""

    cdf: Floats
    fallback: Flags

    def within(self, days: int) -> Floats:
        """P(purchase within so many days); NaN beyond the curve."""
        return self.cdf[:, days - 1] if days <= self.cdf.shape[1] else np.full(len(self.cdf), np.nan)

    def quantile(self, share: float) -> NDArray[np.int64]:
        """The first day by which this share of them has come; one past the curve where it ends first."""
        return np.asarray((self.cdf < share).sum(axis=1) + 1, dtype=np.int64)


def flagged(scored: Scored, stands_in: bool) -> Scored:
    """The same, flagged for everybody where a plain rule stands in for a model."""
    return replace(cast(Any, scored), fallback=scored.fallback | stands_in)


def has_figures(frame: pd.DataFrame) -> Flags:
    """Which rows carry features at all."""
    return frame["as_of"].notna().to_numpy(dtype=bool)


def churn(
    model: Model,
    frame: pd.DataFrame,
    lines: rfm.Lines | None = None,
    *,
    costs: Retention | None = None,
    value: Floats | None = None,
    dropped: why.Dropped | None = None,
) -> Drift:
    """P(no purchase within the horizon), its band, and why, for every row of the frame.

    `costs` say from where on a contact pays, with what each is expected to spend as `value` (NaN: not known).
    `dropped` tells what customers of the frame no longer buy, for their reasons.
    """
    probability, fallback = or_typical(model, frame, np.atleast_1d(np.asarray(model.typical(), np.float64)))
    probability = _rounded(probability[:, 0])
    return Drift(
        probability=probability,
        horizon_days=horizon_of(model),
        band=_bands((costs or Retention()).bands(probability, value), _silent_days(frame), horizon_of(model)),
        reasons=_reasons(cast(Telling, model), frame, np.flatnonzero(~fallback), dropped),
        rfm=rfm.digits(frame, lines) if lines else [None] * len(frame),
        fallback=fallback,
    )


def horizon_of(model: Any) -> int:
    """The days ahead that a churn model speaks of."""
    return int(model.horizon_days)


def returning(model: Model, frame: pd.DataFrame, drift: Drift | None = None) -> Return:
    """When each customer comes back; bent so that at churn's horizon the curve says what churn says.

    A curve that ends before the horizon says nothing there and cannot contradict it.
    """
    survival, fallback = or_typical(model, frame, np.asarray(model.typical(), np.float64).ravel())
    if drift is not None:
        survival = timing.told(survival, drift.horizon_days, drift.probability)
    return Return(_rounded(np.maximum.accumulate(1.0 - survival, axis=1)), fallback)


def lists(
    model: Any,
    shelf: pd.DataFrame,
    order: rules.Order,
    *,
    names: Sequence[str] = LISTS,
    n: int = DEEP,
    hidden: Collection[int] = (),
    sees: Collection[int] = (),
    liking: newcomers.Favourites | None = None,
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Ranked products under the shop's rules: customer_key, list, rank (from 1), product_key, score, source, why.

    Why is what `because` says. `hidden` products are listed, and named in reasons, only for the customers in `sees`.
    `liking` are the favourite categories of customers without figures. `known` is for `ranking.ranked`.
    """
    asked: dict[str, Any] = {"names": names, "n": n, "hidden": hidden, "sees": sees}
    ranked = ranking.ranked(model, shelf, order, known=known, **asked)
    if liking:
        ranked = newcomers.welcomed(ranked, model, shelf, order, liking, **asked)
    companions = getattr(model, "companions", None)
    told = because.grounds(ranked, shelf, companions, hidden=hidden, sees=sees)
    return newcomers.introduced(told, getattr(model, "newcomers", ()))


def or_typical(model: Model, frame: pd.DataFrame, typical: Floats) -> tuple[Floats, Flags]:
    """Scores (n, k) of those with figures, and the typical answer, flagged, for all others.

    A number that is none (a broken model, a figure gone wrong) is answered with the typical one too.
    """
    answers = np.tile(typical, (len(frame), 1))
    rows = np.flatnonzero(has_figures(frame))
    if len(rows):
        scored = np.asarray(model.score(frame.iloc[rows].reset_index(drop=True)), np.float64)
        scored = scored.reshape(len(rows), -1)
        sound = np.isfinite(scored).all(axis=1)
        rows = rows[sound]
        answers[rows] = scored[sound]
    fallback = np.ones(len(frame), dtype=bool)
    fallback[rows] = False
    return answers, fallback


def _rounded(chances: Floats) -> Floats:
    return np.asarray(np.round(np.clip(chances, 0.0, 1.0), DIGITS), np.float64)


def _silent_days(frame: pd.DataFrame) -> Floats:
    return np.asarray(frame.get("recency_days", pd.Series(np.nan, frame.index)), np.float64)


def _bands(paying: list[str], silent_days: Floats, horizon_days: int) -> list[Band]:
    lapsed = silent_days > LAPSED_HORIZONS * horizon_days
    return cast(list[Band], np.where(lapsed, "lapsed", paying).tolist())


def _reasons(
    model: Telling, frame: pd.DataFrame, sure: NDArray[np.int64], dropped: why.Dropped | None
) -> list[list[why.Reason]]:
    """Why, of the rows that are sure of their answer; no reason for any other."""
    reasons: list[list[why.Reason]] = [[] for _ in range(len(frame))]
    known = frame.iloc[sure].reset_index(drop=True)
    if len(known):
        found = why.reasons(
            model.contributions(known), known, horizon_days=horizon_of(model), dropped=_placed(dropped, sure)
        )
        for row, said in zip(sure.tolist(), found, strict=True):
            reasons[row] = said
    return reasons


def _placed(dropped: why.Dropped | None, sure: NDArray[np.int64]) -> why.Dropped | None:
    """The same, asked for places among the sure rows."""
    if dropped is None:
        return None

    def of(places: Sequence[int]) -> Mapping[int, Sequence[tuple[str, float]]]:
        found = dropped(sure[list(places)].tolist())
        return {
            place: found[row] for place, row in zip(places, sure[list(places)].tolist(), strict=True) if row in found
        }

    return of
