"""Lists under merchandising rules, with evidence."""
