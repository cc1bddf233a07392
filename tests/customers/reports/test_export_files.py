"""Export files written in portions have the content of the whole table."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from customers.loading.load import LoadResult
from customers.reports import export_files, exports
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]
TIMES = pd.to_datetime(["2017-12-01", "2017-12-01 10:00:00.25", "2018-01-01"], utc=True, format="ISO8601").astype(
    "datetime64[us, UTC]"
)
TABLE = pd.DataFrame(
    {"customer_id": ["anna", None, "Zoë"], "as_of": TIMES, "rank": [1, 2, 3], "score": [0.1, None, 1e-9],
     "reason": [None, 'a "b", c', None], "cdf": [[], [], [0.5]]}
)  # fmt: skip


@pytest.mark.parametrize("portion", [1, 2, 3])
def test_portions_make_the_same_file_as_the_whole(tmp_path: Path, portion: int) -> None:
    portions = [TABLE.iloc[start : start + portion] for start in range(0, 3, portion)]
    for ending, file_format in export_files.FORMATS.items():
        assert export_files.write_frames(portions, tmp_path / f"parts{ending}", file_format) == 3
    assert (tmp_path / "parts.csv").read_text() == TABLE.to_csv(index=False)
    whole = TABLE.to_json(orient="records", lines=True, date_format="iso", force_ascii=False)
    assert (tmp_path / "parts.ndjson").read_text() == whole
    assert [json.loads(line)["cdf"] for line in whole.splitlines()] == [[], [], [0.5]]
    TABLE.to_parquet(tmp_path / "whole.parquet", index=False, coerce_timestamps="us")
    assert pq.read_table(tmp_path / "parts.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    for ending, file_format in export_files.FORMATS.items():
        assert export_files.write_frames([TABLE.head(0)], tmp_path / f"empty{ending}", file_format) == 0
    assert (tmp_path / "empty.csv").read_text() == "customer_id,as_of,rank,score,reason,cdf\n"
    assert (tmp_path / "empty.ndjson").read_text() == "\n"
    columns = pq.read_schema(tmp_path / "empty.parquet")
    assert columns.names == list(TABLE)
    assert columns.field("reason").type == pa.string()


def test_tables_come_in_portions_of_customers(
    corner_shop: Shop, load_text: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attribute that only one customer has is a column of every portion."""
    load_text(corner_shop, "customers", "customer_id,age_band\na,25-34\nb,\nc,\nd,\ne,\n")
    whole = exports.build_table(corner_shop, "customers")
    monkeypatch.setattr(exports, "OTHERS_AT_ONCE", 2)
    portions = list(exports.iter_tables(corner_shop, "customers"))
    assert [len(portion) for portion in portions] == [2, 2, 1]
    assert all(list(portion) == list(whole) for portion in portions)
    pd.testing.assert_frame_equal(pd.concat(portions, ignore_index=True), whole)


def test_every_table_of_an_empty_shop_is_one_portion_with_its_columns(corner_shop: Shop) -> None:
    for name in exports.TABLES:
        (portion,) = exports.iter_tables(corner_shop, name)
        assert portion.empty
        assert list(portion) == list(exports.build_table(corner_shop, name))
