"""The Parquet mirror follows the ledger, month by month, and can always be rebuilt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from customers.loading.connectors import complete_journey
from customers.loading.load import LoadResult
from customers.parquet import columns, mirror
from customers.privacy import anonymisation
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]


def read_mirror(shop: Shop) -> dict[str, pa.Table]:
    folder = shop.ledger
    return {str(path.relative_to(folder)): pq.ParquetFile(path).read() for path in sorted(folder.rglob("*.parquet"))}


def test_only_months_that_changed_are_written(corner_shop: Shop, load_lines: Load) -> None:
    load_lines(corner_shop, "1,a,x,2017-10-01,1,1\n2,a,x,2017-11-01T10:00Z,1,2\n3,a,x,2017-12-01T10:00Z,1,3\n")
    assert mirror.refresh(corner_shop) == ["2017-09", "2017-11", "2017-12", "consents", "interactions", "products"]
    assert mirror.refresh(corner_shop) == []
    load_lines(corner_shop, "2,a,x,2017-11-01T10:00Z,1,9\n4,a,x,2018-01-01T10:00Z,1,1\n1,a,x,2017-10-01,1,1\n")
    assert mirror.refresh(corner_shop) == ["2017-11", "2018-01"]


def test_a_mirror_outside_the_home_has_the_same_files(corner_shop: Shop, load_lines: Load, tmp_path: Path) -> None:
    load_lines(corner_shop, "1,a,x,2017-11-01T10:00Z,1,2\n2,,x,2017-12-01T10:00Z,1,3\n")
    outside = replace(corner_shop, ledger_folder=tmp_path / "mount" / "ledger")
    assert mirror.refresh(outside) == ["2017-11", "2017-12", "consents", "interactions", "products"]
    assert mirror.refresh(outside) == []
    assert not list((corner_shop.home / "ledger").rglob("*.parquet"))
    mirror.refresh(corner_shop)
    assert read_mirror(outside) == read_mirror(corner_shop)


def test_an_erased_customer_is_removed_from_a_mirror_outside_the_home(
    corner_shop: Shop, load_lines: Load, tmp_path: Path
) -> None:
    load_lines(corner_shop, "1,a,x,2017-11-01T10:00Z,1,2\n2,b,x,2017-11-02T10:00Z,1,3\n")
    outside = replace(corner_shop, ledger_folder=tmp_path / "mount")
    mirror.refresh(outside)
    before = read_mirror(outside)["month=2017-11/part.parquet"]["customer_key"].to_pylist()
    anonymisation.anonymise_mirror(outside, before[:1])
    assert read_mirror(outside)["month=2017-11/part.parquet"]["customer_key"].to_pylist() == [None, before[1]]


def test_a_line_that_moves_to_another_month_changes_both(corner_shop: Shop, load_lines: Load) -> None:
    load_lines(corner_shop, "1,a,x,2017-10-02,1,1\n")
    mirror.refresh(corner_shop)
    load_lines(corner_shop, "1,a,x,2017-12-02,1,1\n")
    assert mirror.refresh(corner_shop) == ["2017-10", "2017-12"]
    superseded = {
        name: table["superseded_at"].null_count for name, table in read_mirror(corner_shop).items() if "month" in name
    }
    assert superseded == {"month=2017-10/part.parquet": 0, "month=2017-12/part.parquet": 1}


def test_its_columns_are_those_of_the_schema(corner_shop: Shop, load_lines: Load, load_text: Load) -> None:
    load_lines(corner_shop, "1,,x,2017-11-01T10:00Z,1,2.10\n")
    load_text(corner_shop, "products", "product_id,price,sensitive,brand\nx,1.99,yes,Hof\ny,,,\n")
    mirror.refresh(corner_shop)
    lines, products = (
        read_mirror(corner_shop)["month=2017-11/part.parquet"],
        read_mirror(corner_shop)["products.parquet"],
    )
    assert lines.schema.equals(columns.LINE_SCHEMA)
    assert products.schema.equals(columns.PRODUCT_SCHEMA)
    assert str(lines.schema.field("sold_at").type) == "timestamp[us, tz=UTC]"
    assert (lines["customer_key"].to_pylist(), lines["amount"].to_pylist()) == ([None], [2.1])
    assert products.select(["price", "sensitive", "brand"]).to_pylist() == [
        {"price": 1.99, "sensitive": True, "brand": "Hof"},
        {"price": None, "sensitive": False, "brand": None},
    ]


def test_amounts_in_another_currency_are_null(corner_shop: Shop, load_text: Load) -> None:
    header = "order_id,customer_id,product_id,sold_at,quantity,amount,discount,currency\n"
    load_text(
        corner_shop, "transactions", header + "1,a,x,2017-11-01T10:00Z,1,2,,EUR\n2,a,x,2017-11-02T10:00Z,1,3,1,USD\n"
    )
    mirror.refresh(corner_shop)
    lines = read_mirror(corner_shop)["month=2017-11/part.parquet"]
    assert (lines["amount"].to_pylist(), lines["discount"].to_pylist()) == ([2.0, None], [None, None])


def test_a_rebuilt_mirror_is_equal(corner_shop: Shop, load_lines: Load) -> None:
    load_lines(corner_shop, "1,a,x,2017-10-01,1,1\n1,a,y,2017-10-01,1,2\n2,b,x,2017-11-01,1,2\n")
    mirror.refresh(corner_shop)
    load_lines(corner_shop, "1,a,x,2017-10-01,1,5\n2,b,x,2017-11-01,1,2\n")
    mirror.refresh(corner_shop)
    before = read_mirror(corner_shop)
    mirror.rebuild(corner_shop)
    assert read_mirror(corner_shop) == before


def test_a_file_that_was_lost_is_written_again(corner_shop: Shop, load_lines: Load) -> None:
    load_lines(corner_shop, "1,a,x,2017-11-02,1,1\n")
    mirror.refresh(corner_shop)
    (corner_shop.home / "ledger" / "month=2017-11" / "part.parquet").unlink()
    assert mirror.refresh(corner_shop) == ["2017-11"]


def test_a_month_that_became_empty_leaves_no_file(corner_shop: Shop, load_lines: Load) -> None:
    """Only an erasure empties a month: a superseded version stays in its own month."""
    from customers.database import change_counters, engine, schema

    load_lines(corner_shop, "1,a,x,2017-11-02,1,1\n")
    mirror.refresh(corner_shop)
    with engine.write_transaction(corner_shop) as connection:
        connection.execute(schema.transactions.delete())
        change_counters.increment_counters(connection, {"2017-11"})
    mirror.refresh(corner_shop)
    assert list(read_mirror(corner_shop)) == ["consents.parquet", "interactions.parquet", "products.parquet"]


def test_two_homes_of_one_database_mirror_it_each_for_itself(
    corner_shop: Shop, load_lines: Load, tmp_path: Path
) -> None:
    load_lines(corner_shop, "1,a,x,2017-11-02,1,1\n")
    other = replace(corner_shop, home=tmp_path / "other")
    assert mirror.refresh(corner_shop) == mirror.refresh(other)
    load_lines(corner_shop, "2,b,x,2017-11-03,1,1\n")
    assert mirror.refresh(other) == ["2017-11", "consents"]
    assert mirror.refresh(corner_shop) == ["2017-11", "consents"]
    assert read_mirror(other) == read_mirror(corner_shop)


def test_an_empty_shop_has_a_catalogue_and_no_months(corner_shop: Shop) -> None:
    assert mirror.refresh(corner_shop) == ["consents", "interactions", "products"]
    assert read_mirror(corner_shop)["products.parquet"].num_rows == 0


def test_the_complete_journey_is_written_as_records(tmp_path: Path) -> None:
    complete_journey.write_files(tmp_path)
    count = "select count(*), count(distinct customer_id) from '{}'"
    assert duckdb.sql(count.format(tmp_path / "customers.parquet")).fetchall() == [(801, 801)]
    assert duckdb.sql(count.format(tmp_path / "transactions.parquet")).fetchall() == [(1_469_307, 2_469)]
    unlisted = f"""select count(*) from '{tmp_path}/transactions.parquet'
                  where product_id not in (select product_id from '{tmp_path}/products.parquet')"""
    assert duckdb.sql(unlisted).fetchall() == [(4_836,)]
    zero_quantity = f"select count(*) from '{tmp_path}/transactions.parquet' where quantity = 0"
    assert duckdb.sql(zero_quantity).fetchall() == [(8_869,)]
    first = f"select typeof(sold_at), min(epoch(sold_at)) from '{tmp_path}/transactions.parquet' group by 1"
    # 2017-01-01 11:53:26 UTC
    assert duckdb.sql(first).fetchall() == [("TIMESTAMP WITH TIME ZONE", 1_483_271_606)]


def test_a_month_is_written_in_batches_however_many_lines_it_has(
    corner_shop: Shop, load_lines: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One customer with most lines of the shop, all in one month; the content is that of one batch."""
    load_lines(corner_shop, "".join(f"{n},anna,p{n % 3},2017-11-{1 + n % 9:02},1,{n}\n" for n in range(40)))
    mirror.refresh(corner_shop)
    name = "month=2017-11/part.parquet"
    whole = read_mirror(corner_shop)[name]
    monkeypatch.setattr(columns, "BATCH_SIZE", 7)
    mirror.rebuild(corner_shop)
    metadata = pq.ParquetFile(corner_shop.home / "ledger" / name).metadata
    assert max(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)) == 7
    assert read_mirror(corner_shop)[name].equals(whole)
