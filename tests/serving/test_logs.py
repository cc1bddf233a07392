"""Structured logs: one JSON object per line, with the fields of its event and of its request, never a personal text."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from customers.shop.errors import ShopError
from serving import logs
from serving.http import request_context
from serving.http.routes import ROUTES

CANARY = "wilhelmina.canary@example.com"
log = logging.getLogger("regulars.refresh")


@pytest.fixture(autouse=True)
def restored_loggers() -> Iterator[None]:
    """Puts back the handlers and levels that a test has changed."""
    loggers = [logging.getLogger(), *map(logging.getLogger, ("regulars", *logs.FRAMEWORK_LOGGERS))]
    before = [(each, list(each.handlers), each.level, each.propagate) for each in loggers]
    yield
    for each, handlers, level, propagate in before:
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


def written_lines(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    output = capsys.readouterr()
    assert output.out == ""
    return [json.loads(line) for line in output.err.splitlines()]


def test_a_record_is_one_json_object_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    log.warning("%d customers\nwait", 3)
    (line,) = written_lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "3 customers\nwait", "level": "warning", "logger": "regulars.refresh"}


def test_the_fields_of_an_event_are_fields_of_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    log.info(logs.LogEvent("request", route="/v1/churn", status=200, role=None))
    (line,) = written_lines(capsys)
    assert (line["event"], line["route"], line["status"], line["role"]) == ("request", "/v1/churn", 200, None)


def test_the_request_that_is_being_served_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    import contextvars

    logs.configure(request_context.log_fields)

    def serve() -> str:
        context = request_context.begin()
        context.route = ROUTES[0]
        log.error("it failed")
        log.info(logs.LogEvent("request", route="/v1/churn"))
        return context.request_id

    request_id = contextvars.copy_context().run(serve)
    contextvars.Context().run(log.error, "outside")
    failed, answered, outside = written_lines(capsys)
    assert (failed["request_id"], failed["route"]) == (request_id, "/livez")
    assert (answered["request_id"], answered["route"]) == (request_id, "/v1/churn")
    assert not {"request_id", "route"} & set(outside)


def test_of_an_exception_only_its_type_and_place_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        raise KeyError(CANARY)
    except KeyError:
        log.exception("it failed", stack_info=True)
    (line,) = written_lines(capsys)
    assert re.fullmatch(r"KeyError at test_logs\.py:\d+ test_of_an_exception.*", line["exception"])
    assert CANARY not in str(line)
    assert not {"exc_info", "stack", "stack_info"} & set(line)


def test_configuring_again_writes_no_line_twice(capsys: pytest.CaptureFixture[str]) -> None:
    framework = logging.getLogger("bentoml")
    framework.addHandler(logging.StreamHandler(sys.stdout))
    framework.propagate = False
    logs.configure()
    logs.configure()
    logging.getLogger("bentoml._internal").warning("started")
    assert [line["event"] for line in written_lines(capsys)] == ["started"]


def test_the_log_of_a_test_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    logs.configure()
    log.warning("still here")
    assert caplog.messages == ["still here"]


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("", 3), ("INFO", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_a_setting(
    level: str, count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGULARS_LOG_LEVEL", level)
    logs.configure()
    for write in (log.debug, log.info, log.warning, log.error):
        write("a line")
    assert len(written_lines(capsys)) == count


def test_a_console_gets_lines_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("REGULARS_LOG_FORMAT", "console")
    logs.configure()
    log.info(logs.LogEvent("request", status=200))
    text = capsys.readouterr().err
    assert re.search(r"info.*request.*status=200", text)
    assert "\x1b" not in text


def test_a_terminal_is_a_console_and_anything_else_gets_json(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logs.choose_format() == "json"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert logs.choose_format() == "console"


@pytest.mark.parametrize(("variable", "words"), [("FORMAT", "json, console"), ("LEVEL", "debug, info")])
def test_an_unknown_word_is_refused(variable: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"REGULARS_LOG_{variable}", "loud")
    with pytest.raises(ShopError, match=f"REGULARS_LOG_{variable} must be one of {words}.*'loud'"):
        logs.configure()


def test_structlog_is_not_loaded_before_something_is_logged() -> None:
    code = """
import sys
from serving import logs
import logging
logs.configure()
assert "structlog" not in sys.modules
logging.getLogger("regulars.http").info("started")
assert "structlog" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
