"""Structured logs: one JSON object per line on stderr; on a terminal, lines for people.

Every file logs through the standard library, under a name that begins with `regulars.`; structlog renders the records,
and is imported when the first one is written. The text of an exception may repeat personal data, so that of an
exception only its type and its place in the code are logged.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from functools import cached_property
from typing import Any, TextIO

from customers.shop.errors import ShopError

JSON, CONSOLE = "json", "console"
FORMAT_VARIABLE, LEVEL_VARIABLE = "REGULARS_LOG_FORMAT", "REGULARS_LOG_LEVEL"
LEVELS = ("debug", "info", "warning", "error")
#: Loggers of frameworks that write to handlers of their own.
FRAMEWORK_LOGGERS = ("bentoml", "circus", "uvicorn", "uvicorn.error")

EventFields = MutableMapping[str, Any]


class LogEvent(dict[str, Any]):
    """An event with fields, to be passed to a logger as the message; as text it is one JSON object."""

    def __init__(self, event: str, **fields: Any) -> None:
        super().__init__(event=event, **fields)

    def __str__(self) -> str:
        return json.dumps(self)


def configure(context: Callable[[], EventFields] = dict) -> None:
    """Send the records of this process to stderr, structured; repeat it after a framework has configured logging.

    `context` returns fields that are added to every record, such as the id of the request that is being served.
    Raises ShopError for a value of REGULARS_LOG_FORMAT or REGULARS_LOG_LEVEL that does not exist.
    """
    handler = StderrHandler()
    handler.setFormatter(StructuredFormatter(choose_format(), context))
    for logger in (logging.getLogger(), *map(logging.getLogger, FRAMEWORK_LOGGERS)):
        for each in list(logger.handlers):
            # Exactly these: a subclass belongs to somebody else, such as a test that reads the log.
            if type(each) in (logging.StreamHandler, StderrHandler):
                logger.removeHandler(each)
        logger.propagate = True
    logging.getLogger().addHandler(handler)
    logging.getLogger("regulars").setLevel(_choose(LEVEL_VARIABLE, LEVELS, "info").upper())


def choose_format() -> str:
    """REGULARS_LOG_FORMAT, `json` or `console`; by default for people on a terminal and JSON elsewhere.

    Raises ShopError for any other word.
    """
    return _choose(FORMAT_VARIABLE, (JSON, CONSOLE), CONSOLE if sys.stderr.isatty() else JSON)


def is_json_requested() -> bool:
    """Whether everything on stderr shall be JSON, what a command reports to people included."""
    return os.environ.get(FORMAT_VARIABLE, "").lower() == JSON


def _choose(variable: str, words: Sequence[str], default: str) -> str:
    word = os.environ.get(variable, "").lower() or default
    if word not in words:
        raise ShopError(f"{variable} must be one of {', '.join(words)}; it is {word!r}")
    return word


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at the time of the record."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The standard error stream of now."""
        return sys.stderr


class StructuredFormatter(logging.Formatter):
    """Renders a record as one line of fields: timestamp, level, logger, event, and those of its LogEvent."""

    def __init__(self, log_format: str, context: Callable[[], EventFields]) -> None:
        super().__init__()
        self.log_format = log_format
        self.context = context

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, or as a line for people."""
        return self._renderer.format(record)

    @cached_property
    def _renderer(self) -> logging.Formatter:
        import structlog

        is_json = self.log_format == JSON
        shared: list[Any] = [
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            self._add_fields,
            _describe_exception,
        ]
        render = (
            structlog.processors.JSONRenderer(default=str)
            if is_json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        )
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render]
        )

    def _add_fields(self, _logger: Any, _method: str, fields: EventFields) -> EventFields:
        """The record's fields, those of its event, and those of the context that it does not have."""
        message = fields["_record"].msg
        if isinstance(message, LogEvent):
            fields.update(message)
        for name, value in self.context().items():
            fields.setdefault(name, value)
        return fields


def _describe_exception(_logger: Any, _method: str, fields: EventFields) -> EventFields:
    """Replace an exception by its type and its place in the code."""
    from serving.http import problems

    fields.pop("stack_info", None)
    exc_info = fields.pop("exc_info", None)
    if exc_info and exc_info[1] is not None:
        fields["exception"] = problems.describe_traceback(exc_info[1])
    return fields
