"""Features computed at cutoffs, for snapshots and in real time."""
