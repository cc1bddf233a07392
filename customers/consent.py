"""Consent: what each customer allows; who has said nothing is held to the shop's default."""

from collections.abc import Iterable

from customers.shop import Shop


def by_default(shop: Shop, purpose: str) -> bool:
    """Whether a customer who has said nothing allows this."""
    return shop.consent_default[purpose] == "granted"


def allowed(shop: Shop, keys: Iterable[int], purpose: str) -> set[int]:
    """Those of these customers who allow this; nobody has a consent of their own yet."""
    return set(keys) if by_default(shop, purpose) else set()
