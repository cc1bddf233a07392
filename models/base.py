"""The interface of every model, and what models share: column names, frame access, JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: The key of a row: the customer and the cutoff. Every other numeric column is a feature.
KEY_COLUMNS = ("customer_key", "as_of")
#: Monday 0, in the shop's time zone. Not a feature: it describes no customer, and with a dozen cutoffs trees would
#: memorise it.
WEEKDAY_COLUMN = "as_of_weekday"
#: The file for a model's small parameters.
MODEL_FILE = "model.json"


class InsufficientData(Exception):
    """Too few rows or outcomes to learn from; the message states what is missing."""


class MissingFeatures(Exception):
    """The frame lacks columns that this model needs; the message names them."""


class Model(Protocol):
    """A learner, or a baseline that a learner must beat.

    A frame has one row per customer and cutoff: columns `customer_key` (int64), `as_of` (timezone-aware timestamp),
    then features computed from data strictly before `as_of`. One frame may hold several cutoffs; predictions keep its
    order. The settings of a learner are further keyword-only arguments of its `fit`, each with a default.
    """

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: Any, *, seed: int = 0) -> Self:
        """Fit on the rows whose outcome is known; label has one row per row of frame.

        Raises InsufficientData if there are too few outcomes for an honest fit.
        """
        ...

    def score(self, frame: pd.DataFrame) -> Any:
        """Predictions (n,) or (n, k) for the n rows of the frame, in its order."""
        ...

    def population_average(self) -> Any:
        """The prediction for a customer about whom nothing is known."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model into an existing folder as data: JSON, text, arrays; never a pickle."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; the predictions are identical."""
        ...


class ExplainableModel(Model, Protocol):
    """A model that attributes each prediction to features, as every churn model does."""

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What each feature adds in log odds against the average: one row per row, a column per feature."""
        ...


def feature_columns(frame: pd.DataFrame) -> list[str]:
    """Names of the numeric and boolean columns, in frame order, without the keys and as_of_weekday."""
    # select_dtypes would copy the frame, which for replenishment takes longer than fitting some models.
    numbers = [name for name, dtype in frame.dtypes.items() if pd.api.types.is_numeric_dtype(dtype)]
    return [str(name) for name in numbers if name not in (*KEY_COLUMNS, WEEKDAY_COLUMN)]


def require_columns(frame: pd.DataFrame, columns: list[str]) -> None:
    """Check that the frame has all these columns. Raises MissingFeatures, naming those that are absent."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise MissingFeatures(f"the frame lacks {', '.join(missing)}; compute the features this model was trained on")


def matrix(frame: pd.DataFrame, columns: list[str]) -> Floats:
    """These columns as float64 (n, columns), in this order; missing and infinite values become NaN."""
    require_columns(frame, columns)
    values = frame[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small dictionary as JSON with sorted keys: equal content gives equal bytes."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


#: The features to which the two parts of BG/NBD's log odds are attributed: purchase frequency, and recency.
FREQUENCY_COLUMN, RECENCY_COLUMN = "purchase_days", "recency_days"


def latest_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the latest cutoff in column as_of."""
    rows: pd.DataFrame = frame[frame["as_of"] == frame["as_of"].max()]
    return rows


#: 52 whole weeks, so that a year ago was the same weekday.
YEAR_DAYS = 364
#: A cutoff at most this many days away from a year ago still represents the season.
YEAR_TOLERANCE_DAYS = 28
#: Horizons of history required before that cutoff: in a shop's first months every customer looks new.
MIN_HORIZONS = 2
