"""Sort orders of the at-risk list."""

from typing import Literal

SortOrder = Literal["probability", "value_at_risk", "saved_value"]
#: The column of each sort order; the largest value comes first.
SORT_COLUMNS: dict[str, str] = {
    "probability": "churn_probability",
    "value_at_risk": "value_at_risk",
    "saved_value": "saved_value",
}
