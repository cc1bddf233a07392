"""Removes erased customers from the rows of a load, so that loading old files does not bring them back."""

import pyarrow as pa

from customers.database import engine
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
from customers.privacy import tombstones
from customers.shop.settings import Shop

ERASED_REASON = "this customer was erased"


def remove_erased(shop: Shop, source: str, kind: RecordKind, records: Records) -> None:
    """Remove the ids of erased customers from the table `checked`.

    Where the record kind requires a customer the row is rejected, else it is loaded without one. The rows are in table
    `erased_COLUMN`, so that no rejects file repeats the ids of `raw`.
    """
    for column in ("customer_id", "referred_by"):
        if column in kind.columns:
            id_table = records.connection.sql(f"select distinct {column} from checked where {column} is not null")
            erased_texts = _find_erased(
                shop, source, id_table.to_arrow_table().column(0).to_pylist(), column == "referred_by"
            )
            if erased_texts:
                _blank_or_reject(records, erased_texts, column, column in kind.required)


def _find_erased(shop: Shop, source: str, ids: list[str], also_prefixed: bool) -> set[str]:
    """The ids among these that belong to erased customers; with `also_prefixed` also those written source:id."""
    by_source: dict[str, dict[str, str]] = {source: {text: text for text in ids}}
    for text in ids if also_prefixed else ():
        other, colon, bare_id = text.partition(":")
        if colon:
            by_source.setdefault(other, {})[bare_id] = text
    with engine.read_transaction(shop) as connection:
        matches = [(texts, tombstones.erased_ids(connection, shop, name, texts)) for name, texts in by_source.items()]
    return {texts[bare_id] for texts, matched_ids in matches for bare_id in matched_ids}


def _blank_or_reject(records: Records, erased_texts: set[str], column: str, required: bool) -> None:
    records.connection.register("erased_ids", pa.table({"id": pa.array(sorted(erased_texts), pa.string())}))
    is_erased = f"(file_no, row_no) in (select (file_no, row_no) from erased_{column})"
    records.connection.execute(
        f"""create temp table erased_{column} as
              select file_no, row_no from checked where {column} in (select id from erased_ids);
            update checked set {f"reason = '{ERASED_REASON}'" if required else f"{column} = null"} where {is_erased};"""
    )
    records.erased_columns.append(column)
    records.connection.unregister("erased_ids")
