"""Nightly batch scoring of every customer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from customers.marketing import eligibility_inputs
from customers.privacy import consents
from customers.scores import score_store
from customers.scores.score_details import ScoreRow
from customers.scores.score_frames import load_answers
from customers.shop.settings import Shop
from features.families import category_history
from features.store.feature_store import FeatureStore
from models.base import Model
from serving.explanations import churn_reasons, lapsed_categories
from serving.offers import complementary_offers, offer_inventory
from serving.recommendations import merchandising
from serving.scoring import churn, fallback, offers, recommender, restock, rfm, timing, value

#: The view whose rows say who has figures for a model.
_VIEWS = {
    "recommender": "shelf",
    "offers": "shelf",
    "churn": "rhythm",
    "timing": "rhythm",
    "restock": "needs",
    "value": "rhythm",
}
#: So many customers are scored together at night: lists of a million at once would not fit.
_BATCH_SIZE = 20_000
#: With offers fewer: each of them may be made any of hundreds.
_OFFER_BATCH_SIZE = 2_000


def score_all_customers(
    shop: Shop,
    features: FeatureStore,
    versioned_models: Mapping[str, tuple[Any, Model]],
    as_of: datetime,
    *,
    fallback_names: Collection[str] = (),
) -> tuple[int, int]:
    """Score every customer who has figures at `as_of` and allows it, a model at a time; customers and scores written.

    `speakers` gives each model's version and the model itself. Readers see a model's whole night or none.
    `stand_ins` names those that are plain rules where there was too little to learn from, whose scores are
    flagged as fallbacks. Timing agrees with churn where both speak.
    """
    scoring = _BatchScoring(shop, features, versioned_models, as_of, fallback_names)
    keys: set[int] = set()
    written = 0
    for name, (version, _) in versioned_models.items():
        run = score_store.begin_run(shop, name, str(version), as_of)
        for rows in scoring.iter_rows(name):
            written += score_store.write_scores(shop, run, rows)
            keys.update(row[0] for row in rows)
        score_store.finish_run(shop, run)
    return len(keys), written


class _BatchScoring:
    """What the models say of everybody at one moment, in portions."""

    def __init__(
        self,
        shop: Shop,
        features: FeatureStore,
        versioned_models: Mapping[str, tuple[Any, Model]],
        as_of: datetime,
        fallback_names: Collection[str],
    ) -> None:
        self.shop = shop
        self.features = features
        self.models = {name: model for name, (_, model) in versioned_models.items()}
        self.as_of = as_of
        self.fallback_names = fallback_names
        self._feature_cache: dict[tuple[str, ...], pd.DataFrame] = {}

    def iter_rows(self, name: str) -> Iterator[list[ScoreRow]]:
        """All rows of a model; none where nobody is there to be scored."""
        if self._load_entities(name).empty:
            return iter(())
        row_iterators = {
            "recommender": self._recommender_rows,
            "offers": self._offer_rows,
            "churn": self._churn_rows,
            "timing": self._timing_rows,
            "restock": self._restock_rows,
            "value": self._value_rows,
        }
        return row_iterators[name]()

    def _churn_rows(self) -> Iterator[list[ScoreRow]]:
        frame, prediction = self._churn_prediction
        yield list(churn.encode_churn(frame, fallback.flag_fallback(prediction, "churn" in self.fallback_names)))

    def _timing_rows(self) -> Iterator[list[ScoreRow]]:
        frame = self._all_features("timing")
        churn_prediction = self._churn_prediction[1] if "churn" in self.models else None
        prediction = timing.score_return(self.models["timing"], frame, churn_prediction)
        yield list(timing.encode_timing(frame, fallback.flag_fallback(prediction, "timing" in self.fallback_names)))

    def _value_rows(self) -> Iterator[list[ScoreRow]]:
        frame = self._all_features("value")
        prediction = value.score_value(self.models["value"], frame, currency=self.shop.currency)
        yield list(value.encode_value(frame, fallback.flag_fallback(prediction, "value" in self.fallback_names)))

    def _recommender_rows(self) -> Iterator[list[ScoreRow]]:
        hidden, active_rules = (
            self._inventory.sensitive_products,
            merchandising.load_active_rules(self.shop, self.as_of),
        )
        for history in self._iter_batches("recommender", _BATCH_SIZE):
            consenting = self._consenting_customers(history) if hidden else set()
            ranked = recommender.score_lists(
                self.models["recommender"], history, active_rules, hidden=hidden, consenting=consenting
            )
            yield list(recommender.encode_lists(history, ranked, self._is_fallback("recommender", history)))

    def _restock_rows(self) -> Iterator[list[ScoreRow]]:
        hidden = self._inventory.sensitive_categories
        for frame in self._iter_batches("restock", _BATCH_SIZE):
            consenting = self._consenting_customers(frame) if hidden else set()
            items = restock.score_restock(
                self.models["restock"], category_history.explode_lists(frame), hidden=hidden, consenting=consenting
            )
            is_fallback = self._is_fallback("restock", frame) | restock.has_no_items(frame, items)
            yield list(restock.encode_restock(frame, items, is_fallback))

    def _offer_rows(self) -> Iterator[list[ScoreRow]]:
        inventory = self._inventory.filter_active(self.as_of)
        context = offers.OfferContext(
            inventory,
            offer_inventory.load_offer_table(self.shop, inventory, before=self.as_of),
            offer_inventory.load_prices(self.features.folder),
            self.as_of,
            self.shop.currency,
            complementary_offers.load_complements(self.features.folder),
        )
        for frame in self._iter_batches("offers", _OFFER_BATCH_SIZE):
            keys = frame["customer_key"].tolist()
            customer_state = eligibility_inputs.load_customer_state(
                self.shop, keys, self._basket_values(keys, inventory), before=self.as_of
            )
            ranked_offers = offers.score_offers(self.models["offers"], context, frame, customer_state)
            yield list(offers.encode_offers(frame, ranked_offers.ranking, self._is_fallback("offers", frame)))

    def _basket_values(self, keys: list[int], inventory: offer_inventory.OfferInventory) -> fallback.Floats | None:
        """What their usual baskets are worth, where an offer asks for a least spend."""
        if not inventory.catalogue.offers["min_spend"].notna().any():
            return None
        at = pd.DataFrame({"customer_key": keys, "event_timestamp": self.as_of})
        return self._load_features("churn", at)["basket_value_mean"].to_numpy(np.float64)

    def _is_fallback(self, name: str, frame: pd.DataFrame) -> fallback.Flags:
        return ~fallback.has_features(frame) | (name in self.fallback_names)

    def _consenting_customers(self, frame: pd.DataFrame) -> set[int]:
        """Those of these customers whose sensitive purchases may be looked at."""
        return consents.allowed_customers(self.shop, frame["customer_key"], "profiling_sensitive")

    @cached_property
    def _inventory(self) -> offer_inventory.OfferInventory:
        return offer_inventory.load_offer_inventory(self.shop)

    @cached_property
    def _churn_prediction(self) -> tuple[pd.DataFrame, churn.ChurnPrediction]:
        """Churn of everybody; on the way the lines of RFM are drawn, for the door too."""
        frame = self._all_features("churn")
        quintiles = rfm.compute_quintiles(frame, self.as_of)
        rfm.save_quintiles(self.shop.home, quintiles)
        costs, expected_spend, lapsed_loader = (
            self.shop.retention,
            self._expected_spend(frame),
            self._lapsed_loader(frame),
        )
        return frame, churn.score_churn(
            self.models["churn"],
            frame,
            quintiles,
            costs=costs,
            expected_spend=expected_spend,
            load_lapsed=lapsed_loader,
        )

    def _expected_spend(self, frame: pd.DataFrame) -> fallback.Floats | None:
        """What each will spend, where bands go by costs: by this night's model, else as it was last said."""
        if self.shop.retention.contact_cost is None:
            return None
        if "value" not in self.models:
            stored = load_answers(self.shop, "value")
            is_current = (
                stored.attrs.get("as_of", self.as_of) <= self.as_of
            )  # a replay does not hear of what was said later
            value_by_key = stored.set_index("customer_key")["value"]
            return frame["customer_key"].map(value_by_key if is_current else {}).to_numpy(np.float64)
        prediction = value.score_value(self.models["value"], self._all_features("value"), currency=self.shop.currency)
        return np.where(prediction.fallback, np.nan, prediction.expected)

    def _lapsed_loader(self, frame: pd.DataFrame) -> churn_reasons.LapsedLoader:
        entities = frame[["customer_key"]].assign(event_timestamp=self.as_of)

        def load_lapsed(places: Sequence[int]) -> Mapping[int, Sequence[tuple[str, float]]]:
            history = self._load_features("restock", entities.iloc[list(places)].reset_index(drop=True))
            lapsed = lapsed_categories.find_lapsed(history, self._inventory.sensitive_categories)
            return {places[row]: names for row, names in lapsed.items()}

        return load_lapsed

    def _iter_batches(self, name: str, size: int) -> Iterator[pd.DataFrame]:
        entities = self._load_entities(name)
        for start in range(0, len(entities), size):
            yield self._load_features(name, entities.iloc[start : start + size].reset_index(drop=True))

    def _all_features(self, name: str) -> pd.DataFrame:
        """Everybody's figures for a model; models that look at the same ones share them."""
        cache_key = (_VIEWS[name], *self.features.feature_names(f"{name}_v1"))
        if cache_key not in self._feature_cache:
            self._feature_cache[cache_key] = self._load_features(name, self._load_entities(name))
        return self._feature_cache[cache_key]

    def _load_entities(self, name: str) -> pd.DataFrame:
        """Everybody who has figures at the moment and allows profiling: customer_key, event_timestamp."""
        path = self.features.folder / _VIEWS[name] / "part.parquet"
        entities = pd.read_parquet(
            path, columns=["customer_key", "event_timestamp"], filters=[("event_timestamp", "==", self.as_of)]
        )
        allowed = consents.allowed_customers(self.shop, entities["customer_key"], "profiling")
        return entities[entities["customer_key"].isin(allowed)].reset_index(drop=True)

    def _load_features(self, name: str, entities: pd.DataFrame) -> pd.DataFrame:
        return self.features.historical_features(f"{name}_v1", entities).rename(columns={"event_timestamp": "as_of"})
