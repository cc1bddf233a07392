"""Sources: where records come from, one file an inlet."""
