"""The timing model: for each customer, the survival curve of the days to the next purchase."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from scipy.special import expit

from models.base import MODEL_FILE, Floats, matrix, read_json, write_json
from models.btyd import bg_nbd, survival_features
from models.survival import kaplan_meier
from models.survival.censored_durations import CensoredDurations
from models.timing import network, network_training, seasonal_level
from models.timing.hazard_trees import HazardTrees
from models.timing.network import NetworkExamples, Weights

#: Minimum number of next purchases to fit on.
MIN_PURCHASES = 300
#: The rows of one customer are so similar that more rows take longer without improving the fit: of 43,000 rows of
#: Complete Journey (June 2017) this many gave CRPS 6.444 and all of them 6.449.
MAX_ROWS = 25_000
BATCH_ROWS = 4096
EPSILON = 1e-7


@dataclass(frozen=True)
class TimingModel:
    """P(purchase on each day ahead, given none before it): the mean of three survival curves of equal weight.

    The curves are of a neural network, of the same network without hidden layers, and of the hazard trees; each starts
    from BG/NBD and adjusts it. All use the customer's own weekdays and the shop's. Right-censored rows count for their
    days of follow-up. Scoring needs no torch.

    The mean is better than each: CRPS 6.364 against 6.389, 6.372 and 6.420 (Complete Journey, June 2017), 26.78 against
    27.16, 26.96 and 26.80 (Online Retail II, September 2010, 144 days ahead); BG/NBD has 6.617 and 27.95.
    """

    columns: list[str]
    bgnbd: bg_nbd.BgNbd
    weights: Weights
    linear_weights: Weights
    hazard: HazardTrees
    days: int

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: pd.DataFrame,
        *,
        seed: int = 0,
        days: int = 90,
        **overrides: Any,
    ) -> Self:
        """Fit by maximum likelihood to the first `days` days of every row.

        label: columns duration_days (1 = a purchase on the day of as_of itself) and observed; where observed is 0,
            duration_days is the number of days without a purchase.
        overrides: fields of NetworkSettings.

        Each cutoff has its own BG/NBD, fitted to its own rows. The number of passes is validated on the latest cutoffs,
        with networks trained on what was known before them. Raises InsufficientData with fewer than 300 next purchases.
        """
        kaplan_meier.require_purchases(label, days, min_purchases=MIN_PURCHASES)
        columns = survival_features.training_columns(frame)
        scales = network.fit_scales(matrix(frame, columns))
        examples = _network_examples(
            frame, columns, scales, CensoredDurations.from_label(frame, label, days), days, seed
        )
        settings = network_training.NetworkSettings(**overrides)
        network_weights, linear_weights = (
            network_training.fit_network(examples, days, seed, shape_settings)
            for shape_settings in (settings, replace(settings, depth=0, seeds=1))
        )
        hazard = HazardTrees.fit(frame, label, seed=seed, days=days)
        return cls(columns, hazard.bgnbd, {**network_weights, **scales}, linear_weights, hazard, days)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (n, days), non-increasing."""
        curves = self.hazard.score(frame)
        for start in range(0, len(frame), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            curves[rows] = (curves[rows] + sum(self._network_curves(frame.iloc[rows]))) / 3
        return curves

    def population_average(self) -> Floats:
        """The Kaplan-Meier curve of all customers together: array (n_days,)."""
        return self.hazard.population_average()

    def save(self, folder: Path) -> None:
        """Write the networks' weights as safetensors, the trees as LightGBM's text, the rest as JSON.

        File names and keys are those of version 0.4.0: straight for the network without hidden layers, rhythm.
        """
        for name, weights in (("model", self.weights), ("straight", self.linear_weights)):
            parts = {part: np.ascontiguousarray(values) for part, values in weights.items()}
            save_file(parts, folder / f"{name}.safetensors")
        self.hazard.save(folder, "hazard")
        write_json(folder / MODEL_FILE, {"columns": self.columns, "rhythm": asdict(self.bgnbd), "days": self.days})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the weights, the trees and the rest back."""
        saved = read_json(folder / MODEL_FILE)
        weights, linear_weights = (load_file(folder / f"{name}.safetensors") for name in ("model", "straight"))
        bgnbd, hazard = bg_nbd.BgNbd(**saved["rhythm"]), HazardTrees.load(folder, "hazard")
        return cls(saved["columns"], bgnbd, weights, linear_weights, hazard, saved["days"])

    def _network_curves(self, frame: pd.DataFrame) -> list[Floats]:
        """The survival curves (n, days) of the network and of the one without hidden layers."""
        summary = bg_nbd.purchase_summary(frame)
        daily_log_odds = survival_features.log_odds_ahead(self.bgnbd, summary, np.arange(self.days + 1))
        terms = survival_features.bgnbd_terms(self.bgnbd, summary)
        inputs = network.build_inputs(frame, self.columns, self.weights, terms, daily_log_odds)
        network_log_odds = (
            network.log_odds(weights, inputs, self.days) for weights in (self.weights, self.linear_weights)
        )
        return [np.cumprod(expit(-each.astype(np.float64)), axis=1) for each in network_log_odds]


def reconcile(survival: Floats, horizon: int, churn: Floats) -> Floats:
    """The curves (n, days), tilted to the churn probabilities (n,) if they are as long as the churn horizon.

    Shorter curves are returned unchanged.
    """
    return tilt_to_churn(survival, horizon, churn) if horizon <= survival.shape[1] else survival


def tilt_to_churn(survival: Floats, horizon: int, churn: Floats) -> Floats:
    """Tilt every curve so that P(no purchase within the horizon) equals the churn model's probability exactly.

    survival: (n, days), as from `score`.
    churn: (n,).

    The hazard of all days changes by one factor (proportional hazards): S becomes S to the power log(churn) / log
    S(horizon). Raises ValueError for a curve shorter than the horizon.
    """
    if not 1 <= horizon <= survival.shape[1]:
        raise ValueError(
            f"the curve has {survival.shape[1]} days and the churn horizon is {horizon}; train it with more days"
        )
    target = np.asarray(churn, dtype=np.float64)[:, None]
    log_curve = np.log(np.clip(survival, EPSILON, 1 - EPSILON))
    power = np.log(np.clip(target, EPSILON, 1 - EPSILON)) / log_curve[:, horizon - 1 : horizon]
    tilted = np.exp(np.clip(power, 0.0, 1e6) * log_curve)
    before, after = np.maximum(tilted[:, : horizon - 1], target), np.minimum(tilted[:, horizon:], target)
    return np.hstack([before, target, after])


def _network_examples(
    frame: pd.DataFrame, columns: list[str], scales: Weights, durations: CensoredDurations, days: int, seed: int
) -> NetworkExamples:
    """The network's training rows: rows with at least one day of follow-up, sampled to MAX_ROWS."""
    rows, edges = (
        np.random.default_rng(seed).permutation(np.flatnonzero(durations.has_follow_up))[:MAX_ROWS],
        np.arange(days + 1),
    )
    terms, daily_log_odds = survival_features.bgnbd_features(frame, edges, rows)
    daily_log_odds += seasonal_level.CalendarEffect.fit(frame, durations).log_odds_at(durations.cutoff[rows], edges)
    return NetworkExamples(
        network.build_inputs(frame.iloc[rows], columns, scales, terms, daily_log_odds), durations.subset(rows)
    )
