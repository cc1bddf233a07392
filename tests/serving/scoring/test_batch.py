"""A night's scores do not depend on how many processes compute them."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from customers.database import engine, schema
from customers.scores import score_store
from customers.shop import settings
from customers.shop.settings import Shop
from serving.scoring import batch, rfm

MODEL_NAMES = ("recommender", "restock", "offers", "churn", "timing", "value")


@pytest.fixture
def spark_home(trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose engine is Spark, with portions of 60 customers."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'regulars[spark]'")
    if not shutil.which("java"):
        pytest.skip("there is no Java: apt-get install openjdk-17-jre-headless")
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")
    monkeypatch.setattr(batch, "_PORTION_SIZES", dict.fromkeys(MODEL_NAMES, 60))
    home = Path(shutil.copytree(trained_home, tmp_path / "home"))
    path = home / "regulars.toml"
    path.write_text('engine = "spark"\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    return home


def test_the_tasks_of_spark_give_the_scores_of_one_process(
    spark_home: Path, home_with_scores: Path, score_customers: Any
) -> None:
    spark_shop, shop = settings.open_shop(spark_home), settings.open_shop(home_with_scores)
    assert spark_shop.engine == "spark"
    score_customers(spark_shop)
    assert_equal_scores(spark_shop, shop)


def test_on_postgresql_the_tasks_store_the_scores(
    spark_home: Path, home_with_scores: Path, score_customers: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark_shop = move_to_postgresql(settings.open_shop(spark_home), postgres_url)

    def refuse(*_arguments: Any, **_settings: Any) -> int:
        raise AssertionError("the process of the night stores no score itself")

    with monkeypatch.context() as patch:
        patch.setattr(score_store, "write_scores", refuse)
        score_customers(spark_shop)
    assert_equal_scores(spark_shop, settings.open_shop(home_with_scores))
    engine.get_engine(spark_shop).dispose()


def test_a_task_that_is_repeated_stores_the_same_scores_once(spark_home: Path, postgres_url: str) -> None:
    from serving import runtime
    from serving.scoring.inputs import NightlyRun

    shop = move_to_postgresql(settings.open_shop(spark_home), postgres_url)
    opened = runtime.open_runtime(shop)
    opened.features.apply()
    models = {"value": opened.champions.get("value").model}
    run_id = score_store.begin_run(shop, "value", "1", opened.now())
    scorer = batch._PortionScorer("value", NightlyRun(shop, opened.features, models, opened.now(), ()), run_id)
    keys = pd.read_parquet(shop.home / "features" / "rhythm" / "part.parquet")["customer_key"].unique()[:20].tolist()
    stored = [batch.score_portion(scorer, keys) for _ in range(2)]
    score_store.finish_run(shop, run_id)
    assert stored[0].keys == stored[1].keys == keys
    assert len(score_store.load_run_scores(shop, "value")) == stored[0].written == stored[1].written > 0
    engine.get_engine(shop).dispose()


def assert_equal_scores(spark_shop: Shop, shop: Shop) -> None:
    for name in MODEL_NAMES:
        spark_scores, single_process_scores = (score_store.load_run_scores(each, name) for each in (spark_shop, shop))
        assert len(single_process_scores) > 60
        pd.testing.assert_frame_equal(spark_scores, single_process_scores, obj=name)
    assert rfm.load_quintiles(spark_shop.home) == rfm.load_quintiles(shop.home)


def move_to_postgresql(shop: Shop, url: str) -> Shop:
    """The shop with its records copied from SQLite into a database on PostgreSQL."""
    moved = replace(shop, database_url=url.replace("postgresql://", "postgresql+psycopg://"))
    engine.upgrade_schema(moved)
    with engine.read_transaction(shop) as source, engine.write_transaction(moved) as target:
        for table in schema.metadata.sorted_tables:
            target.execute(table.delete())
            if rows := source.execute(table.select()).mappings().all():
                target.execute(table.insert(), list(map(dict, rows)))
    return moved


def test_a_task_of_spark_gets_no_key_of_the_shop(spark_home: Path) -> None:
    from serving import runtime
    from serving.scoring.inputs import NightlyRun

    opened = runtime.open_runtime(settings.open_shop(spark_home))
    run = NightlyRun(opened.shop, opened.features, {"restock": opened.champions.get("restock").model}, opened.now(), ())
    assert batch._PortionScorer("restock", run).shop.key == b""
