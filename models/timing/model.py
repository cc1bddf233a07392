"""Timing: when each customer will buy next, as the chance of every day to come and not as a single date."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from scipy.special import expit

from models import btyd, fates, timing_network, timing_training, waits
from models.base import FILE, Floats, matrix, read_json, write_json
from models.hazard import Hazard
from models.timing_network import Lesson, Weights
from models.waits import Waits

#: The fewest next purchases that a distribution may be learned from.
FEWEST = 300
#: A customer's moments are so alike that more rows than this take longer and teach no more: of 43,000 rows of
#: Complete Journey (June 2017) this many gave CRPS 6.444 and all of them 6.449.
MOST_ROWS = 25_000
ROWS_AT_ONCE = 4096
LEAST = 1e-7


@dataclass(frozen=True)
class Timing:
    """A chance of buying for each of the next days, given none before it: three opinions of equal weight.

    A network, the same without hidden layers, and the hazard's trees each start from BG/NBD and bend it; the
    answer is the mean of their curves. All know the customer's own weekdays and the shop's. Rows still waiting
    when watching ended count for the days they were watched (right-censoring). Scoring needs no torch.

    Together they are better than each: CRPS 6.364 of 6.389, 6.372 and 6.420 (Complete Journey, June 2017), 26.78
    of 27.16, 26.96 and 26.80 (Online Retail II, September 2010, 144 days ahead); BG/NBD has 6.617 and 27.95.
    """

    columns: list[str]
    rhythm: btyd.BgNbd
    weights: Weights
    straight: Weights
    hazard: Hazard
    days: int

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: pd.DataFrame,
        *,
        seed: int = 0,
        days: int = 90,
        **growth: Any,
    ) -> Self:
        """Learn by maximum likelihood over the first `days` days of every row.

        label: duration_days = 1 for a purchase on the day of as_of itself, and observed; where observed is 0,
        the days that passed without one. Every moment in the frame gets its own rhythm, fitted to its own
        rows. The latest moments say how long to learn, judging what was learned from before them. `growth`
        overrides the network's settings. Raises TooLittle below 300 next purchases.
        """
        fates.enough_outcomes(label, days, fewest=FEWEST)
        columns = waits.telling(frame)
        scales = timing_network.scales_of(matrix(frame, columns))
        lesson = _lesson(frame, columns, scales, Waits.of(frame, label, days), days, seed)
        how = timing_training.Growth(**growth)
        bent, straight = (
            timing_training.learn(lesson, days, seed, shape) for shape in (how, replace(how, depth=0, seeds=1))
        )
        hazard = Hazard.fit(frame, label, seed=seed, days=days)
        return cls(columns, hazard.rhythm, {**bent, **scales}, straight, hazard, days)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (rows, days), never rising."""
        curves = self.hazard.score(frame)
        for start in range(0, len(frame), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            curves[rows] = (curves[rows] + sum(self._learned(frame.iloc[rows]))) / 3
        return curves

    def typical(self) -> Floats:
        """The Kaplan-Meier curve of all customers together: array (days,)."""
        return self.hazard.typical()

    def save(self, folder: Path) -> None:
        """Write the network's weights as safetensors, the trees as LightGBM's text, everything else as JSON."""
        for name, weights in (("model", self.weights), ("straight", self.straight)):
            parts = {part: np.ascontiguousarray(values) for part, values in weights.items()}
            save_file(parts, folder / f"{name}.safetensors")
        self.hazard.save(folder, "hazard")
        write_json(folder / FILE, {"columns": self.columns, "rhythm": asdict(self.rhythm), "days": self.days})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the weights, the trees and the rest back."""
        saved = read_json(folder / FILE)
        weights, straight = (load_file(folder / f"{name}.safetensors") for name in ("model", "straight"))
        rhythm, hazard = btyd.BgNbd(**saved["rhythm"]), Hazard.load(folder, "hazard")
        return cls(saved["columns"], rhythm, weights, straight, hazard, saved["days"])

    def _learned(self, frame: pd.DataFrame) -> list[Floats]:
        """The network's curves, and those of the one without hidden layers."""
        past = btyd.history(frame)
        daily = waits.log_odds_ahead(self.rhythm, past, np.arange(self.days + 1))
        terms = waits.rhythm_terms(self.rhythm, past)
        given = timing_network.tell(frame, self.columns, self.weights, terms, daily)
        odds = (timing_network.log_odds(weights, given, self.days) for weights in (self.weights, self.straight))
        return [np.cumprod(expit(-each.astype(np.float64)), axis=1) for each in odds]


def told(survival: Floats, horizon: int, churn: Floats) -> Floats:
    """The curves as customers are told of them: in agreement with churn, wherever they reach as far as its horizon."""
    return agree(survival, horizon, churn) if horizon <= survival.shape[1] else survival


def agree(survival: Floats, horizon: int, churn: Floats) -> Floats:
    """Tilt every curve so that P(no purchase within the horizon) is the churn model's number, exactly.

    All daily chances move together (proportional hazards): S becomes S to the power log(churn) / log S(horizon).
    survival: array (rows, days) as from `score`; churn: array (rows,). A curve that ends before the horizon
    cannot be tilted: ValueError.
    """
    if not 1 <= horizon <= survival.shape[1]:
        raise ValueError(f"the curve has {survival.shape[1]} days and the churn horizon is {horizon}; train it longer")
    wanted = np.asarray(churn, dtype=np.float64)[:, None]
    log_curve = np.log(np.clip(survival, LEAST, 1 - LEAST))
    power = np.log(np.clip(wanted, LEAST, 1 - LEAST)) / log_curve[:, horizon - 1 : horizon]
    tilted = np.exp(np.clip(power, 0.0, 1e6) * log_curve)
    before, after = np.maximum(tilted[:, : horizon - 1], wanted), np.minimum(tilted[:, horizon:], wanted)
    return np.hstack([before, wanted, after])


def _lesson(frame: pd.DataFrame, columns: list[str], scales: Weights, watch: Waits, days: int, seed: int) -> Lesson:
    """What the network learns from: rows that were watched for a day at least, of too many a sample."""
    rows, edges = np.random.default_rng(seed).permutation(np.flatnonzero(watch.begun))[:MOST_ROWS], np.arange(days + 1)
    terms, daily = waits.rhythms(frame, edges, rows)
    daily += waits.Calendar.of(frame, watch).on(watch.moment[rows], edges)
    return Lesson(timing_network.tell(frame.iloc[rows], columns, scales, terms, daily), watch.where(rows))
