"""The `regulars` command and its subcommands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from customers.reports.sort_orders import SortOrder
from pipelines import process_environment
from pipelines.cli import terminal
from pipelines.cli.customers_and_keys import customer_app, keys_app, tombstones_app
from pipelines.cli.terminal import AsJson, AsOf

process_environment.set_variables()
app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    help="Which customers come back, when, for what, and who is at risk of churn.",
)
app.add_typer(keys_app, name="keys")
app.add_typer(customer_app, name="customer")
app.add_typer(tombstones_app, name="tombstones")


@app.command()
def init(
    timezone: Annotated[str, typer.Option(help="Time zone of the shop, e.g. Europe/Berlin.")] = "UTC",
    currency: Annotated[str, typer.Option(help="Currency of amounts that name none.")] = "EUR",
    now: Annotated[str, typer.Option(help="The shop's clock: 'real', 'last-sale' or a fixed time.")] = "real",
    as_json: AsJson = False,
) -> None:
    """Create the home of a new shop."""
    from customers import setup

    with terminal.handle_errors():
        shop = setup.init_home(terminal.home_folder(), timezone=timezone, currency=currency, now=now)
        terminal.print_result(
            {"home": str(shop.home)},
            as_json,
            f"Created a shop in {shop.home}; next: regulars load transactions FILE",
        )


@app.command()
def load(
    kind: Annotated[str, typer.Argument(help="customers, products, transactions, offers, interactions or consents.")],
    paths: Annotated[list[Path], typer.Argument(help="CSV, NDJSON, Parquet or XLSX files, folders or globs.")],
    source: Annotated[
        str, typer.Option(help="Name of the system the records come from; ids belong to their source.")
    ] = "files",
    mapping: Annotated[Path | None, typer.Option(help="TOML file with lines: our column = 'their column'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the records without storing them.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if any row is rejected.")] = False,
    as_json: AsJson = False,
) -> None:
    """Load records; rows that are not valid go to a rejects file, all others are stored."""
    from pipelines import errors, operations

    with terminal.handle_errors():
        loaded = operations.load_records(
            terminal.open_shop(), kind, paths, source=source, mapping=mapping, dry_run=dry_run
        )
        template = "{read} read: {inserted} new, {updated} changed, {unchanged} unchanged, {rejected} rejected"
        text = template.format(**loaded)
        terminal.print_result(loaded, as_json, f"{text}; see {loaded['rejects_file']}" if loaded["rejected"] else text)
        is_nothing_loaded = loaded["read"] > 0 and loaded["rejected"] >= loaded["read"]
        if is_nothing_loaded or (strict and loaded["rejected"]):
            terminal.exit_with(errors.EXIT_NOTHING_DONE)


@app.command()
def run(
    as_of: AsOf = None,
    only: Annotated[
        str | None, typer.Option(help="Train only some of: recommender,offers,churn,timing,restock,value.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the nightly pipeline: features, training, evaluation, promotion of what is no worse, scores for everyone."""
    from pipelines.nightly import run as nightly_run
    from pipelines.reporting import terminal_text

    with terminal.handle_errors():
        summary = nightly_run.run_nightly(
            terminal.open_shop(), as_of=as_of, only=only.split(",") if only else None, progress=terminal.print_progress
        )
        terminal.print_result(summary, as_json, terminal_text.format_nightly(summary))


@app.command()
def train(name: str, as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Train one model and register it as challenger; promote it with: regulars promote NAME."""
    from pipelines.nightly import run as nightly_run

    with terminal.handle_errors():
        summary = nightly_run.train_challenger(
            terminal.open_shop(), name, as_of=as_of, progress=terminal.print_progress
        )
        terminal.print_result(summary, as_json, f"{name} version {summary['version']} is registered: {summary['why']}")


@app.command()
def promote(
    name: str,
    version: Annotated[str | None, typer.Option(help="Default: the newest challenger.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion, the one that scores customers."""
    from training import promotion

    with terminal.handle_errors():
        promoted_version = promotion.promote(terminal.open_shop(), name, version=version, why="by hand")
        terminal.print_result(
            {"name": name, "version": promoted_version},
            as_json,
            f"{name} version {promoted_version} is the champion now",
        )


@app.command()
def rollback(name: str, as_json: AsJson = False) -> None:
    """Go back to the previous champion."""
    from training import promotion

    with terminal.handle_errors():
        restored_version = promotion.rollback(terminal.open_shop(), name)
        terminal.print_result(
            {"name": name, "version": restored_version}, as_json, f"{name} went back to version {restored_version}"
        )


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the champion of each model, since when, and why."""
    from pipelines.reporting import terminal_text
    from training import promotion

    with terminal.handle_errors():
        champions = promotion.summarise_champions(terminal.open_shop())
        terminal.print_result({"models": champions}, as_json, terminal_text.format_models(champions))


@app.command()
def backtest(
    name: Annotated[str, typer.Argument(help="recommender, offers, churn, timing, restock or value.")] = "recommender",
    cutoffs: Annotated[int, typer.Option(help="Number of earlier cutoffs.")] = 3,
    every: Annotated[
        int | None, typer.Option(help="Days between cutoffs; default: the window evaluated at each.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table, plots and HTML page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the model and every benchmark method at earlier cutoffs against what customers then did."""
    from pipelines.backtest import run as backtest_run
    from pipelines.reporting import terminal_text

    with terminal.handle_errors():
        summary = backtest_run.run_backtest(
            terminal.open_shop(), name, cutoffs=cutoffs, every=every, out=out, progress=terminal.print_progress
        )
        terminal.print_result(summary, as_json, terminal_text.format_backtest(summary))


@app.command()
def sufficiency(as_json: AsJson = False) -> None:
    """Check whether there are enough data for each model, and what is served where there are not."""
    from pipelines import data_sufficiency
    from pipelines.reporting import terminal_text

    with terminal.handle_errors():
        requirements = data_sufficiency.check_sufficiency(terminal.open_shop())
        terminal.print_result(
            {"needs": requirements, "enough": data_sufficiency.is_sufficient(requirements)},
            as_json,
            terminal_text.format_sufficiency(requirements),
        )


@app.command()
def uplift(
    out: Annotated[Path | None, typer.Option(help="Folder for the table and plot.")] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate which customers come back because of a campaign, and whether the evidence suffices to rank by it."""
    from pipelines.reporting import terminal_text
    from pipelines.uplift import run as uplift_run

    with terminal.handle_errors():
        summary = uplift_run.run_uplift(terminal.open_shop(), out=out, progress=terminal.print_progress)
        terminal.print_result(summary, as_json, terminal_text.format_uplift(summary))


@app.command()
def score(as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Score every customer with the present champions; nothing is trained."""
    from pipelines.nightly import run as nightly_run

    with terminal.handle_errors():
        summary = nightly_run.score_everyone(terminal.open_shop(), as_of=as_of, progress=terminal.print_progress)
        terminal.print_result(
            summary, as_json, f"{summary['scores_written']} scores written for {summary['customers']} customers"
        )


@app.command()
def export(
    table: Annotated[
        str,
        typer.Argument(
            help="scores, timing, recommendations, offers, dropped-offers, restock, at-risk, customers or demand."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A path ending in .csv, .parquet or .ndjson; without ending, a folder.")],
    as_json: AsJson = False,
) -> None:
    """Write a table to a file for other programs."""
    from pipelines import operations

    with terminal.handle_errors():
        rows = operations.export_table(terminal.open_shop(), table, out)
        terminal.print_result({"table": table, "rows": rows, "out": str(out)}, as_json, f"{rows} rows in {out}")


@app.command()
def recommend(
    customer_ids: list[str],
    n: Annotated[int, typer.Option("-n", min=1, max=50)] = 10,
    offers: Annotated[bool, typer.Option("--offers", help="Offers instead of products.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what these customers are most likely to buy, or which offers they are most likely to redeem."""
    from pipelines import operations
    from pipelines.reporting import terminal_text

    with terminal.handle_errors():
        results = (operations.list_offers if offers else operations.list_recommendations)(
            terminal.open_shop(), customer_ids, n
        )
        terminal.print_result(
            results, as_json, (terminal_text.format_offers if offers else terminal_text.format_recommendations)(results)
        )


@app.command("at-risk")
def at_risk(
    n: Annotated[int, typer.Option("-n", min=1)] = 20,
    segment: Annotated[str | None, typer.Option(help="Only customers of this segment.")] = None,
    min_value: Annotated[float | None, typer.Option(help="Only customers with at least so much at risk.")] = None,
    order: Annotated[SortOrder, typer.Option(help="Sort by this column, largest first.")] = "probability",
    as_json: AsJson = False,
) -> None:
    """List customers at risk of churn, by default the highest probability first."""
    from pipelines import operations
    from pipelines.reporting import terminal_text

    with terminal.handle_errors():
        rows, no_saved_value_reason = operations.list_at_risk(
            terminal.open_shop(), n, segment=segment, min_value=min_value, order=order
        )
        text = terminal_text.format_at_risk(rows)
        if no_saved_value_reason and order == "saved_value":
            text = f"Sorted by probability, since no saved value is available: {no_saved_value_reason}\n{text}"
        terminal.print_result({"items": rows, "no_saved_value": no_saved_value_reason}, as_json, text)


@app.command()
def serve(
    port: Annotated[int, typer.Option()] = 3000,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every one of this machine.")
    ] = "127.0.0.1",
) -> None:
    """Serve the HTTP API and the console until Ctrl-C."""
    from pipelines import replica
    from serving import server

    with terminal.handle_errors():
        shop = terminal.open_shop()
        companion = replica.watch_command(shop) if replica.is_shared(shop) else []
        server.serve(shop, port=port, workers=workers, host=host, companion=companion)


@app.command()
def clock() -> None:
    """Start the nightly run every night, with Dagster in the shop's time zone, until Ctrl-C."""
    from pipelines import definitions

    with terminal.handle_errors():
        definitions.start_scheduler(terminal.open_shop())


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """After an update of regulars: bring the tables of the database to this version. Make a backup before."""
    from customers.database import engine

    with terminal.handle_errors():
        shop = terminal.open_shop()
        engine.upgrade_schema(shop)
        terminal.print_result({"home": str(shop.home)}, as_json, "The database has the tables of this version.")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check the home: what is missing, and what to do."""
    from pipelines import operations
    from pipelines.reporting import terminal_text

    with terminal.handle_errors():
        result = operations.check_home(terminal.open_shop())
        terminal.print_result(result, as_json, terminal_text.format_home_check(result))


@app.command()
def mlflow(port: Annotated[int, typer.Option()] = 5000) -> None:
    """Open the MLflow UI of this home, to compare runs."""
    from pipelines import operations

    with terminal.handle_errors():
        operations.open_mlflow(terminal.open_shop(), port)


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve/--no-serve")] = True,
    port: Annotated[int, typer.Option()] = 3000,
) -> None:
    """Load a real grocer's year (Complete Journey), run the nightly pipeline, and serve."""
    from pipelines import demo as pipelines_demo

    with terminal.handle_errors():
        pipelines_demo.run_demo(terminal.home_folder(), port=port, progress=terminal.print_progress)
        if serve:
            from serving import server

            server.serve(terminal.open_shop(), port=port)


def main() -> None:
    """Entry point of the console script. It ends with os._exit, since DuckDB's binding prints pages at normal exit."""
    code = 0
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
