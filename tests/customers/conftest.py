"""Fixtures: a small shop in a temporary home, on SQLite and on PostgreSQL, and loaders of CSV text into it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from customers import setup
from customers.database import engine, schema
from customers.loading import load
from customers.loading.load import LoadResult
from customers.shop import settings
from customers.shop.settings import Shop

LINE_HEADER = "order_id,customer_id,product_id,sold_at,quantity,amount\n"


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `init` makes it; copying it is faster than making a new one for each test."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "postgresql":
            patch.setenv("REGULARS_DATABASE_URL", request.getfixturevalue("new_database")())
        new_shop = setup.init_home(tmp_path_factory.mktemp("new") / "shop", timezone="Europe/Berlin", currency="EUR")
    set_database_url(new_shop.home, new_shop.database_url)
    return new_shop.home


@pytest.fixture(scope="session")
def copy_shop(request: pytest.FixtureRequest) -> Callable[[Path, Path], Shop]:
    """Copy a shop, with a database of its own: copy_shop(its home, the new home)."""

    def copy(original: Path, target: Path) -> Shop:
        source_shop = settings.open_shop(original)
        engine.get_engine(source_shop).dispose()  # PostgreSQL copies no database with an open connection
        home = shutil.copytree(original, target)
        is_on_server = source_shop.database_url.startswith("postgresql")
        url = (
            request.getfixturevalue("new_database")(source_shop.database_url)
            if is_on_server
            else f"sqlite:///{home}/shop.db"
        )
        set_database_url(home, url)
        return settings.open_shop(home)

    return copy


@pytest.fixture(scope="session")
def spare_databases() -> list[str]:
    """Databases on a server that an earlier test has emptied: faster than a new one for each test."""
    return []


@pytest.fixture
def corner_shop(
    copy_shop: Callable[[Path, Path], Shop], spare_databases: list[str], new_home: Path, tmp_path: Path
) -> Iterator[Shop]:
    """An empty shop in Berlin; once on SQLite, once on PostgreSQL."""
    is_on_server = settings.open_shop(new_home).database_url.startswith("postgresql")
    if is_on_server and spare_databases:
        set_database_url(shutil.copytree(new_home, tmp_path / "shop"), spare_databases.pop())
        shop = settings.open_shop(tmp_path / "shop")
    else:
        shop = copy_shop(new_home, tmp_path / "shop")
    yield shop
    if is_on_server:
        with engine.write_transaction(shop) as connection:
            for table in reversed(schema.metadata.sorted_tables):
                connection.execute(table.delete())
        spare_databases.append(shop.database_url)
    engine.get_engine(shop).dispose()


def set_database_url(home: Path, url: str) -> None:
    """Write the address of the database into the settings of a home."""
    settings_text = (home / "regulars.toml").read_text(encoding="utf-8")
    other_lines = [line for line in settings_text.splitlines() if not line.startswith("database_url")]
    (home / "regulars.toml").write_text("\n".join([f'database_url = "{url}"', *other_lines]) + "\n", encoding="utf-8")


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Shop:
    """A shop on SQLite, for what only SQLite has."""
    return setup.init_home(tmp_path / "shop")


@pytest.fixture(scope="session")
def load_text(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadResult]:
    """Load a text as a CSV file: load_text(shop, kind, text)."""
    folder = tmp_path_factory.mktemp("loaded")

    def load_csv(shop: Shop, kind: str, text: str, **options: object) -> LoadResult:
        path = folder / f"{kind}.csv"
        path.write_text(text, encoding="utf-8")
        return load.load_files(shop, kind, [path], **options)  # type: ignore[arg-type]

    return load_csv


@pytest.fixture(scope="session")
def load_lines(load_text: Callable[..., LoadResult]) -> Callable[..., LoadResult]:
    """Load lines of `order, customer, product, sold_at, quantity, amount`."""
    return lambda shop, lines, **options: load_text(shop, "transactions", LINE_HEADER + lines, **options)


@pytest.fixture
def fetch_rows() -> Callable[..., list[tuple]]:
    """Rows of a query: fetch_rows(shop, "select ...")."""

    def query_rows(shop: Shop, query: str) -> list[tuple]:
        with engine.read_transaction(shop) as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]

    return query_rows
