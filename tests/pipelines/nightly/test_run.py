"""The nightly run of a small grocer: its summary, what it writes, and what it must not change."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from customers import setup
from customers.people import lookup
from customers.reports import exports
from customers.scores import promotion_log, score_store
from customers.shop import settings
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from models.registry import mlflow_registry
from pipelines import operations
from pipelines.errors import NothingToDo, WrongUsage
from pipelines.nightly import run as nightly_run
from pipelines.nightly.run_context import open_dry_run
from pipelines.reporting import terminal_text
from training import promotion
from training.tasks import all_tasks

pytestmark = pytest.mark.acceptance  # whole nights

Till = Callable[..., Path]
FirstRun = tuple[Path, dict[str, Any]]
EARLIER_DAY = "2025-06-20"
REPOSITORY = Path(nightly_run.__file__).parents[2]


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


def rerun_earlier_day(shop: Shop) -> pd.DataFrame:
    """The exported scores after a historical run; without the version, which the run does not promote."""
    nightly_run.run_nightly(shop, as_of=EARLIER_DAY, only=["churn"], progress=ignore_progress)
    return operations.load_table(shop, "scores").drop(columns="churn_version")


def test_the_summary_compares_every_model_with_its_baselines(first_run: FirstRun) -> None:
    models = dict(first_run[1]["models"])
    assert set(models) == {"recommender", "offers", "churn", "timing", "restock", "value"}
    assert models.pop("offers")["fallback"], "without past offers the fallback rule is served"
    assert set(models["churn"]["baselines"]) == {
        "baselines.RecencyChurn", "baselines.RfmLogistic", "seasoned.SeasonedBgNbd", "baselines.BgNbdChurn",
    }  # fmt: skip
    for model in models.values():
        assert model["promoted"]
        assert not model["fallback"]
        assert set(model["metrics"]) == set(next(iter(model["baselines"].values())))
    shares = [models["recommender"]["metrics"][f"source_{name}"] for name in ("again", "new", "popular")]
    assert sum(shares) == pytest.approx(1)


def test_every_customer_with_a_purchase_has_one_score_per_model(first_run: FirstRun) -> None:
    shop = settings.open_shop(first_run[0])
    frame = exports.build_table(shop, "scores")
    assert len(frame) == 160 == frame["customer_id"].nunique()
    assert first_run[1]["scores_written"] == 6 * 160


def test_churn_probability_agrees_with_the_timing_curve(first_run: FirstRun) -> None:
    frame = exports.build_table(settings.open_shop(first_run[0]), "scores")
    assert frame["churn_horizon_days"].eq(28).all()
    np.testing.assert_allclose(frame["p_purchase_28d"], 1 - frame["churn_probability"], atol=1e-9)


def test_timing_curves_never_decrease(first_run: FirstRun) -> None:
    for cdf in exports.build_table(settings.open_shop(first_run[0]), "timing")["cdf"]:
        assert len(cdf) == 100
        assert (np.diff(cdf) >= 0).all()


def test_ranks_are_consecutive_and_lists_do_not_overlap(first_run: FirstRun) -> None:
    frame = exports.build_table(settings.open_shop(first_run[0]), "recommendations")
    assert (
        frame.groupby(["customer_id", "list"])["rank"]
        .agg(lambda ranks: list(ranks) == list(range(1, len(ranks) + 1)))
        .all()
    )
    again, new = (frame[frame["list"] == name] for name in ("again", "new"))
    both = again.merge(new, on=["customer_id", "product_id"])
    assert both.empty


def test_an_identical_run_reuses_its_models(first_run: FirstRun) -> None:
    shop = settings.open_shop(first_run[0])
    before = exports.build_table(shop, "scores")
    summary = nightly_run.run_nightly(shop, progress=ignore_progress)
    assert {name: model["version"] for name, model in summary["models"].items()} == dict.fromkeys(
        summary["models"], "1"
    )
    pd.testing.assert_frame_equal(exports.build_table(shop, "scores"), before)
    assert len(promotion_log.load_history(shop)) == 6


def test_a_version_can_be_retrained_to_the_same_scores(first_run: FirstRun) -> None:
    shop = settings.open_shop(first_run[0])
    key, score = next(
        iter(score_store.load_run_scores(shop, "churn")[["customer_key", "value"]].itertuples(index=False))
    )
    version = score_store.load_customer_scores(shop, int(key))["churn"].version
    retrained = nightly_run.retrain_version(shop, "churn", version, progress=ignore_progress)
    assert retrained.loc[retrained["customer_key"] == key, "score"].item() == pytest.approx(score, abs=1e-9)


def test_a_historical_run_changes_no_champion_and_no_current_score(first_run: FirstRun) -> None:
    shop = settings.open_shop(first_run[0])
    before = score_store.load_customer_scores(shop, lookup.find_keys(shop, ["c001"])["c001"])["churn"]
    summary = nightly_run.run_nightly(shop, as_of=EARLIER_DAY, only=["churn"], progress=ignore_progress)
    assert not summary["models"]["churn"]["promoted"]
    assert "a historical run promotes nothing" in summary["models"]["churn"]["why"]
    assert promotion.summarise_champions(shop)[1]["version"] == "1"
    assert score_store.load_customer_scores(shop, lookup.find_keys(shop, ["c001"])["c001"])["churn"] == before


def test_a_late_sale_does_not_change_a_historical_run(first_run: FirstRun, till: Till) -> None:
    shop = settings.open_shop(first_run[0])
    before = rerun_earlier_day(shop)
    line = ("late-1", 0, "c001", "p01", "2025-06-10T12:00:00", 1, 3, 0)
    operations.load_records(shop, "transactions", [till(line)], source="files")
    pd.testing.assert_frame_equal(rerun_earlier_day(shop), before)
    summary = nightly_run.run_nightly(shop, only=["churn"], progress=ignore_progress)
    assert summary["models"]["churn"]["version"] != "1", "the current run includes the late sale"


def test_a_rollback_returns_to_the_champion_before(first_run: FirstRun) -> None:
    shop = settings.open_shop(first_run[0])
    newest = nightly_run.train_challenger(shop, "churn", as_of="2025-07-20", progress=ignore_progress)["version"]
    assert promotion.promote(shop, "churn", why="by hand") == newest
    assert promotion.rollback(shop, "churn") != newest
    assert [entry.action for entry in promotion_log.load_history(shop, "churn")][-2:] == ["promoted", "rolled back"]
    assert promotion.read_registry_state(shop, "churn").rolled_back_versions == {newest}, (
        "a nightly run does not promote it again"
    )


def test_a_rollback_without_an_earlier_champion_is_refused(tmp_path: Path) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR")
    with pytest.raises(ShopError, match="no earlier champion"):
        promotion.rollback(shop, "churn")


def create_shop_with_one_customer(home: Path, till: Till) -> Shop:
    shop = setup.init_home(home, timezone="UTC", currency="EUR", now="last-sale")
    lines = [(f"o{day}", 0, "only", "p1", f"2025-01-{day:02d}T10:00:00", 1, 5, 0) for day in (2, 9, 16)]
    operations.load_records(shop, "transactions", [till(*lines)], source="files")
    return shop


def test_a_shop_with_one_customer_gets_marked_fallback_scores(tmp_path: Path, till: Till) -> None:
    shop = create_shop_with_one_customer(tmp_path / "home", till)
    summary = nightly_run.run_nightly(shop, progress=ignore_progress)
    assert all(model["fallback"] for model in summary["models"].values())
    frame = operations.load_table(shop, "scores")
    assert frame["customer_id"].tolist() == ["only"]
    assert frame["fallback"].all()
    assert frame["churn_probability"].between(0, 1).all()


def test_without_sales_the_run_names_the_load_command(tmp_path: Path) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR")
    with pytest.raises(NothingToDo, match="regulars load transactions"):
        nightly_run.run_nightly(shop, progress=ignore_progress)


def test_a_run_before_the_first_sale_does_not_block_later_runs(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    with pytest.raises(NothingToDo):
        nightly_run.run_nightly(shop, progress=ignore_progress)
    lines = [(f"o{day}", 0, "only", "p1", f"2025-01-{day:02d}T10:00:00", 1, 5, 0) for day in (2, 9, 16)]
    operations.load_records(shop, "transactions", [till(*lines)], source="files")
    assert nightly_run.run_nightly(shop, only=["churn"], progress=ignore_progress)["models"]["churn"]["promoted"]


EXITS_DURING_DOWNLOAD = """
import os, shutil, sys
from pathlib import Path
from customers.shop import settings
from models.registry import mlflow_registry
from training import promotion
shop = settings.open_shop(Path(sys.argv[1]))
shutil.rmtree(shop.home / "champions" / "churn")
mlflow_registry.download_bundle = lambda *arguments: os._exit(9)
promotion.publish_champion(shop, "churn")
"""


def test_the_half_downloaded_bundle_of_a_killed_process_is_removed(first_run_home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(first_run_home, tmp_path / "home"))
    assert (
        subprocess.run([sys.executable, "-c", EXITS_DURING_DOWNLOAD, str(home)], cwd=REPOSITORY, check=False).returncode
        == 9
    )
    (home / f".promote-x.{os.getppid()}").mkdir()
    assert len(list(home.glob(".promote-*"))) == 2
    before_the_first_sale = datetime(2020, 1, 1, tzinfo=UTC)
    with (
        pytest.raises(NothingToDo),
        open_dry_run(settings.open_shop(home), before_the_first_sale, all_tasks.get_task("churn")),
    ):
        pass
    assert [path.name for path in home.glob(".promote-*")] == [f".promote-x.{os.getppid()}"], (
        "the process that owns it is alive"
    )


def test_a_future_as_of_day_is_refused(first_run: FirstRun) -> None:
    with pytest.raises(WrongUsage, match="has not come yet"):
        nightly_run.run_nightly(settings.open_shop(first_run[0]), as_of="2099-01-01", progress=ignore_progress)


def test_returned_goods_alone_do_not_count_as_purchases(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    operations.load_records(
        shop, "transactions", [till(("o1", 0, "c1", "p1", "2025-01-02", -1, -5, 0))], source="files"
    )
    with pytest.raises(NothingToDo, match="bought anything"):
        nightly_run.run_nightly(shop, progress=ignore_progress)


def test_a_purchase_of_quantity_zero_gives_churn_scores_but_no_lists(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    operations.load_records(shop, "transactions", [till(("o1", 0, "c1", "p1", "2025-01-02", 0, 5, 0))], source="files")
    models = nightly_run.run_nightly(shop, progress=ignore_progress)["models"]
    assert models["recommender"]["version"] is None
    assert models["churn"]["version"] == "1"
    assert terminal_text.format_nightly(nightly_run.run_nightly(shop, progress=ignore_progress))


def test_an_unknown_version_is_refused_and_not_logged(first_run: FirstRun) -> None:
    shop = settings.open_shop(first_run[0])
    before = promotion_log.load_history(shop, "churn")
    with pytest.raises(mlflow_registry.UnknownVersion):
        promotion.promote(shop, "churn", version="99", why="by hand")
    assert promotion_log.load_history(shop, "churn") == before


def test_an_unknown_model_is_named_in_the_error(first_run: FirstRun) -> None:
    with pytest.raises(WrongUsage, match="weather"):
        nightly_run.run_nightly(settings.open_shop(first_run[0]), only=["weather"], progress=ignore_progress)


@pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson"])
def test_the_file_ending_selects_the_export_format(first_run: FirstRun, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"scores.{ending}"
    assert operations.export_table(settings.open_shop(first_run[0]), "scores", out) == 160
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    read: dict[str, Callable[..., pd.DataFrame]] = {"csv": pd.read_csv, "parquet": pd.read_parquet}
    frame = pd.read_json(out, lines=True) if ending == "ndjson" else read[ending](out)
    assert len(frame) == 160
