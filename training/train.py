"""One training loop for all tasks: fit on the past, evaluate on a hold-out, choose, and refit on all days."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pandas as pd

from models.base import InsufficientData, Model
from models.registry import learners
from training.evaluation.metrics import comparator
from training.tasks.all_tasks import TIE_TOLERANCE
from training.tasks.task import Incomparable, Task, TrainingData

#: With fewer customers in a hold-out, the difference between two models is mostly noise.
MIN_HOLDOUT_CUSTOMERS = 30


@dataclass(frozen=True, slots=True)
class Candidate:
    """A learner fitted on what was known before the hold-out, with its metrics on the hold-out.

    `earlier_metrics` are its metrics at earlier cutoffs, each from a new fit.
    """

    learner: str
    model: Model
    metrics: dict[str, float]
    seconds: float
    earlier_metrics: Mapping[datetime, dict[str, float]] = field(default_factory=dict)

    def mean_primary_metric(self, task: Task) -> float:
        """The task's primary metric, averaged over all cutoffs."""
        values = [each[task.primary_metric] for each in (self.metrics, *self.earlier_metrics.values())]
        return sum(values) / len(values)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The result of training one task: the model to serve, the chosen candidate, and all candidates with their metrics.

    `model` is fitted on all days; `selected` is the same learner fitted before the hold-out, the one that was
    evaluated.
    """

    task: Task
    model: Model
    learner: str
    selected: Candidate | None
    candidates: list[Candidate]
    holdout: datetime | None
    fallback: bool
    why: str
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """Hold-out metrics of the learner that is served; empty where nothing could be evaluated."""
        return self.selected.metrics if self.selected else {}

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Hold-out metrics of the baselines on the same window, and those of the learner where it lost."""
        is_baseline_served = self.learner != self.task.learner
        return {
            candidate.learner: candidate.metrics
            for candidate in self.candidates
            if is_baseline_served or candidate.learner != self.task.learner
        }


def train(
    task: Task,
    training_data: TrainingData,
    frame: pd.DataFrame,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> TrainingResult:
    """Fit a task's learner and baselines before the last window, evaluate them on it, and refit the best on all days.

    A task with several cutoffs is evaluated at earlier ones too, where the history is long enough for every candidate:
    the best on average is served. frame: one row per customer and cutoff, with columns customer_key, as_of, and
    features known before as_of. Where the history is too short to fit or evaluate, the result is the task's last
    baseline, flagged `fallback`.
    """
    holdout = training_data.calendar.cutoff_before(task.holdout_days(training_data))
    training_set = _training_rows(task, training_data, frame, holdout)
    holdout_set = _holdout_rows(task, training_data, frame, holdout)
    if len(training_set[0]) == 0 or len(holdout_set[0]) < MIN_HOLDOUT_CUSTOMERS:
        return _train_fallback(
            task,
            training_data,
            frame,
            seed,
            f"{len(holdout_set[0])} customers in the hold-out; {MIN_HOLDOUT_CUSTOMERS} are needed",
        )
    candidates, refusal = _fit_candidates(task, training_data, training_set, holdout_set, seed, progress)
    if not candidates:
        return _train_fallback(task, training_data, frame, seed, refusal)
    counts = {"trial": len(training_set[0]), "holdout": len(holdout_set[0])}
    del training_set, holdout_set  # restock has many rows: three copies of them would not fit into memory
    candidates = _evaluate_earlier_cutoffs(task, training_data, frame, candidates, seed, progress)
    best, why = _choose_candidate(task, candidates, refusal)
    progress(f"{task.name}: {best.learner} is fitted on all days")
    rows, label = _labelled_rows(task, training_data, frame, training_data.calendar.as_of)
    model = _fit_learner(task, training_data, best.learner, rows, label, seed)
    counts["served"] = len(rows)
    is_fallback = all(candidate.learner != task.learner for candidate in candidates)
    return TrainingResult(task, model, best.learner, best, candidates, holdout, is_fallback, why, counts)


def refit(
    task: Task, training_data: TrainingData, frame: pd.DataFrame, *, learner: str | None = None, seed: int = 0
) -> Model:
    """Fit one learner (the task's own, if none is named) on all that is known, as the last step of a nightly run does.

    frame: columns as in `train`. Raises InsufficientData where the learner does.
    """
    rows, label = _labelled_rows(task, training_data, frame, training_data.calendar.as_of)
    return _fit_learner(task, training_data, learner or task.learner, rows, label, seed)


def fit_before_holdout(
    task: Task,
    training_data: TrainingData,
    frame: pd.DataFrame,
    holdout: datetime,
    *,
    learner: str | None = None,
    seed: int = 0,
) -> Model:
    """Fit one learner of an event-based task on what was known before a hold-out, which may start at any time.

    frame: columns as in `train`.
    """
    return _fit_learner(
        task, training_data, learner or task.learner, *_training_rows(task, training_data, frame, holdout), seed
    )


def evaluate(task: Task, training_data: TrainingData, frame: pd.DataFrame, model: Model) -> dict[str, float]:
    """Metrics of a fitted model on this run's hold-out, for the comparison of a champion with its challenger.

    frame: columns as in `train`. Raises Incomparable for a model with another horizon or a shorter curve,
    MissingFeatures for one that needs other features.
    """
    horizon_days = task.settings(training_data).get("horizon_days")
    model_horizon_days = getattr(model, "horizon_days", horizon_days)
    if model_horizon_days != horizon_days:
        raise Incomparable(f"its horizon is {model_horizon_days} days, that of this run {horizon_days}")
    rows, label = _holdout_rows(
        task, training_data, frame, training_data.calendar.cutoff_before(task.holdout_days(training_data))
    )
    return task.evaluate(training_data, rows, label, model.score(rows))


def is_not_worse(task: Task, metrics: dict[str, float], reference: dict[str, float]) -> bool:
    """Whether the task's primary metric is as good as that of `reference`; a tie counts as good."""
    return _is_as_good(task, metrics[task.primary_metric], reference[task.primary_metric])


def guardrail_violation(task: Task, metrics: dict[str, float], reference: dict[str, float]) -> str:
    """The guardrail metric that is too far below that of `reference`, in words; empty where there is none."""
    for metric, min_ratio in task.guardrails.items():
        a, b = metrics.get(metric, math.nan), reference.get(metric, math.nan)
        if a < min_ratio * b:
            return f"{metric} {a:.4f} is less than {min_ratio:g} of {b:.4f}"
    return ""


def _fit_candidates(
    task: Task,
    training_data: TrainingData,
    training_set: tuple[pd.DataFrame, Any],
    holdout_set: tuple[pd.DataFrame, Any],
    seed: int,
    progress: Callable[[str], None],
) -> tuple[list[Candidate], str]:
    candidates, refusal = [], ""
    for learner in (*task.baselines, task.learner):
        progress(f"{task.name}: {learner} before {holdout_set[0]['as_of'].max():%Y-%m-%d}")
        started = time.perf_counter()
        try:
            model = _fit_learner(task, training_data, learner, *training_set, seed)
        except InsufficientData as reason:
            refusal = f"{learner}: {reason}"
            continue
        results = task.evaluate(training_data, *holdout_set, model.score(holdout_set[0]))
        if math.isfinite(results[task.primary_metric]):
            candidates.append(Candidate(learner, model, results, time.perf_counter() - started))
        else:
            refusal = f"{learner}: its {task.primary_metric} cannot be measured on the last window"
    return candidates, refusal


def _evaluate_earlier_cutoffs(
    task: Task,
    training_data: TrainingData,
    frame: pd.DataFrame,
    candidates: list[Candidate],
    seed: int,
    progress: Callable[[str], None],
) -> list[Candidate]:
    """The candidates with metrics at earlier cutoffs; stops at a cutoff before which not all of them can be fitted."""
    for windows_back in range(2, task.n_cutoffs + 1):
        cutoff = training_data.calendar.cutoff_before(windows_back * task.holdout_days(training_data))
        training_set, holdout_set = (
            select_rows(task, training_data, frame, cutoff) for select_rows in (_training_rows, _holdout_rows)
        )
        if len(training_set[0]) == 0 or len(holdout_set[0]) < MIN_HOLDOUT_CUSTOMERS:
            break
        metrics_by_learner = {
            each.learner: each.metrics
            for each in _fit_candidates(task, training_data, training_set, holdout_set, seed, progress)[0]
        }
        if not all(each.learner in metrics_by_learner for each in candidates):
            break
        candidates = [
            replace(each, earlier_metrics={**each.earlier_metrics, cutoff: metrics_by_learner[each.learner]})
            for each in candidates
        ]
    return candidates


def _choose_candidate(task: Task, candidates: list[Candidate], refusal: str) -> tuple[Candidate, str]:
    """The learner if it is not worse than every baseline, else the best baseline, among those within the guardrails."""
    is_better = comparator(task.primary_metric)
    candidates, violation = _within_guardrails(task, candidates)
    refusal = violation or refusal
    baselines = [c for c in candidates if c.learner != task.learner]
    learner_candidates = [c for c in candidates if c.learner == task.learner]
    best = baselines[0] if baselines else learner_candidates[0]
    for baseline in baselines[1:]:
        best = baseline if is_better(baseline.mean_primary_metric(task), best.mean_primary_metric(task)) else best
    if not learner_candidates:
        return best, f"{best.learner} is served; {refusal}"
    main = learner_candidates[0]
    metric, best_metric = main.mean_primary_metric(task), best.mean_primary_metric(task)
    text = f"{task.primary_metric} {metric:.4f} against {best_metric:.4f} of {best.learner}"
    text += f", the mean of {1 + len(main.earlier_metrics)} cutoffs" if main.earlier_metrics else ""
    if _is_as_good(task, metric, best_metric):
        return main, text
    return best, f"the baseline {best.learner} is served: {task.learner} has {text}"


def _is_as_good(task: Task, a: float, b: float) -> bool:
    return not comparator(task.primary_metric)(b, a) or abs(a - b) <= TIE_TOLERANCE * abs(b)


def _within_guardrails(task: Task, candidates: list[Candidate]) -> tuple[list[Candidate], str]:
    """Candidates whose lists differ nearly as much as the last baseline's; and why the learner is not among them."""
    baseline_metrics = next((c.metrics for c in candidates if c.learner in task.baselines[-1:]), {})
    reasons = {c.learner: guardrail_violation(task, c.metrics, baseline_metrics) for c in candidates}
    why = reasons.get(task.learner, "")
    return [c for c in candidates if not reasons[c.learner]], f"{task.learner}: {why}" if why else ""


def _train_fallback(
    task: Task, training_data: TrainingData, frame: pd.DataFrame, seed: int, why: str
) -> TrainingResult:
    rows, label = _labelled_rows(task, training_data, frame, training_data.calendar.as_of)
    learner = task.baselines[-1]
    model = _fit_learner(task, training_data, learner, rows, label, seed)
    why = f"too little history, {learner} is served: {why}"
    return TrainingResult(task, model, learner, None, [], None, True, why, {"served": len(rows)})


def _fit_learner(
    task: Task, training_data: TrainingData, learner: str, rows: pd.DataFrame, label: Any, seed: int
) -> Model:
    learner_inputs = task.learner_inputs(training_data) if learner == task.learner else {}
    fitted: Model = learners.learner_class(learner).fit(
        rows, label, seed=seed, **task.settings(training_data), **learner_inputs
    )
    return fitted


def _labelled_rows(
    task: Task, training_data: TrainingData, frame: pd.DataFrame, until: datetime
) -> tuple[pd.DataFrame, Any]:
    """All rows up to `until`, with the outcomes that were complete by then; learners choose among them."""
    is_before = frame["as_of"] <= until
    is_whole = is_before.all() and isinstance(frame.index, pd.RangeIndex)
    rows = frame if is_whole else _take_rows(frame, is_before)
    return rows, task.label(training_data, rows, training_data.calendar.local_day(until))


def _training_rows(
    task: Task, training_data: TrainingData, frame: pd.DataFrame, holdout: datetime
) -> tuple[pd.DataFrame, Any]:
    """Rows and labels known before the hold-out.

    For an event-based task, the rows from the hold-out's start on are left out, since all of them are evaluated.
    """
    rows, label = _labelled_rows(task, training_data, frame, holdout)
    return _filter_rows(rows, label, (rows["as_of"] < holdout).to_numpy()) if task.is_event_based else (rows, label)


def _holdout_rows(
    task: Task, training_data: TrainingData, frame: pd.DataFrame, holdout: datetime
) -> tuple[pd.DataFrame, Any]:
    """The rows that are evaluated, with their outcomes up to the end of the history."""
    is_holdout = frame["as_of"] >= holdout if task.is_event_based else frame["as_of"] == holdout
    rows = _take_rows(frame, is_holdout)
    label = task.label(training_data, rows, training_data.calendar.complete_until)
    return _filter_rows(rows, label, task.evaluated_rows(training_data, rows, label))


def _filter_rows(rows: pd.DataFrame, label: Any, mask: Any) -> tuple[pd.DataFrame, Any]:
    selected_label = label[mask].reset_index(drop=True) if isinstance(label, pd.DataFrame | pd.Series) else label[mask]
    return _take_rows(rows, mask), selected_label


def _take_rows(rows: pd.DataFrame, mask: Any) -> pd.DataFrame:
    """The rows of a mask (n,), numbered from 0. `reset_index` would copy them a second time."""
    taken: pd.DataFrame = rows[mask]
    taken.index = pd.RangeIndex(len(taken))
    return taken
