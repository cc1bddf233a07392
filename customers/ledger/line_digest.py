"""The content digest of an order line: lines with equal values have equal digests."""

import hashlib
from collections.abc import Collection, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# The values in the digest: a line whose digest is another one has changed.
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
# `concat` skips nulls, and no value is an empty text, so two different lines never give the same text.
_content_expression = ", chr(31), ".join(CONTENT_COLUMNS).replace("quantity", "(quantity * 1000000)::bigint")
CONTENT_DIGEST = f"(md5_number_lower(concat({_content_expression})) >> 1)::bigint"


def order_keys(source: str, order_ids: Sequence[str]) -> np.ndarray:
    """The key of each order of a source, shape (n,), int64: the lower half of the MD5 digest of both texts."""
    digests = b"".join(hashlib.md5(f"{source}\x1f{order_id}".encode()).digest() for order_id in order_ids)
    return (np.frombuffer(digests, "<u8")[1::2] >> np.uint64(1)).astype(np.int64)


def anonymise_lines(lines: pa.Table, erased_keys: Collection[int]) -> pa.Table:
    """The lines with those of erased customers made anonymous: customer_key is null, content is the digest without id.

    A table with a row per line and at least the column customer_key and those of CONTENT_COLUMNS except customer_id;
    returns the same columns.
    """
    is_erased = pc.is_in(lines.column("customer_key"), pa.array(erased_keys, pa.int64()))
    if not erased_keys or not pc.any(is_erased).as_py():
        return lines
    with duckdb.connect() as connection:
        connection.register("lines", lines.append_column("is_erased", is_erased))
        return connection.sql(
            f"""select * exclude (is_erased, customer_id)
                       replace (case when not is_erased then customer_key end as customer_key,
                                case when is_erased then {CONTENT_DIGEST} else content end as content)
                from (select *, null::varchar as customer_id from lines)"""
        ).to_arrow_table()
