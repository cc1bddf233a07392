"""Training of the timing network: maximum likelihood with torch, several starts, number of passes validated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from models.timing import network
from models.timing.adamw import AdamW
from models.timing.network import NetworkExamples, Weights

#: Minimum number of next purchases to train on when the number of passes is validated.
MIN_PURCHASES_TO_VALIDATE = 150
#: Passes over the rows where there are no earlier cutoffs to train on and later ones to validate on.
DEFAULT_PASSES = 6


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Training settings, chosen on both shops at cut-offs before those that are reported."""

    width: int = 32
    depth: int = 2
    seeds: int = 3
    rate: float = 2e-3
    decay: float = 0.1
    dropout: float = 0.1
    batch: int = 512
    most_passes: int = 25
    patience: int = 4


def fit_network(examples: NetworkExamples, days: int, seed: int, settings: NetworkSettings) -> Weights:
    """Choose the number of passes by validation, then train that long on all rows, from several starts."""
    passes = _choose_passes(examples, days, seed, settings)
    starts = [list(_train(examples, days, seed + number, settings, passes))[-1] for number in range(settings.seeds)]
    return network.combine_ensemble(starts)


def _choose_passes(examples: NetworkExamples, days: int, seed: int, settings: NetworkSettings) -> int:
    """The number of passes with the lowest loss at the latest cutoffs, for a network trained on earlier data only."""
    if (cutoff := examples.durations.validation_cutoff(days)) is None:
        return DEFAULT_PASSES
    training_part, validation_part = _train_validation_split(examples, cutoff)
    if training_part.durations.has_purchase.sum() < MIN_PURCHASES_TO_VALIDATE:
        return DEFAULT_PASSES
    best, best_pass, number = np.inf, 1, 0
    for number, weights in enumerate(_train(training_part, days, seed, settings, settings.most_passes), start=1):
        loss = network.loss(network.as_ensemble(weights), validation_part, days)
        if loss < best:
            best, best_pass = loss, number
        if number - best_pass >= settings.patience:
            break
    return best_pass


def _train_validation_split(
    examples: NetworkExamples, cutoff: np.datetime64
) -> tuple[NetworkExamples, NetworkExamples]:
    """Earlier cutoffs, censored at the split, and the cutoffs from the split on with their whole follow-up."""
    is_later = examples.durations.cutoff >= cutoff
    censored = NetworkExamples(examples.inputs, examples.durations.censored_at(cutoff))
    return censored.subset(censored.durations.has_follow_up & ~is_later), examples.subset(is_later)


def _train(
    examples: NetworkExamples, days: int, seed: int, settings: NetworkSettings, passes: int
) -> Iterator[Weights]:
    """The weights after each pass over the rows, by torch: on the CPU the same seed gives the same weights.

    One thread, because models are trained in parallel; on a GPU if there is one. Random numbers are drawn on the CPU in
    either case, so that results differ only by rounding. No operation of the network is random on one thread of a CPU:
    torch's own check of that would import its compiler, which takes longer than the training.
    """
    import torch  # slow to import, and needed for training only: scoring must not wait for it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _gradient_descent(examples, days, seed, settings, passes)
    finally:
        torch.set_num_threads(threads)


def _gradient_descent(
    examples: NetworkExamples, days: int, seed: int, settings: NetworkSettings, passes: int
) -> Iterator[Weights]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(seed)
    parts = initial_weights(examples.inputs.features.shape[1], days, settings, generator, device)
    decay = {name: settings.decay for name in parts if name.startswith("layer")}
    optimiser = AdamW(parts, rate=settings.rate, decay=decay)
    row_tensors = to_tensors(examples, days, device)
    for _ in range(passes):
        order = torch.randperm(len(examples.durations.follow_up_days), generator=generator).to(device)
        for rows in order.split(settings.batch):
            loss = negative_log_likelihood(
                parts, [part.index_select(0, rows) for part in row_tensors], days, settings, generator
            )
            loss.backward()
            optimiser.step()
        yield {name: part.detach().cpu().numpy().copy() for name, part in parts.items()}


def initial_weights(
    features: int, days: int, settings: NetworkSettings, generator: Any, device: str = "cpu"
) -> dict[str, Any]:
    """Random initial weights; those of the last layer are small, so that predictions start close to BG/NBD's."""
    import torch

    sizes = [features, *[settings.width] * settings.depth, len(network.hat_basis(days)) + 1]
    parts = {"week": torch.zeros(7), "pull": torch.zeros(1)}
    for number, (before, after) in enumerate(pairwise(sizes)):
        size = (2 / before) ** 0.5 * (0.1 if number == settings.depth else 1.0)
        parts[f"layer{number}"] = torch.randn(before, after, generator=generator) * size
        parts[f"shift{number}"] = torch.zeros(after)
    return {name: part.to(device).requires_grad_(True) for name, part in parts.items()}


def to_tensors(examples: NetworkExamples, days: int, device: str = "cpu") -> list[Any]:
    """The arguments of `negative_log_likelihood` for each row.

    Features, BG/NBD's log odds, weekdays, weekday lifts, days of follow-up, event indicator.
    """
    import torch

    inputs = examples.inputs
    target = (inputs.weekday[:, None] + np.arange(days)) % 7
    lift = np.take_along_axis(inputs.weekday_lift, target, axis=1)
    row_arrays = (
        inputs.features,
        inputs.daily_log_odds,
        target,
        lift,
        examples.durations.follow_up_days,
        examples.durations.has_purchase,
    )
    return [torch.from_numpy(part).to(device) for part in row_arrays]


def negative_log_likelihood(
    parts: dict[str, Any], rows: list[Any], days: int, settings: NetworkSettings, generator: Any
) -> Any:
    """Mean negative log likelihood per row; `network.loss` is the same without torch."""
    import torch

    hidden, daily_log_odds, target, lift, follow_up_days, has_purchase = rows
    for number in range(settings.depth):
        hidden = torch.relu(hidden @ parts[f"layer{number}"] + parts[f"shift{number}"])
        if settings.dropout:
            dropout_mask = torch.rand(hidden.shape, generator=generator) >= settings.dropout
            hidden = hidden * dropout_mask.to(hidden.device) / (1 - settings.dropout)
    adjustment = hidden @ parts[f"layer{settings.depth}"] + parts[f"shift{settings.depth}"]
    odds = daily_log_odds + adjustment[:, :-1] @ torch.from_numpy(network.hat_basis(days)).to(daily_log_odds.device)
    odds = odds + parts["week"][target] + (parts["pull"] + adjustment[:, -1:]) * lift
    is_followed = torch.arange(1, days + 1, device=odds.device) <= follow_up_days[:, None]
    survival_terms = torch.where(is_followed, torch.nn.functional.softplus(odds), 0.0)
    purchase_terms = odds.gather(1, follow_up_days[:, None] - 1)[:, 0] * has_purchase
    return (survival_terms.sum() - purchase_terms.sum()) / len(odds)
