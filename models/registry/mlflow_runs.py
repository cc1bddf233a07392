"""Params, metrics, tags and artifacts of an MLflow run, written and read back."""

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

#: What MLflow's store accepts in one batch.
_MAX_METRICS, _MAX_PARAMS, _MAX_TAGS = 1000, 100, 100

#: Metrics by name, or by cutoff (an ISO date or time) and then by name.
Metrics = Mapping[str, "float | Mapping[str, float]"]


@contextmanager
def finish_run(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark a run as finished at the end of the block, or as failed where an exception ends it."""
    try:
        yield
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def log_run(
    client: MlflowClient, run_id: str, params: Mapping[str, Any], metrics: Metrics, tags: Mapping[str, str]
) -> None:
    """Write params, metrics and tags to a run, in batches of the size that MLflow accepts."""
    from mlflow.entities import Param, RunTag

    mlflow_metrics = _mlflow_metrics(metrics)
    run_params = [Param(key, str(value)) for key, value in params.items()]
    run_tags = [RunTag(key, value) for key, value in tags.items()]
    if mlflow_metrics:
        run_tags.append(RunTag("moments", json.dumps(_cutoffs(metrics))))
    while mlflow_metrics or run_params or run_tags:
        client.log_batch(run_id, mlflow_metrics[:_MAX_METRICS], run_params[:_MAX_PARAMS], run_tags[:_MAX_TAGS])
        mlflow_metrics, run_params, run_tags = (
            mlflow_metrics[_MAX_METRICS:],
            run_params[_MAX_PARAMS:],
            run_tags[_MAX_TAGS:],
        )


def _cutoffs(metrics: Metrics) -> list[str]:
    return sorted(cutoff for cutoff, values in metrics.items() if isinstance(values, Mapping))


def _mlflow_metrics(metrics: Metrics) -> list[Any]:
    """Metrics as MLflow's own; the step is the position of the cutoff among the cutoffs, from 0."""
    from mlflow.entities import Metric

    cutoffs = _cutoffs(metrics)
    mlflow_metrics = []
    for cutoff, values in metrics.items():
        if isinstance(values, Mapping):
            timestamp_ms, step = int(datetime.fromisoformat(cutoff).timestamp() * 1000), cutoffs.index(cutoff)
            mlflow_metrics += [Metric(key, float(value), timestamp_ms, step) for key, value in values.items()]
        else:
            mlflow_metrics.append(Metric(cutoff, float(values), 0, len(cutoffs)))
    return mlflow_metrics


def read_metrics(client: MlflowClient, run: Any) -> dict[str, dict[str, float]]:
    """The metrics of a run, by cutoff ("" for none) and name."""
    cutoffs = json.loads(run.data.tags.get("moments", "[]"))
    metrics: dict[str, dict[str, float]] = {}
    for key in sorted(run.data.metrics):
        for metric in client.get_metric_history(run.info.run_id, key):
            cutoff = cutoffs[metric.step] if metric.step < len(cutoffs) else ""
            metrics.setdefault(cutoff, {})[key] = metric.value
    return dict(sorted(metrics.items()))


def log_artifact(client: MlflowClient, run_id: str, name: str, content: Any) -> None:
    """Write an artifact under this name: a text, the file at a path, or any other content as JSON."""
    if isinstance(content, str):
        client.log_text(run_id, content, name)
    elif isinstance(content, Path):
        with tempfile.TemporaryDirectory() as temporary:
            client.log_artifact(
                run_id, str(shutil.copy(content, Path(temporary) / Path(name).name)), _parent_folder(name)
            )
    else:
        client.log_text(run_id, json.dumps(content, indent=1, default=str), name)


def _parent_folder(name: str) -> str | None:
    parent = str(Path(name).parent)
    return None if parent == "." else parent
