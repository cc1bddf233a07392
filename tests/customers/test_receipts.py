"""A write that is sent twice gets one answer, and what was sent cannot be read from what is kept."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from customers import database, receipts
from customers.instants import ONE_MICROSECOND
from customers.receipts import Receipt
from customers.shop import Shop

Rows = Callable[..., list[tuple]]
ROUTE = "/v1/transactions"
SALE = b'{"order_id": "1", "customer_id": "anna"}'


def test_the_same_request_gets_the_same_answer(corner_shop: Shop) -> None:
    assert receipts.begin(corner_shop, "till-1 a", ROUTE, SALE) is None
    assert receipts.finish(corner_shop, "till-1 a", 200, '{"inserted": 1}') == Receipt(200, '{"inserted": 1}')
    for _ in range(2):
        assert receipts.begin(corner_shop, "till-1 a", ROUTE, SALE) == Receipt(200, '{"inserted": 1}')
    assert receipts.begin(corner_shop, "till-2 a", ROUTE, SALE) is None


@pytest.mark.parametrize(("route", "request_"), [(ROUTE, SALE + b" "), ("/v1/customers", SALE)])
def test_another_request_under_the_same_key_is_refused(corner_shop: Shop, route: str, request_: bytes) -> None:
    receipts.begin(corner_shop, "a", ROUTE, SALE)
    with pytest.raises(receipts.Reused, match="a key of its own"):
        receipts.begin(corner_shop, "a", route, request_)
    receipts.finish(corner_shop, "a", 200, "{}")
    with pytest.raises(receipts.Reused, match="a key of its own"):
        receipts.begin(corner_shop, "a", route, request_)


def test_a_request_that_was_never_answered_is_done_again(corner_shop: Shop) -> None:
    """The server was killed between the sale and its answer: the till asks again and gets one."""
    assert [receipts.begin(corner_shop, "a", ROUTE, SALE) for _ in range(2)] == [None, None]


def test_of_two_at_once_the_first_answer_stands(corner_shop: Shop) -> None:
    for _ in range(2):
        receipts.begin(corner_shop, "a", ROUTE, SALE)
    assert receipts.finish(corner_shop, "a", 200, '{"inserted": 1}').answer == '{"inserted": 1}'
    assert receipts.finish(corner_shop, "a", 200, '{"inserted": 0}').answer == '{"inserted": 1}'
    assert receipts.begin(corner_shop, "a", ROUTE, SALE) == Receipt(200, '{"inserted": 1}')


def test_after_two_days_a_key_is_as_good_as_new(corner_shop: Shop, rows: Rows) -> None:
    for name in ("a", "b"):
        receipts.begin(corner_shop, name, ROUTE, SALE)
        receipts.finish(corner_shop, name, 200, "{}")
    aged = timedelta(hours=48) // ONE_MICROSECOND
    with database.writing(corner_shop) as connection:
        connection.execute(sa.text(f"update receipts set made_at = made_at - {aged}"))
    assert receipts.begin(corner_shop, "a", ROUTE, SALE + b" ") is None
    assert rows(corner_shop, "select count(*) from receipts") == [(1,)]


def test_only_digests_of_key_and_request_are_kept(corner_shop: Shop, rows: Rows) -> None:
    receipts.begin(corner_shop, "till-1 a", ROUTE, SALE)
    kept = rows(corner_shop, "select key, request from receipts")[0]
    assert [len(bytes(digest)) for digest in kept] == [32, 32]
    assert not [said for said in (b"anna", b"till-1") for digest in kept if said in bytes(digest)]
