"""Orderings: what a list of those who may be slipping away may begin with most of."""

from typing import Literal

SortOrder = Literal["probability", "value_at_risk", "saved_value"]
#: The column that each is an order of.
SORT_COLUMNS: dict[str, str] = {
    "probability": "churn_probability",
    "value_at_risk": "value_at_risk",
    "saved_value": "saved_value",
}
