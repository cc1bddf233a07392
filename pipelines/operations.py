"""Operations of a shop, one function each, as the command line and Dagster call them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from customers.catalogue import products
from customers.database import engine
from customers.ledger import transactions, watermark
from customers.loading import load
from customers.parquet import mirror
from customers.people import lookup
from customers.privacy import anonymisation, tombstones
from customers.privacy import erasure as customer_erasure
from customers.reports import at_risk, customer_view, export_files, exports, recommendation_reasons
from customers.scores import score_details, score_store, uplift_result
from customers.shop.settings import SPARK, Shop
from models.registry.champions import Champions
from pipelines import demand_forecast
from pipelines.errors import NothingToDo, WrongUsage
from training import promotion
from training.tasks import all_tasks

UNKNOWN_CUSTOMER = "no customer has that id; ids of another source are written SOURCE:ID"
#: The table of ineligible offers with their reasons; serving alone computes it.
INELIGIBLE_OFFERS = "dropped-offers"
#: The table of the demand forecast.
DEMAND = "demand"
EXPORT_FORMATS = export_files.FORMATS


def load_records(
    shop: Shop,
    kind: str,
    paths: Sequence[Path],
    *,
    source: str,
    mapping: Path | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Load records of one kind and bring the mirror up to date; the counts of read, new, changed and rejected rows.

    `mapping` is a TOML file with the file's own column for one of ours. A dry run checks and stores nothing.
    """
    columns = tomllib.loads(mapping.read_text(encoding="utf-8")) if mapping else None
    loaded = load.load_files(shop, kind, paths, source=source, mapping=columns, dry_run=dry_run)
    if not dry_run:
        mirror.refresh(shop)
    return asdict(loaded)


def load_table(shop: Shop, name: str) -> pd.DataFrame:
    """An export table as of the last finished scores, which after a historical run are those of its day.

    For its columns see `customers.reports.exports`, `serving.offers.ineligible_offers` and `demand_forecast`. Demand
    is always as of the latest run, since a historical run keeps no features to compute it from. Raises WrongUsage for
    an unknown table.
    """
    if name == INELIGIBLE_OFFERS:
        from serving.offers import ineligible_offers

        return ineligible_offers.list_ineligible_offers(shop, as_of=score_store.last_finished_as_of(shop))
    if name == DEMAND:
        return demand_forecast.forecast_table(shop)
    if name not in exports.TABLES:
        raise WrongUsage(
            f"there is no table called {name}; there are {', '.join([*exports.TABLES, INELIGIBLE_OFFERS, DEMAND])}"
        )
    return exports.build_table(shop, name, as_of=score_store.last_finished_as_of(shop))


def export_table(shop: Shop, name: str, out: Path) -> int:
    """Write an export table as CSV, Parquet or NDJSON, by the file's ending; the number of rows.

    A path without an ending is that of a folder, into which a Parquet file for each portion of the customers goes; by
    Spark's tasks where that is the engine. What is there appears complete or not at all. Raises WrongUsage for another
    ending or an unknown table, NothingToDo where it cannot be written.
    """
    if not out.suffix:
        return _export_folder(shop, name, out)
    if out.suffix not in EXPORT_FORMATS:
        raise WrongUsage(f"cannot write {out.name}; end it in .csv, .parquet or .ndjson, or name a folder")
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        n_rows = export_files.write_frames(_iter_tables(shop, name), partial, EXPORT_FORMATS[out.suffix])
        partial.replace(out)
    except OSError as error:
        raise NothingToDo(f"cannot write {out}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return n_rows


def _export_folder(shop: Shop, name: str, out: Path) -> int:
    if name not in exports.TABLES:
        raise WrongUsage(f"{name} is not cut into portions; end the path in .csv, .parquet or .ndjson")
    if out.exists() and not (out.is_dir() and all(path.match("part-*.parquet") for path in out.iterdir())):
        raise WrongUsage(f"{out} holds something else than the parts of an export; name another folder")
    try:
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            new, old = Path(folder) / anonymisation.BEING_WRITTEN, Path(folder) / "old"
            new.mkdir()
            erasure_id = _latest_erasure_id(shop)
            n_rows = sum(_export_portions(shop, name, new))
            if out.exists():
                out.rename(old)
            new.rename(out)
        # An erasure meanwhile has not found the parts, which may have rows of that customer.
        return n_rows if _latest_erasure_id(shop) == erasure_id else _export_folder(shop, name, out)
    except OSError as error:
        raise NothingToDo(f"cannot write {out}: {error.strerror}") from None


def _latest_erasure_id(shop: Shop) -> int:
    with engine.read_transaction(shop) as connection:
        return tombstones.latest_erasure_id(connection)


def _export_portions(shop: Shop, name: str, folder: Path) -> Iterator[int]:
    """Write a file for each portion; the number of rows of each."""
    as_of = score_store.last_finished_as_of(shop)
    export = export_files.PortionExport(replace(shop, key=b""), name, as_of, folder)
    portions = list(enumerate(exports.list_portions(shop, name)))
    if shop.engine == SPARK:
        from features.engine import spark  # imported here: only a shop with this engine has it

        return spark.map_portions(export_files.write_portion, export, portions)
    return (export_files.write_portion(export, portion) for portion in portions)


def _iter_tables(shop: Shop, name: str) -> Iterator[pd.DataFrame]:
    """The rows of `load_table` in portions, where the table has a row per customer or more."""
    if name in exports.TABLES:
        return exports.iter_tables(shop, name, as_of=score_store.last_finished_as_of(shop))
    return iter([load_table(shop, name)])


def list_recommendations(shop: Shop, customer_ids: Sequence[str], n: int) -> dict[str, list[dict[str, Any]]]:
    """Each customer's first `n` places of the stored list `any`, best first; empty for a customer without one."""
    keys = lookup.find_keys(shop, list(customer_ids))
    recommendations = {
        name: _ranked_products(shop, score_store.load_customer_scores(shop, key).get("recommender"), n)
        for name, key in keys.items()
    }
    return {name: recommendations.get(name, []) for name in customer_ids}


def list_offers(shop: Shop, customer_ids: Sequence[str], n: int) -> dict[str, list[dict[str, Any]]]:
    """Each customer's stored offers that are still eligible, at most `n`, most likely to be redeemed first."""
    frame = load_table(shop, "offers")
    offers_by_customer = {
        str(name): _json_records(rows.head(n)) for name, rows in frame.groupby("customer_id", sort=False)
    }
    return {name: offers_by_customer.get(name, []) for name in customer_ids}


def list_at_risk(
    shop: Shop, n: int, *, segment: str | None = None, min_value: float | None = None, order: str = "probability"
) -> tuple[list[dict[str, Any]], str | None]:
    """At most `n` customers at risk of churn, of one segment or with at least `min_value` at risk, sorted by `order`.

    The second value is the reason why no saved value is available; None where it is.
    """
    frame = at_risk.list_at_risk(shop, n=n, segment=segment, min_value=min_value, order=order)
    return _json_records(frame), uplift_result.unavailable_reason(shop)


def show_customer(shop: Shop, customer_id: str) -> dict[str, Any]:
    """Everything on file about one customer. Raises NothingToDo for an unknown id."""
    profile = customer_view.load_customer_view(shop, customer_id)
    if profile is None:
        raise NothingToDo(UNKNOWN_CUSTOMER)
    return profile


def export_customer(shop: Shop, customer_id: str) -> dict[str, Any]:
    """Everything the shop holds about one customer, to hand to that customer. Raises NothingToDo for an unknown id."""
    from features.store import feature_store
    from serving.privacy import data_export

    customer_data = data_export.export_customer(
        shop, feature_store.open_store(shop.home / "features", shop.online_store), customer_id
    )
    if customer_data is None:
        raise NothingToDo(UNKNOWN_CUSTOMER)
    return customer_data


def erase_customer(shop: Shop, customer_id: str) -> dict[str, Any]:
    """Erase one customer from the database, the feature store and every derived file; sales stay, without a name.

    Raises NothingToDo for an unknown id.
    """
    erased = _erase_customers(shop, [customer_id])
    if not erased:
        raise NothingToDo(UNKNOWN_CUSTOMER)
    return asdict(erased[0])


def _erase_customers(shop: Shop, customer_ids: Sequence[str]) -> list[customer_erasure.ErasureResult]:
    """Erase those of these customers that exist; their features are deleted for all of them at once."""
    from features.store import feature_store
    from serving.privacy import erasure as derived_erasure

    erased = [result for name in customer_ids if (result := customer_erasure.erase_customer(shop, name))]
    if erased:
        derived_erasure.erase_derived_data(shop, feature_store.open_store(shop.home / "features", shop.online_store))
    return erased


def save_tombstones(shop: Shop, out: Path) -> int:
    """Write the tombstones of all erased customers to a file, one a line; their number.

    The file names nobody. With a backup that is older, `follow_tombstones` erases again who was erased since. Raises
    NothingToDo where the file cannot be written.
    """
    lines = [f"{digest.hex()} {erased_at}\n" for digest, erased_at in tombstones.load_tombstones(shop).items()]
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        partial.write_text("".join(lines), encoding="ascii")
        partial.replace(out)
    except OSError as error:
        raise NothingToDo(f"cannot write {out}: {error.strerror}") from None
    return len(lines)


def follow_tombstones(shop: Shop, path: Path) -> dict[str, int]:
    """Erase every customer who has a tombstone in the file, and remember the tombstones; how many of each.

    For a restored backup: it holds again who was erased after it was made. Raises NothingToDo for a file that
    `save_tombstones` has not written.
    """
    try:
        pairs = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        erased_at_by_digest = {bytes.fromhex(digest): int(erased_at) for digest, erased_at in pairs}
    except (OSError, ValueError):
        raise NothingToDo(f"cannot read {path}; give a file that regulars tombstones save has written") from None
    restored = tombstones.customers_with_tombstones(shop, erased_at_by_digest.keys())
    _erase_customers(shop, restored)
    return {"erased": len(restored), "added": tombstones.restore_tombstones(shop, erased_at_by_digest)}


def check_home(shop: Shop) -> dict[str, Any]:
    """Check the home: what is there, what is missing, and what to do about it; nothing is changed."""
    last_sold_at, last_run_as_of = transactions.last_sold_at(shop), watermark.read_watermark(shop)
    champions = Champions(shop.home / "champions")
    checks = [
        _check_result("home", True, str(shop.home)),
        _check_result(
            "sales",
            last_sold_at is not None,
            f"the last one {last_sold_at}" if last_sold_at else "none; run: regulars load transactions FILE",
        ),
        _check_result(
            "night",
            last_run_as_of is not None,
            f"the last one as of {last_run_as_of}" if last_run_as_of else "none yet; run: regulars run",
        ),
    ]
    for task in all_tasks.TASKS:
        champion = champions.get(task.name)
        missing = champions.errors.get(task.name, "no champion yet; run: regulars run")
        checks.append(
            _check_result(task.name, champion is not None, f"version {champion.version}" if champion else missing)
        )
    return {"checks": checks, "ok": all(check["ok"] for check in checks)}


def open_mlflow(shop: Shop, port: int) -> None:
    """Run the MLflow UI of this home until Ctrl-C."""
    uri = promotion.registry_uri(shop)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port)]
    subprocess.run(command, check=False)


def _ranked_products(shop: Shop, score: score_store.StoredScore | None, n: int) -> list[dict[str, Any]]:
    ranked = list(islice(score_details.decode_recommender(score.detail).iter_products("any"), n)) if score else []
    keys = [product.product_key for product in ranked]
    ids, names = products.find_ids(shop, keys), products.load_display_names(shop, keys)
    key = score.customer_key if score else 0
    reason_texts = recommendation_reasons.product_reasons(
        shop, [(key, product.source, product.evidence) for product in ranked]
    )
    return [
        {
            "rank": product.rank,
            "product_id": ids[product.product_key],
            "name": names.get(product.product_key) or "",
            "score": product.score,
            "source": product.source,
            "reason": reason,
        }
        for product, reason in zip(ranked, reason_texts, strict=True)
    ]


def _check_result(subject: str, is_ok: bool, detail: str) -> dict[str, Any]:
    return {"what": subject, "ok": is_ok, "found": detail}


def _json_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table for JSON: a missing value is None."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]
