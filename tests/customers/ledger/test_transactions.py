"""Order lines: an order is one unit, lines have versions, and what a run as of a day reads never changes."""

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


def load_counts(loaded: LoadResult) -> tuple[int, int, int, int]:
    return loaded.inserted, loaded.updated, loaded.unchanged, loaded.removed


def amounts_as_of(shop: Shop, as_of: datetime) -> list[tuple]:
    """Amounts of the lines that a run as of this time reads from the mirror."""
    mirror.refresh(shop)
    at = to_micros(as_of)
    return (
        duckdb.connect()
        .execute(
            f"""select amount from '{shop.home}/ledger/month=*/part.parquet'
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
    assert load_counts(load_lines(corner_shop, "1,anna,bread,2017-11-01,1,3.50\n")) == (0, 1, 0, 0)
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
    assert load_counts(load_lines(corner_shop, "1,a,milk,2017-11-01,1,2\n1,a,eggs,2017-11-01,1,5\n")) == (1, 0, 1, 2)
    query = "select amount_minor from transactions order by 1"
    assert fetch_rows(corner_shop, query) == [(200,), (400,), (500,)]
    assert fetch_rows(corner_shop, "select amount_minor from transactions_history order by 1") == [(100,), (300,)]


def test_with_line_ids_lines_are_matched_one_by_one(corner_shop: Shop, load_text: Load, fetch_rows: Rows) -> None:
    load_text(corner_shop, "transactions", HEADER + "1,a,x,bread,2017-11-01,1,1\n1,b,x,milk,2017-11-01,1,2\n")
    loaded = load_text(corner_shop, "transactions", HEADER + "1,b,x,milk,2017-11-01,1,7\n1,c,x,eggs,2017-11-01,1,5\n")
    assert load_counts(loaded) == (1, 1, 0, 0)
    query = "select line_id, amount_minor from transactions order by 1"
    assert fetch_rows(corner_shop, query) == [("a", 100), ("b", 700), ("c", 500)]


def test_line_ids_that_come_later_replace_generated_ones(
    corner_shop: Shop, load_text: Load, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(corner_shop, "1,x,bread,2017-11-01,1,1\n1,x,milk,2017-11-01,1,2\n")
    load_text(corner_shop, "transactions", HEADER + "1,a,x,bread,2017-11-01,1,1\n1,b,x,milk,2017-11-01,1,2\n")
    assert fetch_rows(corner_shop, "select line_id, amount_minor from transactions order by 1") == [
        ("a", 100),
        ("b", 200),
    ]


def test_a_rejected_line_does_not_remove_the_stored_one(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,2\n")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,two\n")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk\n")
    assert fetch_rows(corner_shop, "select amount_minor from transactions order by 1") == [(100,), (200,)]


def test_the_last_of_two_lines_with_one_id_in_a_load_is_stored(
    corner_shop: Shop, load_text: Load, fetch_rows: Rows
) -> None:
    lines = (
        "1,a,x,bread,2017-11-01,1,1\n1,a,x,bread,2017-11-01,1,2\n1,b,x,milk,2017-11-01,1,3\n1,b,x,milk,2017-11-01,1,3\n"
    )
    loaded = load_text(corner_shop, "transactions", HEADER + lines)
    assert (*load_counts(loaded), loaded.rejected) == (2, 0, 1, 0, 1)
    assert fetch_rows(corner_shop, "select amount_minor from transactions order by 1") == [(200,), (300,)]


def test_two_sources_may_use_the_same_order_number(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(corner_shop, "1,anna,bread,2017-11-01,1,1\n")
    assert load_counts(load_lines(corner_shop, "1,anna,bread,2017-11-01,1,2\n", source="webshop")) == (1, 0, 0, 0)
    assert fetch_rows(corner_shop, "select source, amount_minor from transactions order by 1") == [
        ("files", 100),
        ("webshop", 200),
    ]
    assert fetch_rows(
        corner_shop, "select count(distinct order_key), count(distinct customer_key) from transactions"
    ) == [(2, 2)]


def test_a_new_line_counts_from_its_time_of_sale(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    assert fetch_rows(corner_shop, "select known_at = sold_at from transactions") == [(1,)]


def test_a_sale_loaded_after_a_run_does_not_change_what_the_run_read(corner_shop: Shop, load_lines: Load) -> None:
    as_of = clock.parse_time(corner_shop, "2017-12-01")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    watermark.record_run_start(corner_shop, as_of)
    assert watermark.read_watermark(corner_shop) == as_of
    load_lines(corner_shop, "2,a,milk,2017-11-02,1,2\n3,a,milk,2017-12-02,1,3\n")
    assert amounts_as_of(corner_shop, as_of) == [(1.0,)]
    assert amounts_as_of(corner_shop, clock.parse_time(corner_shop, "2017-12-03")) == [(1.0,), (3.0,)]
    assert amounts_as_of(corner_shop, datetime.now(UTC)) == [(1.0,), (2.0,), (3.0,)]


def test_a_late_sale_does_not_change_a_run_of_a_shop_pinned_to_its_last_sale(tmp_path: Path, load_lines: Load) -> None:
    """The late sale comes in one load with those of the next day, which move the clock on."""
    pinned = setup.init_home(tmp_path / "s", now="last-sale")
    load_lines(pinned, "1,a,bread,2017-11-01T10:00Z,1,1\n")
    first_run_at = clock.now(pinned)
    watermark.record_run_start(pinned, first_run_at)
    load_lines(pinned, "2,a,milk,2017-11-01T09:00Z,1,2\n3,a,milk,2017-11-02T10:00Z,1,3\n")
    assert amounts_as_of(pinned, first_run_at) == [(1.0,)]
    assert amounts_as_of(pinned, clock.now(pinned)) == [(1.0,), (2.0,), (3.0,)]


def test_a_correction_counts_from_then_on_and_never_twice(
    corner_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,5\n")
    [(corrected_at,)] = fetch_rows(corner_shop, "select known_at from transactions")
    assert amounts_as_of(corner_shop, from_micros(corrected_at)) == [(1.0,)]
    assert amounts_as_of(corner_shop, from_micros(corrected_at + 1)) == [(5.0,)]


def test_a_line_removed_and_added_again_counts_once(corner_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,2\n")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n")
    [(removed_at,)] = fetch_rows(corner_shop, "select superseded_at from transactions_history")
    load_lines(corner_shop, "1,a,bread,2017-11-01,1,1\n1,a,milk,2017-11-01,1,2\n")
    assert amounts_as_of(corner_shop, clock.parse_time(corner_shop, "2017-12-01")) == [(1.0,), (2.0,)]
    assert amounts_as_of(corner_shop, from_micros(removed_at + 1)) == [(1.0,)]
    assert amounts_as_of(corner_shop, datetime.now(UTC)) == [(1.0,), (2.0,)]
