"""The `regulars` command: one result on stdout, and its exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Till = Callable[..., Path]


def regulars(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a home, in a process of its own."""
    command = [sys.executable, "-m", "pipelines.cli.app", *arguments]
    environment = {"REGULARS_HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[3])}
    environment |= variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    created = tmp_path / "home"
    assert regulars(created, "init", "--timezone", "Asia/Shanghai", "--currency", "CNY").returncode == 0
    return created


def test_load_prints_one_json_object(home: Path, till: Till) -> None:
    rows = [("o1", 0, "李雷", "p1", "2025-01-02T10:00:00", 1, "5.50", 0), ("o2", 0, "c1", "p1", "yesterday", 1, 1, 0)]
    result = regulars(home, "load", "transactions", str(till(*rows)), "--json")
    assert result.returncode == 0
    summary = json.loads(result.stdout)
    assert (summary["kind"], summary["read"], summary["inserted"], summary["rejected"]) == ("transactions", 2, 1, 1)
    assert Path(summary["rejects_file"]).read_text(encoding="utf-8").count("\n") == 2


def test_a_strict_load_fails_on_any_reject(home: Path, till: Till) -> None:
    rows = [("o1", 0, "c1", "p1", "2025-01-02T10:00:00", 1, 5, 0), ("o2", 0, "c1", "p1", "yesterday", 1, 1, 0)]
    result = regulars(home, "load", "transactions", str(till(*rows)), "--strict")
    assert result.returncode == 1


def test_a_load_of_invalid_rows_only_fails(home: Path, till: Till) -> None:
    rows = [("o2", 0, "c1", "p1", "yesterday", 1, 1, 0)]
    result = regulars(home, "load", "transactions", str(till(*rows)), "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["rejected"] == 1


def test_missing_columns_are_named_in_the_error(home: Path, till: Till) -> None:
    result = regulars(home, "load", "transactions", str(till(("o1",), head=("order_id",))))
    assert result.returncode == 1
    assert "sold_at" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_home_names_the_init_command(tmp_path: Path) -> None:
    result = regulars(tmp_path / "nowhere", "run")
    assert result.returncode == 1
    assert "regulars init" in result.stderr


def test_wrong_usage_exits_with_2(home: Path) -> None:
    assert regulars(home, "fly").returncode == 2
    assert regulars(home, "load").returncode == 2
    assert regulars(home, "run", "--as-of", "tuesday").returncode == 2
    assert regulars(home, "export", "secrets", "--out", "x.csv").returncode == 2


def test_a_run_without_sales_names_the_load_command(home: Path) -> None:
    result = regulars(home, "run", "--json")
    assert result.returncode == 1
    assert "regulars load transactions" in result.stderr
    assert result.stdout == ""


def test_a_key_is_shown_once(home: Path) -> None:
    result = regulars(home, "keys", "add", "campaign")
    assert result.returncode == 0
    assert len(result.stdout.strip()) > 30
    assert regulars(home, "keys", "add", "king").returncode == 1


def test_with_json_logs_every_line_on_stderr_is_an_object(home: Path) -> None:
    result = regulars(home, "run", "--json", REGULARS_LOG_FORMAT="json")
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert lines[-1]["exit_code"] == result.returncode == 1
    assert "regulars load transactions" in lines[-1]["event"]
    assert {line["logger"] for line in lines} == {"regulars.command"}


@pytest.mark.parametrize(("memory", "code"), [("1MB", 1), pytest.param("plenty", 2, marks=pytest.mark.acceptance)])
def test_a_run_with_too_little_memory_names_the_setting(home: Path, till: Till, memory: str, code: int) -> None:
    rows = [(f"o{day}", 0, "c1", "p1", f"2025-01-{day:02}T10:00:00", 1, 5, 0) for day in range(1, 29)]
    regulars(home, "load", "transactions", str(till(*rows)))
    result = regulars(home, "run", REGULARS_ENGINE_MEMORY=memory)
    assert result.returncode == code
    assert "REGULARS_ENGINE_MEMORY" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(home.glob("features/*/*.parquet"))
