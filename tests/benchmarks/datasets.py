"""The two real data sets of the benchmarks: a grocer's year of households, and a gift wholesaler never tuned for.

The grocer is the Complete Journey; the wholesaler is Online Retail II, read from the path in REGULARS_ONLINE_RETAIL.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import duckdb

from customers import setup
from customers.loading.connectors import complete_journey
from customers.shop.settings import Shop
from pipelines import demo, operations

RETAIL_VARIABLE = "REGULARS_ONLINE_RETAIL"

ProgressCallback = Callable[[str], None]


def load_grocer(folder: Path, progress: ProgressCallback) -> Shop:
    """A home with a year of a real grocer's records, before its first nightly run."""
    shop = setup.init_home(folder / "grocer", timezone=complete_journey.TIMEZONE, currency="USD", now="last-sale")
    complete_journey.write_files(folder / "records")
    for kind in demo.LOAD_ORDER:
        progress(f"{kind} ...")
        operations.load_records(shop, kind, [folder / "records" / f"{kind}.parquet"], source="files")
    return shop


def load_wholesaler(folder: Path, progress: ProgressCallback) -> Shop | None:
    """A home with two years of a real wholesaler's invoices; None where its file is missing."""
    source_file = os.environ.get(RETAIL_VARIABLE)
    if not source_file or not Path(source_file).exists():
        progress(f"the gift wholesaler is left out: set {RETAIL_VARIABLE} to the path of online_retail_ii.parquet")
        return None
    shop = setup.init_home(folder / "wholesaler", timezone="Europe/London", currency="GBP", now="last-sale")
    for kind, path in _retail_records(Path(source_file), folder).items():
        operations.load_records(shop, kind, [path], source="files")
    return shop


def _retail_records(source_file: Path, folder: Path) -> dict[str, Path]:
    """Write the invoice lines as records to load, without postage, fees and manual lines; paths by kind of record."""
    paths = {kind: folder / f"{kind}-retail.parquet" for kind in ("products", "transactions")}
    with duckdb.connect() as con:
        con.execute(f"create view lines as select * from '{source_file}' where not is_adjust")
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
