"""The content digest of an order line: equal digests are equal lines."""

from collections.abc import Collection

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

# All that a line says; a digest of it tells whether the line has changed.
CONTENT_COLUMNS = (
    "product_id",
    "customer_id",
    "sold_at",
    "quantity",
    "amount_minor",
    "discount_minor",
    "currency",
    "kind",
    "store_id",
    "channel",
    "coupon_id",
    "campaign_id",
)
# `concat` takes null for nothing, and no value is an empty text, so no two lines are written alike.
_content_expression = ", chr(31), ".join(CONTENT_COLUMNS).replace("quantity", "(quantity * 1000000)::bigint")
CONTENT_DIGEST = f"(md5_number_lower(concat({_content_expression})) >> 1)::bigint"


def anonymise_lines(lines: pa.Table, erased_keys: Collection[int]) -> pa.Table:
    """The same lines, those of these customers as nobody's: as a load would keep them that names no customer."""
    is_erased = pc.is_in(lines.column("customer_key"), pa.array(erased_keys, pa.int64()))
    if not erased_keys or not pc.any(is_erased).as_py():
        return lines
    with duckdb.connect() as connection:
        connection.register("lines", lines.append_column("theirs", is_erased))
        return connection.sql(
            f"""select * exclude (theirs, customer_id)
                       replace (case when not theirs then customer_key end as customer_key,
                                case when theirs then {CONTENT_DIGEST} else content end as content)
                from (select *, null::varchar as customer_id from lines)"""
        ).to_arrow_table()
