"""A counter for each month of sales and for some tables, raised by every write; copies and caches compare them."""

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import ledger_months
from customers.shop.settings import Shop

PRODUCTS_COUNTER = "products"
# The Parquet copy of consents has one row per customer, so a new customer makes it stale too.
CONSENTS_COUNTER = "consents"
INTERACTIONS_COUNTER = "interactions"
OFFERS_COUNTER = "offers"
# Sales and interactions that were loaded from files: their customers are not queued for new scores.
LOADS_COUNTER = "loads"


def count_changes(shop: Shop) -> int:
    """The sum of all counters: it rises whenever sales, products, offers, interactions or consents change."""
    with engine.read_transaction(shop) as connection:
        return int(connection.execute(sa.select(sa.func.sum(ledger_months.c.changed_no))).scalar() or 0)


def count_loads(shop: Shop) -> int:
    """The counter of loads from files, which is raised with each batch that changes sales or interactions."""
    with engine.read_transaction(shop) as connection:
        return read_counters(connection).get(LOADS_COUNTER, 0)


def catalogue_version(shop: Shop) -> tuple[int, int]:
    """The counters of offers and of products; equal pairs mean that no offer and no product has changed."""
    with engine.read_transaction(shop) as connection:
        return read_catalogue_version(connection)


def read_catalogue_version(connection: sa.Connection) -> tuple[int, int]:
    """As `catalogue_version`, in a transaction of the caller."""
    query = sa.select(ledger_months.c.month, ledger_months.c.changed_no)
    query = query.where(ledger_months.c.month.in_([OFFERS_COUNTER, PRODUCTS_COUNTER]))
    counters = dict(connection.execute(query).tuples().all())
    return counters.get(OFFERS_COUNTER, 0), counters.get(PRODUCTS_COUNTER, 0)


INCREMENT = sa.text(
    """insert into ledger_months (month, changed_no) values (:month, 1)
       on conflict (month) do update set changed_no = ledger_months.changed_no + 1"""
)


def increment_counters(connection: sa.Connection, names: set[str]) -> None:
    """Raise the counters of these months and tables, in the transaction of the write that changes them."""
    if names:
        connection.execute(INCREMENT, [{"month": name} for name in sorted(names)])


def read_counters(connection: sa.Connection) -> dict[str, int]:
    """The counters of all months and tables by name."""
    return dict(connection.execute(sa.select(ledger_months.c.month, ledger_months.c.changed_no)).tuples().all())


def read_month_counters(connection: sa.Connection) -> dict[str, int]:
    """The UTC months of the ledger ("2017-11") with their counters, raised whenever a line of the month changes."""
    query = sa.select(ledger_months.c.month, ledger_months.c.changed_no).where(ledger_months.c.month.like("____-__"))
    return dict(connection.execute(query).tuples().all())
