"""Limits, list types and prior rates of the families, for code that reads features without computing them.

The families themselves import Ibis, for which a server would wait at each start.
"""

#: Products of one customer that product history lists; serving reads whole lists, and a customer's 1,001st product is
#: never recommended.
MAX_PRODUCTS = 1_000

#: The lists of product history, with their types in Feast.
PRODUCT_LIST_TYPES = {
    "product_keys": "Int64",
    "weights_28d": "Float32",
    "weights_56d": "Float32",
    "weights_84d": "Float32",
    "weights_120d": "Float32",
    "times": "Int64",
    "last_days": "Int64",
    "first_days": "Int64",
}

#: What the response and redemption rates of engagement are for a customer who was never contacted.
PRIOR_RESPONSE_RATE, PRIOR_REDEEMED_RATE = 0.1, 0.3
