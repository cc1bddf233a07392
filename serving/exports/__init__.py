"""Export jobs: a whole table is written to a file while the server goes on answering, and a webhook reports it."""
