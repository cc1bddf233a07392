"""Arrays of a night's scores in memory-mapped files, which all workers of a server share."""
