"""Encryption of personal fields (AES-GCM) under a key per person, and keyed digests (HMAC-SHA256) to look them up.

A person's key is random and is itself encrypted (wrapped) under a key derived from the shop's key by HKDF. Destroying
it makes everything encrypted under it unreadable for good. E-mail addresses, phone numbers and names can be looked up
by keyed digests, which reveal nothing without the shop's key.
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

from customers.shop.errors import ShopError
from customers.shop.settings import Shop

NONCE_BYTES = 12


class EncryptionError(ShopError):
    """Encrypted data cannot be decrypted with this shop's key."""


class PersonalDataCipher:
    """Encrypts and decrypts personal data and computes lookup digests, for one shop's key."""

    def __init__(self, key: bytes) -> None:
        wrapping_key = _derive_key(key, b"regulars person keys 1")
        self.key_fingerprint = hashlib.sha256(wrapping_key).hexdigest()[:16]
        self._wrapping_cipher = AESGCM(wrapping_key)
        self._digest_key = _derive_key(key, b"regulars lookups 1")

    def new_wrapped_key(self, customer_key: int) -> bytes:
        """A new random key for a person, wrapped; only the wrapped form is ever stored."""
        return _encrypt(self._wrapping_cipher, secrets.token_bytes(32), _associated_data(customer_key, "person-key"))

    def encrypt(self, customer_key: int, wrapped: bytes, fields: dict[str, Any], purpose: str = "personal") -> bytes:
        """Encrypt a person's fields under their key, bound to that person and purpose."""
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return _encrypt(
            self._person_cipher(customer_key, wrapped), text.encode(), _associated_data(customer_key, purpose)
        )

    def decrypt(self, customer_key: int, wrapped: bytes, sealed: bytes, purpose: str = "personal") -> dict[str, Any]:
        """The fields that `encrypt` encrypted for the same person and purpose."""
        text = _decrypt(self._person_cipher(customer_key, wrapped), sealed, _associated_data(customer_key, purpose))
        return dict(json.loads(text))

    def lookup_digest(self, kind: str, text: str) -> bytes:
        """The digest to look up an email, phone or name; spellings with equal normal forms have equal digests."""
        return self._keyed_digest(kind, NORMALISERS[kind](text))

    def lookup_digests(self, fields: dict[str, Any]) -> dict[bytes, str]:
        """Every digest by which a person with these fields can be looked up, with its kind."""
        given_name, family_name = fields.get("given_name") or "", fields.get("family_name") or ""
        normalised = [
            ("email", normalise_email(fields.get("email") or "")),
            ("phone", normalise_phone(fields.get("phone") or "")),
            ("name", normalise_name(given_name + family_name)),
            ("name", normalise_name(family_name + given_name)),
        ]
        return {self._keyed_digest(kind, text): kind for kind, text in normalised if text}

    def tombstone_digest(self, source: str, customer_id: str) -> bytes:
        """The digest by which an erased customer's id is recognised."""
        return self._keyed_digest("tombstone", f"{source}\x00{customer_id}")

    def content_digest(self, content: bytes) -> bytes:
        """A digest of a request or key, to recognise it again without storing it."""
        return hmac.digest(self._digest_key, b"stamp\x00" + content, "sha256")

    def _keyed_digest(self, kind: str, normalised: str) -> bytes:
        return hmac.digest(self._digest_key, f"{kind}\x00{normalised}".encode("utf-8", "surrogatepass"), "sha256")

    def _person_cipher(self, customer_key: int, wrapped: bytes) -> AESGCM:
        return AESGCM(_decrypt(self._wrapping_cipher, wrapped, _associated_data(customer_key, "person-key")))


def get_cipher(shop: Shop) -> PersonalDataCipher:
    """The cipher of a shop's key."""
    return _cached_cipher(shop.key)


def normalise_email(text: str) -> str:
    """The normal form of an e-mail address: NFKC, without surrounding blanks, case-folded."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


def normalise_phone(text: str) -> str:
    """The normal form of a phone number: digits only, with a leading + before a country code."""
    trimmed = unicodedata.normalize("NFKC", text).strip()
    digits = re.sub(r"\D", "", trimmed)
    if digits.startswith("00"):
        return "+" + digits[2:]
    return "+" + digits if trimmed.startswith("+") and digits else digits


def normalise_name(text: str) -> str:
    """The normal form of a name: letters and digits only, without accents, case-folded."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    return "".join(letter for letter in letters if letter.isalnum())


NORMALISERS = {"email": normalise_email, "phone": normalise_phone, "name": normalise_name}


@lru_cache(maxsize=8)
def _cached_cipher(key: bytes) -> PersonalDataCipher:
    return PersonalDataCipher(key)


def _derive_key(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key)


def _associated_data(customer_key: int, purpose: str) -> bytes:
    """Binds a ciphertext to person and purpose: for any other it does not decrypt."""
    return f"{customer_key}|{purpose}".encode()


def _encrypt(cipher: AESGCM, text: bytes, associated_data: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, text, associated_data)


def _decrypt(cipher: AESGCM, sealed: bytes, associated_data: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated_data)
    except (InvalidTag, ValueError):
        raise EncryptionError(
            "a customer's sealed fields do not open: they were altered, or the shop's key is another one; "
            "put back the key that init made"
        ) from None
