"""The system of record of one retailer: customers, sales, interactions, products, offers, consents and scores.

Floors above identify a customer only by a random integer key. Personal fields are in one table, encrypted under a
key of that person. Records carry the time at which they became known, so that a historical run sees only those of
its own time.
"""
