"""The runbooks: their blocks of commands run as they stand, on homes that tests have broken."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from customers import setup
from customers.people import lookup
from customers.shop import settings

ROOT = Path(__file__).parents[3]
RUNBOOKS = (ROOT / "docs" / "operations" / "runbooks.md").read_text(encoding="utf-8")
BLOCK = re.compile(r'^( *)```sh title="([^"]+)"\n(.*?)^ *```$', re.DOTALL | re.MULTILINE)
BLOCKS = {title: re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, title, text in BLOCK.findall(RUNBOOKS)}
#: Run below; a block that is added to the page needs a test.
RUN_HERE = {
    "size", "backup", "backup of PostgreSQL", "apart", "restore", "restore of PostgreSQL", "tombstones",
    "after a restore", "upgrade", "night", "promotion", "disk", "caches", "key",
}  # fmt: skip

Runner = Callable[..., SimpleNamespace]


@pytest.fixture
def operate(tmp_path: Path) -> Runner:
    """Runs blocks of the runbooks, and commands, for a home: operate(home).block("backup"), operate(home).run("ls")."""
    for name in ("sqlite3", "flock", "pg_dump"):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}; apt-get install sqlite3 util-linux postgresql-client")
    folders = {"BACKUP": str(tmp_path / "backup"), "APART": str(tmp_path / "apart")}
    (tmp_path / "apart").mkdir(exist_ok=True)

    def for_home(home: Path, **variables: str) -> SimpleNamespace:
        environment = os.environ | folders | variables | {
            "REGULARS_HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip

        def run(text: str) -> str:
            done = subprocess.run(
                ["bash", "-eu", "-o", "pipefail", "-c", text], env=environment, cwd=tmp_path, capture_output=True,
                text=True, check=False, timeout=900,
            )  # fmt: skip
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
            return done.stdout

        return SimpleNamespace(block=lambda title: run(BLOCKS[title]), run=run)

    return for_home


def test_every_block_of_the_page_is_run_here() -> None:
    assert set(BLOCKS) == RUN_HERE


def write_people(folder: Path) -> Path:
    people = folder / "customers.csv"
    people.write_text("customer_id,given_name\nanna,Anna\nben,Ben\n", encoding="utf-8")
    return people


@pytest.mark.acceptance
def test_a_postgresql_database_is_backed_up_and_restored(
    operate: Runner, new_database: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database().replace("postgresql://", "postgresql+psycopg://")
    monkeypatch.setenv("REGULARS_DATABASE_URL", url)
    setup.init_home(tmp_path / "home")
    shop = operate(tmp_path / "home", REGULARS_DATABASE_URL=url)
    shop.run(f"regulars load customers {write_people(tmp_path)}; mkdir backup")
    shop.block("backup of PostgreSQL")
    shop.run("regulars customer erase anna --yes")
    shop.block("apart")

    restored_url = new_database().replace("postgresql://", "postgresql+psycopg://")
    restored = operate(tmp_path / "home", REGULARS_DATABASE_URL=restored_url)
    restored.block("restore of PostgreSQL")
    monkeypatch.setenv("REGULARS_DATABASE_URL", restored_url)
    opened = settings.open_shop(tmp_path / "home")
    assert set(lookup.find_keys(opened, ["anna", "ben"])) == {"anna", "ben"}
    restored.block("tombstones")
    assert set(lookup.find_keys(opened, ["anna", "ben"])) == {"ben"}


@pytest.mark.acceptance
def test_the_tables_are_upgraded_and_a_lost_key_is_put_back(operate: Runner, tmp_path: Path) -> None:
    home = setup.init_home(tmp_path / "home").home
    shop = operate(home)
    shop.block("apart")
    shop.block("size")
    assert "home" in shop.block("upgrade")
    (home / "keys" / "shop.key").unlink()
    with pytest.raises(AssertionError, match="the shop's key is missing"):
        shop.run("regulars doctor")
    shop.block("key")
    assert (home / "keys" / "shop.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.acceptance
def test_a_home_is_backed_up_lost_and_restored(operate: Runner, first_run: tuple[Path, dict], tmp_path: Path) -> None:
    """Everything of the backup serves again, except who was erased after it was made."""
    home = Path(shutil.copytree(first_run[0], tmp_path / "home"))
    shop = operate(home)
    shop.block("backup")
    before = shop.run("regulars customer show c003")
    shop.run("regulars customer erase c002 --yes")
    shop.block("apart")
    home.rename(tmp_path / "lost")

    shop.block("restore")
    assert shop.run("regulars customer show c003") == before
    assert "c002" in shop.run("regulars customer show c002")
    shop.block("tombstones")
    with pytest.raises(AssertionError, match="no customer has that id"):
        shop.run("regulars customer show c002")
    assert "--" not in shop.block("after a restore").split("ok  home")[1]
    assert "c002" not in shop.run("regulars export scores --out scores.csv && cat scores.csv")


@pytest.mark.acceptance
def test_incidents(operate: Runner, first_run: tuple[Path, dict], tmp_path: Path) -> None:
    """A bad promotion is taken back, a full disk is emptied, and what was deleted is made again."""
    home = Path(shutil.copytree(first_run[0], tmp_path / "home"))
    shop = operate(home)
    sale = tmp_path / "sale.csv"
    sale.write_text(
        "order_id,customer_id,product_id,sold_at,quantity,amount\nextra,c003,p01,2025-06-01T10:00:00,1,5\n",
        encoding="utf-8",
    )
    shop.run(f"regulars load transactions {sale} && regulars train churn && regulars promote churn")
    assert "2" in shop.run("regulars models | grep churn")
    shop.block("promotion")
    assert "2" in shop.run("regulars models | grep churn")
    shop.block("night")
    (home / "exports" / "old.csv").write_text("old")
    shop.block("disk")
    assert not list((home / "exports").iterdir())
    shop.block("caches")
    assert list((home / "features").rglob("*.parquet"))
    assert list((home / "ledger").rglob("*.parquet"))
