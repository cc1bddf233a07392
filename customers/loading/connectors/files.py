"""Reads CSV, NDJSON, Parquet and Excel files into DuckDB tables of texts, before validation.

Table `raw` has the columns file_no, row_no and every column of the files as text, under a normalised lower-case name;
where every file is Parquet it is a view, so that no text of a file lies in memory. Table `broken` has the lines that
could not be parsed: file_no, line and reason.
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

from customers.loading import sql_text
from customers.shop.errors import ShopError

CSV_ENDINGS, NDJSON_ENDINGS, PARQUET_ENDINGS, EXCEL_ENDINGS = (
    (".csv", ".tsv"),
    (".ndjson", ".jsonl"),
    (".parquet",),
    (".xlsx",),
)
COMPRESSED_ENDINGS = (".gz", ".zst")
READABLE_ENDINGS = CSV_ENDINGS + NDJSON_ENDINGS + PARQUET_ENDINGS + EXCEL_ENDINGS
DELIMITERS = ",;\t|"
FIRST_LINE_BYTES = 1 << 20
# Of the rows of a load that may use the disk.
MEMORY_LIMIT = "512MB"
# Names of our own columns in `raw`; a file's column of that name gets an underscore at the end.
RESERVED_COLUMNS = ("file_no", "row_no")
# Types whose values have a text without blanks around it.
CLEAN_TYPES = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("FLOAT", "DOUBLE", "BOOLEAN", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
)
ROW_NUMBER_COLUMN = "file_row_number"
# More files in one view take longer to plan than their rows take to copy.
MAX_FILES_IN_PLACE = 200


@dataclass
class Records:
    """The rows of some files, in the tables `raw` and `broken` of `connection`; `columns` are normalised names."""

    connection: duckdb.DuckDBPyConnection
    files: list[Path]
    columns: list[str] = field(default_factory=list)
    # Keys of customers whose records changed something; None where they are not collected.
    changed_customers: set[int] | None = None
    # Columns whose texts DuckDB wrote from typed values: never empty and without blanks around them.
    clean_columns: set[str] = field(default_factory=set)
    text_columns: set[str] = field(default_factory=set)
    # Columns in which ids of erased customers were removed: table `erased_` plus the name has their file_no and row_no.
    erased_columns: list[str] = field(default_factory=list)
    # The query of each file that is read in place; `raw` is a view over them.
    in_place: list[str] = field(default_factory=list)
    # Whether the connection is to a database file of its own: its tables leave memory entirely, temporary ones do not.
    has_database_file: bool = False

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def add_columns(self, names: Sequence[str]) -> None:
        """Add columns of nulls to `raw`, those that it lacks."""
        missing = [name for name in names if name not in self.columns]
        if self.in_place:
            nulls = "".join(f", null::varchar as {sql_text.quote_identifier(name)}" for name in missing)
            queries = " union all by name ".join(self.in_place)
            self.connection.execute(f"create or replace temp view raw as select *{nulls} from ({queries})")
            return
        for name in missing:
            self.connection.execute(
                f"alter table raw add column if not exists {sql_text.quote_identifier(name)} varchar"
            )

    def create_table(self, name: str, query: str) -> None:
        """Create a table that lives as long as the connection."""
        self.connection.execute(f"create {'' if self.has_database_file else 'temp'} table {name} as {query}")

    def count(self, table: str, where: str = "true") -> int:
        """The number of rows of a table that meet an SQL condition."""
        rows = self.connection.execute(f"select count(*) from {table} where {where}").fetchall()
        return int(rows[0][0])


def read_files(
    paths: Sequence[Path | str],
    *,
    required: Sequence[str],
    mapping: Mapping[str, str] | None = None,
    disk_folder: Path | None = None,
) -> Records:
    """Read every row of these files, folders and globs. `mapping` gives the file's own column for one of ours.

    With `disk_folder`, rows beyond MEMORY_LIMIT lie there in clear; without, all of them are held in memory.
    Raises ShopError where a path or a required column is missing, a file cannot be read, or there are no rows.
    """
    records = Records(_open_connection(disk_folder), find_files(paths), has_database_file=disk_folder is not None)
    if _can_read_in_place(records):
        for file_no, path in enumerate(records.files):
            _view_file(records, file_no, path, required, mapping or {})
        records.add_columns(())
    else:
        records.create_table("raw", "select 0::integer as file_no, 0::bigint as row_no where false")
        for file_no, path in enumerate(records.files):
            _append_file(records, file_no, path, required, mapping or {})
    if not records.columns or not records.count("raw") + records.count("broken"):
        raise ShopError(f"no rows in {_format_paths(records.files)}; nothing was loaded")
    return records


def find_files(paths: Sequence[Path | str]) -> list[Path]:
    """The files of these paths, folders and globs, each once and in a fixed order.

    Raises ShopError where there is none, or where a file type is not supported.
    """
    files: dict[Path, None] = {}
    for path in paths:
        files.update(dict.fromkeys(_files_at(Path(path))))
    if not files:
        raise ShopError("no file given; name a file, a folder or a glob")
    return list(files)


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        inside = [
            entry for entry in sorted(path.rglob("*")) if entry.is_file() and _file_ending(entry) in READABLE_ENDINGS
        ]
        if not inside:
            raise ShopError(f"the folder {path} holds no {', '.join(READABLE_ENDINGS)} file")
        return inside
    matches = [path] if path.is_file() else [Path(name) for name in sorted(glob.glob(str(path)))]
    if not matches:
        raise ShopError(f"no such file: {path}")
    unsupported = [match for match in matches if _file_ending(match) not in READABLE_ENDINGS]
    if unsupported:
        raise ShopError(
            f"{unsupported[0]} is not a kind of file that can be read; supported are {', '.join(READABLE_ENDINGS)}"
        )
    return matches


def _file_ending(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED_ENDINGS else path
    return name.suffix.lower()


def _format_paths(files: Sequence[Path]) -> str:
    names = ", ".join(str(path) for path in files[:3])
    return names if len(files) <= 3 else f"{names} and {len(files) - 3} more"


def _open_connection(disk_folder: Path | None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:" if disk_folder is None else str(disk_folder / "rows.duckdb"))
    configure_connection(connection)
    if disk_folder is not None:
        folder = sql_text.quote_literal(str(disk_folder))
        connection.execute(f"set memory_limit = '{MEMORY_LIMIT}'; set temp_directory = {folder}")
    return connection


def configure_connection(connection: duckdb.DuckDBPyConnection) -> None:
    """Prepare a connection for rows; they may be personal, so DuckDB must not write temporary files to disk."""
    connection.execute("set timezone = 'UTC'; set temp_directory = ''")
    # Checked first: in a notebook without widgets DuckDB raises an error on any setting of its progress bar.
    if connection.sql("select current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        connection.execute("set enable_progress_bar = false")
    connection.execute("create temp table broken (file_no integer, line bigint, reason varchar)")


def _can_read_in_place(records: Records) -> bool:
    """Whether every file is uncompressed Parquet, which DuckDB reads as fast as a table, and again where needed."""
    are_parquet = all(path.suffix.lower() in PARQUET_ENDINGS and path.stat().st_size for path in records.files)
    return (
        are_parquet
        and len(records.files) <= MAX_FILES_IN_PLACE
        and not any(ROW_NUMBER_COLUMN in _describe_parquet(records, path) for path in records.files)
    )


def _view_file(records: Records, file_no: int, path: Path, required: Sequence[str], mapping: Mapping[str, str]) -> None:
    """Add the query of a Parquet file to `records.in_place`."""
    source = f"read_parquet({sql_text.quote_literal(str(path))}, file_row_number = true)"
    types = _describe_parquet(records, path)
    expressions = {name: _cast_to_text(sql_text.quote_identifier(name), types[name]) for name in types}
    chosen = _choose_columns(path, expressions, required, mapping)
    type_of_expression = {expressions[name]: types[name] for name in types}
    texts = {name for name, expression in chosen.items() if not _is_clean(type_of_expression[expression])}
    records.clean_columns = (records.clean_columns | set(chosen)) - texts - records.text_columns
    records.text_columns |= texts
    records.columns += [name for name in chosen if name not in records.columns]
    select = ", ".join(f"{expression} as {sql_text.quote_identifier(name)}" for name, expression in chosen.items())
    records.in_place.append(
        f"select {file_no}::integer as file_no, {ROW_NUMBER_COLUMN} + 1 as row_no, {select} from {source}"
    )


def _is_clean(column_type: str) -> bool:
    """Whether the texts of a column of this type are never empty and have no blanks around them."""
    return column_type in CLEAN_TYPES or column_type.startswith("DECIMAL")


def _append_file(
    records: Records, file_no: int, path: Path, required: Sequence[str], mapping: Mapping[str, str]
) -> None:
    """Add one file to `raw`. Its query is built first, so that an unreadable file leaves nothing."""
    if path.stat().st_size == 0:
        return
    query, file_columns = READERS[_file_ending(path)](records, file_no, path)
    chosen = _choose_columns(path, file_columns, required, mapping)
    for name in chosen:
        if name not in records.columns:
            records.columns.append(name)
            records.connection.execute(f"alter table raw add column {sql_text.quote_identifier(name)} varchar")
    select = ", ".join(f"{expression} as {sql_text.quote_identifier(name)}" for name, expression in chosen.items())
    try:
        records.connection.execute(
            f"insert into raw by name select {file_no}::integer as file_no, row_no, {select} from ({query})"
        )
        _record_broken_lines(records, file_no, path)
    except duckdb.Error:
        # The library's own message would quote the line, which may hold personal data.
        raise ShopError(f"{path} cannot be read; is it a whole {_file_ending(path)} file in UTF-8?") from None


def _choose_columns(
    path: Path, file_columns: Mapping[str, str], required: Sequence[str], mapping: Mapping[str, str]
) -> dict[str, str]:
    """Our column names, each with the expression that reads it from the file."""
    by_name: dict[str, str] = {}
    for name, expression in file_columns.items():
        if normalise_column(name) in by_name:
            raise ShopError(f"{path} has two columns that mean {normalise_column(name)}; rename one of them")
        by_name[normalise_column(name)] = expression
    for column, file_column in mapping.items():
        if normalise_column(file_column) not in by_name:
            raise ShopError(f"the mapping takes {column} from {file_column!r}, which {path} does not have")
    mapped = {column: by_name[normalise_column(file_column)] for column, file_column in mapping.items()}
    taken = {normalise_column(file_column) for file_column in mapping.values()}
    chosen = mapped | {
        name: column_expression
        for name, column_expression in by_name.items()
        if name not in taken and name not in mapped
    }
    missing = [name for name in required if name not in chosen]
    if missing:
        raise ShopError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(file_columns) or 'none'}. "
            "Rename its columns, or map them with --mapping"
        )
    return chosen


def normalise_column(name: str) -> str:
    """A normalised column name: lower case, words joined by underscores."""
    normalised = "_".join(name.replace("\ufeff", "").replace("-", " ").replace("_", " ").lower().split())
    return f"{normalised}_" if normalised in RESERVED_COLUMNS else normalised


def _read_csv(records: Records, file_no: int, path: Path) -> tuple[str, dict[str, str]]:
    """Delimiter and columns come from the header alone, so that one odd row cannot change them."""
    names, delimiter = _read_header(path)
    columns = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(names)))
    query = (
        f"select row_number() over () as row_no, * from read_csv({sql_text.quote_literal(str(path))}, "
        f"auto_detect = false, header = true, delim = {sql_text.quote_literal(delimiter)}, "
        f"quote = '\"', escape = '\"', columns = {{{columns}}}, "
        f"store_rejects = true, rejects_table = 'bad_{file_no}', rejects_scan = 'bad_scan_{file_no}')"
    )
    return query, {name: f"c{number}" for number, name in enumerate(names)}


def _read_header(path: Path) -> tuple[list[str], str]:
    try:
        with pa.input_stream(path) as stream:
            first = stream.read(FIRST_LINE_BYTES).decode("utf-8-sig", errors="ignore").lstrip("\r\n")
        line = next(iter(first.splitlines()), "")
    except OSError:
        raise ShopError(f"{path} cannot be unpacked; is it whole?") from None
    delimiter = max(DELIMITERS, key=line.count)
    names = next(csv.reader([line], delimiter=delimiter), [])
    return [name.strip() or f"column_{number}" for number, name in enumerate(names, 1)], delimiter


def _record_broken_lines(records: Records, file_no: int, path: Path) -> None:
    if _file_ending(path) not in CSV_ENDINGS:
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


def _read_ndjson(records: Records, file_no: int, path: Path) -> tuple[str, dict[str, str]]:
    lines, connection = f"lines_{file_no}", records.connection
    try:
        connection.execute(
            f"""create temp table {lines} as select row_number() over () as row_no, line from
                read_csv({sql_text.quote_literal(str(path))}, auto_detect = false, header = false, delim = '\x01',
                         quote = '', escape = '', columns = {{'line': 'VARCHAR'}}, max_line_size = 16777216)"""
        )
    except duckdb.Error:
        raise ShopError(f"{path} cannot be read; is it a whole NDJSON file in UTF-8?") from None
    is_object = "json_valid(line) and json_type(line) = 'OBJECT'"
    connection.execute(
        f"""insert into broken select {file_no}, row_no, 'not a JSON object' from {lines}
            where trim(line) <> '' and not (case when json_valid(line) then {is_object} else false end)"""
    )
    rows = f"select row_no, line from {lines} where case when json_valid(line) then {is_object} else false end"
    names = connection.execute(f"select distinct unnest(json_keys(line)) from ({rows}) order by all").fetchall()
    shape = "{" + ", ".join(f'{json.dumps(name, ensure_ascii=False)}: "VARCHAR"' for (name,) in names) + "}"
    query = f"select row_no, json_transform(line, {sql_text.quote_literal(shape)}) as object from ({rows})"
    return query, {name: f"object[{sql_text.quote_literal(name)}]" for (name,) in names}


def _read_parquet(records: Records, file_no: int, path: Path) -> tuple[str, dict[str, str]]:
    source = f"read_parquet({sql_text.quote_literal(str(path))})"
    try:
        if path.suffix.lower() in COMPRESSED_ENDINGS:
            with pa.input_stream(path) as stream:
                source = _register_table(records, file_no, pq.read_table(pa.BufferReader(stream.read())))
    except (pa.ArrowException, OSError):
        raise ShopError(f"{path} is not a whole Parquet file") from None
    columns = {
        name: _cast_to_text(sql_text.quote_identifier(name), column_type)
        for name, column_type in _describe_parquet(records, path, source).items()
    }
    return f"select row_number() over () as row_no, * from {source}", columns


def _describe_parquet(records: Records, path: Path, table: str | None = None) -> dict[str, str]:
    """The type of each column of a Parquet file, or of the table that it was read into.

    Raises ShopError where the file is not whole.
    """
    source = table or f"read_parquet({sql_text.quote_literal(str(path))})"
    try:
        description = records.connection.execute(f"describe select * from {source}").fetchall()
    except duckdb.Error:
        raise ShopError(f"{path} is not a whole Parquet file") from None
    return {name: column_type for name, column_type, *_ in description}


def _cast_to_text(column: str, column_type: str) -> str:
    """A typed column as text without loss; whole numbers of a float column lose their `.0`."""
    if column_type in ("DOUBLE", "FLOAT"):
        is_whole_number = f"{column} = trunc({column}) and abs({column}) < 9e15"
        return f"case when {is_whole_number} then {column}::bigint::varchar else {column}::varchar end"
    if column_type.endswith("]") or column_type.startswith(("STRUCT", "MAP", "LIST")):
        return f"to_json({column})::varchar"
    return f"{column}::varchar"


def _register_table(records: Records, file_no: int, table: pa.Table) -> str:
    records.connection.register(f"table_{file_no}", table)
    return f"table_{file_no}"


def _read_excel(records: Records, file_no: int, path: Path) -> tuple[str, dict[str, str]]:
    """The first sheet of a workbook; its first row is the header."""
    import openpyxl

    try:
        with pa.input_stream(path) as stream:
            workbook = openpyxl.load_workbook(io.BytesIO(stream.read()), read_only=True, data_only=True)
        rows = workbook.worksheets[0].iter_rows(values_only=True)
        header = [_cell_text(value) or f"column_{number}" for number, value in enumerate(next(rows, ()), 1)]
        body = [[_cell_text(value) for value in row] for row in rows]
    except Exception:  # openpyxl passes on any error of its XML and ZIP libraries
        raise ShopError(f"{path} is not a whole XLSX workbook") from None
    columns = [pa.array([row[index] for row in body], pa.string()) for index in range(len(header))]
    names = [f"c{number}" for number in range(len(header))]
    table = pa.table([pa.array(range(1, len(body) + 1), pa.int64()), *columns], names=["row_no", *names])
    filled = " or ".join(f"{name} is not null" for name in names) or "false"
    query = f"select * from {_register_table(records, file_no, table)} where {filled}"
    return query, dict(zip(header, names, strict=True))


def _cell_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ") if hasattr(value, "hour") and hasattr(value, "day") else value.isoformat())
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


READERS = {
    **dict.fromkeys(CSV_ENDINGS, _read_csv),
    **dict.fromkeys(NDJSON_ENDINGS, _read_ndjson),
    **dict.fromkeys(PARQUET_ENDINGS, _read_parquet),
    **dict.fromkeys(EXCEL_ENDINGS, _read_excel),
}
