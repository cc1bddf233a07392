"""Whether a customer is still as a night scored them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from customers.database.direct_reads import DirectReader
from customers.ledger import refresh_queue
from customers.loading.load import LoadResult
from customers.people import lookup
from customers.scores import current_scores, score_store
from customers.shop.settings import Shop

NIGHT = datetime(2017, 12, 1, tzinfo=UTC)
NAMES = ["anna", "ben", "nobody"]


@pytest.fixture
def keys(corner_shop: Shop, load_lines: Callable[..., LoadResult]) -> dict[str, int]:
    load_lines(corner_shop, "1,anna,bread,2017-11-01T10:00Z,1,2.50\n2,ben,milk,2017-11-08T10:00Z,1,1\n")
    keys = lookup.find_keys(corner_shop, ["anna", "ben"])
    store(corner_shop, NIGHT, keys["anna"], keys["ben"])
    return keys


@pytest.fixture
def reader(corner_shop: Shop) -> Iterator[DirectReader]:
    reader = DirectReader(corner_shop)
    yield reader
    reader.close()


def store(shop: Shop, as_of: datetime, *keys: int, model: str = "churn", version: str = "1") -> None:
    run = score_store.begin_run(shop, model, version, as_of)
    score_store.write_scores(shop, run, [(key, 0.5, "{}") for key in keys])


def test_nothing_has_happened(corner_shop: Shop, keys: dict[str, int], reader: DirectReader) -> None:
    statuses = current_scores.find_statuses(
        reader, NAMES, current_scores.read_run_watermark(corner_shop, "churn", NIGHT)
    )
    assert {name: each.customer_key for name, each in statuses.items()} == keys
    assert not any(each.is_changed for each in statuses.values())
    assert (
        current_scores.find_statuses(reader, [], current_scores.read_run_watermark(corner_shop, "churn", NIGHT)) == {}
    )


def test_a_customer_who_is_queued_or_was_scored_later_has_changed(
    corner_shop: Shop, keys: dict[str, int], reader: DirectReader
) -> None:
    watermark = current_scores.read_run_watermark(corner_shop, "churn", NIGHT)
    refresh_queue.enqueue_customers(corner_shop, [keys["anna"]])
    assert current_scores.find_statuses(reader, NAMES, watermark)["anna"].is_changed
    store(corner_shop, NIGHT + timedelta(hours=9), keys["ben"])
    assert current_scores.find_statuses(reader, NAMES, watermark)["ben"].is_changed


def test_a_score_later_than_the_night_counts_also_where_its_run_began_before(
    corner_shop: Shop, keys: dict[str, int], reader: DirectReader
) -> None:
    later = NIGHT + timedelta(minutes=1)
    store(corner_shop, later)
    watermark = current_scores.read_run_watermark(corner_shop, "churn", NIGHT)
    store(corner_shop, NIGHT - timedelta(days=1), keys["ben"])
    store(corner_shop, later, keys["anna"])
    statuses = current_scores.find_statuses(reader, NAMES, watermark)
    assert [statuses[name].is_changed for name in ("anna", "ben")] == [True, False]


def test_an_answer_by_another_version_counts_for_its_model_only(
    corner_shop: Shop, keys: dict[str, int], reader: DirectReader
) -> None:
    watermark = current_scores.read_run_watermark(corner_shop, "churn", NIGHT)
    store(corner_shop, NIGHT, keys["ben"], model="value")
    store(corner_shop, NIGHT, keys["anna"], version="2")
    statuses = current_scores.find_statuses(reader, NAMES, watermark)
    assert [statuses[name].is_changed for name in ("anna", "ben")] == [True, False]


def test_the_latest_as_of_counts_open_runs(corner_shop: Shop, keys: dict[str, int]) -> None:
    assert current_scores.read_latest_as_of(corner_shop) == NIGHT
    store(corner_shop, NIGHT + timedelta(minutes=3), keys["ben"])
    store(corner_shop, NIGHT - timedelta(days=1), keys["ben"])
    assert current_scores.read_latest_as_of(corner_shop) == NIGHT + timedelta(minutes=3)
