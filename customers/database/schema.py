"""All tables of the customer database.

Times are microseconds since 1970 in UTC and money is in whole minor units, both BIGINT. Personal fields are only in
`personal`, encrypted; the encryption key of each person, itself encrypted, is in `person_keys`.
"""

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, Text

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = sa.MetaData(naming_convention=NAMING_CONVENTION)

# SQLite stores rows by the key itself (rowid) only where the type is called INTEGER.
Key = BigInteger().with_variant(Integer(), "sqlite")


def _customer_key_column() -> Column:
    owner = ForeignKey("customers.customer_key")
    return Column("customer_key", Key, owner, primary_key=True, autoincrement=False)


customers = sa.Table(
    "customers",
    metadata,
    Column("customer_key", Key, primary_key=True, autoincrement=False),
    Column("stage", Text, nullable=False),
    Column("joined_at", BigInteger),
    Column("referred_by", Text),
    Column("made_at", BigInteger, nullable=False),
)

identities = sa.Table(
    "identities",
    metadata,
    Column("customer_id", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("customer_key", Key, ForeignKey("customers.customer_key"), nullable=False, index=True),
)

person_keys = sa.Table(
    "person_keys",
    metadata,
    _customer_key_column(),
    Column("wrapped", LargeBinary, nullable=False),
    Column("wrapped_by", Text, nullable=False),
)

personal = sa.Table(
    "personal",
    metadata,
    _customer_key_column(),
    Column("sealed", LargeBinary, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

lookups = sa.Table(
    "lookups",
    metadata,
    Column("token", LargeBinary, primary_key=True),
    Column("customer_key", Key, ForeignKey("customers.customer_key"), primary_key=True, index=True),
    Column("kind", Text, nullable=False),
)

attributes = sa.Table(
    "attributes",
    metadata,
    _customer_key_column(),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

products = sa.Table(
    "products",
    metadata,
    Column("product_key", Key, primary_key=True, autoincrement=False),
    Column("product_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("name", Text),
    Column("category", Text),
    Column("subcategory", Text),
    Column("department", Text),
    Column("brand", Text),
    Column("price_minor", BigInteger),
    Column("cost_minor", BigInteger),
    Column("currency", Text),
    Column("repurchase", Text, nullable=False),
    Column("stock", Float(53)),
    Column("sensitive", Boolean, nullable=False),
    Column("attributes", Text),
    Column("stub", Boolean, nullable=False),
    Column("content", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    sa.UniqueConstraint("product_id", "source"),
)


def _line_columns() -> list[Column]:
    """The columns of one order line; `content` is a digest of its values."""
    return [
        Column("order_key", BigInteger, nullable=False),
        Column("customer_key", BigInteger),
        Column("product_key", BigInteger, nullable=False),
        Column("sold_at", BigInteger, nullable=False),
        Column("quantity", Float(53), nullable=False),
        Column("amount_minor", BigInteger, nullable=False),
        Column("discount_minor", BigInteger),
        Column("currency", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("store_id", Text),
        Column("channel", Text),
        Column("coupon_id", Text),
        Column("campaign_id", Text),
        Column("numbered", Boolean, nullable=False),
        Column("content", BigInteger, nullable=False),
        Column("known_at", BigInteger, nullable=False),
    ]


transactions = sa.Table(
    "transactions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("order_id", Text, primary_key=True),
    Column("line_id", Text, primary_key=True),
    *_line_columns(),
    Index(None, "sold_at"),
    Index(None, "customer_key"),
)

transactions_history = sa.Table(
    "transactions_history",
    metadata,
    Column("version_id", Key, primary_key=True),
    Column("source", Text, nullable=False),
    Column("order_id", Text, nullable=False),
    Column("line_id", Text, nullable=False),
    *_line_columns(),
    Column("superseded_at", BigInteger, nullable=False),
    Index(None, "order_id", "line_id"),
    Index(None, "sold_at"),
    Index(None, "customer_key"),
)

ledger_months = sa.Table(
    "ledger_months",
    metadata,
    Column("month", Text, primary_key=True),
    Column("changed_no", BigInteger, nullable=False),
)

score_runs = sa.Table(
    "score_runs",
    metadata,
    Column("run_id", Key, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("as_of", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    sa.UniqueConstraint("model", "version", "as_of"),
)

# Without foreign keys, which took more than half of a night's write-back on PostgreSQL: a writer reads the run and the
# customers in the transaction in which it writes, and an erasure waits for writers.
scores = sa.Table(
    "scores",
    metadata,
    Column("run_id", Key, primary_key=True),
    Column("customer_key", Key, primary_key=True),
    Column("value", Float(53)),
    Column("detail", Text, nullable=False),
    Column("told_at", BigInteger, nullable=False),
    Index(None, "customer_key"),
    sqlite_with_rowid=False,
)

promotions = sa.Table(
    "promotions",
    metadata,
    Column("promotion_id", Key, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("previous", Text),
    Column("action", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index(None, "name"),
)

nights = sa.Table(
    "nights",
    metadata,
    Column("night_id", Key, primary_key=True),
    Column("as_of", BigInteger, nullable=False, index=True),
    Column("began_at", BigInteger, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    Column("prefix", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
)

offers = sa.Table(
    "offers",
    metadata,
    Column("offer_key", Key, primary_key=True, autoincrement=False),
    Column("offer_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("campaign_id", Text),
    Column("name", Text),
    Column("kind", Text),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("value", Float(53)),
    Column("value_kind", Text),
    Column("min_spend_minor", BigInteger),
    Column("budget_minor", BigInteger),
    Column("currency", Text, nullable=False),
    Column("channels", Text),
    Column("segment", Text),
    Column("audience", Text, nullable=False),
    Column("content", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    sa.UniqueConstraint("offer_id", "source"),
)


def _offer_key_column() -> Column:
    return Column("offer_key", Key, ForeignKey("offers.offer_key"), primary_key=True, autoincrement=False)


offer_products = sa.Table(
    "offer_products",
    metadata,
    _offer_key_column(),
    Column("product_key", Key, ForeignKey("products.product_key"), primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

offer_categories = sa.Table(
    "offer_categories",
    metadata,
    _offer_key_column(),
    Column("category", Text, primary_key=True),
    sqlite_with_rowid=False,
)

# What a customer wrote or said is only in `sealed_text`, encrypted under the customer's own key.
interactions = sa.Table(
    "interactions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("interaction_id", Text, primary_key=True),
    Column("customer_key", Key, ForeignKey("customers.customer_key"), nullable=False, index=True),
    Column("happened_at", BigInteger, nullable=False),
    Column("channel", Text),
    Column("kind", Text, index=True),
    Column("status", Text),
    Column("owner", Text),
    Column("campaign_id", Text),
    Column("offer_id", Text),
    Column("product_id", Text),
    Column("rating", Integer),
    Column("sealed_text", LargeBinary),
    Column("attribution_token", Text),
    Column("attributes", Text),
    Column("known_at", BigInteger, nullable=False),
)

consents = sa.Table(
    "consents",
    metadata,
    Column("consent_id", Key, primary_key=True),
    Column("customer_key", Key, ForeignKey("customers.customer_key"), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("wording", Text),
    Column("known_at", BigInteger, nullable=False),
    # The state is part of the key: of two statements with the same time both are stored, and the stricter one holds.
    sa.UniqueConstraint("customer_key", "purpose", "at", "source", "state"),
)

receipts = sa.Table(
    "receipts",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("route", Text, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("status", Integer),
    Column("answer", Text),
    Column("made_at", BigInteger, nullable=False, index=True),
)

erased = sa.Table(
    "erased",
    metadata,
    Column("token", LargeBinary, primary_key=True),
    Column("erased_at", BigInteger, nullable=False),
)

# No foreign key: the row about an erasure outlives the customer.
erasures = sa.Table(
    "erasures",
    metadata,
    Column("erasure_id", Key, primary_key=True),
    Column("customer_key", BigInteger, nullable=False),
    Column("erased_at", BigInteger, nullable=False),
    Column("forgotten_at", BigInteger),
)

unrefreshed = sa.Table(
    "unrefreshed",
    metadata,
    _customer_key_column(),
    Column("since", BigInteger, nullable=False),
)
