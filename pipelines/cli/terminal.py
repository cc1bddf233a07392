"""What every command shares: its shop, its output as text or JSON, and errors as one line with an exit code."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from serving import logs

log = logging.getLogger("regulars.command")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="A day or a time; only what was known before it is used.")]


def home_folder() -> Path:
    """The home of the shop: REGULARS_HOME, else .regulars in the working directory."""
    return Path(os.environ.get("REGULARS_HOME", ".regulars"))


def open_shop() -> Any:
    """The shop of that home. From here on, what is logged goes to stderr as structured logs."""
    from customers.shop import settings

    logs.configure()
    return settings.open_shop()


def print_result(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result on stdout: JSON for programs, text for people."""
    typer.echo(json.dumps(result, default=str, ensure_ascii=False) if as_json else text)


def print_progress(text: str) -> None:
    """Print progress on stderr, so that stdout holds only the result; with REGULARS_LOG_FORMAT=json as a log line."""
    if logs.is_json_requested():
        log.info(text)
    else:
        typer.echo(text, err=True)


def exit_with(code: int) -> NoReturn:
    """End the command with this exit code. Raises typer.Exit."""
    raise typer.Exit(code)


@contextmanager
def handle_errors() -> Iterator[None]:
    """Show errors meant for people as one line and an exit code; other errors keep their traceback."""
    from pipelines.errors import explain_error

    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        explanation = explain_error(error)
        if explanation is None:
            raise
        text, code = explanation
        if logs.is_json_requested():
            log.error(logs.LogEvent(text, exit_code=code))
        else:
            typer.echo(f"regulars: {text}", err=True)
        sys.exit(code)
