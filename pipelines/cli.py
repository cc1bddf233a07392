"""The `regulars` command: everything a shop does from a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import quiet

quiet.down()
app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    help="Which customers are coming back, when, for what, and who is slipping away.",
)
keys_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Keys of programs and people that may ask.")
customer_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="One customer at a time.")
app.add_typer(keys_app, name="keys")
app.add_typer(customer_app, name="customer")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="A day or a moment; what was known before it may be used.")]


@app.command()
def init(
    timezone: Annotated[str, typer.Option(help="Of the shop, e.g. Europe/Berlin.")] = "UTC",
    currency: Annotated[str, typer.Option(help="Of amounts that state none.")] = "EUR",
    now: Annotated[str, typer.Option(help="'last-sale' or a time pins the shop's clock.")] = "real",
    as_json: AsJson = False,
) -> None:
    """Make a home for a shop."""
    from customers import shop as shops

    with _plainly():
        shop = shops.init(_home(), timezone=timezone, currency=currency, now=now)
        _say(
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

    with _plainly():
        loaded = steps.ingest(_shop(), kind, paths, source=source, mapping=mapping, dry_run=dry_run)
        counted = "{read} read: {inserted} new, {updated} changed, {unchanged} as before, {rejected} rejected"
        text = counted.format(**loaded)
        _say(loaded, as_json, f"{text}; see {loaded['rejects_file']}" if loaded["rejected"] else text)
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

    with _plainly():
        told = night.run(_shop(), as_of=as_of, only=only.split(",") if only else None, tell=_tell)
        _say(told, as_json, report.of_night(told))


@app.command()
def train(name: str, as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Train one model and register it as challenger; promote it with: regulars promote NAME."""
    from pipelines import night

    with _plainly():
        told = night.train(_shop(), name, as_of=as_of, tell=_tell)
        _say(told, as_json, f"{name} version {told['version']} is registered: {told['why']}")


@app.command()
def promote(name: str, version: Annotated[str | None, typer.Option()] = None, as_json: AsJson = False) -> None:
    """Make a version the champion: the newest challenger, or the one named."""
    from training import promote as promotions

    with _plainly():
        moved = promotions.promote(_shop(), name, version=version, why="by hand")
        _say({"name": name, "version": moved}, as_json, f"{name} version {moved} speaks for the shop now")


@app.command()
def rollback(name: str, as_json: AsJson = False) -> None:
    """Go back to the champion before this one."""
    from training import promote as promotions

    with _plainly():
        moved = promotions.rollback(_shop(), name)
        _say({"name": name, "version": moved}, as_json, f"{name} went back to version {moved}")


@app.command()
def models(as_json: AsJson = False) -> None:
    """Who speaks for the shop, since when, and why."""
    from pipelines import report
    from training import promote as promotions

    with _plainly():
        told = promotions.overview(_shop())
        _say({"models": told}, as_json, report.of_models(told))


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

    with _plainly():
        told = backtests.run(_shop(), name, cutoffs=cutoffs, every=every, out=out, tell=_tell)
        _say(told, as_json, report.of_backtest(told))


@app.command()
def sufficiency(as_json: AsJson = False) -> None:
    """Whether the shop knows enough for each model, and what is served where it does not."""
    from pipelines import report
    from pipelines import sufficiency as counts

    with _plainly():
        told = counts.of(_shop())
        _say({"needs": told, "enough": all(need["enough"] for need in told)}, as_json, report.of_sufficiency(told))


@app.command()
def score(as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Score everyone with the champions as they are; nothing is trained."""
    from pipelines import night

    with _plainly():
        told = night.score(_shop(), as_of=as_of, tell=_tell)
        _say(told, as_json, f"{told['scores_written']} scores written for {told['customers']} customers")


@app.command()
def export(
    table: Annotated[
        str, typer.Argument(help="scores, timing, recommendations, offers, restock, at-risk or customers.")
    ],
    out: Annotated[Path, typer.Option(help="A path ending in .csv, .parquet or .ndjson.")],
    as_json: AsJson = False,
) -> None:
    """Write a table for other programs."""
    from pipelines import steps

    with _plainly():
        rows = steps.export(_shop(), table, out)
        _say({"table": table, "rows": rows, "out": str(out)}, as_json, f"{rows} rows in {out}")


@app.command()
def recommend(
    customer_ids: list[str],
    n: Annotated[int, typer.Option("-n", min=1, max=50)] = 10,
    offers: Annotated[bool, typer.Option("--offers", help="Offers they may redeem, instead of products.")] = False,
    as_json: AsJson = False,
) -> None:
    """What these customers will buy next, or which offers they will redeem."""
    from pipelines import report, steps

    with _plainly():
        told = (steps.offers if offers else steps.recommend)(_shop(), customer_ids, n)
        _say(told, as_json, (report.of_offers if offers else report.of_recommendations)(told))


@app.command("at-risk")
def at_risk(
    n: Annotated[int, typer.Option("-n", min=1)] = 20,
    segment: Annotated[str | None, typer.Option(help="Only customers of this segment.")] = None,
    min_value: Annotated[float | None, typer.Option(help="Only customers with at least so much at risk.")] = None,
    as_json: AsJson = False,
) -> None:
    """Who is slipping away, most endangered first."""
    from pipelines import report, steps

    with _plainly():
        told = steps.at_risk(_shop(), n, segment=segment, min_value=min_value)
        _say({"items": told}, as_json, report.of_at_risk(told))


@customer_app.command()
def show(customer_id: str, as_json: AsJson = False) -> None:
    """Everything on file about a customer, as JSON; it is personal data."""
    from pipelines import steps

    with _plainly():
        told = steps.show(_shop(), customer_id)
        _say(told, as_json, json.dumps(told, default=str, ensure_ascii=False, indent=1))


@customer_app.command("export")
def hand_over(customer_id: str, as_json: AsJson = False) -> None:
    """Everything the shop holds about a customer, as JSON, to hand to that customer; it is personal data."""
    from pipelines import steps

    with _plainly():
        told = steps.hand_over(_shop(), customer_id)
        _say(told, as_json, json.dumps(told, default=str, ensure_ascii=False, indent=1))


@customer_app.command()
def erase(
    customer_id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; there is no way back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a customer for good: key, record, scores and features go; sales stay without a name."""
    from pipelines import steps

    with _plainly():
        if not (yes or as_json):
            typer.confirm("This cannot be taken back. Erase this customer?", abort=True)
        told = steps.erase(_shop(), customer_id)
        _say(told, as_json, "This customer is forgotten; loading the same files again does not bring them back.")


@keys_app.command("add")
def keys_add(
    role: Annotated[str, typer.Argument(help="admin, agent, campaign, analyst or till.")],
    as_json: AsJson = False,
) -> None:
    """Make a key; it is shown once."""
    from customers import access

    with _plainly():
        key = access.add(_shop(), role)
        _say({"role": role, "key": key}, as_json, key)


@app.command()
def serve(
    port: Annotated[int, typer.Option()] = 3000,
    workers: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Answer over HTTP until Ctrl-C."""
    from serving import launch

    with _plainly():
        launch.serve(_shop(), port=port, workers=workers)


@app.command()
def clock() -> None:
    """Run every night by itself, on Dagster's clock in the shop's time zone, until Ctrl-C."""
    from pipelines import definitions

    with _plainly():
        definitions.start(_shop())


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at the home and say what is missing and what to do."""
    from pipelines import report, steps

    with _plainly():
        found = steps.doctor(_shop())
        _say(found, as_json, report.of_doctor(found))


@app.command()
def mlflow(port: Annotated[int, typer.Option()] = 5000) -> None:
    """Open MLflow's page on this home, to compare runs."""
    from pipelines import steps

    with _plainly():
        steps.mlflow_page(_shop(), port)


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve/--no-serve")] = True,
    port: Annotated[int, typer.Option()] = 3000,
) -> None:
    """Load a real grocer (Complete Journey), run a night, and serve."""
    from pipelines import demo as demonstration

    with _plainly():
        demonstration.play(_home(), port=port, tell=_tell)
        if serve:
            from serving import launch

            launch.serve(_shop(), port=port)


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


def _home() -> Path:
    return Path(os.environ.get("REGULARS_HOME", ".regulars"))


def _shop() -> Any:
    from customers import shop as shops

    return shops.open()


def _say(told: dict[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(told, default=str, ensure_ascii=False) if as_json else text)


def _tell(text: str) -> None:
    """Progress goes to stderr, so that stdout stays one answer."""
    typer.echo(text, err=True)


@contextmanager
def _plainly() -> Iterator[None]:
    """Errors meant for people are one line and an exit code; all others are ours to mend and keep their trace."""
    from pipelines.failures import explain

    try:
        yield
    except typer.Exit:
        raise
    except Exception as failure:
        told = explain(failure)
        if told is None:
            raise
        text, code = told
        typer.echo(f"regulars: {text}", err=True)
        sys.exit(code)


if __name__ == "__main__":
    main()
