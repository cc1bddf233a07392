"""Steps: what a shop does in a day, one function each; the command and the clock call the same ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from customers import catalogue, loading, mirror, nights, profiles, tables
from customers.shop import Shop
from pipelines.failures import NothingToDo

WRITERS = {".csv": "csv", ".parquet": "parquet", ".ndjson": "ndjson"}


def ingest(
    shop: Shop,
    kind: str,
    paths: Sequence[Path],
    *,
    source: str,
    mapping: Path | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Load records and bring the mirror up to date; what was read, kept and rejected."""
    columns = tomllib.loads(mapping.read_text(encoding="utf-8")) if mapping else None
    loaded = loading.load(shop, kind, paths, source=source, mapping=columns, dry_run=dry_run)
    if not dry_run:
        mirror.refresh(shop)
    return asdict(loaded)


def table(shop: Shop, name: str) -> pd.DataFrame:
    """A table of the contract as the last night told it; after a replay, as that day would have had it."""
    return tables.table(shop, name, as_of=nights.last(shop))


def export(shop: Shop, name: str, out: Path) -> int:
    """Write a table of the contract to a file by its ending; the number of rows. A file appears whole or not at all."""
    if out.suffix not in WRITERS:
        raise NothingToDo(f"cannot write {out.name}; end it in .csv, .parquet or .ndjson")
    frame = table(shop, name)
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    _write(frame, partial, WRITERS[out.suffix])
    partial.replace(out)
    return len(frame)


def recommend(shop: Shop, customer_ids: Sequence[str], n: int) -> dict[str, list[dict[str, Any]]]:
    """The last night's merged list of each of these customers, best first; empty for one without."""
    listed = tables.table(shop, "recommendations")
    mine = listed[listed["customer_id"].isin(customer_ids) & (listed["list"] == "any") & (listed["rank"] <= n)]
    names = catalogue.names_of(shop, list(catalogue.keys_of(shop, mine["product_id"].unique().tolist()).values()))
    return {name: _items(mine[mine["customer_id"] == name], names) for name in customer_ids}


def at_risk(shop: Shop, n: int) -> list[dict[str, Any]]:
    """Customers slipping away, most endangered first."""
    frame = tables.table(shop, "at-risk").head(n)
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def show(shop: Shop, customer_id: str) -> dict[str, Any]:
    """Everything on file about one customer."""
    found = profiles.show(shop, customer_id)
    if found is None:
        raise NothingToDo("no customer has that id; ids of another source are written SOURCE:ID")
    return found


def _items(mine: pd.DataFrame, names: Any) -> list[dict[str, Any]]:
    return mine[["rank", "product_id", "score", "source", "reason"]].to_dict("records")


def _write(frame: pd.DataFrame, path: Path, form: str) -> None:
    if form == "parquet":
        frame.to_parquet(path, index=False, coerce_timestamps="us")
    elif form == "ndjson":
        frame.to_json(path, orient="records", lines=True, date_format="iso", force_ascii=False)
    else:
        frame.to_csv(path, index=False)
