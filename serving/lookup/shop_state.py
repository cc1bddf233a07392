"""What a worker knows of the shop between two commits: which of the night's arrays still hold, and for whom.

A request reads one number, which changes with every commit; only then are the counters of the catalogue compared. What
depends on products, offers or champions is made again in a worker thread, before the request that noticed goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from threading import Lock

from customers.database import direct_reads
from customers.marketing import eligibility_inputs
from customers.scores import current_scores
from customers.scores.current_scores import CustomerStanding, NightMark
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
CHECK_SECONDS = 1.0
#: How often it is looked whether a champion that was refused can be opened by now.
RETRY_SECONDS = 30.0
#: So many customers' standings are remembered between two commits.
MAX_STANDINGS = 100_000
_COUNTERS = "select month, changed_no from ledger_months"
_CATALOGUE_COUNTERS = ("offers", "products")

Fingerprint = tuple[tuple[int, ...], ...]
TableBuilder = Callable[[NightArrays, LookupContext], AnswerTable | None]


@dataclass(frozen=True)
class CatalogueState:
    """What was made of one state of the catalogue, the champions and the published arrays.

    `tables` has those models whose arrays hold. `day` is the shop's day for which they do. At `recheck_at`, by the
    monotonic clock, the champions are compared once more: they may be read a little later than their pointers.
    """

    key: Hashable
    fingerprint: Fingerprint
    day: date | None
    recheck_at: float = float("inf")
    champions: Mapping[str, Champion] = field(default_factory=dict)
    tables: Mapping[str, AnswerTable] = field(default_factory=dict)


class ShopState:
    """The state of one shop in this process."""

    def __init__(self, runtime: ServerRuntime, builders: Mapping[str, TableBuilder]) -> None:
        self.runtime = runtime
        self._builders = builders
        self._reader = direct_reads.get_reader(runtime.shop)
        self._version: Hashable = None
        self._counters: dict[str, int] = {}
        self._standings: dict[tuple[str, NightMark], CustomerStanding | None] = {}
        self._interaction_counts: dict[int, tuple[int, int]] = {}
        self._now: tuple[Hashable, datetime] | None = None
        self._checked_at = float("-inf")
        self._fingerprint: Fingerprint = ()
        self._catalogue: CatalogueState | None = None
        self._watched: tuple[str, ...] = _CATALOGUE_COUNTERS
        self._watches_months = False
        self._lock = Lock()

    def notice_commits(self, version: Hashable = None) -> None:
        """Forget what may have changed if anything was committed; `version` is that of the database, if it was read."""
        version = version or self._reader.read_version()
        if version != self._version:
            self._counters = {name: int(number) for name, number in self._reader.read(_COUNTERS)}
            self._standings, self._interaction_counts = {}, {}
            self._version = version

    @property
    def now(self) -> datetime:
        """The current time by the shop's clock."""
        if self.runtime.shop.clock == "real":
            return self.runtime.now()
        version, now = self._version, self._now
        if now is None or now[0] != version:
            now = self._now = version, self.runtime.now()
        return now[1]

    def get_catalogue(self) -> CatalogueState | None:
        """The state of the catalogue; None where it must be made again by `refresh`, which takes some time."""
        current = self._catalogue
        if (
            current is None
            or current.key != self._catalogue_key(self._counters)
            or current.fingerprint != self._look_at_pointers()
        ):
            return None
        if current.day is not None and current.day != self._today():
            return None
        return current if time.monotonic() < current.recheck_at else None

    def refresh(self) -> CatalogueState:
        """Make the state of the catalogue again; several requests at once do it once."""
        with self._lock:
            current = self.get_catalogue() or self._read_catalogue()
            self._catalogue = current
            return current

    def find_standings(self, customer_ids: Sequence[str], mark: NightMark) -> list[CustomerStanding | None]:
        """The standing of each customer since the night of the mark; None where the id needs a closer look."""
        standings = self._standings
        missing = [name for name in dict.fromkeys(customer_ids) if (name, mark) not in standings]
        if missing:
            if len(standings) > MAX_STANDINGS:
                standings = self._standings = {}
                missing = list(dict.fromkeys(customer_ids))
            current = current_scores.find_standings(self._reader, missing, mark)
            standings.update({(name, mark): current.get(name) for name in missing})
        return [standings[name, mark] for name in customer_ids]

    def read_interaction_counts(self, customer_keys: Sequence[int]) -> list[tuple[int, int]]:
        """The counts of each customer's interactions now (see `current_scores.count_interactions`), until a commit."""
        counts_by_key = self._interaction_counts
        missing = [key for key in dict.fromkeys(customer_keys) if key not in counts_by_key]
        if missing:
            if len(counts_by_key) > MAX_STANDINGS:
                counts_by_key = self._interaction_counts = {}
                missing = list(dict.fromkeys(customer_keys))
            counts = current_scores.read_interaction_counts(self._reader, missing)
            counts_by_key.update({key: counts.get(key, (0, 0)) for key in missing})
        return [counts_by_key[key] for key in customer_keys]

    def _today(self) -> date:
        return self.now.astimezone(self.runtime.shop.zone).date()

    def _catalogue_key(self, counters: Mapping[str, int]) -> Hashable:
        if self._watches_months:
            return tuple(sorted(counters.items()))
        return tuple(counters.get(name, 0) for name in self._watched)

    def _look_at_pointers(self) -> Fingerprint:
        at = time.monotonic()
        if at - self._checked_at >= CHECK_SECONDS:
            home = self.runtime.shop.home
            paths = [home / "champions" / f"{name}.json" for name in MODEL_NAMES]
            paths += [night_arrays.pointer_path(home, name) for name in MODEL_NAMES]
            self._fingerprint = tuple(_file_fingerprint(path) for path in paths)
            self._checked_at = at
        return self._fingerprint

    def _read_catalogue(self) -> CatalogueState:
        runtime, shop = self.runtime, self.runtime.shop
        # Taken before anything is read: what is read may be newer, and is then read once more.
        fingerprint, counters, at = self._look_at_pointers(), self._counters, self.now
        current = eligibility_inputs.load_current_offers(shop)
        inventory = offer_inventory.load_offer_inventory(shop)
        has_budgets = bool(inventory.offer_table.offers["budget"].notna().any())
        self._watches_months = bool(current.unsold_products)
        self._watched = (*_CATALOGUE_COUNTERS, "interactions") if has_budgets else _CATALOGUE_COUNTERS
        key = self._catalogue_key(counters)
        champions = {name: each for name in MODEL_NAMES if (each := runtime.champions.get(name))}
        active_rules = merchandising.load_active_rules(shop, at)
        context = LookupContext(runtime, inventory, eligibility_inputs.with_budgets_as_of(shop, inventory.offer_table))
        tables: dict[str, AnswerTable] = {}
        for name, build in self._builders.items():
            arrays = self._load_current(name, champions, inventory, active_rules)
            table = build(arrays, context) if arrays else None
            if table is not None:
                tables[name] = table
        day = self._today() if tables else None
        return CatalogueState(key, fingerprint, day, self._choose_recheck(fingerprint), champions, tables)

    def _choose_recheck(self, fingerprint: Fingerprint) -> float:
        previous = self._catalogue
        if previous is None or previous.fingerprint != fingerprint:
            return time.monotonic() + 2 * CHECK_SECONDS
        if self.runtime.champions.is_checking:
            return time.monotonic() + CHECK_SECONDS
        return time.monotonic() + RETRY_SECONDS if self.runtime.champions.errors else float("inf")

    def _load_current(
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


def _file_fingerprint(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size
