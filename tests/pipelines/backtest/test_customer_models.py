"""Churn, returns, needs and value of a small grocer, asked at an earlier day: everybody on the same customers."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from customers import clock
from customers.people import lookup
from customers.shop import settings
from customers.shop.settings import Shop
from models.registry import mlflow_client
from pipelines import operations
from pipelines.backtest import customer_models, cutoffs
from pipelines.backtest import run as backtest_run
from pipelines.reporting import terminal_text
from training import promotion
from training.tasks import all_tasks

Till = Callable[..., Path]


def silent(text: str) -> None:
    """Nobody watches in a test."""


@pytest.fixture(scope="module")
def shop(grocer: Callable[[Path], Shop], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The small grocer before any night."""
    return grocer(tmp_path_factory.mktemp("answers") / "home")


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Intervals of few draws: the arithmetic of intervals is looked at elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(customer_models, "DRAWS", 10)
        yield


@pytest.fixture(scope="module")
def told(shop: Shop) -> dict[str, Any]:
    return backtest_run.run_backtest(shop, "churn", cutoffs=2, every=28, progress=silent)


def test_what_would_be_served_stands_beside_the_model_and_every_baseline(told: dict[str, Any]) -> None:
    table = pd.DataFrame(told["table"])
    everyone = table[(table["segment"] == "all") & (table["figure"] == "log_loss")].set_index("method")
    baselines = ["recency", "RFM, logistic", "BG/NBD and season", "BG/NBD"]
    assert list(everyone.index) == ["served", "churn.Churn", *baselines, "plain LightGBM"]
    assert (everyone["low"] <= everyone["value"]).all()
    assert (everyone["value"] <= everyone["high"]).all()
    assert everyone["observations"].nunique() == 1, "all of them on the same customers"
    assert any("is served" in note for note in told["notes"])


def test_the_mean_of_the_cutoffs_is_told_and_each_of_them(told: dict[str, Any]) -> None:
    table = pd.DataFrame(told["table"])
    mine = table[(table["method"] == "BG/NBD") & (table["figure"] == "auc")].set_index("segment")["value"]
    each = [mine[f"as of {cutoff}"] for cutoff in told["cutoffs"]]
    assert len(each) == 2
    assert mine["all"] == pytest.approx(np.mean(each))


def test_it_is_written_drawn_shown_as_a_page_and_kept_in_mlflow(shop: Shop, told: dict[str, Any]) -> None:
    folder = shop.home / "exports" / "backtest-churn"
    page = (folder / "churn.html").read_text(encoding="utf-8")
    assert "BG/NBD" in page
    assert "log loss" in page
    assert "log loss" in terminal_text.format_backtest(told)
    run = mlflow_client.open_client(promotion.registry_uri(shop)).get_run(told["run"])
    assert run.data.metrics["served.auc"] > 0
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")
    assert (folder / "churn-curves.png").read_bytes().startswith(b"\x89PNG")
    assert 'src="churn-curves.png"' in page


@pytest.mark.parametrize("name", ["restock", "value"])
def test_other_questions_can_be_asked(shop: Shop, name: str) -> None:
    found = customer_models.backtest_customer_model(shop, name, cutoffs=1, progress=silent)
    served = found.table[(found.table["method"] == "served") & (found.table["segment"] == "all")]
    decisive = served.set_index("figure").loc[all_tasks.get_task(name).primary_metric]
    assert np.isfinite(decisive["value"])
    said = found.curves["reliability"]
    assert (said["customers"] > 0).all()
    assert set(said["method"]) == set(found.table["method"])


def test_what_is_sold_after_a_cutoff_changes_the_outcome_and_no_answer(shop: Shop, tmp_path: Path, till: Till) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    plan, now = all_tasks.get_task("churn"), clock.now(shop)
    [cutoff] = cutoffs.choose_cutoffs(shop, 1, 28, outcome_days=28, history_days=56)
    before, _ = customer_models._evaluate_cutoff(shop, cutoff, plan, None, silent)
    quiet = before.rows.loc[before.label["quiet"] == 1, "customer_key"]
    [name] = lookup.find_ids(shop, quiet.head(1)).values()
    sold = (cutoff + (now - cutoff) / 2).isoformat()
    operations.load_records(shop, "transactions", [till(("late", 0, name, "p00", sold, 1, 2, 0))], source="files")
    after, _ = customer_models._evaluate_cutoff(shop, cutoff, plan, None, silent)
    for method, said in before.predictions.items():
        np.testing.assert_array_equal(after.predictions[method], said)
    assert after.label["quiet"].sum() == before.label["quiet"].sum() - 1


def test_a_return_is_drawn_as_the_chance_to_come_within_four_weeks() -> None:
    curve = np.linspace(0.99, 0.1, 90)[None, :].repeat(2, axis=0)
    label = pd.DataFrame({"duration_days": [28.0, 29.0], "observed": [True, True]})
    world: Any = None
    sitting = customer_models.CutoffEvaluation(world, pd.DataFrame({"customer_key": [1, 2]}), label, {"rule": curve})
    said, seen = customer_models._score_and_outcome(all_tasks.get_task("timing"), sitting, "rule")
    assert said.tolist() == pytest.approx([1 - curve[0, 27]] * 2)
    assert seen.tolist() == [1.0, 0.0]
