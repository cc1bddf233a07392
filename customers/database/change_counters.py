"""One counter for each month of sales and each table, raised by every write: what copies and caches compare."""

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import ledger_months
from customers.shop.settings import Shop

PRODUCTS_COUNTER = "products"


# What everybody allows is a row a customer in the mirror: a new customer makes it stale, like a new consent.
CONSENTS_COUNTER = "consents"


INTERACTIONS_COUNTER = "interactions"


def count_changes(shop: Shop) -> int:
    """A number that rises whenever anything changes that the mirror or the book of offers shows."""
    with engine.read_transaction(shop) as connection:
        return int(connection.execute(sa.select(sa.func.sum(ledger_months.c.changed_no))).scalar() or 0)


OFFERS_COUNTER = "offers"


def catalogue_version(shop: Shop) -> tuple[int, int]:
    """Two numbers of which one rises whenever an offer or a product changes: a book of the same edition is the same."""
    query = sa.select(ledger_months.c.month, ledger_months.c.changed_no)
    with engine.read_transaction(shop) as connection:
        counters = dict(
            connection.execute(query.where(ledger_months.c.month.in_([OFFERS_COUNTER, PRODUCTS_COUNTER])))
            .tuples()
            .all()
        )
    return counters.get(OFFERS_COUNTER, 0), counters.get(PRODUCTS_COUNTER, 0)


INCREMENT = sa.text(
    """insert into ledger_months (month, changed_no, mirrored_no) values (:month, 1, 0)
       on conflict (month) do update set changed_no = ledger_months.changed_no + 1"""
)


def increment_counters(connection: sa.Connection, names: set[str]) -> None:
    """Note in the writer's own transaction which months of the mirror are no longer true."""
    if names:
        connection.execute(INCREMENT, [{"month": name} for name in sorted(names)])


def month_counters(shop: Shop) -> dict[str, int]:
    """The UTC months of the ledger, each with a number that rises whenever one of its lines changes."""
    query = sa.select(ledger_months.c.month, ledger_months.c.changed_no).where(ledger_months.c.month.like("____-__"))
    with engine.read_transaction(shop) as connection:
        return dict(connection.execute(query).tuples().all())
