"""The Parquet copy of the database that feature computation reads."""
