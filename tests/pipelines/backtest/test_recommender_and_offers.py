"""A backtest over a small grocer: everybody on the same days, nothing of what came later, and nothing left behind."""

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

Till = Callable[..., Path]
PLAN = all_tasks.get_task("recommender")


def silent(text: str) -> None:
    """Nobody watches in a test."""


@pytest.fixture(scope="module")
def shop(grocer: Callable[[Path], Shop], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The small grocer before any night."""
    return grocer(tmp_path_factory.mktemp("backtest") / "home")


@pytest.fixture(scope="module")
def told(shop: Shop) -> dict[str, Any]:
    return backtest_run.run_backtest(shop, "recommender", cutoffs=1, progress=silent)


def test_the_model_and_every_rival_are_told_with_intervals(told: dict[str, Any]) -> None:
    table = pd.DataFrame(told["table"])
    everyone = table[(table["segment"] == "all") & (table["figure"] == "recall_10")].set_index("method")
    assert everyone.index[0] == "recommender.Recommender"
    assert {"decayed frequency", "TIFU-KNN", "UP-CF", "implicit ALS", "item-kNN BM25"} <= set(everyone.index)
    assert (everyone["low"] <= everyone["value"]).all()
    assert (everyone["value"] <= everyone["high"]).all()
    assert everyone["observations"].nunique() == 1, "all of them on the same customers"
    assert {"coverage", "distinct_lists", "novelty_10", "audience_lift_10"} <= set(table["figure"])


def test_favourites_are_found_better_than_bestsellers(told: dict[str, Any]) -> None:
    table = pd.DataFrame(told["table"])
    rows = table[(table["segment"] == "all") & (table["figure"] == "recall_10")].set_index("method")
    assert rows.loc["popularity, lately", "ahead_low"] > 0
    assert rows.loc["decayed frequency", "value"] > rows.loc["popularity, ever", "value"]


def test_it_is_written_drawn_and_kept_in_mlflow(shop: Shop, told: dict[str, Any]) -> None:
    folder = shop.home / "exports" / "backtest-recommender"
    assert len(pd.read_csv(folder / "recommender.csv")) == len(told["table"])
    assert json.loads((folder / "recommender.json").read_text())["cutoffs"] == told["cutoffs"]
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")
    assert (folder / "recommender.png").read_bytes().startswith(b"\x89PNG")
    run = mlflow_client.open_client(promotion.registry_uri(shop)).get_run(told["run"])
    assert run.data.params["model"] == "recommender.Recommender"
    assert run.data.metrics["decayed_frequency.recall_10"] > 0


def test_the_home_is_left_as_it_was(shop: Shop, told: dict[str, Any]) -> None:
    assert watermark.read_watermark(shop) is None, "a sale that comes tomorrow is not late"
    assert list((shop.home / "replays").glob("*")) == []
    assert list((shop.home / "features").glob("*/part.parquet")) == []
    assert promotion.summarise_champions(shop) == [], "no champion moved"


def test_it_can_be_read_on_a_terminal(told: dict[str, Any]) -> None:
    text = terminal_text.format_backtest(told)
    assert "recall@10" in text
    assert "TIFU-KNN" in text
    assert "often" in text
    assert "fewer than 30 customers" in text


def test_what_is_sold_after_a_cutoff_changes_no_list(shop: Shop, tmp_path: Path, till: Till) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    now = clock.now(shop)
    [cutoff] = cutoffs.choose_cutoffs(shop, 1, 28, outcome_days=28, history_days=84)

    def lists() -> pd.DataFrame:
        with open_dry_run(shop, cutoff, PLAN) as evening:
            frame = evening.load_task_frame(PLAN)
            ours = frame[frame["as_of"] == evening.as_of].reset_index(drop=True)
            listed: pd.DataFrame = refit(PLAN, evening.training_data, frame).score(ours, n=10)  # type: ignore[call-arg]
            return listed

    before, exam = lists(), recommender.load_holdout(shop, cutoff, 28, HoldoutCriteria())
    sold = (cutoff + (now - cutoff) / 2).isoformat()
    operations.load_records(shop, "transactions", [till(("late", 0, "c001", "p00", sold, 1, 2, 0))], source="files")
    pd.testing.assert_frame_equal(lists(), before)
    assert len(recommender.load_holdout(shop, cutoff, 28, HoldoutCriteria()).window_purchases) >= len(
        exam.window_purchases
    )


def test_rivals_choose_their_settings_without_whoever_refuses_profiling(shop: Shop, tmp_path: Path) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    [cutoff] = cutoffs.choose_cutoffs(shop, 1, 28, outcome_days=28, history_days=84)

    def learned_from() -> set[int]:
        exam = recommender._build_tuning_holdout(shop, cutoff, 28, HoldoutCriteria())
        return {*exam.customers.tolist(), *exam.histories.customers.tolist()}

    everyone, refusing = learned_from(), lookup.find_keys(shop, ["c001", "c002"])
    assert everyone >= set(refusing.values())
    said = pd.DataFrame({"customer_id": list(refusing), "purpose": "profiling", "state": "denied"})
    said.assign(at="2025-01-01T10:00:00").to_csv(tmp_path / "consents.csv", index=False)
    operations.load_records(shop, "consents", [tmp_path / "consents.csv"], source="files")
    assert learned_from() == everyone - set(refusing.values())


def test_offers_of_a_shop_with_few_redemptions_say_what_is_missing(shop: Shop) -> None:
    with pytest.raises(NothingToDo, match="no offer of a campaign"):
        backtest_run.run_backtest(shop, "offers", cutoffs=1, progress=silent)


def test_an_unknown_question_is_wrong_usage(shop: Shop) -> None:
    with pytest.raises(WrongUsage, match="recommender, offers"):
        backtest_run.run_backtest(shop, "weather", progress=silent)
    with pytest.raises(WrongUsage, match="at least one"):
        backtest_run.run_backtest(shop, "recommender", cutoffs=0, progress=silent)


def test_a_shop_without_sales_or_with_few_days_is_told_what_to_do(tmp_path: Path, till: Till) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    with pytest.raises(NothingToDo, match="regulars load transactions"):
        backtest_run.run_backtest(shop, "recommender", progress=silent)
    lines = [(f"o{day}", 0, "only", "p1", f"2025-01-{day:02d}T10:00:00", 1, 5, 0) for day in (2, 9)]
    operations.load_records(shop, "transactions", [till(*lines)], source="files")
    with pytest.raises(NothingToDo, match="a backtest needs 112"):
        backtest_run.run_backtest(shop, "recommender", progress=silent)


def test_cutoffs_leave_days_to_learn_from_and_to_judge_on(shop: Shop) -> None:
    now = clock.now(shop)
    moments = cutoffs.choose_cutoffs(shop, 9, 28, outcome_days=28, history_days=84)
    assert [round((now - moment).total_seconds() / 86_400) for moment in moments] == [112, 84, 56, 28]
    assert all(moment.astimezone(UTC) < datetime.now(UTC) for moment in moments)
