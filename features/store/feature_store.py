"""The store: one door to Feast, through which training reads the past and serving reads the present."""

import atexit
import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import frames

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

SETTINGS = Path(__file__).with_name("feature_store.yaml")
PLACE = "entity_place"
ONLINE = {
    **dict.fromkeys(("redis", "rediss"), "features.online_redis.SteadyRedisOnlineStore"),
    **dict.fromkeys(("postgresql", "postgresql+psycopg"), "features.online_postgres.SteadyPostgresOnlineStore"),
}


class NoSnapshot(LookupError):
    """There is nothing to put into the online store yet."""


class Store:
    """The features of one home; see `open`."""

    def __init__(self, folder: Path, feast: "FeatureStore") -> None:
        self.folder = folder
        self.feast = feast
        self._services: dict[str, FeatureService] = {}

    def apply(self) -> None:
        """Tell Feast of every view and service; harmless to repeat, and works before any snapshot exists."""
        from features import definitions

        (self.folder / "feast").mkdir(parents=True, exist_ok=True)
        with _quiet():
            self.feast.apply(definitions.everything(self.folder))
        self._services.clear()

    def columns(self, service: str) -> list[str]:
        """The features of a service, in the order in which frames have them."""
        return list(self._kinds(service))

    def history(self, service: str, entities: pd.DataFrame) -> pd.DataFrame:
        """The features of each (customer_key, event_timestamp) as they stood then, from the offline store.

        Same rows in the same order as entities, same index; then the service's columns as float64 (missing is
        NaN) or arrays (missing is None). A moment between two snapshots sees the one before it.
        """
        kinds = self._kinds(service)
        asked = entities[["customer_key", "event_timestamp"]].reset_index(drop=True)
        asked = asked.assign(event_timestamp=pd.to_datetime(asked["event_timestamp"], utc=True))
        if asked.empty:
            return frames.frame(asked, {name: [] for name in kinds}, kinds)
        asked[PLACE] = np.arange(len(asked))
        with _quiet():
            job = self.feast.get_historical_features(asked, self._service(service))
            found = job.to_df()
        # Some offline stores drop rows that they know nothing of, and none promises an order.
        found = found.set_index(PLACE).reindex(asked[PLACE])
        columns = {name: found[name].to_numpy() for name in kinds}
        return frames.frame(asked.drop(columns=PLACE), columns, kinds).set_axis(entities.index)

    def materialise(self, as_of: datetime) -> dict[str, int]:
        """Put each view's latest rows, not after as_of, into the online store; return how many of each.

        Exactly the rows of that one moment: again changes nothing, and an older moment never takes the place
        of a newer one, nor of what was pushed since.
        """
        return {view.name: self._materialise(view.name, as_of) for view in self._views()}

    def now(self, service: str, keys: Sequence[int]) -> pd.DataFrame:
        """The features of customers as they stand in the online store, in the order of keys.

        Columns: customer_key, event_timestamp (of the newest view read; NaT for a customer not known there),
        then the service's columns as in `history`.
        """
        kinds = self._kinds(service)
        frame = pd.DataFrame({"customer_key": np.asarray(keys, dtype="int64")})
        if frame.empty:
            return frames.frame(frame.assign(event_timestamp=frames.newest([], 0)), {name: [] for name in kinds}, kinds)
        asked = {"customer_key": frame["customer_key"].tolist()}
        answer = self.feast.get_online_features(self._service(service), asked).proto
        by_name = dict(zip(answer.metadata.feature_names.val, answer.results, strict=True))
        frame["event_timestamp"] = frames.newest([by_name[name].event_timestamps for name in kinds], len(frame))
        return frames.frame(frame, {name: frames.unpacked(by_name[name].values, kinds[name]) for name in kinds}, kinds)

    def held(self, key: int) -> dict[str, Any]:
        """Every feature that the online store holds of one customer, by its name; empty before the first night."""
        from features import definitions

        with _quiet():
            known = {service.name for service in self.feast.list_feature_services()}
            rows = [self.now(service, [key]) for service in definitions.SERVICES if service in known]
        own = [row.drop(columns=["customer_key", "event_timestamp"]) for row in rows]
        return {str(name): frame[name].iloc[0] for frame in own for name in frame}

    def push(self, view: str, frame: pd.DataFrame) -> None:
        """Put rows of a view (customer_key, event_timestamp and all its columns) into the online store.

        A row older than what is there is left out without a word: the newer one stays.
        """
        if frame.empty:
            return
        happened = pd.to_datetime(frame["event_timestamp"], utc=True)
        with _quiet():
            self.feast.write_to_online_store(view, frame.assign(event_timestamp=happened, created=happened))

    def forget(self, keys: Sequence[int]) -> None:
        """Remove these customers from every view's online values and from every snapshot; harmless to repeat."""
        if not len(keys):
            return
        from features import snapshot
        from features.online import customers

        with _quiet():
            online: Any = self.feast._get_provider().online_store
            online.forget(self.feast.config, self._views(), customers(keys))
        for part in sorted(self.folder.glob("*/part.parquet")):
            _without(part, keys)
        snapshot.sweep(self.folder)

    def _materialise(self, view: str, as_of: datetime) -> int:
        moment, rows = _latest(self.folder / view / "part.parquet", as_of)
        if moment is None:
            return 0
        with _quiet():
            self.feast.materialize(moment, moment, feature_views=[view])
        return rows

    def _views(self) -> list[Any]:
        return sorted(self.feast.list_feature_views(), key=lambda view: view.name)

    def _service(self, name: str) -> "FeatureService":
        # Feast rebuilds a service from its registry each time, at a millisecond for every few features.
        if name not in self._services:
            self._services[name] = self.feast.get_feature_service(name, allow_cache=True)
        return self._services[name]

    def _kinds(self, service: str) -> dict[str, str | None]:
        """What each feature's list holds, in numpy's words; None for a plain number."""
        chosen = self._service(service).feature_view_projections
        return {field.name: frames.element(field.dtype) for view in chosen for field in view.features}


def open(folder: Path, online: str | None = None) -> Store:
    """The store over a folder of snapshots; everything Feast keeps lies in folder/feast.

    online is the address of an online store, redis://[:PASSWORD@]HOST:PORT/DB or
    postgresql://USER:PASSWORD@HOST:PORT/DATABASE; without it, a SQLite file in the folder.
    Settings are read here and now, so two stores in one process stay apart.
    """
    place = Path(folder).absolute()
    (place / "feast").mkdir(parents=True, exist_ok=True)
    return Store(place, _feast(place, json.dumps(_online(place, online))))


def _online(folder: Path, address: str | None) -> dict[str, str]:
    """Feast's own setting of the online store at an address."""
    if address is None:
        return {"type": "features.online.SteadySqliteOnlineStore", "path": str(folder / "feast" / "online.db")}
    parts = urlsplit(address)
    kind = ONLINE.get(parts.scheme)
    if kind is None or not parts.hostname:
        raise ValueError(
            "online_store must be redis://HOST:PORT/DB or postgresql://USER@HOST:PORT/DATABASE; "
            "leave it out for SQLite in the home"
        )
    return {"type": kind, "url": address.replace("postgresql+psycopg://", "postgresql://", 1)}


def _feast(folder: Path, online: str) -> "FeatureStore":
    os.environ.setdefault("FEAST_USAGE", "False")
    with _quiet():
        import ibis
        import yaml
        from feast import FeatureStore, RepoConfig

        # Feast compares times in the session's zone, which would otherwise be this machine's.
        ibis.get_backend().raw_sql("set timezone = 'UTC'")
        # A DuckDB still open when Python leaves fills the terminal with fifty lines on leaks that are none.
        atexit.register(_let_go)
        text = Template(SETTINGS.read_text(encoding="utf-8"))
        settings = yaml.safe_load(text.substitute(REGULARS_FEAST_HOME=folder, REGULARS_FEAST_ONLINE=online))
        config = RepoConfig(**settings)
        config.repo_path = SETTINGS.parent
        return FeatureStore(config=config)


def _let_go() -> None:
    import ibis

    ibis.options.default_backend = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Feast's advice about itself out of the shop's log: warnings, prints, and its logger."""
    logger = logging.getLogger("feast")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _latest(path: Path, as_of: datetime) -> tuple[datetime | None, int]:
    if not path.exists():
        raise NoSnapshot(f"there is no snapshot at {path}; write one first: regulars run")
    times = pq.read_table(path, columns=["event_timestamp"])["event_timestamp"]
    if not len(times):
        return None, 0
    times = times.filter(pc.less_equal(times, pc.cast(as_of.astimezone(UTC), times.type)))
    if not len(times):
        raise NoSnapshot(f"no snapshot in {path} is as old as {as_of}; write one first: regulars run")
    latest = pc.max(times)
    return latest.as_py(), int(pc.sum(pc.equal(times, latest)).as_py())


def _without(part: Path, keys: Sequence[int]) -> None:
    """The same file without the rows of some customers; one that knows nobody is left as it is."""
    if "customer_key" not in pq.read_schema(part).names:
        return
    table = pq.read_table(part)
    theirs = pc.is_in(table["customer_key"], pa.array(keys, pa.int64()))
    if pc.any(theirs).as_py():
        beside = part.with_name(f".part.{os.getpid()}.parquet")
        pq.write_table(table.filter(pc.invert(theirs)), beside)
        os.replace(beside, part)
