"""The clock: the steps of the shop's day as Dagster shows them, and starts them every night by itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines import quiet

quiet.down()

import dagster as dg  # noqa: E402 - it must find quiet

from customers import mirror, tables, transactions  # noqa: E402
from customers import shop as shops  # noqa: E402
from customers.shop import Shop  # noqa: E402
from pipelines.failures import explain  # noqa: E402
from training.plans import PLANS  # noqa: E402

#: In the shop's own zone: after the last till is closed, and before anybody asks.
EVERY_NIGHT = "30 3 * * *"
MODELS = [plan.name for plan in PLANS]
SETTINGS = """\
telemetry: {enabled: false}
concurrency: {runs: {max_concurrent_runs: 1}}  # a second night waits for the first, and is not turned away
"""


@dg.definitions
def defs() -> dg.Definitions:
    """Everything that the clock knows of the shop at REGULARS_HOME."""
    whole_night = dg.define_asset_job("night", dg.AssetSelection.all(), description="All of it, in order.")
    models = dg.AssetSelection.assets(*MODELS)
    retrain = dg.define_asset_job("retrain", models, description="Train, judge and promote; all are scored afresh.")
    return dg.Definitions(
        assets=[ledger, learning, *(_exported(table) for table in tables.TABLES)],
        jobs=[whole_night, retrain],
        schedules=[_nightly(whole_night, shops.open())],
        # One at a time: all write the same files, and six libraries are slow to import in a new program each.
        executor=dg.in_process_executor,
    )


@dg.asset(group_name="customers", description="The ledger's mirror in columns, month by month.")
def ledger() -> dg.MaterializeResult:
    """Bring the mirror up to what is known."""
    with _plainly() as shop:
        return dg.MaterializeResult(metadata={"rewritten": mirror.refresh(shop)})


def _specs() -> Iterator[dg.AssetSpec]:
    yield dg.AssetSpec("features", deps=["ledger"], group_name="features", skippable=True)
    for plan in PLANS:
        yield dg.AssetSpec(plan.name, deps=["features"], group_name="models", skippable=True, description=plan.question)
    yield dg.AssetSpec("scores", deps=["features", *MODELS], group_name="customers", skippable=True)


@dg.multi_asset(name="learning", specs=list(_specs()), can_subset=True)
def learning(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    """One night as of one moment. With some of the models only those are trained; with none all stay as they are."""
    from pipelines import night  # here: Feast and MLflow take seconds to load, the clock only looks

    selected = {key.to_user_string() for key in context.selected_asset_keys}
    chosen = [name for name in MODELS if name in selected]
    with _plainly() as shop:
        said = context.log.info
        told = night.run(shop, only=chosen, tell=said) if chosen else night.score(shop, tell=said)
    results = _told(told)
    yield from (dg.MaterializeResult(asset_key=name, metadata=results[name]) for name in results if name in selected)


def _told(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a night says of itself, an asset at a time; nothing in it is about a customer."""
    models = {
        name: _known({**{part: model[part] for part in ("version", "promoted", "why")}, **model["metrics"]})
        for name, model in told.get("models", {}).items()
    }
    scored = {name: told[name] for name in ("as_of", "customers", "scores_written")}
    return {"features": {"as_of": told["as_of"], **told["seconds"]}, **models, "scores": scored}


def _known(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if value is not None}


def _exported(table: str) -> dg.AssetsDefinition:
    """A table of the contract, as a file for other programs."""

    @dg.asset(
        key=["exports", table.replace("-", "_")], deps=["scores"], group_name="exports",
        description=f"The table {table} as Parquet, in the home's folder exports.",
    )  # fmt: skip
    def exported() -> dg.MaterializeResult:
        from pipelines import steps

        with _plainly() as shop:
            out = shop.home / "exports" / f"{table}.parquet"
            return dg.MaterializeResult(metadata={"rows": steps.export(shop, table, out), "path": str(out)})

    return exported


def _nightly(job: Any, shop: Shop) -> dg.ScheduleDefinition:
    @dg.schedule(
        cron_schedule=EVERY_NIGHT, job=job, execution_timezone=shop.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )  # fmt: skip
    def every_night() -> dg.RunRequest | dg.SkipReason:
        if transactions.last_sold_at(shops.open()) is None:
            return dg.SkipReason("nothing has been sold yet; run: regulars load transactions FILE")
        return dg.RunRequest()

    return every_night


@contextmanager
def _plainly() -> Iterator[Shop]:
    """The shop; an error meant for people reaches Dagster as its one line."""
    try:
        yield shops.open()
    except Exception as failure:
        told = explain(failure)
        if told is None:
            raise
        raise dg.Failure(description=told[0], allow_retries=False) from None


def settle(shop: Shop) -> Path:
    """The folder in the home where Dagster keeps its own records, with its settings."""
    place = shop.home / "dagster"
    place.mkdir(exist_ok=True, mode=0o700)
    if not (place / "dagster.yaml").exists():
        (place / "dagster.yaml").write_text(SETTINGS, encoding="utf-8")
    return place


def start(shop: Shop) -> None:
    """Keep the clock running until Ctrl-C: every night starts by itself."""
    surroundings = os.environ | {"DAGSTER_HOME": str(settle(shop)), "REGULARS_HOME": str(shop.home)}
    daemon = Path(sys.executable).with_name("dagster-daemon")
    subprocess.run([daemon, "run", "-m", "pipelines.definitions"], env=surroundings, check=False)
