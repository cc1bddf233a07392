"""Loading files: valid rows are stored, invalid ones rejected with a reason, and a load can be repeated."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from customers import setup
from customers.catalogue import products
from customers.loading import load
from customers.loading.load import LoadResult
from customers.people import lookup
from customers.shop import settings, timestamps
from customers.shop.errors import ShopError
from customers.shop.settings import Shop

LINES = "order_id,customer_id,product_id,sold_at,quantity,amount\n"
Load = Callable[..., LoadResult]
Rows = Callable[..., list[tuple]]


def load_counts(loaded: LoadResult) -> tuple[int, int, int, int]:
    return loaded.inserted, loaded.updated, loaded.unchanged, loaded.rejected


def read_rejects(loaded: LoadResult) -> list[dict[str, str]]:
    assert loaded.rejects_file
    with open(loaded.rejects_file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_two_sales_are_two_lines(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    loaded = load_lines(
        corner_shop, "1,anna,bread,2017-11-01T10:00:00Z,1,2.50\n2,ben,milk,2017-11-01T11:00:00Z,2,1.98\n"
    )
    assert load_counts(loaded) == (2, 0, 0, 0)
    assert loaded.stubs == 2
    assert fetch_rows(corner_shop, "select order_id, amount_minor, currency from transactions order by 1") == [
        ("1", 250, "EUR"),
        ("2", 198, "EUR"),
    ]


def test_loading_twice_changes_nothing(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    bread = "1,anna,bread,2017-11-01T10:00:00Z,1,2.50\n"
    lines = bread + bread + "1,anna,milk,2017-11-01T10:00:00Z,1,1\n"
    assert load_counts(load_lines(corner_shop, lines)) == (3, 0, 0, 0)
    before = fetch_rows(corner_shop, "select * from transactions order by order_id, line_id")
    assert load_counts(load_lines(corner_shop, lines)) == (0, 0, 3, 0)
    assert fetch_rows(corner_shop, "select * from transactions order by order_id, line_id") == before


def test_a_dry_run_counts_and_stores_nothing(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    assert load_counts(load_lines(corner_shop, "1,anna,bread,2017-11-01,1,2.50\n", dry_run=True)) == (1, 0, 0, 0)
    assert fetch_rows(corner_shop, "select count(*) from transactions") == [(0,)]
    assert fetch_rows(corner_shop, "select count(*) from customers") == [(0,)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("9,anna,bread,2017-11-01,one,2.50", "quantity is not a number"),
        ("9,anna,bread,2017-11-01,1,NaN", "amount is not an amount"),
        ("9,anna,bread,2017-11-01,inf,1", "quantity is not a number"),
        ("9,anna,bread,2017-11-01,,1", "quantity is empty"),
        ("9,anna,bread,2017-13-01,1,1", "sold_at is not an ISO 8601 time"),
        ("9,anna,bread,yesterday,1,1", "sold_at is not an ISO 8601 time"),
        ("9,anna,bread,infinity,1,1", "sold_at is not an ISO 8601 time"),
        ("9,anna,bread,2199-01-01,1,1", "sold_at is in the future"),
        ("9,anna,bread,1917-01-01,1,1", "sold_at is before 1970"),
        (",anna,bread,2017-11-01,1,1", "order_id is empty"),
        ("9,anna, ,2017-11-01,1,1", "product_id is empty"),
        ("9,anna,bread,2017-11-01,1", "fewer columns than the header"),
        ("9,anna,bread,2017-11-01,1,1,1", "more columns than the header"),
    ],
)
def test_an_invalid_line_is_rejected_and_the_others_are_stored(
    corner_shop: Shop, load_lines: Load, line: str, reason: str
) -> None:
    loaded = load_lines(corner_shop, f"1,anna,bread,2017-11-01,1,2.50\n{line}\n2,ben,milk,2017-11-01,1,1\n")
    assert load_counts(loaded) == (2, 0, 0, 1)
    assert loaded.reasons == {reason: 1}
    assert [(row["line"], row["reason"]) for row in read_rejects(loaded)] == [("3", reason)]


def test_the_rejects_file_numbers_lines_past_broken_and_multiline_ones(corner_shop: Shop, load_lines: Load) -> None:
    lines = (
        '1,"anna\nmaria",bread,2017-11-01,1,1\n'  # lines 2 and 3
        "2,ben,bread\n"  # line 4: broken
        "3,ben,bread,2017-11-01,x,1\n"  # line 5: bad
        "4,ben,bread,2017-11-01,1,1\n"
        "5,ben,bread,2017-11-01,1,x\n"  # line 7: bad
    )
    assert [row["line"] for row in read_rejects(load_lines(corner_shop, lines))] == ["4", "5", "7"]


def test_a_file_of_only_invalid_lines_is_reported_as_all_rejected(corner_shop: Shop, load_lines: Load) -> None:
    loaded = load_lines(corner_shop, "1,anna,bread,2017-11-01,1,x\n2,anna,bread,2017-11-01,1,y\n")
    assert loaded.is_all_rejected
    assert load_counts(loaded) == (0, 0, 0, 2)


def test_unknown_kinds_channels_and_currencies_are_rejected(corner_shop: Shop, load_text: Load) -> None:
    header = LINES.strip() + ",kind,channel,currency\n"
    loaded = load_text(
        corner_shop,
        "transactions",
        header
        + "1,a,bread,2017-11-01,1,1,gift,store,EUR\n"
        + "2,a,bread,2017-11-01,1,1,SALE,pigeon,EUR\n"
        + "3,a,bread,2017-11-01,1,1,sale,web,BTC\n"
        + "4,a,bread,2017-11-01,1,1,return,Web,usd\n",
    )
    assert load_counts(loaded) == (1, 0, 0, 3)
    assert [row["order_id"] for row in read_rejects(loaded)] == ["1", "2", "3"]


def test_a_quantity_of_zero_is_a_sale_and_a_negative_one_a_return(
    corner_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(
        corner_shop, "1,a,x,2017-11-01,0,0\n2,a,x,2017-11-01,-1,2.5\n3,a,x,2017-11-01,1,-2.5\n4,a,x,2017-11-01,1,2.5\n"
    )
    assert fetch_rows(corner_shop, "select kind, quantity, amount_minor from transactions order by order_id") == [
        ("sale", 0, 0),
        ("return", -1, -250),
        ("return", -1, -250),
        ("sale", 1, 250),
    ]


def test_cents_are_rounded_half_to_even(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    amounts = ["0.005", "0.015", "0.025", "2.675", "1e1", "0.0150001", "-0.005", "-0.015"]
    load_lines(corner_shop, "".join(f"{n},a,x,2017-11-01,1,{amount}\n" for n, amount in enumerate(amounts)))
    rows = fetch_rows(corner_shop, "select amount_minor from transactions order by order_id")
    assert [minor for (minor,) in rows] == [0, 2, 2, 268, 1000, 2, 0, -2]


def test_yen_have_no_decimals_and_dinars_three(corner_shop: Shop, load_text: Load, fetch_rows: Rows) -> None:
    header = LINES.strip() + ",currency\n"
    load_text(corner_shop, "transactions", header + "1,a,x,2017-11-01,1,250,JPY\n2,a,x,2017-11-01,1,1.234,kwd\n")
    assert fetch_rows(corner_shop, "select amount_minor, currency from transactions order by order_id") == [
        (250, "JPY"),
        (1234, "KWD"),
    ]


def test_a_sale_without_a_customer_is_stored(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(corner_shop, "1,,bread,2017-11-01,1,1\n")
    assert fetch_rows(corner_shop, "select customer_key from transactions") == [(None,)]
    assert fetch_rows(corner_shop, "select count(*) from customers") == [(0,)]


def test_times_without_an_offset_are_in_the_shops_zone(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    """In Berlin summer time ended on 29 October 2017 at 01:00 UTC."""
    times = {
        "2017-10-28T12:00:00": "2017-10-28 10:00:00",
        "2017-10-30 12:00": "2017-10-30 11:00:00",
        "2017-10-30": "2017-10-29 23:00:00",
        "2017-10-30T12:00:00Z": "2017-10-30 12:00:00",
        "2017-10-30T12:00:00+08:00": "2017-10-30 04:00:00",
        "2017-10-30T12:00:00.250-0500": "2017-10-30 17:00:00",
    }
    load_lines(corner_shop, "".join(f"{n},a,x,{time},1,1\n" for n, time in enumerate(times)))
    stored = [at for (at,) in fetch_rows(corner_shop, "select sold_at from transactions order by order_id")]
    assert [f"{timestamps.from_micros(at):%Y-%m-%d %H:%M:%S}" for at in stored] == list(times.values())


def test_missing_columns_are_named_with_those_present(corner_shop: Shop, load_text: Load) -> None:
    with pytest.raises(ShopError, match=r"no column order_id, quantity; it has Order No, product_id, sold_at, amount"):
        load_text(corner_shop, "transactions", "Order No,product_id,sold_at,amount\n1,x,2017-11-01,1\n")


def test_a_mapping_gives_the_column_of_each_field(corner_shop: Shop, load_text: Load) -> None:
    text = "Bon;Artikel;Zeit;Menge;Summe\n1;Brot;2017-11-01;1;2.50\n"
    mapping = {"order_id": "Bon", "product_id": "Artikel", "sold_at": "Zeit", "quantity": "Menge", "amount": "Summe"}
    assert load_counts(load_text(corner_shop, "transactions", text, mapping=mapping)) == (1, 0, 0, 0)
    with pytest.raises(ShopError, match="does not have"):
        load_text(corner_shop, "transactions", text, mapping={"order_id": "Beleg"})


@pytest.mark.parametrize("text", ["", LINES, "\n"])
def test_an_empty_file_is_refused(corner_shop: Shop, load_text: Load, text: str) -> None:
    with pytest.raises(ShopError, match=r"no rows in|no column"):
        load_text(corner_shop, "transactions", text)


def test_unknown_kinds_and_files_are_named(corner_shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(ShopError, match="unknown kind of record 'visits'"):
        load.load_files(corner_shop, "visits", [tmp_path])
    with pytest.raises(ShopError, match="no such file"):
        load.load_files(corner_shop, "products", [tmp_path / "nothing.csv"])
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(ShopError, match="not a kind of file"):
        load.load_files(corner_shop, "products", [tmp_path / "a.pdf"])


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx", "a.csv.gz", "a.csv.zst", "a.parquet.gz"])
def test_a_file_of_another_format_than_its_name_is_refused_without_its_content(
    corner_shop: Shop, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("product_id,name\n1,王小明\n")
    with pytest.raises(ShopError) as refused:
        load.load_files(corner_shop, "products", [tmp_path / name])
    assert name in str(refused.value)
    assert "王小明" not in str(refused.value)


def test_every_file_format_loads_the_same_rows(tmp_path: Path, fetch_rows: Rows) -> None:
    header, *lines = [["product_id", "name", "price"], ["1", "Brot, dunkel", "2.5"], ["2", "牛奶", "1.05"]]
    text = '\ufeffproduct_id,name,price\n1,"Brot, dunkel",2.5\n2,牛奶,1.05\n'
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.csv").write_text(text, encoding="utf-8")
    (folder / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "c.csv.zst").write_bytes(pa.compress(text.encode(), codec="zstd", asbytes=True))
    objects = "\n".join(json.dumps(dict(zip(header, line, strict=True))) for line in lines)
    (folder / "d.ndjson").write_text(objects + "\n\n", encoding="utf-8")
    typed = pa.table({"product_id": [1, 2], "name": ["Brot, dunkel", "牛奶"], "price": [2.5, 1.05]})
    pq.write_table(typed, folder / "e.parquet")
    workbook = openpyxl.Workbook()
    for line in (header, [1, "Brot, dunkel", 2.5], [None, None, None], [2, "牛奶", 1.05]):
        workbook.active.append(line)
    workbook.save(folder / "f.xlsx")
    contents = []
    for path in sorted(folder.iterdir()):
        shop = setup.init_home(tmp_path / path.name)
        assert load_counts(load.load_files(shop, "products", [path])) == (2, 0, 0, 0), path.name
        contents.append(
            fetch_rows(shop, "select product_id, name, price_minor, currency, content from products order by 1")
        )
    assert all(content == contents[0] for content in contents)
    assert contents[0][1][:4] == ("2", "牛奶", 105, "EUR")
    everything = setup.init_home(tmp_path / "everything")
    assert load_counts(load.load_files(everything, "products", [folder])) == (2, 0, 10, 0)


def test_lines_of_ndjson_that_are_no_objects_are_rejected(corner_shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "p.ndjson"
    path.write_text('{"product_id": "1", "colour": "red"}\nnonsense\n[1]\n{"product_id": 2}\n')
    loaded = load.load_files(corner_shop, "products", [path])
    assert load_counts(loaded) == (2, 0, 0, 2)
    assert [row["line"] for row in read_rejects(loaded)] == ["2", "3"]


def test_the_last_of_several_rows_with_one_id_is_stored(corner_shop: Shop, load_text: Load, fetch_rows: Rows) -> None:
    loaded = load_text(corner_shop, "products", "product_id,name\n1,Brot\n1,Brötchen\n2,Milch\n2,Milch\n")
    assert load_counts(loaded) == (2, 0, 1, 1)
    assert read_rejects(loaded)[0]["line"] == "2"
    assert fetch_rows(corner_shop, "select name from products order by product_id") == [("Brötchen",), ("Milch",)]


def test_products_keep_the_fields_that_a_file_does_not_have(
    corner_shop: Shop, load_text: Load, fetch_rows: Rows
) -> None:
    load_text(corner_shop, "products", "product_id,name,price,colour\n1,Brot,2.50,dark\n2,Milch,1,\n")
    assert load_counts(load_text(corner_shop, "products", "product_id,stock\n1,7\n2,\n")) == (0, 1, 1, 0)
    assert fetch_rows(corner_shop, "select name, price_minor, stock, attributes from products order by product_id") == [
        ("Brot", 250, 7, '{"colour":"dark"}'),
        ("Milch", 100, None, None),
    ]


def test_a_stub_becomes_a_product(corner_shop: Shop, load_text: Load, load_lines: Load) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    key = products.find_keys(corner_shop, ["bread"])["bread"]
    assert load_counts(load_text(corner_shop, "products", "product_id,name\nbread,Brot\n")) == (0, 1, 0, 0)
    assert products.find_keys(corner_shop, ["bread"]) == {"bread": key}
    assert products.load_display_names(corner_shop, [key]) == {key: "Brot"}


def test_a_negative_price_and_an_unknown_repurchase_rule_are_rejected(corner_shop: Shop, load_text: Load) -> None:
    loaded = load_text(
        corner_shop, "products", "product_id,price,repurchase\n1,-1,always\n2,1,sometimes\n3,1,after_days:30\n"
    )
    assert loaded.reasons == {
        "price is negative": 1,
        "repurchase is none of never, after_days:N, always": 1,
    }


def test_keys_rise_in_the_order_of_ids_whatever_the_order_of_lines(corner_shop: Shop, load_lines: Load) -> None:
    load_lines(corner_shop, "3,cora,x,2017-11-03,1,1\n1,anna,y,2017-11-01,1,1\n2,ben,x,2017-11-02,1,1\n")
    keys = lookup.find_keys(corner_shop, ["anna", "ben", "cora"])
    assert keys["anna"] < keys["ben"] < keys["cora"] < 2**53


CHILD = """
import sys
from pathlib import Path
from customers.loading import load, load_transactions
from customers.shop import settings
load_transactions.BATCH_SIZE = 50
print("loading", flush=True)
load.load_files(settings.open_shop(Path(sys.argv[1])), "transactions", [sys.argv[2]])
"""


@pytest.mark.acceptance
def test_a_killed_load_leaves_whole_orders_and_can_be_finished(
    corner_shop: Shop, tmp_path: Path, fetch_rows: Rows
) -> None:
    """Killed three times, each time once it has got further than before."""
    path = tmp_path / "lines.csv"
    orders, per_order = 1_200, 5
    path.write_text(
        LINES
        + "".join(f"{n:05},c{n % 50},p{line},2017-11-01,1,1\n" for n in range(orders) for line in range(per_order))
    )
    reached = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(corner_shop.home), str(path)], cwd=Path(settings.__file__).parents[2]
        )
        while child.poll() is None and _count_lines(fetch_rows, corner_shop) <= reached + 200:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        reached = _count_lines(fetch_rows, corner_shop)
        partial_orders = fetch_rows(
            corner_shop, f"select order_id from transactions group by 1 having count(*) <> {per_order}"
        )
        assert partial_orders == []
    assert 0 < reached < orders * per_order
    finished = load.load_files(corner_shop, "transactions", [path])
    assert finished.inserted + finished.unchanged == orders * per_order
    assert finished.unchanged == reached
    if corner_shop.database_url.startswith("sqlite"):
        assert fetch_rows(corner_shop, "pragma integrity_check") == [("ok",)]
    assert fetch_rows(corner_shop, "select count(*), sum(amount_minor) from transactions") == [(6_000, 600_000)]


def _count_lines(fetch_rows: Rows, shop: Shop) -> int:
    return int(fetch_rows(shop, "select count(*) from transactions")[0][0])
