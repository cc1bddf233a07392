"""How the tables of a snapshot grow: with the shop and its cutoffs, and never with their product on every line."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features.engine import duckdb
from features.snapshots import point_in_time, snapshot

ZONE = "UTC"


def copies(records: dict[str, Any], count: int) -> dict[str, Any]:
    """The records of a shop with `count` times the customers, who buy the same; products stay the same."""

    def of_all(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            row | {"customer_key": row["customer_key"] + 1_000 * copy}
            | ({"order_key": row["order_key"] + copy} if "order_key" in row else {})
            for copy in range(count)
            for row in rows
        ]  # fmt: skip

    return {name: rows if name == "products" else of_all(rows) for name, rows in records.items()}


@pytest.fixture
def step_rows(ledger_kit, tmp_path: Path):
    """Rows of every table that the plan of a snapshot makes: step_rows(records, number of cutoffs)."""

    def count(records: dict[str, Any], n_cutoffs: int) -> dict[str, int]:
        ledger = ledger_kit.write_ledger(tmp_path / f"{len(records['lines'])}", **records)
        as_of = ledger_kit.at("2026-05-01 00:00")
        cutoffs = [duckdb.to_utc(as_of - timedelta(days=7 * n)) for n in range(n_cutoffs)]
        pairs = snapshot.customer_cutoff_pairs(None, as_of)
        con = duckdb.connect()
        tables = snapshot.build_cutoff_tables(as_of, cutoffs, cutoffs[:1], pairs, ZONE)
        snapshot.register_inputs(con, ledger, as_of, tables)
        plan = duckdb.compile_plan(point_in_time.batch_plan(ZONE))
        plan.run(con)
        rows = {name: con.con.sql(f"select count(*) from {name}").fetchall()[0][0] for name, _ in plan.steps}
        con.disconnect()
        return rows

    return count


def test_four_times_the_customers_make_four_times_the_rows_of_every_table(step_rows, ledger_kit):
    records = ledger_kit.random_records(customers=30)
    once, fourfold = step_rows(records, 3), step_rows(copies(records, 4), 3)
    by_products = {name for name in once if fourfold[name] == once[name]}
    assert len(by_products) <= 1  # the categories of the products
    assert {name: fourfold[name] for name in once if name not in by_products} == {
        name: 4 * rows for name, rows in once.items() if name not in by_products
    }


def test_more_cutoffs_add_rows_for_customers_and_none_for_lines(step_rows, ledger_kit):
    records = ledger_kit.random_records(customers=30)
    few, many = step_rows(records, 2), step_rows(records, 10)
    grown = [many[name] - few[name] for name in few if many[name] != few[name]]
    assert grown
    assert max(grown) <= 8 * 30  # a row for each customer and cutoff
