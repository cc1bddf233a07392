"""Which of the night's arrays still hold: those made of the present catalogue, champions and settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from customers.marketing import eligibility_inputs
from customers.shop import durable_files
from customers.shop.durable_files import FileFingerprint
from models.registry.bundle import Champion
from serving.arrays import digests, night_arrays
from serving.arrays.night_arrays import NightArrays
from serving.http import problems
from serving.lookup.answer_table import AnswerTable, LookupContext
from serving.offers import offer_inventory
from serving.recommendations import merchandising
from serving.runtime import MODEL_NAMES, ServerRuntime

log = logging.getLogger("regulars.lookup")

#: How often the pointers of champions and arrays are looked at, in seconds.
CHECK_SECONDS = 0.5
#: How often it is looked whether a champion that was refused can be opened by now.
RETRY_SECONDS = 30.0
_COUNTERS = ("offers", "products")

TableBuilder = Callable[[NightArrays, LookupContext], AnswerTable | None]


@dataclass(frozen=True)
class CatalogueState:
    """What was made of one state of the catalogue, the champions and the published arrays.

    `key` changes wherever the catalogue may have changed, `origin` only where it has. `tables` has those models whose
    arrays hold. `day` is the shop's day for which they do. At `recheck_at`, by the
    monotonic clock, the champions are compared once more: they may be read a little later than their pointers.
    """

    key: Hashable
    origin: Hashable
    fingerprints: tuple[FileFingerprint, ...]
    day: date | None
    recheck_at: float = float("inf")
    champions: Mapping[str, Champion] = field(default_factory=dict)
    tables: Mapping[str, AnswerTable] = field(default_factory=dict)


class CatalogueReader:
    """Makes the state of the catalogue, and notices when it must be made again."""

    def __init__(self, runtime: ServerRuntime, builders: Mapping[str, TableBuilder]) -> None:
        self.runtime = runtime
        self._builders = builders
        self._checked_at = float("-inf")
        self._fingerprints: tuple[FileFingerprint, ...] = ()
        self._watched: tuple[str, ...] = _COUNTERS
        self._watches_months = False

    def is_current(self, state: CatalogueState, counters: Mapping[str, int], at: Callable[[], datetime]) -> bool:
        """Whether nothing has changed that the state was made of; `at` gives the time by the shop's clock."""
        return state.key == self._choose_key(counters) and self._still_holds(state, at)

    def _still_holds(self, state: CatalogueState, at: Callable[[], datetime]) -> bool:
        """As `is_current`, but for the catalogue."""
        return (
            state.fingerprints == self._look_at_pointers()
            and (state.day is None or state.day == self._day(at()))
            and time.monotonic() < state.recheck_at
        )

    def read(self, counters: Mapping[str, int], at: datetime, previous: CatalogueState | None) -> CatalogueState:
        """Make the state at this time, given the counters of the database; `previous` is the one that it replaces."""
        runtime, shop = self.runtime, self.runtime.shop
        # Taken before anything is read: what is read may be newer, and is then read once more.
        fingerprints = self._look_at_pointers()
        current = eligibility_inputs.load_current_offers(shop)
        origin = self._select_counters(counters), current.unsold_products
        if previous is not None and previous.origin == origin and self._still_holds(previous, lambda: at):
            return replace(previous, key=self._choose_key(counters))  # a sale, but of no product that was unsold
        inventory = offer_inventory.load_offer_inventory(shop)
        has_budgets = bool(inventory.offer_table.offers["budget"].notna().any())
        self._watches_months = bool(current.unsold_products)
        self._watched = (*_COUNTERS, "interactions") if has_budgets else _COUNTERS
        origin = self._select_counters(counters), current.unsold_products
        champions = {name: each for name in MODEL_NAMES if (each := runtime.champions.get(name))}
        active_rules = merchandising.load_active_rules(shop, at)
        context = LookupContext(runtime, inventory, eligibility_inputs.with_budgets_as_of(shop, inventory.offer_table))
        tables: dict[str, AnswerTable] = {}
        for name, build in self._builders.items():
            arrays = self._load_arrays(name, champions, inventory, active_rules)
            table = build(arrays, context) if arrays else None
            if table is not None:
                tables[name] = table
        recheck_at = self._choose_recheck(previous is None or previous.fingerprints != fingerprints)
        day = self._day(at) if tables else None
        return CatalogueState(self._choose_key(counters), origin, fingerprints, day, recheck_at, champions, tables)

    def _day(self, at: datetime) -> date:
        return at.astimezone(self.runtime.shop.zone).date()

    def _choose_key(self, counters: Mapping[str, int]) -> Hashable:
        if self._watches_months:
            return tuple(sorted(counters.items()))
        return self._select_counters(counters)

    def _select_counters(self, counters: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(counters.get(name, 0) for name in self._watched)

    def _look_at_pointers(self) -> tuple[FileFingerprint, ...]:
        at = time.monotonic()
        if at - self._checked_at >= CHECK_SECONDS:
            home = self.runtime.shop.home
            paths = [home / "champions" / f"{name}.json" for name in MODEL_NAMES]
            paths += [night_arrays.pointer_path(home, name) for name in MODEL_NAMES]
            self._fingerprints = tuple(durable_files.read_fingerprint(path) for path in paths)
            self._checked_at = at
        return self._fingerprints

    def _choose_recheck(self, is_promotion: bool) -> float:
        if is_promotion:
            return time.monotonic() + 2 * CHECK_SECONDS
        if self.runtime.champions.is_checking:
            return time.monotonic() + CHECK_SECONDS
        return time.monotonic() + RETRY_SECONDS if self.runtime.champions.errors else float("inf")

    def _load_arrays(
        self,
        name: str,
        champions: Mapping[str, Champion],
        inventory: offer_inventory.OfferInventory,
        active_rules: merchandising.ActiveRules,
    ) -> NightArrays | None:
        """The arrays of a model, where champions, settings and catalogue are those that they were made of."""
        shop = self.runtime.shop
        try:
            arrays = night_arrays.load(shop.home, name)
        except Exception as error:  # a damaged file must not keep a question from being answered
            log.error("the arrays of %s cannot be read: %s", name, problems.describe_traceback(error))
            return None
        if arrays is None:
            return None
        facts = arrays.facts
        versions = {model: str(champions[model].version) if model in champions else "" for model in facts.versions}
        is_current = (
            facts.versions == versions
            and facts.settings == digests.digest_settings(shop)
            and facts.catalogue == digests.digest_catalogue(name, inventory, active_rules)
        )
        return arrays if is_current else None
