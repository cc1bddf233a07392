"""Backtests of churn, timing, restock and value over a small grocer: every method on the same customers."""

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

pytestmark = pytest.mark.acceptance  # whole nights

Till = Callable[..., Path]


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="module")
def shop(new_small_shop: Callable[[Path], Shop], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The small grocer before any nightly run."""
    return new_small_shop(tmp_path_factory.mktemp("answers") / "home")


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Bootstrap intervals of few draws; their computation is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(customer_models, "DRAWS", 10)
        yield


@pytest.fixture(scope="module")
def summary(shop: Shop) -> dict[str, Any]:
    return backtest_run.run_backtest(shop, "churn", cutoffs=2, every=28, progress=ignore_progress)


def test_the_served_model_is_compared_with_every_baseline(summary: dict[str, Any]) -> None:
    table = pd.DataFrame(summary["table"])
    everyone = table[(table["segment"] == "all") & (table["figure"] == "log_loss")].set_index("method")
    baselines = ["recency", "RFM, logistic", "BG/NBD and season", "BG/NBD"]
    assert list(everyone.index) == ["served", "churn.Churn", *baselines, "plain LightGBM"]
    assert (everyone["low"] <= everyone["value"]).all()
    assert (everyone["value"] <= everyone["high"]).all()
    assert everyone["observations"].nunique() == 1, "every method on the same customers"
    assert any("is served" in note for note in summary["notes"])


def test_the_table_has_each_cutoff_and_their_mean(summary: dict[str, Any]) -> None:
    table = pd.DataFrame(summary["table"])
    values = table[(table["method"] == "BG/NBD") & (table["figure"] == "auc")].set_index("segment")["value"]
    by_cutoff = [values[f"as of {cutoff}"] for cutoff in summary["cutoffs"]]
    assert len(by_cutoff) == 2
    assert values["all"] == pytest.approx(np.mean(by_cutoff))


def test_the_backtest_is_written_plotted_and_logged_to_mlflow(shop: Shop, summary: dict[str, Any]) -> None:
    folder = shop.home / "exports" / "backtest-churn"
    page = (folder / "churn.html").read_text(encoding="utf-8")
    assert "BG/NBD" in page
    assert "log loss" in page
    assert "log loss" in terminal_text.format_backtest(summary)
    run = mlflow_client.open_client(promotion.registry_uri(shop)).get_run(summary["run"])
    assert run.data.metrics["served.auc"] > 0
    pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib")
    assert (folder / "churn-curves.png").read_bytes().startswith(b"\x89PNG")
    assert 'src="churn-curves.png"' in page


@pytest.mark.parametrize("name", ["restock", "value"])
def test_other_models_can_be_backtested(shop: Shop, name: str) -> None:
    result = customer_models.backtest_customer_model(shop, name, cutoffs=1, progress=ignore_progress)
    served = result.table[(result.table["method"] == "served") & (result.table["segment"] == "all")]
    primary = served.set_index("figure").loc[all_tasks.get_task(name).primary_metric]
    assert np.isfinite(primary["value"])
    reliability = result.curves["reliability"]
    assert (reliability["customers"] > 0).all()
    assert set(reliability["method"]) == set(result.table["method"])


def test_a_sale_after_a_cutoff_changes_the_outcome_and_no_prediction(shop: Shop, tmp_path: Path, till: Till) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    task, now = all_tasks.get_task("churn"), clock.now(shop)
    [cutoff] = cutoffs.choose_cutoffs(shop, 1, 28, outcome_days=28, history_days=56)
    before, _ = customer_models._evaluate_cutoff(shop, cutoff, task, None, ignore_progress)
    churned = before.rows.loc[before.label["churned"] == 1, "customer_key"]
    [customer_id] = lookup.find_ids(shop, churned.head(1)).values()
    sold = (cutoff + (now - cutoff) / 2).isoformat()
    operations.load_records(
        shop, "transactions", [till(("late", 0, customer_id, "p00", sold, 1, 2, 0))], source="files"
    )
    after, _ = customer_models._evaluate_cutoff(shop, cutoff, task, None, ignore_progress)
    for method, predictions in before.predictions.items():
        np.testing.assert_array_equal(after.predictions[method], predictions)
    assert after.label["churned"].sum() == before.label["churned"].sum() - 1


def test_timing_is_plotted_as_the_probability_of_a_purchase_within_four_weeks() -> None:
    curve = np.linspace(0.99, 0.1, 90)[None, :].repeat(2, axis=0)
    label = pd.DataFrame({"duration_days": [28.0, 29.0], "observed": [True, True]})
    training_data: Any = None
    evaluation = customer_models.CutoffEvaluation(
        training_data, pd.DataFrame({"customer_key": [1, 2]}), label, {"rule": curve}
    )
    score, outcome = customer_models._score_and_outcome(all_tasks.get_task("timing"), evaluation, "rule")
    assert score.tolist() == pytest.approx([1 - curve[0, 27]] * 2)
    assert outcome.tolist() == [1.0, 0.0]
