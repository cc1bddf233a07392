"""People: the commands about one customer, and about the keys of whoever may ask."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli import terminal
from pipelines.cli.terminal import AsJson

keys_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Keys of programs and people that may ask.")
customer_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="One customer at a time.")


@customer_app.command()
def show(customer_id: str, as_json: AsJson = False) -> None:
    """Everything on file about a customer, as JSON; it is personal data."""
    from pipelines import operations

    with terminal.handle_errors():
        profile = operations.show_customer(terminal.open_shop(), customer_id)
        terminal.print_result(profile, as_json, json.dumps(profile, default=str, ensure_ascii=False, indent=1))


@customer_app.command("export")
def export_customer(customer_id: str, as_json: AsJson = False) -> None:
    """Everything the shop holds about a customer, as JSON, to hand to that customer; it is personal data."""
    from pipelines import operations

    with terminal.handle_errors():
        customer_data = operations.export_customer(terminal.open_shop(), customer_id)
        terminal.print_result(
            customer_data, as_json, json.dumps(customer_data, default=str, ensure_ascii=False, indent=1)
        )


@customer_app.command()
def erase(
    customer_id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; there is no way back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a customer for good: key, record, scores and features go; sales stay without a name."""
    from pipelines import operations

    with terminal.handle_errors():
        if not (yes or as_json):
            typer.confirm("This cannot be taken back. Erase this customer?", abort=True)
        summary = operations.erase_customer(terminal.open_shop(), customer_id)
        terminal.print_result(
            summary, as_json, "This customer is forgotten; loading the same files again does not bring them back."
        )


@keys_app.command("add")
def add_key(
    role: Annotated[str, typer.Argument(help="admin, agent, campaign, analyst or till.")],
    as_json: AsJson = False,
) -> None:
    """Make a key; it is shown once."""
    from customers.security import api_keys

    with terminal.handle_errors():
        key = api_keys.create_key(terminal.open_shop(), role)
        terminal.print_result({"role": role, "key": key}, as_json, key)
