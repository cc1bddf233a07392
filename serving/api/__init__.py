"""The rooms behind the counter: questions about one customer, and lists of many."""
