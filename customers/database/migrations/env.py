"""Alembic's entry point: migrates the connection passed in the config, or else the shop in REGULARS_HOME."""

from alembic import context
from sqlalchemy import Connection

from customers.database import engine, schema
from customers.shop import settings


def migrate(connection: Connection) -> None:
    """Run the migrations in the transaction of this connection: all of them or none."""
    context.configure(
        connection=connection,
        target_metadata=schema.metadata,
        compare_type=True,
        # SQLite cannot alter a table in place; alembic then rebuilds it.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


if context.config.attributes.get("connection") is not None:
    migrate(context.config.attributes["connection"])
else:
    with engine.write_transaction(settings.open_shop()) as new_connection:
        migrate(new_connection)
