"""Bulk writes store every row, whatever the number of rows in one statement."""

from collections.abc import Callable

import pyarrow as pa
import pytest
import sqlalchemy as sa

from customers.database import bulk_writes, engine, outages, schema
from customers.shop.errors import ShopUnavailable
from customers.shop.settings import Shop

Rows = Callable[..., list[tuple]]


def write_erasures(shop: Shop, keys: list[int], times: list[int] | None = None, **single: int) -> None:
    columns = {"erasure_id": pa.array(range(1, len(keys) + 1), pa.int64()), "customer_key": keys}
    if times is not None:
        columns["forgotten_at"] = pa.array(times, pa.int64())
    with engine.write_transaction(shop) as connection:
        bulk_writes.upsert_columns(connection, schema.erasures, columns, {"erased_at": 7, **single})


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 120])
def test_rows_are_stored_whatever_their_number(corner_shop: Shop, fetch_rows: Rows, count: int) -> None:
    write_erasures(corner_shop, [10 * n for n in range(count)])
    stored = fetch_rows(corner_shop, "select customer_key, erased_at, forgotten_at from erasures order by 1")
    assert stored == [(10 * n, 7, None) for n in range(count)]


def test_a_row_of_an_existing_key_gets_the_new_values(corner_shop: Shop, fetch_rows: Rows) -> None:
    write_erasures(corner_shop, [1, 2], [5, 6])
    write_erasures(corner_shop, [1, 3, 4], [8, 9, 9], erased_at=11)
    stored = fetch_rows(corner_shop, "select customer_key, forgotten_at, erased_at from erasures order by 1")
    assert stored == [(1, 8, 11), (3, 9, 11), (4, 9, 11)]


def test_arrow_columns_with_nulls_and_with_one_value_are_stored(corner_shop: Shop, fetch_rows: Rows) -> None:
    columns = {
        "customer_key": pa.array([1, 2, 3]),
        "stage": pa.array(["customer"] * 3),
        "joined_at": pa.array([None, 5, None], pa.int64()),
        "referred_by": pa.chunked_array([["x"], [None, "y"]]),
        "made_at": pa.array([4, 4, 4]),
    }
    with engine.write_transaction(corner_shop) as connection:
        bulk_writes.insert_columns(connection, schema.customers, columns)
    assert fetch_rows(corner_shop, "select * from customers order by 1") == [
        (1, "customer", None, "x", 4),
        (2, "customer", 5, None, 4),
        (3, "customer", None, "y", 4),
    ]


def test_a_violated_constraint_is_reported_without_the_values(corner_shop: Shop, fetch_rows: Rows) -> None:
    columns = {"customer_id": ["anna@shop.test"], "source": ["files"], "customer_key": [4711]}
    with pytest.raises(sa.exc.DBAPIError) as refused, engine.write_transaction(corner_shop) as connection:
        bulk_writes.insert_columns(connection, schema.identities, columns)
    assert "anna" not in str(refused.value)
    assert "4711" not in str(refused.value)
    assert fetch_rows(corner_shop, "select * from identities") == []


def test_rows_are_selected_by_many_texts_or_numbers(corner_shop: Shop) -> None:
    write_erasures(corner_shop, list(range(100)))
    column = schema.erasures.c.customer_key
    with engine.read_transaction(corner_shop) as connection:
        for values, expected in (([], 0), ([5], 1), (list(range(50, 20_000)), 50)):
            condition = bulk_writes.matches_any(connection, column, values)
            assert connection.execute(sa.select(sa.func.count()).where(condition)).scalar() == expected
        month = schema.ledger_months.c.month
        assert (
            connection.execute(sa.select(month).where(bulk_writes.matches_any(connection, month, ["it's"]))).all() == []
        )


def lose_server(shop: Shop, *, is_copying: bool) -> None:
    with engine.write_transaction(shop) as connection:
        connection.execute(sa.text("delete from erasures"))
        outages.cut_connection(connection.connection.driver_connection)
        if is_copying:
            columns = {"erasure_id": [1], "customer_key": [1], "erased_at": [1]}
            bulk_writes.insert_columns(connection, schema.erasures, columns)


@pytest.mark.parametrize("is_copying", [False, True])
def test_a_server_that_is_lost_while_rows_are_copied_or_committed_is_unavailable(
    corner_shop: Shop, is_copying: bool
) -> None:
    if corner_shop.database_url.startswith("sqlite"):
        pytest.skip("a file has no connection")
    with pytest.raises(ShopUnavailable):
        lose_server(corner_shop, is_copying=is_copying)
