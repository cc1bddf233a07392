"""Steps: what a shop does in a day, one function each; the command and the clock call the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from customers import catalogue, loading, mirror, nights, persuasion, profiles, reasons, scores, tables, transactions
from customers.shop import Shop
from models import bundle
from pipelines import demand
from pipelines.failures import NothingToDo, WrongUsage
from serving import details
from training import plans, promote

UNKNOWN = "no customer has that id; ids of another source are written SOURCE:ID"
#: The offers that may not be made, with the reasons; the counter alone judges them.
DROPPED = "dropped-offers"
#: What the shop will sell, of all customers together.
DEMAND = "demand"
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
    """A table of the contract as the last night told it; after a replay, as that day would have had it.

    The demand ahead is that of the latest day any night looked at: a replay keeps no figures of needs to tell it from.
    """
    if name == DROPPED:
        from serving import withheld

        return withheld.table(shop, as_of=scores.last_told(shop))
    if name == DEMAND:
        return demand.table(shop)
    if name not in tables.TABLES:
        raise WrongUsage(f"there is no table called {name}; there are {', '.join([*tables.TABLES, DROPPED, DEMAND])}")
    return tables.table(shop, name, as_of=scores.last_told(shop))


def export(shop: Shop, name: str, out: Path) -> int:
    """Write a table of the contract to a file by its ending; the number of rows. A file appears whole or not at all."""
    if out.suffix not in WRITERS:
        raise WrongUsage(f"cannot write {out.name}; end it in .csv, .parquet or .ndjson")
    frame = table(shop, name)
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        _write(frame, partial, WRITERS[out.suffix])
        partial.replace(out)
    except OSError as error:
        raise NothingToDo(f"cannot write {out}: {error.strerror}") from None
    return len(frame)


def recommend(shop: Shop, customer_ids: Sequence[str], n: int) -> dict[str, list[dict[str, Any]]]:
    """The last night's merged list of each of these customers, best first; empty for one without."""
    keys = profiles.keys_of(shop, list(customer_ids))
    found = {name: _listed(shop, scores.latest(shop, key).get("recommender"), n) for name, key in keys.items()}
    return {name: found.get(name, []) for name in customer_ids}


def offers(shop: Shop, customer_ids: Sequence[str], n: int) -> dict[str, list[dict[str, Any]]]:
    """Of the last night's offers to each of these customers those that may still be made, likeliest first."""
    frame = table(shop, "offers")
    found = {str(name): _records(rows.head(n)) for name, rows in frame.groupby("customer_id", sort=False)}
    return {name: found.get(name, []) for name in customer_ids}


def at_risk(
    shop: Shop, n: int, *, segment: str | None = None, min_value: float | None = None, order: str = "probability"
) -> tuple[list[dict[str, Any]], str | None]:
    """Customers slipping away, most endangered first; of one segment, or worth at least so much.

    And why nobody's saved value is told, in words; None where it is.
    """
    frame = tables.at_risk(shop, n=n, segment=segment, min_value=min_value, order=order)
    return _records(frame), persuasion.doubt(shop)


def show(shop: Shop, customer_id: str) -> dict[str, Any]:
    """Everything on file about one customer."""
    found = profiles.show(shop, customer_id)
    if found is None:
        raise NothingToDo(UNKNOWN)
    return found


def hand_over(shop: Shop, customer_id: str) -> dict[str, Any]:
    """Everything the shop holds about one customer, for that customer."""
    from features import store
    from serving import shown

    found = shown.everything(shop, store.open(shop.home / "features", shop.online_store), customer_id)
    if found is None:
        raise NothingToDo(UNKNOWN)
    return found


def erase(shop: Shop, customer_id: str) -> dict[str, Any]:
    """Forget one customer for good, on every floor; sales stay, without a name."""
    from customers import privacy
    from features import store
    from serving import forget

    erased = privacy.erase(shop, customer_id)
    if erased is None:
        raise NothingToDo(UNKNOWN)
    forget.forget(shop, store.open(shop.home / "features", shop.online_store))
    return asdict(erased)


def doctor(shop: Shop) -> dict[str, Any]:
    """Look at the home and say what is there, what is missing, and what to do; nothing is changed."""
    sold, looked = transactions.last_sold_at(shop), nights.last_looked(shop)
    champions = bundle.Champions(shop.home / "champions")
    checks = [
        _check("home", True, str(shop.home)),
        _check(
            "sales", sold is not None, f"the last one {sold}" if sold else "none; run: regulars load transactions FILE"
        ),
        _check(
            "night", looked is not None, f"the last one as of {looked}" if looked else "none yet; run: regulars run"
        ),
    ]
    for plan in plans.PLANS:
        champion = champions.get(plan.name)
        missing = champions.errors.get(plan.name, "no champion yet; run: regulars run")
        checks.append(_check(plan.name, champion is not None, f"version {champion.version}" if champion else missing))
    return {"checks": checks, "ok": all(check["ok"] for check in checks)}


def mlflow_page(shop: Shop, port: int) -> None:
    """Open MLflow's page on this home until Ctrl-C."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", promote.address(shop), "--port", str(port)]
    subprocess.run(command, check=False)


def _listed(shop: Shop, score: scores.Score | None, n: int) -> list[dict[str, Any]]:
    ranked = list(islice(details.listed(score.detail, "any"), n)) if score else []
    keys = [product for _, product, *_ in ranked]
    ids, names = catalogue.ids_of(shop, keys), catalogue.names_of(shop, keys)
    key = score.customer_key if score else 0
    said = reasons.speak(shop, [(key, source, grounds) for *_, source, grounds in ranked])
    return [
        {"rank": rank, "product_id": ids[product], "name": names.get(product) or "", "score": chance, "source": source,
         "reason": reason}
        for (rank, product, chance, source, _), reason in zip(ranked, said, strict=True)
    ]  # fmt: skip


def _check(what: str, ok: bool, found: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "found": found}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON holds them: what is unknown is None."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _write(frame: pd.DataFrame, path: Path, form: str) -> None:
    frame.attrs = {}  # moments among them, which Parquet's words cannot hold
    if form == "parquet":
        frame.to_parquet(path, index=False, coerce_timestamps="us")
    elif form == "ndjson":
        frame.to_json(path, orient="records", lines=True, date_format="iso", force_ascii=False)
    else:
        frame.to_csv(path, index=False)
