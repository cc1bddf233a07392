"""A pharmacy: refills are recommended in time, and sensitive purchases leave no trace where they are not allowed.

Customers refill about every thirty days; the repurchase rule allows it after twenty. Sixty customers allow profiling
of sensitive purchases, forty do not. Ten matched pairs do not either: both customers of a pair buy the same soaps and
vitamins on the same days, and one of them refills a medicine as well.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.acceptance  # whole nights

ZONE = ZoneInfo("Europe/Berlin")
OPENED = datetime(2025, 1, 6, 12, tzinfo=ZONE)
DAYS, REFILL, NOT_BEFORE, DUE = 240, 30, 20, 25
MEDICINES = {f"rx-{number}": name for number, name in enumerate(("Glucoferal", "Tensorin", "Thyrexal", "Asmadol"))}
SOAPS = [f"soap-{number}" for number in range(12)]
CATEGORIES = ("vitamins", "skin care", "first aid")
#: Must not appear: product ids, names, and the category of the medicines only.
SENSITIVE = ("rx-", "prescriptions", *MEDICINES.values())
ALLOWED, REFUSED = [f"open-{number:02d}" for number in range(60)], [f"closed-{number:02d}" for number in range(40)]
PAIRS = [(f"alike-{number}", f"alike-{number}-refills") for number in range(10)]
#: Offers are trained on campaigns, which this shop does not have.
MODELS = ("recommender", "churn", "restock")
TABLES = ("scores", "recommendations", "restock", "at-risk")


def _sales() -> pd.DataFrame:
    """Sales lines, one row per customer, day and product."""
    rng = np.random.default_rng(11)
    rows: list[tuple[str, int, str]] = []
    for who in [*ALLOWED, *REFUSED]:
        rows += _visits(rng, who) + _refills(rng, who)
    for alone, refilling in PAIRS:
        visits = _visits(rng, alone)
        rows += [*visits, *((refilling, day, product) for _, day, product in visits), *_refills(rng, refilling)]
    sales = pd.DataFrame(rows, columns=["customer_id", "day", "product_id"]).drop_duplicates()
    return sales.assign(
        order_id=sales["customer_id"] + "-" + sales["day"].astype(str),
        line_id=sales["product_id"],
        sold_at=[(OPENED + timedelta(days=int(day))).isoformat() for day in sales["day"]],
        quantity=1,
        amount="8.00",
    )


def _visits(rng: np.random.Generator, who: str) -> list[tuple[str, int, str]]:
    """Two of six favourite products about every three weeks; the last visit is within the last ten days."""
    favourites = rng.choice(SOAPS, 6, replace=False)
    days = {*np.cumsum(rng.integers(14, 28, 20)).tolist(), DAYS - int(rng.integers(1, 10))}
    return [(who, day, product) for day in days if day < DAYS
            for product in rng.choice(favourites, 2, replace=False).tolist()]  # fmt: skip


def _refills(rng: np.random.Generator, who: str) -> list[tuple[str, int, str]]:
    """One medicine, every 28 to 32 days."""
    medicine, day = str(rng.choice(list(MEDICINES))), int(rng.integers(0, REFILL))
    rows = []
    while day < DAYS:
        rows.append((who, day, medicine))
        day += REFILL + int(rng.integers(-2, 3))
    return rows


def _catalogue() -> pd.DataFrame:
    medicines = [(product, name, "prescriptions", True, f"after_days:{NOT_BEFORE}")
                 for product, name in MEDICINES.items()]  # fmt: skip
    soaps = [(product, product, CATEGORIES[place % 3], False, "") for place, product in enumerate(SOAPS)]
    return pd.DataFrame([*medicines, *soaps], columns=["product_id", "name", "category", "sensitive", "repurchase"])


@pytest.fixture(scope="module")
def pharmacy(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The shop after one nightly run, its sales, and its exported tables."""
    from customers import setup
    from pipelines import operations
    from pipelines.nightly import run as nightly_run

    folder = tmp_path_factory.mktemp("pharmacy")
    shop = setup.init_home(folder / "home", timezone=str(ZONE), currency="EUR", now="last-sale")
    sales = _sales()
    consents = pd.DataFrame(
        {"customer_id": ALLOWED, "purpose": "profiling_sensitive", "state": "granted", "at": OPENED.isoformat()}
    )
    records = {"products": _catalogue(), "transactions": sales, "consents": consents}
    for kind, frame in records.items():
        path = folder / f"{kind}.csv"
        frame.to_csv(path, index=False)
        assert operations.load_records(shop, kind, [path], source="files")["rejected"] == 0
    nightly_run.run_nightly(shop, only=MODELS, progress=lambda text: None)
    return SimpleNamespace(shop=shop, sales=sales, tables={name: operations.load_table(shop, name) for name in TABLES})


@pytest.fixture(scope="module")
def api(pharmacy: SimpleNamespace) -> Iterator[Any]:
    """Posts JSON to the pharmacy's API with an admin key and returns the response: api(path, body)."""
    from starlette.testclient import TestClient

    from customers.security import api_keys
    from serving.service import Regulars

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_HOME", str(pharmacy.shop.home))
        headers = {"Authorization": f"Bearer {api_keys.create_key(pharmacy.shop, 'admin')}"}
        with TestClient(Regulars.to_asgi(), raise_server_exceptions=False) as client:

            def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
                response = client.post(path, json=body, headers=headers)
                assert response.status_code == 200, response.text
                return response.json()

            yield post


def days_since_refill(pharmacy: SimpleNamespace) -> dict[str, int]:
    """Days since each customer's last refill, as of the start of the day after the last sale."""
    sales = pharmacy.sales
    refills = sales[sales["product_id"].isin(MEDICINES)].groupby("customer_id")["day"].max()
    return (sales["day"].max() + 1 - refills).to_dict()


def medicine_by_customer(pharmacy: SimpleNamespace) -> dict[str, str]:
    """The medicine that each customer refills."""
    sales = pharmacy.sales
    return sales[sales["product_id"].isin(MEDICINES)].groupby("customer_id")["product_id"].first().to_dict()


def sensitive_words(answer: object) -> list[str]:
    """The sensitive words that occur in a response or a table."""
    text = answer.to_csv() if isinstance(answer, pd.DataFrame) else json.dumps(answer, ensure_ascii=False)
    return [word for word in SENSITIVE if word.casefold() in text.casefold()]


# Customers who allow it: refills are recommended in time -------------------------------------------------


def test_the_repeat_list_is_ranked_by_the_boosted_trees(pharmacy: SimpleNamespace) -> None:
    from models.registry.champions import Champions

    champion = Champions(pharmacy.shop.home / "champions").get("recommender")
    assert champion is not None
    assert champion.learner == "recommender.Recommender"
    assert champion.facts["settings"]["again_by"] == "ranker"


def test_a_due_refill_is_at_the_top_of_the_repeat_list(pharmacy: SimpleNamespace) -> None:
    days_since, medicine = days_since_refill(pharmacy), medicine_by_customer(pharmacy)
    again = pharmacy.tables["recommendations"].query("list == 'again'")
    place = {(row.customer_id, row.product_id): row.rank for row in again.itertuples()}
    due = [who for who in ALLOWED if days_since[who] >= DUE]
    assert len(due) >= 5
    assert np.mean([place.get((who, medicine[who]), 99) == 1 for who in due]) >= 0.8
    assert all(place.get((who, medicine[who]), 99) <= 3 for who in due)


def test_a_recent_refill_is_not_recommended(pharmacy: SimpleNamespace) -> None:
    days_since, medicine = days_since_refill(pharmacy), medicine_by_customer(pharmacy)
    listed = set(pharmacy.tables["recommendations"][["customer_id", "product_id"]].itertuples(index=False, name=None))
    early = [who for who in ALLOWED if days_since[who] < NOT_BEFORE]
    assert len(early) >= 20
    assert not [who for who in early if (who, medicine[who]) in listed]


def test_the_probability_of_a_refill_grows_with_the_days_since_the_last(pharmacy: SimpleNamespace) -> None:
    days_since = days_since_refill(pharmacy)
    restock = pharmacy.tables["restock"].query("category == 'prescriptions'").set_index("customer_id")
    assert set(restock.index) == set(ALLOWED)
    soon = restock["p_14d"]
    due, early = (
        [who for who in ALLOWED if days_since[who] in days] for days in (range(DUE, 33), range(NOT_BEFORE - 8))
    )
    assert soon[due].mean() > 2 * soon[early].mean()
    assert np.mean(soon[due].to_numpy()[:, None] > soon[early].to_numpy()) > 0.95


def test_the_reason_is_the_customers_own_purchase_frequency(pharmacy: SimpleNamespace) -> None:
    days_since, medicine = days_since_refill(pharmacy), medicine_by_customer(pharmacy)
    table = pharmacy.tables["recommendations"].query("list == 'again'")
    reasons = {(row.customer_id, row.product_id): row.reason for row in table.itertuples()}
    who = next(who for who in ALLOWED if days_since[who] >= DUE)
    bought = pharmacy.sales.query("customer_id == @who and product_id == @medicine[@who]")["day"]
    assert reasons[who, medicine[who]].startswith(f"bought {len(bought)} times")
    assert f"{days_since[who]} days ago" in reasons[who, medicine[who]]


# Customers who do not allow it: no trace of a medicine ---------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_no_table_names_a_medicine(pharmacy: SimpleNamespace, name: str) -> None:
    table = pharmacy.tables[name]
    others = table[~table["customer_id"].isin(ALLOWED)]
    assert len(others) or name == "at-risk"
    assert sensitive_words(others) == []


@pytest.mark.parametrize("name", ["scores", "recommendations", "restock"])
def test_matched_customers_have_equal_rows_in_every_table(pharmacy: SimpleNamespace, name: str) -> None:
    """The rows of a customer who also refills a medicine equal those of the matched customer, to the last digit."""
    for alone, refilling in PAIRS:
        table = pharmacy.tables[name]
        first, second = (table[table["customer_id"] == who].drop(columns="customer_id") for who in (alone, refilling))
        pd.testing.assert_frame_equal(first.reset_index(drop=True), second.reset_index(drop=True))


@pytest.mark.parametrize("list_name", ["any", "again", "new"])
def test_no_list_names_a_medicine_whatever_the_request(api: Any, list_name: str) -> None:
    closed = [*REFUSED, *(who for pair in PAIRS for who in pair), "stranger"]
    for options in ({"n": 50}, {"categories": ["prescriptions"]}, {"max_per_category": 1, "explore": 0.5, "n": 20}):
        answer = api("/v1/recommendations", {"customer_ids": closed, "list": list_name, **options})
        assert sensitive_words(answer) == []
    (nothing, *_) = api("/v1/recommendations", {"customer_ids": closed, "categories": ["prescriptions"]})["results"]
    assert nothing["items"] == []
    assert nothing["short"]["rules"] == ["categories", "profiling_sensitive"]


def test_matched_customers_get_the_same_recommendations(api: Any) -> None:
    for alone, refilling in PAIRS[:3]:
        for options in ({"n": 50}, {"list": "again", "n": 50}, {"categories": ["prescriptions"]}):
            one, other = api("/v1/recommendations", {"customer_ids": [alone, refilling], **options})["results"]
            assert one | {"customer_id": ""} == other | {"customer_id": ""}


def test_no_restock_item_and_no_reason_names_a_medicine(api: Any) -> None:
    closed = [*REFUSED, *(who for _, who in PAIRS)]
    for endpoint in ("restock", "churn"):
        assert sensitive_words(api(f"/v1/{endpoint}", {"customer_ids": closed})) == []


def test_no_medicine_is_a_related_product(api: Any) -> None:
    """A medicine may be bought together with a soap, but is not listed as related to it."""
    for how in ("similar", "together", "upsell"):
        assert sensitive_words(api("/v1/similar", {"product_ids": SOAPS, "how": how, "n": 50})) == []


def test_an_audience_for_a_medicine_has_only_customers_who_allow_it(api: Any) -> None:
    for subject in ({"product_ids": list(MEDICINES)}, {"categories": ["prescriptions"]}):
        answer = api("/v1/audience", {**subject, "n": 1000, "channel": "store"})
        names = {result["customer_id"] for result in answer["results"]}
        assert names
        assert names <= set(ALLOWED)
