"""Accuracy targets: what every model must reach on two real shops, beside benchmarks measured in the same run.

Run it with `make goals`. Models are trained on what was known at each cutoff, never on what they are evaluated on; for
churn, timing, restock and value it evaluates what a nightly run of that day would have served. Exits with 1 where a
required bound does not hold. With REGULARS_ONLINE_RETAIL=PATH/online_retail_ii.parquet the gift wholesaler is
evaluated too.
"""

from __future__ import annotations

import os

# As in the command, and before numpy is imported: idle threads do not spin.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", OPENBLAS_NUM_THREADS="1", DO_NOT_TRACK="true")

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import pandas as pd

from customers import clock
from customers.shop import settings
from customers.shop.settings import Shop
from pipelines.backtest import customer_models, offers, recommender
from pipelines.backtest import run as backtest_run
from pipelines.backtest.cutoffs import SERVED, BacktestResult
from training.evaluation.next_basket_holdout import HoldoutCriteria
from training.tasks import all_tasks

UNBOUNDED = float("inf")
#: Products bought on ten household-days before the cutoff; customers with three trips before and one after.
CRITERIA = HoldoutCriteria(
    min_product_days=10,
    min_customer_trips=3,
    excluded_departments=(
        *("FUEL", "COUPON", "MISCELLANEOUS", "CNTRL/STORE SUP", "POSTAL CENTER", "PROD-WHS SALES"),
        *("ELECT &PLUMBING", "TOYS", "GM MERCH EXP", "COUPON/MISC ITEMS"),
    ),
)
#: Length of the model's lists whose best possible order is the upper bound.
CANDIDATES = 200
#: Methods that must not be ahead on a shop that was never tuned for.
BASELINE_RULES = ("decayed frequency", "popularity, lately", "popularity, ever")


@dataclass(frozen=True)
class BenchmarkShops:
    """The two shops, loaded on first use; None for one whose data are missing."""

    folder: Path
    home: str | None
    retail_home: str | None

    @cached_property
    def grocer(self) -> Shop:
        """The Complete Journey."""
        return settings.open_shop(self.home) if self.home else datasets.load_grocer(self.folder, _print_progress)

    @cached_property
    def wholesaler(self) -> Shop | None:
        """Online Retail II, with a churn horizon of 90 days."""
        if self.retail_home:
            return replace(settings.open_shop(self.retail_home), churn_days=90)
        shop = datasets.load_wholesaler(self.folder, _print_progress)
        return replace(shop, churn_days=90) if shop else None


@dataclass(frozen=True)
class AccuracyTarget:
    """One metric, the bounds within which it must lie, and the bounds that are aimed at."""

    figure: str
    words: str
    must: tuple[float, float]
    aim: tuple[float, float]


def at_least(metric: str, words: str, must: float, aim: float) -> AccuracyTarget:
    """A target of a metric that is better when larger."""
    return AccuracyTarget(metric, words, (must, UNBOUNDED), (aim, UNBOUNDED))


def at_most(metric: str, words: str, must: float, aim: float) -> AccuracyTarget:
    """A target of a metric that is better when smaller."""
    return AccuracyTarget(metric, words, (-UNBOUNDED, must), (-UNBOUNDED, aim))


@dataclass(frozen=True)
class TargetRow:
    """One backtest of one shop at fixed cutoffs, with its targets."""

    name: str
    part: str
    shop: str
    run_backtest: Callable[[Shop], BacktestResult]
    targets: tuple[AccuracyTarget, ...]


def _backtest_lists(shop: Shop) -> BacktestResult:
    return recommender.backtest_recommender(
        shop,
        at_cutoffs=[clock.parse_time(shop, "2017-12-04")],
        criteria=CRITERIA,
        ceiling_depth=CANDIDATES,
        progress=_print_progress,
    )


def _backtest_offers(shop: Shop) -> BacktestResult:
    return offers.backtest_offers(shop, at_cutoffs=[clock.parse_time(shop, "2017-10-30")], progress=_print_progress)


def _backtest_at(name: str, *days: str, follow_up_days: int | None = None) -> Callable[[Shop], BacktestResult]:
    def backtest_shop(shop: Shop) -> BacktestResult:
        return customer_models.backtest_customer_model(
            shop,
            name,
            at_cutoffs=[clock.parse_time(shop, day) for day in days],
            follow_up_days=follow_up_days,
            progress=_print_progress,
        )

    return backtest_shop


TARGET_ROWS = (
    TargetRow("next 28 days, next trip", "lists", "grocer", _backtest_lists, (
        at_least("recall_10", "28 days, Recall@10", 0.119, 0.125),
        at_least("ndcg_10", "28 days, NDCG@10 (capped)", 0.427, 0.445),
        at_least("new_hit_rate_10", "28 days, new: a hit in 10", 0.33, 0.36),
        at_least("trip_recall_10", "next trip, Recall@10", 0.165, 0.172),
        at_least("trip_ndcg_full_10", "next trip, NDCG@10", 0.175, 0.182),
        at_least("trip_recall_20", "next trip, Recall@20", 0.225, 0.240),
    )),
    TargetRow("offers", "offers", "grocer", _backtest_offers, (
        at_least("map", "MAP", 0.41, 0.44),
        at_least("ndcg_10", "NDCG@10 (capped)", 0.50, 0.53),
        at_least("auc", "AUC, all pairs", 0.935, 0.945),
    )),
    TargetRow("churn, 28 days", "churn", "grocer", _backtest_at("churn", "2017-11-06", "2017-12-04"), (
        at_least("auc", "AUC", 0.852, 0.862),
        at_least("ap", "AP", 0.445, 0.465),
        at_most("log_loss", "log loss", 0.292, 0.284),
        at_most("ece", "ECE", 0.02, 0.015),
    )),
    TargetRow("churn, 90 days, June", "churn", "wholesaler", _backtest_at("churn", "2011-06-13"), (
        at_least("auc", "AUC", 0.783, 0.79),
        at_most("brier", "Brier", 0.190, 0.186),
    )),
    TargetRow("churn, 90 days, before Christmas", "churn", "wholesaler", _backtest_at("churn", "2011-09-11"), (
        at_most("brier", "Brier", 0.192, 0.187),
        at_most("ece", "ECE", 0.04, 0.03),
    )),
    TargetRow("timing, 90 days", "timing", "grocer", _backtest_at("timing", "2017-09-03", "2017-10-03"), (
        at_most("crps", "CRPS, days", 6.70, 6.45),
        at_least("c_index", "C", 0.717, 0.725),
        at_most("nll", "NLL", 3.03, 2.99),
        AccuracyTarget("coverage_80", "inside the 80 % interval", (0.77, 0.83), (0.78, 0.82)),
    )),
    TargetRow("timing, 180 days", "timing", "wholesaler",
              _backtest_at("timing", "2011-03-15", "2011-06-13", follow_up_days=180), (
        at_most("crps", "CRPS, days", 30.2, 29.7),
    )),
    TargetRow("value, 90 days", "value", "grocer", _backtest_at("value", "2017-10-03"), (
        at_least("ngini", "normalised Gini", 0.868, 0.876),
        at_most("mae", "MAE", 172.0, 164.0),
        at_most("decile_error", "decile error", 0.075, 0.055),
    )),
    TargetRow("value, 90 days, before Christmas", "value", "wholesaler", _backtest_at("value", "2011-09-11"), (
        at_least("ngini", "normalised Gini", 0.83, 0.84),
        AccuracyTarget("bias", "bias of the total", (-0.08, 0.08), (-0.03, 0.03)),
    )),
    TargetRow("restock, 14 days", "restock", "grocer", _backtest_at("restock", "2017-11-02"), (
        at_least("auc", "AUC", 0.733, 0.745),
        at_least("ap", "AP", 0.573, 0.59),
        at_most("ece", "ECE", 0.01, 0.006),
    )),
)  # fmt: skip
PARTS = tuple(dict.fromkeys(row.part for row in TARGET_ROWS))


@dataclass(frozen=True)
class TargetResult:
    """The result of one target: our value with its 95 % interval, and the references of the same run."""

    row: str
    goal: AccuracyTarget
    value: float
    low: float
    high: float
    references: dict[str, float]

    @property
    def verdict(self) -> str:
        """One of "aim", "pass" and "MISSED"."""
        if _is_within(self.value, self.goal.aim):
            return "aim"
        return "pass" if _is_within(self.value, self.goal.must) else "MISSED"


def main() -> None:
    """Run the chosen backtests and print the results; exit with 1 where a required bound does not hold."""
    arguments = _parse_arguments()
    results: list[TargetResult] = []
    tables: dict[str, pd.DataFrame] = {}
    with TemporaryDirectory(prefix="regulars-goals-") as folder:
        benchmark_shops = BenchmarkShops(Path(folder), arguments.home, arguments.retail_home)
        for row in TARGET_ROWS:
            shop = getattr(benchmark_shops, row.shop) if arguments.only in ("", row.part) else None
            if shop is not None:
                outcome = row.run_backtest(shop)
                _print_progress("\n".join(outcome.notes))
                tables[row.name] = outcome.table
                results += [compare_with_target(row, target, outcome.table) for target in row.targets]
                if arguments.out:
                    backtest_run.write_result(
                        outcome, Path(arguments.out) / row.name.replace(", ", "-").replace(" ", "-")
                    )
        rule_results = compare_with_rules(benchmark_shops.wholesaler) if arguments.only in ("", "retail") else []
    _print_report(results, rule_results, tables, as_json=arguments.json)
    missed = any(result.verdict == "MISSED" for result in results) or any(not rule["holds"] for rule in rule_results)
    sys.stdout.flush()
    # Skip the normal exit: DuckDB's binding writes about a lost lock when the interpreter shuts down.
    os._exit(int(missed))


def compare_with_target(row: TargetRow, target: AccuracyTarget, table: pd.DataFrame) -> TargetResult:
    """Our value and those of all other methods, from the long table of a backtest with column figure (the metric)."""
    rows = table[(table["segment"] == "all") & (table["figure"] == target.figure)].set_index("method")
    our_methods = {SERVED, *(task.learner for task in all_tasks.TASKS)}
    ours = rows.loc[next(name for name in rows.index if name in our_methods)]
    others = rows.drop(index=str(ours.name))["value"].dropna()
    return TargetResult(row.name, target, *(float(ours[name]) for name in ("value", "low", "high")), others.to_dict())


def compare_with_rules(shop: Shop | None) -> list[dict[str, Any]]:
    """How far our lists are ahead of the baseline rules on the wholesaler, with no setting changed for it."""
    if shop is None:
        return []
    table = recommender.backtest_recommender(shop, progress=_print_progress).table
    return [_compare_with_rule(table, rule, metric) for metric in ("recall_10", "ndcg_10") for rule in BASELINE_RULES]


def _compare_with_rule(table: pd.DataFrame, rule: str, metric: str) -> dict[str, Any]:
    """One rule and metric; a tie counts as reached, as it does when models are promoted."""
    everyone = table[(table["segment"] == "all") & (table["figure"] == metric)].set_index("method")
    row = everyone.loc[rule]
    ours = everyone.loc[all_tasks.get_task("recommender").learner]
    comparison = {"figure": metric, "rule": rule, "ours": float(ours["value"]), "theirs": float(row["value"])}
    comparison |= {name: float(row[name]) for name in ("ahead", "ahead_low", "ahead_high")}
    return comparison | {"holds": comparison["ahead"] >= -all_tasks.TIE_TOLERANCE * comparison["theirs"]}


def _print_report(
    results: list[TargetResult], rule_results: list[dict[str, Any]], tables: dict[str, pd.DataFrame], *, as_json: bool
) -> None:
    if as_json:
        report = {
            "goals": [asdict(result) | {"verdict": result.verdict} for result in results],
            "wholesaler": rule_results,
            "tables": {name: backtest_run.json_records(table) for name, table in tables.items()},
        }
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
        return
    sys.stdout.write("\n".join([*_format_targets(results), "", *_format_rules(rule_results)]) + "\n")


def _format_targets(results: list[TargetResult]) -> list[str]:
    lines = [f"{'':34} {'':26} {'pass':>14} {'aim':>14}   ours (95 %)                      references, same run"]
    for result in results:
        target = result.goal
        others = ", ".join(f"{name} {_format_number(value)}" for name, value in result.references.items())
        interval = f"{_format_number(result.value)} ({_format_number(result.low)} to {_format_number(result.high)})"
        lines.append(
            f"{result.row:34} {target.words:26} {_format_bounds(target.must):>14} {_format_bounds(target.aim):>14}   "
            f"{interval:28} {result.verdict:7} {others}"
        )
    return lines if results else []


def _format_rules(rule_results: list[dict[str, Any]]) -> list[str]:
    return [
        f"gift wholesaler, {rule['figure']}: {rule['ours']:.4f}, {rule['rule']} {rule['theirs']:.4f}; ahead by "
        f"{rule['ahead']:.4f} ({rule['ahead_low']:.4f} to {rule['ahead_high']:.4f}) "
        f"{'holds' if rule['holds'] else 'MISSED'}"
        for rule in rule_results
    ]


def _is_within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _format_bounds(bounds: tuple[float, float]) -> str:
    low, high = bounds
    if high == UNBOUNDED:
        return f"from {low:g}"
    return f"up to {high:g}" if low == -UNBOUNDED else f"{low:g} to {high:g}"


def _format_number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _print_progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parse_arguments() -> Any:
    parser = argparse.ArgumentParser(description="Accuracy targets on two real shops, with references and intervals.")
    parser.add_argument("--home", metavar="FOLDER", help="a home with the Complete Journey; default: a fresh one")
    parser.add_argument("--retail-home", metavar="FOLDER", help="a home with Online Retail II; default: a fresh one")
    parser.add_argument("--only", default="", choices=["", *PARTS, "retail"], help="only this part")
    parser.add_argument("--out", metavar="FOLDER", help="write each table, its plots and its page here too")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
