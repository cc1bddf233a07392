"""Timing: when each customer will buy next, as the chance of every day to come and not as a single date."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import expit

from models import baselines, btyd
from models.base import WEEKDAY, Floats, feature_columns, matrix, read_json, write_json

Singles = NDArray[np.float32]
Whole = NDArray[np.int64]
Weights = dict[str, Singles]

#: Days from as_of at which the effect of a customer's features on the daily chance may bend.
BENDS = (1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 65, 90, 130, 180)
SHARES = [f"weekday_{day}_share" for day in range(7)]
#: The fewest next purchases that this many weights may be learned from.
FEWEST = 300
#: The moments held back to say when to stop are the latest that were watched for this many days, and any later.
WATCHED_DAYS = 28
#: Passes over the rows where there are no earlier moments to train on and later ones to judge by.
CAUTIOUS_PASSES = 6
ROWS_AT_ONCE = 4096
LEAST = 1e-7


@dataclass(frozen=True, slots=True)
class Growth:
    """How the network is grown; chosen on Complete Journey at cut-offs before those that are reported."""

    width: int = 64
    depth: int = 2
    seeds: int = 3
    rate: float = 2e-3
    decay: float = 0.1
    dropout: float = 0.1
    batch: int = 512
    most_passes: int = 25
    patience: int = 4


@dataclass(frozen=True)
class Timing:
    """A chance of buying for each of the next days, given none before it: BG/NBD's, bent by a small network.

    The network reads a customer's features, bends the daily chance along the days to come, and says how far
    the customer's own weekdays count; the shop's weekdays count for all. Rows still waiting when watching
    ended count for the days they were watched (right-censoring). Scoring needs numpy only.
    """

    columns: list[str]
    rhythm: btyd.BgNbd
    weights: Weights
    days: int
    pooled: Floats

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
        rows. The latest moments say how many passes to make, judging a network that was trained on what was
        known before them. `growth` overrides the settings of Growth.
        """
        baselines.enough_outcomes(label, days, fewest=FEWEST)
        columns = feature_columns(frame)
        scales = _scales(matrix(frame, columns))
        given = _given(frame, columns, scales, _rhythms(frame, days))
        watched, bought = baselines.durations(label, days)
        lesson = Lesson(given, watched.astype(np.int64), bought, _moments(frame))
        weights = {**_learn(lesson.watched_rows(), days, seed, Growth(**growth)), **scales}
        rhythm = btyd.BgNbd.fit_frame(btyd.latest(frame))
        return cls(columns, rhythm, weights, days, baselines.kaplan_meier(label, days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (rows, days), never rising."""
        curves = np.empty((len(frame), self.days))
        for start in range(0, len(frame), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            curves[rows] = self._curves(frame.iloc[rows])
        return curves

    def typical(self) -> Floats:
        """The Kaplan-Meier curve of all customers together: array (days,)."""
        return self.pooled

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors and everything else as JSON."""
        parts = {name: np.ascontiguousarray(part) for name, part in self.weights.items()}
        save_file(parts, folder / "model.safetensors")
        content = {
            "columns": self.columns,
            "rhythm": asdict(self.rhythm),
            "days": self.days,
            "pooled": self.pooled.tolist(),
        }
        write_json(folder / baselines.FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the weights and the rest back."""
        saved = read_json(folder / baselines.FILE)
        return cls(
            saved["columns"],
            btyd.BgNbd(**saved["rhythm"]),
            load_file(folder / "model.safetensors"),
            saved["days"],
            np.array(saved["pooled"]),
        )

    def _curves(self, frame: pd.DataFrame) -> Floats:
        past = btyd.history(frame)
        rhythm = _rhythm_terms(self.rhythm, past), _daily_log_odds(self.rhythm, past, self.days)
        given = _given(frame, self.columns, self.weights, rhythm)
        odds = _log_odds(self.weights, given, self.days)
        return np.cumprod(expit(-odds.astype(np.float64)), axis=1)


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


class Given(NamedTuple):
    """What the network is told of each row."""

    features: Singles  # (rows, features), scaled
    daily: Singles  # (rows, days): the rhythm's log odds of buying on each day
    weekday: Whole  # of the first day ahead, Monday 0
    habit: Singles  # (rows, 7): log of how much oftener than one in seven the customer came on a weekday

    def rows(self, which: Any) -> Given:
        return Given(*(part[which] for part in self))


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from: how many days each was watched, whether a purchase ended it, and its moment."""

    given: Given
    watched: Whole
    bought: NDArray[np.bool_]
    moment: NDArray[np.datetime64]

    def rows(self, which: NDArray[np.bool_]) -> Lesson:
        return Lesson(self.given.rows(which), self.watched[which], self.bought[which], self.moment[which])

    def watched_rows(self) -> Lesson:
        """Without the rows that nobody has watched for a day yet."""
        return self.rows(self.watched > 0)

    def until(self, end: np.datetime64) -> Lesson:
        """What was known of these rows at the end: later purchases have not happened yet."""
        limit = np.maximum((end - self.moment) // np.timedelta64(1, "D"), 0).astype(np.int64)
        seen = self.bought & (self.watched <= limit)
        return replace(self, watched=np.minimum(self.watched, limit), bought=seen).watched_rows()


def _moments(frame: pd.DataFrame) -> NDArray[np.datetime64]:
    return pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")


def _rhythms(frame: pd.DataFrame, days: int) -> tuple[Floats, Singles]:
    """The rhythm's terms and daily log odds of every row, by parameters fitted to the rows of its own moment."""
    moment, past = _moments(frame), btyd.history(frame)
    terms, daily = np.zeros((len(frame), 3)), np.zeros((len(frame), days), dtype=np.float32)
    for when in np.unique(moment):
        rows = moment == when
        then = btyd.History(*(part[rows] for part in past))
        rhythm = btyd.BgNbd.fit(*then)
        terms[rows], daily[rows] = _rhythm_terms(rhythm, then), _daily_log_odds(rhythm, then, days)
    return terms, daily


def _rhythm_terms(rhythm: btyd.BgNbd, past: btyd.History) -> Floats:
    alive = btyd.log_odds(rhythm.p_alive(*past))
    return np.column_stack([alive / 4, np.log(rhythm.rate(past.x, past.T)) + 3, np.log1p(past.T - past.t_x) - 2])


def _daily_log_odds(rhythm: btyd.BgNbd, past: btyd.History, days: int) -> Singles:
    """Log odds of buying on each day, given none before it: half BG/NBD's, half as if nobody had left for good.

    Customers whom it takes for gone come back oftener than it says, and a network cannot argue with certainty:
    counting its doubts half took the log loss a row from 2.844 to 2.835 (Complete Journey, days 154 to 214).
    """
    curve = np.hstack([np.ones((len(past.x), 1)), rhythm.survival(*past, days)])
    days_seen = rhythm.alpha + past.T[:, None] + np.arange(days)
    staying = -np.expm1(-(rhythm.r + past.x)[:, None] * np.log1p(1 / days_seen))
    odds = (btyd.log_odds(1 - curve[:, 1:] / curve[:, :-1]) + btyd.log_odds(staying)) / 2
    return odds.astype(np.float32)


def _scales(values: Floats) -> Weights:
    """How to bring each feature to a common size: what stands for a missing one, its centre and its width."""
    logs = _logs(values)
    known = ~np.isnan(logs)
    counts = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, logs, 0.0).sum(axis=0) / counts
    width = np.sqrt((np.where(known, logs - centre, 0.0) ** 2).sum(axis=0) / counts)
    fill = [np.median(column[seen]) if seen.any() else 0.0 for column, seen in zip(logs.T, known.T, strict=True)]
    parts = {"centre": centre, "width": np.maximum(width, 1e-3), "fill": np.array(fill)}
    return {name: part.astype(np.float32) for name, part in parts.items()} | {
        "gaps": np.flatnonzero((~known).any(axis=0)).astype(np.float32)
    }


def _logs(values: Floats) -> Floats:
    """Sizes on a scale on which money, days and shares are alike; the sign stays."""
    logs: Floats = np.sign(values) * np.log1p(np.abs(values))
    return logs


def _given(frame: pd.DataFrame, columns: list[str], scales: Weights, rhythm: tuple[Floats, Singles]) -> Given:
    logs = _logs(matrix(frame, columns))
    missing = np.isnan(logs)
    scaled = np.clip((np.where(missing, scales["fill"], logs) - scales["centre"]) / scales["width"], -4, 4)
    terms, daily = rhythm
    features = np.hstack([scaled, missing[:, scales["gaps"].astype(int)], terms]).astype(np.float32)
    return Given(features, daily, _first_weekday(frame), _habit(frame))


def _first_weekday(frame: pd.DataFrame) -> Whole:
    """The weekday of the first day ahead in the shop's zone; without the feature, as the clock of as_of says."""
    told = frame[WEEKDAY] if WEEKDAY in frame.columns else frame["as_of"].dt.weekday
    return told.to_numpy(dtype=np.float64).astype(np.int64) % 7


def _habit(frame: pd.DataFrame) -> Singles:
    """Own weekdays on a log scale; a visit on every weekday is added, so that few visits say little."""
    if not set(SHARES) <= set(frame.columns):
        return np.zeros((len(frame), 7), dtype=np.float32)
    visits = btyd.history(frame).x[:, None] + 1
    shares = np.nan_to_num(matrix(frame, SHARES), nan=1 / 7)
    return np.log(7 * (shares * visits + 1) / (visits + 7)).astype(np.float32)


def _basis(days: int) -> Singles:
    """Hats over the bends on a log scale of days: array (bends, days); every day's hats add up to 1."""
    bends = np.log([bend for bend in BENDS if bend < days] + [days])
    ahead = np.log(np.arange(1, days + 1))
    return np.array([np.interp(ahead, bends, one) for one in np.eye(len(bends))], dtype=np.float32)


def _log_odds(weights: Weights, given: Given, days: int) -> Singles:
    """Log odds of buying on each day ahead, given none before it: array (rows, days)."""
    layers = sorted(name for name in weights if name.startswith("layer"))
    hidden = np.broadcast_to(given.features, (len(weights["layer0"]), *given.features.shape))
    for number, name in enumerate(layers):
        hidden = hidden @ weights[name] + weights[f"shift{number}"][:, None, :]
        if name != layers[-1]:
            hidden = np.maximum(hidden, 0)
    bent = hidden.mean(axis=0)
    target = (given.weekday[:, None] + np.arange(days)) % 7
    habit = np.take_along_axis(given.habit, target, axis=1)
    odds: Singles = given.daily + bent[:, :-1] @ _basis(days) + weights["week"][target]
    odds += (weights["pull"] + bent[:, -1:]) * habit
    return odds


def _learn(lesson: Lesson, days: int, seed: int, growth: Growth) -> Weights:
    """Find how long to train, then train that long on everything, from several starts."""
    passes = _passes(lesson, days, seed, growth)
    grown = [list(_training(lesson, days, seed + number, growth, passes))[-1] for number in range(growth.seeds)]
    each = {name: np.stack([weights[name] for weights in grown]) for name in grown[0]}
    # The answer is a straight line in these two: their mean over the starts is the mean answer.
    return {name: part.mean(axis=0) if name in ("week", "pull") else part for name, part in each.items()}


def _passes(lesson: Lesson, days: int, seed: int, growth: Growth) -> int:
    """The number of passes after which a network that knows only the past foretells the latest moments best."""
    end = lesson.moment + lesson.watched.astype("timedelta64[D]")
    full = lesson.moment[lesson.moment + np.timedelta64(min(WATCHED_DAYS, days), "D") <= end.max()]
    if not len(full):
        return CAUTIOUS_PASSES
    split = full.max()
    past, later = lesson.rows(lesson.moment < split).until(split), lesson.rows(lesson.moment >= split)
    if past.bought.sum() < FEWEST / 2:
        return CAUTIOUS_PASSES
    best, best_pass, number = np.inf, 1, 0
    for number, weights in enumerate(_training(past, days, seed, growth, growth.most_passes), start=1):
        alone = {name: part if name in ("week", "pull") else part[None] for name, part in weights.items()}
        loss = _loss(alone, later, days)
        if loss < best:
            best, best_pass = loss, number
        if number - best_pass >= growth.patience:
            break
    return best_pass


def _loss(weights: Weights, lesson: Lesson, days: int) -> float:
    """Minus the log likelihood of what happened, a row."""
    odds = _log_odds(weights, lesson.given, days).astype(np.float64)
    ahead = np.arange(1, days + 1)
    waiting = (np.logaddexp(0, odds) * (ahead <= lesson.watched[:, None])).sum()
    came = odds[np.flatnonzero(lesson.bought), lesson.watched[lesson.bought] - 1].sum()
    return float((waiting - came) / len(odds))


def _training(lesson: Lesson, days: int, seed: int, growth: Growth, passes: int) -> Iterator[Weights]:
    """The weights after each pass over the rows, by torch on one thread: the same seed gives the same weights."""
    import torch  # heavy, and needed for learning only: who asks when somebody comes back never waits for it

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield from _descend(lesson, days, seed, growth, passes)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def _descend(lesson: Lesson, days: int, seed: int, growth: Growth, passes: int) -> Iterator[Weights]:
    import torch

    chance = torch.Generator().manual_seed(seed)
    parts = _newborn(lesson.given.features.shape[1], days, growth, chance)
    decayed = [part for name, part in parts.items() if name.startswith("layer")]
    free = [part for name, part in parts.items() if not name.startswith("layer")]
    groups = [{"params": decayed, "weight_decay": growth.decay}, {"params": free, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=growth.rate)
    rows_told = _tensors(lesson, days)
    for _ in range(passes):
        order = torch.randperm(len(lesson.watched), generator=chance)
        for start in range(0, len(order), growth.batch):
            rows = order[start : start + growth.batch]
            loss = _surprise(parts, [part[rows] for part in rows_told], days, growth, chance)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        yield {name: part.detach().numpy().copy() for name, part in parts.items()}


def _newborn(features: int, days: int, growth: Growth, chance: Any) -> dict[str, Any]:
    """Weights that know nothing yet; the last layer is small, so that the first answers are the rhythm's."""
    import torch

    sizes = [features, *[growth.width] * growth.depth, len(_basis(days)) + 1]
    parts = {"week": torch.zeros(7), "pull": torch.zeros(1)}
    for number, (before, after) in enumerate(pairwise(sizes)):
        size = (2 / before) ** 0.5 * (0.1 if number == growth.depth else 1.0)
        parts[f"layer{number}"] = torch.randn(before, after, generator=chance) * size
        parts[f"shift{number}"] = torch.zeros(after)
    return {name: part.requires_grad_(True) for name, part in parts.items()}


def _tensors(lesson: Lesson, days: int) -> list[Any]:
    import torch

    given = lesson.given
    target = (given.weekday[:, None] + np.arange(days)) % 7
    habit = np.take_along_axis(given.habit, target, axis=1)
    told = (given.features, given.daily, target, habit, lesson.watched, lesson.bought)
    return [torch.from_numpy(part) for part in told]


def _surprise(parts: dict[str, Any], rows: list[Any], days: int, growth: Growth, chance: Any) -> Any:
    """Minus the log likelihood of what happened, a row; `_log_odds` says the same without torch."""
    import torch

    hidden, daily, target, habit, watched, bought = rows
    for number in range(growth.depth):
        hidden = torch.relu(hidden @ parts[f"layer{number}"] + parts[f"shift{number}"])
        if growth.dropout:
            kept = torch.rand(hidden.shape, generator=chance) >= growth.dropout
            hidden = hidden * kept / (1 - growth.dropout)
    bent = hidden @ parts[f"layer{growth.depth}"] + parts[f"shift{growth.depth}"]
    odds = daily + bent[:, :-1] @ torch.from_numpy(_basis(days))
    odds = odds + parts["week"][target] + (parts["pull"] + bent[:, -1:]) * habit
    waiting = torch.nn.functional.softplus(odds) * (torch.arange(1, days + 1) <= watched[:, None])
    came = odds.gather(1, watched[:, None] - 1)[:, 0] * bought
    return (waiting.sum() - came.sum()) / len(odds)
