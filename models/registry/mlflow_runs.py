"""Runs: figures, settings and files as one of MLflow's runs keeps them, and read back."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: What MLflow's store takes in one batch.
_MOST_METRICS, _MOST_PARAMS, _MOST_TAGS = 1000, 100, 100

#: Metrics by name, or by moment (an ISO date or time) and then by name.
Metrics = Mapping[str, "float | Mapping[str, float]"]


@contextmanager
def ended(client: MlflowClient, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def log(
    client: MlflowClient, run_id: str, params: Mapping[str, Any], metrics: Metrics, tags: Mapping[str, str]
) -> None:
    from mlflow.entities import Param, RunTag

    steps = _steps(metrics)
    settings = [Param(key, str(value)) for key, value in params.items()]
    words = [RunTag(key, value) for key, value in tags.items()]
    if steps:
        words.append(RunTag("moments", json.dumps(_moments(metrics))))
    while steps or settings or words:
        client.log_batch(run_id, steps[:_MOST_METRICS], settings[:_MOST_PARAMS], words[:_MOST_TAGS])
        steps, settings, words = steps[_MOST_METRICS:], settings[_MOST_PARAMS:], words[_MOST_TAGS:]


def _moments(metrics: Metrics) -> list[str]:
    return sorted(moment for moment, values in metrics.items() if isinstance(values, Mapping))


def _steps(metrics: Metrics) -> list[Any]:
    """Every figure as MLflow's own, the step being the place of its moment among the moments, from 0."""
    from mlflow.entities import Metric

    moments = _moments(metrics)
    figures = []
    for moment, values in metrics.items():
        if isinstance(values, Mapping):
            at, step = int(datetime.fromisoformat(moment).timestamp() * 1000), moments.index(moment)
            figures += [Metric(key, float(value), at, step) for key, value in values.items()]
        else:
            figures.append(Metric(moment, float(values), 0, len(moments)))
    return figures


def metrics_of(client: MlflowClient, run: Any) -> dict[str, dict[str, float]]:
    moments = json.loads(run.data.tags.get("moments", "[]"))
    found: dict[str, dict[str, float]] = {}
    for key in sorted(run.data.metrics):
        for figure in client.get_metric_history(run.info.run_id, key):
            moment = moments[figure.step] if figure.step < len(moments) else ""
            found.setdefault(moment, {})[key] = figure.value
    return dict(sorted(found.items()))


def log_artifact(client: MlflowClient, run_id: str, name: str, content: Any) -> None:
    if isinstance(content, str):
        client.log_text(run_id, content, name)
    elif isinstance(content, Path):
        with tempfile.TemporaryDirectory() as beside:
            client.log_artifact(run_id, str(shutil.copy(content, Path(beside) / Path(name).name)), _folder(name))
    else:
        client.log_text(run_id, json.dumps(content, indent=1, default=str), name)


def _folder(name: str) -> str | None:
    parent = str(Path(name).parent)
    return None if parent == "." else parent
