"""No index of scores by value: no query uses it, and it doubled the time to write the scores of a night."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_scores_run_id_value", "scores")


def downgrade() -> None:
    """Create it again."""
    op.create_index("ix_scores_run_id_value", "scores", ["run_id", "value"])
