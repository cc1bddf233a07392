"""How the network of timing learns: by maximum likelihood, from several starts, for as long as it helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from models import timing_network as network
from models.timing_network import Lesson, Weights

#: The fewest next purchases that a network may be trained on to find out how many passes to make.
FEWEST_BEFORE = 150
#: Passes over the rows where there are no earlier moments to train on and later ones to judge by.
CAUTIOUS_PASSES = 6


@dataclass(frozen=True, slots=True)
class Growth:
    """How the network is grown; chosen on both shops at cut-offs before those that are reported."""

    width: int = 32
    depth: int = 2
    seeds: int = 3
    rate: float = 2e-3
    decay: float = 0.1
    dropout: float = 0.1
    batch: int = 512
    most_passes: int = 25
    patience: int = 4


def learn(lesson: Lesson, days: int, seed: int, growth: Growth) -> Weights:
    """Find how long to train, then train that long on everything, from several starts."""
    passes = _passes(lesson, days, seed, growth)
    grown = [list(_training(lesson, days, seed + number, growth, passes))[-1] for number in range(growth.seeds)]
    return network.together(grown)


def _passes(lesson: Lesson, days: int, seed: int, growth: Growth) -> int:
    """The number of passes after which a network that knows only the past foretells the latest moments best."""
    if (split := lesson.waits.split(days)) is None:
        return CAUTIOUS_PASSES
    before, later = _halves(lesson, split)
    if before.waits.bought.sum() < FEWEST_BEFORE:
        return CAUTIOUS_PASSES
    best, best_pass, number = np.inf, 1, 0
    for number, weights in enumerate(_training(before, days, seed, growth, growth.most_passes), start=1):
        loss = network.loss(network.alone(weights), later, days)
        if loss < best:
            best, best_pass = loss, number
        if number - best_pass >= growth.patience:
            break
    return best_pass


def _halves(lesson: Lesson, split: np.datetime64) -> tuple[Lesson, Lesson]:
    """What was known before the latest moments, and those moments with all that became of them."""
    later = lesson.waits.moment >= split
    then = Lesson(lesson.given, lesson.waits.until(split))
    return then.rows(then.waits.begun & ~later), lesson.rows(later)


def _training(lesson: Lesson, days: int, seed: int, growth: Growth, passes: int) -> Iterator[Weights]:
    """The weights after each pass over the rows, by torch: on the CPU the same seed gives the same weights.

    One thread, for models learn side by side; a GPU where there is one. The draws are made on the CPU in either
    case, so that only rounding differs.
    """
    import torch  # heavy, and needed for learning only: who asks when somebody comes back never waits for it

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    try:
        yield from _descend(lesson, days, seed, growth, passes)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def _descend(lesson: Lesson, days: int, seed: int, growth: Growth, passes: int) -> Iterator[Weights]:
    import torch

    place = "cuda" if torch.cuda.is_available() else "cpu"
    chance = torch.Generator().manual_seed(seed)
    parts = newborn(lesson.given.features.shape[1], days, growth, chance, place)
    decayed = [part for name, part in parts.items() if name.startswith("layer")]
    free = [part for name, part in parts.items() if not name.startswith("layer")]
    groups = [{"params": decayed, "weight_decay": growth.decay}, {"params": free, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=growth.rate)
    rows_told = tensors(lesson, days, place)
    for _ in range(passes):
        order = torch.randperm(len(lesson.waits.watched), generator=chance).to(place)
        for rows in order.split(growth.batch):
            loss = surprise(parts, [part.index_select(0, rows) for part in rows_told], days, growth, chance)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        yield {name: part.detach().cpu().numpy().copy() for name, part in parts.items()}


def newborn(features: int, days: int, growth: Growth, chance: Any, place: str = "cpu") -> dict[str, Any]:
    """Weights that know nothing yet; the last layer is small, so that the first answers are the rhythm's."""
    import torch

    sizes = [features, *[growth.width] * growth.depth, len(network.basis(days)) + 1]
    parts = {"week": torch.zeros(7), "pull": torch.zeros(1)}
    for number, (before, after) in enumerate(pairwise(sizes)):
        size = (2 / before) ** 0.5 * (0.1 if number == growth.depth else 1.0)
        parts[f"layer{number}"] = torch.randn(before, after, generator=chance) * size
        parts[f"shift{number}"] = torch.zeros(after)
    return {name: part.to(place).requires_grad_(True) for name, part in parts.items()}


def tensors(lesson: Lesson, days: int, place: str = "cpu") -> list[Any]:
    """What `surprise` wants of the rows: features, the rhythm's odds, weekdays, habits, days watched, bought."""
    import torch

    given = lesson.given
    target = (given.weekday[:, None] + np.arange(days)) % 7
    habit = np.take_along_axis(given.habit, target, axis=1)
    told = (given.features, given.daily, target, habit, lesson.waits.watched, lesson.waits.bought)
    return [torch.from_numpy(part).to(place) for part in told]


def surprise(parts: dict[str, Any], rows: list[Any], days: int, growth: Growth, chance: Any) -> Any:
    """Minus the log likelihood of what happened, a row; `network.log_odds` says the same without torch."""
    import torch

    hidden, daily, target, habit, watched, bought = rows
    for number in range(growth.depth):
        hidden = torch.relu(hidden @ parts[f"layer{number}"] + parts[f"shift{number}"])
        if growth.dropout:
            kept = torch.rand(hidden.shape, generator=chance) >= growth.dropout
            hidden = hidden * kept.to(hidden.device) / (1 - growth.dropout)
    bent = hidden @ parts[f"layer{growth.depth}"] + parts[f"shift{growth.depth}"]
    odds = daily + bent[:, :-1] @ torch.from_numpy(network.basis(days)).to(daily.device)
    odds = odds + parts["week"][target] + (parts["pull"] + bent[:, -1:]) * habit
    waiting = torch.nn.functional.softplus(odds) * (torch.arange(1, days + 1, device=odds.device) <= watched[:, None])
    came = odds.gather(1, watched[:, None] - 1)[:, 0] * bought
    return (waiting.sum() - came.sum()) / len(odds)
