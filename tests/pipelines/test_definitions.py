"""The Dagster definitions: the assets, the nightly job that builds all of them, and its schedule."""

import shutil
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
import pytest

from customers import setup
from customers.reports import exports as reports_exports
from customers.shop import settings
from pipelines import definitions
from training import promotion
from training.tasks.all_tasks import TASKS

MODELS = {task.name for task in TASKS}


@pytest.fixture
def home(first_run_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home after its first nightly run, set as the home of the shop and of Dagster."""
    copied = shutil.copytree(first_run_home, tmp_path / "home")
    monkeypatch.setenv("REGULARS_HOME", str(copied))
    monkeypatch.setenv("DAGSTER_HOME", str(definitions.prepare_dagster_home(settings.open_shop())))
    return copied


def materialised_assets(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}


def test_every_step_is_an_asset_and_scores_depend_on_features_and_models(home: Path) -> None:
    all_definitions = definitions.defs()
    dg.Definitions.validate_loadable(all_definitions)
    graph = all_definitions.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    exports = {f"exports/{name.replace('-', '_')}" for name in reports_exports.TABLES}
    assert keys == {"ledger", "features", "scores"} | MODELS | exports
    scores = graph.get(dg.AssetKey("scores"))
    assert {key.to_user_string() for key in scores.parent_keys} == {"features"} | MODELS


@pytest.mark.acceptance
def test_a_schedule_tick_starts_the_nightly_job_which_builds_every_asset(home: Path) -> None:
    """The run is recorded in the home's Dagster instance, where it can be inspected later."""
    all_definitions = definitions.defs()
    tick = dg.build_schedule_context(scheduled_execution_time=datetime(2025, 7, 26, 3, 30, tzinfo=ZoneInfo("UTC")))
    [schedule] = all_definitions.schedules
    [request] = schedule.evaluate_tick(tick).run_requests
    assert (schedule.job_name, schedule.cron_schedule) == ("night", "30 3 * * *")
    assert schedule.execution_timezone == settings.open_shop().timezone
    nightly_job = all_definitions.resolve_job_def(schedule.job_name)
    with dg.DagsterInstance.get() as instance:
        result = nightly_job.execute_in_process(run_config=request.run_config, instance=instance)
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
    keys = {key.to_user_string() for key in all_definitions.resolve_asset_graph().get_all_asset_keys()}
    assert result.success
    assert materialised_assets(result) == keys
    exported = pd.read_parquet(home / "exports" / "scores.parquet")
    pd.testing.assert_frame_equal(
        exported, reports_exports.build_table(settings.open_shop(), "scores"), check_dtype=False
    )


@pytest.mark.acceptance
def test_retraining_builds_only_the_selected_model(home: Path) -> None:
    champion = {row["name"]: row["version"] for row in promotion.summarise_champions(settings.open_shop())}["churn"]
    result = definitions.defs().resolve_job_def("retrain").execute_in_process(asset_selection=[dg.AssetKey("churn")])
    assert materialised_assets(result) == {"churn"}
    [event] = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["version"].value == champion, "the same sales and the same code give the same version"
    assert 0.5 < metadata["auc"].value < 1


def test_a_shop_without_sales_skips_the_nightly_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="Asia/Shanghai", currency="CNY")
    monkeypatch.setenv("REGULARS_HOME", str(shop.home))
    all_definitions = definitions.defs()
    [schedule] = all_definitions.schedules
    assert schedule.execution_timezone == "Asia/Shanghai"
    tick = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=datetime(2025, 7, 26)))
    assert tick.run_requests == []
    assert "regulars load transactions" in tick.skip_message
    failed = all_definitions.resolve_job_def("night").execute_in_process(raise_on_error=False)
    assert not failed.success
    [failure] = [event for event in failed.all_events if event.is_step_failure]
    assert "regulars load transactions" in failure.step_failure_data.user_failure_data.description


def test_dagster_telemetry_is_off(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert not instance.telemetry_enabled


def test_the_scheduler_takes_the_place_of_this_process_with_tables_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a signal to stop reaches it; and its processes find Dagster's tables and do not all make them."""
    shop = setup.init_home(tmp_path / "home")
    calls = []
    monkeypatch.setattr("os.execve", lambda *arguments: calls.append(arguments))
    definitions.start_scheduler(shop)
    [(program, arguments, environment)] = calls
    assert Path(program).exists()
    assert arguments[1:] == ["run", "-m", "pipelines.definitions"]
    assert (environment["REGULARS_HOME"], environment["DAGSTER_HOME"]) == (str(shop.home), str(shop.home / "dagster"))
    assert (shop.home / "dagster" / "schedules" / "schedules.db").exists()
