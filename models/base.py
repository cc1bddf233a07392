"""What every learner promises: to learn from the past, to answer for anybody, and to live as plain files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: The columns that say whose row it is and as of which moment; everything else that is a number is a feature.
KEY_COLUMNS = ("customer_key", "as_of")
#: Monday 0, in the shop's zone. It says nothing of a customer, and with a dozen moments trees learn it by heart.
WEEKDAY_COLUMN = "as_of_weekday"
#: Where a model keeps what fits into a small dictionary.
MODEL_FILE = "model.json"


class InsufficientData(Exception):
    """There is too little to learn from; the message says what is missing."""


class MissingFeatures(Exception):
    """A frame that this model cannot answer for; the message says which columns it lacks."""


class Model(Protocol):
    """A learner, or one of the rules it must beat.

    A frame has one row per customer and moment: `customer_key` (int64), `as_of` (an aware time), then
    features known strictly before `as_of`. Several moments may stand in one frame; answers keep its order.
    A learner's settings are further keyword-only arguments of its `fit`, each with a default.
    """

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: Any, *, seed: int = 0) -> Self:
        """Learn from rows whose outcome is known. Raises TooLittle where that cannot be done honestly."""
        ...

    def score(self, frame: pd.DataFrame) -> Any:
        """Answer for every row of the frame, in its order."""
        ...

    def population_average(self) -> Any:
        """The answer for somebody the shop knows nothing about."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model into an existing folder as data: JSON, text, arrays; never a pickle."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote; the answers are the same."""
        ...


class ExplainableModel(Model, Protocol):
    """A learner that says what moved each answer, as every learner of churn does."""

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What each feature adds to each row, in log odds against the usual: a row each, a column a feature."""
        ...


def feature_columns(frame: pd.DataFrame) -> list[str]:
    """The frame's features: every column of numbers or booleans but keys and as_of_weekday, in its order."""
    numbers = frame.select_dtypes(include=["number", "bool"]).columns
    return [str(name) for name in numbers if name not in (*KEY_COLUMNS, WEEKDAY_COLUMN)]


def require_columns(frame: pd.DataFrame, columns: list[str]) -> None:
    """Raise Unfit unless the frame has all these columns."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise MissingFeatures(f"the frame lacks {', '.join(missing)}; compute the features this model was trained on")


def matrix(frame: pd.DataFrame, columns: list[str]) -> Floats:
    """These columns as float64 (n, columns), in this order; unknown and infinite values are NaN."""
    require_columns(frame, columns)
    values = frame[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small dictionary so that the same content gives the same bytes."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


#: The features of which the rhythm's two parts speak: rare visits, and the present silence.
FREQUENCY_COLUMN, RECENCY_COLUMN = "purchase_days", "recency_days"


def latest_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the frame's last moment."""
    rows: pd.DataFrame = frame[frame["as_of"] == frame["as_of"].max()]
    return rows


#: Whole weeks, so that a year ago was the same weekday.
YEAR_DAYS = 364
#: A moment this far from a year ago still tells of the season.
YEAR_TOLERANCE_DAYS = 28
#: So many horizons must have been seen before that moment: in a shop's first months everybody looks new.
MIN_HORIZONS = 2
