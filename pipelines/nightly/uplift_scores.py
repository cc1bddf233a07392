"""Persuaded: what is kept of a finding about contact, and a score of each customer by it, night after night."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from customers import persuasion, scores
from customers.persuasion import Finding
from customers.shop import Shop
from features import store
from models import bundle
from models.base import Unfit
from models.bundle import BadBundle, Champion
from models.uplift import Uplift
from training import plans

#: Columns of customers are those of churn: what the shop knows of them, and nothing of who they are.
SERVICE = plans.plan("churn").service


def keep(shop: Shop, finding: Finding, model: Uplift | None) -> Finding:
    """Keep the finding and its effect model, and score everybody of the last night by it."""
    if model is not None:
        finding = replace(finding, version=_published(shop, finding, model))
    persuasion.keep(shop, finding)
    night = scores.newest(shop, "churn")
    if night is not None and (shop.home / "features").exists():
        tell(shop, store.open(shop.home / "features", shop.online_store), night.as_of)
    return finding


def tell(shop: Shop, features: store.Store, as_of: datetime) -> int:
    """Write what contact adds for each customer as of a night; how many. Nothing without evidence."""
    finding = persuasion.kept(shop)
    if finding is None or not finding.holds:
        return 0
    try:
        speaker = bundle.open_champion(shop.home / "champions", persuasion.MODEL)
        rows = _scored(features, speaker, as_of) if speaker else []
    except (BadBundle, Unfit) as reason:
        doubt = f"{reason}; run: regulars uplift"
        persuasion.keep(shop, replace(finding, verdict=persuasion.TOO_LITTLE, why=doubt, outcome=None))
        return 0
    if not speaker or not rows:
        return 0
    run = scores.begin(shop, persuasion.MODEL, speaker.version, as_of)
    detail = json.dumps({"outcome": finding.outcome, "days": finding.days})
    written = scores.record(shop, run, [(key, effect, detail) for key, effect in rows])
    scores.finish(shop, run)
    return written


def _scored(features: store.Store, speaker: Champion, as_of: datetime) -> list[tuple[int, float]]:
    path = features.folder / "rhythm" / "part.parquet"
    if not path.exists():
        return []
    known = pq.read_table(path, columns=["customer_key", "event_timestamp"]).to_pandas()
    frame = features.history(SERVICE, known[known["event_timestamp"] == as_of])
    effects = speaker.model.score(frame) if len(frame) else []
    return list(zip(frame["customer_key"].tolist(), map(float, effects), strict=True))


def _published(shop: Shop, finding: Finding, model: Uplift) -> str:
    version = "".join(letter for letter in finding.as_of[:19] if letter.isalnum())
    # A folder of this name that a killed run leaves behind is swept away by the next night.
    with tempfile.TemporaryDirectory(prefix=".found-", dir=shop.home) as beside:
        written = bundle.write(model, Path(beside) / "bundle", facts={"as_of": finding.as_of, "days": finding.days})
        version = f"{version}-{written.sha256[:8]}"
        bundle.publish(Path(beside) / "bundle", shop.home / "champions", persuasion.MODEL, version)
    return version
