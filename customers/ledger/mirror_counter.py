"""The counter of changes that a file of the mirror is of, in the metadata of the file itself."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_KEY = b"changed_no"


def with_counter(schema: pa.Schema, number: int) -> pa.Schema:
    """The schema of a file that holds what the database had at this counter."""
    return schema.with_metadata({**(schema.metadata or {}), _KEY: str(number).encode()})


def read_counter(path: Path) -> int | None:
    """The counter that a file is of; None for a file of an earlier version, which has none."""
    number = dict(pq.read_schema(path).metadata or {}).get(_KEY)
    return None if number is None else int(number)
