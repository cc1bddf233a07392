"""An order is one unit, and what was known of it on a day stays what was known that day."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from customers import clock, setup
from customers.ledger import watermark
from customers.loading.load import LoadResult
from customers.parquet import mirror
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros, to_micros

HEADER = "order_id,line_id,customer_id,product_id,sold_at,quantity,amount\n"
Load = Callable[..., LoadResult]
Rows = Callable[..., list[tuple]]


def told(loaded: LoadResult) -> tuple[int, int, int, int]:
    return loaded.inserted, loaded.updated, loaded.unchanged, loaded.removed


def seen(where: Shop, as_of: datetime) -> list[tuple]:
    """The lines that a run as of this moment sees, from the mirror."""
    mirror.refresh(where)
    at = to_micros(as_of)
    return (
        duckdb.connect()
        .execute(
            f"""select amount from '{where.home}/ledger/month=*/part.parquet'
            where epoch_us(sold_at) < {at} and epoch_us(known_at) < {at}
              and (superseded_at is null or epoch_us(superseded_at) >= {at}) order by amount"""
        )
        .fetchall()
    )


def test_a_changed_line_is_a_new_version_and_the_old_one_stays(
    corner_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(corner_shop, "1,anna,bread,2017-11-01,1,2.50\n")
    before = to_micros(datetime.now(UTC))
    assert told(load_lines(corner_shop, "1,anna,bread,2017-11-01,1,3.50\n")) == (0, 1, 0, 0)
    [(amount, known_at)] = fetch_rows(corner_shop, "select amount_minor, known_at from transactions")
    history = fetch_rows(corner_shop, "select amount_minor, known_at, superseded_at from transactions_history")
    sold_at = to_micros(clock.parse_time(corner_shop, "2017-11-01"))
    assert amount == 350
    assert known_at >= before
    assert history == [(250, sold_at, known_at)]


def test_without_line_ids_the_lines_of_a_load_are_the_whole_order(
    corner_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(
        corner_shop,
        "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,2\n1,a,milk,2017-11-01,1,3\n2,a,tea,2017-11-01,1,4\n",
    )
    assert told(load_lines(corner_shop, "1,a,milk,2017-11-01,1,2\n1,a,eggs,2017-11-01,1,5\n")) == (1, 0, 1, 2)
    kept = "select amount_minor from transactions order by 1"
    assert fetch_rows(corner_shop, kept) == [(200,), (400,), (500,)]
    assert fetch_rows(corner_shop, "select amount_minor from transactions_history order by 1") == [(100,), (300,)]


def test_with_line_ids_lines_are_matched_one_by_one(corner_shop: Shop, load_text: Load, fetch_rows: Rows) -> None:
    load_text(corner_shop, "transactions", HEADER + "1,a,x,bread,2017-11-01,1,1\n1,b,x,milk,2017-11-01,1,2\n")
    loaded = load_text(corner_shop, "transactions", HEADER + "1,b,x,milk,2017-11-01,1,7\n1,c,x,eggs,2017-11-01,1,5\n")
    assert told(loaded) == (1, 1, 0, 0)
    kept = "select line_id, amount_minor from transactions order by 1"
    assert fetch_rows(corner_shop, kept) == [("a", 100), ("b", 700), ("c", 500)]


def test_line_ids_that_come_later_replace_our_own_numbers(
    corner_shop: Shop, load_text: Load, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(corner_shop, "1,x,bread,2017-11-01,1,1\n1,x,milk,2017-11-01,1,2\n")
    load_text(corner_shop, "transactions", HEADER + "1,a,x,bread,2017-11-01,1,1\n1,b,x,milk,2017-11-01,1,2\n")
    assert fetch_rows(corner_shop, "select line_id, amount_minor from transactions order by 1") == [
        ("a", 100),
        ("b", 200),
    ]


def test_a_line_turned_away_does_not_remove_the_one_before(
    corner_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,2\n")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,two\n")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk\n")
    assert fetch_rows(corner_shop, "select amount_minor from transactions order by 1") == [(100,), (200,)]


def test_of_one_line_twice_in_a_load_the_last_wins(corner_shop: Shop, load_text: Load, fetch_rows: Rows) -> None:
    lines = (
        "1,a,x,bread,2017-11-01,1,1\n1,a,x,bread,2017-11-01,1,2\n1,b,x,milk,2017-11-01,1,3\n1,b,x,milk,2017-11-01,1,3\n"
    )
    loaded = load_text(corner_shop, "transactions", HEADER + lines)
    assert (*told(loaded), loaded.rejected) == (2, 0, 1, 0, 1)
    assert fetch_rows(corner_shop, "select amount_minor from transactions order by 1") == [(200,), (300,)]


def test_two_sources_may_use_the_same_order_number(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(corner_shop, "1,anna,bread,2017-11-01,1,1\n")
    assert told(load_lines(corner_shop, "1,anna,bread,2017-11-01,1,2\n", source="webshop")) == (1, 0, 0, 0)
    assert fetch_rows(corner_shop, "select source, amount_minor from transactions order by 1") == [
        ("files", 100),
        ("webshop", 200),
    ]
    assert fetch_rows(
        corner_shop, "select count(distinct order_key), count(distinct customer_key) from transactions"
    ) == [(2, 2)]


def test_a_new_line_was_known_when_it_was_sold(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    assert fetch_rows(corner_shop, "select known_at = sold_at from transactions") == [(1,)]


def test_a_sale_that_comes_after_a_night_has_looked_does_not_change_what_it_saw(
    corner_shop: Shop, load_lines: Load
) -> None:
    as_of = clock.parse_time(corner_shop, "2017-12-01")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    watermark.record_run_start(corner_shop, as_of)
    assert watermark.read_watermark(corner_shop) == as_of
    load_lines(corner_shop, "2,a,milk,2017-11-02,1,2\n3,a,milk,2017-12-02,1,3\n")
    assert seen(corner_shop, as_of) == [(1.0,)]
    assert seen(corner_shop, clock.parse_time(corner_shop, "2017-12-03")) == [(1.0,), (3.0,)]
    assert seen(corner_shop, datetime.now(UTC)) == [(1.0,), (2.0,), (3.0,)]


def test_so_it_is_in_a_shop_pinned_to_its_last_sale(tmp_path: Path, load_lines: Load) -> None:
    """The late sale comes in one load with those of the next day, which move the clock on."""
    pinned = setup.init_home(tmp_path / "s", now="last-sale")
    load_lines(pinned, "1,a,bread,2017-11-01T10:00Z,1,1\n")
    first = clock.now(pinned)
    watermark.record_run_start(pinned, first)
    load_lines(pinned, "2,a,milk,2017-11-01T09:00Z,1,2\n3,a,milk,2017-11-02T10:00Z,1,3\n")
    assert seen(pinned, first) == [(1.0,)]
    assert seen(pinned, clock.now(pinned)) == [(1.0,), (2.0,), (3.0,)]


def test_a_correction_is_seen_from_then_on_and_never_twice(
    corner_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,5\n")
    [(corrected,)] = fetch_rows(corner_shop, "select known_at from transactions")
    assert seen(corner_shop, from_micros(corrected)) == [(1.0,)]
    assert seen(corner_shop, from_micros(corrected + 1)) == [(5.0,)]


def test_a_line_that_leaves_and_comes_again_is_not_seen_twice(
    corner_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,2\n")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    [(left,)] = fetch_rows(corner_shop, "select superseded_at from transactions_history")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,2\n")
    assert seen(corner_shop, clock.parse_time(corner_shop, "2017-12-01")) == [(1.0,), (2.0,)]
    assert seen(corner_shop, from_micros(left + 1)) == [(1.0,)]
    assert seen(corner_shop, datetime.now(UTC)) == [(1.0,), (2.0,)]
