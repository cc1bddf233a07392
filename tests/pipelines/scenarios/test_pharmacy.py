"""A shop of chronic medication: refills are found in time, and nothing of them is seen of who has not allowed it.

Customers refill about every thirty days; the medicine is not sold again before twenty are over. Half of them let the
shop look at sensitive purchases. Of each two twins who do not, both buy the same soaps and vitamins on the same days,
and one of them fetches a medicine beside.
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

ZONE = ZoneInfo("Europe/Berlin")
OPENED = datetime(2025, 1, 6, 12, tzinfo=ZONE)
DAYS, REFILL, NOT_BEFORE, DUE = 240, 30, 20, 25
MEDICINES = {f"rx-{number}": name for number, name in enumerate(("Glucoferal", "Tensorin", "Thyrexal", "Asmadol"))}
SOAPS = [f"soap-{number}" for number in range(12)]
SHELVES = ("vitamins", "skin care", "first aid")
#: What must be nowhere: ids, names, and the category that holds nothing else.
SENSITIVE = ("rx-", "prescriptions", *MEDICINES.values())
OPEN, CLOSED = [f"open-{number:02d}" for number in range(60)], [f"closed-{number:02d}" for number in range(40)]
TWINS = [(f"alike-{number}", f"alike-{number}-refills") for number in range(10)]
#: Offers are learned from campaigns, of which this shop has none.
MODELS = ("recommender", "churn", "restock")
TABLES = ("scores", "recommendations", "restock", "at-risk")


def _sales() -> pd.DataFrame:
    """One row a line: who, on which day, what."""
    rng = np.random.default_rng(11)
    rows: list[tuple[str, int, str]] = []
    for who in [*OPEN, *CLOSED]:
        rows += _visits(rng, who) + _refills(rng, who)
    for alone, refilling in TWINS:
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
    """Some of six favourites about every three weeks; everybody came in the last ten days."""
    favourites = rng.choice(SOAPS, 6, replace=False)
    days = {*np.cumsum(rng.integers(14, 28, 20)).tolist(), DAYS - int(rng.integers(1, 10))}
    return [(who, day, product) for day in days if day < DAYS
            for product in rng.choice(favourites, 2, replace=False).tolist()]  # fmt: skip


def _refills(rng: np.random.Generator, who: str) -> list[tuple[str, int, str]]:
    medicine, day = str(rng.choice(list(MEDICINES))), int(rng.integers(0, REFILL))
    rows = []
    while day < DAYS:
        rows.append((who, day, medicine))
        day += REFILL + int(rng.integers(-2, 3))
    return rows


def _catalogue() -> pd.DataFrame:
    medicines = [(product, name, "prescriptions", True, f"after_days:{NOT_BEFORE}")
                 for product, name in MEDICINES.items()]  # fmt: skip
    soaps = [(product, product, SHELVES[place % 3], False, "") for place, product in enumerate(SOAPS)]
    return pd.DataFrame([*medicines, *soaps], columns=["product_id", "name", "category", "sensitive", "repurchase"])


@pytest.fixture(scope="module")
def pharmacy(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The shop after one night, its sales, and its tables as they are handed out."""
    from customers import setup
    from pipelines import operations
    from pipelines.nightly import run as nightly_run

    folder = tmp_path_factory.mktemp("pharmacy")
    shop = setup.init_home(folder / "home", timezone=str(ZONE), currency="EUR", now="last-sale")
    sales = _sales()
    consents = pd.DataFrame(
        {"customer_id": OPEN, "purpose": "profiling_sensitive", "state": "granted", "at": OPENED.isoformat()}
    )
    kinds = {"products": _catalogue(), "transactions": sales, "consents": consents}
    for kind, frame in kinds.items():
        path = folder / f"{kind}.csv"
        frame.to_csv(path, index=False)
        assert operations.load_records(shop, kind, [path], source="files")["rejected"] == 0
    nightly_run.run_nightly(shop, only=MODELS, progress=lambda text: None)
    return SimpleNamespace(shop=shop, sales=sales, tables={name: operations.load_table(shop, name) for name in TABLES})


@pytest.fixture(scope="module")
def api(pharmacy: SimpleNamespace) -> Iterator[Any]:
    """Asks the pharmacy over HTTP, as a program with every right would: api(path, question)."""
    from starlette.testclient import TestClient

    from customers.security import api_keys
    from serving.service import Regulars

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_HOME", str(pharmacy.shop.home))
        key = {"Authorization": f"Bearer {api_keys.create_key(pharmacy.shop, 'admin')}"}
        with TestClient(Regulars.to_asgi(), raise_server_exceptions=False) as client:

            def ask(path: str, question: dict[str, Any]) -> dict[str, Any]:
                response = client.post(path, json=question, headers=key)
                assert response.status_code == 200, response.text
                return response.json()

            yield ask


def ago(pharmacy: SimpleNamespace) -> dict[str, int]:
    """Days since each customer's last refill, at the shop's now: the start of the day after its last sale."""
    sales = pharmacy.sales
    refills = sales[sales["product_id"].isin(MEDICINES)].groupby("customer_id")["day"].max()
    return (sales["day"].max() + 1 - refills).to_dict()


def medicine_of(pharmacy: SimpleNamespace) -> dict[str, str]:
    sales = pharmacy.sales
    return sales[sales["product_id"].isin(MEDICINES)].groupby("customer_id")["product_id"].first().to_dict()


def tells(answer: object, *, but: tuple[str, ...] = ()) -> list[str]:
    """The sensitive words in an answer or a table."""
    text = answer.to_csv() if isinstance(answer, pd.DataFrame) else json.dumps(answer, ensure_ascii=False)
    for word in but:
        text = text.replace(word, "")
    return [word for word in SENSITIVE if word.casefold() in text.casefold()]


# Who allows it is reminded in time -----------------------------------------------------------------------


def test_it_is_the_trees_that_rank_here_what_is_bought_again(pharmacy: SimpleNamespace) -> None:
    from models.registry.champions import Champions

    champion = Champions(pharmacy.shop.home / "champions").get("recommender")
    assert champion is not None
    assert champion.learner == "recommender.Recommender"
    assert champion.facts["settings"]["again_by"] == "ranker"


def test_a_refill_that_is_due_stands_at_the_top_of_again(pharmacy: SimpleNamespace) -> None:
    since, mine = ago(pharmacy), medicine_of(pharmacy)
    again = pharmacy.tables["recommendations"].query("list == 'again'")
    place = {(row.customer_id, row.product_id): row.rank for row in again.itertuples()}
    due = [who for who in OPEN if since[who] >= DUE]
    assert len(due) >= 5
    assert np.mean([place.get((who, mine[who]), 99) == 1 for who in due]) >= 0.8
    assert all(place.get((who, mine[who]), 99) <= 3 for who in due)


def test_a_refill_just_fetched_is_not_offered_again(pharmacy: SimpleNamespace) -> None:
    since, mine = ago(pharmacy), medicine_of(pharmacy)
    listed = set(pharmacy.tables["recommendations"][["customer_id", "product_id"]].itertuples(index=False, name=None))
    early = [who for who in OPEN if since[who] < NOT_BEFORE]
    assert len(early) >= 20
    assert not [who for who in early if (who, mine[who]) in listed]


def test_the_need_of_a_refill_grows_with_the_days(pharmacy: SimpleNamespace) -> None:
    since = ago(pharmacy)
    needs = pharmacy.tables["restock"].query("category == 'prescriptions'").set_index("customer_id")
    assert set(needs.index) == set(OPEN)
    soon = needs["p_14d"]
    due, early = ([who for who in OPEN if since[who] in days] for days in (range(DUE, 33), range(NOT_BEFORE - 8)))
    assert soon[due].mean() > 2 * soon[early].mean()
    assert np.mean(soon[due].to_numpy()[:, None] > soon[early].to_numpy()) > 0.95


def test_the_reason_is_the_customers_own_rhythm(pharmacy: SimpleNamespace) -> None:
    since, mine = ago(pharmacy), medicine_of(pharmacy)
    table = pharmacy.tables["recommendations"].query("list == 'again'")
    told = {(row.customer_id, row.product_id): row.reason for row in table.itertuples()}
    who = next(who for who in OPEN if since[who] >= DUE)
    bought = pharmacy.sales.query("customer_id == @who and product_id == @mine[@who]")["day"]
    assert told[who, mine[who]].startswith(f"bought {len(bought)} times")
    assert f"{since[who]} days ago" in told[who, mine[who]]


# Of who does not allow it nothing is seen ----------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_no_table_tells_of_a_medicine(pharmacy: SimpleNamespace, name: str) -> None:
    table = pharmacy.tables[name]
    others = table[~table["customer_id"].isin(OPEN)]
    assert len(others) or name == "at-risk"
    assert tells(others) == []


@pytest.mark.parametrize("name", ["scores", "recommendations", "restock"])
def test_twins_look_the_same_in_every_table(pharmacy: SimpleNamespace, name: str) -> None:
    """What is said of who also fetches a medicine is what would be said of them without it, to the last digit."""
    for alone, refilling in TWINS:
        table = pharmacy.tables[name]
        first, second = (table[table["customer_id"] == who].drop(columns="customer_id") for who in (alone, refilling))
        pd.testing.assert_frame_equal(first.reset_index(drop=True), second.reset_index(drop=True))


@pytest.mark.parametrize("what", ["any", "again", "new"])
def test_no_list_names_a_medicine_whatever_is_asked(api: Any, what: str) -> None:
    closed = [*CLOSED, *(who for both in TWINS for who in both), "stranger"]
    for wish in ({"n": 50}, {"categories": ["prescriptions"]}, {"max_per_category": 1, "explore": 0.5, "n": 20}):
        answer = api("/v1/recommendations", {"customer_ids": closed, "list": what, **wish})
        assert tells(answer) == []
    (nothing, *_) = api("/v1/recommendations", {"customer_ids": closed, "categories": ["prescriptions"]})["results"]
    assert nothing["items"] == []
    assert nothing["short"]["rules"] == ["categories", "profiling_sensitive"]


def test_twins_hear_the_same(api: Any) -> None:
    for alone, refilling in TWINS[:3]:
        for wish in ({"n": 50}, {"list": "again", "n": 50}, {"categories": ["prescriptions"]}):
            one, other = api("/v1/recommendations", {"customer_ids": [alone, refilling], **wish})["results"]
            assert one | {"customer_id": ""} == other | {"customer_id": ""}


def test_no_need_and_no_reason_tells_of_a_medicine(api: Any) -> None:
    closed = [*CLOSED, *(who for _, who in TWINS)]
    for question in ("restock", "churn"):
        assert tells(api(f"/v1/{question}", {"customer_ids": closed})) == []


def test_who_goes_with_a_medicine_is_told_to_nobody_else(api: Any) -> None:
    """What is bought beside a soap may be a medicine: whoever looks at the soap does not hear of it."""
    for how in ("similar", "together", "upsell"):
        assert tells(api("/v1/similar", {"product_ids": SOAPS, "how": how, "n": 50})) == []


def test_an_audience_for_a_medicine_is_of_those_who_allow_it(api: Any) -> None:
    for asked in ({"product_ids": list(MEDICINES)}, {"categories": ["prescriptions"]}):
        answer = api("/v1/audience", {**asked, "n": 1000, "channel": "store"})
        names = {result["customer_id"] for result in answer["results"]}
        assert names
        assert names <= set(OPEN)
