"""Publishes a night's predictions as arrays, beside the stored scores: what the server looks up instead of scoring."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from customers.database import change_counters
from customers.ledger import watermark
from customers.marketing import eligibility_inputs
from customers.scores import current_scores, score_details
from serving.arrays import digests, night_arrays
from serving.arrays.night_arrays import NightFacts
from serving.offers import offer_inventory
from serving.offers.offer_inventory import OfferInventory
from serving.recommendations import merchandising
from serving.scoring import churn, night_columns, offers, value
from serving.scoring.fallback import Prediction
from serving.scoring.inputs import NightlyInputs, NightlyRun
from serving.scoring.night_columns import EncodedRows, TextCodes
from serving.scoring.offers import OfferPrediction

log = logging.getLogger("regulars.lookup")


@dataclass
class NightPublication:
    """The arrays of one nightly run. A historical run publishes none: they would not be those of today.

    Consent statements and interactions are counted before anything is scored: a customer with a later one is looked at
    again.
    """

    run: NightlyRun
    versions: Mapping[str, str]
    consent_counts: Mapping[int, int] = field(default_factory=dict)
    interaction_counts: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    is_published: bool = True
    load_count: int = 0

    @classmethod
    def begin(cls, run: NightlyRun, versions: Mapping[str, str]) -> Self:
        """Begin the arrays of a run, before its first prediction."""
        newest_as_of = watermark.read_watermark(run.shop)
        is_historical = newest_as_of is not None and run.as_of < newest_as_of
        load_count = change_counters.count_loads(run.shop)
        consent_counts = current_scores.count_consents(run.shop)
        interaction_counts = current_scores.count_interactions(run.shop)
        return cls(run, versions, consent_counts, interaction_counts, not is_historical, load_count)

    def open_model(self, name: str) -> ModelPublication:
        """A writer of the arrays of one model; leaving its block publishes them."""
        return ModelPublication(self, name)


class ModelPublication(AbstractContextManager["ModelPublication"]):
    """Writes the arrays of one model, portion by portion; they are published where nothing has changed meanwhile."""

    def __init__(self, night: NightPublication, name: str) -> None:
        self.night = night
        self.name = name
        self.is_published = night.is_published and not _lacks_spend(night, name)
        self.texts = TextCodes()
        self.products: set[int] = set()
        self.details: dict[str, Any] = {}
        self._inventory: OfferInventory | None = None

    def __enter__(self) -> Self:
        if self.is_published:
            self.writer = night_arrays.begin(self.night.run.shop.home, self.name)
            self._catalogue = self._digest_catalogue()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.is_published:
            self._finish(is_complete=error_type is None)

    def _finish(self, *, is_complete: bool) -> None:
        home = self.night.run.shop.home
        if not is_complete:
            night_arrays.discard(self.writer)
        elif self.writer.is_empty or self._digest_catalogue() != self._catalogue:
            night_arrays.discard(self.writer)
            night_arrays.withdraw(home, self.name)
        else:
            night_arrays.publish(home, self.writer, self._facts())

    def add(self, inputs: NightlyInputs, prediction: Prediction) -> None:
        """Add the predictions of a portion of the customers."""
        if not self.is_published:
            return
        rows = np.flatnonzero(prediction.is_scored)
        common = night_columns.encode_common(prediction, rows)
        counts = [self.night.consent_counts.get(key, 0) for key in common["customer_key"].tolist()]
        columns, lists = self._encode(prediction, rows, inputs)
        self.writer.append(common | {"consent_count": np.array(counts, np.int32)} | columns, lists)

    def _encode(self, prediction: Any, rows: np.ndarray, inputs: NightlyInputs) -> EncodedRows:
        if self.name == "restock":
            return night_columns.encode_restock(prediction, rows, self.texts)
        if self.name == "recommender":
            encoded = night_columns.encode_recommender(prediction, rows, self.texts)
            for group in encoded.lists.values():
                self.products.update(np.unique(group.values["product_key"]).tolist())
                self.products.update(np.unique(group.values["evidence"][:, 0]).tolist())
            return encoded
        if self.name == "offers":
            return self._encode_offers(prediction, rows, inputs)
        encoded = night_columns.PLAIN_ENCODERS[self.name](prediction, rows)
        return encoded if isinstance(encoded, EncodedRows) else EncodedRows(*encoded)

    def _encode_offers(self, prediction: OfferPrediction, rows: np.ndarray, inputs: NightlyInputs) -> EncodedRows:
        """The offers of the night, and for all offers of the shop which rules about customers are against them."""
        run, table = self.night.run, self._whole_inventory().offer_table
        keys, state = prediction.frame["customer_key"].tolist(), prediction.ranked_offers.customer_state
        if table.offers["min_spend"].notna().any():
            state = replace(state, basket_value=inputs.load_basket_values(keys))
        codes = offers.judge_customers(table, state, run.as_of)
        rechecked_keys = night_columns.customers_to_recheck(run.shop, keys, run.as_of)
        encoded = night_columns.encode_offers(prediction, rows, self.texts, table, codes, rechecked_keys)
        counts = [self.night.interaction_counts.get(keys[row], (0, 0)) for row in rows.tolist()]
        encoded.columns["interaction_counts"] = np.array(counts, np.int64).reshape(len(counts), 2)
        self.products.update(np.unique(encoded.lists["cells"].values["evidence"][:, 0]).tolist())
        return encoded

    def _whole_inventory(self) -> OfferInventory:
        if self._inventory is None:
            self._inventory = offer_inventory.load_offer_inventory(self.night.run.shop)
        return self._inventory

    def _digest_catalogue(self) -> str:
        """The digest of what the catalogue is now; night and day must agree on it."""
        run = self.night.run
        inventory = offer_inventory.load_offer_inventory(run.shop)
        return digests.digest_catalogue(self.name, inventory, merchandising.load_active_rules(run.shop, run.as_of))

    def _facts(self) -> NightFacts:
        run, versions = self.night.run, self.night.versions
        return NightFacts(
            model=self.name,
            as_of=run.as_of,
            watermark=current_scores.read_run_watermark(run.shop, self.name, run.as_of),
            versions={name: versions.get(name, "") for name in digests.DEPENDENCIES[self.name]},
            settings=digests.digest_settings(run.shop),
            catalogue=self._catalogue,
            details=self._details(),
        )

    def _details(self) -> dict[str, Any]:
        model = self.night.run.models[self.name]
        if self.name == "churn":
            return {"horizon_days": churn.churn_horizon_days(model)}
        if self.name == "value":
            return {"horizon_days": value.value_horizon_days(model)}
        details: dict[str, Any] = {"texts": self.texts.texts, "products": sorted(self.products - {-1})}
        if self.name == "recommender":
            details["lists"] = list(score_details.LIST_NAMES)
        if self.name == "offers":
            run, table = self.night.run, self._whole_inventory().offer_table
            refused = offers.refuse_to_everybody(eligibility_inputs.with_budgets_as_of(run.shop, table), run.as_of)
            details |= {"end_times": table.end_times.tolist(), "refused": (refused != 0).tolist()}
            details["load_count"] = self.night.load_count
        return details


def _lacks_spend(night: NightPublication, name: str) -> bool:
    """Whether bands depend on spend that this night read from stored scores, as no request does."""
    uses_spend = name in ("churn", "timing") and night.run.shop.retention.contact_cost is not None
    return uses_spend and "value" not in night.versions
