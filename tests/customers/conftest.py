"""A corner shop in a temporary home, on each of the databases a shop may have, and a way to hand it files."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from customers import setup
from customers.database import engine, schema
from customers.loading import load as loading_load
from customers.loading.load import LoadResult
from customers.shop import settings
from customers.shop.settings import Shop

LINE_HEADER = "order_id,customer_id,product_id,sold_at,quantity,amount\n"


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `init` leaves it; copying it is quicker than making each anew."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "postgresql":
            patch.setenv("REGULARS_DATABASE_URL", request.getfixturevalue("new_database")())
        made = setup.init_home(tmp_path_factory.mktemp("new") / "shop", timezone="Europe/Berlin", currency="EUR")
    set_database_url(made.home, made.database_url)
    return made.home


@pytest.fixture(scope="session")
def copy_shop(request: pytest.FixtureRequest) -> Callable[[Path, Path], Shop]:
    """A shop that is as another one: copied(its home, where to), with a database of its own beside it."""

    def copy(original: Path, place: Path) -> Shop:
        like = settings.open_shop(original)
        engine.get_engine(like).dispose()  # a server copies no database that anybody has open
        home = shutil.copytree(original, place)
        on_a_server = like.database_url.startswith("postgresql")
        url = request.getfixturevalue("new_database")(like.database_url) if on_a_server else f"sqlite:///{home}/shop.db"
        set_database_url(home, url)
        return settings.open_shop(home)

    return copy


@pytest.fixture(scope="session")
def spare_databases() -> list[str]:
    """Databases on a server that a test has emptied again: quicker than a new one for each."""
    return []


@pytest.fixture
def corner_shop(
    copy_shop: Callable[[Path, Path], Shop], spare_databases: list[str], new_home: Path, tmp_path: Path
) -> Iterator[Shop]:
    """Open since this morning, in Berlin, with nothing in it; once on SQLite, once on PostgreSQL."""
    on_a_server = settings.open_shop(new_home).database_url.startswith("postgresql")
    if on_a_server and spare_databases:
        set_database_url(shutil.copytree(new_home, tmp_path / "shop"), spare_databases.pop())
        this_shop = settings.open_shop(tmp_path / "shop")
    else:
        this_shop = copy_shop(new_home, tmp_path / "shop")
    yield this_shop
    if on_a_server:
        with engine.write_transaction(this_shop) as connection:
            for table in reversed(schema.metadata.sorted_tables):
                connection.execute(table.delete())
        spare_databases.append(this_shop.database_url)
    engine.get_engine(this_shop).dispose()


def set_database_url(home: Path, url: str) -> None:
    """Say in a home's settings where its database is."""
    settings = (home / "regulars.toml").read_text(encoding="utf-8")
    first = [line for line in settings.splitlines() if not line.startswith("database_url")]
    (home / "regulars.toml").write_text("\n".join([f'database_url = "{url}"', *first]) + "\n", encoding="utf-8")


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Shop:
    """A shop whose database is a file, for what only SQLite has."""
    return setup.init_home(tmp_path / "shop")


@pytest.fixture(scope="session")
def load_text(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadResult]:
    """Load a text as a CSV file: load_text(shop, kind, text)."""
    folder = tmp_path_factory.mktemp("handed-in")

    def load_csv(where: Shop, kind: str, text: str, **settings: object) -> LoadResult:
        path = folder / f"{kind}.csv"
        path.write_text(text, encoding="utf-8")
        return loading_load.load_files(where, kind, [path], **settings)  # type: ignore[arg-type]

    return load_csv


@pytest.fixture(scope="session")
def load_lines(load_text: Callable[..., LoadResult]) -> Callable[..., LoadResult]:
    """Load lines of `order, customer, product, sold_at, quantity, amount`."""
    return lambda where, lines, **settings: load_text(where, "transactions", LINE_HEADER + lines, **settings)


@pytest.fixture
def fetch_rows() -> Callable[..., list[tuple]]:
    """What a table holds: rows(shop, "select ...")."""

    def query_rows(where: Shop, query: str) -> list[tuple]:
        with engine.read_transaction(where) as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]

    return query_rows
