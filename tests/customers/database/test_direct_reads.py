"""The version of the database changes with every commit, and with nothing else."""

import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from customers.database import change_counters, direct_reads, engine
from customers.database.direct_reads import DirectReader
from customers.shop.errors import ShopUnavailable
from customers.shop.settings import Shop


@pytest.fixture
def reader(corner_shop: Shop) -> Iterator[DirectReader]:
    reader = DirectReader(corner_shop)
    yield reader
    reader.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write(shop: Shop) -> None:
    with engine.write_transaction(shop) as connection:
        change_counters.increment_counters(connection, {"products"})


def test_a_commit_changes_the_version_and_reading_does_not(corner_shop: Shop, reader: DirectReader) -> None:
    first = reader.read_version()
    with engine.read_transaction(corner_shop) as connection:
        connection.execute(sa.text("select 1"))
    assert reader.read_version() == reader.read_version() == first
    write(corner_shop)
    assert reader.read_version() != first
    counters = dict(reader.read("select month, changed_no from ledger_months where month = ?", ("products",)))
    assert counters["products"] == change_counters.catalogue_version(corner_shop)[1]


def test_what_is_rolled_back_is_not_there(corner_shop: Shop, reader: DirectReader) -> None:
    with engine.dry_run_transaction(corner_shop) as connection:
        change_counters.increment_counters(connection, {"products"})
    assert reader.read("select count(*) from ledger_months where month = 'products'") == [(0,)]


def test_after_an_error_a_new_connection_is_opened_whose_versions_equal_no_earlier_one(
    corner_shop: Shop, reader: DirectReader
) -> None:
    first = reader.read_version()
    with pytest.raises(Exception, match="no_such_table"):
        reader.read("select 1 from no_such_table")
    assert reader.read_version() != first


def test_a_connection_that_has_died_is_replaced(corner_shop: Shop, reader: DirectReader) -> None:
    first = reader.read_version()
    reader._connection.close()
    assert reader.read_version() != first


def test_a_database_that_is_away_is_reported_as_that(corner_shop: Shop, reader: DirectReader, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_connect", refuse_to_connect)
        with pytest.raises(ShopUnavailable, match="does not answer"):
            reader.read_version()
    wait_until(lambda: not reader.is_away)
    assert reader.read_version()


def refuse_to_connect() -> None:
    raise sa.exc.OperationalError("connect", {}, Exception("refused"))


def test_a_process_has_one_reader_of_a_database(corner_shop: Shop) -> None:
    reader = direct_reads.get_reader(corner_shop)
    assert direct_reads.get_reader(corner_shop) is reader
    reader.close()
