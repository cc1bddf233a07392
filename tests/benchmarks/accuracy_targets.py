"""Goals: what every model must reach on two real shops, beside named rivals measured in the same run.

Run it with `make goals`. Models are made from what was known at each cutoff and never saw what they are judged on;
of churn, timing, restock and value, what a night of that day would have served is judged, chosen by that night. It
exits with 1 where a figure that must hold does not. With REGULARS_ONLINE_RETAIL=PATH/online_retail_ii.parquet the gift
wholesaler is judged too.
"""

from __future__ import annotations

import os

# As in the command: two cores that are not fought over, set before numpy is loaded.
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

import pandas as pd
import shops as real

from customers import clock
from customers import shop as homes
from customers.shop import Shop
from pipelines import backtest
from pipelines.earlier import SERVED, Backtest
from training import plans
from training.exams import Terms

ANY = float("inf")
#: Products bought on ten household-days before the cutoff; customers with three trips before and one after.
TERMS = Terms(
    product_days=10,
    customer_trips=3,
    departments=(
        *("FUEL", "COUPON", "MISCELLANEOUS", "CNTRL/STORE SUP", "POSTAL CENTER", "PROD-WHS SALES"),
        *("ELECT &PLUMBING", "TOYS", "GM MERCH EXP", "COUPON/MISC ITEMS"),
    ),
)
#: How deep the model's candidates are looked at for their best order.
CANDIDATES = 200
#: Who must not be ahead on a shop that nobody tuned for.
PLAIN_RULES = ("decayed frequency", "popularity, lately", "popularity, ever")


@dataclass(frozen=True)
class Shops:
    """The two shops, made when first asked for; None for one that is not there."""

    folder: Path
    home: str | None
    retail_home: str | None

    @cached_property
    def grocer(self) -> Shop:
        return homes.open(self.home) if self.home else real.grocer(self.folder, _say)

    @cached_property
    def wholesaler(self) -> Shop | None:
        found = homes.open(self.retail_home) if self.retail_home else real.wholesaler(self.folder, _say)
        return replace(found, churn_days=90) if found else None


@dataclass(frozen=True)
class Goal:
    """One figure, the bounds within which it must lie, and those in which it would be good to lie."""

    figure: str
    words: str
    must: tuple[float, float]
    aim: tuple[float, float]


def at_least(figure: str, words: str, must: float, aim: float) -> Goal:
    """The more the better."""
    return Goal(figure, words, (must, ANY), (aim, ANY))


def at_most(figure: str, words: str, must: float, aim: float) -> Goal:
    """The less the better."""
    return Goal(figure, words, (-ANY, must), (-ANY, aim))


@dataclass(frozen=True)
class Row:
    """One question to one shop as of some days, with what must come of it."""

    name: str
    part: str
    shop: str
    ask: Callable[[Shop], Backtest]
    goals: tuple[Goal, ...]


def _lists(shop: Shop) -> Backtest:
    return backtest.recommender(shop, at=[clock.moment(shop, "2017-12-04")], terms=TERMS, ceiling=CANDIDATES, tell=_say)


def _offers(shop: Shop) -> Backtest:
    return backtest.offers(shop, at=[clock.moment(shop, "2017-10-30")], tell=_say)


def _asked(name: str, *days: str, wait_days: int | None = None) -> Callable[[Shop], Backtest]:
    def ask(shop: Shop) -> Backtest:
        return backtest.answers(
            shop, name, at=[clock.moment(shop, day) for day in days], wait_days=wait_days, tell=_say
        )

    return ask


ROWS = (
    Row("next 28 days, next trip", "lists", "grocer", _lists, (
        at_least("recall_10", "28 days, Recall@10", 0.119, 0.125),
        at_least("ndcg_10", "28 days, NDCG@10 (capped)", 0.427, 0.445),
        at_least("new_hit_rate_10", "28 days, new: a hit in 10", 0.33, 0.36),
        at_least("trip_recall_10", "next trip, Recall@10", 0.165, 0.172),
        at_least("trip_ndcg_full_10", "next trip, NDCG@10", 0.175, 0.182),
        at_least("trip_recall_20", "next trip, Recall@20", 0.225, 0.240),
    )),
    Row("offers", "offers", "grocer", _offers, (
        at_least("map", "MAP", 0.41, 0.44),
        at_least("ndcg_10", "NDCG@10 (capped)", 0.50, 0.53),
        at_least("auc", "AUC, all pairs", 0.935, 0.945),
    )),
    Row("churn, 28 days", "churn", "grocer", _asked("churn", "2017-11-06", "2017-12-04"), (
        at_least("auc", "AUC", 0.852, 0.862),
        at_least("ap", "AP", 0.445, 0.465),
        at_most("log_loss", "log loss", 0.292, 0.284),
        at_most("ece", "ECE", 0.02, 0.015),
    )),
    Row("churn, 90 days, June", "churn", "wholesaler", _asked("churn", "2011-06-13"), (
        at_least("auc", "AUC", 0.783, 0.79),
        at_most("brier", "Brier", 0.190, 0.186),
    )),
    Row("churn, 90 days, before Christmas", "churn", "wholesaler", _asked("churn", "2011-09-11"), (
        at_most("brier", "Brier", 0.192, 0.187),
        at_most("ece", "ECE", 0.04, 0.03),
    )),
    Row("timing, 90 days", "timing", "grocer", _asked("timing", "2017-09-03", "2017-10-03"), (
        at_most("crps", "CRPS, days", 6.70, 6.45),
        at_least("c_index", "C", 0.717, 0.725),
        at_most("nll", "NLL", 3.03, 2.99),
        Goal("coverage_80", "inside the 80 % interval", (0.77, 0.83), (0.78, 0.82)),
    )),
    Row("timing, 180 days", "timing", "wholesaler", _asked("timing", "2011-03-15", "2011-06-13", wait_days=180), (
        at_most("crps", "CRPS, days", 30.2, 29.7),
    )),
    Row("value, 90 days", "value", "grocer", _asked("value", "2017-10-03"), (
        at_least("ngini", "normalised Gini", 0.868, 0.876),
        at_most("mae", "MAE", 172.0, 164.0),
        at_most("decile_error", "decile error", 0.075, 0.055),
    )),
    Row("value, 90 days, before Christmas", "value", "wholesaler", _asked("value", "2011-09-11"), (
        at_least("ngini", "normalised Gini", 0.83, 0.84),
        Goal("bias", "bias of the total", (-0.08, 0.08), (-0.03, 0.03)),
    )),
    Row("restock, 14 days", "restock", "grocer", _asked("restock", "2017-11-02"), (
        at_least("auc", "AUC", 0.733, 0.745),
        at_least("ap", "AP", 0.573, 0.59),
        at_most("ece", "ECE", 0.01, 0.006),
    )),
)  # fmt: skip
PARTS = tuple(dict.fromkeys(row.part for row in ROWS))


@dataclass(frozen=True)
class Reached:
    """What came of a goal: ours with its 95 % interval, and the references of the same run."""

    row: str
    goal: Goal
    value: float
    low: float
    high: float
    references: dict[str, float]

    @property
    def verdict(self) -> str:
        """Said in one word."""
        return (
            "aim" if _inside(self.value, self.goal.aim) else "pass" if _inside(self.value, self.goal.must) else "MISSED"
        )


def main() -> None:
    """Measure what is asked for, print it, and say with the exit code whether all that must hold does."""
    asked = _arguments()
    reached: list[Reached] = []
    tables: dict[str, pd.DataFrame] = {}
    with TemporaryDirectory(prefix="regulars-goals-") as folder:
        known = Shops(Path(folder), asked.home, asked.retail_home)
        for row in ROWS:
            shop = getattr(known, row.shop) if asked.only in ("", row.part) else None
            if shop is not None:
                found = row.ask(shop)
                _say("\n".join(found.notes))
                tables[row.name] = found.table
                reached += [judged(row, goal, found.table) for goal in row.goals]
                if asked.out:
                    backtest.publish(found, Path(asked.out) / row.name.replace(", ", "-").replace(" ", "-"))
        behind = rules(known.wholesaler) if asked.only in ("", "retail") else []
    _write(reached, behind, tables, as_json=asked.json)
    missed = any(one.verdict == "MISSED" for one in reached) or any(not rule["holds"] for rule in behind)
    sys.stdout.flush()
    # DuckDB's binding writes of a lost lock when the interpreter takes it down; there is nothing left to lose.
    os._exit(int(missed))


def judged(row: Row, goal: Goal, table: pd.DataFrame) -> Reached:
    """Our figure, and everybody else's."""
    rows = table[(table["segment"] == "all") & (table["figure"] == goal.figure)].set_index("method")
    mine = {SERVED, *(plan.learner for plan in plans.PLANS)}
    ours = rows.loc[next(name for name in rows.index if name in mine)]
    others = rows.drop(index=str(ours.name))["value"].dropna()
    return Reached(row.name, goal, *(float(ours[name]) for name in ("value", "low", "high")), others.to_dict())


def rules(shop: Shop | None) -> list[dict[str, Any]]:
    """How far our lists are ahead of the plain rules on the wholesaler, with the same code and no setting changed."""
    if shop is None:
        return []
    table = backtest.recommender(shop, tell=_say).table
    return [_behind(table, rule, figure) for figure in ("recall_10", "ndcg_10") for rule in PLAIN_RULES]


def _behind(table: pd.DataFrame, rule: str, figure: str) -> dict[str, Any]:
    """One rule and figure: a tie counts as good, as it does when models are promoted."""
    everyone = table[(table["segment"] == "all") & (table["figure"] == figure)].set_index("method")
    row = everyone.loc[rule]
    ours = everyone.loc[plans.plan("recommender").learner]
    told = {"figure": figure, "rule": rule, "ours": float(ours["value"]), "theirs": float(row["value"])}
    told |= {name: float(row[name]) for name in ("ahead", "ahead_low", "ahead_high")}
    return told | {"holds": told["ahead"] >= -plans.TIE * told["theirs"]}


def _write(
    reached: list[Reached], behind: list[dict[str, Any]], tables: dict[str, pd.DataFrame], *, as_json: bool
) -> None:
    if as_json:
        told = {
            "goals": [asdict(one) | {"verdict": one.verdict} for one in reached],
            "wholesaler": behind,
            "tables": {name: backtest.records(table) for name, table in tables.items()},
        }
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return
    sys.stdout.write("\n".join([*_goals(reached), "", *_rules(behind)]) + "\n")


def _goals(reached: list[Reached]) -> list[str]:
    lines = [f"{'':34} {'':26} {'pass':>14} {'aim':>14}   ours (95 %)                      references, same run"]
    for one in reached:
        goal, others = one.goal, ", ".join(f"{name} {_number(value)}" for name, value in one.references.items())
        between = f"{_number(one.value)} ({_number(one.low)} to {_number(one.high)})"
        lines.append(
            f"{one.row:34} {goal.words:26} {_bounds(goal.must):>14} {_bounds(goal.aim):>14}   "
            f"{between:28} {one.verdict:7} {others}"
        )
    return lines if reached else []


def _rules(behind: list[dict[str, Any]]) -> list[str]:
    return [
        f"gift wholesaler, {rule['figure']}: {rule['ours']:.4f}, {rule['rule']} {rule['theirs']:.4f}; ahead by "
        f"{rule['ahead']:.4f} ({rule['ahead_low']:.4f} to {rule['ahead_high']:.4f}) "
        f"{'holds' if rule['holds'] else 'MISSED'}"
        for rule in behind
    ]


def _inside(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _bounds(bounds: tuple[float, float]) -> str:
    low, high = bounds
    if high == ANY:
        return f"from {low:g}"
    return f"up to {high:g}" if low == -ANY else f"{low:g} to {high:g}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="What must hold on two real shops, with references and intervals.")
    parser.add_argument("--home", metavar="FOLDER", help="a home with the Complete Journey; default: a fresh one")
    parser.add_argument("--retail-home", metavar="FOLDER", help="a home with Online Retail II; default: a fresh one")
    parser.add_argument("--only", default="", choices=["", *PARTS, "retail"], help="a part of it")
    parser.add_argument("--out", metavar="FOLDER", help="write each table, its pictures and its page here too")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
