"""While a database does not answer nobody waits for it, and one thread notices when it answers again."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from customers.database import direct_reads, engine, outages
from customers.database.direct_reads import DirectReader
from customers.shop.errors import ShopUnavailable
from customers.shop.settings import Shop


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def watched(corner_shop: Shop) -> Iterator[DirectReader]:
    """The reader of a shop whose database this process watches; at the end it answers again."""
    for registered, key in (
        (direct_reads._readers, corner_shop.database_url),
        (outages._watches, engine.get_engine(corner_shop).url),
    ):
        registered.pop(key, None)  # of an earlier test with the same database
    reader = direct_reads.get_reader(corner_shop)
    assert reader.read_version()
    yield reader
    wait_until(lambda: not reader.is_away)
    reader.close()


def test_nobody_tries_a_database_that_is_away_and_it_is_noticed_when_it_is_back(
    corner_shop: Shop, watched: DirectReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[float] = []

    def refuse() -> None:
        attempts.append(time.monotonic())
        raise sa.exc.OperationalError("connect", {}, Exception("refused"))

    with monkeypatch.context() as patch:
        patch.setattr(watched, "_connect", refuse)
        watched.close()
        with pytest.raises(ShopUnavailable):
            watched.read_version()
        began_at = time.monotonic()
        while time.monotonic() < began_at + 1.5:
            for request in (watched.read_version, lambda: next(iter(engine.read_transaction(corner_shop).gen))):
                with pytest.raises(ShopUnavailable):
                    request()
            time.sleep(0.01)
        assert len(attempts) <= 4, "one of the request, then one a second"
        assert threading.active_count() < 20
    wait_until(lambda: not watched.is_away, seconds=3)
    assert watched.read_version()
    with engine.read_transaction(corner_shop) as connection:
        assert connection.execute(sa.text("select 1")).scalar() == 1


def test_a_read_that_hangs_in_one_thread_does_not_hold_up_the_others(
    watched: DirectReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr("customers.database.direct_reads.TIMEOUT_SECONDS", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(watched, "_read", lambda *_: is_over.wait(20))
        patch.setattr(watched, "_connect", lambda: is_over.wait(20))
        thread = threading.Thread(target=watched.read, args=("select 1",))
        thread.start()
        began_at = time.monotonic()
        with pytest.raises(ShopUnavailable):
            watched.read_version()
        assert time.monotonic() < began_at + 2
        is_over.set()
        thread.join()


def test_a_mistake_in_a_statement_is_no_outage(watched: DirectReader) -> None:
    with pytest.raises(Exception, match="no_such_table"):
        watched.read("select 1 from no_such_table")
    assert not watched.is_away


def test_a_file_that_is_no_database_is_an_outage() -> None:
    for code, expected in ((sqlite3.SQLITE_ERROR, False), (sqlite3.SQLITE_NOTADB, True), (sqlite3.SQLITE_BUSY, True)):
        error = sqlite3.DatabaseError("x")
        error.sqlite_errorcode = code
        assert outages.is_outage(error) is expected
        assert outages.is_outage(sa.exc.DatabaseError("select", {}, error)) is expected
    assert not outages.is_outage(ValueError("x"))


def test_a_locked_file_is_waited_for_two_seconds_and_not_a_minute(sqlite_shop: Shop) -> None:
    engine.get_engine(sqlite_shop).dispose()
    with sqlite3.connect(sqlite_shop.home / "shop.db", isolation_level=None) as other:
        other.execute("pragma journal_mode = delete")
        other.execute("begin exclusive")
        began_at = time.monotonic()
        with pytest.raises(ShopUnavailable):
            direct_reads.get_reader(sqlite_shop).read_version()
        assert time.monotonic() < began_at + 4
        other.execute("rollback")
    other.close()
    wait_until(lambda: not direct_reads.get_reader(sqlite_shop).is_away)
    assert direct_reads.get_reader(sqlite_shop).read_version()


def test_a_statement_that_hangs_is_cut(postgres_url: str) -> None:
    import psycopg

    watchdog = outages.StatementWatchdog(seconds=0.3)
    with psycopg.connect(postgres_url) as connection:
        began_at = time.monotonic()
        with pytest.raises(outages.ConnectionCut), watchdog.limit(connection):
            connection.execute("select pg_sleep(20)")
        assert time.monotonic() < began_at + 3
    with psycopg.connect(postgres_url) as connection, watchdog.limit(connection):
        assert connection.execute("select 1").fetchall() == [(1,)], "others are left alone"


def test_what_hangs_elsewhere_is_given_up_once_an_outage_is_certain(postgres_url: str) -> None:
    sa_engine = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    is_back = threading.Event()

    def try_out() -> None:
        if not is_back.is_set():
            raise OSError

    watch = outages.DatabaseWatch(sa_engine, try_out)
    errors: list[Exception] = []

    def hang() -> None:
        try:
            with sa_engine.connect() as connection:
                connection.execute(sa.text("select pg_sleep(20)"))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    time.sleep(0.5)
    watch.report_failure()
    thread.join(5)
    assert [type(error) for error in errors] == [sa.exc.OperationalError]
    is_back.set()
    wait_until(lambda: not watch.is_away)
    with sa_engine.connect() as connection:
        assert connection.execute(sa.text("select 1")).scalar() == 1
    sa_engine.dispose()


class _ChangingSet(list):
    """A set that another thread changes at the first look."""

    has_changed = False

    def __iter__(self):
        if not self.has_changed:
            self.has_changed = True
            raise RuntimeError("Set changed size during iteration")
        return super().__iter__()


def test_a_connection_that_is_opened_meanwhile_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "RETRY_SECONDS", 0.01)
    results = iter([False, False, True])
    watch = outages.DatabaseWatch(sa.create_engine("sqlite://"), lambda: None)
    monkeypatch.setattr(watch, "_connections", _ChangingSet())
    monkeypatch.setattr(watch, "_answers", lambda: next(results))
    watch.report_failure()
    wait_until(lambda: not watch.is_away)
    assert watch._connections.has_changed


def test_without_a_thread_that_waits_for_it_a_database_is_not_away(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = outages.DatabaseWatch(sa.create_engine("sqlite://"), lambda: None)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    watch.report_failure()
    assert not watch.is_away
