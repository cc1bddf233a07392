"""A small grocer's home before and after its first nightly run."""

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


def create_small_shop(home: Path, files: Path) -> Shop:
    """A new home with the small grocer's records, before any nightly run."""
    shop = setup.init_home(home, timezone="America/New_York", currency="USD", now="last-sale")
    for kind in ("customers", "products", "transactions", "offers", "interactions", "consents"):
        operations.load_records(shop, kind, [files / f"{kind}.csv"], source="files")
    return shop


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="session")
def new_small_shop(small_shop_files: Path) -> Callable[[Path], Shop]:
    """Creates the small grocer's shop in a new home: new_small_shop(home)."""
    return lambda home: create_small_shop(home, small_shop_files)


@pytest.fixture(scope="session")
def first_run_home(small_shop_files: Path, build_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The home after its first nightly run; copy it before changing it, since other tests read it too."""

    def make(folder: Path) -> None:
        shop = create_small_shop(folder / "home", small_shop_files)
        summary = nightly_run.run_nightly(shop, progress=ignore_progress)
        engine.get_engine(shop).dispose()  # the whole database is then in one file, which can be copied
        (folder / "summary.json").write_text(json.dumps(summary))

    return build_once("first-run", make) / "home"


@pytest.fixture(scope="session")
def first_run(first_run_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home after one nightly run, which tests may change, and the summary of the run."""
    home = tmp_path_factory.mktemp("grocer") / "home"
    shutil.copytree(first_run_home, home)
    return home, json.loads(first_run_home.with_name("summary.json").read_text())
