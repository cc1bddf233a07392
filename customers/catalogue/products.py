"""Catalogue: what the shop sells, and a stub for what was sold without being in it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import sqlalchemy as sa

from customers import checks, database, freshness, ids, transactions
from customers.checks import Check
from customers.instants import micros
from customers.kinds import Counts, Kind, Writer
from customers.schema import products
from customers.schema import transactions as lines
from customers.shop import Shop
from customers.sources.files import Records, quoted

WORDS = ("name", "category", "subcategory", "department", "brand")
COLUMNS = ("product_id", *WORDS, "price", "cost", "currency", "repurchase", "stock", "sensitive")
# What a product says, as it is kept; `price` and `cost` in minor units.
KEPT = (*WORDS, "price_minor", "cost_minor", "currency", "repurchase", "stock", "sensitive", "attributes")
SLICE = 20_000
MIRROR_MARK = "products"


def keys_of(shop: Shop, product_ids: Sequence[str]) -> dict[str, int]:
    """The key of each product id that is known: `id`, or `source:id`."""
    with database.reading(shop) as connection:
        return ids.keys(connection, products, product_ids, "product")


def ids_of(shop: Shop, product_keys: Iterable[int]) -> dict[int, str]:
    """The id of each product key; `source:id` where two sources use the same id."""
    with database.reading(shop) as connection:
        return ids.names(connection, products, product_keys, "product")


def names_of(shop: Shop, product_keys: Iterable[int]) -> dict[int, str]:
    """What to call each product on a page: its name, else its subcategory or category, else its id."""
    wanted = {int(key) for key in product_keys}
    called = sa.func.coalesce(products.c.name, products.c.subcategory, products.c.category, products.c.product_id)
    found: dict[int, str] = {}
    with database.reading(shop) as connection:
        for chunk in database.chunks(sorted(wanted), 5_000):
            query = sa.select(products.c.product_key, called).where(products.c.product_key.in_(chunk))
            found.update(connection.execute(query).tuples().all())
    return found


def kinds_of(shop: Shop, product_keys: Iterable[int]) -> dict[int, tuple[str | None, str | None]]:
    """The subcategory and the category of each product, as far as the catalogue says."""
    found: dict[int, tuple[str | None, str | None]] = {}
    columns = (products.c.product_key, products.c.subcategory, products.c.category)
    with database.reading(shop) as connection:
        for chunk in database.chunks(sorted({int(key) for key in product_keys}), 5_000):
            rows = connection.execute(sa.select(*columns).where(products.c.product_key.in_(chunk))).tuples()
            found.update((key, (fine, broad)) for key, fine, broad in rows)
    return found


def sold_out(shop: Shop) -> set[int]:
    """The products whose stock is counted and gone."""
    with database.reading(shop) as connection:
        return set(connection.execute(sa.select(products.c.product_key).where(products.c.stock <= 0)).scalars())


def unsold(shop: Shop) -> set[int]:
    """Products known by name alone, from an offer for them: the catalogue has none of them, and nobody bought any."""
    named = sa.select(products.c.product_key).where(products.c.stub)
    with database.reading(shop) as connection:
        stubs = set(connection.execute(named).scalars())
        bought = sa.select(lines.c.product_key).where(lines.c.product_key.in_(named)).distinct()
        return stubs - set(connection.execute(bought).scalars()) if stubs else set()


def words(shop: Shop) -> list[tuple[int, str | None, str | None, str | None]]:
    """The product key, category, subcategory and brand of every product."""
    said = sa.select(*(products.c[name] for name in ("product_key", "category", "subcategory", "brand")))
    with database.reading(shop) as connection:
        return [tuple(row) for row in connection.execute(said).tuples()]


def sensitive(shop: Shop) -> tuple[set[int], set[str]]:
    """The sensitive products, and the categories that hold no others."""
    marked = sa.select(products.c.product_key).where(products.c.sensitive)
    others = sa.select(products.c.category).where(~products.c.sensitive, products.c.category.is_not(None))
    whole = sa.select(products.c.category).where(products.c.sensitive, products.c.category.not_in(others))
    with database.reading(shop) as connection:
        keys = set(connection.execute(marked).scalars())
        return keys, set(connection.execute(whole.distinct()).scalars()) if keys else set()


def stub(write: Writer, source: str, product_ids: Sequence[str]) -> tuple[dict[str, int], int]:
    """The key of each of these ids of a source, and how many were unknown and got a stub."""
    with write() as connection:
        known = _known(connection, source, product_ids)
        unknown = [product_id for product_id in product_ids if product_id not in known]
        keys = _next_keys(connection, unknown)
        changed_at = micros(datetime.now(UTC))
        columns = ["product_key", "product_id", "source", "repurchase", "sensitive", "stub", "content", "changed_at"]
        rows = ((key, name, source, "always", False, True, 0, changed_at) for name, key in keys.items())
        database.insert_many(connection, products, columns, rows)
        if keys:
            transactions.mark(connection, {MIRROR_MARK})
    return known | keys, len(keys)


def _known(connection: sa.Connection, source: str, product_ids: Sequence[str]) -> dict[str, int]:
    query = sa.select(products.c.product_id, products.c.product_key).where(products.c.source == source)
    if len(product_ids) > ids.MANY:
        return dict(connection.execute(query).tuples().all())
    found: dict[str, int] = {}
    for chunk in database.chunks(product_ids, 5_000):
        found.update(connection.execute(query.where(products.c.product_id.in_(chunk))).tuples().all())
    return found


def _next_keys(connection: sa.Connection, product_ids: Sequence[str]) -> dict[str, int]:
    last = connection.execute(sa.select(sa.func.max(products.c.product_key))).scalar() or 0
    return {product_id: key for key, product_id in enumerate(product_ids, last + 1)}


def _checks(shop: Shop) -> list[Check]:
    wanted = "regexp_full_match(lower(repurchase), 'never|always|after_days:[0-9]+')"
    reason = "repurchase is none of never, after_days:N, always"
    repurchase = Check("repurchase", "coalesce(lower(repurchase), 'always')", ((f"not {wanted}", reason),))
    return [
        checks.identifier("product_id"),
        *(checks.words(name) for name in WORDS),
        checks.currency(shop.currency),
        checks.amount("price", negative=False),
        checks.amount("cost", negative=False),
        repurchase,
        checks.number("stock"),
        checks.flag("sensitive"),
    ]


def _keep(shop: Shop, source: str, records: Records, write: Writer) -> Counts:
    """A column that the file does not have stays what it was."""
    with write() as connection:
        said = records.connection.sql("select distinct product_id from checked where reason is null").to_arrow_table()
        records.connection.register("before", _before(connection, source, said.column(0).to_pylist()))
    _merge(records)
    counts = Counts()
    reader = records.connection.sql("select * from merged where changed order by product_id").to_arrow_reader(SLICE)
    for batch in reader:
        with write() as connection:
            rows = batch.to_pylist()
            counts += _write(connection, source, rows)
            transactions.mark(connection, {MIRROR_MARK})
            if records.touched is not None:
                buyers = _buyers(connection, source, [row["product_id"] for row in rows if row["guarded_anew"]])
                freshness.fall_behind(connection, buyers)
                records.touched |= buyers
    return counts + Counts(unchanged=records.count("merged", "not changed"))


def _buyers(connection: sa.Connection, source: str, product_ids: list[str]) -> set[int]:
    """Who ever bought these products: what may be computed of them is no longer what it was."""
    found: set[int] = set()
    for chunk in database.chunks(product_ids, 5_000):
        named = sa.select(products.c.product_key).where(products.c.source == source, products.c.product_id.in_(chunk))
        query = sa.select(lines.c.customer_key).where(lines.c.product_key.in_(named)).distinct()
        found.update(connection.execute(query.where(lines.c.customer_key.is_not(None))).scalars())
    return found


def _before(connection: sa.Connection, source: str, product_ids: Sequence[str]) -> pa.Table:
    """These products, or more, as they are kept now."""
    names = ["product_id", *KEPT, "content", "stub"]
    query = sa.select(*(products.c[name] for name in names)).where(products.c.source == source)
    few = len(product_ids) <= ids.MANY
    chunks = database.chunks(product_ids, 5_000) if few else [None]
    found = (query if chunk is None else query.where(products.c.product_id.in_(chunk)) for chunk in chunks)
    rows = [row for each in found for row in connection.execute(each).tuples()]
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    kinds = {"content": pa.int64(), "stub": pa.bool_(), "sensitive": pa.bool_(), "stock": pa.float64()}
    kinds |= {"price_minor": pa.int64(), "cost_minor": pa.int64()}
    arrays = [pa.array(column, kinds.get(name, pa.string())) for name, column in zip(names, columns, strict=True)]
    return pa.table(arrays, names=names)


def _merge(records: Records) -> None:
    extra = [name for name in records.columns if name not in COLUMNS]
    packed = ", ".join(f"{quoted(name)} := {checks.text(name)}" for name in extra)
    # A merge patch drops what is null, and keeps the attributes that this file does not speak of.
    said = f"json_merge_patch('{{}}', to_json(struct_pack({packed})))" if extra else "'{}'"
    fields = ", ".join(_field(name, records.columns) for name in KEPT if name != "attributes")
    digest = f"concat({', chr(31), '.join(KEPT)})"
    records.connection.execute(
        f"""
        create temp table merged as
        select *, not known or stub_before or content <> content_before as changed,
               known and sensitive <> sensitive_before as guarded_anew
        from (
          select *, (md5_number_lower({digest}) >> 1)::bigint as content from (
            select c.product_id, {fields},
                   nullif(json_merge_patch(coalesce(b.attributes, '{{}}'), {said})::varchar, '{{}}') as attributes,
                   b.product_id is not null as known, b.content as content_before, b.stub as stub_before,
                   b.sensitive as sensitive_before
            from checked c
            join (select * exclude ({", ".join(quoted(name) for name in COLUMNS)}) from raw) raw
              using (file_no, row_no)
            left join before b on b.product_id = c.product_id
            where c.reason is null and not c.again))
        """
    )


def _field(name: str, present: Sequence[str]) -> str:
    """The file's value where it has the column; else what was kept before, or the default."""
    has = name.removesuffix("_minor") in present
    if name == "currency":  # an amount brings its currency with it
        has = has or "price" in present or "cost" in present
    return f"c.{name}" if has else f"case when b.product_id is null then c.{name} else b.{name} end as {name}"


def _write(connection: sa.Connection, source: str, rows: list[dict]) -> Counts:
    changed_at = micros(datetime.now(UTC))
    new = [row for row in rows if not row["known"]]
    keys = _next_keys(connection, [row["product_id"] for row in new])
    columns = ["product_key", "product_id", "source", *KEPT, "stub", "content", "changed_at"]
    database.insert_many(
        connection,
        products,
        columns,
        (
            (keys[row["product_id"]], row["product_id"], source, *_kept(row), False, row["content"], changed_at)
            for row in new
        ),
    )
    known = [row for row in rows if row["known"]]
    if known:
        change = products.update().where(products.c.source == source, products.c.product_id == sa.bindparam("this_id"))
        values = [
            dict(zip(KEPT, _kept(row), strict=True))
            | {"this_id": row["product_id"], "stub": False, "content": row["content"], "changed_at": changed_at}
            for row in known
        ]
        connection.execute(change, values)
    return Counts(inserted=len(new), updated=len(known))


def _kept(row: dict) -> tuple:
    return tuple(row[name] for name in KEPT)


KIND = Kind(
    name="products",
    required=("product_id",),
    columns=COLUMNS,
    key=("product_id",),
    shown=COLUMNS,
    checks=_checks,
    keep=_keep,
    partial=True,
)
