"""Backtests of recommender and offers: the same cutoffs for every method, no later data, and an unchanged home."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from customers import clock, setup
from customers.ledger import watermark
from customers.people import lookup
from customers.shop import settings
from customers.shop.settings import Shop
from models.registry import mlflow_client
from pipelines import operations
from pipelines.backtest import cutoffs, recommender
from pipelines.backtest import run as backtest_run
from pipelines.errors import NothingToDo, WrongUsage
from pipelines.nightly.run_context import open_dry_run
from pipelines.reporting import terminal_text
from training import promotion
from training.evaluation.next_basket_holdout import HoldoutCriteria
from training.tasks import all_tasks
from training.train import refit

pytestmark = pytest.mark.acceptance  # whole nights

Till = Callable[..., Path]
RECOMMENDER = all_tasks.get_task("recommender")


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="module")
def shop(new_small_shop: Callable[[Path], Shop], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The small grocer before any nightly run."""
    return new_small_shop(tmp_path_factory.mktemp("backtest") / "home")


@pytest.fixture(scope="module")
def summary(shop: Shop) -> dict[str, Any]:
    return backtest_run.run_backtest(shop, "recommender", cutoffs=1, progress=ignore_progress)


def test_the_model_and_every_benchmark_have_intervals(summary: dict[str, Any]) -> None:
    table = pd.DataFrame(summary["table"])
    everyone = table[(table["segment"] == "all") & (table["figure"] == "recall_10")].set_index("method")
    assert everyone.index[0] == "recommender.Recommender"
    assert {"decayed frequency", "TIFU-KNN", "UP-CF", "implicit ALS", "item-kNN BM25"} <= set(everyone.index)
    assert (everyone["low"] <= everyone["value"]).all()
    assert (everyone["value"] <= everyone["high"]).all()
    assert everyone["observations"].nunique() == 1, "every method on the same customers"
    assert {"coverage", "distinct_lists", "novelty_10", "audience_lift_10"} <= set(table["figure"])


def test_purchase_frequency_beats_popularity(summary: dict[str, Any]) -> None:
    table = pd.DataFrame(summary["table"])
    rows = table[(table["segment"] == "all") & (table["figure"] == "recall_10")].set_index("method")
    assert rows.loc["popularity, lately", "ahead_low"] > 0
    assert rows.loc["decayed frequency", "value"] > rows.loc["popularity, ever", "value"]


def test_the_backtest_is_written_plotted_and_logged_to_mlflow(shop: Shop, summary: dict[str, Any]) -> None:
    folder = shop.home / "exports" / "backtest-recommender"
    assert len(pd.read_csv(folder / "recommender.csv")) == len(summary["table"])
    assert json.loads((folder / "recommender.json").read_text())["cutoffs"] == summary["cutoffs"]
    pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib")
    assert (folder / "recommender.png").read_bytes().startswith(b"\x89PNG")
    run = mlflow_client.open_client(promotion.registry_uri(shop)).get_run(summary["run"])
    assert run.data.params["model"] == "recommender.Recommender"
    assert run.data.metrics["decayed_frequency.recall_10"] > 0


def test_a_backtest_leaves_the_home_unchanged(shop: Shop, summary: dict[str, Any]) -> None:
    assert watermark.read_watermark(shop) is None, "a sale that arrives later does not count as late"
    assert list((shop.home / "replays").glob("*")) == []
    assert list((shop.home / "features").glob("*/part.parquet")) == []
    assert promotion.summarise_champions(shop) == [], "no champion was promoted"


def test_the_terminal_text_names_metrics_and_methods(summary: dict[str, Any]) -> None:
    text = terminal_text.format_backtest(summary)
    assert "recall@10" in text
    assert "TIFU-KNN" in text
    assert "often" in text
    assert "fewer than 30 customers" in text


def test_a_sale_after_a_cutoff_changes_no_list(shop: Shop, tmp_path: Path, till: Till) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    now = clock.now(shop)
    [cutoff] = cutoffs.choose_cutoffs(shop, 1, 28, outcome_days=28, history_days=84)

    def recommend() -> pd.DataFrame:
        with open_dry_run(shop, cutoff, RECOMMENDER) as context:
            frame = context.load_task_frame(RECOMMENDER)
            current = frame[frame["as_of"] == context.as_of].reset_index(drop=True)
            ranked: pd.DataFrame = refit(RECOMMENDER, context.training_data, frame).score(current, n=10)  # type: ignore[call-arg]
            return ranked

    before, holdout = recommend(), recommender.load_holdout(shop, cutoff, 28, HoldoutCriteria())
    sold = (cutoff + (now - cutoff) / 2).isoformat()
    operations.load_records(shop, "transactions", [till(("late", 0, "c001", "p00", sold, 1, 2, 0))], source="files")
    pd.testing.assert_frame_equal(recommend(), before)
    assert len(recommender.load_holdout(shop, cutoff, 28, HoldoutCriteria()).window_purchases) >= len(
        holdout.window_purchases
    )


def test_benchmarks_are_tuned_without_customers_who_refuse_profiling(shop: Shop, tmp_path: Path) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    [cutoff] = cutoffs.choose_cutoffs(shop, 1, 28, outcome_days=28, history_days=84)

    def tuning_customers() -> set[int]:
        holdout = recommender._build_tuning_holdout(shop, cutoff, 28, HoldoutCriteria())
        return {*holdout.customers.tolist(), *holdout.histories.customers.tolist()}

    everyone, refusing = tuning_customers(), lookup.find_keys(shop, ["c001", "c002"])
    assert everyone >= set(refusing.values())
    consents = pd.DataFrame({"customer_id": list(refusing), "purpose": "profiling", "state": "denied"})
    consents.assign(at="2025-01-01T10:00:00").to_csv(tmp_path / "consents.csv", index=False)
    operations.load_records(shop, "consents", [tmp_path / "consents.csv"], source="files")
    assert tuning_customers() == everyone - set(refusing.values())


def test_a_backtest_of_offers_with_few_redemptions_names_what_is_missing(shop: Shop) -> None:
    with pytest.raises(NothingToDo, match="no offer of a campaign"):
        backtest_run.run_backtest(shop, "offers", cutoffs=1, progress=ignore_progress)


def test_an_unknown_model_or_no_cutoff_is_wrong_usage(shop: Shop) -> None:
    with pytest.raises(WrongUsage, match="recommender, offers"):
        backtest_run.run_backtest(shop, "weather", progress=ignore_progress)
    with pytest.raises(WrongUsage, match="at least one"):
        backtest_run.run_backtest(shop, "recommender", cutoffs=0, progress=ignore_progress)


def test_too_few_sales_or_days_are_named_in_the_error(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    with pytest.raises(NothingToDo, match="regulars load transactions"):
        backtest_run.run_backtest(shop, "recommender", progress=ignore_progress)
    lines = [(f"o{day}", 0, "only", "p1", f"2025-01-{day:02d}T10:00:00", 1, 5, 0) for day in (2, 9)]
    operations.load_records(shop, "transactions", [till(*lines)], source="files")
    with pytest.raises(NothingToDo, match="a backtest needs 112"):
        backtest_run.run_backtest(shop, "recommender", progress=ignore_progress)


def test_cutoffs_leave_days_for_training_and_evaluation(shop: Shop) -> None:
    now = clock.now(shop)
    chosen = cutoffs.choose_cutoffs(shop, 9, 28, outcome_days=28, history_days=84)
    assert [round((now - cutoff).total_seconds() / 86_400) for cutoff in chosen] == [112, 84, 56, 28]
    assert all(cutoff.astimezone(UTC) < datetime.now(UTC) for cutoff in chosen)
