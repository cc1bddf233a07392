"""Freshness: the last sale, the last finished nightly run, and erasures that are not complete."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from customers.loading.load import LoadResult
from customers.privacy import erasure
from customers.reports import freshness
from customers.scores import score_store
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]
MONDAY, TUESDAY = datetime(2025, 3, 3, tzinfo=UTC), datetime(2025, 3, 4, tzinfo=UTC)


def test_a_new_shop_has_no_dates(corner_shop: Shop) -> None:
    assert freshness.read_freshness(corner_shop) == freshness.Freshness(None, None, None, 0)


def test_the_last_sale_is_reported(corner_shop: Shop, load_lines: Load) -> None:
    load_lines(corner_shop, "o2,c1,p1,2025-03-02T10:00:00+00:00,1,5\no1,c2,p1,2025-01-02T10:00:00+00:00,1,5\n")
    assert freshness.read_freshness(corner_shop).last_sold_at == datetime(2025, 3, 2, 10, tzinfo=UTC)


def test_a_run_counts_once_it_is_finished(corner_shop: Shop) -> None:
    run_id = score_store.begin_run(corner_shop, "churn", "1", MONDAY)
    assert freshness.read_freshness(corner_shop).last_run_as_of is None
    before = datetime.now(UTC)
    score_store.finish_run(corner_shop, run_id)
    score_store.begin_run(corner_shop, "churn", "2", TUESDAY)
    state = freshness.read_freshness(corner_shop)
    assert state.last_run_as_of == MONDAY
    assert state.last_run_finished_at is not None
    assert timedelta(0) <= state.last_run_finished_at - before < timedelta(minutes=1)


def test_a_historical_run_does_not_make_the_last_one_younger(corner_shop: Shop) -> None:
    score_store.finish_run(corner_shop, score_store.begin_run(corner_shop, "churn", "1", TUESDAY))
    before = freshness.read_freshness(corner_shop)
    score_store.finish_run(corner_shop, score_store.begin_run(corner_shop, "churn", "1", MONDAY))
    assert freshness.read_freshness(corner_shop) == before


def test_an_erasure_is_pending_until_its_features_are_deleted(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "customers", "customer_id\nc1\n")
    erasure.erase_customer(corner_shop, "c1")
    assert freshness.read_freshness(corner_shop).pending_erasures == 1
    erasure.complete_erasures(corner_shop, [number for number, _ in erasure.pending_erasures(corner_shop)])
    assert freshness.read_freshness(corner_shop).pending_erasures == 0
