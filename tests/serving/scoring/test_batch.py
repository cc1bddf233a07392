"""A night's scores do not depend on how many processes compute them."""

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from customers.scores import score_store
from customers.shop import settings
from serving.scoring import batch

PORTIONED = ("recommender", "restock", "offers")


@pytest.fixture
def spark_home(trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose engine is Spark, with portions of 60 customers."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'regulars[spark]'")
    if not shutil.which("java"):
        pytest.skip("there is no Java: apt-get install openjdk-17-jre-headless")
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")
    monkeypatch.setattr(batch, "_PORTION_SIZES", dict.fromkeys(PORTIONED, 60))
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
    for name in PORTIONED:
        spark_scores, single_process_scores = (score_store.load_run_scores(each, name) for each in (spark_shop, shop))
        assert len(single_process_scores) > 60
        pd.testing.assert_frame_equal(spark_scores, single_process_scores, obj=name)


def test_a_task_of_spark_gets_no_key_of_the_shop(spark_home: Path) -> None:
    from serving import runtime
    from serving.scoring.inputs import NightlyRun

    opened = runtime.open_runtime(settings.open_shop(spark_home))
    run = NightlyRun(opened.shop, opened.features, {"restock": opened.champions.get("restock").model}, opened.now(), ())
    assert batch._PortionScorer("restock", run).shop.key == b""
