"""Terminal: where a command finds its shop, how it speaks, and how it fails in one line that says what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="A day or a moment; what was known before it may be used.")]


def home_folder() -> Path:
    """The folder that everything is kept in."""
    return Path(os.environ.get("REGULARS_HOME", ".regulars"))


def open_shop() -> Any:
    """The shop that lives there."""
    from customers.shop import settings

    return settings.open_shop()


def print_result(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The answer on stdout: JSON for programs, words for people."""
    typer.echo(json.dumps(result, default=str, ensure_ascii=False) if as_json else text)


def print_progress(text: str) -> None:
    """Progress goes to stderr, so that stdout stays one answer."""
    typer.echo(text, err=True)


@contextmanager
def handle_errors() -> Iterator[None]:
    """Errors meant for people are one line and an exit code; all others are ours to mend and keep their trace."""
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
        typer.echo(f"regulars: {text}", err=True)
        sys.exit(code)
