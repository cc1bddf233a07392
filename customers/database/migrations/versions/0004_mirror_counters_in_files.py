"""What a mirror holds is written in its own files: several homes may mirror one database."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the column."""
    op.drop_column("ledger_months", "mirrored_no")


def downgrade() -> None:
    """Add it again; 0 says that every file is to be written again."""
    op.add_column("ledger_months", sa.Column("mirrored_no", sa.BigInteger(), nullable=False, server_default="0"))
