"""Gradient-boosted trees; the only module of models/ that imports LightGBM."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from models.base import Floats

if TYPE_CHECKING or "sklearn" in sys.modules:
    import lightgbm
else:
    # Without its scikit-learn interface, which nothing here uses: a server would wait two seconds for it at each start.
    sys.modules["sklearn"] = None
    try:
        import lightgbm
    finally:
        del sys.modules["sklearn"]

#: With fewer rows than this, starting more threads costs more than it saves.
MULTITHREAD_ROWS = 200_000
TREES_FILE = "model.txt"


@dataclass(frozen=True)
class TrainingRows:
    """Training data of boosted trees: features, outcome, and optionally initial score, weight and feature names."""

    design: NDArray[Any]
    outcome: Floats
    init_score: Floats | None = None
    weight: Floats | None = None
    names: tuple[str, ...] = ()

    def subset(self, which: NDArray[Any]) -> Self:
        """The rows selected by a mask (n,) or positions; feature names stay."""
        init_score, weight = (None if part is None else part[which] for part in (self.init_score, self.weight))
        return type(self)(self.design[which], self.outcome[which], init_score, weight, self.names)

    def initial_scores(self) -> Floats:
        """The initial score of each row, (n,); zeros by default."""
        return np.zeros(len(self.outcome)) if self.init_score is None else self.init_score


@dataclass(frozen=True)
class BoostedTrees:
    """A fitted ensemble of trees, with TreeSHAP contributions."""

    booster: lightgbm.Booster

    @property
    def tree_count(self) -> int:
        """Number of trees: the best iteration if early stopping was used, else all."""
        return self.booster.best_iteration if self.booster.best_iteration > 0 else self.booster.num_trees()

    def score(self, design: NDArray[Any]) -> Floats:
        """Predictions on the scale of the outcome, (n,): a probability for binary trees, an amount for Tweedie."""
        return self._predict(design)

    def raw_score(self, design: NDArray[Any]) -> Floats:
        """The sum of the trees before the inverse link, (n,): log odds for binary trees, a logarithm for Tweedie."""
        return self._predict(design, raw_score=True)

    def contributions(self, design: NDArray[Any]) -> Floats:
        """TreeSHAP: (n, features + 1); the last column is the expected value that all rows share."""
        return self._predict(design, pred_contrib=True)

    def save(self, folder: Path, name: str = TREES_FILE) -> None:
        """Write the trees as LightGBM's own text."""
        (folder / name).write_text(self.booster.model_to_string(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, name: str = TREES_FILE) -> Self:
        """Read what `save` wrote."""
        return cls(lightgbm.Booster(model_str=(folder / name).read_text(encoding="utf-8")))

    def _predict(self, design: NDArray[Any], **options: bool) -> Floats:
        width = self.booster.num_feature()
        if not len(design):
            return np.empty((0, width + 1) if options.get("pred_contrib") else 0)
        threads = 1 if len(design) < MULTITHREAD_ROWS else 0
        return np.asarray(self.booster.predict(design, num_threads=threads, **options), dtype=np.float64)


def lightgbm_params(params: Mapping[str, Any], *, objective: str, seed: int) -> dict[str, Any]:
    """LightGBM's parameters for deterministic training.

    One thread: models are trained in parallel, and threads that wait for each other's cores take ten times as long.
    """
    fixed = {"deterministic": True, "force_row_wise": True, "seed": seed, "num_threads": 1}
    return {**params, **fixed, "objective": objective, "verbosity": -1}


def fit_trees(rows: TrainingRows, params: Mapping[str, Any], tree_count: int) -> BoostedTrees:
    """Fit exactly this number of trees."""
    return BoostedTrees(lightgbm.train(dict(params), _dataset(rows, params), tree_count))


def fit_with_early_stopping(
    rows: TrainingRows, validation_rows: TrainingRows, params: Mapping[str, Any], *, max_trees: int, patience: int
) -> BoostedTrees:
    """Fit trees until the loss on the validation rows has not improved for `patience` trees."""
    train_set = _dataset(rows, params)
    stop = lightgbm.early_stopping(patience, verbose=False)
    return BoostedTrees(
        lightgbm.train(
            dict(params),
            train_set,
            max_trees,
            valid_sets=[_dataset(validation_rows, params, train_set)],
            callbacks=[stop],
        )
    )


def _dataset(
    rows: TrainingRows, params: Mapping[str, Any], reference: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
    # LightGBM computes bins when a dataset is built: max_bin must be set here, not only in the training parameters.
    return lightgbm.Dataset(
        rows.design,
        label=rows.outcome,
        weight=rows.weight,
        init_score=rows.init_score,
        reference=reference,
        feature_name=list(rows.names) or "auto",
        params={"max_bin": params.get("max_bin", 255), "verbosity": -1},
        free_raw_data=False,
    )
