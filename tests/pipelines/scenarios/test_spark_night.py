"""A whole night of the small grocer on Spark: the report, the scores and what is exported are those of DuckDB."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'regulars[spark]'")
if not shutil.which("java"):
    pytest.skip("there is no Java: apt-get install openjdk-17-jre-headless", allow_module_level=True)

from customers.reports import exports
from customers.shop import settings
from customers.shop.settings import Shop
from pipelines import operations
from pipelines.nightly import run as nightly_run

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def nights(
    new_small_shop: Callable[[Path], Shop], first_run_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """The small grocer after a night on Spark and after one on DuckDB: shop and summary of each."""
    folder = tmp_path_factory.mktemp("engines")
    shutil.copytree(first_run_home, folder / "duckdb")
    new_small_shop(folder / "spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_ENGINE", "spark")
        patch.setenv("REGULARS_SPARK_MASTER", "local[2]")
        shop = settings.open_shop(folder / "spark")
        summary = nightly_run.run_nightly(shop, progress=lambda text: None)
    duckdb_summary = json.loads(first_run_home.with_name("summary.json").read_text())
    return SimpleNamespace(
        spark=SimpleNamespace(shop=shop, summary=summary),
        duckdb=SimpleNamespace(shop=settings.open_shop(folder / "duckdb"), summary=duckdb_summary),
    )


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    """A night's summary without what differs between two runs of one engine."""
    return json.loads(json.dumps({name: value for name, value in summary.items() if name != "seconds"}))


def test_the_report_is_that_of_duckdb(nights: SimpleNamespace) -> None:
    assert nights.spark.shop.engine == "spark"
    assert without_times(nights.spark.summary) == without_times(nights.duckdb.summary)


@pytest.mark.parametrize("name", exports.TABLES)
def test_the_exported_tables_are_those_of_duckdb(nights: SimpleNamespace, name: str) -> None:
    tables = [operations.load_table(night.shop, name) for night in (nights.spark, nights.duckdb)]
    assert len(tables[1])
    pd.testing.assert_frame_equal(*tables, rtol=1e-9, atol=1e-9)
