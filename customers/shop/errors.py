"""Errors of a shop that a command or an answer puts into words."""


class ShopError(Exception):
    """Something the user can put right; its text says how."""


class ShopUnavailable(ShopError):
    """Something the shop needs does not answer."""
