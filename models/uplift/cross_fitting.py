"""Cross-fitting: every row is scored by models that were not fitted to its customer, so that they can be evaluated.

The estimated effect is that of the X-learner (Künzel 2019), compared with the T-learner and the doubly robust learner
(Kennedy 2023). They are evaluated by doubly robust scores: the predicted effect, corrected by the residual of the
observed outcome, weighted by the inverse propensity. Their mean is right where either of the two models behind it is.
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

#: Conservative settings: an effect is a small part of the variance of an outcome.
LIGHTGBM_PARAMS: dict[str, Any] = {
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
#: Ridge penalty of the linear model that the trees start from.
RIDGE = 10.0
#: The fewest rows, contacted and not, that the models of some folds are fitted to.
MIN_TRAINING_ROWS = 30
#: A customer with a propensity outside this range has no comparable customers.
OVERLAP = (0.05, 0.95)


@dataclass(frozen=True)
class CrossFittedScores:
    """Estimates for every row from models that were not fitted to its customer, (n_rows,) each.

    `propensity`: P(contact). `has_overlap`: whether comparable customers exist (propensity within OVERLAP).
    `dr_scores`: doubly robust scores; their mean over any group is the effect on that group. `imputed_effects`: the
    outcome against the predicted outcome of the other treatment. `effects`: the estimated effect, by name of the
    learner (x, dr, t).
    """

    propensity: Floats
    has_overlap: NDArray[np.bool_]
    dr_scores: Floats
    imputed_effects: Floats
    effects: dict[str, Floats]


@dataclass(frozen=True)
class PropensityScores:
    """P(contact) of each row, for each pair of folds from a model that was fitted to neither.

    `fold` and each array of `propensity_by_pair` are (n_rows,).
    """

    fold: NDArray[np.int64]
    propensity_by_pair: dict[tuple[int, int], Floats]

    @classmethod
    def fit(
        cls, study: TreatmentData, *, seed: int = 0, folds: int = FOLDS, count: int = TREES, **overrides: Any
    ) -> Self:
        """Draw a fold for each customer, and fit a model without each pair of folds."""
        fold, contacted = _assign_folds(study.customers, folds, seed), study.contacted.astype(np.float64)
        fit_settings = {"count": count, "seed": seed, **overrides}
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
    **overrides: Any,
) -> CrossFittedScores:
    """Score every row with models of other customers only, including the scores that those models are fitted to.

    For each pair of folds, models of propensity and outcome are fitted to all other folds. The effect on one fold is
    then fitted to the others, with scores whose models used neither fold. propensity_scores saves the first half of
    this for a second outcome of the same study. `overrides` replace LightGBM's settings. `require_enough` raises
    InsufficientData where too few comparable rows were contacted, or were not.
    """
    propensity_scores = propensity_scores or PropensityScores.fit(
        study, seed=seed, folds=folds, count=count, **overrides
    )
    fold, fit_settings = propensity_scores.fold, {"count": count, "seed": seed, **overrides}
    predictions = {
        pair: _predict_nuisances(study, propensity, ~np.isin(fold, pair), fit_settings)
        for pair, propensity in propensity_scores.propensity_by_pair.items()
    }
    predictions_by_fold = [
        [prediction for pair, prediction in predictions.items() if held_out in pair]
        for held_out in range(int(fold.max()) + 1)
    ]
    propensity, dr_scores, imputed_effects, t_effects = (
        _mean_out_of_fold(fold, predictions_by_fold, name)
        for name in ("propensity", "dr_scores", "imputed_effects", "effect")
    )
    has_overlap = (propensity >= OVERLAP[0]) & (propensity <= OVERLAP[1])
    require_enough(int((has_overlap & study.contacted).sum()), int((has_overlap & ~study.contacted).sum()))
    effects = {name: np.zeros(len(fold)) for name in ("x", "dr")} | {"t": t_effects}
    for held_out in range(len(predictions_by_fold)):
        for name, effect in _predict_effects(study, fold, held_out, predictions, has_overlap, seed).items():
            effects[name][fold == held_out] = effect
    return CrossFittedScores(propensity, has_overlap, dr_scores, imputed_effects, effects)


@dataclass(frozen=True)
class _NuisancePredictions:
    """Predictions for rows that the models were not fitted to: propensity, and the outcome without and with contact."""

    study: TreatmentData
    propensity: Floats
    untreated_outcome: Floats
    treated_outcome: Floats

    @property
    def effect(self) -> Floats:
        return self.treated_outcome - self.untreated_outcome

    @property
    def dr_scores(self) -> Floats:
        """The doubly robust score: the predicted effect, plus the weighted residual of the observed outcome."""
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
        """The outcome against the predicted outcome of the other treatment, as in the X-learner."""
        outcome = self.study.outcome
        return np.where(self.study.contacted, outcome - self.untreated_outcome, self.treated_outcome - outcome)


def _assign_folds(customers: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """A random fold for each customer: (n_rows,)."""
    unique_customers, position = np.unique(customers, return_inverse=True)
    drawn_folds = np.random.default_rng(seed).permutation(len(unique_customers)) % folds
    return np.asarray(drawn_folds[position], np.int64)


def _predict_nuisances(
    study: TreatmentData, propensity: Floats, training_rows: NDArray[np.bool_], fit_settings: dict[str, Any]
) -> _NuisancePredictions:
    """Outcomes of all rows from some. The treated model starts from the untreated one, as few are contacted."""
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
    study: TreatmentData,
    outcome: Floats,
    objective: str,
    training_rows: NDArray[np.bool_],
    *,
    count: int,
    seed: int,
    start: Floats | None = None,
    **overrides: Any,
) -> Floats:
    """Predict every row with trees on top of a linear model, or of `start`: log odds or amounts, (n_rows,).

    Trees alone are slow to fit linear effects, and what they miss of the reasons for contact passes for an effect:
    without the linear model they found one in 9 of 20 simulated data sets that had none.
    """
    if start is None:
        start = _fit_linear(study.linear_design[training_rows], outcome[training_rows], objective)(study.linear_design)
    params = boosted_trees.lightgbm_params(LIGHTGBM_PARAMS | overrides, objective=objective, seed=seed)
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


def _mean_out_of_fold(
    fold: NDArray[np.int64], predictions_by_fold: list[list[_NuisancePredictions]], name: str
) -> Floats:
    """For each row, the mean prediction of all models that were not fitted to its fold."""
    means = np.zeros(len(fold))
    for held_out, fold_predictions in enumerate(predictions_by_fold):
        in_fold = fold == held_out
        means[in_fold] = np.mean([getattr(prediction, name)[in_fold] for prediction in fold_predictions], axis=0)
    return means


def _predict_effects(
    study: TreatmentData,
    fold: NDArray[np.int64],
    held_out: int,
    predictions: dict[tuple[int, int], _NuisancePredictions],
    has_overlap: NDArray[np.bool_],
    seed: int,
) -> dict[str, Floats]:
    """Effects of contact on the customers of one fold, from models fitted to the other folds."""
    dr_scores, imputed_effects, propensity = (np.zeros(len(fold)) for _ in range(3))
    for other in set(fold.tolist()) - {held_out}:
        prediction, in_fold = predictions[min(held_out, other), max(held_out, other)], fold == other
        for target, values in (
            (dr_scores, prediction.dr_scores),
            (imputed_effects, prediction.imputed_effects),
            (propensity, prediction.propensity),
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
    """Weights (0 to 1) of scores, which are noisier where contact was nearly certain or nearly impossible."""
    propensity = np.clip(propensity, *OVERLAP)
    return 4 * propensity * (1 - propensity)
