"""Creates a shop's home folder: subfolders, settings file, encryption key and database."""

import base64
import json
import os
import secrets
import tomllib
from pathlib import Path

from customers.database import engine
from customers.shop import merchandising_rules, retention_costs
from customers.shop import settings as shop_settings
from customers.shop.errors import ShopError
from customers.shop.settings import Shop

FOLDERS = ("keys", "ledger", "rejects", "exports", "champions", "features")
CONFIG_TEMPLATE = """\
# The settings of this shop. An environment variable REGULARS_<NAME> overrides a line.
timezone = {timezone}
currency = {currency}
now = {now}  # "real", "last-sale" (the start of the day after the last sale), or a time

# database_url = "postgresql+psycopg://..."   # default: SQLite in this folder
# engine = "duckdb"                           # what computes features
# ledger = "/mnt/shop/ledger"                 # where the Parquet copy of the sales lies; default: in this folder
# online_store = "redis://..."                # default: SQLite in this folder
# churn_days = 56                             # default: from the gaps between purchases
# value_days = 90
# contact_cap = 4                             # at most so many messages, calls and letters to one customer
# contact_days = 28                           # within so many days; default: 28, and no cap
# key_file = "keys/shop.key"                  # keep a copy elsewhere: without it no name can be read

# [consent_default]                           # what holds for a customer without a statement of their own
# profiling = "granted"
# marketing_email = "denied"
"""


def init_home(
    home: Path | str | None = None, *, timezone: str = "UTC", currency: str = "EUR", now: str | None = None
) -> Shop:
    """Create a home with its folders, key, settings and empty database, and open it.

    Raises ShopError where the folder already holds a shop, or where a setting is invalid.
    """
    folder = shop_settings.home_folder(home)
    if (folder / "regulars.toml").exists():
        raise ShopError(f"there is already a shop at {folder}; its settings are in {folder / 'regulars.toml'}")
    values = {"timezone": timezone, "currency": currency, "now": now or "real"}
    shop_settings.check_settings(values)
    _create_folders(folder)
    _create_key(folder / "keys" / "shop.key")
    # The settings file is written last: a home without it is no shop yet, and init can be run again.
    text = (
        CONFIG_TEMPLATE.format(**{name: json.dumps(setting) for name, setting in values.items()})
        + retention_costs.CONFIG_TEMPLATE
        + merchandising_rules.CONFIG_TEMPLATE
    )
    new_shop = shop_settings.build_shop(folder, tomllib.loads(text))
    if new_shop.database_url == shop_settings.default_database_url(folder):
        (folder / "shop.db").touch(mode=0o600)
    engine.upgrade_schema(new_shop)
    partial = folder / "regulars.toml.tmp"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / "regulars.toml")
    return shop_settings.open_shop(folder)


def _create_folders(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in FOLDERS:
        (home / name).mkdir(exist_ok=True, mode=0o700)


def _create_key(path: Path) -> None:
    """Write a new random key; an existing one is never overwritten, or its data could not be decrypted again."""
    if path.exists():
        return
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as key_file:
        key_file.write(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
