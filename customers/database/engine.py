"""Connections and transactions of the customer database: SQLite in the home folder, or PostgreSQL by its URL.

All access goes through this module.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from customers import tracing
from customers.database import outages

if TYPE_CHECKING:
    from alembic.config import Config

    from customers.shop.settings import Shop

Item = TypeVar("Item")
#: A connection in a transaction of the caller, as the type of an argument outside `customers`.
Connection = sa.Connection

#: So long a connection to SQLite waits for the lock of another.
WAIT_SECONDS = 60
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
    "temp_store = MEMORY",
    f"cache_size = -{int(os.environ.get('REGULARS_SQLITE_CACHE_KB', '65536'))}",
    # A bulk load changes the same index pages many times: write them back once, not after every batch.
    "wal_autocheckpoint = 10000",
    "journal_size_limit = 67108864",
)
# Any fixed number: writers to PostgreSQL queue on this advisory lock, as writers to SQLite queue on the file.
WRITE_LOCK_ID = 7274001
#: So long a server is waited for that accepts no connection and does not refuse one either.
CONNECT_SECONDS = 10


def get_engine(shop: "Shop") -> sa.Engine:
    """The SQLAlchemy engine of the shop's database; one per process and URL."""
    return _create_engine(shop.database_url)


def connect_directly(sa_engine: sa.Engine, *, seconds: int) -> Any:
    """A driver's connection outside the pool, without SQLAlchemy; a statement waits for a locked file so many seconds.

    On PostgreSQL each statement is a transaction of its own.
    """
    arguments, options = sa_engine.dialect.create_connect_args(sa_engine.url)
    if sa_engine.dialect.name == "sqlite":
        connection: Any = sa_engine.dialect.connect(*arguments, **options)
        _configure_sqlite(connection, None, wait_seconds=seconds)
        return connection
    connection = sa_engine.dialect.connect(*arguments, **{"connect_timeout": seconds, **options})
    connection.autocommit = True
    connection.execute(f"set statement_timeout = {seconds * 1000}")
    return connection


@contextmanager
def read_transaction(shop: "Shop") -> Iterator[sa.Connection]:
    """A read-only connection that sees one snapshot of the database."""
    with _open_connection(get_engine(shop).execution_options(**_read_options(shop))) as connection:
        yield connection


@contextmanager
def write_transaction(shop: "Shop", *, is_parallel: bool = False) -> Iterator[sa.Connection]:
    """A connection in a write transaction, committed at the end or rolled back as a whole.

    Writers run one at a time; on PostgreSQL those with is_parallel, which must write different rows, beside each other.
    """
    with _open_connection(get_engine(shop)) as connection:
        if connection.dialect.name == "postgresql":
            lock = sa.func.pg_advisory_xact_lock_shared if is_parallel else sa.func.pg_advisory_xact_lock
            connection.execute(sa.select(lock(WRITE_LOCK_ID)))
        yield connection


@contextmanager
def dry_run_transaction(shop: "Shop") -> Iterator[sa.Connection]:
    """As `write_transaction`, but everything is rolled back at the end."""
    with write_transaction(shop) as connection:
        yield connection
        connection.rollback()


def purge_deleted(shop: "Shop") -> bool:
    """Remove deleted rows from the database's files as well; False where another reader prevents it for now.

    SQLite overwrites what it deletes (secure_delete), but its write-ahead log holds the old pages until it is
    truncated. PostgreSQL keeps the keys of deleted people until their table is rewritten; its own log and its backups
    are the responsibility of the operator.
    """
    sa_engine = get_engine(shop)
    if sa_engine.dialect.name == "sqlite":
        return _truncate_wal(sa_engine)
    with sa_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("set lock_timeout = '3s'")
        try:
            connection.exec_driver_sql("vacuum full person_keys")
        except sa.exc.OperationalError:
            return False
        finally:
            connection.exec_driver_sql("reset lock_timeout")
    return True


def upgrade_schema(shop: "Shop") -> None:
    """Migrate the schema of the shop's database to this version of regulars; does nothing where it is current."""
    from alembic import command  # imported here: alembic is slow to load and rarely needed

    with write_transaction(shop) as connection:
        command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: sa.Connection) -> "Config":
    """Alembic's configuration for this connection; the migrations are in the folder beside this file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def insert_many(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Insert tuples in batches through the driver; one dict per row would cost several times as much."""
    statement = f"insert into {table.name} ({', '.join(columns)}) values ({placeholders(connection, len(columns))})"
    for chunk in chunks(rows, 20_000):
        connection.exec_driver_sql(statement, chunk)


def fetch_batches(
    connection: sa.Connection, query: sa.Select | sa.CompoundSelect, size: int
) -> Iterator[Sequence[Sequence[Any]]]:
    """The rows of a query in lists of at most `size`; plain tuples from the cursor where the database is SQLite."""
    if connection.dialect.name == "sqlite":
        fetch: Any = connection.execute(query).cursor.fetchmany
    else:
        fetch = connection.execute(query, execution_options={"stream_results": True}).fetchmany
    while rows := fetch(size):
        yield rows


def placeholders(connection: sa.Connection, count: int) -> str:
    """`count` placeholders separated by commas, in the style of this database's driver."""
    return ", ".join(["?" if connection.dialect.paramstyle == "qmark" else "%s"] * count)


def chunks(rows: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The rows in lists of at most `size`."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _truncate_wal(sa_engine: sa.Engine) -> bool:
    raw_connection = sa_engine.raw_connection()
    try:
        cursor = raw_connection.cursor()
        cursor.execute("pragma busy_timeout = 3000")
        is_busy = cursor.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
        cursor.execute(f"pragma busy_timeout = {WAIT_SECONDS * 1000}")
        return not is_busy
    finally:
        raw_connection.close()


def _read_options(shop: "Shop") -> dict[str, Any]:
    if shop.database_url.startswith("sqlite"):
        return {"read_only": True}
    # PostgreSQL's default level would show each statement what other transactions committed in between.
    return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


@cache
def _create_engine(url: str) -> sa.Engine:
    # hide_parameters: an error message must not print the values of a statement.
    # Connections to a file cost nothing; a server has a limit, and who finds none gets ShopUnavailable.
    is_file = url.startswith("sqlite")
    pool: dict[str, Any] = (
        {"max_overflow": -1}
        if is_file
        else {
            "pool_pre_ping": True,
            "pool_size": 10,
            "max_overflow": 30,
            "connect_args": {"connect_timeout": CONNECT_SECONDS},
        }
    )
    sa_engine = sa.create_engine(make_url(url), hide_parameters=True, **pool)
    if sa_engine.dialect.name == "sqlite":
        sa.event.listen(sa_engine, "connect", _configure_sqlite)
        sa.event.listen(sa_engine, "begin", _begin_transaction)
    sa.event.listen(sa_engine, "handle_error", _redact_error)
    return sa_engine


def _configure_sqlite(connection: Any, _record: Any, *, wait_seconds: int = WAIT_SECONDS) -> None:
    connection.isolation_level = None  # _begin_transaction starts transactions, not the driver
    for pragma in (f"busy_timeout = {wait_seconds * 1000}", *PRAGMAS):
        connection.execute(f"pragma {pragma}")


def _begin_transaction(connection: sa.Connection) -> None:
    """A writer takes its lock at once: upgrading a read lock later fails as soon as two writers try."""
    read_only = connection.get_execution_options().get("read_only")
    connection.exec_driver_sql("begin" if read_only else "begin immediate")


def _redact_error(context: sa.engine.ExceptionContext) -> None:
    """Reduce a PostgreSQL error to table, column and constraint: its text quotes the row, which may be personal."""
    original: Any = context.original_exception
    diagnostics = getattr(original, "diag", None)
    # Errors of class 42 quote only the statement, and our statements contain no values.
    if diagnostics is None or diagnostics.sqlstate is None or diagnostics.sqlstate.startswith("42"):
        return
    identifiers = [
        name for name in (diagnostics.table_name, diagnostics.column_name, diagnostics.constraint_name) if name
    ]
    original.args = (f"{type(original).__name__} ({diagnostics.sqlstate}) {', '.join(identifiers)}",)
    if context.sqlalchemy_exception is not None:
        context.sqlalchemy_exception.args = original.args


@contextmanager
def _open_connection(sa_engine: sa.Engine) -> Iterator[sa.Connection]:
    outages.check(sa_engine)
    try:
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(sa_engine.begin())
            except (sa.exc.OperationalError, sa.exc.TimeoutError):
                raise outages.unavailable_error(sa_engine) from None
            stack.enter_context(tracing.span("database transaction", **{"db.system.name": sa_engine.dialect.name}))
            yield connection
    except sa.exc.DBAPIError as error:  # also that of the commit
        if error.connection_invalidated:  # the server has ended, or the network
            raise outages.unavailable_error(sa_engine) from None
        raise
