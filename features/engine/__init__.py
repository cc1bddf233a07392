"""The DuckDB engine and the expressions that features are written in."""
