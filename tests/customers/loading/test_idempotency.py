"""Idempotency keys: a write that is sent twice gets one answer, and only digests of the request are stored."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from customers.database import engine
from customers.loading import idempotency
from customers.loading.idempotency import IdempotencyRecord
from customers.security import encryption
from customers.shop.settings import Shop
from customers.shop.timestamps import ONE_MICROSECOND

Rows = Callable[..., list[tuple]]
ROUTE = "/v1/transactions"
SALE = b'{"order_id": "1", "customer_id": "anna"}'


def test_the_same_request_gets_the_same_answer(corner_shop: Shop) -> None:
    assert idempotency.begin_request(corner_shop, "till-1 a", ROUTE, SALE) is None
    assert idempotency.finish_request(corner_shop, "till-1 a", 200, '{"inserted": 1}') == IdempotencyRecord(
        200, '{"inserted": 1}'
    )
    for _ in range(2):
        assert idempotency.begin_request(corner_shop, "till-1 a", ROUTE, SALE) == IdempotencyRecord(
            200, '{"inserted": 1}'
        )
    assert idempotency.begin_request(corner_shop, "till-2 a", ROUTE, SALE) is None


@pytest.mark.parametrize(("route", "payload"), [(ROUTE, SALE + b" "), ("/v1/customers", SALE)])
def test_another_request_under_the_same_key_is_refused(corner_shop: Shop, route: str, payload: bytes) -> None:
    idempotency.begin_request(corner_shop, "a", ROUTE, SALE)
    with pytest.raises(idempotency.IdempotencyKeyReused, match="a key of its own"):
        idempotency.begin_request(corner_shop, "a", route, payload)
    idempotency.finish_request(corner_shop, "a", 200, "{}")
    with pytest.raises(idempotency.IdempotencyKeyReused, match="a key of its own"):
        idempotency.begin_request(corner_shop, "a", route, payload)


def test_a_request_without_an_answer_is_processed_again(corner_shop: Shop) -> None:
    """The server was killed between the sale and its answer: the till sends the request again and gets one."""
    assert [idempotency.begin_request(corner_shop, "a", ROUTE, SALE) for _ in range(2)] == [None, None]


def test_the_first_answer_of_two_concurrent_requests_is_stored(corner_shop: Shop) -> None:
    for _ in range(2):
        idempotency.begin_request(corner_shop, "a", ROUTE, SALE)
    assert idempotency.finish_request(corner_shop, "a", 200, '{"inserted": 1}').answer == '{"inserted": 1}'
    assert idempotency.finish_request(corner_shop, "a", 200, '{"inserted": 0}').answer == '{"inserted": 1}'
    assert idempotency.begin_request(corner_shop, "a", ROUTE, SALE) == IdempotencyRecord(200, '{"inserted": 1}')


def test_the_second_of_two_concurrent_requests_waits_for_the_first(corner_shop: Shop) -> None:
    """The request of another till proceeds meanwhile."""
    other = next(key for key in map(str, range(99)) if not _share_a_lock(corner_shop, "a", key))
    with ThreadPoolExecutor(2) as tills:
        with idempotency.lock_key(corner_shop, "a"):
            assert idempotency.begin_request(corner_shop, "a", ROUTE, SALE) is None
            second = tills.submit(_begin_with_lock, corner_shop, "a")
            assert tills.submit(_begin_with_lock, corner_shop, other).result(timeout=5) is None
            with pytest.raises(TimeoutError):
                second.result(timeout=0.2)
            idempotency.finish_request(corner_shop, "a", 200, '{"inserted": 1}')
        assert second.result(timeout=5) == IdempotencyRecord(200, '{"inserted": 1}')


def _begin_with_lock(shop: Shop, key: str) -> IdempotencyRecord | None:
    with idempotency.lock_key(shop, key):
        return idempotency.begin_request(shop, key, ROUTE, SALE)


def _share_a_lock(shop: Shop, one: str, other: str) -> bool:
    first, second = (encryption.get_cipher(shop).content_digest(key.encode())[0] for key in (one, other))
    return first == second


def test_a_key_expires_after_two_days(corner_shop: Shop, fetch_rows: Rows) -> None:
    for name in ("a", "b"):
        idempotency.begin_request(corner_shop, name, ROUTE, SALE)
        idempotency.finish_request(corner_shop, name, 200, "{}")
    lifetime = timedelta(hours=48) // ONE_MICROSECOND
    with engine.write_transaction(corner_shop) as connection:
        connection.execute(sa.text(f"update receipts set made_at = made_at - {lifetime}"))
    assert idempotency.begin_request(corner_shop, "a", ROUTE, SALE + b" ") is None
    assert fetch_rows(corner_shop, "select count(*) from receipts") == [(1,)]


def test_only_digests_of_key_and_request_are_stored(corner_shop: Shop, fetch_rows: Rows) -> None:
    idempotency.begin_request(corner_shop, "till-1 a", ROUTE, SALE)
    stored = fetch_rows(corner_shop, "select key, request from receipts")[0]
    assert [len(bytes(digest)) for digest in stored] == [32, 32]
    assert not [secret for secret in (b"anna", b"till-1") for digest in stored if secret in bytes(digest)]
