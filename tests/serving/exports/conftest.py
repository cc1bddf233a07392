"""The small shop with stored scores, in a home that no other test changes."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def export_api(home_with_scores: Path, tmp_path: Path, api_for: Any) -> Iterator[Any]:
    """An API whose customers are scored."""
    from serving import runtime

    shutil.copytree(home_with_scores, tmp_path / "home")
    for api in api_for(tmp_path / "home"):
        runtime.open_runtime(api.shop).features.apply()
        yield api
