"""The first tables of the shop's memory."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite keeps a row under its key itself only where the type is called INTEGER.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("prefix", name="pk_api_keys"),
    )
    op.create_table(
        "customers",
        sa.Column("customer_key", KEY, autoincrement=False, nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("joined_at", sa.BigInteger(), nullable=True),
        sa.Column("referred_by", sa.Text(), nullable=True),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("customer_key", name="pk_customers"),
    )
    op.create_table(
        "ledger_months",
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("changed_no", sa.BigInteger(), nullable=False),
        sa.Column("mirrored_no", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("month", name="pk_ledger_months"),
    )
    op.create_table(
        "nights",
        sa.Column("night_id", KEY, nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("night_id", name="pk_nights"),
    )
    op.create_index("ix_nights_as_of", "nights", ["as_of"], unique=False)

    op.create_table(
        "products",
        sa.Column("product_key", KEY, autoincrement=False, nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("subcategory", sa.Text(), nullable=True),
        sa.Column("department", sa.Text(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("price_minor", sa.BigInteger(), nullable=True),
        sa.Column("cost_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("repurchase", sa.Text(), nullable=False),
        sa.Column("stock", sa.Float(precision=53), nullable=True),
        sa.Column("sensitive", sa.Boolean(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=True),
        sa.Column("stub", sa.Boolean(), nullable=False),
        sa.Column("content", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("product_key", name="pk_products"),
        sa.UniqueConstraint("product_id", "source", name="uq_products_product_id_source"),
    )
    op.create_table(
        "promotions",
        sa.Column("promotion_id", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("promotion_id", name="pk_promotions"),
    )
    op.create_index("ix_promotions_name", "promotions", ["name"], unique=False)

    op.create_table(
        "score_runs",
        sa.Column("run_id", KEY, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", name="pk_score_runs"),
        sa.UniqueConstraint("model", "version", "as_of", name="uq_score_runs_model_version_as_of"),
    )
    op.create_table(
        "transactions",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("line_id", sa.Text(), nullable=False),
        sa.Column("order_key", sa.BigInteger(), nullable=False),
        sa.Column("customer_key", sa.BigInteger(), nullable=True),
        sa.Column("product_key", sa.BigInteger(), nullable=False),
        sa.Column("sold_at", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Float(precision=53), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("discount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("store_id", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("coupon_id", sa.Text(), nullable=True),
        sa.Column("campaign_id", sa.Text(), nullable=True),
        sa.Column("numbered", sa.Boolean(), nullable=False),
        sa.Column("content", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "order_id", "line_id", name="pk_transactions"),
    )
    op.create_index("ix_transactions_customer_key", "transactions", ["customer_key"], unique=False)
    op.create_index("ix_transactions_sold_at", "transactions", ["sold_at"], unique=False)

    op.create_table(
        "transactions_history",
        sa.Column("version_id", KEY, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("line_id", sa.Text(), nullable=False),
        sa.Column("order_key", sa.BigInteger(), nullable=False),
        sa.Column("customer_key", sa.BigInteger(), nullable=True),
        sa.Column("product_key", sa.BigInteger(), nullable=False),
        sa.Column("sold_at", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Float(precision=53), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("discount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("store_id", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("coupon_id", sa.Text(), nullable=True),
        sa.Column("campaign_id", sa.Text(), nullable=True),
        sa.Column("numbered", sa.Boolean(), nullable=False),
        sa.Column("content", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version_id", name="pk_transactions_history"),
    )
    op.create_index("ix_transactions_history_customer_key", "transactions_history", ["customer_key"], unique=False)
    op.create_index(
        "ix_transactions_history_order_id_line_id", "transactions_history", ["order_id", "line_id"], unique=False
    )
    op.create_index("ix_transactions_history_sold_at", "transactions_history", ["sold_at"], unique=False)

    op.create_table(
        "attributes",
        sa.Column("customer_key", KEY, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_key"], ["customers.customer_key"], name="fk_attributes_customer_key_customers"
        ),
        sa.PrimaryKeyConstraint("customer_key", "name", name="pk_attributes"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "identities",
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("customer_key", KEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_key"], ["customers.customer_key"], name="fk_identities_customer_key_customers"
        ),
        sa.PrimaryKeyConstraint("customer_id", "source", name="pk_identities"),
    )
    op.create_index("ix_identities_customer_key", "identities", ["customer_key"], unique=False)

    op.create_table(
        "lookups",
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("customer_key", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["customer_key"], ["customers.customer_key"], name="fk_lookups_customer_key_customers"),
        sa.PrimaryKeyConstraint("token", "customer_key", name="pk_lookups"),
    )
    op.create_index("ix_lookups_customer_key", "lookups", ["customer_key"], unique=False)

    op.create_table(
        "person_keys",
        sa.Column("customer_key", KEY, autoincrement=False, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_key"], ["customers.customer_key"], name="fk_person_keys_customer_key_customers"
        ),
        sa.PrimaryKeyConstraint("customer_key", name="pk_person_keys"),
    )
    op.create_table(
        "personal",
        sa.Column("customer_key", KEY, autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_key"], ["customers.customer_key"], name="fk_personal_customer_key_customers"
        ),
        sa.PrimaryKeyConstraint("customer_key", name="pk_personal"),
    )
    op.create_table(
        "scores",
        sa.Column("run_id", KEY, nullable=False),
        sa.Column("customer_key", KEY, nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("told_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_key"], ["customers.customer_key"], name="fk_scores_customer_key_customers"),
        sa.ForeignKeyConstraint(["run_id"], ["score_runs.run_id"], name="fk_scores_run_id_score_runs"),
        sa.PrimaryKeyConstraint("run_id", "customer_key", name="pk_scores"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_scores_customer_key", "scores", ["customer_key"], unique=False)
    op.create_index("ix_scores_run_id_value", "scores", ["run_id", "value"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_scores_run_id_value", "scores")
    op.drop_index("ix_scores_customer_key", "scores")

    op.drop_table("scores")
    op.drop_table("personal")
    op.drop_table("person_keys")
    op.drop_index("ix_lookups_customer_key", "lookups")

    op.drop_table("lookups")
    op.drop_index("ix_identities_customer_key", "identities")

    op.drop_table("identities")
    op.drop_table("attributes")
    op.drop_index("ix_transactions_history_sold_at", "transactions_history")
    op.drop_index("ix_transactions_history_order_id_line_id", "transactions_history")
    op.drop_index("ix_transactions_history_customer_key", "transactions_history")

    op.drop_table("transactions_history")
    op.drop_index("ix_transactions_sold_at", "transactions")
    op.drop_index("ix_transactions_customer_key", "transactions")

    op.drop_table("transactions")
    op.drop_table("score_runs")
    op.drop_index("ix_promotions_name", "promotions")

    op.drop_table("promotions")
    op.drop_table("products")
    op.drop_index("ix_nights_as_of", "nights")

    op.drop_table("nights")
    op.drop_table("ledger_months")
    op.drop_table("customers")
    op.drop_table("api_keys")
