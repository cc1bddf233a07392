"""Reports rejected rows of a load, each with its file, line and reason, so that the shop can correct them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from customers.loading.connectors.files import CSV_ENDINGS, EXCEL_ENDINGS, Records
from customers.loading.sql_text import quote_identifier, quote_literal

# The first line of these files is the header, so their first row is on line 2.
WITH_HEADER = CSV_ENDINGS + EXCEL_ENDINGS


def count_reasons(records: Records) -> dict[str, int]:
    """Number of rejected rows per reason, the most frequent first."""
    rows = records.connection.execute(
        f"select reason, count(*) from ({_rejected_query()}) group by reason order by 2 desc, 1"
    ).fetchall()
    return {reason: int(count) for reason, count in rows}


def write_rejects(records: Records, folder: Path, kind: str, columns: Sequence[str]) -> Path:
    """Write a CSV file with file, line, reason and these raw columns of each rejected row; returns its path.

    `columns` must not hold personal fields: the file is on disk in clear.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.csv"
    path.touch(mode=0o600)
    _create_line_numbers(records)
    raw_columns = "".join(f", {_raw_value(records, name)} as {quote_identifier(name)}" for name in columns)
    records.connection.execute(
        f"""copy (
              select listed.path as file, l.line, l.reason{raw_columns} from rejected_lines l
              join files_read listed using (file_no)
              left join raw on raw.file_no = l.file_no and raw.row_no = l.row_no
              order by l.file_no, l.line
            ) to {quote_literal(str(path))} (format csv, header true)"""
    )
    return path


def _raw_value(records: Records, name: str) -> str:
    """The raw text of a column, without the id of an erased customer."""
    value = f"raw.{quote_identifier(name)}"
    if name not in records.erased_columns:
        return value
    return f"case when (l.file_no, l.row_no) not in (select (file_no, row_no) from erased_{name}) then {value} end"


def _rejected_query() -> str:
    return """select file_no, row_no, null::bigint as record, reason from checked where reason is not null
              union all select file_no, null, line, reason from broken"""


def _create_line_numbers(records: Records) -> None:
    """Create table `rejected_lines`: line numbers from row numbers, by header, broken lines and quoted line breaks."""
    file_values = ", ".join(
        f"({number}, {quote_literal(str(path))}, {int(_has_header(path))})" for number, path in enumerate(records.files)
    )
    line_breaks = " + ".join(
        f"coalesce(length({quote_identifier(name)}) - length(replace({quote_identifier(name)}, chr(10), '')), 0)"
        for name in records.columns
    )
    records.connection.execute(
        f"""
        create temp table files_read as
          select * from (values {file_values}) as listed(file_no, path, header);
        create temp table gaps as
          select file_no, good, max(nth) as skipped from (
            select file_no, line - row_number() over w as good, row_number() over w as nth
            from broken window w as (partition by file_no order by line))
          group by file_no, good;
        create temp table folds as
          select file_no, row_no, sum(extra) over (partition by file_no order by row_no) as extra from (
            select file_no, row_no, {line_breaks} as extra from raw join files_read using (file_no) where header = 1)
          where extra > 0;
        create temp table numbered as
          select t.file_no, t.row_no, t.reason,
                 coalesce(t.record, t.row_no + f.header + coalesce(gaps.skipped, 0)) as record,
                 coalesce(t.row_no, t.record) as at_row
          from ({_rejected_query()}) t join files_read f using (file_no)
          asof left join gaps on gaps.file_no = t.file_no and t.row_no + f.header > gaps.good;
        create temp table rejected_lines as
          select n.file_no, n.row_no, n.reason, n.record + coalesce(folds.extra, 0)::bigint as line
          from numbered n asof left join folds on folds.file_no = n.file_no and n.at_row > folds.row_no;
        """
    )


def _has_header(path: Path) -> bool:
    return any(ending in WITH_HEADER for ending in path.suffixes)
