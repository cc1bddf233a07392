"""The features of each registered service, in a file that can be read without Feast."""

import json
from dataclasses import dataclass
from pathlib import Path

from customers.shop import durable_files
from customers.shop.durable_files import FileFingerprint


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """The view of a feature, and the element type of its lists as a name of numpy; None for a plain number."""

    view: str
    element_type: str | None


class ServiceFile:
    """The features of each registered service, as JSON beside Feast's registry, which only Feast can read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fingerprint: FileFingerprint = ()
        self._services: dict[str, dict[str, FeatureColumn]] | None = None

    def read(self) -> dict[str, dict[str, FeatureColumn]] | None:
        """Columns by service; None where no file was written yet."""
        fingerprint = durable_files.read_fingerprint(self._path)
        if not fingerprint:
            return None
        if fingerprint != self._fingerprint:
            stored = json.loads(self._path.read_bytes())
            self._services = {
                service: {name: FeatureColumn(*column) for name, column in columns.items()}
                for service, columns in stored.items()
            }
            self._fingerprint = fingerprint
        return self._services

    def write(self, services: dict[str, dict[str, FeatureColumn]]) -> None:
        """Replace the file in one step."""
        content = {service: {n: (c.view, c.element_type) for n, c in row.items()} for service, row in services.items()}
        durable_files.write_atomically(self._path, json.dumps(content))
