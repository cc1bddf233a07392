"""The uplift analysis of past mailings: an effect is found where there is one, and its absence is reported."""

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

pytestmark = pytest.mark.acceptance  # whole nights

OPENED = datetime(2025, 1, 6, 9, tzinfo=ZoneInfo("America/New_York"))
PEOPLE, DAYS = 400, 180
MAILING_DAYS = (70, 105, 140)
LINE = ("order_id", "customer_id", "product_id", "sold_at", "quantity", "amount")
INTERACTION = ("interaction_id", "customer_id", "happened_at", "channel", "kind", "campaign_id")


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


def write_records(folder: Path, response: float = 0.6) -> tuple[list[Path], list[Path]]:
    """Half of the customers buy every week in any case; the others rarely, except after a letter.

    Every letter goes to a random half of both groups, and a share `response` of the rare customers then buys.
    Returns the files of sales lines and of letters.
    """
    rng = np.random.default_rng(3)
    lines: list[tuple[object, ...]] = []
    letters: list[tuple[object, ...]] = []
    for number in range(PEOPLE):
        who, gap = f"c{number:03d}", 8.0 if number < PEOPLE / 2 else 55.0
        visits = np.cumsum(rng.exponential(gap, 60)) + rng.uniform(0, 20)
        days = {int(day) for day in visits if day < DAYS} | {int(rng.integers(20))}
        for nth, day in enumerate(day for day in MAILING_DAYS if rng.random() < 0.5):
            letters.append(
                (f"{who}-{nth}", who, (OPENED + timedelta(days=day)).isoformat(), "post", "sent", f"letter-{day}")
            )
            if gap > 30 and rng.random() < response:
                days.add(day + int(rng.integers(1, 15)))
        lines += [
            (f"{who}-{day}", who, "p1", (OPENED + timedelta(days=day)).isoformat(), 1, round(10 + rng.gamma(2, 5), 2))
            for day in sorted(days)
        ]
    return [_write_csv(folder / "lines.csv", LINE, lines)], [_write_csv(folder / "letters.csv", INTERACTION, letters)]


def _write_csv(path: Path, head: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    pd.DataFrame(rows, columns=list(head)).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def unmailed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, list[Path]]:
    """A shop with its sales, and the file of letters, which is not loaded yet."""
    folder = tmp_path_factory.mktemp("letters")
    shop = setup.init_home(folder / "home", timezone="America/New_York", currency="EUR", now="last-sale")
    lines, letters = write_records(folder)
    operations.load_records(shop, "transactions", lines, source="files")
    return shop, letters


@pytest.fixture(scope="module")
def shop(unmailed: tuple[Shop, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop with its letters loaded."""
    home = shutil.copytree(unmailed[0].home, tmp_path_factory.mktemp("mailed") / "home")
    shop = settings.open_shop(home)
    operations.load_records(shop, "interactions", unmailed[1], source="files")
    return shop


@pytest.fixture(scope="module")
def summary(shop: Shop) -> dict[str, Any]:
    """The summary of the uplift analysis of that shop."""
    return uplift_run.run_uplift(shop, progress=ignore_progress)


def test_letters_that_bring_rare_customers_back_are_evidence(summary: dict[str, Any]) -> None:
    assert (summary["verdict"], summary["outcome"]) == ("evidence", "return")
    assert len(summary["mailings"]) == len(MAILING_DAYS)
    outcome = summary["outcomes"]["return"]
    assert outcome["figures"]["x.first"]["low"] > 0.1
    assert outcome["figures"]["x.first"]["value"] > outcome["figures"]["x.rest"]["value"] + 0.1
    assert abs(outcome["figures"]["telling"]["value"] - 0.5) < 0.05, "random assignment cannot be predicted"
    assert outcome["placebo"]["average"]["low"] <= 0 <= outcome["placebo"]["average"]["high"]


def test_the_result_is_written_plotted_and_printed(shop: Shop, summary: dict[str, Any]) -> None:
    folder = shop.home / "exports" / "uplift"
    assert {"after", "before"} == set(pd.read_csv(folder / "uplift.csv")["asked"])
    assert json.loads((folder / "uplift.json").read_text())["verdict"] == "evidence"
    text = terminal_text.format_uplift(summary)
    assert text.startswith("evidence: return: the third with the highest predicted effect")
    assert "in the days before" in text
    pytest.importorskip("matplotlib", reason="plots are drawn with matplotlib")
    assert (folder / "uplift.png").read_bytes().startswith(b"\x89PNG")


def test_a_nightly_run_scores_the_effect_of_a_letter_on_each_customer(shop: Shop, summary: dict[str, Any]) -> None:
    with open_run_context(shop, None, {}, ignore_progress) as context:
        assert uplift_scores.write_uplift_scores(shop, context.features, context.as_of) == PEOPLE
    scores = score_store.load_run_scores(shop, "uplift")
    rare = (scores["customer_key"].map(_customer_ids(shop)) >= f"c{PEOPLE // 2:03d}").to_numpy()
    effect = scores["value"].to_numpy()
    assert effect[rare].mean() > effect[~rare].mean() + 0.1
    assert (np.abs(effect) <= 1).all()
    no_churn, even_churn = (pd.Series(churn, scores.index) for churn in (0.0, 0.5))
    value = pd.Series(100.0, scores.index)
    saved = [
        uplift_result.estimate_saved_value(shop, scores["customer_key"], value, churn)
        for churn in (no_churn, even_churn)
    ]
    np.testing.assert_allclose(saved, [100 * effect, 200 * effect])
    assert uplift_result.unavailable_reason(shop) is None


def _customer_ids(shop: Shop) -> dict[int, str]:
    from customers.people import lookup

    return lookup.find_ids(shop, score_store.load_run_scores(shop, "uplift")["customer_key"])


def test_the_effect_model_uses_no_protected_attribute(shop: Shop, summary: dict[str, Any]) -> None:
    champion = bundle.open_champion(shop.home / "champions", "uplift")
    assert champion is not None
    protected = ("gender", "birth", "age_band", "income", "marital", "household", "language", "postcode", "city")
    assert not [column for column in champion.model.columns if any(word in column for word in protected)]


def test_without_evidence_there_is_no_saved_value_and_a_reason(
    shop: Shop, summary: dict[str, Any], tmp_path: Path
) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    result = uplift_result.load_result(shop)
    assert result is not None
    uplift_result.save_result(
        shop,
        uplift_result.UpliftResult(
            result.as_of, uplift_result.NOT_ENOUGH_EVIDENCE, "it could be chance", None, 28, None
        ),
    )
    keys = pd.Series([1, 2])
    assert uplift_result.estimate_saved_value(shop, keys, pd.Series([5.0, 5.0]), pd.Series([0.5, 0.5])).isna().all()
    assert uplift_result.unavailable_reason(shop) == "not enough evidence: it could be chance"
    (shop.home / "uplift.json").unlink()
    assert "regulars uplift" in str(uplift_result.unavailable_reason(shop))


def test_an_effect_model_of_another_version_scores_no_customer(
    shop: Shop, summary: dict[str, Any], tmp_path: Path
) -> None:
    shop = settings.open_shop(shutil.copytree(shop.home, tmp_path / "home"))
    for file in (shop.home / "champions" / "uplift").glob("*/uplift.json"):
        file.write_text("{}")
    assert (
        uplift_scores.write_uplift_scores(shop, feature_store.open_store(shop.home / "features"), clock.now(shop)) == 0
    )
    assert "regulars uplift" in str(uplift_result.unavailable_reason(shop))


def test_without_contacts_the_error_names_the_reason(unmailed: tuple[Shop, list[Path]]) -> None:
    with pytest.raises(NothingToDo, match="contacted nobody yet"):
        uplift_run.run_uplift(unmailed[0], progress=ignore_progress)


def test_without_sales_the_error_names_the_reason(tmp_path: Path) -> None:
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR")
    with pytest.raises(NothingToDo, match="nothing has been sold"):
        uplift_run.run_uplift(shop, progress=ignore_progress)


@pytest.mark.parametrize(
    ("is_to_all", "day", "message"),
    [
        (True, 100, "1 went to everybody or nearly so.*drawn by lot"),
        (False, 100, "1 went to too few"),
        (True, DAYS - 10, "less than 28 days ago"),
        (True, 5, "of the first sale"),
    ],
)
def test_mailings_without_a_comparison_group_are_named(
    unmailed: tuple[Shop, list[Path]], tmp_path: Path, is_to_all: bool, day: int, message: str
) -> None:
    shop = settings.open_shop(shutil.copytree(unmailed[0].home, tmp_path / "home"))
    recipients = range(PEOPLE if is_to_all else 3)
    at = (OPENED + timedelta(days=day)).isoformat()
    letters = [(f"i{number}", f"c{number:03d}", at, "email", "sent", "spring") for number in recipients]
    operations.load_records(
        shop, "interactions", [_write_csv(tmp_path / "letters.csv", INTERACTION, letters)], source="files"
    )
    dataset, _ = training_data.load_training_data(shop, clock.now(shop))
    with pytest.raises(NothingToDo, match=message):
        campaign_waves.find_waves(shop, dataset)


def test_a_campaign_sent_over_several_days_is_one_mailing(unmailed: tuple[Shop, list[Path]], tmp_path: Path) -> None:
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
    operations.load_records(
        shop, "interactions", [_write_csv(tmp_path / "letters.csv", INTERACTION, letters)], source="files"
    )
    dataset, _ = training_data.load_training_data(shop, clock.now(shop))
    waves = campaign_waves.find_waves(shop, dataset)
    assert [dataset.calendar.local_day(day) for day in waves.first_days.values()] == [
        (OPENED + timedelta(days=100)).date()
    ]
    assert [dataset.calendar.local_day(day) for day in waves.cutoffs] == [(OPENED + timedelta(days=103)).date()]
    rows = pd.DataFrame(
        {
            "customer_key": waves.contacts["customer_key"],
            "as_of": pd.to_datetime(waves.cutoffs * (PEOPLE // 2), utc=True),
        }
    )
    assert waves.is_contacted(rows, dataset.calendar).all()
    assert not waves.is_otherwise_contacted(rows, dataset.calendar).any()
    assert waves.excluded_customers.empty, "randomly drawn recipients had not bought more than usual"


def thank_you_vouchers(shop: Shop, *, others: float) -> list[tuple[object, ...]]:
    """Voucher interactions: in two weeks half of the buyers get one the day after, and a random share of the others."""
    rng = np.random.default_rng(5)
    dataset, _ = training_data.load_training_data(shop, clock.now(shop))
    names, vouchers = _customers_with_purchases(shop), []
    for first in (70, 120):
        begins = pd.Timestamp((OPENED + timedelta(days=first)).date())
        sold = dataset.purchases[dataset.purchases["day"].between(begins, begins + timedelta(days=5))]
        bought = sold.groupby("customer_key")["day"].min() + timedelta(days=1)
        for key, name in names.items():
            day = bought.get(key, begins + timedelta(days=int(rng.integers(7))))
            if rng.random() < (0.5 if key in bought.index else others):
                at = OPENED + timedelta(days=first + (day - begins).days)
                vouchers.append((f"v{first}-{name}", name, at.isoformat(), "email", "sent", f"thanks-{first}"))
    return vouchers


def _customers_with_purchases(shop: Shop) -> dict[int, str]:
    from customers.people import lookup

    dataset, _ = training_data.load_training_data(shop, clock.now(shop))
    return lookup.find_ids(shop, dataset.purchases["customer_key"].drop_duplicates())


def load_vouchers(unmailed: Shop, folder: Path, *, others: float) -> Shop:
    """A copy of the shop with thank-you vouchers loaded, some of them to customers who had not bought."""
    shop = settings.open_shop(shutil.copytree(unmailed.home, folder / "home"))
    vouchers = _write_csv(folder / "vouchers.csv", INTERACTION, thank_you_vouchers(shop, others=others))
    operations.load_records(shop, "interactions", [vouchers], source="files")
    return shop


def test_vouchers_triggered_by_a_purchase_are_not_analysed(unmailed: tuple[Shop, list[Path]], tmp_path: Path) -> None:
    shop = load_vouchers(unmailed[0], tmp_path, others=0.0)
    with pytest.raises(NothingToDo, match="2 went to customers because they had just bought"):
        uplift_run.run_uplift(shop, progress=ignore_progress)


def test_customers_who_bought_during_a_purchase_triggered_mailing_are_not_compared(
    unmailed: tuple[Shop, list[Path]], tmp_path: Path
) -> None:
    shop = load_vouchers(unmailed[0], tmp_path, others=0.3)
    dataset, _ = training_data.load_training_data(shop, clock.now(shop))
    waves = campaign_waves.find_waves(shop, dataset)
    frame = _features_by_cutoff(dataset.purchases["customer_key"].unique(), waves)
    rows = waves.comparable_rows(frame, dataset.calendar)
    days = [pd.Timestamp(instant).tz_localize(None) for instant in (*waves.first_days.values(), *waves.cutoffs)]
    bought = dataset.purchases[dataset.purchases["day"].between(days[0], days[2] - timedelta(days=1))]
    first = rows[rows["as_of"] == pd.Timestamp(waves.cutoffs[0])]
    assert set(first["customer_key"]) == set(frame["customer_key"]) - set(bought["customer_key"])
    assert 30 <= waves.is_contacted(first, dataset.calendar).sum() < len(first)
    assert (rows["recency_days"] == 1).all(), "purchase features are as of the day after"
    assert (rows["received_total"] == 0).all(), "contact features are as of the first day"


def _features_by_cutoff(keys: np.ndarray, waves: campaign_waves.CampaignWaves) -> pd.DataFrame:
    """Features at the first day (0) and at the cutoff (1) of each mailing, a row per customer and time."""
    parts = [
        pd.DataFrame({"customer_key": keys, "as_of": pd.Timestamp(instant).tz_convert("UTC")}).assign(
            recency_days=feature, received_total=feature
        )
        for feature, instants in ((0.0, waves.first_days.values()), (1.0, waves.cutoffs))
        for instant in instants
    ]
    return pd.concat(parts, ignore_index=True)


def test_letters_without_a_campaign_are_no_mailing(unmailed: tuple[Shop, list[Path]], tmp_path: Path) -> None:
    shop = settings.open_shop(shutil.copytree(unmailed[0].home, tmp_path / "home"))
    at = (OPENED + timedelta(days=100)).isoformat()
    letters = [(f"i{number}", f"c{number:03d}", at, "email", "sent", None) for number in range(0, PEOPLE, 2)]
    operations.load_records(
        shop, "interactions", [_write_csv(tmp_path / "letters.csv", INTERACTION, letters)], source="files"
    )
    dataset, _ = training_data.load_training_data(shop, clock.now(shop))
    with pytest.raises(NothingToDo, match="campaign_id"):
        campaign_waves.find_waves(shop, dataset)
