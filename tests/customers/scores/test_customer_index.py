"""What a process remembers of all customers is what the database says, followed by what is added."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from customers.database import direct_reads
from customers.ledger import refresh_queue
from customers.loading.load import LoadResult
from customers.people import lookup
from customers.privacy import erasure
from customers.scores import current_scores, score_store
from customers.scores.current_scores import CustomerStatus
from customers.scores.customer_index import REBUILD_SECONDS, CustomerIndex
from customers.shop.settings import Shop

NIGHT = datetime(2017, 11, 30, tzinfo=UTC)
NAMES = ["anna", "ben", "nobody", "till:anna", "files:ben"]


@pytest.fixture
def keys(corner_shop: Shop, load_lines: Callable[..., LoadResult]) -> dict[str, int]:
    load_lines(corner_shop, "1,anna,bread,2017-11-01T10:00Z,1,2.50\n2,ben,milk,2017-11-08T10:00Z,1,1\n")
    keys = lookup.find_keys(corner_shop, ["anna", "ben"])
    store(corner_shop, NIGHT, *keys.values())
    return keys


def store(shop: Shop, as_of: datetime, *keys: int) -> None:
    run = score_store.begin_run(shop, "offers", "1", as_of)
    score_store.write_scores(shop, run, [(key, 0.5, "{}") for key in keys])


@pytest.fixture
def index(corner_shop: Shop, keys: dict[str, int]) -> CustomerIndex:
    return CustomerIndex(corner_shop)


def follow(index: CustomerIndex, shop: Shop) -> list[CustomerStatus | None]:
    index.follow(current_scores.read_run_watermark(shop, "offers", NIGHT))
    return index.find_statuses(NAMES)


def test_before_anything_was_read_nobody_has_a_status(index: CustomerIndex) -> None:
    assert index.find_statuses(NAMES) == [None] * 5
    assert index.find_statuses([]) == []


def test_an_empty_shop(corner_shop: Shop) -> None:
    assert follow(CustomerIndex(corner_shop), corner_shop) == [None] * 5


def test_the_statuses_are_those_that_a_request_reads(
    corner_shop: Shop, keys: dict[str, int], index: CustomerIndex, load_text: Callable[..., LoadResult]
) -> None:
    reader = direct_reads.DirectReader(corner_shop)
    watermark = current_scores.read_run_watermark(corner_shop, "offers", NIGHT)
    consent = "customer_id,purpose,state,at\n"
    for change in (
        lambda: None,
        lambda: load_text(corner_shop, "consents", f"{consent}anna,profiling,revoked,2017-12-01\n"),
        lambda: load_text(corner_shop, "consents", f"{consent}anna,profiling,granted,2017-12-02\n"),
        lambda: refresh_queue.enqueue_customers(corner_shop, [keys["anna"]]),
        lambda: store(corner_shop, NIGHT + timedelta(hours=2), keys["ben"]),
    ):
        change()
        statuses = current_scores.find_statuses(reader, NAMES, watermark)
        index.follow(watermark)
        plain = index.find_statuses(NAMES[:3])
        assert plain == [statuses.get(name) for name in NAMES[:3]]
        assert index.find_statuses(["files:ben", "till:anna"]) == [statuses["ben"], None]
    reader.close()


def test_a_customer_who_was_refreshed_has_changed_since_the_night(
    corner_shop: Shop, keys: dict[str, int], index: CustomerIndex
) -> None:
    refresh_queue.enqueue_customers(corner_shop, [keys["anna"]])
    follow(index, corner_shop)
    refresh_queue.mark_refreshed(corner_shop, refresh_queue.list_pending(corner_shop))
    assert [each and each.is_changed for each in follow(index, corner_shop)[:2]] == [True, False]
    store(corner_shop, NIGHT + timedelta(days=1), *keys.values())
    index.follow(current_scores.read_run_watermark(corner_shop, "offers", NIGHT + timedelta(days=1)))
    assert [each and each.is_changed for each in index.find_statuses(NAMES[:2])] == [False, False]


def test_an_erased_customer_is_nobody_from_the_next_read_on(
    corner_shop: Shop, keys: dict[str, int], index: CustomerIndex
) -> None:
    assert follow(index, corner_shop)[0] is not None
    erasure.erase_customer(corner_shop, "anna")
    statuses = follow(index, corner_shop)
    assert statuses[0] is None
    assert statuses[1] is not None


def test_a_new_customer_is_there_after_a_minute_at_most(
    corner_shop: Shop, keys: dict[str, int], load_lines: Callable[..., LoadResult]
) -> None:
    now = [0.0]
    index = CustomerIndex(corner_shop, clock=lambda: now[0])
    follow(index, corner_shop)
    load_lines(corner_shop, "3,cleo,bread,2017-11-09T10:00Z,1,2.50\n")
    now[0] = REBUILD_SECONDS
    follow(index, corner_shop)
    assert index.find_statuses(["cleo"]) != [None]


def test_an_id_of_two_sources_is_that_of_files_or_of_nobody(
    corner_shop: Shop, load_lines: Callable[..., LoadResult]
) -> None:
    load_lines(corner_shop, "1,anna,bread,2017-11-01T10:00Z,1,2.50\n", source="till")
    load_lines(corner_shop, "1,anna,bread,2017-11-01T10:00Z,1,2.50\n", source="web")
    index = CustomerIndex(corner_shop)
    watermark = current_scores.read_run_watermark(corner_shop, "offers", NIGHT)
    for _ in range(2):
        index.follow(watermark)
        names = ["anna", "till:anna", "web:anna", "files:anna"]
        expected = lookup.find_keys(corner_shop, names)
        statuses = index.find_statuses(names)
        assert {name: each.customer_key for name, each in zip(names, statuses, strict=True) if each} == expected
        load_lines(corner_shop, "1,anna,bread,2017-11-01T10:00Z,1,2.50\n")
        index = CustomerIndex(corner_shop)


def test_while_everything_is_read_again_the_former_answers_hold(
    corner_shop: Shop,
    keys: dict[str, int],
    load_text: Callable[..., LoadResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    index = CustomerIndex(corner_shop, clock=lambda: now[0])
    former = follow(index, corner_shop)
    load_text(corner_shop, "consents", "customer_id,purpose,state,at\nanna,profiling,revoked,2017-12-01\n")
    now[0] = REBUILD_SECONDS

    def fail(*_: object) -> None:
        assert index.find_statuses(NAMES) == former
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(index, "_add", fail)
        with pytest.raises(ZeroDivisionError):
            follow(index, corner_shop)
    assert index.find_statuses(NAMES) == former
    counts, former_counts = (
        [each and each.consent_count for each in some] for some in (follow(index, corner_shop), former)
    )
    assert counts[0] == (former_counts[0] or 0) + 1
    assert counts[1] == former_counts[1]
