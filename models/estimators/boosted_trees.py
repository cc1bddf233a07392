"""Trees: many small questions about a customer whose answers are added up; the one door to LightGBM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models.base import Floats

#: For fewer rows than this, waking other threads costs more than they do.
MULTITHREAD_ROWS = 200_000
TREES_FILE = "model.txt"


@dataclass(frozen=True)
class TrainingRows:
    """What trees learn from: a row of features each, its outcome, what it starts from and how much it counts."""

    design: NDArray[Any]
    outcome: Floats
    init_score: Floats | None = None
    weight: Floats | None = None
    names: tuple[str, ...] = ()

    def subset(self, which: NDArray[Any]) -> Self:
        """Some of the rows: a mask, or their places."""
        init_score, weight = (None if part is None else part[which] for part in (self.init_score, self.weight))
        return type(self)(self.design[which], self.outcome[which], init_score, weight, self.names)

    def initial_scores(self) -> Floats:
        """What each row starts from; nothing, if not said."""
        return np.zeros(len(self.outcome)) if self.init_score is None else self.init_score


@dataclass(frozen=True)
class BoostedTrees:
    """Grown trees: they add up, and can say how much each feature added."""

    booster: lightgbm.Booster

    @property
    def tree_count(self) -> int:
        """How many trees to trust: where a judge stopped the growing, the number that it liked best."""
        return self.booster.best_iteration if self.booster.best_iteration > 0 else self.booster.num_trees()

    def score(self, design: NDArray[Any]) -> Floats:
        """The answer on the scale of the outcome: a chance for binary trees, an amount for Tweedie's."""
        return self._predict(design)

    def raw_score(self, design: NDArray[Any]) -> Floats:
        """What the trees add up to before it becomes a chance or an amount: log odds, or a logarithm."""
        return self._predict(design, raw_score=True)

    def contributions(self, design: NDArray[Any]) -> Floats:
        """How much each feature added to each row, and in the last column what all rows share (TreeSHAP)."""
        return self._predict(design, pred_contrib=True)

    def save(self, folder: Path, name: str = TREES_FILE) -> None:
        """Write the trees as LightGBM's own text."""
        (folder / name).write_text(self.booster.model_to_string(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, name: str = TREES_FILE) -> Self:
        """Read back what `save` wrote."""
        return cls(lightgbm.Booster(model_str=(folder / name).read_text(encoding="utf-8")))

    def _predict(self, design: NDArray[Any], **options: bool) -> Floats:
        width = self.booster.num_feature()
        if not len(design):
            return np.empty((0, width + 1) if options.get("pred_contrib") else 0)
        threads = 1 if len(design) < MULTITHREAD_ROWS else 0
        return np.asarray(self.booster.predict(design, num_threads=threads, **options), dtype=np.float64)


def lightgbm_params(params: Mapping[str, Any], *, objective: str, seed: int) -> dict[str, Any]:
    """LightGBM's settings for trees that come out the same each time.

    One thread: models learn side by side, and threads that wait for each other's cores burn ten times the time.
    """
    fixed = {"deterministic": True, "force_row_wise": True, "seed": seed, "num_threads": 1}
    return {**params, **fixed, "objective": objective, "verbosity": -1}


def fit_trees(rows: TrainingRows, params: Mapping[str, Any], tree_count: int) -> BoostedTrees:
    """Grow so many trees."""
    return BoostedTrees(lightgbm.train(dict(params), _dataset(rows, params), tree_count))


def fit_with_early_stopping(
    rows: TrainingRows, validation_rows: TrainingRows, params: Mapping[str, Any], *, max_trees: int, patience: int
) -> BoostedTrees:
    """Grow trees until `patience` of them in a row did the judge's rows no good."""
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
    # Bins are settled when a dataset is made, so their number must be told here and not only to training.
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
