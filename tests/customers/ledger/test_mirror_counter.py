"""The counter in a file of the mirror."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from customers.ledger import mirror_counter


def test_a_file_says_which_counter_it_is_of_and_keeps_what_else_it_says(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    schema = pa.schema([("customer_key", pa.int64())], metadata={b"consent_default": b"denied"})
    pq.write_table(schema.empty_table(), path)
    assert mirror_counter.read_counter(path) is None
    pq.write_table(mirror_counter.with_counter(schema, 7).empty_table(), path)
    assert mirror_counter.read_counter(path) == 7
    assert pq.read_schema(path).metadata[b"consent_default"] == b"denied"
