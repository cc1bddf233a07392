"""A small grocer's home after its first night."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from customers import setup
from customers.database import engine
from customers.shop.settings import Shop
from pipelines import operations
from pipelines.nightly import run as nightly_run


def open_shop(home: Path, files: Path) -> Shop:
    """A home with the small grocer's records, no night yet."""
    shop = setup.init_home(home, timezone="America/New_York", currency="USD", now="last-sale")
    for kind in ("customers", "products", "transactions", "offers", "interactions", "consents"):
        operations.load_records(shop, kind, [files / f"{kind}.csv"], source="files")
    return shop


def silent(text: str) -> None:
    """Nobody watches the night in a test."""


@pytest.fixture(scope="session")
def grocer(small_shop_files: Path) -> Callable[[Path], Shop]:
    """Opens the small grocer's shop in a new home: grocer(home)."""
    return lambda home: open_shop(home, small_shop_files)


@pytest.fixture(scope="session")
def first_night_home(small_shop_files: Path, build_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The home as its first night left it; to be copied, for other tests read it too."""

    def make(folder: Path) -> None:
        shop = open_shop(folder / "home", small_shop_files)
        summary = nightly_run.run_nightly(shop, progress=silent)
        engine.get_engine(shop).dispose()  # whoever copies the home finds all of it in one file
        (folder / "told.json").write_text(json.dumps(summary))

    return build_once("first-night", make) / "home"


@pytest.fixture(scope="session")
def first_night(first_night_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home after one night that tests may go on with, and what the night told."""
    home = tmp_path_factory.mktemp("grocer") / "home"
    shutil.copytree(first_night_home, home)
    return home, json.loads(first_night_home.with_name("told.json").read_text())
