"""Model versions of a nightly run: train and register a model, or reuse the version of the same data and code."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from models.registry import bundle, mlflow_registry
from training import promotion
from training.promotion import ModelVersion
from training.tasks.task import Task
from training.train import TrainingResult, train

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.nightly.run_context import RunContext

ProgressCallback = Callable[[str], None]

SEED = 0
#: Facts that MLflow shows as the parameters of a run.
RUN_PARAMS = (
    "as_of", "seed", "first_day", "holdout", "timezone", "service", "ledger", "revision", "recipe", "settings",
)  # fmt: skip
REPOSITORY_ROOT = Path(__file__).parents[2]
#: The folders whose code decides what a model becomes: a change in any file of them is a reason to train again.
CODE_FOLDERS = ("features", "models", "training")


def train_or_reuse_version(context: RunContext, task: Task, progress: ProgressCallback) -> ModelVersion | None:
    """The version of a task for this run: a registered one of the same fingerprint, else a new one.

    None where there is no row to train on.
    """
    recorded = _find_recorded_version(context, task, progress)
    if recorded is not None:
        return recorded
    frame = context.load_task_frame(task)
    if frame.empty:
        return None
    return _record_version(
        context, task, train(task, context.training_data, frame, seed=SEED, progress=progress), frame
    )


def _find_recorded_version(context: RunContext, task: Task, progress: ProgressCallback) -> ModelVersion | None:
    """The registered version that was trained on the same sales by the same code, if there is one."""
    shop = context.shop
    number = mlflow_registry.find_version(promotion.registry_uri(shop), task.name, fingerprint(context, task))
    if number is None:
        return None
    progress(f"{task.name}: the same sales and the same code as version {number}")
    with TemporaryDirectory(dir=shop.home, prefix=".found-") as folder:
        bundle_folder = mlflow_registry.download_bundle(
            promotion.registry_uri(shop), task.name, number, Path(folder) / "bundle"
        )
        manifest, model = bundle.open_model(bundle_folder)
    return ModelVersion(number, manifest.facts, model)


def _record_version(context: RunContext, task: Task, trained: TrainingResult, frame: pd.DataFrame) -> ModelVersion:
    facts = _version_facts(context, task, trained)
    with TemporaryDirectory(dir=context.shop.home, prefix=".train-") as folder:
        bundle.write(trained.model, Path(folder) / "served", facts=facts, golden_frame=frame)
        number = _log_version(context, task, trained, facts, Path(folder))
    return ModelVersion(number, facts, trained.model)


def _log_version(context: RunContext, task: Task, trained: TrainingResult, facts: dict[str, Any], folder: Path) -> str:
    artifacts: dict[str, Any] = {"features.json": facts["columns"]}
    if trained.selected:
        bundle.write(trained.selected.model, folder / "judged", facts=facts)
        artifacts |= {f"judged/{file.name}": file for file in (folder / "judged").iterdir()}
    params = {name: facts[name] for name in RUN_PARAMS} | {
        f"rows_{name}": count for name, count in trained.rows.items()
    }
    version, _ = mlflow_registry.register_version(
        promotion.registry_uri(context.shop), task.name, folder / "served", params=params,
        metrics=_metrics_by_cutoff(trained, facts),
        tags={"learner": trained.learner, "fingerprint": facts["fingerprint"], "service": task.service},
        artifacts=artifacts,
    )  # fmt: skip
    return version


def _metrics_by_cutoff(trained: TrainingResult, facts: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Metrics of the served learner and the others, by the cutoff (ISO 8601) of the hold-out."""
    metrics = {facts["holdout"]: _merge_metrics(facts["metrics"], facts["baselines"])} if trained.holdout else {}
    if trained.selected:
        others = [each for each in trained.candidates if each is not trained.selected]
        for cutoff, own_metrics in trained.selected.earlier_metrics.items():
            baseline_metrics = {each.learner: _json_metrics(each.earlier_metrics[cutoff]) for each in others}
            metrics[cutoff.isoformat()] = _merge_metrics(_json_metrics(own_metrics), baseline_metrics)
    return metrics


def _merge_metrics(
    own_metrics: Mapping[str, float | None], baseline_metrics: Mapping[str, Mapping[str, float | None]]
) -> dict[str, float]:
    """Metrics of one cutoff as an MLflow run holds them: the served learner's by name, others' as `Learner.name`."""
    prefixed = {
        f"{learner.split('.')[1]}.{name}": value
        for learner, row in baseline_metrics.items()
        for name, value in row.items()
    }
    return {name: value for name, value in {**own_metrics, **prefixed}.items() if value is not None}


def _version_facts(context: RunContext, task: Task, trained: TrainingResult) -> dict[str, Any]:
    """Facts that are stored with a version, in its bundle and in MLflow; none of them is about a customer."""
    calendar = context.training_data.calendar
    return {
        "name": task.name, "question": task.question, "service": task.service, "learner": trained.learner,
        "as_of": calendar.as_of.isoformat(), "first_day": calendar.first_day.isoformat(),
        "holdout": trained.holdout.isoformat() if trained.holdout else "", "timezone": calendar.timezone,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"), "seed": SEED, "fallback": trained.fallback,
        "why": trained.why, "columns": context.features.feature_names(task.service), "rows": trained.rows,
        "settings": task.settings(context.training_data) | getattr(trained.model, "settings", {}),
        "metrics": _json_metrics(trained.metrics),
        "baselines": {learner: _json_metrics(metrics) for learner, metrics in trained.baselines.items()},
        "ledger": context.ledger_digest, "revision": _git_revision(), "recipe": _code_digest(),
        "fingerprint": fingerprint(context, task),
    }  # fmt: skip


def fingerprint(context: RunContext, task: Task) -> str:
    """A digest of task, settings, as_of, sales and code: versions with the same one are the same model."""
    inputs = [
        task.name,
        task.settings(context.training_data),
        context.as_of.isoformat(),
        context.ledger_digest,
        _code_digest(),
        SEED,
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]


def _code_digest() -> str:
    files = sorted(path for folder in CODE_FOLDERS for path in (REPOSITORY_ROOT / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _git_revision() -> str:
    """The Git commit of the code, or "not a checkout"."""
    command = ["git", "-C", str(REPOSITORY_ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a checkout"


def _json_metrics(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics for JSON, rounded to six digits; None for one that could not be measured."""
    return {name: round(float(value), 6) if math.isfinite(value) else None for name, value in metrics.items()}
