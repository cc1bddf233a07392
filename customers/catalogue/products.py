"""Reads product master data: keys, ids, names, categories, stock and sensitivity."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from customers.database import engine, ids
from customers.database.schema import products
from customers.database.schema import transactions as lines
from customers.shop.settings import Shop

TEXT_COLUMNS = ("name", "category", "subcategory", "department", "brand")
BATCH_SIZE = 5_000


def find_keys(shop: Shop, product_ids: Sequence[str]) -> dict[str, int]:
    """The key of each product id, written `id` or `source:id`; ids without a product are left out."""
    with engine.read_transaction(shop) as connection:
        return ids.find_keys(connection, products, product_ids, "product")


def find_ids(shop: Shop, product_keys: Iterable[int]) -> dict[int, str]:
    """The id of each product key; `source:id` where two sources use the same id."""
    with engine.read_transaction(shop) as connection:
        return ids.find_ids(connection, products, product_keys, "product")


def load_display_names(shop: Shop, product_keys: Iterable[int]) -> dict[int, str]:
    """The display name of each product: its name, else its subcategory or category, else its id."""
    wanted_keys = {int(key) for key in product_keys}
    display_name = sa.func.coalesce(products.c.name, products.c.subcategory, products.c.category, products.c.product_id)
    display_names: dict[int, str] = {}
    with engine.read_transaction(shop) as connection:
        for chunk in engine.chunks(sorted(wanted_keys), 5_000):
            query = sa.select(products.c.product_key, display_name).where(products.c.product_key.in_(chunk))
            display_names.update(connection.execute(query).tuples().all())
    return display_names


def load_categories(shop: Shop, product_keys: Iterable[int]) -> dict[int, tuple[str | None, str | None]]:
    """The (subcategory, category) of each product; None where the catalogue has none."""
    categories: dict[int, tuple[str | None, str | None]] = {}
    columns = (products.c.product_key, products.c.subcategory, products.c.category)
    with engine.read_transaction(shop) as connection:
        for chunk in engine.chunks(sorted({int(key) for key in product_keys}), 5_000):
            rows = connection.execute(sa.select(*columns).where(products.c.product_key.in_(chunk))).tuples()
            categories.update((key, (subcategory, category)) for key, subcategory, category in rows)
    return categories


def read_sold_out(connection: sa.Connection) -> set[int]:
    """Keys of the products whose stock is counted and zero or less."""
    return set(connection.execute(sa.select(products.c.product_key).where(products.c.stock <= 0)).scalars())


def read_never_sold_stubs(connection: sa.Connection) -> set[int]:
    """Keys of products that exist only because an offer names them: not in the catalogue, and never sold."""
    stub_keys = sa.select(products.c.product_key).where(products.c.stub)
    stubs = set(connection.execute(stub_keys).scalars())
    sold = sa.select(lines.c.product_key).where(lines.c.product_key.in_(stub_keys)).distinct()
    return stubs - set(connection.execute(sold).scalars()) if stubs else set()


@dataclass(frozen=True, slots=True)
class ProductClassifications:
    """The categories and brand of every product, in one order; equal texts are one object, None where there is none."""

    product_keys: list[int]
    categories: list[str | None]
    subcategories: list[str | None]
    brands: list[str | None]


def read_classifications(connection: sa.Connection) -> ProductClassifications:
    """The categories and brand of every product of the catalogue."""
    read = ProductClassifications([], [], [], [])
    texts: dict[str | None, str | None] = {}
    query = sa.select(products.c.product_key, products.c.category, products.c.subcategory, products.c.brand)
    for rows in engine.fetch_batches(connection, query, BATCH_SIZE):
        keys, *named = zip(*rows, strict=True)
        read.product_keys.extend(keys)
        for column, values in zip((read.categories, read.subcategories, read.brands), named, strict=True):
            column.extend(texts.setdefault(text, text) for text in values)
    return read


def load_sensitive(shop: Shop) -> tuple[set[int], set[str]]:
    """The keys of sensitive products, and the categories in which all products are sensitive."""
    with engine.read_transaction(shop) as connection:
        return read_sensitive(connection)


def read_sensitive(connection: sa.Connection) -> tuple[set[int], set[str]]:
    """As `load_sensitive`, in a transaction of the caller."""
    sensitive_keys = sa.select(products.c.product_key).where(products.c.sensitive)
    other_categories = sa.select(products.c.category).where(~products.c.sensitive, products.c.category.is_not(None))
    sensitive_categories = sa.select(products.c.category).where(
        products.c.sensitive, products.c.category.not_in(other_categories)
    )
    keys = set(connection.execute(sensitive_keys).scalars())
    return keys, set(connection.execute(sensitive_categories.distinct()).scalars()) if keys else set()
