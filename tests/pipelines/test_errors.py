"""Errors that people can do something about."""

import errno
import sqlite3

import duckdb
import pytest
import sqlalchemy as sa

from pipelines.errors import EXIT_NOTHING_DONE, EXIT_UNAVAILABLE, EXIT_WRONG_USAGE, explain_error


def raised(statement: str) -> Exception:
    """The error of a statement in a database that may use 20 MB of memory and no disk."""
    with duckdb.connect(config={"memory_limit": "20MB", "temp_directory": ""}) as connection:
        with pytest.raises(duckdb.Error) as caught:
            connection.execute(statement)
        return caught.value


def test_too_little_memory_names_the_setting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REGULARS_ENGINE_MEMORY", "20MB")
    error = raised("create table t as select hash(range) as a, repeat('x', 90) || range as b from range(3_000_000)")
    text, code = explain_error(error)
    assert "REGULARS_ENGINE_MEMORY allows (20MB)" in text
    assert "\n" not in text
    assert code == EXIT_NOTHING_DONE


def test_a_limit_that_cannot_be_read_names_the_setting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REGULARS_ENGINE_MEMORY", "plenty")
    text, code = explain_error(raised("set memory_limit = 'plenty'"))
    assert text == "REGULARS_ENGINE_MEMORY is plenty; give a number with a unit, such as 2GB"
    assert code == EXIT_WRONG_USAGE


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sa.exc.OperationalError("insert", {}, sqlite3.OperationalError("database or disk is full")),
        duckdb.IOException('IO Error: Could not write file "/home/part.parquet": No space left on device'),
    ],
)
def test_a_full_disk_is_one_line_without_paths(error: Exception):
    text, code = explain_error(error)
    assert "disk is full" in text
    assert "/home" not in text
    assert code == EXIT_UNAVAILABLE


def test_other_errors_keep_their_traceback():
    assert explain_error(ValueError("a bug")) is None
    assert explain_error(OSError(errno.EACCES, "permission denied")) is None
    assert explain_error(raised("select * from nowhere")) is None
