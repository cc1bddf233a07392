"""Ingestion of JSON records: validated like those of a file, stored, and their customers queued for refresh."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from customers.ledger import refresh_queue
from customers.loading import load
from customers.loading.load import IngestResult, LoadResult
from customers.parquet import columns, mirror
from customers.people import lookup
from customers.reports import customer_view
from customers.shop.errors import ShopError
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]
Rows = Callable[..., list[tuple]]


def sale(order: str, **fields: Any) -> dict[str, Any]:
    bread = {"line_id": "1", "customer_id": "anna", "product_id": "bread", "sold_at": "2017-11-01T10:00:00Z"}
    return bread | {"order_id": order, "quantity": 1, "amount": "2.50"} | fields


def load_counts(result: IngestResult | LoadResult) -> tuple[int, int, int, int]:
    return result.inserted, result.updated, result.unchanged, result.rejected


def test_a_sale_to_a_new_customer_of_a_new_product_is_stored(corner_shop: Shop, fetch_rows: Rows) -> None:
    result = load.ingest_records(corner_shop, "transactions", [sale("1")])
    anna = lookup.find_keys(corner_shop, ["anna"])["anna"]
    assert (load_counts(result), result.stubs, result.customer_keys, result.errors) == ((1, 0, 0, 0), 1, [anna], [])
    assert fetch_rows(corner_shop, "select order_id, amount_minor from transactions") == [("1", 250)]
    assert fetch_rows(corner_shop, "select stage from customers") == [("customer",)]


def test_the_same_sale_twice_is_one_and_a_changed_one_a_new_version(corner_shop: Shop, fetch_rows: Rows) -> None:
    load.ingest_records(corner_shop, "transactions", [sale("1")])
    again = load.ingest_records(corner_shop, "transactions", [sale("1")])
    assert (load_counts(again), again.customer_keys) == ((0, 0, 1, 0), [])
    changed = load.ingest_records(corner_shop, "transactions", [sale("1", amount="3.00")])
    assert (load_counts(changed), len(changed.customer_keys)) == ((0, 1, 0, 0), 1)
    assert fetch_rows(corner_shop, "select amount_minor from transactions_history") == [(250,)]


def test_a_sale_that_moves_to_another_customer_queues_both_for_refresh(corner_shop: Shop) -> None:
    load.ingest_records(corner_shop, "transactions", [sale("1")])
    result = load.ingest_records(corner_shop, "transactions", [sale("1", customer_id="ben")])
    assert result.customer_keys == sorted(lookup.find_keys(corner_shop, ["anna", "ben"]).values())
    assert refresh_queue.list_pending(corner_shop).keys() == set(result.customer_keys)


def test_a_line_removed_from_its_order_reports_its_customer(corner_shop: Shop, fetch_rows: Rows) -> None:
    whole = [sale("1", line_id=None), sale("1", line_id=None, product_id="milk")]
    load.ingest_records(corner_shop, "transactions", whole)
    result = load.ingest_records(corner_shop, "transactions", whole[:1])
    assert (result.removed, len(result.customer_keys)) == (1, 1)


def test_an_anonymous_sale_queues_no_customer(corner_shop: Shop) -> None:
    result = load.ingest_records(corner_shop, "transactions", [sale("1", customer_id=None)])
    assert (load_counts(result), result.customer_keys, refresh_queue.list_pending(corner_shop)) == (
        (1, 0, 0, 0),
        [],
        {},
    )


def test_a_return_may_come_before_its_sale(corner_shop: Shop, fetch_rows: Rows) -> None:
    load.ingest_records(corner_shop, "transactions", [sale("2", quantity=-1, amount="-2.50")])
    load.ingest_records(corner_shop, "transactions", [sale("1")])
    stored = fetch_rows(corner_shop, "select order_id, kind, amount_minor from transactions order by 1")
    assert stored == [("1", "sale", 250), ("2", "return", -250)]


def test_each_invalid_record_is_named_by_its_index(corner_shop: Shop) -> None:
    missing = sale("3")
    del missing["product_id"]
    records = ["bread", sale("1"), sale("2", quantity="some"), missing, sale("4", store_id="\ud800"), sale("5")]
    result = load.ingest_records(corner_shop, "transactions", records)
    assert (result.read, load_counts(result)) == (6, (2, 0, 0, 4))
    assert result.errors == [
        {"index": 0, "reason": "not a JSON object"},
        {"index": 2, "reason": "quantity is not a number"},
        {"index": 3, "reason": "product_id is empty"},
        {"index": 4, "reason": "text that is not Unicode"},
    ]
    assert not result.is_all_rejected
    assert load.ingest_records(corner_shop, "transactions", ["bread"]).is_all_rejected


def test_an_empty_request_is_accepted_and_over_a_thousand_records_are_refused(corner_shop: Shop) -> None:
    assert load_counts(load.ingest_records(corner_shop, "transactions", [])) == (0, 0, 0, 0)
    with pytest.raises(ShopError, match="1001 records at once are too many; send at most 1,000"):
        load.ingest_records(corner_shop, "transactions", [sale(str(order)) for order in range(1_001)])
    with pytest.raises(ShopError, match="unknown kind of record"):
        load.ingest_records(corner_shop, "visits", [{}])
    with pytest.raises(ShopError, match="501 different fields"):
        load.ingest_records(corner_shop, "products", [{f"field_{number}": 1 for number in range(501)}])


def test_a_file_and_a_json_record_give_the_same_line(corner_shop: Shop, load_text: Load) -> None:
    header = "order_id,line_id,customer_id,product_id,sold_at,quantity,amount\n"
    load_text(corner_shop, "transactions", header + "1,1,anna,bread,2017-11-01T10:00:00Z,1,2.50\n")
    assert load_counts(load.ingest_records(corner_shop, "transactions", [sale("1")])) == (0, 0, 1, 0)


def test_an_absent_field_stays_and_a_null_field_is_removed(corner_shop: Shop) -> None:
    load.ingest_records(
        corner_shop, "customers", [{"customer_id": "anna", "email": "a@x.org", "phone": "1", "shoe": 38}]
    )
    updates = [{"customer_id": "anna", "phone": None}, {"customer_id": "ben", "email": "b@x.org"}]
    result = load.ingest_records(corner_shop, "customers", updates)
    assert (load_counts(result), len(result.customer_keys)) == ((1, 1, 0, 0), 2)
    view = customer_view.load_customer_view(corner_shop, "anna")
    assert view is not None
    assert (view["profile"], view["attributes"]) == ({"email": "a@x.org"}, {"shoe": "38"})


def test_one_price_changes_in_a_catalogue_of_many(corner_shop: Shop, fetch_rows: Rows) -> None:
    catalogue = [{"product_id": str(number), "name": f"bread {number}", "price": "1.00"} for number in range(1_000)]
    assert load_counts(load.ingest_records(corner_shop, "products", catalogue)) == (1_000, 0, 0, 0)
    assert load_counts(load.ingest_records(corner_shop, "products", [{"product_id": "7", "price": "1.10"}])) == (
        0,
        1,
        0,
        0,
    )
    assert fetch_rows(corner_shop, "select name, price_minor from products where price_minor <> 100") == [
        ("bread 7", 110)
    ]


@pytest.mark.parametrize(
    ("amount", "minor"),
    [
        ("2.3450000000", 234),  # a half goes to the even neighbour
        ("2.3350000000", 234),
        ("2.3450000001", 235),  # a little more than a half
        ("2.3349999999", 233),  # a little less: rounded twice it would be a half
        (2.3450000001, 235),
        ("-2.3450000001", -235),
    ],
)
def test_ten_decimals_are_rounded_once(corner_shop: Shop, fetch_rows: Rows, amount: str | float, minor: int) -> None:
    load.ingest_records(corner_shop, "transactions", [sale("1", amount=amount)])
    assert fetch_rows(corner_shop, "select amount_minor from transactions") == [(minor,)]


def test_two_tills_may_use_one_order_number(corner_shop: Shop, fetch_rows: Rows) -> None:
    for till in ("till-1", "till-2"):
        assert load_counts(load.ingest_records(corner_shop, "transactions", [sale("1")], source=till)) == (1, 0, 0, 0)
    assert fetch_rows(corner_shop, "select count(*), count(distinct order_key) from transactions") == [(2, 2)]


def test_a_refreshed_customer_leaves_the_queue_unless_there_is_a_later_change(corner_shop: Shop) -> None:
    load.ingest_records(corner_shop, "transactions", [sale("1"), sale("2", customer_id="ben")])
    pending = refresh_queue.list_pending(corner_shop)
    load.ingest_records(corner_shop, "transactions", [sale("3")])
    refresh_queue.mark_refreshed(corner_shop, pending)
    anna = lookup.find_keys(corner_shop, ["anna"])["anna"]
    assert list(refresh_queue.list_pending(corner_shop)) == [anna]
    refresh_queue.mark_refreshed(corner_shop, refresh_queue.list_pending(corner_shop))
    assert refresh_queue.list_pending(corner_shop) == {}


def test_a_change_of_profiling_consent_queues_the_customer(corner_shop: Shop) -> None:
    load.ingest_records(corner_shop, "customers", [{"customer_id": "anna"}])
    consent = {"customer_id": "anna", "at": "2017-11-01", "state": "granted"}
    load.ingest_records(corner_shop, "consents", [consent | {"purpose": "marketing_post"}])
    assert refresh_queue.list_pending(corner_shop) == {}
    load.ingest_records(corner_shop, "consents", [consent | {"purpose": "profiling_sensitive"}])
    assert len(refresh_queue.list_pending(corner_shop)) == 1


def test_a_load_from_files_leaves_refreshing_to_the_nightly_run(corner_shop: Shop, load_text: Load) -> None:
    load_text(
        corner_shop, "transactions", "order_id,customer_id,product_id,sold_at,quantity,amount\n1,a,x,2017-11-01,1,1\n"
    )
    assert refresh_queue.list_pending(corner_shop) == {}


def test_the_lines_of_a_customer_have_the_columns_of_the_mirror(corner_shop: Shop) -> None:
    load.ingest_records(
        corner_shop, "transactions", [sale("1"), sale("2", customer_id="ben"), sale("3", amount="1.005")]
    )
    load.ingest_records(corner_shop, "transactions", [sale("1", amount="9")])
    anna = lookup.find_keys(corner_shop, ["anna"])["anna"]
    lines = mirror.load_lines(corner_shop, [anna])
    assert lines.schema.equals(columns.LINE_SCHEMA)
    assert sorted(lines["amount"].to_pylist()) == [1.0, 2.5, 9.0]
    assert lines["superseded_at"].null_count == 2
    assert set(lines["sold_at"].to_pylist()) == {datetime(2017, 11, 1, 10, tzinfo=UTC)}
    assert mirror.load_lines(corner_shop, []).num_rows == 0
