"""Files replaced in one step, and the fingerprint that tells."""

import os
from pathlib import Path

import pytest

from customers.shop import durable_files


def test_a_text_replaces_the_file_and_changes_its_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "pointer.json"
    assert durable_files.read_fingerprint(path) == ()
    durable_files.write_atomically(path, "张伟")
    first = durable_files.read_fingerprint(path)
    durable_files.write_atomically(path, "张伟")
    assert path.read_text(encoding="utf-8") == "张伟"
    assert durable_files.read_fingerprint(path) != first
    assert [entry.name for entry in tmp_path.iterdir()] == ["pointer.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pointer.json"
    durable_files.write_atomically(path, "old")

    def fail(_: int) -> None:
        raise OSError(28, "no space left on the device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        durable_files.write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
