"""A sale changes the scores of its customer: in the next answer, on the profile, and on the list of those at risk."""

import sqlite3
import time
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest


def only(response: Any) -> dict[str, Any]:
    """The one result of an answer."""
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


moment = datetime.fromisoformat


def churn(api: Any, name: str) -> dict[str, Any]:
    return only(api.read(f"/v1/customers/{name}/churn"))


def back(api: Any, name: str) -> dict[str, Any]:
    return only(api.read(f"/v1/customers/{name}/next-purchase"))


def at_risk(api: Any) -> dict[str, dict[str, Any]]:
    """Everybody on the list, whatever their band."""
    pages = [api.read(f"/v1/at-risk?limit=1000&band={band}").json() for band in ("low", "medium", "high", "lapsed")]
    return {entry["customer_id"]: entry for page in pages for entry in page["items"]}


def in_danger(api: Any, place: int = 0) -> str:
    """Somebody who may stay away and may still be kept, the likeliest to go first."""
    items = api.read("/v1/at-risk?limit=100").json()["items"]
    return items[place]["customer_id"]


def pending(api: Any) -> dict[int, int]:
    """Who is queued once everybody with new features is scored."""
    from customers.ledger import refresh_queue
    from serving.ingestion import score_writer

    assert score_writer.get_writer().wait(seconds=30)
    return refresh_queue.list_pending(api.shop)


def sell(api: Any, name: str, **fields: Any) -> Any:
    """One line over the api."""
    response = api.post("/v1/transactions", line(api, name, **fields), "till")
    assert response.status_code == 200, response.text
    return response.json()


def line(api: Any, name: str, *, order: str = "", sold_at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """What the till says of a line, sold an hour before the shop's now."""
    from customers import clock

    when = sold_at or clock.now(api.shop) - timedelta(hours=1)
    return {
        "order_id": order or f"till-{uuid4()}",
        "line_id": "1",
        "customer_id": name,
        "product_id": "p04",
        "sold_at": when.isoformat(),
        "quantity": 1,
        "amount": "5.00",
    } | fields


def test_a_sale_lowers_churn_and_moves_the_next_purchase(api: Any) -> None:
    """The aim of it all: somebody in danger buys, and every answer knows before the till has its receipt."""
    name = in_danger(api)
    churn_before, back_before, listed_before = churn(api, name), back(api, name), at_risk(api)[name]
    answer = sell(api, name)
    assert (answer["inserted"], answer["refreshed"]) == (1, True)

    churn_after, back_after, listed_after = churn(api, name), back(api, name), at_risk(api)[name]
    assert churn_after["probability"] < churn_before["probability"] - 0.1
    assert moment(churn_after["features_as_of"]) > moment(churn_before["features_as_of"])
    assert back_after["p"]["28"] == pytest.approx(1 - churn_after["probability"], abs=1e-9)
    assert back_after["p"]["28"] > back_before["p"]["28"]
    assert back_after["expected_at"] != back_before["expected_at"]

    assert listed_before["churn_probability"] == churn_before["probability"]
    assert listed_after["churn_probability"] == churn_after["probability"]
    assert listed_after["expected_next_purchase_at"] == back_after["expected_at"]
    assert moment(listed_after["last_purchase_at"]) > moment(listed_before["last_purchase_at"])
    assert listed_after["days_overdue"] == 0
    assert listed_after["reasons"] == churn_after["reasons"] != churn_before["reasons"]
    assert (
        api.read(f"/v1/customers/{name}/scores").json()["scores"]["churn"]["probability"]
        == (churn_after["probability"])
    )


def test_a_sale_is_written_down_for_every_model_before_anybody_asks(api: Any) -> None:
    name = in_danger(api)
    before = api.read(f"/v1/customers/{name}/scores").json()["scores"]
    sell(api, name)
    after = api.read(f"/v1/customers/{name}/scores").json()["scores"]
    assert before.keys() == after.keys() == {"churn", "timing", "value", "recommender", "restock", "offers"}
    assert all(moment(after[model]["as_of"]) > moment(before[model]["as_of"]) for model in after)
    assert "p04" in {item["product_id"] for item in after["recommender"]["items"]}


def test_others_stay_where_they_were(api: Any) -> None:
    name, other = in_danger(api), in_danger(api, 1)
    before = churn(api, other), at_risk(api)[other]
    sell(api, name)
    assert (churn(api, other), at_risk(api)[other]) == before


def test_the_same_sale_twice_is_one_sale(api: Any) -> None:
    from customers import clock

    name, when = in_danger(api), clock.now(api.shop) - timedelta(hours=1)
    assert sell(api, name, order="twice", sold_at=when)["inserted"] == 1
    once = churn(api, name)
    assert sell(api, name, order="twice", sold_at=when)["unchanged"] == 1
    assert churn(api, name) == once


def test_a_sale_taken_back_is_as_if_it_had_not_been(api: Any) -> None:
    """The refund comes first, as from a slow till; the sale after it."""
    name = in_danger(api)
    before = churn(api, name)["probability"]
    sell(api, name, order="refund", amount="-5.00", quantity=-1)
    assert churn(api, name)["probability"] == pytest.approx(before, abs=0.05)
    sell(api, name)
    assert churn(api, name)["probability"] == pytest.approx(before, abs=0.05)


def test_a_new_customer_buys_a_new_product(api: Any) -> None:
    assert not churn(api, "newcomer")["known"]
    assert sell(api, "newcomer", product_id="never seen")["inserted"] == 1
    result = churn(api, "newcomer")
    assert (result["known"], result["fallback"]) == (True, False)
    assert result["reasons"]
    again = only(api.read("/v1/customers/newcomer/recommendations?list=again"))
    assert [item["product_id"] for item in again["items"]] == ["never seen"]
    assert at_risk(api)["newcomer"]["churn_probability"] == result["probability"]


def test_a_sale_for_nobody_moves_nobody(api: Any) -> None:
    before = at_risk(api)
    assert sell(api, "", order="anonymous")["refreshed"]
    after = at_risk(api)
    assert {name: entry["churn_probability"] for name, entry in after.items()} == {
        name: entry["churn_probability"] for name, entry in before.items()
    }


def test_a_sale_that_comes_late_counts_too(api: Any) -> None:
    """Sold twenty days ago, when the night had not heard of it."""
    from customers import clock

    name = in_danger(api)
    before = churn(api, name)["probability"]
    sell(api, name, sold_at=clock.now(api.shop) - timedelta(days=20))
    assert churn(api, name)["probability"] != before


def test_a_complaint_is_on_the_list_at_once(api: Any) -> None:
    name = in_danger(api)
    assert at_risk(api)[name]["open_complaints"] == 0
    complaint = {"interaction_id": "x", "customer_id": name, "happened_at": "2025-07-20T10:00:00Z", "channel": "phone",
            "kind": "complaint", "status": "open"}  # fmt: skip
    assert api.post("/v1/interactions", complaint, "agent").json()["refreshed"]
    assert at_risk(api)[name]["open_complaints"] == 1
    assert api.post("/v1/interactions", complaint | {"status": "closed"}, "agent").json()["updated"] == 1
    assert at_risk(api)[name]["open_complaints"] == 0


def test_a_consent_opens_and_closes_a_channel_at_once(api: Any) -> None:
    name = in_danger(api)
    before = at_risk(api)[name]["contactable"]
    assert "sms" not in before
    for state, expected in (("granted", {*before, "sms"}), ("revoked", set(before))):
        assert consent(api, name, "marketing_sms", state) == 200
        assert set(at_risk(api)[name]["contactable"]) == expected


def consent(api: Any, name: str, purpose: str, state: str) -> int:
    """A consent given in the store, later than all earlier ones."""
    from datetime import UTC

    now = datetime.now(UTC).isoformat()
    consent_record = {"customer_id": name, "purpose": purpose, "state": state, "at": now, "source": "desk"}
    return api.post("/v1/consents", consent_record, "agent").status_code


def test_who_revokes_profiling_gets_what_holds_for_all(api: Any) -> None:
    name = in_danger(api)
    assert consent(api, name, "profiling", "revoked") == 200
    assert churn(api, name)["fallback"]
    assert api.read(f"/v1/customers/{name}/scores").json()["scores"] == {}
    assert name not in at_risk(api)
    sold = sell(api, name)
    assert (sold["inserted"], sold["refreshed"]) == (1, True)
    assert api.read(f"/v1/customers/{name}/scores").json()["scores"] == {}
    assert consent(api, name, "profiling", "granted") == 200
    assert not churn(api, name)["fallback"]
    assert name in at_risk(api)


# When something breaks ------------------------------------------------------------------------------------


def test_a_sale_stands_though_the_features_fail_and_is_made_up_for(api: Any) -> None:
    name, other = in_danger(api), in_danger(api, 1)
    before = churn(api, name)["probability"]
    _rename(api, "regulars_rhythm", "elsewhere")
    sold = sell(api, name, order="in the books")
    assert (sold["inserted"], sold["refreshed"]) == (1, False)
    assert api.read(f"/v1/customers/{name}").json()["orders"][0]["order_id"] == "in the books"
    _rename(api, "elsewhere", "regulars_rhythm")
    assert sell(api, other)["refreshed"]
    assert churn(api, name)["probability"] < before


def _rename(api: Any, old: str, new: str) -> None:
    with sqlite3.connect(api.shop.home / "features" / "feast" / "online.db") as store:
        store.execute(f'alter table "{old}" rename to "{new}"')


def test_what_a_killed_server_left_undone_the_next_one_does(api: Any) -> None:
    """The sale is in the books, and the process ended there."""
    from customers import clock
    from customers.ledger import refresh_queue
    from customers.loading import load as loading_load
    from serving import runtime
    from serving.scoring import refresh as refresh_scoring

    name = in_danger(api)
    before = churn(api, name)["probability"]
    when = (clock.now(api.shop) - timedelta(hours=1)).isoformat()
    sale = {"order_id": "left", "customer_id": name, "product_id": "p04", "sold_at": when, "quantity": 1, "amount": "5"}
    loading_load.ingest_records(api.shop, "transactions", [sale])
    assert len(refresh_queue.list_pending(api.shop)) == 1
    assert refresh_scoring.process_queue(runtime.open_runtime(api.shop))
    assert refresh_queue.list_pending(api.shop) == {}
    assert churn(api, name)["probability"] < before


def test_before_the_first_night_a_sale_waits_for_it_in_silence(
    api_before_first_run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from customers.ledger import refresh_queue

    sold = sell(api_before_first_run, "c000")
    assert (sold["inserted"], sold["refreshed"]) == (1, False)
    assert len(refresh_queue.list_pending(api_before_first_run.shop)) == 1
    assert [record for record in caplog.records if record.name == "regulars.refresh"] == []
    assert sell(api_before_first_run, "")["refreshed"]  # of nobody nothing has to be known


def test_one_whose_figures_fail_keeps_nobody_behind(isolated_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three buy, and the refresh of one fails; the others are refreshed, then and from the next sale on."""
    from customers.ledger import refresh_queue
    from customers.people import lookup
    from serving import runtime
    from serving.scoring import refresh as refresh_scoring

    names = ["c001", "c002", "c003"]
    keys = lookup.find_keys(isolated_api.shop, names)
    refresh = refresh_scoring.refresh_customers

    def fails_for_one(here: Any, requested_keys: Any) -> datetime:
        if keys["c001"] in requested_keys:
            raise ValueError("nobody can work this out")
        return refresh(here, requested_keys)

    monkeypatch.setattr(refresh_scoring, "refresh_customers", fails_for_one)
    lines = [line(isolated_api, name) for name in names]
    assert not isolated_api.post("/v1/transactions", lines).json()["refreshed"]
    assert list(pending(isolated_api)) == [keys["c001"]]
    assert sell(isolated_api, "c002")["refreshed"]
    assert not sell(isolated_api, "c001")["refreshed"]
    monkeypatch.setattr(refresh_scoring, "refresh_customers", refresh)
    assert refresh_scoring.process_queue(runtime.open_runtime(isolated_api.shop))
    assert refresh_queue.list_pending(isolated_api.shop) == {}


def test_those_for_whom_it_fails_go_to_the_end_of_the_queue(isolated_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole turn in which it fails for everybody it tries: then the next turn begins with the others."""
    from customers.ledger import refresh_queue
    from customers.people import lookup
    from serving.scoring import refresh as refresh_scoring

    names = [f"c{number:03d}" for number in range(refresh_scoring.MAX_FAILURES)]
    broken = set(lookup.find_keys(isolated_api.shop, names).values())
    refresh = refresh_scoring.refresh_customers

    def fails_for_them(here: Any, requested_keys: Any) -> datetime:
        if broken & set(requested_keys):
            raise ValueError("nobody can work this out")
        return refresh(here, requested_keys)

    monkeypatch.setattr(refresh_scoring, "refresh_customers", fails_for_them)
    monkeypatch.setattr(refresh_scoring, "BATCH_SIZE", refresh_scoring.MAX_FAILURES)
    refresh_queue.enqueue_customers(isolated_api.shop, broken)
    sell(isolated_api, "c100")
    assert sell(isolated_api, "c100")["refreshed"]
    assert set(pending(isolated_api)) == broken


def test_whoever_is_ahead_of_a_night_hears_its_champions_too(
    isolated_api: Any, score_customers: Any, make_champion: Any
) -> None:
    """The clock stands: a sale is recorded just after now, and the night's new champion scores as of now."""
    from customers import clock
    from customers.people import lookup
    from customers.scores import score_store
    from serving import runtime
    from serving.scoring import refresh as refresh_scoring

    score_customers(isolated_api.shop)
    here, now = runtime.open_runtime(isolated_api.shop), clock.now(isolated_api.shop)
    assert sell(isolated_api, "c001")["refreshed"]
    assert pending(isolated_api) == {}
    assert score_store.customers_scored_after(isolated_api.shop, now) == [
        *lookup.find_keys(isolated_api.shop, ["c001"]).values()
    ]
    make_champion(isolated_api.shop.home, "churn", "2", here.champion("churn").model)
    time.sleep(1.1)  # a promotion is noticed within a second
    score_customers(isolated_api.shop)
    assert version_shown(isolated_api, "c001") == "1"
    assert version_shown(isolated_api, "c002") == "2"
    assert refresh_scoring.rescore_after_batch(here, now)
    assert version_shown(isolated_api, "c001") == "2"


def version_shown(api: Any, name: str) -> str:
    """Which version of churn spoke last of a customer."""
    return api.read(f"/v1/customers/{name}/scores").json()["scores"]["churn"]["version"]


def test_who_bought_what_becomes_sensitive_is_seen_to_at_once(isolated_api: Any) -> None:
    """Every paper product but one: what was bought of them is looked at no more, whoever bought it."""
    before = back(isolated_api, "c000")["features_as_of"]
    paper = [{"product_id": f"p{n:02d}", "category": "paper", "sensitive": True} for n in range(3, 36, 4)]
    assert isolated_api.post("/v1/products", paper).json()["refreshed"]
    assert moment(back(isolated_api, "c000")["features_as_of"]) > moment(before)
    assert pending(isolated_api) == {}
    again = back(isolated_api, "c000")["features_as_of"]
    assert isolated_api.post("/v1/products", [each | {"stock": 3} for each in paper]).json()["updated"] == len(paper)
    assert back(isolated_api, "c000")["features_as_of"] == again


def test_a_killed_server_left_what_is_sensitive_uncopied_too(isolated_api: Any) -> None:
    """Figures made up for later are made from what is sensitive by then."""
    from customers.loading import load as loading_load
    from customers.parquet import mirror
    from serving import runtime
    from serving.scoring import refresh as refresh_scoring

    paper = [{"product_id": f"p{n:02d}", "sensitive": True} for n in range(3, 40, 4)]
    assert loading_load.ingest_records(isolated_api.shop, "products", paper).customer_keys
    assert refresh_scoring.process_queue(runtime.open_runtime(isolated_api.shop))
    assert mirror.refresh(isolated_api.shop, only=refresh_scoring.MIRRORED_TABLES) == []


def test_many_tills_at_once(api: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    gone = api.read("/v1/at-risk?limit=8&band=lapsed").json()["items"]
    names = [entry["customer_id"] for entry in gone]
    before = {name: churn(api, name)["probability"] for name in names}
    with ThreadPoolExecutor(8) as tills:
        sold = [tills.submit(sell, api, name) for name in names]
        assert all(each.result()["inserted"] == 1 for each in sold)
    assert all(churn(api, name)["probability"] < before[name] for name in names)
    listed = at_risk(api)
    assert all(listed[name]["churn_probability"] == churn(api, name)["probability"] for name in names)
