"""Backtest: every method on the same customers as of the same cutoffs, with intervals, as one long table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from training import lists
from training.exams import ACTIVITY
from training.intervals import Draws, bounds

Floats = NDArray[np.float64]

COLUMNS = [
    "method", "segment", "figure", "value", "low", "high", "ahead", "ahead_low", "ahead_high", "observations",
]  # fmt: skip
EVERYONE = "all"
#: A mean over fewer customers of a segment says little of the model, and much of each of them.
LEAST_CUSTOMERS = 30
UNTOLD = f"figures of a segment that fewer than {LEAST_CUSTOMERS} customers have are left out"


def table(
    looks: Mapping[str, pd.DataFrame], segments: pd.Series, *, model: str, least: int = LEAST_CUSTOMERS
) -> pd.DataFrame:
    """A row a method, segment and figure: its mean with a 95 % interval, and how far the model is ahead of it.

    looks: for each method the same observations in the same order, a row each, the index being customer_key; NaN is
    no observation. segments: what each observation belongs to, in that order. `ahead` is model minus method on the
    same customers, drawn together; it is NaN for the model itself. Of a segment only figures that at least `least`
    customers have are told.
    """
    groups = {EVERYONE: np.ones(len(segments), bool)}
    known = [*ACTIVITY, *(name for name in pd.unique(segments) if name not in ACTIVITY)]
    groups |= {str(name): (segments == name).to_numpy() for name in known}
    told = {name: _told(looks[model][inside], least if name != EVERYONE else 0) for name, inside in groups.items()}
    parts = [
        _means({method: frame.loc[inside, told[name]] for method, frame in looks.items()}, name, model)
        for name, inside in groups.items()
        if told[name] and inside.any()
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _told(look: pd.DataFrame, least: int) -> list[str]:
    """The figures that at least so many customers have."""
    return [str(name) for name, figures in look.items() if figures.dropna().index.nunique() >= least]


def _means(looks: Mapping[str, pd.DataFrame], segment: str, model: str) -> pd.DataFrame:
    draws = Draws.of(looks[model].index.to_numpy(np.int64))
    drawn = {method: draws.means(frame) for method, frame in looks.items()}
    rows = [
        _rows(method, segment, [str(name) for name in frame], frame.mean().to_numpy(np.float64), drawn[method],
              looks[model].mean().to_numpy(np.float64), drawn[model], frame.notna().sum().to_numpy())
        for method, frame in looks.items()
    ]  # fmt: skip
    made = pd.concat(rows, ignore_index=True)
    made.loc[made["method"] == model, ["ahead", "ahead_low", "ahead_high"]] = np.nan
    return made


def _rows(
    method: str, segment: str, figures: list[str], value: Floats, drawn: Floats, best: Floats, best_drawn: Floats,
    count: NDArray[np.int64],
) -> pd.DataFrame:  # fmt: skip
    low, high = bounds(drawn)
    ahead_low, ahead_high = bounds(best_drawn - drawn)
    return pd.DataFrame(
        {
            "method": method, "segment": segment, "figure": figures, "value": value, "low": low, "high": high,
            "ahead": best - value, "ahead_low": ahead_low, "ahead_high": ahead_high, "observations": count,
        }
    )  # fmt: skip


def figures(
    found: Mapping[str, pd.Series], drawn: Mapping[str, pd.DataFrame], observations: int, *, segment: str, model: str
) -> pd.DataFrame:
    """Rows for figures that are no means over customers: as found, and as they came out in every draw of customers.

    found: for each method its figures by name; drawn: the same figures as columns, a row a draw, drawn together.
    """
    names = [str(name) for name in found[model].index]
    count = np.full(len(names), observations)
    told = {method: (found[method][names].to_numpy(np.float64), drawn[method][names].to_numpy(np.float64))
            for method in found}  # fmt: skip
    rows = [_rows(method, segment, names, *each, *told[model], count) for method, each in told.items()]
    made = pd.concat(rows, ignore_index=True)
    made.loc[made["method"] == model, ["ahead", "ahead_low", "ahead_high"]] = np.nan
    return made


def whole(figures: Mapping[str, Mapping[str, float]], observations: int) -> pd.DataFrame:
    """Rows for figures that a single customer does not have, such as coverage; without intervals."""
    rows = [
        {"method": method, "segment": EVERYONE, "figure": name, "value": value, "observations": observations}
        for method, named in figures.items()
        for name, value in named.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


# Offers ------------------------------------------------------------------------------------------------------


def offers(
    customers: NDArray[np.int64],
    group: NDArray[np.int64],
    redeemed: Floats,
    chances: Mapping[str, Floats],
    segments: NDArray[np.object_],
    *,
    model: str,
    least: int = LEAST_CUSTOMERS,
) -> pd.DataFrame:
    """The same table for offers: MAP and NDCG@10 over groups (a household and a campaign) with a redemption, AUC.

    All arrays (n,), an entry a customer and offer; AUC is over all pairs of a redeemed and a passed-over one.
    """
    first = pd.DataFrame({"customer": customers, "segment": segments}).groupby(group).first()
    looks = {method: lists.each_group(group, redeemed, p) for method, p in chances.items()}
    judged = first.loc[looks[model].index]
    looks = {method: frame.set_axis(judged["customer"].to_numpy(np.int64)) for method, frame in looks.items()}
    ranked = table(looks, judged["segment"].reset_index(drop=True), model=model, least=least)
    return pd.concat([ranked, _aucs(customers, redeemed, chances, model)], ignore_index=True)


def _aucs(
    customers: NDArray[np.int64], redeemed: Floats, chances: Mapping[str, Floats], model: str, draws: int = 300
) -> pd.DataFrame:
    if not 0 < redeemed.sum() < redeemed.size:
        return pd.DataFrame(columns=COLUMNS)
    drawing = Draws.of(customers, draws=draws)
    drawn = {method: drawing.aucs(customers, redeemed, p)[:, None] for method, p in chances.items()}
    plain = {method: float(roc_auc_score(redeemed, p)) for method, p in chances.items()}
    count = np.array([redeemed.size])
    rows = [
        _rows(method, EVERYONE, ["auc"], np.array([plain[method]]), drawn[method], np.array([plain[model]]),
              drawn[model], count)
        for method in chances
    ]  # fmt: skip
    made = pd.concat(rows, ignore_index=True)
    made.loc[made["method"] == model, ["ahead", "ahead_low", "ahead_high"]] = np.nan
    return made
