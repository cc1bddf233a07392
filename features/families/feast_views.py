"""Feast views of feature families, so that training and serving read the same numbers."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast import Entity, FeatureView

# Feast's joins use these names themselves; a column ending in _y disappears from training frames.
RESERVED_ENDINGS = ("_y", "_yyyy")
RESERVED = {"rn", "entity_row_id", "event_expire_timestamp", "event_timestamp", "created", "customer_key"}


@cache
def customer_entity() -> "Entity":
    """The entity of every feature: a customer, joined by customer_key."""
    from feast import Entity, ValueType

    return Entity(name="customer", join_keys=["customer_key"], value_type=ValueType.INT64)


def numeric_view(name: str, folder: Path, columns: Iterable[str]) -> "FeatureView":
    """View of a family with one float64 per customer, cutoff and column, at folder/NAME/part.parquet."""
    return _build_view(name, folder, dict.fromkeys(columns, "Float64"))


def list_view(name: str, folder: Path, element_types: Mapping[str, str]) -> "FeatureView":
    """View of a family of aligned lists per customer and cutoff; types are those of Feast (Int64, Float32, String)."""
    return _build_view(
        name, folder, {column: f"Array({element_type})" for column, element_type in element_types.items()}
    )


def check_column_names(columns: Mapping[str, str]) -> None:
    """Check feature names. Raises ValueError for names that Feast would lose or confuse with its own."""
    rejected = [name for name in columns if name.endswith(RESERVED_ENDINGS) or name in RESERVED]
    if rejected:
        raise ValueError(f"Feast cannot store a feature named {', '.join(rejected)}; rename it")


def _build_view(name: str, folder: Path, columns: Mapping[str, str]) -> "FeatureView":
    from feast import FeatureView, Field, FileSource

    check_column_names(columns)
    source = FileSource(
        name=f"{name}_snapshot",
        path=str(Path(folder).absolute() / name / "part.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    schema = [Field(name="customer_key", dtype=_feast_type("Int64"))]
    schema += [Field(name=column, dtype=_feast_type(type_name)) for column, type_name in columns.items()]
    return FeatureView(
        name=name, entities=[customer_entity()], ttl=timedelta(0), schema=schema, source=source, online=True
    )


def _feast_type(type_name: str) -> Any:
    from feast import types

    inner = type_name.removeprefix("Array(").removesuffix(")")
    return types.Array(getattr(types, inner)) if inner != type_name else getattr(types, type_name)
