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

from models.base import Floats
from models.estimators import boosted_trees, logistic_regression
from models.uplift import x_learner
from models.uplift.treatment_data import TreatmentData, require_enough
from models.uplift.x_learner import XLearner

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
MIN_TRAINING_ROWS = 30
#: Whoever was nearly sure to be contacted, or not to be, has nobody to be compared with.
OVERLAP = (0.05, 0.95)


@dataclass(frozen=True)
class CrossFittedScores:
    """What is held of every row by models that have never seen its customer.

    `chance` of being contacted, `kept` where somebody can be compared, `gain`: the row's doubly robust score, whose
    mean over any group is the effect on that group; `imputed`: what happened against the guess of what would have
    happened otherwise; `effects`: what each learner foretells, by its name.
    """

    propensity: Floats
    has_overlap: NDArray[np.bool_]
    dr_scores: Floats
    imputed_effects: Floats
    effects: dict[str, Floats]


@dataclass(frozen=True)
class PropensityScores:
    """How likely each row was to be contacted, said by models that have not seen two of the folds, for each two."""

    fold: NDArray[np.int64]
    propensity_by_pair: dict[tuple[int, int], Floats]

    @classmethod
    def fit(cls, study: TreatmentData, *, seed: int = 0, folds: int = FOLDS, count: int = TREES, **growth: Any) -> Self:
        """Customers fall into folds by lot; whoever is in one is never judged by models that have seen them."""
        fold, contacted = _assign_folds(study.customers, folds, seed), study.contacted.astype(np.float64)
        fit_settings = {"count": count, "seed": seed, **growth}
        training_rows_by_pair = {pair: ~np.isin(fold, pair) for pair in combinations(range(folds), 2)}
        return cls(
            fold,
            {
                pair: expit(_fit_predict(study, contacted, "binary", training_rows, **fit_settings))
                for pair, training_rows in training_rows_by_pair.items()
            },
        )


def cross_fit(
    study: TreatmentData,
    propensity_scores: PropensityScores | None = None,
    *,
    seed: int = 0,
    folds: int = FOLDS,
    count: int = TREES,
    **growth: Any,
) -> CrossFittedScores:
    """Score every row by models made from other customers alone, those of the scores they learn from included.

    For each two folds, models of chance and outcome learn from all others. What contact adds to one fold is then
    learned from the others by scores whose models have seen neither. `reach` spares a second outcome of the same
    trial the first half of it.
    """
    propensity_scores = propensity_scores or PropensityScores.fit(study, seed=seed, folds=folds, count=count, **growth)
    fold, fit_settings = propensity_scores.fold, {"count": count, "seed": seed, **growth}
    predictions = {
        pair: _predict_nuisances(study, propensity, ~np.isin(fold, pair), fit_settings)
        for pair, propensity in propensity_scores.propensity_by_pair.items()
    }
    guesses_by_fold = [
        [guess for pair, guess in predictions.items() if held_out in pair] for held_out in range(int(fold.max()) + 1)
    ]
    propensity, dr_scores, imputed_effects, t_effects = (
        _mean_out_of_fold(fold, guesses_by_fold, name)
        for name in ("propensity", "dr_scores", "imputed_effects", "effect")
    )
    has_overlap = (propensity >= OVERLAP[0]) & (propensity <= OVERLAP[1])
    require_enough(int((has_overlap & study.contacted).sum()), int((has_overlap & ~study.contacted).sum()))
    effects = {name: np.zeros(len(fold)) for name in ("x", "dr")} | {"t": t_effects}
    for held_out in range(len(guesses_by_fold)):
        for name, effect in _predict_effects(study, fold, held_out, predictions, has_overlap, seed).items():
            effects[name][fold == held_out] = effect
    return CrossFittedScores(propensity, has_overlap, dr_scores, imputed_effects, effects)


@dataclass(frozen=True)
class _NuisancePredictions:
    """What models say of rows that they have not seen: how likely contact was, and the outcome without and with it."""

    study: TreatmentData
    propensity: Floats
    untreated_outcome: Floats
    treated_outcome: Floats

    @property
    def effect(self) -> Floats:
        return self.treated_outcome - self.untreated_outcome

    @property
    def dr_scores(self) -> Floats:
        """The doubly robust score: the guess, and what happened beyond it."""
        propensity = np.clip(self.propensity, *OVERLAP)
        is_treated, outcome = self.study.contacted, self.study.outcome
        correction = np.where(
            is_treated,
            (outcome - self.treated_outcome) / propensity,
            -(outcome - self.untreated_outcome) / (1 - propensity),
        )
        return self.effect + correction

    @property
    def imputed_effects(self) -> Floats:
        """What happened against the guess of what would have happened otherwise (the X-learner's)."""
        outcome = self.study.outcome
        return np.where(self.study.contacted, outcome - self.untreated_outcome, self.treated_outcome - outcome)


def _assign_folds(customers: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for each customer, by lot."""
    unique_customers, place = np.unique(customers, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(unique_customers)) % folds
    return np.asarray(drawn[place], np.int64)


def _predict_nuisances(
    study: TreatmentData, propensity: Floats, training_rows: NDArray[np.bool_], fit_settings: dict[str, Any]
) -> _NuisancePredictions:
    """Outcomes of all rows, learned from some. That with contact starts from the one without: few are contacted."""
    treated_rows, untreated_rows = study.contacted & training_rows, training_rows & ~study.contacted
    require_enough(int(treated_rows.sum()), int(untreated_rows.sum()), MIN_TRAINING_ROWS)
    untreated_outcome = _fit_predict(study, study.outcome, study.objective, untreated_rows, **fit_settings)
    treated_outcome = _fit_predict(
        study, study.outcome, study.objective, treated_rows, start=untreated_outcome, **fit_settings
    )
    if study.objective == "binary":
        untreated_outcome, treated_outcome = expit(untreated_outcome), expit(treated_outcome)
    return _NuisancePredictions(study, propensity, untreated_outcome, treated_outcome)


def _fit_predict(
    study: TreatmentData, outcome: Floats, objective: str, training_rows: NDArray[np.bool_], *, count: int, seed: int,
    start: Floats | None = None, **growth: Any,
) -> Floats:  # fmt: skip
    """What trees on top of a straight line, or of another answer, say of every row: log odds, or an amount.

    Trees alone are slow to learn what is straight, and whatever they miss of why somebody was contacted is taken
    for an effect: without the line they found one in 9 of 20 worlds that had none.
    """
    if start is None:
        start = _fit_linear(study.linear_design[training_rows], outcome[training_rows], objective)(study.linear_design)
    params = boosted_trees.lightgbm_params(GROWTH | growth, objective=objective, seed=seed)
    return start + boosted_trees.fit_trees(
        boosted_trees.TrainingRows(study.tree_design, outcome, start).subset(training_rows), params, count
    ).raw_score(study.tree_design)


def _fit_linear(terms: Floats, outcome: Floats, objective: str) -> Callable[[Floats], Floats]:
    if objective == "binary":
        weights = logistic_regression.fit_weights(terms, outcome, ridge=RIDGE)
        return lambda rows: np.asarray(weights[0] + rows @ weights[1:])
    mean, term_means = float(outcome.mean()), terms.mean(axis=0)
    centred = terms - term_means
    slopes = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(terms.shape[1]), centred.T @ (outcome - mean))
    return lambda rows: np.asarray(mean + (rows - term_means) @ slopes)


def _mean_out_of_fold(fold: NDArray[np.int64], guesses_by_fold: list[list[_NuisancePredictions]], name: str) -> Floats:
    """For each row, the mean of what all models say that have not seen it."""
    means = np.zeros(len(fold))
    for held_out, guesses in enumerate(guesses_by_fold):
        in_fold = fold == held_out
        means[in_fold] = np.mean([getattr(guess, name)[in_fold] for guess in guesses], axis=0)
    return means


def _predict_effects(
    study: TreatmentData, fold: NDArray[np.int64], held_out: int, predictions: dict[tuple[int, int], _NuisancePredictions],
    has_overlap: NDArray[np.bool_], seed: int,
) -> dict[str, Floats]:  # fmt: skip
    """What contact adds to the customers of one fold, learned from the others."""
    dr_scores, imputed_effects, propensity = (np.zeros(len(fold)) for _ in range(3))
    for other in set(fold.tolist()) - {held_out}:
        guess, in_fold = predictions[min(held_out, other), max(held_out, other)], fold == other
        for target, values in (
            (dr_scores, guess.dr_scores),
            (imputed_effects, guess.imputed_effects),
            (propensity, guess.propensity),
        ):
            target[in_fold] = values[in_fold]
    training_rows, held_out_design = (fold != held_out) & has_overlap, study.design[fold == held_out]
    design, is_treated = study.design[training_rows], study.contacted[training_rows]
    dr_learner = x_learner.fit_effect_trees(
        design, dr_scores[training_rows], seed=seed, weight=_overlap_weights(propensity[training_rows])
    )
    x_model = XLearner.fit(design, imputed_effects[training_rows], is_treated, seed=seed)
    return {"x": x_model.score(held_out_design), "dr": dr_learner.score(held_out_design)}


def _overlap_weights(propensity: Floats) -> Floats:
    """A score counts for less where contact was nearly sure or nearly out of the question: it is noisier there."""
    propensity = np.clip(propensity, *OVERLAP)
    return 4 * propensity * (1 - propensity)
