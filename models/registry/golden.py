"""Golden predictions: what a model predicted when it was trained, compared in a process of its own before it serves.

A damaged library, another processor or a half-copied file shows in the predictions, if it shows at all. The rows are
made up: numbers are means of two customers, list entries are drawn from many, and no row has a customer's key.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

INPUTS_FILE, OUTPUTS_FILE = "golden_inputs.parquet", "golden_outputs.parquet"
#: Customers among the golden rows, and customers that their numbers and list entries are drawn from.
CUSTOMERS, SOURCE_CUSTOMERS, MIN_CUSTOMERS = 24, 400, 5
#: Largest difference from a golden prediction.
TOLERANCE = 1e-6


def build_inputs(frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Made-up rows with the columns of a training frame, a few customers of the latest as_of; customer_key from 0."""
    latest = frame[frame["as_of"] == frame["as_of"].max()] if len(frame) else frame
    rng = np.random.default_rng(seed)
    customers = latest["customer_key"].unique()
    drawn = rng.permutation(customers)[:SOURCE_CUSTOMERS]
    source = latest[latest["customer_key"].isin(drawn)].reset_index(drop=True)
    rows = source[source["customer_key"].isin(drawn[:CUSTOMERS])].reset_index(drop=True)
    others = _draw_other_customers(source, rows["customer_key"], drawn, rng)
    columns = {str(name): _mix(str(name), rows[name], others[name]) for name in rows}
    columns |= _draw_lists(source, rows, rng)
    mixed = pd.DataFrame(columns)[list(rows.columns)] if len(rows.columns) else rows
    return mixed.assign(customer_key=pd.factorize(rows["customer_key"])[0].astype(np.int64))


def save(model: Any, frame: pd.DataFrame, folder: Path) -> None:
    """Write golden rows, made of a training frame (columns as the model reads), and what the model predicts for them.

    Nothing is written for fewer than MIN_CUSTOMERS: their rows could not be mixed beyond recognition.
    """
    inputs = build_inputs(frame)
    if inputs["customer_key"].nunique() >= MIN_CUSTOMERS:
        inputs.to_parquet(folder / INPUTS_FILE)
        predict(model, pd.read_parquet(folder / INPUTS_FILE)).to_parquet(folder / OUTPUTS_FILE)


def has_golden(folder: Path) -> bool:
    """Whether a bundle has golden predictions; those of earlier versions have none."""
    return (folder / INPUTS_FILE).exists() and (folder / OUTPUTS_FILE).exists()


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The golden rows of a bundle, columns as its model reads, and what the model predicted, columns as `predict`."""
    return pd.read_parquet(folder / INPUTS_FILE), pd.read_parquet(folder / OUTPUTS_FILE)


def compare(outputs: pd.DataFrame, golden: pd.DataFrame) -> str | None:
    """How predictions differ from golden ones; None where they do not. Both have the columns of `save`."""
    if list(outputs.columns) != list(golden.columns) or len(outputs) != len(golden):
        return "its predictions have another form than its golden ones"
    numbers = golden.select_dtypes("number").columns
    for name in numbers:
        new, expected = outputs[name].to_numpy(np.float64), golden[name].to_numpy(np.float64)
        if len(new) > 1 and np.ptp(new) == 0 and np.ptp(expected) > TOLERANCE:
            return "its predictions are the same for everybody"
        difference = float(np.max(np.abs(new - expected)[~(np.isnan(new) & np.isnan(expected))], initial=0.0))
        if not difference <= TOLERANCE:
            return f"its predictions differ from its golden ones by {difference:.2g}"
    if not outputs.drop(columns=numbers).equals(golden.drop(columns=numbers)):
        return "its predictions differ from its golden ones"
    return None


def predict(model: Any, inputs: pd.DataFrame) -> pd.DataFrame:
    """A model's predictions, a row per row of the inputs or a ranked list; columns prediction_0 ... for an array."""
    predictions = model.score(inputs)
    if isinstance(predictions, pd.DataFrame):
        return predictions.reset_index(drop=True)
    values = np.asarray(predictions, np.float64).reshape(len(inputs), -1)
    return pd.DataFrame(values, columns=[f"prediction_{column}" for column in range(values.shape[1])])


def time_predictions(model: Any, inputs: pd.DataFrame) -> float | None:
    """The shortest of three predictions in seconds; None where the model reads other columns."""
    from models.base import MissingFeatures

    seconds = []
    try:
        for _ in range(3):
            started = time.perf_counter()
            predict(model, inputs)
            seconds.append(time.perf_counter() - started)
    except (MissingFeatures, KeyError):
        return None
    return min(seconds)


def _draw_other_customers(
    source: pd.DataFrame, keys: pd.Series, customers: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """A row of another customer for each of these keys, columns as `source`; of the same one if there is no other."""
    numbers, source_numbers = (pd.Index(customers).get_indexer(each) for each in (keys, source["customer_key"]))
    others = (numbers + rng.integers(1, max(len(customers), 2), len(keys))) % max(len(customers), 1)
    order = np.argsort(source_numbers, kind="stable")
    _, starts, counts = np.unique(source_numbers[order], return_index=True, return_counts=True)
    positions = order[starts[others] + rng.integers(0, counts[others])]
    return source.iloc[positions].reset_index(drop=True)


def _mix(name: str, own: pd.Series, other: pd.Series) -> pd.Series:
    """Means of two customers' numbers; keys, dates, flags and words stay those of one row."""
    is_number = pd.api.types.is_numeric_dtype(own) and not pd.api.types.is_bool_dtype(own)
    if not is_number or name.endswith("_key"):
        return own
    return (own.astype(np.float64) + other.astype(np.float64)) / 2


def _draw_lists(source: pd.DataFrame, rows: pd.DataFrame, rng: np.random.Generator) -> dict[str, pd.Series]:
    """List columns whose entries are drawn from many customers; columns of equal lengths stay aligned."""
    names = [name for name in source if source[name].map(lambda each: isinstance(each, np.ndarray | list)).any()]
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        groups.setdefault(tuple(0 if each is None else len(each) for each in source[name]), []).append(str(name))
    drawn: dict[str, pd.Series] = {}
    for group in groups.values():
        pools = {
            name: np.concatenate([np.asarray(each) for each in source[name] if each is not None]) for name in group
        }
        lengths = [0 if each is None else len(each) for each in rows[group[0]]]
        entries = [_draw_entries(pools[group[0]], length, rng) for length in lengths]
        drawn |= {name: pd.Series([pools[name][each] for each in entries], dtype=object) for name in group}
    return drawn


def _draw_entries(pool: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of at most `length` entries of the pool, (k,), no two of them equal, in the order of the pool."""
    positions = rng.choice(len(pool), min(4 * length, len(pool)), replace=False) if length else np.arange(0)
    _, first = np.unique(pool[positions], return_index=True)
    return np.sort(positions[np.sort(first)[:length]])
