"""Answers that are looked up in the arrays of the last night, where a request would compute the same."""
