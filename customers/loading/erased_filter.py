"""Leaves out rows of erased customers while a load runs."""

import pyarrow as pa

from customers.database import engine
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
from customers.privacy import tombstones
from customers.shop.settings import Shop

ERASED_REASON = "this customer was erased"


def remove_erased(shop: Shop, source: str, kind: RecordKind, records: Records) -> None:
    """Rid the table `checked` of the erased: a record that can do without a customer loses it, others are turned away.

    The raw texts lose the ids too, so that no rejects file repeats them.
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
    """Those of these ids that are of the erased; who is spoken of by others may be written source:id."""
    by_source: dict[str, dict[str, str]] = {source: {text: text for text in ids}}
    for text in ids if also_prefixed else ():
        other, colon, bare_id = text.partition(":")
        if colon:
            by_source.setdefault(other, {})[bare_id] = text
    with engine.read_transaction(shop) as connection:
        matches = [(texts, tombstones.erased_ids(connection, shop, name, texts)) for name, texts in by_source.items()]
    return {texts[bare_id] for texts, matched_ids in matches for bare_id in matched_ids}


def _blank_or_reject(records: Records, erased_texts: set[str], column: str, required: bool) -> None:
    records.connection.register("gone", pa.table({"id": pa.array(sorted(erased_texts), pa.string())}))
    is_erased = "(file_no, row_no) in (select (file_no, row_no) from of_the_gone)"
    records.connection.execute(
        f"""create or replace temp table of_the_gone as
              select file_no, row_no from checked where {column} in (select id from gone);
            update raw set {column} = null where {is_erased};
            update checked set {f"reason = '{ERASED_REASON}'" if required else f"{column} = null"} where {is_erased};"""
    )
    records.connection.unregister("gone")
