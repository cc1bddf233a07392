"""BG/NBD parameters turned into features and offsets of a hazard model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.base import Floats, feature_columns
from models.btyd import bg_nbd
from models.survival import censored_durations
from models.survival.censored_durations import Floats32, Ints

AGE_COLUMNS = ("tenure_days", "span_days")


def bgnbd_features(frame: pd.DataFrame, edges: Ints, rows: Ints) -> tuple[Floats, Floats32]:
    """BG/NBD terms (n, 3) and log odds (n, periods) of the rows at these positions.

    The parameters are fitted to all rows of each row's own cutoff; edges: (n_periods + 1,) days from as_of.
    """
    cutoff, summary = censored_durations.read_cutoffs(frame), bg_nbd.purchase_summary(frame)
    terms, base_log_odds = np.zeros((len(rows), 3)), np.zeros((len(rows), len(edges) - 1), dtype=np.float32)
    for this_cutoff in np.unique(cutoff):
        bgnbd = bg_nbd.BgNbd.fit(*(part[cutoff == this_cutoff] for part in summary))
        mask = cutoff[rows] == this_cutoff
        cutoff_summary = bg_nbd.PurchaseSummary(*(part[rows[mask]] for part in summary))
        terms[mask], base_log_odds[mask] = (
            bgnbd_terms(bgnbd, cutoff_summary),
            log_odds_ahead(bgnbd, cutoff_summary, edges),
        )
    return terms, base_log_odds


def bgnbd_terms(bgnbd: bg_nbd.BgNbd, summary: bg_nbd.PurchaseSummary) -> Floats:
    """Log odds of P(alive), log purchase rate and log recency, scaled to similar spread: array (n, 3)."""
    alive = bg_nbd.log_odds(bgnbd.p_alive(*summary))
    return np.column_stack(
        [alive / 4, np.log(bgnbd.rate(summary.x, summary.T)) + 3, np.log1p(summary.T - summary.t_x) - 2]
    )


def log_odds_ahead(bgnbd: bg_nbd.BgNbd, summary: bg_nbd.PurchaseSummary, edges: Ints) -> Floats32:
    """Log odds of a purchase in each period, given none before: array (n, periods).

    edges: (n_periods + 1,): days from as_of, starting with 0.

    The mean of BG/NBD's log odds and those of a customer who is alive. Customers whom BG/NBD considers inactive return
    more often than it predicts, and a model cannot correct a probability near zero. Giving dropout half the weight
    lowered the log loss per row from 2.844 to 2.835 (Complete Journey, days 154 to 214).
    """
    days_ahead = edges.astype(np.float64)[None, :]
    broadcast = bg_nbd.PurchaseSummary(*(part[:, None] for part in summary))
    curve = bgnbd.p_no_purchase(*broadcast, days_ahead)
    log_no_purchase_alive = -(bgnbd.r + broadcast.x) * np.log1p(days_ahead / (bgnbd.alpha + broadcast.T))
    p_purchase_alive = -np.expm1(np.diff(log_no_purchase_alive, axis=1))
    odds = (bg_nbd.log_odds(1 - curve[:, 1:] / curve[:, :-1]) + bg_nbd.log_odds(p_purchase_alive)) / 2
    return odds.astype(np.float32)


def training_columns(frame: pd.DataFrame) -> list[str]:
    """Names of the feature columns to train on: all but those that mainly measure how long the shop has kept records.

    The tenure of one shop's customers grows with the calendar, so that it would encode the season; BG/NBD already uses
    it.
    """
    return [name for name in feature_columns(frame) if name not in AGE_COLUMNS]
