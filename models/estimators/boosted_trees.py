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
CROWD = 200_000
FILE = "model.txt"


@dataclass(frozen=True)
class Rows:
    """What trees learn from: a row of features each, its outcome, what it starts from and how much it counts."""

    design: NDArray[Any]
    outcome: Floats
    start: Floats | None = None
    weight: Floats | None = None
    names: tuple[str, ...] = ()

    def where(self, which: NDArray[Any]) -> Self:
        """Some of the rows: a mask, or their places."""
        start, weight = (None if part is None else part[which] for part in (self.start, self.weight))
        return type(self)(self.design[which], self.outcome[which], start, weight, self.names)

    def beginning(self) -> Floats:
        """What each row starts from; nothing, if not said."""
        return np.zeros(len(self.outcome)) if self.start is None else self.start


@dataclass(frozen=True)
class Trees:
    """Grown trees: they add up, and can say how much each feature added."""

    booster: lightgbm.Booster

    @property
    def count(self) -> int:
        """How many trees to trust: where a judge stopped the growing, the number that it liked best."""
        return self.booster.best_iteration if self.booster.best_iteration > 0 else self.booster.num_trees()

    def score(self, design: NDArray[Any]) -> Floats:
        """The answer on the scale of the outcome: a chance for binary trees, an amount for Tweedie's."""
        return self._ask(design)

    def added(self, design: NDArray[Any]) -> Floats:
        """What the trees add up to before it becomes a chance or an amount: log odds, or a logarithm."""
        return self._ask(design, raw_score=True)

    def contributions(self, design: NDArray[Any]) -> Floats:
        """How much each feature added to each row, and in the last column what all rows share (TreeSHAP)."""
        return self._ask(design, pred_contrib=True)

    def save(self, folder: Path, name: str = FILE) -> None:
        """Write the trees as LightGBM's own text."""
        (folder / name).write_text(self.booster.model_to_string(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, name: str = FILE) -> Self:
        """Read back what `save` wrote."""
        return cls(lightgbm.Booster(model_str=(folder / name).read_text(encoding="utf-8")))

    def _ask(self, design: NDArray[Any], **how: bool) -> Floats:
        width = self.booster.num_feature()
        if not len(design):
            return np.empty((0, width + 1) if how.get("pred_contrib") else 0)
        threads = 1 if len(design) < CROWD else 0
        return np.asarray(self.booster.predict(design, num_threads=threads, **how), dtype=np.float64)


def settings(growth: Mapping[str, Any], *, objective: str, seed: int) -> dict[str, Any]:
    """LightGBM's settings for trees that come out the same each time.

    One thread: models learn side by side, and threads that wait for each other's cores burn ten times the time.
    """
    steady = {"deterministic": True, "force_row_wise": True, "seed": seed, "num_threads": 1}
    return {**growth, **steady, "objective": objective, "verbosity": -1}


def grow(rows: Rows, how: Mapping[str, Any], count: int) -> Trees:
    """Grow so many trees."""
    return Trees(lightgbm.train(dict(how), _dataset(rows, how), count))


def grow_until(rows: Rows, judge: Rows, how: Mapping[str, Any], *, most: int, patience: int) -> Trees:
    """Grow trees until `patience` of them in a row did the judge's rows no good."""
    pupil = _dataset(rows, how)
    stop = lightgbm.early_stopping(patience, verbose=False)
    return Trees(lightgbm.train(dict(how), pupil, most, valid_sets=[_dataset(judge, how, pupil)], callbacks=[stop]))


def _dataset(rows: Rows, how: Mapping[str, Any], reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
    # Bins are settled when a dataset is made, so their number must be told here and not only to training.
    return lightgbm.Dataset(
        rows.design,
        label=rows.outcome,
        weight=rows.weight,
        init_score=rows.start,
        reference=reference,
        feature_name=list(rows.names) or "auto",
        params={"max_bin": how.get("max_bin", 255), "verbosity": -1},
        free_raw_data=False,
    )
