"""Whom contact brings back, from a shop's own records to what is kept: found where it is there, and said where not."""

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from customers import clock, setup
from customers.scores import score_store, uplift_result
from customers.shop import settings
from customers.shop.settings import Shop
from features.store import feature_store
from models.registry import bundle
from pipelines import operations
from pipelines.errors import NothingToDo
from pipelines.nightly import training_data, uplift_scores
from pipelines.nightly.run_context import open_run_context
from pipelines.reporting import terminal_text
from pipelines.uplift import campaign_waves
from pipelines.uplift import run as uplift_run

OPENED = datetime(2025, 1, 6, 9, tzinfo=ZoneInfo("America/New_York"))
PEOPLE, DAYS = 400, 180
MAILED = (70, 105, 140)
LINE = ("order_id", "customer_id", "product_id", "sold_at", "quantity", "amount")
MET = ("interaction_id", "customer_id", "happened_at", "channel", "kind", "campaign_id")


def silent(text: str) -> None:
    """Nobody watches in a test."""


def records(folder: Path, moved: float = 0.6) -> tuple[list[Path], list[Path]]:
    """Half of the customers come every week whatever happens; the others seldom, but when a letter comes.

    Every letter goes to half of either, drawn by lot, and brings `moved` of the latter. Lines and letters, a file each.
    """
    rng = np.random.default_rng(3)
    lines: list[tuple[object, ...]] = []
    met: list[tuple[object, ...]] = []
    for number in range(PEOPLE):
        who, gap = f"c{number:03d}", 8.0 if number < PEOPLE / 2 else 55.0
        visits = np.cumsum(rng.exponential(gap, 60)) + rng.uniform(0, 20)
        days = {int(day) for day in visits if day < DAYS} | {int(rng.integers(20))}
        for nth, day in enumerate(day for day in MAILED if rng.random() < 0.5):
            met.append(
                (f"{who}-{nth}", who, (OPENED + timedelta(days=day)).isoformat(), "post", "sent", f"letter-{day}")
            )
            if gap > 30 and rng.random() < moved:
                days.add(day + int(rng.integers(1, 15)))
        lines += [
            (f"{who}-{day}", who, "p1", (OPENED + timedelta(days=day)).isoformat(), 1, round(10 + rng.gamma(2, 5), 2))
            for day in sorted(days)
        ]
    return [_written(folder / "lines.csv", LINE, lines)], [_written(folder / "letters.csv", MET, met)]


def _written(path: Path, head: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    pd.DataFrame(rows, columns=list(head)).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def unmailed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, list[Path]]:
    """A shop with its sales, and the letters that nobody has told it of."""
    folder = tmp_path_factory.mktemp("letters")
    shop = setup.init_home(folder / "home", timezone="America/New_York", currency="EUR", now="last-sale")
    lines, letters = records(folder)
    operations.load_records(shop, "transactions", lines, source="files")
    return shop, letters


@pytest.fixture(scope="module")
def shop(unmailed: tuple[Shop, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    home = shutil.copytree(unmailed[0].home, tmp_path_factory.mktemp("mailed") / "home")
    there = settings.open_shop(home)
    operations.load_records(there, "interactions", unmailed[1], source="files")
    return there


@pytest.fixture(scope="module")
def told(shop: Shop) -> dict[str, Any]:
    return uplift_run.run_uplift(shop, progress=silent)


def test_letters_that_bring_the_rare_back_are_evidence(told: dict[str, Any]) -> None:
    assert (told["verdict"], told["outcome"]) == ("evidence", "return")
    assert len(told["mailings"]) == len(MAILED)
    found = told["outcomes"]["return"]
    assert found["figures"]["x.first"]["low"] > 0.1
    assert found["figures"]["x.first"]["value"] > found["figures"]["x.rest"]["value"] + 0.1
    assert abs(found["figures"]["telling"]["value"] - 0.5) < 0.05, "a lottery cannot be foretold"
    assert found["placebo"]["average"]["low"] <= 0 <= found["placebo"]["average"]["high"]


def test_the_finding_is_written_drawn_and_readable(shop: Shop, told: dict[str, Any]) -> None:
    folder = shop.home / "exports" / "uplift"
    assert {"after", "before"} == set(pd.read_csv(folder / "uplift.csv")["asked"])
    assert json.loads((folder / "uplift.json").read_text())["verdict"] == "evidence"
    text = terminal_text.format_uplift(told)
    assert text.startswith("evidence: return: the third with the highest predicted effect")
    assert "in the days before" in text
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")
    assert (folder / "uplift.png").read_bytes().startswith(b"\x89PNG")


def test_every_night_tells_whom_a_letter_would_save(shop: Shop, told: dict[str, Any]) -> None:
    with open_run_context(shop, None, {}, silent) as tonight:
        assert uplift_scores.write_uplift_scores(shop, tonight.features, tonight.as_of) == PEOPLE
    kept = score_store.load_run_scores(shop, "uplift")
    rare = (kept["customer_key"].map(_names(shop)) >= f"c{PEOPLE // 2:03d}").to_numpy()
    effect = kept["value"].to_numpy()
    assert effect[rare].mean() > effect[~rare].mean() + 0.1
    assert (np.abs(effect) <= 1).all()
    certain, even = (pd.Series(quiet, kept.index) for quiet in (0.0, 0.5))
    worth = pd.Series(100.0, kept.index)
    saved = [uplift_result.estimate_saved_value(shop, kept["customer_key"], worth, quiet) for quiet in (certain, even)]
    np.testing.assert_allclose(saved, [100 * effect, 200 * effect])
    assert uplift_result.unavailable_reason(shop) is None


def _names(shop: Shop) -> dict[int, str]:
    from customers.people import lookup

    return lookup.find_ids(shop, score_store.load_run_scores(shop, "uplift")["customer_key"])


def test_who_somebody_is_is_never_asked(shop: Shop, told: dict[str, Any]) -> None:
    champion = bundle.open_champion(shop.home / "champions", "uplift")
    assert champion is not None
    protected = ("gender", "birth", "age_band", "income", "marital", "household", "language", "postcode", "city")
    assert not [column for column in champion.model.columns if any(word in column for word in protected)]


def test_without_evidence_there_is_no_number_and_a_word_why(shop: Shop, told: dict[str, Any], tmp_path: Path) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    finding = uplift_result.load_result(shop)
    assert finding is not None
    uplift_result.save_result(
        shop,
        uplift_result.UpliftResult(
            finding.as_of, uplift_result.NOT_ENOUGH_EVIDENCE, "it could be chance", None, 28, None
        ),
    )
    keys = pd.Series([1, 2])
    assert uplift_result.estimate_saved_value(shop, keys, pd.Series([5.0, 5.0]), pd.Series([0.5, 0.5])).isna().all()
    assert uplift_result.unavailable_reason(shop) == "not enough evidence: it could be chance"
    (shop.home / "uplift.json").unlink()
    assert "regulars uplift" in str(uplift_result.unavailable_reason(shop))


def test_an_effect_model_of_another_version_speaks_for_nobody(shop: Shop, told: dict[str, Any], tmp_path: Path) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    for file in (shop.home / "champions" / "uplift").glob("*/uplift.json"):
        file.write_text("{}")
    assert (
        uplift_scores.write_uplift_scores(shop, feature_store.open_store(shop.home / "features"), clock.now(shop)) == 0
    )
    assert "regulars uplift" in str(uplift_result.unavailable_reason(shop))


def test_a_shop_that_has_contacted_nobody_is_told_what_to_load(unmailed: tuple[Shop, list[Path]]) -> None:
    with pytest.raises(NothingToDo, match="contacted nobody yet"):
        uplift_run.run_uplift(unmailed[0], progress=silent)


def test_a_shop_without_sales_is_told_what_to_load(tmp_path: Path) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR")
    with pytest.raises(NothingToDo, match="nothing has been sold"):
        uplift_run.run_uplift(shop, progress=silent)


@pytest.mark.parametrize(
    ("everybody", "day", "words"),
    [
        (True, 100, "1 went to everybody or nearly so.*drawn by lot"),
        (False, 100, "1 went to too few"),
        (True, DAYS - 10, "less than 28 days ago"),
        (True, 5, "of the first sale"),
    ],
)
def test_mailings_without_anybody_to_compare_with_are_named(
    unmailed: tuple[Shop, list[Path]], tmp_path: Path, everybody: bool, day: int, words: str
) -> None:
    shop = settings.open_shop(shutil.copytree(unmailed[0].home, tmp_path / "home"))
    whom = range(PEOPLE if everybody else 3)
    at = (OPENED + timedelta(days=day)).isoformat()
    letters = [(f"i{number}", f"c{number:03d}", at, "email", "sent", "spring") for number in whom]
    operations.load_records(shop, "interactions", [_written(tmp_path / "letters.csv", MET, letters)], source="files")
    world, _ = training_data.load_training_data(shop, clock.now(shop))
    with pytest.raises(NothingToDo, match=words):
        campaign_waves.find_waves(shop, world)


def test_a_campaign_that_goes_out_over_some_days_is_one_mailing(
    unmailed: tuple[Shop, list[Path]], tmp_path: Path
) -> None:
    shop = settings.open_shop(shutil.copytree(unmailed[0].home, tmp_path / "home"))
    letters = [
        (
            f"i{number}",
            f"c{number:03d}",
            (OPENED + timedelta(days=100 + number % 3)).isoformat(),
            "email",
            "sent",
            "spring",
        )
        for number in range(0, PEOPLE, 2)
    ]
    operations.load_records(shop, "interactions", [_written(tmp_path / "letters.csv", MET, letters)], source="files")
    world, _ = training_data.load_training_data(shop, clock.now(shop))
    found = campaign_waves.find_waves(shop, world)
    assert [world.calendar.local_day(day) for day in found.first_days.values()] == [
        (OPENED + timedelta(days=100)).date()
    ]
    assert [world.calendar.local_day(day) for day in found.cutoffs] == [(OPENED + timedelta(days=103)).date()]
    rows = pd.DataFrame(
        {
            "customer_key": found.contacts["customer_key"],
            "as_of": pd.to_datetime(found.cutoffs * (PEOPLE // 2), utc=True),
        }
    )
    assert found.is_contacted(rows, world.calendar).all()
    assert not found.is_otherwise_contacted(rows, world.calendar).any()
    assert found.excluded_customers.empty, "whom a lot has drawn had not bought more than usual"


def thanked(shop: Shop, *, others: float) -> list[tuple[object, ...]]:
    """Vouchers: half of those who buy in either of two weeks get one a day later, of the others so many by lot."""
    rng = np.random.default_rng(5)
    world, _ = training_data.load_training_data(shop, clock.now(shop))
    names, met = _known(shop), []
    for first in (70, 120):
        begins = pd.Timestamp((OPENED + timedelta(days=first)).date())
        sold = world.purchases[world.purchases["day"].between(begins, begins + timedelta(days=5))]
        bought = sold.groupby("customer_key")["day"].min() + timedelta(days=1)
        for key, name in names.items():
            day = bought.get(key, begins + timedelta(days=int(rng.integers(7))))
            if rng.random() < (0.5 if key in bought.index else others):
                at = OPENED + timedelta(days=first + (day - begins).days)
                met.append((f"v{first}-{name}", name, at.isoformat(), "email", "sent", f"thanks-{first}"))
    return met


def _known(shop: Shop) -> dict[int, str]:
    from customers.people import lookup

    world, _ = training_data.load_training_data(shop, clock.now(shop))
    return lookup.find_ids(shop, world.purchases["customer_key"].drop_duplicates())


def thanking(unmailed: Shop, folder: Path, *, others: float) -> Shop:
    """The same shop after it has sent vouchers of thanks, to some of the others too."""
    shop = settings.open_shop(shutil.copytree(unmailed.home, folder / "home"))
    vouchers = _written(folder / "vouchers.csv", MET, thanked(shop, others=others))
    operations.load_records(shop, "interactions", [vouchers], source="files")
    return shop


def test_a_voucher_that_thanks_for_a_purchase_is_no_cause_of_it(
    unmailed: tuple[Shop, list[Path]], tmp_path: Path
) -> None:
    shop = thanking(unmailed[0], tmp_path, others=0.0)
    with pytest.raises(NothingToDo, match="2 went to customers because they had just bought"):
        uplift_run.run_uplift(shop, progress=silent)


def test_where_some_vouchers_are_thanks_nobody_is_compared_who_bought_while_they_went_out(
    unmailed: tuple[Shop, list[Path]], tmp_path: Path
) -> None:
    shop = thanking(unmailed[0], tmp_path, others=0.3)
    world, _ = training_data.load_training_data(shop, clock.now(shop))
    found = campaign_waves.find_waves(shop, world)
    frame = _frame(world.purchases["customer_key"].unique(), found)
    rows = found.comparable_rows(frame, world.calendar)
    moments = [pd.Timestamp(moment).tz_localize(None) for moment in (*found.first_days.values(), *found.cutoffs)]
    bought = world.purchases[world.purchases["day"].between(moments[0], moments[2] - timedelta(days=1))]
    first = rows[rows["as_of"] == pd.Timestamp(found.cutoffs[0])]
    assert set(first["customer_key"]) == set(frame["customer_key"]) - set(bought["customer_key"])
    assert 30 <= found.is_contacted(first, world.calendar).sum() < len(first)
    assert (rows["recency_days"] == 1).all(), "purchases are known as of the day after"
    assert (rows["received_total"] == 0).all(), "what was sent is known as of the first day"


def _frame(keys: np.ndarray, found: campaign_waves.CampaignWaves) -> pd.DataFrame:
    """Everybody's figures at either moment of each mailing: those that know of it are 1."""
    parts = [
        pd.DataFrame({"customer_key": keys, "as_of": pd.Timestamp(moment).tz_convert("UTC")}).assign(
            recency_days=knows, received_total=knows
        )
        for first, told in ((0, found.first_days.values()), (1, found.cutoffs))
        for moment, knows in ((each, float(first)) for each in told)
    ]
    return pd.concat(parts, ignore_index=True)


def test_letters_of_no_campaign_are_no_mailing(unmailed: tuple[Shop, list[Path]], tmp_path: Path) -> None:
    shop = settings.open_shop(shutil.copytree(unmailed[0].home, tmp_path / "home"))
    at = (OPENED + timedelta(days=100)).isoformat()
    letters = [(f"i{number}", f"c{number:03d}", at, "email", "sent", None) for number in range(0, PEOPLE, 2)]
    operations.load_records(shop, "interactions", [_written(tmp_path / "letters.csv", MET, letters)], source="files")
    world, _ = training_data.load_training_data(shop, clock.now(shop))
    with pytest.raises(NothingToDo, match="campaign_id"):
        campaign_waves.find_waves(shop, world)
