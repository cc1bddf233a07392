"""Database: the one door to the customer database, SQLite in the home or PostgreSQL by its address."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from alembic.config import Config

    from customers.shop import Shop

Row = TypeVar("Row")
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = sa.MetaData(naming_convention=NAMES)

PRAGMAS = (
    "busy_timeout = 60000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
    "temp_store = MEMORY",
    "cache_size = -65536",
    # A bulk load touches the same index pages again and again: write them back once, not with every slice.
    "wal_autocheckpoint = 10000",
    "journal_size_limit = 67108864",
)
# Any fixed number: PostgreSQL's writers queue on it as SQLite's queue on the file.
WRITERS_LOCK = 7274001


def engine(shop: "Shop") -> sa.Engine:
    """The engine of the shop's database, one a process and address."""
    return _engine(shop.database_url)


@contextmanager
def reading(shop: "Shop") -> Iterator[sa.Connection]:
    """A connection that sees one state of the database and changes nothing."""
    with _open(engine(shop).execution_options(**_of_a_reader(shop))) as connection:
        yield connection


@contextmanager
def writing(shop: "Shop") -> Iterator[sa.Connection]:
    """A connection in a write transaction: all of it is kept at the end, or nothing."""
    with _open(engine(shop)) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITERS_LOCK)))
        yield connection


@contextmanager
def rehearsing(shop: "Shop") -> Iterator[sa.Connection]:
    """As `writing`, but at the end everything is taken back."""
    with writing(shop) as connection:
        yield connection
        connection.rollback()


def wipe(shop: "Shop") -> bool:
    """See that what was deleted leaves the database's files as well; False where somebody still reads it.

    SQLite overwrites what it deletes, but its log holds the old pages until it is emptied. PostgreSQL keeps
    the keys of deleted people until their table is rewritten; its own log and backups are for who runs it.
    """
    source = engine(shop)
    if source.dialect.name == "sqlite":
        return _empty_log(source)
    with source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("set lock_timeout = '3s'")
        try:
            connection.exec_driver_sql("vacuum full person_keys")
        except sa.exc.OperationalError:
            return False
        finally:
            connection.exec_driver_sql("reset lock_timeout")
    return True


def upgrade(shop: "Shop") -> None:
    """Bring the schema of the shop's database to this version of regulars. Does nothing where it is."""
    from alembic import command  # here: alembic is slow to load and rarely needed

    with writing(shop) as connection:
        command.upgrade(migrations(connection), "head")


def migrations(connection: sa.Connection) -> "Config":
    """Alembic's settings for this connection: the migrations lie beside this file, wherever it is installed."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings


def insert_many(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Insert tuples as they are, many at once; a dict a row would cost several times as much."""
    statement = f"insert into {table.name} ({', '.join(columns)}) values ({marks(connection, len(columns))})"
    for slice_ in chunks(rows, 20_000):
        connection.exec_driver_sql(statement, slice_)


def fetched(
    connection: sa.Connection, query: sa.Select | sa.CompoundSelect, size: int
) -> Iterator[Sequence[Sequence[Any]]]:
    """The rows of a query in lists of at most `size`, plain tuples where the driver streams them anyway."""
    if connection.dialect.name == "sqlite":
        fetch: Any = connection.execute(query).cursor.fetchmany
    else:
        fetch = connection.execute(query, execution_options={"stream_results": True}).fetchmany
    while rows := fetch(size):
        yield rows


def marks(connection: sa.Connection, count: int) -> str:
    """Placeholders for so many values, as this database's driver writes them."""
    return ", ".join(["?" if connection.dialect.paramstyle == "qmark" else "%s"] * count)


def chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Rows in lists of at most `size`."""
    rest = iter(rows)
    while chunk := list(islice(rest, size)):
        yield chunk


def _empty_log(source: sa.Engine) -> bool:
    raw = source.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute("pragma busy_timeout = 3000")
        busy = cursor.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
        cursor.execute(f"pragma {PRAGMAS[0]}")
        return not busy
    finally:
        raw.close()


def _of_a_reader(shop: "Shop") -> dict[str, Any]:
    if shop.database_url.startswith("sqlite"):
        return {"read_only": True}
    # By itself PostgreSQL shows each statement what others have written in between.
    return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


@cache
def _engine(url: str) -> sa.Engine:
    # hide_parameters: an error message must not print what a statement carried.
    made = sa.create_engine(make_url(url), hide_parameters=True, pool_pre_ping=not url.startswith("sqlite"))
    if made.dialect.name == "sqlite":
        sa.event.listen(made, "connect", _settle)
        sa.event.listen(made, "begin", _begin)
    sa.event.listen(made, "handle_error", _say_no_values)
    return made


def _settle(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin says, not where the driver guesses
    for pragma in PRAGMAS:
        connection.execute(f"pragma {pragma}")


def _begin(connection: sa.Connection) -> None:
    """A writer takes its lock at once: one that upgrades later fails as soon as two try."""
    read_only = connection.get_execution_options().get("read_only")
    connection.exec_driver_sql("begin" if read_only else "begin immediate")


def _say_no_values(failure: sa.engine.ExceptionContext) -> None:
    """PostgreSQL quotes the row that it refuses, and rows are about people: an error names the table and the rule."""
    wrong: Any = failure.original_exception
    place = getattr(wrong, "diag", None)
    # Class 42 speaks of the statement alone, and our statements carry no values.
    if place is None or place.sqlstate is None or place.sqlstate.startswith("42"):
        return
    named = [name for name in (place.table_name, place.column_name, place.constraint_name) if name]
    wrong.args = (f"{type(wrong).__name__} ({place.sqlstate}) {', '.join(named)}",)
    if failure.sqlalchemy_exception is not None:
        failure.sqlalchemy_exception.args = wrong.args


@contextmanager
def _open(source: sa.Engine) -> Iterator[sa.Connection]:
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(source.begin())
        except sa.exc.OperationalError:
            raise _down(source) from None
        yield connection


def _down(source: sa.Engine) -> Exception:
    from customers.shop import ShopDown  # here: the shop's settings know this module

    place = source.url.render_as_string(hide_password=True)
    return ShopDown(f"the customer database does not answer at {place}; check database_url")
