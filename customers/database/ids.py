"""Ids: the names by which the world calls customers and products, and the keys by which we do.

An id belongs to its source. Outside it is written plain, or as source:id where two sources use it.
"""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from customers import database

# More than this at once, and reading the whole table is quicker than asking for each.
MANY = 20_000
OWN = "files"


def keys(connection: sa.Connection, table: sa.Table, ids: Sequence[str], name: str) -> dict[str, int]:
    """The key of each id that is known. A plain id of several sources is that of `files`, else unknown."""
    asked = {text for text in ids if _writable(text)}
    parts = {text: text.split(":", 1) for text in asked if ":" in text}
    wanted = asked | {plain for _, plain in parts.values()}
    by_id: dict[str, dict[str, int]] = {}
    for source, plain, known in _rows(connection, table, f"{name}_id", f"{name}_key", wanted, f"{name}_id"):
        by_id.setdefault(plain, {})[source] = known
    found = {}
    for text in asked:
        key = _only(by_id.get(text, {}))
        if key is None and text in parts:
            source, plain = parts[text]
            key = by_id.get(plain, {}).get(source)
        if key is not None:
            found[text] = key
    return found


def names(connection: sa.Connection, table: sa.Table, wanted: Iterable[int], name: str) -> dict[int, str]:
    """The id of each key, plain where it is the only one so called."""
    keys_ = {int(key) for key in wanted}
    mine: dict[int, tuple[bool, str, str]] = {}
    for source, plain, key in _rows(connection, table, f"{name}_id", f"{name}_key", keys_, f"{name}_key"):
        candidate = (source != OWN, source, plain)
        mine[key] = min(mine.get(key, candidate), candidate)
    shared = _shared(connection, table, f"{name}_id")
    return {key: f"{source}:{plain}" if plain in shared else plain for key, (_, source, plain) in mine.items()}


def _writable(text: str) -> bool:
    """Whether a text can be an id at all: half a character, or none, no database can be asked about."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _only(by_source: dict[str, int]) -> int | None:
    if len(set(by_source.values())) == 1:
        return next(iter(by_source.values()))
    return by_source.get(OWN)


def _rows(
    connection: sa.Connection, table: sa.Table, id_: str, key: str, wanted: set, by: str
) -> Iterable[tuple[str, str, int]]:
    query = sa.select(table.c.source, table.c[id_], table.c[key])
    if len(wanted) > MANY:
        place = 1 if by == id_ else 2
        yield from (row for row in connection.execute(query).tuples() if row[place] in wanted)
        return
    for chunk in database.chunks(sorted(wanted), 5_000):
        yield from connection.execute(query.where(table.c[by].in_(chunk))).tuples()


def _shared(connection: sa.Connection, table: sa.Table, id_: str) -> set[str]:
    """Ids that more than one source uses; mostly there is one source, and no need to look."""
    if connection.execute(sa.select(sa.func.min(table.c.source) == sa.func.max(table.c.source))).scalar():
        return set()
    query = sa.select(table.c[id_]).group_by(table.c[id_]).having(sa.func.count(table.c.source.distinct()) > 1)
    return set(connection.execute(query).scalars())
