"""Errors whose text is shown to the user by commands and API responses."""


class ShopError(Exception):
    """An error that the user can correct; its text explains how."""


class ShopUnavailable(ShopError):
    """A service that the shop needs, such as its database, cannot be reached."""
