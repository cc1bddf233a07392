"""Commands about one customer and about API keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import terminal
from pipelines.cli.terminal import AsJson

keys_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="API keys of programs and people.")
tombstones_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Who was erased, for a backup that does not know it."
)
customer_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="One customer at a time.")


@customer_app.command()
def show(customer_id: str, as_json: AsJson = False) -> None:
    """Show everything on file about a customer, as JSON. This is personal data."""
    from pipelines import operations

    with terminal.handle_errors():
        profile = operations.show_customer(terminal.open_shop(), customer_id)
        terminal.print_result(profile, as_json, json.dumps(profile, default=str, ensure_ascii=False, indent=1))


@customer_app.command("export")
def export_customer(customer_id: str, as_json: AsJson = False) -> None:
    """Export everything the shop holds about a customer, as JSON, to hand to that customer. This is personal data."""
    from pipelines import operations

    with terminal.handle_errors():
        customer_data = operations.export_customer(terminal.open_shop(), customer_id)
        terminal.print_result(
            customer_data, as_json, json.dumps(customer_data, default=str, ensure_ascii=False, indent=1)
        )


@customer_app.command()
def erase(
    customer_id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking; it cannot be undone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a customer: encryption key, record, scores and features are deleted; sales stay without a name."""
    from pipelines import operations

    with terminal.handle_errors():
        if not (yes or as_json):
            typer.confirm("This cannot be undone. Erase this customer?", abort=True)
        summary = operations.erase_customer(terminal.open_shop(), customer_id)
        terminal.print_result(
            summary, as_json, "This customer is erased; loading the same files again does not bring them back."
        )


@tombstones_app.command("save")
def save_tombstones(out: Path, as_json: AsJson = False) -> None:
    """Write the tombstones of all erased customers to a file that names nobody; keep it apart from the backups."""
    from pipelines import operations

    with terminal.handle_errors():
        count = operations.save_tombstones(terminal.open_shop(), out)
        terminal.print_result({"tombstones": count, "out": str(out)}, as_json, f"{count} tombstones in {out}")


@tombstones_app.command("follow")
def follow_tombstones(path: Path, as_json: AsJson = False) -> None:
    """After a restore: erase again who was erased since the backup. It cannot be undone."""
    from pipelines import operations

    with terminal.handle_errors():
        counts = operations.follow_tombstones(terminal.open_shop(), path)
        text = f"{counts['erased']} customers erased again, {counts['added']} tombstones added"
        terminal.print_result(counts, as_json, text)


@keys_app.command("add")
def add_key(
    role: Annotated[str, typer.Argument(help="admin, agent, campaign, analyst or till.")],
    as_json: AsJson = False,
) -> None:
    """Create an API key; it is shown only once."""
    from customers.security import api_keys

    with terminal.handle_errors():
        key = api_keys.create_key(terminal.open_shop(), role)
        terminal.print_result({"role": role, "key": key}, as_json, key)


@keys_app.command("webhook-secret")
def show_webhook_secret(as_json: AsJson = False) -> None:
    """Show the secret by which a receiver of webhooks verifies that they come from this shop."""
    from serving.exports import webhooks

    with terminal.handle_errors():
        secret = webhooks.signing_secret(terminal.open_shop())
        terminal.print_result({"secret": secret}, as_json, secret)
