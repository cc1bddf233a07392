"""Connectors: one file per source of records.

A connector either writes files in our columns, as `complete_journey.write_files` does, or returns `files.Records`.
"""
