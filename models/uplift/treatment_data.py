"""Trial: whom the shop's mailings reached, and what became of everybody, reached or not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.base import Floats, InsufficientData, feature_columns, matrix

#: So many of either kind, with somebody to compare them with, before anything is said.
MIN_GROUP_SIZE = 100
#: About so many customers and mailings teach at most.
MAX_ROWS = 60_000


@dataclass(frozen=True)
class TreatmentData:
    """Who was contacted and what became of everybody: a row a customer and mailing.

    `design` (rows, features) as known before the mailing; `contacted` and `outcome` (rows,); `mailing` numbers the
    mailings by their days, from 0. An outcome of zeros and ones is a chance, any other an amount.
    """

    columns: list[str]
    design: Floats
    contacted: NDArray[np.bool_]
    outcome: Floats
    customers: NDArray[np.int64]
    mailing: NDArray[np.int64]

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, label: pd.DataFrame) -> Self:
        """From rows of customer_key, as_of (the mailing's day) and features, and of contacted and outcome.

        Raises TooLittle where everybody was contacted, or nobody, or too few of either.
        """
        contacted = label["contacted"].to_numpy(dtype=bool)
        require_enough(int(contacted.sum()), int((~contacted).sum()))
        columns, mailing = feature_columns(frame), pd.factorize(frame["as_of"], sort=True)[0]
        outcome = label["outcome"].to_numpy(np.float64)
        customers = frame["customer_key"].to_numpy(np.int64)
        return cls(columns, matrix(frame, columns), contacted, outcome, customers, mailing.astype(np.int64))

    @cached_property
    def treated_share(self) -> Floats:
        """The share of everybody whom the row's mailing reached."""
        share_by_mailing = np.bincount(self.mailing, self.contacted) / np.maximum(np.bincount(self.mailing), 1)
        return np.asarray(share_by_mailing[self.mailing], np.float64)

    @cached_property
    def tree_design(self) -> Floats:
        """Features, and which mailing it was: a season moves outcomes, and some mailings reach many more."""
        return np.column_stack([self.design, self.treated_share, self.mailing])

    @cached_property
    def linear_design(self) -> Floats:
        """The same as a straight line takes it: logarithms, of mean 0 and spread 1, and each mailing on its own."""
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
        """What trees make of the outcome."""
        return "binary" if np.isin(self.outcome, (0.0, 1.0)).all() else "regression"


def sample_rows(customers: NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """The rows to go by; of too many, all rows of as many customers as there is room for, drawn by lot."""
    unique_customers, place = np.unique(customers, return_inverse=True)
    n_sampled = min(len(unique_customers), len(unique_customers) * MAX_ROWS // max(len(customers), 1))
    is_drawn = np.random.default_rng(seed).permutation(len(unique_customers)) < n_sampled
    return np.asarray(is_drawn[place], bool)


def require_enough(contacted: int, others: int, min_size: int = MIN_GROUP_SIZE) -> None:
    """Raise TooLittle unless there are so many of those who were contacted and of those who were not."""
    if not contacted:
        raise InsufficientData("nobody was contacted; load interactions of kind sent or received")
    if not others:
        raise InsufficientData(
            "everybody was contacted: leave some out of the next campaign, drawn by lot, to compare with"
        )
    if min(contacted, others) < min_size:
        raise InsufficientData(
            f"{contacted} were contacted and {others} were not; at least {min_size} of either are needed: "
            "load more campaigns, or leave more customers out of the next one"
        )


def log_odds(probability: Floats) -> Floats:
    """Log odds of a chance; of one that is sure, those of a very sure one."""
    probability = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(probability / (1 - probability)))
