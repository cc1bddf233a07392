"""Offers, interactions and consents; receipts of writes; who was erased; who waits for fresh features."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# SQLite keeps a row under its key itself only where the type is called INTEGER.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "erased",
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("erased_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_erased"),
    )
    op.create_table(
        "erasures",
        sa.Column("erasure_id", KEY, nullable=False),
        sa.Column("customer_key", sa.BigInteger(), nullable=False),
        sa.Column("erased_at", sa.BigInteger(), nullable=False),
        sa.Column("forgotten_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("erasure_id", name="pk_erasures"),
    )
    op.create_table(
        "offers",
        sa.Column("offer_key", KEY, autoincrement=False, nullable=False),
        sa.Column("offer_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("value_kind", sa.Text(), nullable=True),
        sa.Column("min_spend_minor", sa.BigInteger(), nullable=True),
        sa.Column("budget_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("channels", sa.Text(), nullable=True),
        sa.Column("segment", sa.Text(), nullable=True),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("content", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("offer_key", name="pk_offers"),
        sa.UniqueConstraint("offer_id", "source", name="uq_offers_offer_id_source"),
    )
    op.create_table(
        "receipts",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_receipts"),
    )
    op.create_index("ix_receipts_made_at", "receipts", ["made_at"], unique=False)
    op.create_table(
        "consents",
        sa.Column("consent_id", KEY, nullable=False),
        sa.Column("customer_key", KEY, nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("wording", sa.Text(), nullable=True),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_key"], ["customers.customer_key"], name="fk_consents_customer_key_customers"
        ),
        sa.PrimaryKeyConstraint("consent_id", name="pk_consents"),
        sa.UniqueConstraint(
            "customer_key", "purpose", "at", "source", "state", name="uq_consents_customer_key_purpose_at_source_state"
        ),
    )
    op.create_table(
        "interactions",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("interaction_id", sa.Text(), nullable=False),
        sa.Column("customer_key", KEY, nullable=False),
        sa.Column("happened_at", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("campaign_id", sa.Text(), nullable=True),
        sa.Column("offer_id", sa.Text(), nullable=True),
        sa.Column("product_id", sa.Text(), nullable=True),
        sa.Column("rating", sa.Integer(), nullable=True),
        sa.Column("sealed_text", sa.LargeBinary(), nullable=True),
        sa.Column("attribution_token", sa.Text(), nullable=True),
        sa.Column("attributes", sa.Text(), nullable=True),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_key"], ["customers.customer_key"], name="fk_interactions_customer_key_customers"
        ),
        sa.PrimaryKeyConstraint("source", "interaction_id", name="pk_interactions"),
    )
    op.create_index("ix_interactions_customer_key", "interactions", ["customer_key"], unique=False)
    op.create_index("ix_interactions_kind", "interactions", ["kind"], unique=False)
    op.create_table(
        "offer_categories",
        sa.Column("offer_key", KEY, autoincrement=False, nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["offer_key"], ["offers.offer_key"], name="fk_offer_categories_offer_key_offers"),
        sa.PrimaryKeyConstraint("offer_key", "category", name="pk_offer_categories"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "offer_products",
        sa.Column("offer_key", KEY, autoincrement=False, nullable=False),
        sa.Column("product_key", KEY, autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["offer_key"], ["offers.offer_key"], name="fk_offer_products_offer_key_offers"),
        sa.ForeignKeyConstraint(
            ["product_key"], ["products.product_key"], name="fk_offer_products_product_key_products"
        ),
        sa.PrimaryKeyConstraint("offer_key", "product_key", name="pk_offer_products"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "unrefreshed",
        sa.Column("customer_key", KEY, autoincrement=False, nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_key"], ["customers.customer_key"], name="fk_unrefreshed_customer_key_customers"
        ),
        sa.PrimaryKeyConstraint("customer_key", name="pk_unrefreshed"),
    )


def downgrade() -> None:
    op.drop_table("unrefreshed")
    op.drop_table("offer_products")
    op.drop_table("offer_categories")
    op.drop_index("ix_interactions_kind", table_name="interactions")
    op.drop_index("ix_interactions_customer_key", table_name="interactions")
    op.drop_table("interactions")
    op.drop_table("consents")
    op.drop_index("ix_receipts_made_at", table_name="receipts")
    op.drop_table("receipts")
    op.drop_table("offers")
    op.drop_table("erasures")
    op.drop_table("erased")
