"""Goals: what recommendations and offers must reach on a real grocer, beside named rivals measured in the same run.

Run it with `make goals`. The grocer is the Complete Journey as of 2017-12-04: products bought on ten household-days
before, customers with three trips before and one in the four weeks after; lists are judged on those four weeks, and
on the first trip in them. Offers are those of the campaigns from 2017-10-30 on. The models are made from what was
known at those moments and never saw what they are judged on. It exits with 1 where a figure that must hold does not.
With REGULARS_ONLINE_RETAIL=PATH/online_retail_ii.parquet, a gift wholesaler that no setting was made for follows.
"""

from __future__ import annotations

import os

# As in the command: two cores that are not fought over, set before numpy is loaded.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", OPENBLAS_NUM_THREADS="1", DO_NOT_TRACK="true")

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pandas as pd

from customers import clock
from customers import shop as shops
from customers.shop import Shop
from customers.sources import complete_journey
from pipelines import backtest, demo, steps
from training import plans
from training.exams import Terms

CUTOFF, CAMPAIGNS = "2017-12-04", "2017-10-30"
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
RETAIL = "REGULARS_ONLINE_RETAIL"
#: Who must not be ahead on a shop that nobody tuned for.
PLAIN_RULES = ("decayed frequency", "popularity, lately", "popularity, ever")


@dataclass(frozen=True)
class Goal:
    """One figure that must be reached, and what it would be good to reach."""

    row: str
    figure: str
    words: str
    least: float
    aim: float


LISTS = (
    Goal("next 28 days", "recall_10", "Recall@10", 0.119, 0.125),
    Goal("next 28 days", "ndcg_10", "NDCG@10 (capped)", 0.427, 0.445),
    Goal("next 28 days, new", "new_hit_rate_10", "a hit in 10", 0.33, 0.36),
    Goal("next trip", "trip_recall_10", "Recall@10", 0.165, 0.172),
    Goal("next trip", "trip_ndcg_full_10", "NDCG@10", 0.175, 0.182),
    Goal("next trip", "trip_recall_20", "Recall@20", 0.225, 0.240),
)
OFFERS = (
    Goal("offers", "map", "MAP", 0.41, 0.44),
    Goal("offers", "ndcg_10", "NDCG@10 (capped)", 0.50, 0.53),
    Goal("offers", "auc", "AUC, all pairs", 0.935, 0.945),
)


@dataclass(frozen=True)
class Reached:
    """What came of a goal: ours with its 95 % interval, the references, and whether it must be better."""

    goal: Goal
    value: float
    low: float
    high: float
    references: dict[str, float]

    @property
    def verdict(self) -> str:
        """Said in one word."""
        return "MISSED" if self.value < self.goal.least else "aim" if self.value >= self.goal.aim else "pass"


def main() -> None:
    """Measure what is asked for, print it, and say with the exit code whether all that must hold does."""
    asked = _arguments()
    with TemporaryDirectory(prefix="regulars-goals-") as folder:
        reached, tables = [], {}
        if asked.only in ("", "lists", "offers"):
            shop = shops.open(asked.home) if asked.home else grocer(Path(folder))
            for name, (goals, tables[name]) in measured(shop, asked.only).items():
                reached += [judged(goal, tables[name]) for goal in goals]
        behind = wholesaler(Path(folder)) if asked.only in ("", "retail") else []
    _write(reached, behind, tables, asked)
    missed = any(one.verdict == "MISSED" for one in reached) or any(not row["holds"] for row in behind)
    sys.stdout.flush()
    # DuckDB's binding writes of a lost lock when the interpreter takes it down; there is nothing left to lose.
    os._exit(int(missed))


def grocer(folder: Path) -> Shop:
    """A home with a year of a real grocer's records, and no night yet."""
    shop = shops.init(folder / "grocer", timezone=complete_journey.TIMEZONE, currency="USD", now="last-sale")
    complete_journey.write(folder / "records")
    for kind in demo.KINDS:
        _say(f"{kind} ...")
        steps.ingest(shop, kind, [folder / "records" / f"{kind}.parquet"], source="files")
    return shop


def measured(shop: Shop, only: str) -> dict[str, tuple[Sequence[Goal], pd.DataFrame]]:
    """The goals and the table they are read from, for lists and offers."""
    found: dict[str, tuple[Sequence[Goal], pd.DataFrame]] = {}
    if only != "offers":
        moments = [clock.moment(shop, CUTOFF)]
        lists = backtest.recommender(shop, at=moments, terms=TERMS, ceiling=CANDIDATES, tell=_say)
        _say("\n".join(lists.notes))
        found["lists"] = LISTS, lists.table
    if only != "lists":
        offers = backtest.offers(shop, at=[clock.moment(shop, CAMPAIGNS)], tell=_say)
        _say("\n".join(offers.notes))
        found["offers"] = OFFERS, offers.table
    return found


def judged(goal: Goal, table: pd.DataFrame) -> Reached:
    """Our figure, and everybody else's."""
    rows = table[(table["segment"] == "all") & (table["figure"] == goal.figure)].set_index("method")
    ours = rows.loc[next(name for name in rows.index if name in {plan.learner for plan in plans.PLANS})]
    others = rows.drop(index=str(ours.name))["value"].dropna().sort_values(ascending=False)
    return Reached(goal, *(float(ours[name]) for name in ("value", "low", "high")), others.to_dict())


def wholesaler(folder: Path) -> list[dict[str, Any]]:
    """How far we are ahead of the plain rules on a gift wholesaler, with the same code and no setting changed."""
    place = os.environ.get(RETAIL)
    if not place or not Path(place).exists():
        _say(f"the gift wholesaler is left out: set {RETAIL} to the path of online_retail_ii.parquet")
        return []
    shop = shops.init(folder / "wholesaler", timezone="Europe/London", currency="GBP", now="last-sale")
    for kind, path in retail_records(Path(place), folder).items():
        steps.ingest(shop, kind, [path], source="files")
    table = backtest.recommender(shop, tell=_say).table
    return [behind(table, rule, figure) for figure in ("recall_10", "ndcg_10") for rule in PLAIN_RULES]


def retail_records(place: Path, folder: Path) -> dict[str, Path]:
    """Its lines as records to load; postage, fees and manual lines are no products."""
    paths = {kind: folder / f"{kind}-retail.parquet" for kind in ("products", "transactions")}
    with duckdb.connect() as con:
        con.execute(f"create view lines as select * from '{place}' where not is_adjust")
        con.execute(
            f"""copy (select stock_code as product_id, any_value(description) as name from lines group by all
                order by 1) to '{paths["products"]}'"""
        )
        con.execute(
            f"""copy (select invoice as order_id, (row_number() over (partition by invoice order by stock_code,
                        quantity, price, dup_rank))::varchar as line_id, customer_id::varchar as customer_id,
                        stock_code as product_id, strftime(ts, '%Y-%m-%dT%H:%M:%S') as sold_at, quantity,
                        round(amount, 2) as amount from lines order by ts, invoice)
                to '{paths["transactions"]}'"""
        )
    return paths


def behind(table: pd.DataFrame, rule: str, figure: str) -> dict[str, Any]:
    """One rule and figure: a tie counts as good, as it does when models are promoted."""
    everyone = table[(table["segment"] == "all") & (table["figure"] == figure)].set_index("method")
    row = everyone.loc[rule]
    ours = everyone.loc[plans.plan("recommender").learner]
    told = {"figure": figure, "rule": rule, "ours": float(ours["value"]), "theirs": float(row["value"])}
    told |= {name: float(row[name]) for name in ("ahead", "ahead_low", "ahead_high")}
    return told | {"holds": told["ahead"] >= -plans.TIE * told["theirs"]}


def _write(reached: list[Reached], rows: list[dict[str, Any]], tables: dict[str, pd.DataFrame], asked: Any) -> None:
    if asked.json:
        told = {
            "goals": [asdict(one) | {"verdict": one.verdict} for one in reached],
            "wholesaler": rows,
            "tables": {name: backtest.records(table) for name, table in tables.items()},
        }
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return
    sys.stdout.write("\n".join([*_goals(reached), "", *_rules(rows)]) + "\n")


def _goals(reached: list[Reached]) -> list[str]:
    lines = [f"{'':18} {'':18} {'pass':>6} {'aim':>6}   ours (95 %)                      references, same run"]
    for one in reached:
        goal, others = one.goal, ", ".join(f"{name} {value:.4f}" for name, value in one.references.items())
        lines.append(
            f"{goal.row:18} {goal.words:18} {goal.least:6.3f} {goal.aim:6.3f}   "
            f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f}) {one.verdict:7} {others}"
        )
    return lines if reached else []


def _rules(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"gift wholesaler, {row['figure']}: {row['ours']:.4f}, {row['rule']} {row['theirs']:.4f}; ahead by "
        f"{row['ahead']:.4f} ({row['ahead_low']:.4f} to {row['ahead_high']:.4f}) "
        f"{'holds' if row['holds'] else 'MISSED'}"
        for row in rows
    ]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="What must hold on a real grocer, with references and intervals.")
    parser.add_argument("--home", metavar="FOLDER", help="a home with the Complete Journey; default: a fresh one")
    parser.add_argument("--only", default="", choices=["", "lists", "offers", "retail"], help="a part of it")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
