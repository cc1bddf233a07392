"""A corner shop in a temporary home, on each of the databases a shop may have, and a way to hand it files."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from customers import database, loading, shop
from customers.loading import Loaded
from customers.shop import Shop

LINES = "order_id,customer_id,product_id,sold_at,quantity,amount\n"


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `init` leaves it; copying it is quicker than making each anew."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "postgresql":
            patch.setenv("REGULARS_DATABASE_URL", request.getfixturevalue("new_database")())
        made = shop.init(tmp_path_factory.mktemp("new") / "shop", timezone="Europe/Berlin", currency="EUR")
    move(made.home, made.database_url)
    return made.home


@pytest.fixture(scope="session")
def copied(request: pytest.FixtureRequest) -> Callable[[Path, Path], Shop]:
    """A shop that is as another one: copied(its home, where to), with a database of its own beside it."""

    def copy(original: Path, place: Path) -> Shop:
        like = shop.open(original)
        database.engine(like).dispose()  # a server copies no database that anybody has open
        home = shutil.copytree(original, place)
        on_a_server = like.database_url.startswith("postgresql")
        url = request.getfixturevalue("new_database")(like.database_url) if on_a_server else f"sqlite:///{home}/shop.db"
        move(home, url)
        return shop.open(home)

    return copy


@pytest.fixture(scope="session")
def spare() -> list[str]:
    """Databases on a server that a test has emptied again: quicker than a new one for each."""
    return []


@pytest.fixture
def corner_shop(
    copied: Callable[[Path, Path], Shop], spare: list[str], new_home: Path, tmp_path: Path
) -> Iterator[Shop]:
    """Open since this morning, in Berlin, with nothing in it; once on SQLite, once on PostgreSQL."""
    on_a_server = shop.open(new_home).database_url.startswith("postgresql")
    if on_a_server and spare:
        move(shutil.copytree(new_home, tmp_path / "shop"), spare.pop())
        here = shop.open(tmp_path / "shop")
    else:
        here = copied(new_home, tmp_path / "shop")
    yield here
    if on_a_server:
        with database.writing(here) as connection:
            for table in reversed(database.metadata.sorted_tables):
                connection.execute(table.delete())
        spare.append(here.database_url)
    database.engine(here).dispose()


def move(home: Path, url: str) -> None:
    """Say in a home's settings where its database is."""
    settings = (home / "regulars.toml").read_text(encoding="utf-8")
    first = [line for line in settings.splitlines() if not line.startswith("database_url")]
    (home / "regulars.toml").write_text("\n".join([f'database_url = "{url}"', *first]) + "\n", encoding="utf-8")


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Shop:
    """A shop whose database is a file, for what only SQLite has."""
    return shop.init(tmp_path / "shop")


@pytest.fixture(scope="session")
def hand_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Loaded]:
    """Load a text as a CSV file: hand_in(shop, kind, text)."""
    folder = tmp_path_factory.mktemp("handed-in")

    def load(where: Shop, kind: str, text: str, **settings: object) -> Loaded:
        path = folder / f"{kind}.csv"
        path.write_text(text, encoding="utf-8")
        return loading.load(where, kind, [path], **settings)  # type: ignore[arg-type]

    return load


@pytest.fixture(scope="session")
def sell(hand_in: Callable[..., Loaded]) -> Callable[..., Loaded]:
    """Load lines of `order, customer, product, sold_at, quantity, amount`."""
    return lambda where, lines, **settings: hand_in(where, "transactions", LINES + lines, **settings)


@pytest.fixture
def rows() -> Callable[..., list[tuple]]:
    """What a table holds: rows(shop, "select ...")."""

    def ask(where: Shop, query: str) -> list[tuple]:
        with database.reading(where) as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]

    return ask
