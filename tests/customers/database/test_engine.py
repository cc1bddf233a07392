"""Transactions on SQLite and PostgreSQL: one state for readers, one writer at a time, errors without personal data."""

import sqlite3
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import sqlalchemy as sa

from customers.database import engine, schema
from customers.loading import load
from customers.loading.load import LoadResult
from customers.shop.errors import ShopUnavailable
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]
COUNT = sa.select(sa.func.count()).select_from(schema.transactions)


def test_no_write_of_concurrent_writers_is_lost(corner_shop: Shop, tmp_path: Path) -> None:
    def load_customers(number: int) -> LoadResult:
        path = tmp_path / f"c{number}.csv"
        path.write_text("customer_id\n" + "".join(f"{number}-{n}\n" for n in range(20)))
        return load.load_files(corner_shop, "customers", [path])

    with ThreadPoolExecutor(4) as pool:
        assert sum(loaded.inserted for loaded in pool.map(load_customers, range(8))) == 8 * 20


def test_a_writer_waits_until_the_writer_before_has_committed(corner_shop: Shop) -> None:
    events = []

    def second() -> None:
        with engine.write_transaction(corner_shop):
            events.append("second")

    with engine.write_transaction(corner_shop):
        other = Thread(target=second)
        other.start()
        other.join(timeout=0.3)
        events.append("first")
    other.join()
    assert events == ["first", "second"]


def test_writers_of_different_rows_write_beside_each_other_where_the_database_can(corner_shop: Shop) -> None:
    events = []

    def write(name: str, *, is_parallel: bool) -> None:
        with engine.write_transaction(corner_shop, is_parallel=is_parallel):
            events.append(name)

    other = Thread(target=write, args=("other",), kwargs={"is_parallel": True})
    lone = Thread(target=write, args=("lone",), kwargs={"is_parallel": False})
    with engine.write_transaction(corner_shop, is_parallel=True):
        other.start()
        other.join(5 if not corner_shop.has_one_writer else 0.3)
        lone.start()
        lone.join(0.3)
        events.append("first")
    other.join()
    lone.join()
    if corner_shop.has_one_writer:
        assert events[0] == "first"
    else:
        assert events == ["other", "first", "lone"]


def test_a_reader_reads_one_state_while_others_write(corner_shop: Shop, load_lines: Load) -> None:
    load_lines(corner_shop, "1,anna,bread,2017-11-01T10:00Z,1,2.50\n")
    with engine.read_transaction(corner_shop) as connection:
        before = connection.execute(COUNT).scalar()
        load_lines(corner_shop, "2,anna,bread,2017-11-02T10:00Z,1,2.50\n")
        assert connection.execute(COUNT).scalar() == before == 1
    with engine.read_transaction(corner_shop) as connection:
        assert connection.execute(COUNT).scalar() == 2


def test_a_pooled_connection_of_a_reader_serves_the_next_writer(corner_shop: Shop, load_lines: Load) -> None:
    for order in range(3):
        with engine.read_transaction(corner_shop) as connection:
            assert connection.execute(COUNT).scalar() == order
        load_lines(corner_shop, f"{order},anna,bread,2017-11-01T10:00Z,1,2.50\n")


@pytest.mark.parametrize("wrong", ["null", "twice", "unknown", "too large"])
def test_a_database_error_does_not_print_the_values_of_the_row(corner_shop: Shop, load_lines: Load, wrong: str) -> None:
    """PostgreSQL would quote the whole row that it refuses."""
    load_lines(corner_shop, "1,Kanarienvogel,bread,2017-11-01T10:00Z,1,2.50\n")
    statement = "insert into identities (source, customer_id, customer_key) values (:source, :id, :key)"
    values = {"source": "files", "id": "Kanarienvogel", "key": 123454321}
    values |= {
        "null": {"source": None},
        "twice": {},
        "unknown": {"id": "Kanarienvogel 2"},
        "too large": {"key": 2**70},
    }[wrong]
    with (
        pytest.raises(Exception, match=r"identities|\w") as failed,
        engine.write_transaction(corner_shop) as connection,
    ):
        connection.execute(sa.text(statement), values)
    message = "".join(traceback.format_exception(failed.value))
    assert "Kanarienvogel" not in message
    assert "123454321" not in message


@pytest.mark.parametrize("url", ["postgresql://grocer:Kanarienvogel@127.0.0.1:1/shop", "sqlite:////nowhere/shop.db"])
def test_an_unreachable_database_is_named_without_its_password(corner_shop: Shop, url: str) -> None:
    with (
        pytest.raises(ShopUnavailable, match="does not answer at") as error,
        engine.read_transaction(replace(corner_shop, database_url=url)),
    ):
        pass
    assert url.partition(":")[0] in str(error.value)
    assert "Kanarienvogel" not in str(error.value)


def test_unusual_characters_are_stored_or_removed(
    corner_shop: Shop, load_text: Load, fetch_rows: Callable[..., list[tuple]]
) -> None:
    """NUL, which PostgreSQL cannot store, an emoji, quotes, placeholders."""
    unusual = ["nul\0here", "家🛒", "o'neill", "%s :name ?", "back\\slash"]
    text = "product_id,name\n" + "".join(f"{number},{name}\n" for number, name in enumerate(unusual))
    assert load_text(corner_shop, "products", text).inserted == len(unusual)
    stored = [name for (name,) in fetch_rows(corner_shop, "select name from products order by product_id")]
    assert stored == ["nulhere", *unusual[1:]]


@pytest.mark.parametrize("letter", ["a", "家"])
def test_an_id_longer_than_an_index_key_is_rejected(corner_shop: Shop, load_lines: Load, letter: str) -> None:
    """Letters differ from one another; PostgreSQL would compress equal ones into a few bytes."""
    longest = "".join(chr(ord(letter) + number % 20) for number in range(200))
    lines = [f"{longest},{longest},{longest},2017-11-01,1,1", f"{longest}x,a,b,2017-11-01,1,1"]
    lines += [f"1,{longest}x,b,2017-11-01,1,1", f"1,a,{longest}x,2017-11-01,1,1"]
    loaded = load_lines(corner_shop, "\n".join(lines) + "\n")
    assert (loaded.inserted, loaded.rejected) == (1, 3)
    assert loaded.reasons == {
        f"{name}_id is longer than 200 characters": 1 for name in ("order", "customer", "product")
    }


def test_a_list_item_longer_than_an_index_key_is_rejected(corner_shop: Shop, load_text: Load) -> None:
    letters = "".join(chr(ord("家") + number % 50) for number in range(1_000))
    head = "offer_id,starts_at,ends_at,product_ids,categories\n"
    loaded = load_text(
        corner_shop, "offers", f"{head}1,2017-11-01,2017-12-01,{letters},\n2,2017-11-01,2017-12-01,,{letters}\n"
    )
    assert loaded.reasons == {
        "product_ids has a part longer than 200 characters": 1,
        "categories has a part longer than 200 characters": 1,
    }
    consent = f"customer_id,purpose,state,at,source\nanna,profiling,denied,2017-11-01,{letters}\n"
    assert load_text(corner_shop, "consents", consent).reasons == {"source is longer than 200 characters": 1}


def test_the_sqlite_file_has_durable_settings(sqlite_shop: Shop) -> None:
    with engine.read_transaction(sqlite_shop) as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        assert [connection.execute(sa.text(f"pragma {name}")).scalar() for name in pragmas] == ["wal", 2, 1, 1]


def test_a_writer_locks_the_sqlite_file_at_once(sqlite_shop: Shop) -> None:
    with engine.write_transaction(sqlite_shop):
        other = sqlite3.connect(sqlite_shop.home / "shop.db", timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("begin immediate")
        other.close()
