"""Consents: the newest one of a customer holds, and the shop's default where there is none."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from customers.loading import load
from customers.loading.load import LoadResult
from customers.parquet import mirror
from customers.people import lookup
from customers.privacy import consents
from customers.reports import customer_view
from customers.shop.settings import Shop

HEADER = "customer_id,purpose,state,at,source\n"
Load = Callable[..., LoadResult]


def load_counts(loaded: LoadResult) -> tuple[int, int, int, int]:
    return loaded.inserted, loaded.updated, loaded.unchanged, loaded.rejected


def customers_who_allow(shop: Shop, purpose: str) -> set[str]:
    keys = lookup.find_keys(shop, ["anna", "ben", "carl"])
    allowed = consents.allowed_customers(shop, keys.values(), purpose)
    return {name for name, key in keys.items() if key in allowed}


def test_the_newest_consent_holds_whichever_was_loaded_first(corner_shop: Shop, load_text: Load) -> None:
    lines = "anna,marketing_email,revoked,2017-11-02,web\nanna,marketing_email,granted,2017-11-01,web\n"
    lines += "ben,marketing_email,denied,2017-11-01,web\nben,marketing_email,granted,2017-11-02,web\n"
    assert load_counts(load_text(corner_shop, "consents", HEADER + lines)) == (4, 0, 0, 0)
    load_text(corner_shop, "customers", "customer_id\ncarl\n")
    assert customers_who_allow(corner_shop, "marketing_email") == {"ben"}
    assert customers_who_allow(corner_shop, "marketing_sms") == set()
    assert customers_who_allow(corner_shop, "profiling") == {"anna", "ben", "carl"}  # by default


def test_the_stricter_of_two_consents_at_one_time_holds(corner_shop: Shop, load_text: Load) -> None:
    lines = "anna,profiling,granted,2017-11-01,web\nanna,profiling,revoked,2017-11-01,web\n"
    lines += "ben,profiling,denied,2017-11-01,phone\nben,profiling,granted,2017-11-01,web\n"
    assert load_counts(load_text(corner_shop, "consents", HEADER + lines)) == (4, 0, 0, 0)
    assert customers_who_allow(corner_shop, "profiling") == set()


def test_a_consent_loaded_twice_is_one_and_its_history_stays(corner_shop: Shop, load_text: Load) -> None:
    first = "anna,profiling,granted,2017-11-01T10:00Z,web\n"
    load_text(corner_shop, "consents", HEADER + first)
    again = HEADER + first + "anna,profiling,revoked,2017-11-02T10:00Z,\n"
    assert load_counts(load_text(corner_shop, "consents", again, source="crm")) == (
        2,
        0,
        0,
        0,
    )  # anna of another source
    assert load_counts(load_text(corner_shop, "consents", again)) == (1, 0, 1, 0)
    key = lookup.find_keys(corner_shop, ["files:anna"])["files:anna"]
    (profiling,) = [
        each for each in consents.load_customer_consents(corner_shop, key) if each["purpose"] == "profiling"
    ]
    assert (profiling["state"], profiling["since"]) == ("revoked", datetime(2017, 11, 2, 10, tzinfo=UTC))
    assert [(entry["state"], entry["source"]) for entry in profiling["history"]] == [
        ("revoked", "files"),
        ("granted", "web"),
    ]


def test_a_customer_first_loaded_by_a_consent_is_a_prospect(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "consents", HEADER + "anna,marketing_post,granted,2017-11-01,card\n")
    view = customer_view.load_customer_view(corner_shop, "anna")
    assert view is not None
    assert view["stage"] == "prospect"
    by_purpose = {each["purpose"]: each for each in view["consents"]}
    assert by_purpose["marketing_post"] == {
        "purpose": "marketing_post",
        "state": "granted",
        "since": datetime(2017, 10, 31, 23, tzinfo=UTC),
        "source": "card",
    }
    assert by_purpose["profiling"] == {"purpose": "profiling", "state": "granted", "since": None, "source": "default"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("anna,marketing_fax,granted,2017-11-01,", "purpose is none of "),
        ("anna,,granted,2017-11-01,", "purpose is empty"),
        ("anna,profiling,perhaps,2017-11-01,", "state is none of "),
        ("anna,profiling,,2017-11-01,", "state is empty"),
        ("anna,profiling,granted,,", "at is empty"),
        ("anna,profiling,granted,2199-01-01,", "at is in the future"),
        (",profiling,granted,2017-11-01,", "customer_id is empty"),
    ],
)
def test_an_invalid_consent_is_rejected(corner_shop: Shop, load_text: Load, line: str, reason: str) -> None:
    loaded = load_text(corner_shop, "consents", HEADER + f"ben,profiling,denied,2017-11-01,\n{line}\n")
    assert load_counts(loaded) == (1, 0, 0, 1)
    assert [actual.startswith(reason) for actual in loaded.reasons] == [True]


def test_a_consent_dated_tomorrow_is_rejected_and_one_seconds_ahead_is_not(corner_shop: Shop) -> None:
    now = datetime.now(UTC)
    consent = {"customer_id": "anna", "purpose": "profiling", "state": "denied"}
    at = [(now + timedelta(days=1)).isoformat(), (now + timedelta(seconds=2)).isoformat()]
    result = load.ingest_records(corner_shop, "consents", [consent | {"at": each} for each in at])
    assert [error["index"] for error in result.errors] == [0]
    assert customers_who_allow(corner_shop, "profiling") == set()


def test_a_customer_may_be_reached_on_the_channels_they_allow(corner_shop: Shop, load_text: Load) -> None:
    lines = "anna,marketing_email,granted,2017-11-01,\nanna,marketing_post,granted,2017-11-01,\n"
    lines += "anna,marketing_email,revoked,2017-11-02,\nanna,marketing_sms,granted,2017-11-01,\n"
    load_text(corner_shop, "consents", HEADER + lines + "ben,marketing_app,denied,2017-11-01,\n")
    keys = lookup.find_keys(corner_shop, ["anna", "ben"])
    channels = consents.allowed_channels(corner_shop, keys.values())
    assert channels == {keys["anna"]: ["sms", "post"], keys["ben"]: []}
    lenient_shop = replace(corner_shop, consent_default={**corner_shop.consent_default, "marketing_app": "granted"})
    assert consents.allowed_channels(lenient_shop, keys.values()) == {
        keys["anna"]: ["sms", "post", "app"],
        keys["ben"]: [],
    }


def test_the_mirror_has_the_profiling_consents_of_every_customer(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "customers", "customer_id\nanna\nben\n")
    mirror.refresh(corner_shop)
    load_text(
        corner_shop,
        "consents",
        HEADER + "anna,profiling_sensitive,granted,2017-11-01,\nben,profiling,denied,2017-11-01,\n",
    )
    assert mirror.refresh(corner_shop) == ["consents"]
    names = {key: name for name, key in lookup.find_keys(corner_shop, ["anna", "ben"]).items()}
    path = corner_shop.home / "ledger" / "consents.parquet"
    by_name = {names[row.pop("customer_key")]: row for row in pq.read_table(path).to_pylist()}
    assert by_name == {
        "anna": {"profiling": True, "profiling_sensitive": True},
        "ben": {"profiling": False, "profiling_sensitive": False},
    }
    load_text(corner_shop, "customers", "customer_id\ncarl\n")
    assert mirror.refresh(corner_shop) == ["consents"]
    strict_shop = replace(corner_shop, consent_default={**corner_shop.consent_default, "profiling": "denied"})
    assert mirror.refresh(strict_shop) == ["consents"]
    assert [row["profiling"] for row in pq.read_table(path).to_pylist()] == [False, False, False]
    assert mirror.refresh(strict_shop) == []
