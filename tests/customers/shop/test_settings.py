"""The home folder of a shop, its settings, its key and its clock."""

import os
import stat
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from customers import clock, setup
from customers.shop import retention_costs, timestamps
from customers.shop import settings as shop_settings
from customers.shop.errors import ShopError


def test_a_folder_without_a_shop_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ShopError, match=r"no shop at .* yet; run: regulars init"):
        shop_settings.open_shop(tmp_path)


def test_a_shop_opens_as_it_was_made(tmp_path: Path) -> None:
    created = setup.init_home(tmp_path / "s", timezone="Asia/Shanghai", currency="cny")
    assert (created.timezone, created.currency, created.clock, created.value_days) == (
        "Asia/Shanghai",
        "CNY",
        "real",
        90,
    )
    assert shop_settings.open_shop(tmp_path / "s") == created


def test_a_shop_is_not_made_over_another(corner_shop: shop_settings.Shop) -> None:
    with pytest.raises(ShopError, match="already a shop"):
        setup.init_home(corner_shop.home)


def test_a_half_made_home_keeps_its_key(tmp_path: Path) -> None:
    first = setup.init_home(tmp_path / "s")
    (tmp_path / "s" / "regulars.toml").unlink()
    assert setup.init_home(tmp_path / "s").key == first.key


def test_only_the_owner_can_read_the_key(corner_shop: shop_settings.Shop) -> None:
    path = corner_shop.home / "keys" / "shop.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() not in repr(corner_shop)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("timezone", "Mars/Olympus"), ("timezone", "../etc"), ("currency", "EURO")],
)
def test_an_invalid_setting_is_named(tmp_path: Path, setting: str, value: str) -> None:
    with pytest.raises(ShopError, match="unknown"):
        setup.init_home(tmp_path / "s", **{setting: value})
    assert not (tmp_path / "s").exists()


def test_an_unknown_engine_is_named(corner_shop: shop_settings.Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGULARS_ENGINE", "abacus")
    with pytest.raises(ShopError, match="unknown engine 'abacus'; use duckdb or spark"):
        shop_settings.open_shop(corner_shop.home)


def test_the_ledger_lies_in_the_home_or_where_the_settings_say(
    corner_shop: shop_settings.Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert corner_shop.ledger == corner_shop.home / "ledger"
    for path, expected in (("/mnt/shop/ledger", Path("/mnt/shop/ledger")), ("other", corner_shop.home / "other")):
        monkeypatch.setenv("REGULARS_LEDGER", path)
        assert shop_settings.open_shop(corner_shop.home).ledger == expected


def test_a_ledger_at_a_url_is_refused_with_what_to_do(
    corner_shop: shop_settings.Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGULARS_LEDGER", "s3://user:secret@bucket/ledger")
    with pytest.raises(ShopError, match="mount the object store") as refusal:
        shop_settings.open_shop(corner_shop.home)
    assert "secret" not in str(refusal.value)


def test_the_environment_overrides_a_setting(corner_shop: shop_settings.Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGULARS_HOME", str(corner_shop.home))
    monkeypatch.setenv("REGULARS_CURRENCY", "JPY")
    monkeypatch.setenv("REGULARS_CHURN_DAYS", "42")
    monkeypatch.setenv("REGULARS_CONSENT_DEFAULT", "marketing_email=granted")
    opened = shop_settings.open_shop()
    assert (opened.currency, opened.churn_days) == ("JPY", 42)
    assert opened.consent_default["marketing_email"] == "granted"
    assert opened.consent_default["profiling"] == "granted"


def test_invalid_toml_is_refused(corner_shop: shop_settings.Shop) -> None:
    (corner_shop.home / "regulars.toml").write_text("timezone = ")
    with pytest.raises(ShopError, match="not valid TOML"):
        shop_settings.open_shop(corner_shop.home)


def test_days_must_be_a_whole_number(corner_shop: shop_settings.Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGULARS_CHURN_DAYS", "soon")
    with pytest.raises(ShopError, match="whole number of days"):
        shop_settings.open_shop(corner_shop.home)


def test_a_shop_without_its_key_is_refused_with_how_to_restore_it(corner_shop: shop_settings.Shop) -> None:
    os.remove(corner_shop.home / "keys" / "shop.key")
    with pytest.raises(ShopError, match="put its copy back"):
        shop_settings.open_shop(corner_shop.home)


def test_a_bare_date_is_the_start_of_the_day_in_the_shop(corner_shop: shop_settings.Shop) -> None:
    assert clock.parse_time(corner_shop, "2017-11-01") == datetime(2017, 10, 31, 23, tzinfo=UTC)
    assert clock.parse_time(corner_shop, "2017-07-01") == datetime(2017, 6, 30, 22, tzinfo=UTC)
    assert clock.parse_time(corner_shop, "2017-11-01T12:00") == datetime(2017, 11, 1, 11, tzinfo=UTC)
    assert clock.parse_time(corner_shop, "2017-11-01T12:00:00+08:00") == datetime(2017, 11, 1, 4, tzinfo=UTC)


def test_a_day_without_a_midnight_begins_at_one(tmp_path: Path) -> None:
    """In Beirut the clocks went forward at midnight of 26 March 2017: the day began at 01:00, which is 22:00 UTC."""
    assert timestamps.parse_instant("2017-03-26", "Asia/Beirut") == datetime(2017, 3, 25, 22, tzinfo=UTC)


def test_an_invalid_time_is_refused(corner_shop: shop_settings.Shop) -> None:
    with pytest.raises(ShopError, match="is not a time"):
        clock.parse_time(corner_shop, "yesterday")


def test_the_clock_of_a_pinned_shop_stands_still(tmp_path: Path) -> None:
    pinned = setup.init_home(tmp_path / "s", timezone="America/New_York", now="2017-11-01")
    assert clock.now(pinned) == datetime(2017, 11, 1, 4, tzinfo=UTC)
    assert (clock.now(pinned) - clock.arrival_time(pinned)).microseconds == 1


def test_the_day_after_the_last_sale_begins_in_the_shops_zone(tmp_path: Path, load_lines: object) -> None:
    pinned = setup.init_home(tmp_path / "s", timezone="America/New_York", currency="USD", now="last-sale")
    load_lines(pinned, "1,anna,bread,2018-01-01T04:01:20Z,1,2.50\n")  # type: ignore[operator]
    assert clock.now(pinned) == datetime(2018, 1, 1, 5, tzinfo=UTC)


def test_contacts_are_not_capped_unless_the_shop_sets_a_cap(
    corner_shop: shop_settings.Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (corner_shop.contact_cap, corner_shop.contact_days) == (None, 28)
    monkeypatch.setenv("REGULARS_CONTACT_CAP", "4")
    monkeypatch.setenv("REGULARS_CONTACT_DAYS", "14")
    assert (
        shop_settings.open_shop(corner_shop.home).contact_cap,
        shop_settings.open_shop(corner_shop.home).contact_days,
    ) == (4, 14)
    monkeypatch.setenv("REGULARS_CONTACT_CAP", "often")
    with pytest.raises(ShopError, match="contact_cap must be a whole number of times, at least 1"):
        shop_settings.open_shop(corner_shop.home)


def with_settings(shop: shop_settings.Shop, text: str) -> shop_settings.Shop:
    """The same shop with a few more lines of settings."""
    with (shop.home / "regulars.toml").open("a", encoding="utf-8") as lines:
        lines.write(f"\n{text}\n")
    return shop_settings.open_shop(shop.home)


def test_what_a_contact_costs_is_a_setting(corner_shop: shop_settings.Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert corner_shop.retention == retention_costs.RetentionCosts()
    changed = with_settings(corner_shop, "[retention]\ncontact_cost = 2\nsaved_share = 0.05")
    assert changed.retention == retention_costs.RetentionCosts(contact_cost=2.0, saved_share=0.05)
    monkeypatch.setenv("REGULARS_RETENTION", "{ medium_from = 0.1 }")
    assert shop_settings.open_shop(corner_shop.home).retention == retention_costs.RetentionCosts(medium_from=0.1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("contact_price = 2", "contact_price is not known; there are contact_cost"),
        ("contact_cost = -1", "contact_cost must be an amount"),
        ("contact_cost = nan", "contact_cost must be an amount"),
        ('contact_cost = "2"', "contact_cost must be an amount"),
        ("saved_share = 1.5", "saved_share must be a share"),
        ("medium_from = 0.6", "high_from must not be below medium_from"),
        ("high_cost = 3", "high_cost needs contact_cost"),
        ("contact_cost = 4\nhigh_cost = 3", "high_cost must not be below contact_cost"),
    ],
)
def test_an_invalid_retention_cost_is_named(corner_shop: shop_settings.Shop, lines: str, message: str) -> None:
    with pytest.raises(ShopError, match=f"retention: {message}"):
        with_settings(corner_shop, f"[retention]\n{lines}")


def test_the_example_retention_costs_in_new_settings_are_valid() -> None:
    lines = [
        line.removeprefix("# ").partition("#")[0] for line in retention_costs.CONFIG_TEMPLATE.strip().splitlines()[1:]
    ]
    assert retention_costs.parse_retention_costs(tomllib.loads("\n".join(lines))) == retention_costs.RetentionCosts(
        contact_cost=2.0, high_cost=5.0
    )
