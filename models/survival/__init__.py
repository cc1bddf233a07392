"""Time-to-event outcomes with right-censoring."""
