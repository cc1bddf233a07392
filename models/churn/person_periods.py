"""Asking: who is asked what of each quarter of the horizon, and what is known of them when it is asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models import btyd, season, trees, waits
from models.base import Floats, matrix
from models.seasoned import Rhythms
from models.waits import Singles, Waits, Whole

#: A horizon has so many quarters, unless it is very short.
PARTS = 4
#: So many customers and moments teach at most.
SAMPLE = 60_000
#: Own gaps that a silence is measured against, where the frame has them.
GAPS = ("gap_mean_days", "gap_median_days", "gap_max_days")


class Given(NamedTuple):
    """What is known of each row before a quarter is chosen."""

    features: Singles  # (rows, features and the rhythm's terms)
    ahead: Floats  # (rows, quarters): the rhythm's log odds of a purchase in each, given none before
    silent: Floats  # days since the last purchase at as_of
    gaps: Floats  # (rows, own gaps)

    def rows(self, which: Any) -> Given:
        """Some of the rows."""
        return Given(*(part[which] for part in self))


def ends(horizon_days: int) -> Whole:
    """The last days of the quarters of the horizon, after 0; a short horizon has fewer of them."""
    return np.unique(np.round(np.linspace(0, horizon_days, PARTS + 1)).astype(np.int64))


def some(which: waits.Mask, seed: int) -> Whole:
    """The places of these rows, in their order; of too many, enough."""
    rows = np.flatnonzero(which)
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, SAMPLE, replace=False))
    return rows.astype(np.int64)


class Asked(NamedTuple):
    """One question a row and quarter: did they buy in it, given that they had not before? And where trees begin."""

    row: Whole
    quarter: Whole
    bought: Floats
    start: Floats
    ahead: Floats

    def rows(self, given: Given, edges: Whole) -> trees.Rows:
        """As trees learn them."""
        return trees.Rows(design(given, self.row, self.quarter, edges), self.bought, self.start)

    def of(self, quarter: int) -> tuple[Floats, Floats]:
        """The rhythm's log odds and the outcomes of one quarter."""
        here = self.quarter == quarter
        return self.ahead[here], self.bought[here]


def ask(given: Given, watch: Waits, edges: Whole, end: np.datetime64) -> Asked:
    """Every quarter that was over by the end and in which a purchase could still come.

    Of a quarter that is not over only those would be known who have bought: they would make everybody look eager.
    """
    watched = watch.watched[:, None]
    over = waits.over(watch.moment[:, None], edges[1:], end)
    row, quarter = np.nonzero(over & (watched > edges[:-1]))
    bought = (watch.bought[:, None] & (watched <= edges[1:]))[row, quarter].astype(np.float64)
    ahead = given.ahead[row, quarter]
    return Asked(row, quarter, bought, _levelled(ahead, bought, watch.moment[row], quarter), ahead)


def end_of(watch: Waits) -> np.datetime64:
    """When watching ended, as the rows that still wait tell."""
    ended = watch.moment + watch.watched.astype("timedelta64[D]")
    return ended[watch.begun].max(initial=np.datetime64(0, "us"))


def _levelled(ahead: Floats, bought: Floats, moment: season.Moments, quarter: Whole) -> Floats:
    """The rhythm's log odds brought to the level of their own moment and quarter."""
    start = np.empty(len(ahead))
    group = np.unique(moment, return_inverse=True)[1] * (PARTS + 1) + quarter
    for number in np.unique(group):
        here = group == number
        start[here] = season.line(ahead[here], bought[here])(ahead[here])
    return start


def given_now(frame: pd.DataFrame, columns: list[str], rhythm: btyd.BgNbd, edges: Whole) -> Given:
    """What is known of these rows by the rhythm of their moment."""
    past = btyd.history(frame)
    features = np.hstack([matrix(frame, columns), waits.rhythm_terms(rhythm, past)]).astype(np.float32)
    silent = np.nan_to_num(frame[btyd.SILENT].to_numpy(dtype=np.float64, na_value=np.nan))
    gaps = matrix(frame, [name for name in GAPS if name in frame.columns])
    return Given(features, waits.log_odds_ahead(rhythm, past, edges).astype(np.float64), silent, gaps)


def given_then(frame: pd.DataFrame, columns: list[str], rhythms: Rhythms, edges: Whole) -> Given:
    """The same by the rhythm of each row's own moment; rows stay in their order."""
    moment = waits.moments(frame)
    places = [np.flatnonzero(moment == when) for when in np.unique(moment)]
    parts = [given_now(frame.iloc[here], columns, rhythms[moment[here[0]]], edges) for here in places]
    order = np.argsort(np.concatenate(places), kind="stable")
    return Given(*(np.concatenate(those)[order] for those in zip(*parts, strict=True)))


def design(given: Given, row: Whole, quarter: Whole | int, edges: Whole) -> Singles:
    """A customer's features and what they mean for one quarter: the silence by its end, in days and in own gaps."""
    last = np.broadcast_to(edges[1:][quarter], row.shape)
    silent = given.silent[row] + last
    told = [given.ahead[row, quarter], last, silent, *(silent / np.maximum(gap[row], 1) for gap in given.gaps.T)]
    return np.hstack([given.features[row], np.column_stack(told).astype(np.float32)])
