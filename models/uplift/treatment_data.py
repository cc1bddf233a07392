"""Treatment data: whom the shop's mailings reached, and the outcome of every customer, reached or not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.base import Floats, InsufficientData, feature_columns, matrix

#: The fewest comparable rows, contacted and not, that an effect is estimated from.
MIN_GROUP_SIZE = 100
#: About the most rows (customer and mailing) that the models are fitted to.
MAX_ROWS = 60_000


@dataclass(frozen=True)
class TreatmentData:
    """Who was contacted, and the outcome: a row per customer and mailing.

    `design` (n_rows, n_features): features before the mailing. `contacted`, `outcome`, `customers` (keys) and
    `mailing` (mailings numbered by their days, from 0): (n_rows,). An outcome of only zeros and ones is binary, any
    other an amount.
    """

    columns: list[str]
    design: Floats
    contacted: NDArray[np.bool_]
    outcome: Floats
    customers: NDArray[np.int64]
    mailing: NDArray[np.int64]

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, label: pd.DataFrame) -> Self:
        """Build from rows of customers and mailings.

        frame: columns customer_key, as_of (the mailing's day) and features. label: columns contacted and outcome.
        `require_enough` raises InsufficientData where too few were contacted, or were not.
        """
        contacted = label["contacted"].to_numpy(dtype=bool)
        require_enough(int(contacted.sum()), int((~contacted).sum()))
        columns, mailing = feature_columns(frame), pd.factorize(frame["as_of"], sort=True)[0]
        outcome = label["outcome"].to_numpy(np.float64)
        customers = frame["customer_key"].to_numpy(np.int64)
        return cls(columns, matrix(frame, columns), contacted, outcome, customers, mailing.astype(np.int64))

    @cached_property
    def treated_share(self) -> Floats:
        """The share of all customers that the row's mailing reached: (n_rows,)."""
        share_by_mailing = np.bincount(self.mailing, self.contacted) / np.maximum(np.bincount(self.mailing), 1)
        return np.asarray(share_by_mailing[self.mailing], np.float64)

    @cached_property
    def tree_design(self) -> Floats:
        """Features, the treated share and the mailing: (n_rows, n_features + 2).

        A season moves outcomes, and some mailings reach many more customers.
        """
        return np.column_stack([self.design, self.treated_share, self.mailing])

    @cached_property
    def linear_design(self) -> Floats:
        """The same for a linear model: (n_rows, n_features + 1 + n_mailings).

        Signed logarithms of the features with mean 0 and standard deviation 1, the log odds of the treated share, and
        a dummy for each mailing.
        """
        logs = np.sign(self.design) * np.log1p(np.abs(self.design))
        is_finite = np.isfinite(logs)
        count = np.maximum(is_finite.sum(axis=0), 1)
        centred = np.where(is_finite, logs - np.where(is_finite, logs, 0.0).sum(axis=0) / count, 0.0)
        spread = np.sqrt((centred**2).sum(axis=0) / count)
        mailing_dummies = np.eye(int(self.mailing.max()) + 1)[self.mailing]
        return np.column_stack(
            [centred / np.where(spread > 0, spread, 1.0), log_odds(self.treated_share), mailing_dummies]
        )

    @property
    def objective(self) -> str:
        """LightGBM's objective for the outcome: binary or regression."""
        return "binary" if np.isin(self.outcome, (0.0, 1.0)).all() else "regression"


def sample_rows(customers: NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """Mask of the rows to use: all or, if there are too many, all rows of randomly drawn customers: (n_rows,)."""
    unique_customers, position = np.unique(customers, return_inverse=True)
    n_sampled = min(len(unique_customers), len(unique_customers) * MAX_ROWS // max(len(customers), 1))
    is_drawn = np.random.default_rng(seed).permutation(len(unique_customers)) < n_sampled
    return np.asarray(is_drawn[position], bool)


def require_enough(contacted: int, not_contacted: int, min_size: int = MIN_GROUP_SIZE) -> None:
    """Raises InsufficientData unless at least min_size rows were contacted, and as many were not."""
    if not contacted:
        raise InsufficientData("nobody was contacted; load interactions of kind sent or received")
    if not not_contacted:
        raise InsufficientData(
            "everybody was contacted: leave some out of the next campaign, drawn by lot, to compare with"
        )
    if min(contacted, not_contacted) < min_size:
        raise InsufficientData(
            f"{contacted} were contacted and {not_contacted} were not; at least {min_size} of either are needed: "
            "load more campaigns, or leave more customers out of the next one"
        )


def log_odds(probability: Floats) -> Floats:
    """Log odds of probabilities, which are clipped to 1e-6 and 1 - 1e-6: (n,)."""
    probability = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(probability / (1 - probability)))
