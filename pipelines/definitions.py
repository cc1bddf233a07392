"""Dagster definitions: the steps of the nightly run as assets, and the schedule that starts them every night."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from pipelines import process_environment

process_environment.set_variables()

import dagster as dg  # noqa: E402 - the variables must be set before

from customers.ledger import transactions  # noqa: E402
from customers.parquet import mirror  # noqa: E402
from customers.reports import exports  # noqa: E402
from customers.shop import settings  # noqa: E402
from customers.shop.settings import Shop  # noqa: E402
from pipelines.errors import explain_error  # noqa: E402
from training.tasks.all_tasks import TASKS  # noqa: E402

#: 3:30 in the shop's time zone: after closing time, and before scores are used.
NIGHTLY_CRON = "30 3 * * *"
MODELS = [task.name for task in TASKS]
SETTINGS = """\
telemetry: {enabled: false}
concurrency: {runs: {max_concurrent_runs: 1}}  # a second run waits for the first, and is not refused
"""


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, jobs and the schedule of the shop at REGULARS_HOME."""
    nightly_job = dg.define_asset_job("night", dg.AssetSelection.all(), description="Every step, in order.")
    models = dg.AssetSelection.assets(*MODELS)
    retrain = dg.define_asset_job(
        "retrain", models, description="Train, evaluate and promote; every customer is scored anew."
    )
    return dg.Definitions(
        assets=[ledger, learning, *(_export_asset(table) for table in exports.TABLES)],
        jobs=[nightly_job, retrain],
        schedules=[_nightly_schedule(nightly_job, settings.open_shop())],
        # In one process: all steps write the same files, and the libraries are slow to import in a process per step.
        executor=dg.in_process_executor,
    )


@dg.asset(group_name="customers", description="The Parquet mirror of the ledger, month by month.")
def ledger() -> dg.MaterializeResult:
    """Bring the mirror up to date."""
    with _open_shop() as shop:
        return dg.MaterializeResult(metadata={"rewritten": mirror.refresh(shop)})


def _asset_specs() -> Iterator[dg.AssetSpec]:
    yield dg.AssetSpec("features", deps=["ledger"], group_name="features", skippable=True)
    for task in TASKS:
        yield dg.AssetSpec(task.name, deps=["features"], group_name="models", skippable=True, description=task.question)
    yield dg.AssetSpec("scores", deps=["features", *MODELS], group_name="customers", skippable=True)


@dg.multi_asset(name="learning", specs=list(_asset_specs()), can_subset=True)
def learning(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    """One nightly run. Only the selected models are trained; with none of them selected, the champions score."""
    # Imported here: Feast and MLflow take seconds to import, and the scheduler only reads the definitions.
    from pipelines.nightly import run as nightly_run

    selected = {key.to_user_string() for key in context.selected_asset_keys}
    model_names = [name for name in MODELS if name in selected]
    with _open_shop() as shop:
        progress = context.log.info
        summary = (
            nightly_run.run_nightly(shop, only=model_names, progress=progress)
            if model_names
            else nightly_run.score_everyone(shop, progress=progress)
        )
    results = _asset_metadata(summary)
    yield from (dg.MaterializeResult(asset_key=name, metadata=results[name]) for name in results if name in selected)


def _asset_metadata(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The report of a run by asset; nothing in it is about a customer."""
    models = {
        name: _drop_missing({**{key: model[key] for key in ("version", "promoted", "why")}, **model["metrics"]})
        for name, model in summary.get("models", {}).items()
    }
    scores = {name: summary[name] for name in ("as_of", "customers", "scores_written")}
    return {"features": {"as_of": summary["as_of"], **summary["seconds"]}, **models, "scores": scores}


def _drop_missing(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if value is not None}


def _export_asset(table: str) -> dg.AssetsDefinition:
    """The asset that writes one export table to a file for other programs."""

    @dg.asset(
        key=["exports", table.replace("-", "_")], deps=["scores"], group_name="exports",
        description=f"The table {table} as Parquet, in the home's folder exports.",
    )  # fmt: skip
    def exported() -> dg.MaterializeResult:
        from pipelines import operations

        with _open_shop() as shop:
            out = shop.home / "exports" / f"{table}.parquet"
            return dg.MaterializeResult(metadata={"rows": operations.export_table(shop, table, out), "path": str(out)})

    return exported


def _nightly_schedule(job: Any, shop: Shop) -> dg.ScheduleDefinition:
    @dg.schedule(
        cron_schedule=NIGHTLY_CRON, job=job, execution_timezone=shop.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )  # fmt: skip
    def every_night() -> dg.RunRequest | dg.SkipReason:
        if transactions.last_sold_at(settings.open_shop()) is None:
            return dg.SkipReason("nothing has been sold yet; run: regulars load transactions FILE")
        return dg.RunRequest()

    return every_night


@contextmanager
def _open_shop() -> Iterator[Shop]:
    """The shop at REGULARS_HOME; an error meant for users becomes a Dagster failure with its one line."""
    try:
        yield settings.open_shop()
    except Exception as error:
        explanation = explain_error(error)
        if explanation is None:
            raise
        raise dg.Failure(description=explanation[0], allow_retries=False) from None


def prepare_dagster_home(shop: Shop) -> Path:
    """Create the folder in the home where Dagster keeps its own records, with its settings; the path."""
    folder = shop.home / "dagster"
    folder.mkdir(exist_ok=True, mode=0o700)
    if not (folder / "dagster.yaml").exists():
        (folder / "dagster.yaml").write_text(SETTINGS, encoding="utf-8")
    return folder


def start_scheduler(shop: Shop) -> NoReturn:
    """Replace this process by the Dagster daemon, until Ctrl-C; it starts the nightly run on schedule."""
    folder = prepare_dagster_home(shop)
    # Make Dagster's own tables now: the daemon and its code server would both begin to, and one of them fail.
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.all_instigator_state()
    environment = os.environ | {"DAGSTER_HOME": str(folder), "REGULARS_HOME": str(shop.home)}
    daemon = str(Path(sys.executable).with_name("dagster-daemon"))
    os.execve(daemon, [daemon, "run", "-m", "pipelines.definitions"], environment)
