"""Shop: where one shop keeps everything, and the settings it runs under."""

import base64
import json
import os
import secrets
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from customers import database, money, retention, wishes
from customers.retention import Retention
from customers.wishes import Wishes

Read = TypeVar("Read")
FOLDERS = ("keys", "ledger", "rejects", "exports", "champions", "features")
PURPOSES = (
    "marketing_email",
    "marketing_sms",
    "marketing_phone",
    "marketing_post",
    "marketing_app",
    "marketing_social",
    "profiling",
    "profiling_sensitive",
    "third_party",
)
STATES = ("granted", "denied", "revoked")
SETTINGS = (
    "database_url",
    "engine",
    "online_store",
    "timezone",
    "currency",
    "now",
    "churn_days",
    "value_days",
    "contact_cap",
    "contact_days",
    "consent_default",
    "recommendations",
    "retention",
    "key",
    "key_file",
)
TOML = """\
# The settings of this shop. An environment variable REGULARS_<NAME> overrides a line.
timezone = {timezone}
currency = {currency}
now = {now}  # "real", "last-sale" (the start of the day after the last sale), or a time

# database_url = "postgresql+psycopg://..."   # default: SQLite in this folder
# engine = "duckdb"                           # what computes features
# online_store = "redis://..."                # default: SQLite in this folder
# churn_days = 56                             # default: from the gaps between purchases
# value_days = 90
# contact_cap = 4                             # so often somebody is written to, called or sent post at most
# contact_days = 28                           # in so many days; default: 28, and no cap
# key_file = "keys/shop.key"                  # keep a copy elsewhere: without it no name can be read

# [consent_default]                           # what holds for a customer who has said nothing
# profiling = "granted"
# marketing_email = "denied"
"""


class ShopError(Exception):
    """Something the user can put right; its text says how."""


class ShopDown(ShopError):
    """Something the shop needs does not answer."""


@dataclass(frozen=True, slots=True)
class Shop:
    """One shop: its home folder and settings. Two homes are two shops and share nothing."""

    home: Path
    timezone: str
    currency: str
    clock: str
    database_url: str = field(repr=False)
    engine: str
    online_store: str | None = field(repr=False)
    churn_days: int | None
    value_days: int
    contact_cap: int | None
    contact_days: int
    consent_default: dict[str, str] = field(hash=False)
    recommendations: Wishes
    retention: Retention
    key: bytes = field(repr=False)

    @property
    def zone(self) -> ZoneInfo:
        """The shop's time zone, in which its days begin and end."""
        return ZoneInfo(self.timezone)


def init(
    home: Path | str | None = None, *, timezone: str = "UTC", currency: str = "EUR", now: str | None = None
) -> Shop:
    """Make a home with its folders, key, settings and empty database, and open it."""
    place = _home(home)
    if (place / "regulars.toml").exists():
        raise ShopError(f"there is already a shop at {place}; its settings are in {place / 'regulars.toml'}")
    settings = {"timezone": timezone, "currency": currency, "now": now or "real"}
    _checked(settings)
    _make_folders(place)
    _make_key(place / "keys" / "shop.key")
    # The settings come last: a home without them is no shop yet, and init can be run again.
    text = TOML.format(**{name: json.dumps(value) for name, value in settings.items()}) + retention.TOML + wishes.TOML
    fresh = _shop(place, tomllib.loads(text))
    if fresh.database_url == _default_database(place):
        (place / "shop.db").touch(mode=0o600)
    database.upgrade(fresh)
    partial = place / "regulars.toml.tmp"
    partial.write_text(text, encoding="utf-8")
    partial.replace(place / "regulars.toml")
    return open(place)


def open(home: Path | str | None = None) -> Shop:
    """The shop at `home` (default: REGULARS_HOME, else ./.regulars) with its settings."""
    place = _home(home)
    path = place / "regulars.toml"
    if not path.exists():
        raise ShopError(f"no shop at {place} yet; run: regulars init")
    try:
        return _shop(place, tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ShopError(f"{path} is not valid TOML ({error}); correct that line") from None


def _home(home: Path | str | None) -> Path:
    return Path(home or os.environ.get("REGULARS_HOME") or ".regulars").expanduser().absolute()


def _make_folders(place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in FOLDERS:
        (place / folder).mkdir(exist_ok=True, mode=0o700)


def _make_key(path: Path) -> None:
    """A key that is already there is never overwritten: what it sealed could not be read again."""
    if path.exists():
        return
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as key_file:
        key_file.write(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")


def _shop(place: Path, written: dict[str, Any]) -> Shop:
    settings = _checked(_overridden(written))
    return Shop(
        home=place,
        timezone=settings["timezone"],
        currency=settings["currency"],
        clock=settings["now"],
        database_url=settings.get("database_url") or _default_database(place),
        engine=settings.get("engine") or "duckdb",
        online_store=settings.get("online_store") or None,
        churn_days=_days(settings, "churn_days", None),
        value_days=_days(settings, "value_days", 90) or 90,
        contact_cap=_whole(settings, "contact_cap", "times", None),
        contact_days=_days(settings, "contact_days", 28) or 28,
        consent_default=_consent(settings.get("consent_default")),
        recommendations=_table(wishes.read, settings.get("recommendations")),
        retention=_table(retention.read, settings.get("retention")),
        key=_key(place, settings),
    )


def _default_database(place: Path) -> str:
    return f"sqlite:///{place / 'shop.db'}"


def _overridden(written: dict[str, Any]) -> dict[str, Any]:
    from_environment = {name: os.environ.get(f"REGULARS_{name.upper()}") for name in SETTINGS}
    return {**written, **{name: value for name, value in from_environment.items() if value}}


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    settings = {"timezone": "UTC", "currency": "EUR", **settings}
    settings["timezone"] = _timezone(str(settings["timezone"]))
    settings["currency"] = _currency(str(settings["currency"]))
    settings["now"] = _clock(settings.get("now") or "real", settings["timezone"])
    return settings


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ShopError(f"unknown time zone {name!r}; use a name such as Europe/Berlin or UTC") from None
    return name


def _currency(code: str) -> str:
    if code.upper() not in money.EXPONENTS:
        raise ShopError(f"unknown currency {code!r}; use a three-letter ISO 4217 code such as EUR")
    return code.upper()


def _clock(value: Any, timezone: str) -> str:
    text = value.isoformat() if hasattr(value, "isoformat") else str(value).strip()
    if text not in ("real", "last-sale"):
        from customers import clock  # here, because the clock itself opens the shop's memory

        clock.instant(text, timezone)
    return text


def _days(settings: dict[str, Any], name: str, default: int | None) -> int | None:
    return _whole(settings, name, "days", default)


def _whole(settings: dict[str, Any], name: str, of_what: str, default: int | None) -> int | None:
    value = settings.get(name)
    if value in (None, ""):
        return default
    if not str(value).isdecimal() or int(value) < 1:
        raise ShopError(f"{name} must be a whole number of {of_what}, at least 1; it is {value!r}")
    return int(value)


def _consent(value: Any) -> dict[str, str]:
    default = {purpose: "granted" if purpose == "profiling" else "denied" for purpose in PURPOSES}
    said = _pairs(value) if isinstance(value, str) else (value or {})
    for purpose, state in said.items():
        if purpose not in PURPOSES or state not in STATES:
            raise ShopError(
                f"consent_default: {purpose} = {state!r} is not understood; "
                f"purposes are {', '.join(PURPOSES)} and states are {', '.join(STATES)}"
            )
    return {**default, **said}


def _table(read: Callable[[Any], Read], value: Any) -> Read:
    try:
        return read(value or {})
    except ValueError as error:
        raise ShopError(str(error)) from None


def _pairs(text: str) -> dict[str, str]:
    """`profiling=granted,marketing_email=denied`, as an environment variable says it."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {purpose.strip(): state.strip() for purpose, _, state in pairs}


def _key(place: Path, settings: dict[str, Any]) -> bytes:
    path = place / Path(settings.get("key_file") or "keys/shop.key").expanduser()
    text = settings.get("key")
    if not text:
        if not path.exists():
            raise ShopError(f"the shop's key is missing: {path}; put its copy back or set REGULARS_KEY")
        text = path.read_text(encoding="ascii", errors="replace")
    try:
        key = base64.b64decode(str(text).strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ShopError("the shop's key is not 32 bytes in base64; put back the key that init made")
    return key
