"""Which night a home has."""

from datetime import UTC, datetime
from pathlib import Path

from customers.scores import night_marker


def test_the_marker_of_the_last_night_is_read_back(tmp_path: Path) -> None:
    assert night_marker.read_marker(tmp_path) is None
    for day in (1, 2):
        night_marker.write_marker(tmp_path, datetime(2026, 5, day, 3, 30, tzinfo=UTC))
    assert night_marker.read_marker(tmp_path) == datetime(2026, 5, 2, 3, 30, tzinfo=UTC)
