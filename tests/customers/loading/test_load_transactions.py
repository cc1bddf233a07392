"""Sales load in batches of whole orders, however long the file, from any format with the same result."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from customers.ledger import transactions
from customers.loading import disk_space, load, load_transactions
from customers.loading.connectors import files
from customers.loading.load import LoadResult
from customers.shop.errors import ShopError
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]
Rows = Callable[..., list[tuple]]
STORED = """select order_id, line_id, order_key, product_key, sold_at, quantity, amount_minor, discount_minor, kind,
                   numbered, content from transactions order by 1, 2"""


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The order ids of each batch that the ledger gets, a batch being 2,048 lines and the rest of its last order."""
    monkeypatch.setattr(load_transactions, "BATCH_SIZE", 2_048)
    upsert, orders = transactions.upsert_lines, []

    def upsert_lines(connection: object, source: str, lines: pa.Table, *rest: object, **options: object) -> object:
        orders.append(lines.column("order_id").to_pylist())
        return upsert(connection, source, lines, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(transactions, "upsert_lines", upsert_lines)
    return orders


def write_orders(path: Path, orders: int, lines: int) -> Path:
    """Orders whose lines are spread over the whole file."""
    duckdb.sql(
        f"""copy (select 'o' || (i % {orders}) as order_id, 'c' || (i % 7) as customer_id, 'p' || i // {orders} as
                         product_id, '2017-11-01' as sold_at, 1 as quantity, 2 as amount
                  from range({orders * lines}) t(i)) to '{path}'"""
    )
    return path


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_batch_is_no_larger_for_a_longer_file(
    sqlite_shop: Shop, tmp_path: Path, batches: list[list[str]], factor: int, ending: str
) -> None:
    path = write_orders(tmp_path / f"lines.{ending}", orders=1_000 * factor, lines=5)
    assert load.load_files(sqlite_shop, "transactions", [path]).inserted == 5_000 * factor
    assert max(map(len, batches)) <= 2 * 2_048
    assert sum(len(set(batch)) for batch in batches) == 1_000 * factor


def test_an_order_larger_than_a_batch_is_one_batch(sqlite_shop: Shop, tmp_path: Path, batches: list[list[str]]) -> None:
    path = write_orders(tmp_path / "lines.csv", orders=2, lines=5_000)
    load.load_files(sqlite_shop, "transactions", [path])
    assert [len(batch) for batch in batches] == [5_000, 5_000]


def test_parquet_in_place_gives_the_ledger_and_the_rejects_of_csv(
    sqlite_shop: Shop, tmp_path: Path, fetch_rows: Rows
) -> None:
    """Returns, equal lines of one product, lines with and without ids, repeats, and rows that cannot be stored."""
    header = "order_id,line_id,customer_id,product_id,sold_at,quantity,amount,discount\n"
    rows = (
        "1,,anna,tea,2017-11-01T10:00Z,1,2.50,\n1,,anna,tea,2017-11-01T10:00Z,1,2.50,\n1,,anna,tea,2017-11-01T10:00Z,1,3,0.5\n"
        "2,a,ben,tea,2017-11-01T10:00Z,-1,2.50,\n2,a,ben,tea,2017-11-01T10:00Z,-1,2.50,\n2,b,,milk,2017-11-01,1,-0.005,\n"
        " 3 ,a,ben,tea,2017-11-01T10:00Z,1,1,\n3,b,ben,tea,yesterday,1,1,\n4,,ben,,2017-11-01,1,1,\n"
        "5,x,ben,tea,2017-11-02,1,1,\n5,x,ben,tea,2017-11-02,1,2,\n"
    )
    path = tmp_path / "lines.csv"
    path.write_text(header + rows)
    duckdb.sql(f"copy (from read_csv('{path}', all_varchar = true)) to '{tmp_path}/lines.parquet'")
    from_csv = load.load_files(sqlite_shop, "transactions", [path])
    stored, csv_rejects = fetch_rows(sqlite_shop, STORED), Path(from_csv.rejects_file or "").read_text()
    again = load.load_files(sqlite_shop, "transactions", [tmp_path / "lines.parquet"])
    assert (again.inserted, again.updated, again.removed) == (0, 0, 0)
    assert (again.read, again.rejected, again.reasons) == (from_csv.read, from_csv.rejected, from_csv.reasons)
    assert fetch_rows(sqlite_shop, STORED) == stored
    assert [line_id for order_id, line_id, *_ in stored if order_id == "1"] == ["~tea~1", "~tea~2", "~tea~3"]
    # A CSV file has a header line.
    rejected = [line.split(",")[1:] for line in csv_rejects.splitlines()[1:]]
    in_place = [line.split(",")[1:] for line in Path(again.rejects_file or "").read_text().splitlines()[1:]]
    assert [[str(int(line) - 1), *rest] for line, *rest in rejected] == in_place


def test_parquet_is_read_in_place(tmp_path: Path) -> None:
    path = write_orders(tmp_path / "lines.parquet", orders=3, lines=2)
    with files.read_files([path], required=("order_id",)) as records:
        assert records.connection.execute(
            "select table_type from information_schema.tables where table_name = 'raw'"
        ).fetchall() == [("VIEW",)]
        assert records.clean_columns == {"quantity", "amount"}
        assert records.count("raw") == 6


def test_rows_that_do_not_fit_in_memory_lie_in_the_home_and_leave_nothing(
    sqlite_shop: Shop, tmp_path: Path, fetch_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MEMORY_LIMIT", "48MB")
    path = write_orders(tmp_path / "lines.parquet", orders=20_000, lines=10)
    assert load.load_files(sqlite_shop, "transactions", [path]).inserted == 200_000
    assert fetch_rows(sqlite_shop, "select count(distinct order_key), sum(amount_minor) from transactions") == [
        (20_000, 200_000 * 200)
    ]
    assert list((sqlite_shop.home / disk_space.FOLDER).iterdir()) == []


def test_what_a_killed_load_left_on_disk_is_removed_by_the_next(sqlite_shop: Shop, load_lines: Load) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    folder = sqlite_shop.home / disk_space.FOLDER
    for name in (f"{ended.pid}-x", f"{os.getpid()}-y"):
        (folder / name).mkdir(parents=True)
    load_lines(sqlite_shop, "1,anna,tea,2017-11-01,1,1\n")
    assert [path.name for path in folder.iterdir()] == [f"{os.getpid()}-y"]


def test_a_damaged_parquet_file_is_refused_without_its_values(sqlite_shop: Shop, tmp_path: Path) -> None:
    path = write_orders(tmp_path / "lines.parquet", orders=3_000, lines=2)
    content = bytearray(path.read_bytes())
    content[200:600] = b"x" * 400
    path.write_bytes(content)
    with pytest.raises(ShopError, match="is it whole"):
        load.load_files(sqlite_shop, "transactions", [path])
