"""Uplift analysis: what contact by past campaigns changed, and whether the evidence suffices to rank customers by it.

A campaign that reached some customers and not others is observational treatment data: who was contacted was chosen. So
contacted customers are compared with others like them (propensity and doubly robust scores), the same comparison is
made for the days before as a placebo test, and the verdict is `not enough evidence` where an effect could be chance or
selection.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from customers import clock
from customers.parquet import mirror
from customers.scores.uplift_result import EVIDENCE, NOT_ENOUGH_EVIDENCE, UpliftResult
from customers.shop.settings import Shop
from features.snapshots import snapshot
from models.base import InsufficientData
from models.registry import mlflow_registry
from models.uplift.cross_fitting import CrossFittedScores, PropensityScores, cross_fit
from models.uplift.model import UpliftModel
from models.uplift.treatment_data import TreatmentData, sample_rows
from pipelines.errors import NothingToDo
from pipelines.nightly import training_data, uplift_scores
from pipelines.nightly.run_context import ProgressCallback, RunContext, open_dry_run
from pipelines.reporting import plots
from pipelines.uplift import campaign_waves
from pipelines.uplift.campaign_waves import FOLLOW_UP_DAYS, CampaignWaves
from training import labels, promotion
from training.evaluation import uplift_evaluation
from training.evaluation.uplift_evaluation import UpliftEvaluation, UpliftVerdict
from training.tasks import all_tasks
from training.tasks.task import TrainingData

#: Outcomes that contact may raise, with their text: a purchase within FOLLOW_UP_DAYS, and what is spent in them.
OUTCOMES = {"return": f"bought within {FOLLOW_UP_DAYS} days", "spend": f"spent within {FOLLOW_UP_DAYS} days"}
#: The placebo test uses fewer folds: it only needs to show that there was no effect before the mailing.
PLACEBO_FOLDS = 3
INTERVAL_FIELDS = ("value", "low", "high")


@dataclass(frozen=True)
class OutcomeAnalysis:
    """One outcome: its treatment data, cross-fitted scores, and evaluation after contact and before it (placebo)."""

    treatment_data: TreatmentData
    cross_fitted: CrossFittedScores
    evaluation: UpliftEvaluation
    placebo: UpliftEvaluation | None = None

    @cached_property
    def verdict(self) -> UpliftVerdict:
        """Whether the effect counts as evidence, and the reasons."""
        return uplift_evaluation.decide_verdict(self.evaluation, self.placebo)


def run_uplift(shop: Shop, *, out: Path | None = None, progress: ProgressCallback, seed: int = 0) -> dict[str, Any]:
    """Analyse past mailings; write table, plot and JSON to a folder, log them to MLflow, and store the result.

    Where there is evidence, an effect model is published and every customer scored by it. Raises NothingToDo without
    sales or without a mailing that can be analysed.
    """
    started, now = time.perf_counter(), clock.now(shop)
    mirror.refresh(shop)
    if snapshot.first_sale_day(shop.ledger, now, shop.timezone) is None:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    dataset, _ = training_data.load_training_data(shop, now)
    waves = campaign_waves.find_waves(shop, dataset)
    first_days = waves.first_days.values()
    cutoffs = sorted(
        {*waves.cutoffs, *first_days, *(campaign_waves.shift_back(day, dataset.calendar) for day in first_days)}
    )
    progress(f"customers before {len(waves.cutoffs)} mailings ...")
    with open_dry_run(shop, now, all_tasks.get_task("churn"), cutoffs=cutoffs) as context:
        frame = context.load_task_frame(all_tasks.get_task("churn"))
        analyses = _analyse_outcomes(context, frame, waves, seed, progress)
    result, model = _conclude(now, analyses, seed)
    summary = _summarise(shop, result, analyses, waves, dataset)
    files = _write_files(summary, analyses, out or shop.home / "exports" / "uplift")
    run_id = _log_run(shop, summary, files)
    uplift_scores.store_result(shop, result, model)
    return summary | {
        "files": [str(path) for path in files],
        "run": run_id,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _analyse_outcomes(
    context: RunContext, frame: pd.DataFrame, waves: CampaignWaves, seed: int, progress: ProgressCallback
) -> dict[str, OutcomeAnalysis]:
    """Analyse every outcome that varies at all, with its placebo test."""
    rows = waves.comparable_rows(frame, context.training_data.calendar)
    rows = rows[sample_rows(rows["customer_key"].to_numpy(np.int64), seed)].reset_index(drop=True)
    contacted = waves.is_contacted(rows, context.training_data.calendar)
    propensity: PropensityScores | None = None
    analyses: dict[str, OutcomeAnalysis] = {}
    for name, outcome in _observed_outcomes(context.training_data, rows).items():
        progress(f"effect of contact: {OUTCOMES[name]} ...")
        treatment_data = TreatmentData.from_frame(rows, pd.DataFrame({"contacted": contacted, "outcome": outcome}))
        propensity = propensity or PropensityScores.fit(treatment_data, seed=seed)
        cross_fitted = cross_fit(treatment_data, propensity, seed=seed)
        analyses[name] = OutcomeAnalysis(
            treatment_data, cross_fitted, uplift_evaluation.evaluate_uplift(treatment_data, cross_fitted, seed=seed)
        )
    progress("placebo test: the days before the mailings ...")
    placebos = _evaluate_placebos(context, frame, rows, contacted, waves, analyses, seed) if analyses else {}
    return {name: replace(analysis, placebo=placebos.get(name)) for name, analysis in analyses.items()}


def _observed_outcomes(training_data: TrainingData, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Outcomes (n,) of the rows by name, those that vary; a shop without prices has no spend."""
    churned = labels.churned(rows, training_data.purchases, days=FOLLOW_UP_DAYS, calendar=training_data.calendar)
    spent = labels.spend_within(rows, training_data.purchases, days=FOLLOW_UP_DAYS, calendar=training_data.calendar)
    outcomes = {"return": 1 - churned, "spend": uplift_evaluation.winsorise(np.nan_to_num(spent))}
    return {name: outcome for name, outcome in outcomes.items() if len(outcome) and np.ptp(outcome) > 0}


def _evaluate_placebos(
    context: RunContext, frame: pd.DataFrame, rows: pd.DataFrame, contacted: np.ndarray, waves: CampaignWaves,
    analyses: dict[str, OutcomeAnalysis], seed: int,
) -> dict[str, UpliftEvaluation]:  # fmt: skip
    """Evaluate the same customers in the FOLLOW_UP_DAYS before the mailing, except those contacted in them."""
    calendar, is_included = context.training_data.calendar, next(iter(analyses.values())).cross_fitted.has_overlap
    placebo_cutoffs = {day: campaign_waves.shift_back(first, calendar) for day, first in waves.first_days.items()}
    placebo_rows = pd.DataFrame({
        "customer_key": rows["customer_key"], "as_of": rows["as_of"].map(placebo_cutoffs).astype(frame["as_of"].dtype),
        "row": np.arange(len(rows)),
    })[is_included & ~waves.is_otherwise_contacted(rows, calendar)]  # fmt: skip
    matched_rows = frame.merge(placebo_rows, on=["customer_key", "as_of"])
    positions = matched_rows.pop("row").to_numpy(np.int64)
    propensity: PropensityScores | None = None
    evaluations: dict[str, UpliftEvaluation] = {}
    for name, outcome in _observed_outcomes(context.training_data, matched_rows).items():
        try:
            treatment_data = TreatmentData.from_frame(
                matched_rows, pd.DataFrame({"contacted": contacted[positions], "outcome": outcome})
            )
            propensity = propensity or PropensityScores.fit(treatment_data, seed=seed, folds=PLACEBO_FOLDS)
            cross_fitted = cross_fit(treatment_data, propensity, seed=seed)
        except InsufficientData:
            return {}
        if name in analyses:
            effects = {learner: effect[positions] for learner, effect in analyses[name].cross_fitted.effects.items()}
            evaluations[name] = uplift_evaluation.evaluate_uplift(
                treatment_data, replace(cross_fitted, effects=effects), shared_draws=analyses[name].evaluation.draws
            )
    return evaluations


def _conclude(
    now: datetime, analyses: dict[str, OutcomeAnalysis], seed: int
) -> tuple[UpliftResult, UpliftModel | None]:
    """The result and effect model of the first outcome with evidence: a return comes first, since it implies spend."""
    conclusive = next((name for name, analysis in analyses.items() if analysis.verdict.is_evidence), None)
    if conclusive is None:
        return UpliftResult(
            now.isoformat(), NOT_ENOUGH_EVIDENCE, _join_doubts(analyses), None, FOLLOW_UP_DAYS, None
        ), None
    analysis = analyses[conclusive]
    model = UpliftModel.fit_from_scores(analysis.treatment_data, analysis.cross_fitted, seed=seed)
    return UpliftResult(
        now.isoformat(), EVIDENCE, f"{conclusive}: {analysis.verdict.why[0]}", conclusive, FOLLOW_UP_DAYS, None
    ), model


def _join_doubts(analyses: dict[str, OutcomeAnalysis]) -> str:
    """Reasons against the evidence, each once, with the outcomes that it applies to."""
    outcomes_by_doubt: dict[str, list[str]] = {}
    for name, analysis in analyses.items():
        for doubt in analysis.verdict.why:
            outcomes_by_doubt.setdefault(doubt, []).append(name)
    text = "; ".join(f"{' and '.join(names)}: {doubt}" for doubt, names in outcomes_by_doubt.items())
    return text or "nobody bought anything in the days after the mailings, or everybody did"


def _summarise(
    shop: Shop,
    result: UpliftResult,
    analyses: dict[str, OutcomeAnalysis],
    waves: CampaignWaves,
    training_data: TrainingData,
) -> dict[str, Any]:
    outcomes = {
        name: {
            "verdict": analysis.verdict.verdict, "why": analysis.verdict.why,
            "unit": "chance" if name == "return" else shop.currency,
            "contacted": analysis.evaluation.contacted, "others": analysis.evaluation.others,
            "figures": _metric_intervals(analysis.evaluation),
            "placebo": _metric_intervals(analysis.placebo) if analysis.placebo else None,
        }
        for name, analysis in analyses.items()
    }  # fmt: skip
    return {
        "as_of": result.as_of, "verdict": result.verdict, "why": result.why, "outcome": result.outcome,
        "days": FOLLOW_UP_DAYS,
        "mailings": [str(training_data.calendar.local_day(day)) for day in waves.first_days.values()],
        "left_out": waves.left_out, "outcomes": outcomes,
    }  # fmt: skip


def _metric_intervals(evaluation: UpliftEvaluation) -> dict[str, dict[str, float | None]]:
    intervals = {
        name: {part: getattr(metric, part) for part in INTERVAL_FIELDS} for name, metric in evaluation.metrics.items()
    }
    return {
        name: {part: None if np.isnan(number) else float(number) for part, number in parts.items()}
        for name, parts in intervals.items()
    }


def _write_files(summary: dict[str, Any], analyses: dict[str, OutcomeAnalysis], folder: Path) -> list[Path]:
    """Write the table as CSV, the summary as JSON, and Qini curves where matplotlib is installed; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    csv_path, json_path = folder / "uplift.csv", folder / "uplift.json"
    rows = [
        {"outcome": name, "asked": when, "figure": metric, **value}
        for name, outcome in summary["outcomes"].items()
        for when, metrics in (("after", outcome["figures"]), ("before", outcome["placebo"] or {}))
        for metric, value in metrics.items()
    ]
    pd.DataFrame(rows, columns=["outcome", "asked", "figure", "value", "low", "high"]).to_csv(csv_path, index=False)
    json_path.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    curves = {OUTCOMES[name]: analysis.evaluation.curves for name, analysis in analyses.items()}
    plot_path = plots.plot_qini(curves, folder / "uplift.png", title=f"whom contact brings back: {summary['verdict']}")
    return [csv_path, json_path, *([plot_path] if plot_path else [])]


def _log_run(shop: Shop, summary: dict[str, Any], files: list[Path]) -> str:
    metrics = {
        f"{name}.{when}.{metric}.{part}".removesuffix(".value"): number
        for name, outcome in summary["outcomes"].items()
        for when, intervals in (("after", outcome["figures"]), ("before", outcome["placebo"] or {}))
        for metric, interval in intervals.items()
        for part, number in interval.items()
        if number is not None
    }
    settings = {
        "verdict": summary["verdict"],
        "outcome": summary["outcome"],
        "mailings": ", ".join(summary["mailings"]),
    }
    return mlflow_registry.record_run(
        promotion.registry_uri(shop), "uplift", metrics=metrics, params=settings,
        artifacts={path.name: path for path in files},
    )  # fmt: skip
