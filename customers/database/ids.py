"""Translates external ids of customers, products and offers to internal integer keys and back.

An id belongs to a source. Outside the system it is written plain, or as source:id where two sources use the same id.
"""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from customers.database import engine

# Above this many ids, reading the whole table is faster than selecting each.
FULL_SCAN_ABOVE = 20_000
DEFAULT_SOURCE = "files"


def find_keys(connection: sa.Connection, table: sa.Table, ids: Sequence[str], entity: str) -> dict[str, int]:
    """The key of each id in the table; ids without a row are left out.

    A plain id that several sources use is that of source `files`; where `files` does not have it, it is ambiguous and
    left out.
    """
    valid_ids = {text for text in ids if _is_storable(text)}
    parts = {text: text.split(":", 1) for text in valid_ids if ":" in text}
    candidates = valid_ids | {bare_id for _, bare_id in parts.values()}
    by_id: dict[str, dict[str, int]] = {}
    for source, bare_id, row_key in _select_rows(
        connection, table, f"{entity}_id", f"{entity}_key", candidates, f"{entity}_id"
    ):
        by_id.setdefault(bare_id, {})[source] = row_key
    keys_by_id = {}
    for text in valid_ids:
        key = _unambiguous_key(by_id.get(text, {}))
        if key is None and text in parts:
            source, bare_id = parts[text]
            key = by_id.get(bare_id, {}).get(source)
        if key is not None:
            keys_by_id[text] = key
    return keys_by_id


def find_ids(connection: sa.Connection, table: sa.Table, wanted_keys: Iterable[int], entity: str) -> dict[int, str]:
    """The id of each key: plain where only one source uses it, else source:id."""
    int_keys = {int(key) for key in wanted_keys}
    best: dict[int, tuple[bool, str, str]] = {}
    for source, bare_id, key in _select_rows(
        connection, table, f"{entity}_id", f"{entity}_key", int_keys, f"{entity}_key"
    ):
        candidate = (source != DEFAULT_SOURCE, source, bare_id)
        best[key] = min(best.get(key, candidate), candidate)
    ambiguous = _ambiguous_ids(connection, table, f"{entity}_id")
    return {
        key: f"{source}:{bare_id}" if bare_id in ambiguous else bare_id for key, (_, source, bare_id) in best.items()
    }


def _is_storable(text: str) -> bool:
    """Whether a text can be an id: no database accepts a lone surrogate or a null character."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _unambiguous_key(by_source: dict[str, int]) -> int | None:
    if len(set(by_source.values())) == 1:
        return next(iter(by_source.values()))
    return by_source.get(DEFAULT_SOURCE)


def _select_rows(
    connection: sa.Connection, table: sa.Table, id_column: str, key_column: str, wanted: set, filter_column: str
) -> Iterable[tuple[str, str, int]]:
    query = sa.select(table.c.source, table.c[id_column], table.c[key_column])
    if len(wanted) > FULL_SCAN_ABOVE:
        position = 1 if filter_column == id_column else 2
        yield from (row for row in connection.execute(query).tuples() if row[position] in wanted)
        return
    for chunk in engine.chunks(sorted(wanted), 5_000):
        yield from connection.execute(query.where(table.c[filter_column].in_(chunk))).tuples()


def _ambiguous_ids(connection: sa.Connection, table: sa.Table, id_column: str) -> set[str]:
    """Ids that more than one source uses; the full query is skipped in the usual case of a single source."""
    if connection.execute(sa.select(sa.func.min(table.c.source) == sa.func.max(table.c.source))).scalar():
        return set()
    query = (
        sa.select(table.c[id_column]).group_by(table.c[id_column]).having(sa.func.count(table.c.source.distinct()) > 1)
    )
    return set(connection.execute(query).scalars())
