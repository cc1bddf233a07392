"""No foreign keys of scores: checking two references a row took longer than writing it."""

from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

REFERENCES = {"run_id": "score_runs", "customer_key": "customers"}


def upgrade() -> None:
    """Drop both."""
    with _alter_scores() as table:
        for key in sa.inspect(op.get_bind()).get_foreign_keys("scores"):
            column = key["constrained_columns"][0]
            table.drop_constraint(key["name"] or _name(column), type_="foreignkey")


def downgrade() -> None:
    """Create both again."""
    with _alter_scores() as table:
        for column, parent in REFERENCES.items():
            table.create_foreign_key(_name(column), parent, [column], [column])


def _alter_scores() -> AbstractContextManager[BatchOperations]:
    """SQLite copies the table, keeps it without row ids, and names its foreign keys by this rule."""
    naming = {"fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s"}
    return op.batch_alter_table("scores", naming_convention=naming, table_kwargs={"sqlite_with_rowid": False})


def _name(column: str) -> str:
    return f"fk_scores_{column}_{REFERENCES[column]}"
