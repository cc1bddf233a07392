"""Engagement: what the shop sent, what came of it, and nothing of either before its time."""

import numpy as np
import pandas as pd
import pytest

from features.snapshots import snapshot

ANSWERS, SILENT, STRANGER = 1, 2, 3


@pytest.fixture
def sent(shop, ledger_kit):
    """Three campaigns to one who answered two of them, one to one who never did, none to a stranger."""
    at = ledger_kit.at
    contacts = [
        ledger_kit.contact(ANSWERS, at("2026-03-01 00:00"), "received", "spring"),
        ledger_kit.contact(ANSWERS, at("2026-03-05 12:00"), "redeemed", "spring", offer_id="a"),
        ledger_kit.contact(ANSWERS, at("2026-03-09 12:00"), "redeemed", "spring", offer_id="b"),
        ledger_kit.contact(ANSWERS, at("2026-05-20 00:00"), "sent", "early", channel="email"),
        ledger_kit.contact(ANSWERS, at("2026-05-20 09:00"), "opened", "early", channel="email"),
        ledger_kit.contact(ANSWERS, at("2026-06-10 00:00"), "received", "summer"),
        ledger_kit.contact(ANSWERS, at("2026-06-12 12:00"), "redeemed", "summer", offer_id="c"),
        ledger_kit.contact(ANSWERS, at("2026-06-20 08:00"), "complaint"),
        ledger_kit.contact(SILENT, at("2026-06-10 00:00"), "received", "summer"),
    ]
    lines = [ledger_kit.line(key, at("2026-02-01 10:00")) for key in (ANSWERS, SILENT, STRANGER)]
    return shop(lines, interactions=contacts)


def rows(ledger, out, as_of, **more) -> pd.DataFrame:
    snapshot.write_snapshot(ledger, out, as_of=as_of, cutoffs=[as_of], timezone="UTC", **more)
    return pd.read_parquet(out / "engagement" / "part.parquet").set_index("customer_key")


def test_what_was_sent_and_what_came_of_it(sent, ledger_kit, tmp_path) -> None:
    found = rows(sent, tmp_path, ledger_kit.at("2026-07-01 00:00"))
    assert list(found.index) == [ANSWERS, SILENT]
    row = found.loc[ANSWERS]
    assert (row.received_total, row.received_28d, row.received_90d, row.received_recency_days) == (3, 1, 2, 21)
    assert (row.redeemed_total, row.redeemed_28d, row.redeemed_90d, row.redeemed_recency_days) == (3, 1, 1, 19)
    assert (row.opened_total, row.opened_recency_days, row.clicked_total) == (1, 42, 0)
    assert (row.campaigns_received, row.campaigns_redeemed, row.redeemed_per_campaign) == (3, 2, 3 / 2)
    assert row.response_rate == pytest.approx((2 + 0.1 * 5) / (3 + 5))
    assert row.redeemed_rate == pytest.approx((3 + 0.3 * 5) / (3 + 5))
    assert (row.complaints_total, row.complaints_90d, row.contact_recency_days) == (1, 1, 11)
    assert found.loc[SILENT].response_rate == pytest.approx(0.1 * 5 / (1 + 5))
    assert np.isnan(found.loc[SILENT].redeemed_recency_days)


def test_a_campaign_that_reaches_somebody_now_is_not_yet_known_of_them(sent, ledger_kit, tmp_path) -> None:
    start = ledger_kit.at("2026-06-10 00:00")
    found = rows(sent, tmp_path, start)
    assert list(found.index) == [ANSWERS]
    assert (found.loc[ANSWERS].campaigns_received, found.loc[ANSWERS].campaigns_redeemed) == (2, 1)


def test_what_was_heard_of_late_changes_no_old_replay(shop, ledger_kit, tmp_path) -> None:
    at = ledger_kit.at
    late = ledger_kit.contact(1, at("2026-05-01 09:00"), "opened", "early", known_at=at("2026-06-15 00:00"))
    ledger = shop([ledger_kit.line(1, at("2026-04-01 10:00"))], interactions=[late])
    assert rows(ledger, tmp_path / "old", at("2026-06-01 00:00")).empty
    assert rows(ledger, tmp_path / "new", at("2026-07-01 00:00")).opened_total.item() == 1


@pytest.fixture
def asked(shop, ledger_kit):
    """One who asked, complained, looked around and uses a device of the shop's."""
    at = ledger_kit.at
    answered = {"status": "answered", "answered_at": at("2026-06-25 09:00")}
    contacts = [
        ledger_kit.contact(1, at("2026-05-01 09:00"), "enquiry", status="open"),
        ledger_kit.contact(1, at("2026-06-11 09:00"), "enquiry", **answered),
        ledger_kit.contact(1, at("2026-06-21 09:00"), "complaint", status="open"),
        ledger_kit.contact(1, at("2026-06-22 09:00"), "enquiry", status="closed"),
        *(ledger_kit.contact(1, at(f"2026-06-{day} 20:00"), "viewed", channel="web") for day in (20, 27, 29)),
        *(
            ledger_kit.contact(1, at(f"2026-{on} 07:00"), "visited", channel="device")
            for on in ("05-20", "05-21", "06-28")
        ),
    ]
    return shop([ledger_kit.line(1, at("2026-02-01 10:00"))], interactions=contacts)


def test_who_waits_for_an_answer_and_for_how_long(asked, ledger_kit, tmp_path) -> None:
    row = rows(asked, tmp_path, ledger_kit.at("2026-07-01 00:00")).loc[1]
    assert (row.enquiries_90d, row.enquiry_recency_days, row.complaint_recency_days) == (3, 9, 10)
    assert (row.unanswered_total, row.unanswered_days) == (2, 30 + 31)  # that of 1 May, and the complaint
    assert (row.viewed_7d, row.viewed_28d) == (2, 3)
    assert (row.device_28d, row.device_28d_before, row.device_recency_days) == (1, 2, 3)


def test_nobody_is_said_to_wait_where_the_shop_keeps_no_status(shop, ledger_kit, tmp_path) -> None:
    """Nor while it is not known when the answer came; but until the day on which it did."""
    at, asked_at = ledger_kit.at, ledger_kit.at("2026-05-01 09:00")
    contacts = [
        ledger_kit.contact(1, asked_at, "enquiry"),
        ledger_kit.contact(1, asked_at, "complaint"),
        ledger_kit.contact(1, asked_at, "complaint", status="answered"),
        ledger_kit.contact(2, asked_at, "enquiry", answered_at=at("2026-06-25 09:00")),
    ]
    ledger = shop([ledger_kit.line(1, at("2026-02-01 10:00"))], interactions=contacts)
    moments = [at("2026-06-20 00:00"), at("2026-07-01 00:00")]
    snapshot.write_snapshot(ledger, tmp_path, as_of=moments[1], cutoffs=moments, timezone="UTC")
    found = pd.read_parquet(tmp_path / "engagement" / "part.parquet").set_index(["customer_key", "event_timestamp"])
    assert found.unanswered_total.loc[1].tolist() == [0, 0]
    assert found.unanswered_total.loc[2].tolist() == [1, 0]
    assert found.unanswered_days.loc[1].isna().all()


def test_what_happens_at_a_moment_or_later_is_not_known_at_it(asked, ledger_kit, tmp_path) -> None:
    moments = [ledger_kit.at(f"2026-{at}") for at in ("05-01 09:00", "06-21 09:00", "06-25 09:00", "06-28 07:00")]
    snapshot.write_snapshot(asked, tmp_path, as_of=ledger_kit.at("2026-07-01 00:00"), cutoffs=moments, timezone="UTC")
    found = pd.read_parquet(tmp_path / "engagement" / "part.parquet").set_index("event_timestamp")
    assert moments[0] not in found.index  # only then the first of all was asked
    assert found.unanswered_total.loc[moments[1:]].tolist() == [2, 3, 2]  # the answer of 25 June at 9 counts after it
    assert found.device_28d.loc[moments[3]] == 0


def test_an_answer_changes_what_was_known_from_then_on(shop, ledger_kit) -> None:
    line, at = ledger_kit.line(1, ledger_kit.at("2026-02-01 10:00")), ledger_kit.at
    told = [
        shop([line], name, interactions=[ledger_kit.contact(1, at("2026-06-11 09:00"), "enquiry", **said)])
        for name, said in (
            ("before", {"status": "open"}),
            ("after", {"status": "answered", "answered_at": at("2026-06-25 09:00")}),
        )
    ]
    for moment, same in (("2026-06-20 00:00", True), ("2026-06-26 00:00", False)):
        before, after = (snapshot.digest(ledger, as_of=at(moment)) for ledger in told)
        assert (before == after) is same


def test_a_copy_from_before_answers_were_dated_is_read(shop, ledger_kit, tmp_path) -> None:
    ledger = shop([ledger_kit.line(1, ledger_kit.at("2026-02-01 10:00"))], interactions=[
        ledger_kit.contact(1, ledger_kit.at("2026-05-01 09:00"), "enquiry", status=status) for status in ("open", "closed")
    ])  # fmt: skip
    older = pd.read_parquet(ledger / "interactions.parquet").drop(columns="answered_at")
    older.to_parquet(ledger / "interactions.parquet")
    assert rows(ledger, tmp_path, ledger_kit.at("2026-07-01 00:00")).unanswered_total.item() == 1


def test_moments_of_receipts_are_for_those_who_received(sent, ledger_kit, tmp_path) -> None:
    early, now = ledger_kit.at("2026-06-10 00:00"), ledger_kit.at("2026-07-01 00:00")
    receipts = pd.DataFrame({"customer_key": [ANSWERS, ANSWERS, SILENT], "event_timestamp": [early, early, now]})
    snapshot.write_snapshot(
        sent, tmp_path, as_of=now, cutoffs=[now], timezone="UTC", list_cutoffs=[now], customer_cutoffs=receipts
    )
    for family, everybody in (("engagement", [ANSWERS, SILENT]), ("shelf", [ANSWERS, SILENT, STRANGER])):
        found = pd.read_parquet(tmp_path / family / "part.parquet")
        assert found[found.event_timestamp == early].customer_key.tolist() == [ANSWERS]
        assert found[found.event_timestamp == now].customer_key.tolist() == everybody
    assert len(pd.read_parquet(tmp_path / "rhythm" / "part.parquet")) == 3


def test_at_a_receipt_they_are_seen_as_everybody_is_at_that_moment(shop, ledger_kit, tmp_path) -> None:
    ledger = shop(**ledger_kit.bazaar())
    now, morning, noon = (
        ledger_kit.at("2026-05-01 00:00"),
        ledger_kit.at("2026-03-01 00:00"),
        ledger_kit.at("2026-04-01 13:00"),
    )
    moments = {"event_timestamp": [morning, noon, noon, noon]}
    receipts = pd.DataFrame({"customer_key": [7, 7, 6, 6], **moments})
    few, everybody = tmp_path / "few", tmp_path / "all"
    snapshot.write_snapshot(
        ledger, few, as_of=now, cutoffs=[now], timezone="Europe/Berlin", list_cutoffs=[now], customer_cutoffs=receipts
    )
    snapshot.write_snapshot(ledger, everybody, as_of=now, cutoffs=[now, morning, noon], timezone="Europe/Berlin")
    for family in ("shelf", "engagement"):
        found = pd.read_parquet(few / family / "part.parquet")
        found = found[found.event_timestamp != now].reset_index(drop=True)
        assert len(found) == 3
        wanted = pd.read_parquet(everybody / family / "part.parquet")
        wanted = wanted.merge(receipts.drop_duplicates(), on=["customer_key", "event_timestamp"])
        pd.testing.assert_frame_equal(found, wanted, check_exact=True)
