"""A small grocer's home after its first night."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from customers import shop as shops
from customers.shop import Shop
from pipelines import night, steps


def open_shop(home: Path, files: Path) -> Shop:
    """A home with the small grocer's records, no night yet."""
    shop = shops.init(home, timezone="America/New_York", currency="USD", now="last-sale")
    for kind in ("customers", "products", "transactions", "offers", "interactions", "consents"):
        steps.ingest(shop, kind, [files / f"{kind}.csv"], source="files")
    return shop


def silent(text: str) -> None:
    """Nobody watches the night in a test."""


@pytest.fixture(scope="session")
def grocer(small_shop_files: Path) -> Callable[[Path], Shop]:
    """Opens the small grocer's shop in a new home: grocer(home)."""
    return lambda home: open_shop(home, small_shop_files)


@pytest.fixture(scope="session")
def first_night(small_shop_files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The home after one night, and what the night told; copy the home before changing it."""
    shop = open_shop(tmp_path_factory.mktemp("grocer") / "home", small_shop_files)
    told = night.run(shop, tell=silent)
    shutil.copytree(shop.home, shop.home.with_name("untouched"))
    return shop.home, told


@pytest.fixture(scope="session")
def untouched(first_night: tuple[Path, dict[str, Any]]) -> Path:
    """The home as the first night left it, whatever the tests have done in the first one's since; to be copied."""
    return first_night[0].with_name("untouched")
