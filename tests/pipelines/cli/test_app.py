"""The command as a person or a program meets it: one answer on stdout, and an exit code that means something."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Till = Callable[..., Path]


def regulars(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli.app", *words]
    environment = {"REGULARS_HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    assert regulars(made, "init", "--timezone", "Asia/Shanghai", "--currency", "CNY").returncode == 0
    return made


def test_loading_answers_with_one_json_object(home: Path, till: Till) -> None:
    rows = [("o1", 0, "李雷", "p1", "2025-01-02T10:00:00", 1, "5.50", 0), ("o2", 0, "c1", "p1", "yesterday", 1, 1, 0)]
    answer = regulars(home, "load", "transactions", str(till(*rows)), "--json")
    assert answer.returncode == 0
    told = json.loads(answer.stdout)
    assert (told["kind"], told["read"], told["inserted"], told["rejected"]) == ("transactions", 2, 1, 1)
    assert Path(told["rejects_file"]).read_text(encoding="utf-8").count("\n") == 2


def test_strict_loading_fails_on_any_reject(home: Path, till: Till) -> None:
    rows = [("o1", 0, "c1", "p1", "2025-01-02T10:00:00", 1, 5, 0), ("o2", 0, "c1", "p1", "yesterday", 1, 1, 0)]
    answer = regulars(home, "load", "transactions", str(till(*rows)), "--strict")
    assert answer.returncode == 1


def test_only_bad_rows_means_nothing_was_done(home: Path, till: Till) -> None:
    rows = [("o2", 0, "c1", "p1", "yesterday", 1, 1, 0)]
    answer = regulars(home, "load", "transactions", str(till(*rows)), "--json")
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["rejected"] == 1


def test_missing_columns_are_named(home: Path, till: Till) -> None:
    answer = regulars(home, "load", "transactions", str(till(("o1",), head=("order_id",))))
    assert answer.returncode == 1
    assert "sold_at" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_shop_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    answer = regulars(tmp_path / "nowhere", "run")
    assert answer.returncode == 1
    assert "regulars init" in answer.stderr


def test_wrong_usage_is_exit_2(home: Path) -> None:
    assert regulars(home, "fly").returncode == 2
    assert regulars(home, "load").returncode == 2
    assert regulars(home, "run", "--as-of", "tuesday").returncode == 2
    assert regulars(home, "export", "secrets", "--out", "x.csv").returncode == 2


def test_a_night_without_sales_says_what_to_load(home: Path) -> None:
    answer = regulars(home, "run", "--json")
    assert answer.returncode == 1
    assert "regulars load transactions" in answer.stderr
    assert answer.stdout == ""


def test_a_key_is_shown_once(home: Path) -> None:
    answer = regulars(home, "keys", "add", "campaign")
    assert answer.returncode == 0
    assert len(answer.stdout.strip()) > 30
    assert regulars(home, "keys", "add", "king").returncode == 1
