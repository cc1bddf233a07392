"""A night over a small grocer: what it tells, what it writes, and what it leaves alone."""

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

Till = Callable[..., Path]
NIGHT = tuple[Path, dict[str, Any]]
EARLIER = "2025-06-20"
HOUSE = Path(nightly_run.__file__).parents[2]


def silent(text: str) -> None:
    """Nobody watches the night in a test."""


def replayed(shop: Shop) -> pd.DataFrame:
    nightly_run.run_nightly(shop, as_of=EARLIER, only=["churn"], progress=silent)
    return operations.load_table(shop, "scores").drop(columns="churn_version")


def test_every_model_is_told_beside_its_baselines(first_night: NIGHT) -> None:
    models = dict(first_night[1]["models"])
    assert set(models) == {"recommender", "offers", "churn", "timing", "restock", "value"}
    assert models.pop("offers")["fallback"], "this shop never made an offer: a plain rule stands in"
    assert set(models["churn"]["baselines"]) == {
        "baselines.RecencyChurn", "baselines.RfmLogistic", "seasoned.SeasonedBgNbd", "baselines.BgNbdChurn",
    }  # fmt: skip
    for told in models.values():
        assert told["promoted"]
        assert not told["fallback"]
        assert set(told["metrics"]) == set(next(iter(told["baselines"].values())))
    shares = [models["recommender"]["metrics"][f"source_{name}"] for name in ("again", "new", "popular")]
    assert sum(shares) == pytest.approx(1)


def test_everyone_with_a_purchase_has_one_score_a_model(first_night: NIGHT) -> None:
    shop = settings.open_shop(first_night[0])
    frame = exports.build_table(shop, "scores")
    assert len(frame) == 160 == frame["customer_id"].nunique()
    assert first_night[1]["scores_written"] == 6 * 160


def test_churn_and_the_curve_are_one_number(first_night: NIGHT) -> None:
    frame = exports.build_table(settings.open_shop(first_night[0]), "scores")
    assert frame["churn_horizon_days"].eq(28).all()
    np.testing.assert_allclose(frame["p_purchase_28d"], 1 - frame["churn_probability"], atol=1e-9)


def test_curves_never_fall(first_night: NIGHT) -> None:
    for cdf in exports.build_table(settings.open_shop(first_night[0]), "timing")["cdf"]:
        assert len(cdf) == 100
        assert (np.diff(cdf) >= 0).all()


def test_lists_keep_their_word(first_night: NIGHT) -> None:
    frame = exports.build_table(settings.open_shop(first_night[0]), "recommendations")
    assert (
        frame.groupby(["customer_id", "list"])["rank"]
        .agg(lambda ranks: list(ranks) == list(range(1, len(ranks) + 1)))
        .all()
    )
    again, new = (frame[frame["list"] == name] for name in ("again", "new"))
    both = again.merge(new, on=["customer_id", "product_id"])
    assert both.empty


def test_the_same_night_again_finds_its_models(first_night: NIGHT) -> None:
    shop = settings.open_shop(first_night[0])
    before = exports.build_table(shop, "scores")
    told = nightly_run.run_nightly(shop, progress=silent)
    assert {name: model["version"] for name, model in told["models"].items()} == dict.fromkeys(told["models"], "1")
    pd.testing.assert_frame_equal(exports.build_table(shop, "scores"), before)
    assert len(promotion_log.load_history(shop)) == 6


def test_a_version_leads_to_a_run_that_trains_the_same_again(first_night: NIGHT) -> None:
    shop = settings.open_shop(first_night[0])
    key, said = next(
        iter(score_store.load_run_scores(shop, "churn")[["customer_key", "value"]].itertuples(index=False))
    )
    version = score_store.load_customer_scores(shop, int(key))["churn"].version
    again = nightly_run.retrain_version(shop, "churn", version, progress=silent)
    assert again.loc[again["customer_key"] == key, "score"].item() == pytest.approx(said, abs=1e-9)


def test_a_replay_moves_no_champion_and_no_profile(first_night: NIGHT) -> None:
    shop = settings.open_shop(first_night[0])
    before = score_store.load_customer_scores(shop, lookup.find_keys(shop, ["c001"])["c001"])["churn"]
    told = nightly_run.run_nightly(shop, as_of=EARLIER, only=["churn"], progress=silent)
    assert not told["models"]["churn"]["promoted"]
    assert "replay" in told["models"]["churn"]["why"]
    assert promotion.summarise_champions(shop)[1]["version"] == "1"
    assert score_store.load_customer_scores(shop, lookup.find_keys(shop, ["c001"])["c001"])["churn"] == before


def test_what_arrives_late_does_not_change_an_old_replay(first_night: NIGHT, till: Till) -> None:
    shop = settings.open_shop(first_night[0])
    before = replayed(shop)
    line = ("late-1", 0, "c001", "p01", "2025-06-10T12:00:00", 1, 3, 0)
    operations.load_records(shop, "transactions", [till(line)], source="files")
    pd.testing.assert_frame_equal(replayed(shop), before)
    told = nightly_run.run_nightly(shop, only=["churn"], progress=silent)
    assert told["models"]["churn"]["version"] != "1", "tonight's own run does see the late sale"


def test_going_back_follows_the_log(first_night: NIGHT) -> None:
    shop = settings.open_shop(first_night[0])
    newest = nightly_run.train_challenger(shop, "churn", as_of="2025-07-20", progress=silent)["version"]
    assert promotion.promote(shop, "churn", why="by hand") == newest
    assert promotion.rollback(shop, "churn") != newest
    assert [entry.action for entry in promotion_log.load_history(shop, "churn")][-2:] == ["promoted", "rolled back"]
    assert promotion.read_registry_state(shop, "churn").rolled_back_versions == {newest}, "a night leaves it alone"


def test_nothing_to_go_back_to_is_said(tmp_path: Path) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR")
    with pytest.raises(ShopError, match="no earlier champion"):
        promotion.rollback(shop, "churn")


def one_customer(home: Path, till: Till) -> Shop:
    shop = setup.init_home(home, timezone="UTC", currency="EUR", now="last-sale")
    lines = [(f"o{day}", 0, "only", "p1", f"2025-01-{day:02d}T10:00:00", 1, 5, 0) for day in (2, 9, 16)]
    operations.load_records(shop, "transactions", [till(*lines)], source="files")
    return shop


def test_one_customer_is_served_the_fallback_and_told_so(tmp_path: Path, till: Till) -> None:
    shop = one_customer(tmp_path / "home", till)
    told = nightly_run.run_nightly(shop, progress=silent)
    assert all(model["fallback"] for model in told["models"].values())
    frame = operations.load_table(shop, "scores")
    assert frame["customer_id"].tolist() == ["only"]
    assert frame["fallback"].all()
    assert frame["churn_probability"].between(0, 1).all()


def test_a_shop_without_sales_is_told_what_to_do(tmp_path: Path) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR")
    with pytest.raises(NothingToDo, match="regulars load transactions"):
        nightly_run.run_nightly(shop, progress=silent)


def test_a_night_before_the_first_sale_leaves_the_home_as_it_was(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    with pytest.raises(NothingToDo):
        nightly_run.run_nightly(shop, progress=silent)
    lines = [(f"o{day}", 0, "only", "p1", f"2025-01-{day:02d}T10:00:00", 1, 5, 0) for day in (2, 9, 16)]
    operations.load_records(shop, "transactions", [till(*lines)], source="files")
    assert nightly_run.run_nightly(shop, only=["churn"], progress=silent)["models"]["churn"]["promoted"]


DIES_WHILE_IT_FOLLOWS = """
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


def test_what_a_killed_server_left_half_brought_is_cleared(first_night_home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(first_night_home, tmp_path / "home"))
    assert (
        subprocess.run([sys.executable, "-c", DIES_WHILE_IT_FOLLOWS, str(home)], cwd=HOUSE, check=False).returncode == 9
    )
    (home / f".promote-x.{os.getppid()}").mkdir()
    assert len(list(home.glob(".promote-*"))) == 2
    before_anybody_came = datetime(2020, 1, 1, tzinfo=UTC)
    with (
        pytest.raises(NothingToDo),
        open_dry_run(settings.open_shop(home), before_anybody_came, all_tasks.get_task("churn")),
    ):
        pass
    assert [path.name for path in home.glob(".promote-*")] == [f".promote-x.{os.getppid()}"], "its owner is alive"


def test_a_day_that_has_not_come_cannot_be_asked_about(first_night: NIGHT) -> None:
    with pytest.raises(WrongUsage, match="has not come yet"):
        nightly_run.run_nightly(settings.open_shop(first_night[0]), as_of="2099-01-01", progress=silent)


def test_returns_alone_are_no_purchases(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    operations.load_records(
        shop, "transactions", [till(("o1", 0, "c1", "p1", "2025-01-02", -1, -5, 0))], source="files"
    )
    with pytest.raises(NothingToDo, match="bought anything"):
        nightly_run.run_nightly(shop, progress=silent)


def test_a_purchase_of_no_product_has_no_lists_but_a_churn(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    operations.load_records(shop, "transactions", [till(("o1", 0, "c1", "p1", "2025-01-02", 0, 5, 0))], source="files")
    told = nightly_run.run_nightly(shop, progress=silent)["models"]
    assert told["recommender"]["version"] is None
    assert told["churn"]["version"] == "1"
    assert terminal_text.format_nightly(nightly_run.run_nightly(shop, progress=silent))


def test_an_unknown_version_is_refused_before_the_log_hears_of_it(first_night: NIGHT) -> None:
    shop = settings.open_shop(first_night[0])
    before = promotion_log.load_history(shop, "churn")
    with pytest.raises(mlflow_registry.UnknownVersion):
        promotion.promote(shop, "churn", version="99", why="by hand")
    assert promotion_log.load_history(shop, "churn") == before


def test_an_unknown_model_is_named(first_night: NIGHT) -> None:
    with pytest.raises(WrongUsage, match="weather"):
        nightly_run.run_nightly(settings.open_shop(first_night[0]), only=["weather"], progress=silent)


@pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson"])
def test_tables_are_exported_by_ending(first_night: NIGHT, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"scores.{ending}"
    assert operations.export_table(settings.open_shop(first_night[0]), "scores", out) == 160
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    read: dict[str, Callable[..., pd.DataFrame]] = {"csv": pd.read_csv, "parquet": pd.read_parquet}
    frame = pd.read_json(out, lines=True) if ending == "ndjson" else read[ending](out)
    assert len(frame) == 160
