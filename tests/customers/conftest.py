"""A corner shop in a temporary home, and a way to hand it files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from customers import database, loading, shop
from customers.loading import Loaded
from customers.shop import Shop

LINES = "order_id,customer_id,product_id,sold_at,quantity,amount\n"


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `init` leaves it; copying it is quicker than making each anew."""
    return shop.init(tmp_path_factory.mktemp("new") / "shop", timezone="Europe/Berlin", currency="EUR").home


@pytest.fixture
def corner_shop(new_home: Path, tmp_path: Path) -> Shop:
    """Open since this morning, in Berlin, with nothing in it."""
    return shop.open(shutil.copytree(new_home, tmp_path / "shop"))


@pytest.fixture
def hand_in(tmp_path: Path) -> Callable[..., Loaded]:
    """Load a text as a CSV file: hand_in(shop, kind, text)."""

    def load(where: Shop, kind: str, text: str, **settings: object) -> Loaded:
        path = tmp_path / f"{kind}.csv"
        path.write_text(text, encoding="utf-8")
        return loading.load(where, kind, [path], **settings)  # type: ignore[arg-type]

    return load


@pytest.fixture
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
