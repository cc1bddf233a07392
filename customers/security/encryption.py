"""Vault: personal fields, sealed under a key of that person, and found again without being opened.

A person's key is random and itself sealed under a key that comes from the shop's key. Destroying it
makes everything sealed under it unreadable for good. Whoever knows an e-mail address, phone number or
name can look it up through a keyed digest; the digest gives nothing away without the shop's key.
"""

import hashlib
import hmac
import json
import re
import secrets
import unicodedata
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from customers.shop import Shop, ShopError

NONCE = 12


class VaultError(ShopError):
    """Something sealed cannot be opened with this shop's key."""


class Vault:
    """Seals and opens what is personal, for one shop's key."""

    def __init__(self, key: bytes) -> None:
        wrapping = _derived(key, b"regulars person keys 1")
        self.name = hashlib.sha256(wrapping).hexdigest()[:16]
        self._wrapping = AESGCM(wrapping)
        self._digests = _derived(key, b"regulars lookups 1")

    def new_key(self, customer_key: int) -> bytes:
        """A fresh random key for a person, wrapped; only the wrapped form is ever kept."""
        return _seal(self._wrapping, secrets.token_bytes(32), _bound(customer_key, "person-key"))

    def seal(self, customer_key: int, wrapped: bytes, fields: dict[str, Any], purpose: str = "personal") -> bytes:
        """Seal a person's fields under their key, bound to that person and purpose."""
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return _seal(self._person(customer_key, wrapped), text.encode(), _bound(customer_key, purpose))

    def open(self, customer_key: int, wrapped: bytes, sealed: bytes, purpose: str = "personal") -> dict[str, Any]:
        """The fields that `seal` sealed."""
        text = _open(self._person(customer_key, wrapped), sealed, _bound(customer_key, purpose))
        return dict(json.loads(text))

    def token(self, kind: str, text: str) -> bytes:
        """The digest under which an email, phone or name is looked up; equal spellings give equal digests."""
        return self._digest(kind, SPELLINGS[kind](text))

    def tokens(self, fields: dict[str, Any]) -> dict[bytes, str]:
        """Every digest under which a person with these fields can be found, with its kind."""
        given, family = fields.get("given_name") or "", fields.get("family_name") or ""
        spelled = [
            ("email", email_key(fields.get("email") or "")),
            ("phone", phone_key(fields.get("phone") or "")),
            ("name", name_key(given + family)),
            ("name", name_key(family + given)),
        ]
        return {self._digest(kind, text): kind for kind, text in spelled if text}

    def tombstone(self, source: str, customer_id: str) -> bytes:
        """The digest by which an erased customer's id is known again, and by nothing else."""
        return self._digest("tombstone", f"{source}\x00{customer_id}")

    def stamp(self, said: bytes) -> bytes:
        """A digest of what somebody sent, to know it again without keeping it."""
        return hmac.digest(self._digests, b"stamp\x00" + said, "sha256")

    def _digest(self, kind: str, spelled: str) -> bytes:
        return hmac.digest(self._digests, f"{kind}\x00{spelled}".encode("utf-8", "surrogatepass"), "sha256")

    def _person(self, customer_key: int, wrapped: bytes) -> AESGCM:
        return AESGCM(_open(self._wrapping, wrapped, _bound(customer_key, "person-key")))


def of(shop: Shop) -> Vault:
    """The vault of a shop."""
    return _vault(shop.key)


def email_key(text: str) -> str:
    """An e-mail address as it is compared: without blanks, in one case."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


def phone_key(text: str) -> str:
    """A phone number as it is compared: digits alone, with a leading + for a country's code."""
    plain = unicodedata.normalize("NFKC", text).strip()
    digits = re.sub(r"\D", "", plain)
    if digits.startswith("00"):
        return "+" + digits[2:]
    return "+" + digits if plain.startswith("+") and digits else digits


def name_key(text: str) -> str:
    """A name as it is compared: letters alone, without accents, in one case."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    return "".join(letter for letter in letters if letter.isalnum())


SPELLINGS = {"email": email_key, "phone": phone_key, "name": name_key}


@lru_cache(maxsize=8)
def _vault(key: bytes) -> Vault:
    return Vault(key)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key)


def _bound(customer_key: int, purpose: str) -> bytes:
    """What a sealed text is bound to: moved to another person or purpose, it does not open."""
    return f"{customer_key}|{purpose}".encode()


def _seal(cipher: AESGCM, text: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE)
    return nonce + cipher.encrypt(nonce, text, bound)


def _open(cipher: AESGCM, sealed: bytes, bound: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE], sealed[NONCE:], bound)
    except (InvalidTag, ValueError):
        raise VaultError(
            "a customer's sealed fields do not open: they were altered, or the shop's key is another one; "
            "put back the key that init made"
        ) from None
