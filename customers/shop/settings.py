"""One shop's home folder and settings, read from regulars.toml and the environment."""

import base64
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from customers.shop import merchandising_rules, money, retention_costs, timestamps
from customers.shop.errors import ShopError
from customers.shop.merchandising_rules import MerchandisingRules
from customers.shop.retention_costs import RetentionCosts

Parsed = TypeVar("Parsed")
CONSENT_PURPOSES = (
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
CONSENT_STATES = ("granted", "denied", "revoked")
#: What computes features: one machine, or Spark.
DUCKDB, SPARK = ENGINES = ("duckdb", "spark")
SETTING_NAMES = (
    "database_url",
    "engine",
    "ledger",
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


@dataclass(frozen=True, slots=True)
class Shop:
    """Home folder and settings of one shop; two homes are two shops that share nothing."""

    home: Path
    timezone: str
    currency: str
    clock: str
    database_url: str = field(repr=False)
    engine: str
    ledger_folder: Path | None
    online_store: str | None = field(repr=False)
    churn_days: int | None
    value_days: int
    contact_cap: int | None
    contact_days: int
    consent_default: dict[str, str] = field(hash=False)
    recommendations: MerchandisingRules
    retention: RetentionCosts
    key: bytes = field(repr=False)

    @property
    def ledger(self) -> Path:
        """The folder of the mirror: `ledger` in the home, unless the settings name another."""
        return self.ledger_folder or self.home / "ledger"

    @property
    def has_one_writer(self) -> bool:
        """Whether one process writes the database at a time: SQLite. PostgreSQL takes several."""
        return self.database_url.startswith("sqlite")

    @property
    def zone(self) -> ZoneInfo:
        """The shop's time zone, in which its days begin and end."""
        return ZoneInfo(self.timezone)


def open_shop(home: Path | str | None = None) -> Shop:
    """The shop at `home` (default: REGULARS_HOME, else ./.regulars) with its settings.

    Raises ShopError where there is no shop, where regulars.toml is not valid TOML, or where a setting is invalid.
    """
    folder = home_folder(home)
    path = folder / "regulars.toml"
    if not path.exists():
        raise ShopError(f"no shop at {folder} yet; run: regulars init")
    try:
        return build_shop(folder, tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ShopError(f"{path} is not valid TOML ({error}); correct that line") from None


def home_folder(home: Path | str | None) -> Path:
    """The absolute path of `home`; default: REGULARS_HOME, else ./.regulars."""
    return Path(home or os.environ.get("REGULARS_HOME") or ".regulars").expanduser().absolute()


def build_shop(folder: Path, values: dict[str, Any]) -> Shop:
    """The shop at `folder` from the values of its settings file; variables REGULARS_<NAME> override them."""
    checked = check_settings(_with_environment(values))
    return Shop(
        home=folder,
        timezone=checked["timezone"],
        currency=checked["currency"],
        clock=checked["now"],
        database_url=checked.get("database_url") or default_database_url(folder),
        engine=checked["engine"],
        ledger_folder=_parse_folder(folder, checked, "ledger"),
        online_store=checked.get("online_store") or None,
        churn_days=_parse_days(checked, "churn_days", None),
        value_days=_parse_days(checked, "value_days", 90) or 90,
        contact_cap=_parse_count(checked, "contact_cap", "times", None),
        contact_days=_parse_days(checked, "contact_days", 28) or 28,
        consent_default=_parse_consent_default(checked.get("consent_default")),
        recommendations=_parse_table(merchandising_rules.parse_rules, checked.get("recommendations")),
        retention=_parse_table(retention_costs.parse_retention_costs, checked.get("retention")),
        key=_load_key(folder, checked),
    )


def default_database_url(folder: Path) -> str:
    """The URL of the SQLite database in a home folder."""
    return f"sqlite:///{folder / 'shop.db'}"


def _with_environment(values: dict[str, Any]) -> dict[str, Any]:
    from_environment = {name: os.environ.get(f"REGULARS_{name.upper()}") for name in SETTING_NAMES}
    return {**values, **{name: value for name, value in from_environment.items() if value}}


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with time zone, currency, clock and engine checked and their defaults filled in."""
    settings = {"timezone": "UTC", "currency": "EUR", **settings}
    settings["engine"] = _check_engine(settings.get("engine") or ENGINES[0])
    settings["timezone"] = _check_timezone(str(settings["timezone"]))
    settings["currency"] = _check_currency(str(settings["currency"]))
    settings["now"] = _check_clock(settings.get("now") or "real", settings["timezone"])
    return settings


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ShopError(f"unknown time zone {name!r}; use a name such as Europe/Berlin or UTC") from None
    return name


def _check_currency(code: str) -> str:
    if code.upper() not in money.EXPONENTS:
        raise ShopError(f"unknown currency {code!r}; use a three-letter ISO 4217 code such as EUR")
    return code.upper()


def _check_engine(name: Any) -> str:
    if name not in ENGINES:
        raise ShopError(f"unknown engine {name!r}; use {' or '.join(ENGINES)}")
    return str(name)


def _check_clock(value: Any, timezone: str) -> str:
    text = value.isoformat() if hasattr(value, "isoformat") else str(value).strip()
    if text not in ("real", "last-sale"):
        timestamps.parse_instant(text, timezone)
    return text


def _parse_folder(home: Path, settings: dict[str, Any], name: str) -> Path | None:
    """A folder, relative to the home; None where the setting is absent."""
    value = str(settings.get(name) or "")
    if "://" in value:
        raise ShopError(f"{name} must be a folder; mount the object store, and give the path of the mount")
    return home / Path(value).expanduser() if value else None


def _parse_days(settings: dict[str, Any], name: str, default: int | None) -> int | None:
    return _parse_count(settings, name, "days", default)


def _parse_count(settings: dict[str, Any], name: str, unit: str, default: int | None) -> int | None:
    value = settings.get(name)
    if value in (None, ""):
        return default
    if not str(value).isdecimal() or int(value) < 1:
        raise ShopError(f"{name} must be a whole number of {unit}, at least 1; it is {value!r}")
    return int(value)


def _parse_consent_default(value: Any) -> dict[str, str]:
    default = {purpose: "granted" if purpose == "profiling" else "denied" for purpose in CONSENT_PURPOSES}
    states = _parse_pairs(value) if isinstance(value, str) else (value or {})
    for purpose, state in states.items():
        if purpose not in CONSENT_PURPOSES or state not in CONSENT_STATES:
            raise ShopError(
                f"consent_default: {purpose} = {state!r} is not understood; "
                f"purposes are {', '.join(CONSENT_PURPOSES)} and states are {', '.join(CONSENT_STATES)}"
            )
    return {**default, **states}


def _parse_table(parse: Callable[[Any], Parsed], value: Any) -> Parsed:
    try:
        return parse(value or {})
    except ValueError as error:
        raise ShopError(str(error)) from None


def _parse_pairs(text: str) -> dict[str, str]:
    """Parse `profiling=granted,marketing_email=denied`, the form of an environment variable."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {purpose.strip(): state.strip() for purpose, _, state in pairs}


def _load_key(folder: Path, settings: dict[str, Any]) -> bytes:
    path = folder / Path(settings.get("key_file") or "keys/shop.key").expanduser()
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
