"""Loading interactions: validation, updates, point-in-time reads, dated answers, and encrypted free text."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from customers.ledger import interactions, watermark
from customers.loading import load
from customers.loading.load import LoadResult
from customers.parquet import mirror
from customers.people import lookup
from customers.reports import customer_view
from customers.shop.settings import Shop

HEADER = "interaction_id,customer_id,happened_at,channel,kind,status,campaign_id,offer_id,text\n"
Load = Callable[..., LoadResult]
Rows = Callable[..., list[tuple]]


@pytest.fixture
def anna(corner_shop: Shop, load_text: Load) -> int:
    """The key of a customer of the shop."""
    load_text(corner_shop, "customers", "customer_id\nanna\nben\n")
    return lookup.find_keys(corner_shop, ["anna"])["anna"]


def load_counts(loaded: LoadResult) -> tuple[int, int, int, int]:
    return loaded.inserted, loaded.updated, loaded.unchanged, loaded.rejected


def test_the_text_of_an_interaction_is_shown_and_stored_encrypted(
    corner_shop: Shop, anna: int, load_text: Load, fetch_rows: Rows
) -> None:
    line = "1,anna,2017-11-01T10:00Z,phone,complaint,open,,,The bread was stale\n"
    assert load_counts(load_text(corner_shop, "interactions", HEADER + line)) == (1, 0, 0, 0)
    shown = customer_view.load_customer_view(corner_shop, "anna")
    assert shown is not None
    (entry,) = shown["interactions"]
    assert (entry["kind"], entry["text"], entry["happened_at"]) == (
        "complaint",
        "The bread was stale",
        datetime(2017, 11, 1, 10, tzinfo=UTC),
    )
    assert shown["open_complaints"] == 1
    sealed = bytes(fetch_rows(corner_shop, "select sealed_text from interactions")[0][0])
    assert b"stale" not in sealed
    assert len(sealed) > 19


def test_unknown_columns_are_stored_and_personal_ones_encrypted(corner_shop: Shop, anna: int, fetch_rows: Rows) -> None:
    call = {"interaction_id": "1", "customer_id": "anna", "happened_at": "2017-11-01", "kind": "call"}
    load.ingest_records(
        corner_shop, "interactions", [call | {"reason": "late", "minutes": 4, "callback_phone": "0151 1"}]
    )
    shown = customer_view.load_customer_view(corner_shop, "anna")
    assert shown is not None
    (entry,) = shown["interactions"]
    assert entry["attributes"] == {"reason": "late", "minutes": "4"}
    assert entry["private"] == {"callback_phone": "0151 1"}
    assert "0151" not in str(fetch_rows(corner_shop, "select attributes from interactions"))


def test_loading_twice_changes_nothing_and_an_update_leaves_other_columns(
    corner_shop: Shop, anna: int, load_text: Load, fetch_rows: Rows
) -> None:
    line = HEADER + "1,anna,2017-11-01T10:00Z,phone,complaint,open,,,The bread was stale\n"
    load_text(corner_shop, "interactions", line)
    before = fetch_rows(corner_shop, "select known_at from interactions")
    assert load_counts(load_text(corner_shop, "interactions", line)) == (0, 0, 1, 0)
    watermark.record_run_start(corner_shop, datetime(2017, 12, 1, tzinfo=UTC))
    update = "interaction_id,customer_id,happened_at,status\n1,anna,2017-11-01T10:00Z,closed\n"
    assert load_counts(load_text(corner_shop, "interactions", update)) == (0, 1, 0, 0)
    shown = customer_view.load_customer_view(corner_shop, "anna")
    assert shown is not None
    assert [(one["status"], one["text"]) for one in shown["interactions"]] == [("closed", "The bread was stale")]
    assert shown["open_complaints"] == 0
    assert fetch_rows(corner_shop, "select known_at from interactions") == before


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("9,carl,2017-11-01,email,sent,,,,", "customer_id is unknown; load customers or sales first"),
        ("9,,2017-11-01,email,sent,,,,", "customer_id is empty"),
        ("9,anna,2199-11-01,email,sent,,,,", "happened_at is in the future"),
        ("9,anna,,email,sent,,,,", "happened_at is empty"),
        ("9,anna,2017-11-01,email,bribed,,,,", "kind is none of " + ", ".join(interactions.INTERACTION_KINDS)),
        ("9,anna,2017-11-01,fax,sent,,,,", "channel is none of " + ", ".join(interactions.CHANNELS)),
        ("9,anna,2017-11-01,email,sent,maybe,,,", "status is none of open, answered, closed"),
        (",anna,2017-11-01,email,sent,,,,", "interaction_id is empty"),
    ],
)
def test_an_invalid_interaction_is_rejected(
    corner_shop: Shop, anna: int, load_text: Load, line: str, reason: str
) -> None:
    loaded = load_text(corner_shop, "interactions", HEADER + f"1,anna,2017-11-01,email,sent,,,,\n{line}\n")
    assert (load_counts(loaded), loaded.reasons) == ((1, 0, 0, 1), {reason: 1})


@pytest.mark.parametrize("rating", ["0", "6", "3.5", "good"])
def test_a_rating_has_one_to_five_stars(corner_shop: Shop, anna: int, rating: str) -> None:
    review = {"interaction_id": "1", "customer_id": "anna", "happened_at": "2017-11-01", "rating": rating}
    result = load.ingest_records(corner_shop, "interactions", [review])
    assert [error["reason"] for error in result.errors] == ["rating is not a whole number from 1 to 5"]


def test_only_interactions_recorded_by_as_of_count(corner_shop: Shop, anna: int, load_text: Load) -> None:
    load_text(corner_shop, "interactions", HEADER + "1,anna,2017-11-01T10:00Z,post,received,,c1,,\n")
    watermark.record_run_start(corner_shop, datetime(2017, 12, 1, tzinfo=UTC))
    lines = "2,anna,2017-11-02T10:00Z,post,received,,c2,,\n3,anna,2017-12-02T10:00Z,post,received,,c3,,\n"
    load_text(corner_shop, "interactions", HEADER + lines)

    def campaigns(as_of: datetime | None) -> list[str]:
        return list(interactions.load_by_kind(corner_shop, ["received"], as_of=as_of)["campaign_id"])

    assert campaigns(None) == ["c1", "c2", "c3"]
    assert campaigns(datetime(2017, 12, 1, tzinfo=UTC)) == ["c1"]  # c2 was recorded after that run
    assert campaigns(datetime(2017, 12, 3, tzinfo=UTC)) == ["c1", "c3"]
    assert campaigns(datetime(2017, 11, 1, 10, tzinfo=UTC)) == []


@pytest.mark.parametrize(
    ("change", "campaigns"),
    [
        ({"campaign_id": "c9"}, []),
        ({"kind": "redeemed"}, []),
        ({"offer_id": "7"}, []),
        ({"happened_at": "2017-11-02T10:00Z"}, []),
        ({"customer_id": "ben"}, []),
        ({"status": "closed", "owner": "eve", "rating": 5, "text": "thanks"}, ["c1"]),
    ],
)
def test_a_changed_interaction_does_not_count_before_its_change(
    corner_shop: Shop, anna: int, change: dict[str, object], campaigns: list[str]
) -> None:
    """The run of 1 December read that Anna received c1; a later change of that record is not part of what it read."""
    record = {"interaction_id": "1", "customer_id": "anna", "happened_at": "2017-11-01T10:00Z", "kind": "received",
            "campaign_id": "c1"}  # fmt: skip
    load.ingest_records(corner_shop, "interactions", [record])
    run_at = datetime(2017, 12, 1, tzinfo=UTC)
    watermark.record_run_start(corner_shop, run_at)
    assert load.ingest_records(corner_shop, "interactions", [record | change]).updated == 1
    read_by_run = interactions.load_by_kind(corner_shop, ["received", "redeemed"], as_of=run_at)
    assert list(read_by_run["campaign_id"]) == campaigns
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    read_now = interactions.load_by_kind(corner_shop, ["received", "redeemed"], as_of=tomorrow)
    assert list(read_now["campaign_id"]) == [change.get("campaign_id", "c1")]


def test_a_complaint_is_open_until_it_is_answered(corner_shop: Shop, anna: int, load_text: Load) -> None:
    states = ["open", "", "answered", "closed"]
    lines = "".join(f"{at},anna,2017-11-0{at},email,complaint,{status},,,\n" for at, status in enumerate(states, 1))
    load_text(corner_shop, "interactions", HEADER + lines + "9,ben,2017-11-01,email,enquiry,open,,,\n")
    assert interactions.count_open_complaints(corner_shop) == {anna: 2}
    assert interactions.count_open_complaints(corner_shop, datetime(2017, 11, 1, 12, tzinfo=UTC)) == {anna: 1}


def test_a_redemption_refers_to_the_offer_of_its_own_source(corner_shop: Shop, anna: int, load_text: Load) -> None:
    offer = "offer_id,starts_at,ends_at,product_ids\n1,2017-11-01,2017-12-01,rye\n"
    load_text(corner_shop, "offers", offer, source="till")
    load_text(corner_shop, "offers", offer)
    lines = "1,anna,2017-11-01T10:00Z,store,redeemed,,c1,1,\n2,anna,2017-11-02T10:00Z,store,redeemed,,c1,7,\n"
    load_text(corner_shop, "interactions", HEADER + lines)
    redeemed = interactions.load_redemptions(corner_shop)
    assert redeemed[["customer_key", "offer_key"]].to_numpy().tolist() == [[anna, 2]]
    assert redeemed["redeemed_at"][0] == datetime(2017, 11, 1, 10, tzinfo=UTC)


def test_the_mirror_has_an_interaction_without_its_text(corner_shop: Shop, anna: int, load_text: Load) -> None:
    load_text(corner_shop, "interactions", HEADER + "1,anna,2017-11-01T10:00Z,phone,complaint,open,,,Stale\n")
    mirror.refresh(corner_shop)
    path = corner_shop.home / "ledger" / "interactions.parquet"
    assert b"Stale" not in path.read_bytes()
    (row,) = mirror.load_interactions(corner_shop, [anna]).to_pylist()
    assert (row["kind"], row["status"], row["known_at"]) == ("complaint", "open", row["happened_at"])
    load.ingest_records(
        corner_shop,
        "interactions",
        [{"interaction_id": "1", "customer_id": "anna", "happened_at": row["happened_at"], "status": "closed"}],
    )
    assert mirror.refresh(corner_shop) == ["interactions"]


def test_the_time_of_an_answer_is_stored(corner_shop: Shop, anna: int, load_text: Load) -> None:
    line = "1,anna,2017-11-01T10:00Z,web,enquiry,open,,,Is there rye bread?\n"
    load_text(corner_shop, "interactions", HEADER + line)
    watermark.record_run_start(corner_shop, datetime(2017, 11, 5, tzinfo=UTC))
    before = datetime.now(UTC)
    for status, is_dated in (("answered", True), ("closed", True), ("open", False)):
        assert load_counts(load_text(corner_shop, "interactions", HEADER + line.replace("open", status))) == (
            0,
            1,
            0,
            0,
        )
        assert load_counts(load_text(corner_shop, "interactions", HEADER + line.replace("open", status))) == (
            0,
            0,
            1,
            0,
        )
        (answered_at,) = mirror.load_interactions(corner_shop, [anna])["answered_at"].to_pylist()
        assert (answered_at is not None and answered_at >= before) is is_dated


def test_an_answer_loaded_before_the_first_run_has_no_time(corner_shop: Shop, anna: int, load_text: Load) -> None:
    line = "1,anna,2017-11-01T10:00Z,web,enquiry,closed,,,\n"
    for text in (line, line.replace("closed", "answered")):
        load_text(corner_shop, "interactions", HEADER + text)
        assert mirror.load_interactions(corner_shop, [anna])["answered_at"].to_pylist() == [None]


def test_an_answer_is_dated_to_when_it_is_loaded(corner_shop: Shop, anna: int, load_text: Load) -> None:
    """Also where no nightly run has read the complaint since."""
    line = "1,anna,2017-11-01T10:00Z,web,complaint,open,,,\n"
    load_text(corner_shop, "interactions", HEADER + line)
    before = datetime.now(UTC)
    load_text(corner_shop, "interactions", HEADER + line.replace("open", "answered"))
    (answered_at,) = mirror.load_interactions(corner_shop, [anna])["answered_at"].to_pylist()
    assert answered_at >= before
    assert interactions.count_open_complaints(corner_shop, before) == {anna: 1}
    assert interactions.count_open_complaints(corner_shop, datetime.now(UTC) + timedelta(days=1)) == {}


DATED = "interaction_id,customer_id,happened_at,kind,status,answered_at\n"


def test_the_shop_may_give_the_time_of_its_answer(
    corner_shop: Shop, anna: int, load_text: Load, fetch_rows: Rows
) -> None:
    """A time without an offset is in the shop's time zone."""
    lines = (
        "1,anna,2017-11-01T10:00Z,complaint,answered,2017-11-03T08:00:00+02:00\n"
        "2,anna,2017-11-01T10:00Z,complaint,answered,2017-11-04 08:00\n"
        "3,anna,2017-11-02T10:00Z,enquiry,,\n"
    )
    assert load_counts(load_text(corner_shop, "interactions", DATED + lines)) == (3, 0, 0, 0)
    assert load_counts(load_text(corner_shop, "interactions", DATED + lines)) == (0, 0, 3, 0)
    local = datetime(2017, 11, 4, 8, tzinfo=corner_shop.zone).astimezone(UTC)
    answer_times = mirror.load_interactions(corner_shop, [anna])["answered_at"].to_pylist()
    assert answer_times == [datetime(2017, 11, 3, 6, tzinfo=UTC), local, None]
    assert "2017-11-03T06:00:00.000000+00:00" in str(fetch_rows(corner_shop, "select attributes from interactions"))
    day = datetime(2017, 11, 3, tzinfo=UTC)
    assert [
        interactions.count_open_complaints(corner_shop, day + timedelta(days=later)).get(anna, 0) for later in (0, 1, 2)
    ] == [2, 1, 0]


@pytest.mark.parametrize(
    ("answered_at", "reason"),
    [("no", "answered_at is not an ISO 8601 time"), ("2199-11-01", "answered_at is in the future")],
)
def test_an_invalid_answer_time_is_rejected(
    corner_shop: Shop, anna: int, load_text: Load, answered_at: str, reason: str
) -> None:
    loaded = load_text(corner_shop, "interactions", f"{DATED}1,anna,2017-11-01T10:00Z,enquiry,answered,{answered_at}\n")
    assert (load_counts(loaded), loaded.reasons) == ((0, 0, 0, 1), {reason: 1})
