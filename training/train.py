"""Train: one loop for every plan. Learn from the past, be judged on days nobody saw, then learn from those too."""

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

#: Fewer customers than this in a holdout say nothing about which of two models is better.
MIN_HOLDOUT_CUSTOMERS = 30


@dataclass(frozen=True, slots=True)
class Candidate:
    """A learner after its trial: fitted on what was known before the holdout, judged on the holdout.

    `earlier` are its figures at earlier cutoffs, fitted and judged anew for each.
    """

    learner: str
    model: Model
    metrics: dict[str, float]
    seconds: float
    earlier_metrics: Mapping[datetime, dict[str, float]] = field(default_factory=dict)

    def mean_primary_metric(self, task: Task) -> float:
        """The figure that decides, its mean over all cutoffs."""
        values = [each[task.primary_metric] for each in (self.metrics, *self.earlier_metrics.values())]
        return sum(values) / len(values)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What one plan came to: the model to serve, its twin that was judged, and everybody's figures side by side."""

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
        """The held-out figures of the learner that is served; empty where nothing could be judged."""
        return self.selected.metrics if self.selected else {}

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Everybody else's held-out figures on the same window: the baselines', and the learner's where it lost."""
        lost = self.learner != self.task.learner
        return {c.learner: c.metrics for c in self.candidates if lost or c.learner != self.task.learner}


def train(
    task: Task,
    training_data: TrainingData,
    frame: pd.DataFrame,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> TrainingResult:
    """Fit a plan's learner and baselines before the last window, judge them on it, and refit the best on everything.

    A plan of several cutoffs has them judged at earlier ones too, where the history is long enough for everybody: the
    best over all of them is served. frame: one row per customer and moment (customer_key, as_of, features), features
    known before as_of.
    Where too little is known to learn or to judge, the answer is the plan's simplest baseline, flagged `fallback`.
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
            f"{len(holdout_set[0])} customers to judge on; {MIN_HOLDOUT_CUSTOMERS} are needed",
        )
    candidates, refusal = _fit_candidates(task, training_data, training_set, holdout_set, seed, progress)
    if not candidates:
        return _train_fallback(task, training_data, frame, seed, refusal)
    counts = {"trial": len(training_set[0]), "holdout": len(holdout_set[0])}
    del training_set, holdout_set  # rows of needs are many: three copies of them would not fit beside each other
    candidates = _evaluate_earlier_cutoffs(task, training_data, frame, candidates, seed, progress)
    best, why = _choose_candidate(task, candidates, refusal)
    progress(f"{task.name}: {best.learner} learns from all days")
    rows, label = _labelled_rows(task, training_data, frame, training_data.calendar.as_of)
    model = _fit_learner(task, training_data, best.learner, rows, label, seed)
    counts["served"] = len(rows)
    is_fallback = all(candidate.learner != task.learner for candidate in candidates)
    return TrainingResult(task, model, best.learner, best, candidates, holdout, is_fallback, why, counts)


def refit(
    task: Task, training_data: TrainingData, frame: pd.DataFrame, *, learner: str | None = None, seed: int = 0
) -> Model:
    """One learner (the plan's own, if none is named) on all that is known, as a night's last step fits what it serves.

    Raises TooLittle where the learner does.
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
    """One learner of a spread plan on what was known before a holdout that may lie anywhere."""
    return _fit_learner(
        task, training_data, learner or task.learner, *_training_rows(task, training_data, frame, holdout), seed
    )


def evaluate(task: Task, training_data: TrainingData, frame: pd.DataFrame, model: Model) -> dict[str, float]:
    """A fitted model's figures on this run's holdout: how a champion is compared with its challenger.

    Raises Incomparable for a model of another horizon or a shorter curve, Unfit for one of other features.
    """
    horizon_days = task.settings(training_data).get("horizon_days")
    model_horizon_days = getattr(model, "horizon_days", horizon_days)
    if model_horizon_days != horizon_days:
        raise Incomparable(f"it speaks of {model_horizon_days} days, this night of {horizon_days}")
    rows, label = _holdout_rows(
        task, training_data, frame, training_data.calendar.cutoff_before(task.holdout_days(training_data))
    )
    return task.evaluate(training_data, rows, label, model.score(rows))


def is_not_worse(task: Task, metrics: dict[str, float], reference: dict[str, float]) -> bool:
    """Is the decisive figure as good as the other's, a tie counting as good?"""
    return _is_as_good(task, metrics[task.primary_metric], reference[task.primary_metric])


def guardrail_violation(task: Task, metrics: dict[str, float], reference: dict[str, float]) -> str:
    """Which figure of the plan's floor is too far below another's, in words; empty where none is."""
    for metric, min_ratio in task.guardrails.items():
        a, b = metrics.get(metric, math.nan), reference.get(metric, math.nan)
        if a < min_ratio * b:
            return f"{metric} {a:.4f} is less than {min_ratio:g} of {b:.4f}"
    return ""


def _fit_candidates(
    task: Task, training_data: TrainingData, training_set: tuple[pd.DataFrame, Any], holdout_set: tuple[pd.DataFrame, Any], seed: int,
    progress: Callable[[str], None],
) -> tuple[list[Candidate], str]:  # fmt: skip
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
    task: Task, training_data: TrainingData, frame: pd.DataFrame, candidates: list[Candidate], seed: int,
    progress: Callable[[str], None],
) -> list[Candidate]:  # fmt: skip
    """The same with their figures at earlier cutoffs; one before which not all of them could learn is left out."""
    for back in range(2, task.n_cutoffs + 1):
        cutoff = training_data.calendar.cutoff_before(back * task.holdout_days(training_data))
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
    """The learner where it is not worse than every baseline, else the best baseline; of those above the floor."""
    is_better = comparator(task.primary_metric)
    candidates, below = _within_guardrails(task, candidates)
    refusal = below or refusal
    baselines = [c for c in candidates if c.learner != task.learner]
    learner_candidates = [c for c in candidates if c.learner == task.learner]
    best = baselines[0] if baselines else learner_candidates[0]
    for baseline in baselines[1:]:
        best = baseline if is_better(baseline.mean_primary_metric(task), best.mean_primary_metric(task)) else best
    if not learner_candidates:
        return best, f"{best.learner} is served; {refusal}"
    main = learner_candidates[0]
    text = f"{task.primary_metric} {main.mean_primary_metric(task):.4f} against {best.mean_primary_metric(task):.4f} of {best.learner}"
    text += f", the mean of {1 + len(main.earlier_metrics)} cutoffs" if main.earlier_metrics else ""
    if _is_as_good(task, main.mean_primary_metric(task), best.mean_primary_metric(task)):
        return main, text
    return best, f"the baseline {best.learner} is served: {task.learner} has {text}"


def _is_as_good(task: Task, a: float, b: float) -> bool:
    return not comparator(task.primary_metric)(b, a) or abs(a - b) <= TIE_TOLERANCE * abs(b)


def _within_guardrails(task: Task, candidates: list[Candidate]) -> tuple[list[Candidate], str]:
    """Who tells customers apart nearly as well as the last baseline does; and why the learner is not among them."""
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
    """All rows up to a moment, with the outcomes that were complete by then; learners choose among them."""
    is_before = frame["as_of"] <= until
    rows = (
        frame if is_before.all() and isinstance(frame.index, pd.RangeIndex) else frame[is_before].reset_index(drop=True)
    )
    return rows, task.label(training_data, rows, training_data.calendar.local_day(until))


def _training_rows(
    task: Task, training_data: TrainingData, frame: pd.DataFrame, holdout: datetime
) -> tuple[pd.DataFrame, Any]:
    """What may be learned from before the holdout; of a spread plan, whose exam is every row from then on, less."""
    rows, label = _labelled_rows(task, training_data, frame, holdout)
    return _filter_rows(rows, label, (rows["as_of"] < holdout).to_numpy()) if task.is_event_based else (rows, label)


def _holdout_rows(
    task: Task, training_data: TrainingData, frame: pd.DataFrame, holdout: datetime
) -> tuple[pd.DataFrame, Any]:
    """The rows that are judged, with all that became of them."""
    is_holdout = frame["as_of"] >= holdout if task.is_event_based else frame["as_of"] == holdout
    rows = frame[is_holdout].reset_index(drop=True)
    label = task.label(training_data, rows, training_data.calendar.complete_until)
    return _filter_rows(rows, label, task.evaluated_rows(training_data, rows, label))


def _filter_rows(rows: pd.DataFrame, label: Any, mask: Any) -> tuple[pd.DataFrame, Any]:
    selected_label = label[mask].reset_index(drop=True) if isinstance(label, pd.DataFrame | pd.Series) else label[mask]
    return rows[mask].reset_index(drop=True), selected_label
