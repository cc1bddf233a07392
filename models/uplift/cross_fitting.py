"""Unseen: what models say of customers whom they have never seen, so that what they say can be judged.

What customers are foretold to gain comes from the X-learner (Künzel 2019), beside it the T- and the doubly robust
learner (Kennedy 2023). They are judged by doubly robust scores: a guess from customers like this one, corrected by
what did happen, weighted by how likely the message was; their mean is right where either of the two models behind
it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from models import baselines, groves, trees
from models.base import Floats
from models.groves import Groves
from models.trial import Trial, enough

#: Steady rather than clever: an effect is a small part of what an outcome varies by.
GROWTH: dict[str, Any] = {
    "num_leaves": 8,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "lambda_l2": 1.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
TREES = 100
FOLDS = 4
#: How far the straight line that trees start from is held back.
RIDGE = 10.0
#: So many of either kind that the models of some folds learn from.
FEWEST_TAUGHT = 30
#: Whoever was nearly sure to be contacted, or not to be, has nobody to be compared with.
OVERLAP = (0.05, 0.95)


@dataclass(frozen=True)
class Tried:
    """What is held of every row by models that have never seen its customer.

    `chance` of being contacted, `kept` where somebody can be compared, `gain`: the row's doubly robust score, whose
    mean over any group is the effect on that group; `imputed`: what happened against the guess of what would have
    happened otherwise; `effects`: what each learner foretells, by its name.
    """

    chance: Floats
    kept: NDArray[np.bool_]
    gain: Floats
    imputed: Floats
    effects: dict[str, Floats]


@dataclass(frozen=True)
class Reach:
    """How likely each row was to be contacted, said by models that have not seen two of the folds, for each two."""

    fold: NDArray[np.int64]
    chance: dict[tuple[int, int], Floats]

    @classmethod
    def of(cls, trial: Trial, *, seed: int = 0, folds: int = FOLDS, count: int = TREES, **growth: Any) -> Self:
        """Customers fall into folds by lot; whoever is in one is never judged by models that have seen them."""
        fold, mailed = _folds(trial.customers, folds, seed), trial.contacted.astype(np.float64)
        grown = {"count": count, "seed": seed, **growth}
        apart = {pair: ~np.isin(fold, pair) for pair in combinations(range(folds), 2)}
        return cls(
            fold, {pair: expit(_learned(trial, mailed, "binary", taught, **grown)) for pair, taught in apart.items()}
        )


def tried(
    trial: Trial, reach: Reach | None = None, *, seed: int = 0, folds: int = FOLDS, count: int = TREES, **growth: Any
) -> Tried:
    """Score every row by models made from other customers alone, those of the scores they learn from included.

    For each two folds, models of chance and outcome learn from all others. What contact adds to one fold is then
    learned from the others by scores whose models have seen neither. `reach` spares a second outcome of the same
    trial the first half of it.
    """
    reach = reach or Reach.of(trial, seed=seed, folds=folds, count=count, **growth)
    fold, grown = reach.fold, {"count": count, "seed": seed, **growth}
    pairs = {pair: _guess(trial, chance, ~np.isin(fold, pair), grown) for pair, chance in reach.chance.items()}
    mine = [[guess for pair, guess in pairs.items() if held in pair] for held in range(int(fold.max()) + 1)]
    chance, gain, imputed, apart = (_own(fold, mine, name) for name in ("chance", "gain", "imputed", "apart"))
    kept = (chance >= OVERLAP[0]) & (chance <= OVERLAP[1])
    enough(int((kept & trial.contacted).sum()), int((kept & ~trial.contacted).sum()))
    effects = {name: np.zeros(len(fold)) for name in ("x", "dr")} | {"t": apart}
    for held in range(len(mine)):
        for name, effect in _foretold(trial, fold, held, pairs, kept, seed).items():
            effects[name][fold == held] = effect
    return Tried(chance, kept, gain, imputed, effects)


@dataclass(frozen=True)
class _Guess:
    """What models say of rows that they have not seen: how likely contact was, and the outcome without and with it."""

    trial: Trial
    chance: Floats
    without: Floats
    contacted: Floats

    @property
    def apart(self) -> Floats:
        return self.contacted - self.without

    @property
    def gain(self) -> Floats:
        """The doubly robust score: the guess, and what happened beyond it."""
        chance = np.clip(self.chance, *OVERLAP)
        reached, outcome = self.trial.contacted, self.trial.outcome
        beyond = np.where(reached, (outcome - self.contacted) / chance, -(outcome - self.without) / (1 - chance))
        return self.apart + beyond

    @property
    def imputed(self) -> Floats:
        """What happened against the guess of what would have happened otherwise (the X-learner's)."""
        outcome = self.trial.outcome
        return np.where(self.trial.contacted, outcome - self.without, self.contacted - outcome)


def _folds(customers: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for each customer, by lot."""
    known, place = np.unique(customers, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(known)) % folds
    return np.asarray(drawn[place], np.int64)


def _guess(trial: Trial, chance: Floats, taught: NDArray[np.bool_], grown: dict[str, Any]) -> _Guess:
    """Outcomes of all rows, learned from some. That with contact starts from the one without: few are contacted."""
    reached, others = trial.contacted & taught, taught & ~trial.contacted
    enough(int(reached.sum()), int(others.sum()), FEWEST_TAUGHT)
    without = _learned(trial, trial.outcome, trial.objective, others, **grown)
    with_contact = _learned(trial, trial.outcome, trial.objective, reached, start=without, **grown)
    if trial.objective == "binary":
        without, with_contact = expit(without), expit(with_contact)
    return _Guess(trial, chance, without, with_contact)


def _learned(
    trial: Trial, outcome: Floats, objective: str, taught: NDArray[np.bool_], *, count: int, seed: int,
    start: Floats | None = None, **growth: Any,
) -> Floats:  # fmt: skip
    """What trees on top of a straight line, or of another answer, say of every row: log odds, or an amount.

    Trees alone are slow to learn what is straight, and whatever they miss of why somebody was contacted is taken
    for an effect: without the line they found one in 9 of 20 worlds that had none.
    """
    if start is None:
        start = _line(trial.plain[taught], outcome[taught], objective)(trial.plain)
    how = trees.settings(GROWTH | growth, objective=objective, seed=seed)
    return start + trees.grow(trees.Rows(trial.situation, outcome, start).where(taught), how, count).added(
        trial.situation
    )


def _line(terms: Floats, outcome: Floats, objective: str) -> Callable[[Floats], Floats]:
    if objective == "binary":
        weights = baselines.logistic(terms, outcome, ridge=RIDGE)
        return lambda asked: np.asarray(weights[0] + asked @ weights[1:])
    mean, middle = float(outcome.mean()), terms.mean(axis=0)
    apart = terms - middle
    slopes = np.linalg.solve(apart.T @ apart + RIDGE * np.eye(terms.shape[1]), apart.T @ (outcome - mean))
    return lambda asked: np.asarray(mean + (asked - middle) @ slopes)


def _own(fold: NDArray[np.int64], mine: list[list[_Guess]], name: str) -> Floats:
    """For each row, the mean of what all models say that have not seen it."""
    told = np.zeros(len(fold))
    for held, guesses in enumerate(mine):
        here = fold == held
        told[here] = np.mean([getattr(guess, name)[here] for guess in guesses], axis=0)
    return told


def _foretold(
    trial: Trial, fold: NDArray[np.int64], held: int, pairs: dict[tuple[int, int], _Guess],
    kept: NDArray[np.bool_], seed: int,
) -> dict[str, Floats]:  # fmt: skip
    """What contact adds to the customers of one fold, learned from the others."""
    gain, imputed, chance = (np.zeros(len(fold)) for _ in range(3))
    for other in set(fold.tolist()) - {held}:
        guess, here = pairs[min(held, other), max(held, other)], fold == other
        for into, values in ((gain, guess.gain), (imputed, guess.imputed), (chance, guess.chance)):
            into[here] = values[here]
    taught, asked = (fold != held) & kept, trial.design[fold == held]
    design, reached = trial.design[taught], trial.contacted[taught]
    robust = groves.grow(design, gain[taught], seed=seed, trust=_trust(chance[taught]))
    crossed = Groves.grow(design, imputed[taught], reached, seed=seed)
    return {"x": crossed.score(asked), "dr": robust.score(asked)}


def _trust(chance: Floats) -> Floats:
    """A score counts for less where contact was nearly sure or nearly out of the question: it is noisier there."""
    chance = np.clip(chance, *OVERLAP)
    return 4 * chance * (1 - chance)
