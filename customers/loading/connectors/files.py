"""Files: CSV, NDJSON, Parquet and Excel sheets, read whole and in columns, before anything is believed.

What is read lies in a DuckDB table `raw`: file_no, row_no and every column as text, under a plain
lower-case name. Lines that are no rows at all lie in `broken`: file_no, line and the reason.
"""

import csv
import glob
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from customers.shop import ShopError

TEXT, LINES, COLUMNS, SHEET = (".csv", ".tsv"), (".ndjson", ".jsonl"), (".parquet",), (".xlsx",)
PACKED = (".gz", ".zst")
KNOWN = TEXT + LINES + COLUMNS + SHEET
DELIMITERS = ",;\t|"
FIRST_LINE_BYTES = 1 << 20
# Names that rows carry here; a file's own column of that name is called otherwise.
OURS = ("file_no", "row_no")


@dataclass
class Records:
    """Rows as they came, in the tables `raw` and `broken` of `connection`; `columns` in their plain names."""

    connection: duckdb.DuckDBPyConnection
    files: list[Path]
    columns: list[str] = field(default_factory=list)
    # Whose records changed something; gathered only where somebody wants to know.
    touched: set[int] | None = None

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def count(self, table: str, where: str = "true") -> int:
        """How many rows a table has."""
        found = self.connection.execute(f"select count(*) from {table} where {where}").fetchall()
        return int(found[0][0])


def read(paths: Sequence[Path | str], *, required: Sequence[str], mapping: Mapping[str, str] | None = None) -> Records:
    """Every row of these files, folders and globs. `mapping` names the file's own column for one of ours."""
    records = Records(_connection(), find(paths))
    for file_no, path in enumerate(records.files):
        _append(records, file_no, path, required, mapping or {})
    if not records.columns or not records.count("raw") + records.count("broken"):
        raise ShopError(f"no rows in {_listed(records.files)}; nothing was loaded")
    return records


def find(paths: Sequence[Path | str]) -> list[Path]:
    """The files behind names, folders and globs, each once and in a fixed order."""
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_files_at(Path(path))))
    if not found:
        raise ShopError("no file given; name a file, a folder or a glob")
    return list(found)


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        inside = [entry for entry in sorted(path.rglob("*")) if entry.is_file() and _ending(entry) in KNOWN]
        if not inside:
            raise ShopError(f"the folder {path} holds no {', '.join(KNOWN)} file")
        return inside
    matches = [path] if path.is_file() else [Path(name) for name in sorted(glob.glob(str(path)))]
    if not matches:
        raise ShopError(f"no such file: {path}")
    unknown = [match for match in matches if _ending(match) not in KNOWN]
    if unknown:
        raise ShopError(f"{unknown[0]} is not a kind of file that can be read; known are {', '.join(KNOWN)}")
    return matches


def _ending(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return name.suffix.lower()


def _listed(files: Sequence[Path]) -> str:
    names = ", ".join(str(path) for path in files[:3])
    return names if len(files) <= 3 else f"{names} and {len(files) - 3} more"


def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    settle(connection)
    connection.execute("create temp table raw (file_no integer, row_no bigint)")
    return connection


def settle(connection: duckdb.DuckDBPyConnection) -> None:
    """Make a connection ready for rows. They may be personal: nothing spills to disk in clear."""
    connection.execute("set timezone = 'UTC'; set temp_directory = ''")
    # Asked first: in a notebook without widgets DuckDB refuses to hear of its progress bar at all.
    if connection.sql("select current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        connection.execute("set enable_progress_bar = false")
    connection.execute("create temp table broken (file_no integer, line bigint, reason varchar)")


def _append(records: Records, file_no: int, path: Path, required: Sequence[str], mapping: Mapping[str, str]) -> None:
    """Add one file to `raw`: its query first, so that a file that cannot be kept leaves nothing."""
    if path.stat().st_size == 0:
        return
    query, theirs = READERS[_ending(path)](records, file_no, path)
    chosen = _chosen(path, theirs, required, mapping)
    for name in chosen:
        if name not in records.columns:
            records.columns.append(name)
            records.connection.execute(f"alter table raw add column {quoted(name)} varchar")
    select = ", ".join(f"{expression} as {quoted(name)}" for name, expression in chosen.items())
    try:
        records.connection.execute(
            f"insert into raw by name select {file_no}::integer as file_no, row_no, {select} from ({query})"
        )
        _note_broken(records, file_no, path)
    except duckdb.Error:
        # The library's own message would repeat the line, and with it whoever is in it.
        raise ShopError(f"{path} cannot be read; is it a whole {_ending(path)} file in UTF-8?") from None


def _chosen(
    path: Path, theirs: Mapping[str, str], required: Sequence[str], mapping: Mapping[str, str]
) -> dict[str, str]:
    """Our column names and the expression that reads each from the file."""
    plain: dict[str, str] = {}
    for name, expression in theirs.items():
        if plain_name(name) in plain:
            raise ShopError(f"{path} has two columns that mean {plain_name(name)}; rename one of them")
        plain[plain_name(name)] = expression
    for ours, their in mapping.items():
        if plain_name(their) not in plain:
            raise ShopError(f"the mapping takes {ours} from {their!r}, which {path} does not have")
    mapped = {ours: plain[plain_name(their)] for ours, their in mapping.items()}
    taken = {plain_name(their) for their in mapping.values()}
    chosen = mapped | {name: how for name, how in plain.items() if name not in taken and name not in mapped}
    missing = [name for name in required if name not in chosen]
    if missing:
        raise ShopError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(theirs) or 'none'}. "
            "Rename its columns, or say which is which with --mapping"
        )
    return chosen


def plain_name(name: str) -> str:
    """A column's name as we write it: lower case, words joined by an underscore."""
    plain = "_".join(name.replace("\ufeff", "").replace("-", " ").replace("_", " ").lower().split())
    return f"{plain}_" if plain in OURS else plain


def quoted(name: str) -> str:
    """A column's name inside a statement."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text inside a statement."""
    return "'" + text.replace("'", "''") + "'"


def _csv(records: Records, file_no: int, path: Path) -> tuple[str, dict[str, str]]:
    """The header decides delimiter and columns, never a guess from the rows, so one odd row changes nothing."""
    names, delimiter = _header(path)
    columns = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(names)))
    query = (
        f"select row_number() over () as row_no, * from read_csv({literal(str(path))}, auto_detect = false, "
        f"header = true, delim = {literal(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}}, "
        f"store_rejects = true, rejects_table = 'bad_{file_no}', rejects_scan = 'bad_scan_{file_no}')"
    )
    return query, {name: f"c{number}" for number, name in enumerate(names)}


def _header(path: Path) -> tuple[list[str], str]:
    try:
        with pa.input_stream(path) as stream:
            first = stream.read(FIRST_LINE_BYTES).decode("utf-8-sig", errors="ignore").lstrip("\r\n")
        line = next(iter(first.splitlines()), "")
    except OSError:
        raise ShopError(f"{path} cannot be unpacked; is it whole?") from None
    delimiter = max(DELIMITERS, key=line.count)
    names = next(csv.reader([line], delimiter=delimiter), [])
    return [name.strip() or f"column_{number}" for number, name in enumerate(names, 1)], delimiter


def _note_broken(records: Records, file_no: int, path: Path) -> None:
    if _ending(path) not in TEXT:
        return
    records.connection.execute(
        f"""insert into broken select {file_no}, line, min(case error_type
                when 'TOO MANY COLUMNS' then 'more columns than the header'
                when 'MISSING COLUMNS' then 'fewer columns than the header'
                when 'UNQUOTED VALUE' then 'a quote that is not closed'
                when 'INVALID ENCODING' then 'not UTF-8 text'
                else 'not a line of CSV' end)
            from bad_{file_no} group by line"""
    )


def _ndjson(records: Records, file_no: int, path: Path) -> tuple[str, dict[str, str]]:
    lines, connection = f"lines_{file_no}", records.connection
    try:
        connection.execute(
            f"""create temp table {lines} as select row_number() over () as row_no, line from
                read_csv({literal(str(path))}, auto_detect = false, header = false, delim = '\x01', quote = '',
                         escape = '', columns = {{'line': 'VARCHAR'}}, max_line_size = 16777216)"""
        )
    except duckdb.Error:
        raise ShopError(f"{path} cannot be read; is it a whole NDJSON file in UTF-8?") from None
    whole = "json_valid(line) and json_type(line) = 'OBJECT'"
    connection.execute(
        f"""insert into broken select {file_no}, row_no, 'not a JSON object' from {lines}
            where trim(line) <> '' and not (case when json_valid(line) then {whole} else false end)"""
    )
    rows = f"select row_no, line from {lines} where case when json_valid(line) then {whole} else false end"
    names = connection.execute(f"select distinct unnest(json_keys(line)) from ({rows}) order by all").fetchall()
    shape = "{" + ", ".join(f'{json.dumps(name, ensure_ascii=False)}: "VARCHAR"' for (name,) in names) + "}"
    query = f"select row_no, json_transform(line, {literal(shape)}) as object from ({rows})"
    return query, {name: f"object[{literal(name)}]" for (name,) in names}


def _parquet(records: Records, file_no: int, path: Path) -> tuple[str, dict[str, str]]:
    source = f"read_parquet({literal(str(path))})"
    try:
        if path.suffix.lower() in PACKED:
            with pa.input_stream(path) as stream:
                source = _registered(records, file_no, pq.read_table(pa.BufferReader(stream.read())))
        described = records.connection.execute(f"describe select * from {source}").fetchall()
    except (duckdb.Error, pa.ArrowException, OSError):
        raise ShopError(f"{path} is not a whole Parquet file") from None
    columns = {name: _as_text(quoted(name), kind) for name, kind, *_ in described}
    return f"select row_number() over () as row_no, * from {source}", columns


def _as_text(column: str, kind: str) -> str:
    """A typed column as text that loses nothing; whole numbers of a float column lose their `.0`."""
    if kind in ("DOUBLE", "FLOAT"):
        whole = f"{column} = trunc({column}) and abs({column}) < 9e15"
        return f"case when {whole} then {column}::bigint::varchar else {column}::varchar end"
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "LIST")):
        return f"to_json({column})::varchar"
    return f"{column}::varchar"


def _registered(records: Records, file_no: int, table: pa.Table) -> str:
    records.connection.register(f"table_{file_no}", table)
    return f"table_{file_no}"


def _xlsx(records: Records, file_no: int, path: Path) -> tuple[str, dict[str, str]]:
    """The first sheet of a workbook; its first row is the header."""
    import openpyxl

    try:
        with pa.input_stream(path) as stream:
            book = openpyxl.load_workbook(io.BytesIO(stream.read()), read_only=True, data_only=True)
        rows = book.worksheets[0].iter_rows(values_only=True)
        header = [_cell(value) or f"column_{number}" for number, value in enumerate(next(rows, ()), 1)]
        body = [[_cell(value) for value in row] for row in rows]
    except Exception:  # the reader of workbooks raises whatever its XML and ZIP libraries do
        raise ShopError(f"{path} is not a whole XLSX workbook") from None
    columns = [pa.array([row[at] for row in body], pa.string()) for at in range(len(header))]
    names = [f"c{number}" for number in range(len(header))]
    table = pa.table([pa.array(range(1, len(body) + 1), pa.int64()), *columns], names=["row_no", *names])
    filled = " or ".join(f"{name} is not null" for name in names) or "false"
    query = f"select * from {_registered(records, file_no, table)} where {filled}"
    return query, dict(zip(header, names, strict=True))


def _cell(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ") if hasattr(value, "hour") and hasattr(value, "day") else value.isoformat())
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


READERS = {
    **dict.fromkeys(TEXT, _csv),
    **dict.fromkeys(LINES, _ndjson),
    **dict.fromkeys(COLUMNS, _parquet),
    **dict.fromkeys(SHEET, _xlsx),
}
