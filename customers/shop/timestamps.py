"""Instants: a moment as a whole number of microseconds since 1970 in UTC, exact and the same in every database."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ONE_MICROSECOND = timedelta(microseconds=1)


def micros(at: datetime) -> int:
    """Microseconds since 1970 in UTC of an aware datetime."""
    return (at - EPOCH) // ONE_MICROSECOND


def from_micros(value: int) -> datetime:
    """The aware UTC datetime of `micros`."""
    return EPOCH + timedelta(microseconds=value)


def maybe(value: int | None) -> datetime | None:
    """As `from_micros`; nothing stays nothing."""
    return None if value is None else from_micros(value)
