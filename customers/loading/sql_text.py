"""Quoting of names and values in SQL text."""


def quote_identifier(name: str) -> str:
    """A column's name inside a statement."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """A text inside a statement."""
    return "'" + text.replace("'", "''") + "'"
