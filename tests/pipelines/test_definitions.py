"""The clock shows the steps of the day, runs all of them in one go, and starts the night by itself."""

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

MODELS = {plan.name for plan in TASKS}


@pytest.fixture
def home(first_night_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A grocer's home the day after a night, as the clock finds it."""
    copied = shutil.copytree(first_night_home, tmp_path / "home")
    monkeypatch.setenv("REGULARS_HOME", str(copied))
    monkeypatch.setenv("DAGSTER_HOME", str(definitions.prepare_dagster_home(settings.open_shop())))
    return copied


def materialised(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}


def test_every_step_is_there_and_the_models_stand_between_features_and_scores(home: Path) -> None:
    house = definitions.defs()
    dg.Definitions.validate_loadable(house)
    graph = house.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    exports = {f"exports/{name.replace('-', '_')}" for name in reports_exports.TABLES}
    assert keys == {"ledger", "features", "scores"} | MODELS | exports
    scores = graph.get(dg.AssetKey("scores"))
    assert {key.to_user_string() for key in scores.parent_keys} == {"features"} | MODELS


def test_a_tick_starts_the_night_and_the_night_does_all_of_it(home: Path) -> None:
    """By the daemon's own records in the home, so that somebody can look at the run afterwards."""
    house = definitions.defs()
    tick = dg.build_schedule_context(scheduled_execution_time=datetime(2025, 7, 26, 3, 30, tzinfo=ZoneInfo("UTC")))
    [schedule] = house.schedules
    [request] = schedule.evaluate_tick(tick).run_requests
    assert (schedule.job_name, schedule.cron_schedule) == ("night", "30 3 * * *")
    assert schedule.execution_timezone == settings.open_shop().timezone
    night = house.resolve_job_def(schedule.job_name)
    with dg.DagsterInstance.get() as records:
        done = night.execute_in_process(run_config=request.run_config, instance=records)
        assert [run.status for run in records.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
    keys = {key.to_user_string() for key in house.resolve_asset_graph().get_all_asset_keys()}
    assert done.success
    assert materialised(done) == keys
    exported = pd.read_parquet(home / "exports" / "scores.parquet")
    pd.testing.assert_frame_equal(
        exported, reports_exports.build_table(settings.open_shop(), "scores"), check_dtype=False
    )


def test_retraining_touches_the_models_alone(home: Path) -> None:
    champion = {row["name"]: row["version"] for row in promotion.summarise_champions(settings.open_shop())}["churn"]
    done = definitions.defs().resolve_job_def("retrain").execute_in_process(asset_selection=[dg.AssetKey("churn")])
    assert materialised(done) == {"churn"}
    [event] = done.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["version"].value == champion, "the same sales and the same code"
    assert 0.5 < metadata["auc"].value < 1


def test_a_shop_that_has_sold_nothing_skips_the_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="Asia/Shanghai", currency="CNY")
    monkeypatch.setenv("REGULARS_HOME", str(shop.home))
    house = definitions.defs()
    [schedule] = house.schedules
    assert schedule.execution_timezone == "Asia/Shanghai"
    tick = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=datetime(2025, 7, 26)))
    assert tick.run_requests == []
    assert "regulars load transactions" in tick.skip_message
    failed = house.resolve_job_def("night").execute_in_process(raise_on_error=False)
    assert not failed.success
    [failure] = [event for event in failed.all_events if event.is_step_failure]
    assert "regulars load transactions" in failure.step_failure_data.user_failure_data.description


def test_the_clock_tells_nobody(home: Path) -> None:
    with dg.DagsterInstance.get() as records:
        assert not records.telemetry_enabled
