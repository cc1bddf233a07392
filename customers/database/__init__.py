"""The customer database: tables, engine, migrations, and counters of changes."""
