"""A disk that fills in the middle of a night: the night ends with an error, nothing half-written is used, and it can be
run again."""

import errno
import hashlib
import shutil
from pathlib import Path

import pandas as pd
import pytest

from customers.parquet import mirror
from customers.reports import exports
from customers.scores import score_store
from customers.shop import settings
from customers.shop.settings import Shop
from features.engine import duckdb
from features.products import co_purchases
from models.registry import bundle, mlflow_registry
from pipelines import operations
from pipelines.errors import EXIT_UNAVAILABLE, explain_error
from pipelines.nightly import run as nightly_run

pytestmark = pytest.mark.acceptance  # nights

#: What a night writes, in this order, and how many of these writes succeed.
WRITES = [
    (mirror, "refresh", 1),
    (duckdb, "write_parquet", 0),
    (duckdb, "write_parquet", 4),
    (co_purchases, "save_co_purchases", 0),
    (bundle, "write", 0),
    (bundle, "write", 1),
    (mlflow_registry, "register_version", 0),
    (bundle, "publish", 0),
    (score_store, "write_scores", 0),
    (score_store, "write_scores", 1),
]


def fill_disk_after(patch: pytest.MonkeyPatch, module: object, name: str, writes: int) -> None:
    """Let a function fail, as on a full disk, at every call after the first `writes`."""
    original, calls = getattr(module, name), []

    def fail_later(*arguments: object, **options: object) -> object:
        calls.append(name)
        if len(calls) > writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **options)

    patch.setattr(module, name, fail_later)


def run_night(shop: Shop) -> dict[str, object]:
    return nightly_run.run_nightly(shop, only=["churn", "value"], progress=lambda text: None)


def published(home: Path) -> dict[str, str]:
    """Digests of what servers read: features and champions."""
    files = [*home.glob("features/*/part.parquet"), *home.glob("champions/*.json")]
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def scores(home: Path) -> pd.DataFrame:
    return exports.build_table(settings.open_shop(home), "scores")


@pytest.fixture(scope="module")
def second_day(first_run_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after its first night, with a sale of the day after."""
    folder = tmp_path_factory.mktemp("second-day")
    shutil.copytree(first_run_home, folder / "home")
    shop = settings.open_shop(folder / "home")
    known = operations.load_table(shop, "scores")["customer_id"].iloc[0].split(":")[-1]
    sale = {"order_id": "late", "line_id": 1, "customer_id": known, "product_id": "p1", "quantity": 1, "amount": 2}
    last = pd.Timestamp(scores(shop.home)["as_of"].max()) + pd.Timedelta(days=1)
    path = folder / "sale.csv"
    pd.DataFrame([sale | {"sold_at": last.isoformat()}]).to_csv(path, index=False)
    assert operations.load_records(shop, "transactions", [path], source="files")["inserted"] == 1
    return shop.home


@pytest.fixture(scope="module")
def undisturbed(second_day: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The scores of a second night on a disk with room."""
    home = shutil.copytree(second_day, tmp_path_factory.mktemp("undisturbed") / "home")
    run_night(settings.open_shop(home))
    return scores(home)


def test_a_night_on_a_full_disk_changes_nothing_that_is_read_and_can_be_run_again(
    second_day: Path, undisturbed: pd.DataFrame, tmp_path: Path
) -> None:
    home = shutil.copytree(second_day, tmp_path / "home")
    shop, before, old_scores = settings.open_shop(home), published(home), scores(home)
    assert len(before) >= 10
    for module, name, writes in WRITES:
        with pytest.MonkeyPatch.context() as patch:
            fill_disk_after(patch, module, name, writes)
            with pytest.raises(OSError, match="No space left") as failure:
                run_night(shop)
        assert explain_error(failure.value)[1] == EXIT_UNAVAILABLE
        if module is duckdb or module is mirror:
            assert published(home) == before, f"{name} failed after {writes} writes"
        assert not [path for path in home.rglob("*") if path.name.startswith(".part.") and path.stat().st_size == 0]
        if module is not score_store or not writes:
            pd.testing.assert_frame_equal(scores(home), old_scores, obj=f"after {name} {writes}")
    run_night(shop)
    names = [name for name in undisturbed.columns if not name.endswith("_version")]
    pd.testing.assert_frame_equal(scores(home)[names], undisturbed[names])
    assert not list(home.glob("features/.portions.*"))
    assert not list(home.glob("features/*/.part.*"))
