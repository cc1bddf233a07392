"""The `regulars` command: everything a shop does from a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from customers.orderings import Order
from pipelines import quiet, terminal
from pipelines.people import customer_app, keys_app
from pipelines.terminal import AsJson, AsOf

quiet.down()
app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    help="Which customers are coming back, when, for what, and who is slipping away.",
)
app.add_typer(keys_app, name="keys")
app.add_typer(customer_app, name="customer")


@app.command()
def init(
    timezone: Annotated[str, typer.Option(help="Of the shop, e.g. Europe/Berlin.")] = "UTC",
    currency: Annotated[str, typer.Option(help="Of amounts that state none.")] = "EUR",
    now: Annotated[str, typer.Option(help="'last-sale' or a time pins the shop's clock.")] = "real",
    as_json: AsJson = False,
) -> None:
    """Make a home for a shop."""
    from customers import shop as shops

    with terminal.plainly():
        shop = shops.init(terminal.home(), timezone=timezone, currency=currency, now=now)
        terminal.say(
            {"home": str(shop.home)},
            as_json,
            f"A shop lives in {shop.home} now; next: regulars load transactions FILE",
        )


@app.command()
def load(
    kind: Annotated[str, typer.Argument(help="customers, products, transactions, offers, interactions or consents.")],
    paths: Annotated[list[Path], typer.Argument(help="CSV, NDJSON, Parquet or XLSX files, folders or globs.")],
    source: Annotated[str, typer.Option(help="Where the records come from; ids belong to their source.")] = "files",
    mapping: Annotated[Path | None, typer.Option(help="TOML: our column = their column.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any row is rejected.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take records in; rows that cannot be kept go to a rejects file, all others are kept."""
    from pipelines import failures, steps

    with terminal.plainly():
        loaded = steps.ingest(terminal.shop(), kind, paths, source=source, mapping=mapping, dry_run=dry_run)
        counted = "{read} read: {inserted} new, {updated} changed, {unchanged} as before, {rejected} rejected"
        text = counted.format(**loaded)
        terminal.say(loaded, as_json, f"{text}; see {loaded['rejects_file']}" if loaded["rejected"] else text)
        nothing_kept = loaded["read"] > 0 and loaded["rejected"] >= loaded["read"]
        if nothing_kept or (strict and loaded["rejected"]):
            raise typer.Exit(failures.NOTHING_DONE)


@app.command()
def run(
    as_of: AsOf = None,
    only: Annotated[str | None, typer.Option(help="Some of: recommender,offers,churn,timing,restock,value.")] = None,
    as_json: AsJson = False,
) -> None:
    """The night: features, training, judging, promotion if better, scores for everyone, written back."""
    from pipelines import night, report

    with terminal.plainly():
        told = night.run(terminal.shop(), as_of=as_of, only=only.split(",") if only else None, tell=terminal.tell)
        terminal.say(told, as_json, report.of_night(told))


@app.command()
def train(name: str, as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Train one model and register it as challenger; promote it with: regulars promote NAME."""
    from pipelines import night

    with terminal.plainly():
        told = night.train(terminal.shop(), name, as_of=as_of, tell=terminal.tell)
        terminal.say(told, as_json, f"{name} version {told['version']} is registered: {told['why']}")


@app.command()
def promote(name: str, version: Annotated[str | None, typer.Option()] = None, as_json: AsJson = False) -> None:
    """Make a version the champion: the newest challenger, or the one named."""
    from training import promote as promotions

    with terminal.plainly():
        moved = promotions.promote(terminal.shop(), name, version=version, why="by hand")
        terminal.say({"name": name, "version": moved}, as_json, f"{name} version {moved} speaks for the shop now")


@app.command()
def rollback(name: str, as_json: AsJson = False) -> None:
    """Go back to the champion before this one."""
    from training import promote as promotions

    with terminal.plainly():
        moved = promotions.rollback(terminal.shop(), name)
        terminal.say({"name": name, "version": moved}, as_json, f"{name} went back to version {moved}")


@app.command()
def models(as_json: AsJson = False) -> None:
    """Who speaks for the shop, since when, and why."""
    from pipelines import report
    from training import promote as promotions

    with terminal.plainly():
        told = promotions.overview(terminal.shop())
        terminal.say({"models": told}, as_json, report.of_models(told))


@app.command()
def backtest(
    name: Annotated[str, typer.Argument(help="recommender, offers, churn, timing, restock or value.")] = "recommender",
    cutoffs: Annotated[int, typer.Option(help="How many earlier moments to ask at.")] = 3,
    every: Annotated[int | None, typer.Option(help="Days between them; default: what is judged at each.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table, its pictures and its page.")] = None,
    as_json: AsJson = False,
) -> None:
    """What would have been said at earlier moments, by the model and by every rival, and what came of it."""
    from pipelines import backtest as backtests
    from pipelines import report

    with terminal.plainly():
        told = backtests.run(terminal.shop(), name, cutoffs=cutoffs, every=every, out=out, tell=terminal.tell)
        terminal.say(told, as_json, report.of_backtest(told))


@app.command()
def sufficiency(as_json: AsJson = False) -> None:
    """Whether the shop knows enough for each model, and what is served where it does not."""
    from pipelines import report
    from pipelines import sufficiency as counts

    with terminal.plainly():
        told = counts.of(terminal.shop())
        terminal.say({"needs": told, "enough": counts.enough(told)}, as_json, report.of_sufficiency(told))


@app.command()
def uplift(
    out: Annotated[Path | None, typer.Option(help="Folder for the table and its picture.")] = None,
    as_json: AsJson = False,
) -> None:
    """Whom the shop's campaigns brought back, and whether that is known well enough to order lists by it."""
    from pipelines import report
    from pipelines import uplift as trials

    with terminal.plainly():
        told = trials.run(terminal.shop(), out=out, tell=terminal.tell)
        terminal.say(told, as_json, report.of_uplift(told))


@app.command()
def score(as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Score everyone with the champions as they are; nothing is trained."""
    from pipelines import night

    with terminal.plainly():
        told = night.score(terminal.shop(), as_of=as_of, tell=terminal.tell)
        terminal.say(told, as_json, f"{told['scores_written']} scores written for {told['customers']} customers")


@app.command()
def export(
    table: Annotated[
        str,
        typer.Argument(
            help="scores, timing, recommendations, offers, dropped-offers, restock, at-risk, customers or demand."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A path ending in .csv, .parquet or .ndjson.")],
    as_json: AsJson = False,
) -> None:
    """Write a table for other programs."""
    from pipelines import steps

    with terminal.plainly():
        rows = steps.export(terminal.shop(), table, out)
        terminal.say({"table": table, "rows": rows, "out": str(out)}, as_json, f"{rows} rows in {out}")


@app.command()
def recommend(
    customer_ids: list[str],
    n: Annotated[int, typer.Option("-n", min=1, max=50)] = 10,
    offers: Annotated[bool, typer.Option("--offers", help="Offers they may redeem, instead of products.")] = False,
    as_json: AsJson = False,
) -> None:
    """What these customers will buy next, or which offers they will redeem."""
    from pipelines import report, steps

    with terminal.plainly():
        told = (steps.offers if offers else steps.recommend)(terminal.shop(), customer_ids, n)
        terminal.say(told, as_json, (report.of_offers if offers else report.of_recommendations)(told))


@app.command("at-risk")
def at_risk(
    n: Annotated[int, typer.Option("-n", min=1)] = 20,
    segment: Annotated[str | None, typer.Option(help="Only customers of this segment.")] = None,
    min_value: Annotated[float | None, typer.Option(help="Only customers with at least so much at risk.")] = None,
    order: Annotated[Order, typer.Option(help="What the list begins with most of.")] = "probability",
    as_json: AsJson = False,
) -> None:
    """Who is slipping away, most endangered first."""
    from pipelines import report, steps

    with terminal.plainly():
        told, doubt = steps.at_risk(terminal.shop(), n, segment=segment, min_value=min_value, order=order)
        said = report.of_at_risk(told)
        if doubt and order == "saved_value":
            said = f"By probability, as nobody's saved value is known: {doubt}\n{said}"
        terminal.say({"items": told, "no_saved_value": doubt}, as_json, said)


@app.command()
def serve(
    port: Annotated[int, typer.Option()] = 3000,
    workers: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Answer over HTTP until Ctrl-C."""
    from serving import launch

    with terminal.plainly():
        launch.serve(terminal.shop(), port=port, workers=workers)


@app.command()
def clock() -> None:
    """Run every night by itself, on Dagster's clock in the shop's time zone, until Ctrl-C."""
    from pipelines import definitions

    with terminal.plainly():
        definitions.start(terminal.shop())


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at the home and say what is missing and what to do."""
    from pipelines import report, steps

    with terminal.plainly():
        found = steps.doctor(terminal.shop())
        terminal.say(found, as_json, report.of_doctor(found))


@app.command()
def mlflow(port: Annotated[int, typer.Option()] = 5000) -> None:
    """Open MLflow's page on this home, to compare runs."""
    from pipelines import steps

    with terminal.plainly():
        steps.mlflow_page(terminal.shop(), port)


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve/--no-serve")] = True,
    port: Annotated[int, typer.Option()] = 3000,
) -> None:
    """Load a real grocer (Complete Journey), run a night, and serve."""
    from pipelines import demo as demonstration

    with terminal.plainly():
        demonstration.play(terminal.home(), port=port, tell=terminal.tell)
        if serve:
            from serving import launch

            launch.serve(terminal.shop(), port=port)


def main() -> None:
    """The console script. It leaves at once: on the way out DuckDB's binding would print pages about itself."""
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
