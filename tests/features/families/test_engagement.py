"""Engagement features: what the shop sent, what the customer did, and nothing at or after the cutoff."""

import numpy as np
import pandas as pd
import pytest

from features.snapshots import snapshot

REDEEMS, IGNORES, NEVER_CONTACTED = 1, 2, 3


@pytest.fixture
def campaign_ledger(make_ledger, ledger_kit):
    """Three campaigns to a customer who redeemed two of them, one to a customer who never redeems, none to a third."""
    at = ledger_kit.at
    interactions = [
        ledger_kit.interaction(REDEEMS, at("2026-03-01 00:00"), "received", "spring"),
        ledger_kit.interaction(REDEEMS, at("2026-03-05 12:00"), "redeemed", "spring", offer_id="a"),
        ledger_kit.interaction(REDEEMS, at("2026-03-09 12:00"), "redeemed", "spring", offer_id="b"),
        ledger_kit.interaction(REDEEMS, at("2026-05-20 00:00"), "sent", "early", channel="email"),
        ledger_kit.interaction(REDEEMS, at("2026-05-20 09:00"), "opened", "early", channel="email"),
        ledger_kit.interaction(REDEEMS, at("2026-06-10 00:00"), "received", "summer"),
        ledger_kit.interaction(REDEEMS, at("2026-06-12 12:00"), "redeemed", "summer", offer_id="c"),
        ledger_kit.interaction(REDEEMS, at("2026-06-20 08:00"), "complaint"),
        ledger_kit.interaction(IGNORES, at("2026-06-10 00:00"), "received", "summer"),
    ]
    lines = [ledger_kit.line(key, at("2026-02-01 10:00")) for key in (REDEEMS, IGNORES, NEVER_CONTACTED)]
    return make_ledger(lines, interactions=interactions)


def engagement_rows(ledger, out, as_of, **options) -> pd.DataFrame:
    snapshot.write_snapshot(ledger, out, as_of=as_of, cutoffs=[as_of], timezone="UTC", **options)
    return pd.read_parquet(out / "engagement" / "part.parquet").set_index("customer_key")


def test_received_campaigns_and_responses_are_counted(campaign_ledger, ledger_kit, tmp_path) -> None:
    features = engagement_rows(campaign_ledger, tmp_path, ledger_kit.at("2026-07-01 00:00"))
    assert list(features.index) == [REDEEMS, IGNORES]
    row = features.loc[REDEEMS]
    assert (row.received_total, row.received_28d, row.received_90d, row.received_recency_days) == (3, 1, 2, 21)
    assert (row.redeemed_total, row.redeemed_28d, row.redeemed_90d, row.redeemed_recency_days) == (3, 1, 1, 19)
    assert (row.opened_total, row.opened_recency_days, row.clicked_total) == (1, 42, 0)
    assert (row.campaigns_received, row.campaigns_redeemed, row.redeemed_per_campaign) == (3, 2, 3 / 2)
    assert row.response_rate == pytest.approx((2 + 0.1 * 5) / (3 + 5))
    assert row.redeemed_rate == pytest.approx((3 + 0.3 * 5) / (3 + 5))
    assert (row.complaints_total, row.complaints_90d, row.contact_recency_days) == (1, 1, 11)
    assert features.loc[IGNORES].response_rate == pytest.approx(0.1 * 5 / (1 + 5))
    assert np.isnan(features.loc[IGNORES].redeemed_recency_days)


def test_a_campaign_received_at_the_cutoff_does_not_count_yet(campaign_ledger, ledger_kit, tmp_path) -> None:
    start = ledger_kit.at("2026-06-10 00:00")
    features = engagement_rows(campaign_ledger, tmp_path, start)
    assert list(features.index) == [REDEEMS]
    assert (features.loc[REDEEMS].campaigns_received, features.loc[REDEEMS].campaigns_redeemed) == (2, 1)


def test_an_interaction_recorded_late_changes_no_historical_run(make_ledger, ledger_kit, tmp_path) -> None:
    at = ledger_kit.at
    late = ledger_kit.interaction(1, at("2026-05-01 09:00"), "opened", "early", known_at=at("2026-06-15 00:00"))
    ledger = make_ledger([ledger_kit.line(1, at("2026-04-01 10:00"))], interactions=[late])
    assert engagement_rows(ledger, tmp_path / "old", at("2026-06-01 00:00")).empty
    assert engagement_rows(ledger, tmp_path / "new", at("2026-07-01 00:00")).opened_total.item() == 1


@pytest.fixture
def enquiry_ledger(make_ledger, ledger_kit):
    """A customer with enquiries, a complaint, page views and visits from a device of the shop."""
    at = ledger_kit.at
    answer = {"status": "answered", "answered_at": at("2026-06-25 09:00")}
    interactions = [
        ledger_kit.interaction(1, at("2026-05-01 09:00"), "enquiry", status="open"),
        ledger_kit.interaction(1, at("2026-06-11 09:00"), "enquiry", **answer),
        ledger_kit.interaction(1, at("2026-06-21 09:00"), "complaint", status="open"),
        ledger_kit.interaction(1, at("2026-06-22 09:00"), "enquiry", status="closed"),
        *(ledger_kit.interaction(1, at(f"2026-06-{day} 20:00"), "viewed", channel="web") for day in (20, 27, 29)),
        *(
            ledger_kit.interaction(1, at(f"2026-{day} 07:00"), "visited", channel="device")
            for day in ("05-20", "05-21", "06-28")
        ),
    ]
    return make_ledger([ledger_kit.line(1, at("2026-02-01 10:00"))], interactions=interactions)


def test_unanswered_interactions_are_counted_with_their_days(enquiry_ledger, ledger_kit, tmp_path) -> None:
    row = engagement_rows(enquiry_ledger, tmp_path, ledger_kit.at("2026-07-01 00:00")).loc[1]
    assert (row.enquiries_90d, row.enquiry_recency_days, row.complaint_recency_days) == (3, 9, 10)
    assert (row.unanswered_total, row.unanswered_days) == (2, 30 + 31)  # that of 1 May, and the complaint
    assert (row.viewed_7d, row.viewed_28d) == (2, 3)
    assert (row.device_28d, row.device_28d_before, row.device_recency_days) == (1, 2, 3)


def test_interactions_without_a_status_are_not_unanswered(make_ledger, ledger_kit, tmp_path) -> None:
    """Nor are those whose answer has no time; an enquiry with a dated answer counts until that day."""
    at, enquired_at = ledger_kit.at, ledger_kit.at("2026-05-01 09:00")
    interactions = [
        ledger_kit.interaction(1, enquired_at, "enquiry"),
        ledger_kit.interaction(1, enquired_at, "complaint"),
        ledger_kit.interaction(1, enquired_at, "complaint", status="answered"),
        ledger_kit.interaction(2, enquired_at, "enquiry", answered_at=at("2026-06-25 09:00")),
    ]
    ledger = make_ledger([ledger_kit.line(1, at("2026-02-01 10:00"))], interactions=interactions)
    cutoffs = [at("2026-06-20 00:00"), at("2026-07-01 00:00")]
    snapshot.write_snapshot(ledger, tmp_path, as_of=cutoffs[1], cutoffs=cutoffs, timezone="UTC")
    features = pd.read_parquet(tmp_path / "engagement" / "part.parquet").set_index(["customer_key", "event_timestamp"])
    assert features.unanswered_total.loc[1].tolist() == [0, 0]
    assert features.unanswered_total.loc[2].tolist() == [1, 0]
    assert features.unanswered_days.loc[1].isna().all()


def test_interactions_at_or_after_the_cutoff_do_not_count(enquiry_ledger, ledger_kit, tmp_path) -> None:
    cutoffs = [
        ledger_kit.at(f"2026-{day_and_time}")
        for day_and_time in ("05-01 09:00", "06-21 09:00", "06-25 09:00", "06-28 07:00")
    ]
    snapshot.write_snapshot(
        enquiry_ledger, tmp_path, as_of=ledger_kit.at("2026-07-01 00:00"), cutoffs=cutoffs, timezone="UTC"
    )
    features = pd.read_parquet(tmp_path / "engagement" / "part.parquet").set_index("event_timestamp")
    assert cutoffs[0] not in features.index  # the first enquiry is of that very time
    assert features.unanswered_total.loc[cutoffs[1:]].tolist() == [
        2,
        3,
        2,
    ]  # the answer of 25 June at 9 counts after it
    assert features.device_28d.loc[cutoffs[3]] == 0


def test_an_answer_changes_the_digest_from_then_on(make_ledger, ledger_kit) -> None:
    line, at = ledger_kit.line(1, ledger_kit.at("2026-02-01 10:00")), ledger_kit.at
    ledgers = [
        make_ledger([line], name, interactions=[ledger_kit.interaction(1, at("2026-06-11 09:00"), "enquiry", **fields)])
        for name, fields in (
            ("before", {"status": "open"}),
            ("after", {"status": "answered", "answered_at": at("2026-06-25 09:00")}),
        )
    ]
    for as_of, is_same in (("2026-06-20 00:00", True), ("2026-06-26 00:00", False)):
        before, after = (snapshot.digest(ledger, as_of=at(as_of)) for ledger in ledgers)
        assert (before == after) is is_same


def test_a_mirror_without_answer_times_is_read(make_ledger, ledger_kit, tmp_path) -> None:
    at = ledger_kit.at
    enquiries = [
        ledger_kit.interaction(1, at("2026-05-01 09:00"), "enquiry", status=status) for status in ("open", "closed")
    ]
    ledger = make_ledger([ledger_kit.line(1, at("2026-02-01 10:00"))], interactions=enquiries)
    older = pd.read_parquet(ledger / "interactions.parquet").drop(columns="answered_at")
    older.to_parquet(ledger / "interactions.parquet")
    assert engagement_rows(ledger, tmp_path, ledger_kit.at("2026-07-01 00:00")).unanswered_total.item() == 1


def test_cutoffs_of_single_customers_are_for_those_customers_only(campaign_ledger, ledger_kit, tmp_path) -> None:
    early, now = ledger_kit.at("2026-06-10 00:00"), ledger_kit.at("2026-07-01 00:00")
    customer_cutoffs = pd.DataFrame(
        {"customer_key": [REDEEMS, REDEEMS, IGNORES], "event_timestamp": [early, early, now]}
    )
    snapshot.write_snapshot(
        campaign_ledger,
        tmp_path,
        as_of=now,
        cutoffs=[now],
        timezone="UTC",
        list_cutoffs=[now],
        customer_cutoffs=customer_cutoffs,
    )
    for family, every_customer in (("engagement", [REDEEMS, IGNORES]), ("shelf", [REDEEMS, IGNORES, NEVER_CONTACTED])):
        features = pd.read_parquet(tmp_path / family / "part.parquet")
        assert features[features.event_timestamp == early].customer_key.tolist() == [REDEEMS]
        assert features[features.event_timestamp == now].customer_key.tolist() == every_customer
    assert len(pd.read_parquet(tmp_path / "rhythm" / "part.parquet")) == 3


def test_cutoffs_of_single_customers_give_the_features_of_general_cutoffs(make_ledger, ledger_kit, tmp_path) -> None:
    ledger = make_ledger(**ledger_kit.random_records())
    now, at_midnight, at_noon = (
        ledger_kit.at("2026-05-01 00:00"),
        ledger_kit.at("2026-03-01 00:00"),
        ledger_kit.at("2026-04-01 13:00"),
    )
    cutoffs = {"event_timestamp": [at_midnight, at_noon, at_noon, at_noon]}
    customer_cutoffs = pd.DataFrame({"customer_key": [7, 7, 6, 6], **cutoffs})
    few_folder, every_customer = tmp_path / "few", tmp_path / "all"
    snapshot.write_snapshot(
        ledger,
        few_folder,
        as_of=now,
        cutoffs=[now],
        timezone="Europe/Berlin",
        list_cutoffs=[now],
        customer_cutoffs=customer_cutoffs,
    )
    snapshot.write_snapshot(
        ledger, every_customer, as_of=now, cutoffs=[now, at_midnight, at_noon], timezone="Europe/Berlin"
    )
    for family in ("shelf", "engagement"):
        features = pd.read_parquet(few_folder / family / "part.parquet")
        features = features[features.event_timestamp != now].reset_index(drop=True)
        assert len(features) == 3
        expected = pd.read_parquet(every_customer / family / "part.parquet")
        expected = expected.merge(customer_cutoffs.drop_duplicates(), on=["customer_key", "event_timestamp"])
        pd.testing.assert_frame_equal(features, expected, check_exact=True)
