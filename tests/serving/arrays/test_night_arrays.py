"""Arrays of a night in mapped files: portions, lists, publication and erasure."""

import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from customers.scores.current_scores import RunWatermark
from serving.arrays import night_arrays
from serving.arrays.column_files import ColumnWriter, DamagedColumn, ListColumns
from serving.arrays.night_arrays import NightArrays, NightFacts

FACTS = NightFacts(
    "churn", datetime(2025, 1, 1, tzinfo=UTC), RunWatermark("churn", 1, 1, 1), {"churn": "1"}, "s", "c", {"days": 28}
)


def append(writer: ColumnWriter, keys: list[int], texts: list[str]) -> None:
    """Rows of customers, each with a number of ten times the key and a text in a list column."""
    sizes = np.array([len(text) for text in texts])
    letters = np.frombuffer("".join(texts).encode(), np.uint8)
    columns = {"customer_key": np.array(keys, np.int64), "score": np.array(keys, np.float64) * 10}
    writer.append(columns, {"reasons": ListColumns(sizes, {"text": letters})})


def publish(home: Path, *portions: tuple[list[int], list[str]]) -> NightArrays:
    writer = night_arrays.begin(home, "churn")
    for keys, texts in portions:
        append(writer, keys, texts)
    night_arrays.publish(home, writer, FACTS)
    arrays = night_arrays.load(home, "churn")
    assert arrays is not None
    return arrays


def text_at(arrays: NightArrays, row: int) -> str:
    start, end = arrays.columns.bounds("reasons", row)
    return arrays.columns["reasons.text"][start:end].tobytes().decode()


def test_rows_of_all_portions_are_there_by_customer(tmp_path: Path) -> None:
    arrays = publish(tmp_path, ([30, 10], ["abc", ""]), ([20], ["de"]), ([], []))
    assert arrays.keys.tolist() == [10, 20, 30]
    rows = arrays.find_rows([20, 10, 30, 5, 25, 35])
    assert rows[3:] == [-1, -1, -1]
    assert [arrays.columns["score"][row] for row in rows[:3]] == [200, 100, 300]
    assert [text_at(arrays, row) for row in rows[:3]] == ["de", "", "abc"]
    assert arrays.facts == FACTS


def test_before_the_first_night_there_are_none(tmp_path: Path) -> None:
    assert night_arrays.load(tmp_path, "churn") is None
    night_arrays.erase_customers(tmp_path, [1])


def test_an_erasure_deletes_arrays_that_nobody_can_read(tmp_path: Path) -> None:
    """Those of a killed night, of an earlier one, and all of a model whose pointer is of another format."""
    arrays = publish(tmp_path, ([1, 2], ["a", "b"]))
    ended = subprocess.Popen(["true"])
    ended.wait()
    killed, running, earlier = (
        arrays.folder.with_name(name) for name in (f".partial-{ended.pid}-x", f".partial-{os.getpid()}-y", "20240101")
    )
    foreign = tmp_path / "lookup" / "value" / "20250101"
    for folder in (killed, running, earlier, foreign):
        folder.mkdir(parents=True)
    night_arrays.pointer_path(tmp_path, "value").write_text('{"format": 0}', encoding="utf-8")
    night_arrays.erase_customers(tmp_path, [1])
    assert [folder.exists() for folder in (killed, running, earlier, foreign, arrays.folder)] == [
        False, True, False, False, True,
    ]  # fmt: skip
    assert not night_arrays.pointer_path(tmp_path, "value").exists()


def test_a_later_night_replaces_the_one_before_and_readers_of_it_go_on(tmp_path: Path) -> None:
    first = publish(tmp_path, ([1], ["old"]))
    second = publish(tmp_path, ([1], ["new"]))
    assert [text_at(first, 0), text_at(second, 0)] == ["old", "new"]
    assert len(list((tmp_path / "lookup" / "churn").iterdir())) == 1


def test_what_was_not_published_is_not_read(tmp_path: Path) -> None:
    writer = night_arrays.begin(tmp_path, "churn")
    append(writer, [1], ["half"])
    night_arrays.discard(writer)
    assert night_arrays.load(tmp_path, "churn") is None
    publish(tmp_path, ([1], ["whole"]))
    night_arrays.withdraw(tmp_path, "churn")
    assert night_arrays.load(tmp_path, "churn") is None


def test_an_erased_customer_is_in_no_file(tmp_path: Path) -> None:
    key = 0x1122334455
    arrays = publish(tmp_path, ([key, 3, 9], ["secret", "b", "c"]))
    night_arrays.erase_customers(tmp_path, [key, 777])
    assert text_at(arrays, 0) == "\0" * 6, "the mapping of a running worker too"
    content = b"".join(path.read_bytes() for path in (tmp_path / "lookup").rglob("*") if path.is_file())
    assert b"secret" not in content
    assert key.to_bytes(8, "little") not in content
    reread = night_arrays.load(tmp_path, "churn")
    assert reread is not None
    assert reread.find_rows([key]) == [-1]
    assert [text_at(reread, row) for row in reread.find_rows([3, 9])] == ["b", "c"]


def test_the_first_and_the_only_customer_can_be_erased(tmp_path: Path) -> None:
    publish(tmp_path, ([5], ["x"]))
    night_arrays.erase_customers(tmp_path, [5])
    reread = night_arrays.load(tmp_path, "churn")
    assert reread is not None
    assert reread.find_rows([5]) == [-1]


def test_a_column_keeps_its_type(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path / "columns")
    writer.append({"score": np.zeros(1)})
    with pytest.raises(ValueError, match="score"):
        writer.append({"score": np.zeros(1, np.float32)})


@pytest.mark.parametrize("change", [lambda content: content[:-8], lambda content: content + bytes(8)])
def test_a_file_of_another_length_is_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    arrays = publish(tmp_path, ([1, 2, 3], ["a", "b", "c"]))
    path = arrays.folder / "score.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedColumn, match=r"score.bin does not hold its 3 rows; run: regulars score"):
        night_arrays.load(tmp_path, "churn")
