"""A lock that one process of a shop holds, in one home and, on PostgreSQL, in all of them."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from customers.database import shop_lock
from customers.shop.settings import Shop


def test_one_holds_the_lock_and_the_next_one_gets_it(corner_shop: Shop) -> None:
    with shop_lock.hold(corner_shop, "night", wait=False):
        with pytest.raises(shop_lock.LockHeld), shop_lock.hold(corner_shop, "night", wait=False):
            pass
        with shop_lock.hold(corner_shop, "refresh", wait=False):
            pass
    with shop_lock.hold(corner_shop, "night", wait=False):
        assert not shop_lock.is_free(corner_shop, "night")
        assert shop_lock.is_free(corner_shop, "refresh")
    assert shop_lock.is_free(corner_shop, "night")


def test_on_a_server_the_lock_holds_for_every_home(corner_shop: Shop, tmp_path: Path) -> None:
    other = replace(corner_shop, home=tmp_path / "other")
    other.home.mkdir()
    is_refused = False
    with shop_lock.hold(corner_shop, "night"):
        try:
            with shop_lock.hold(other, "night", wait=False):
                pass
        except shop_lock.LockHeld:
            is_refused = True
        with shop_lock.hold_home(other, "night", wait=False):
            pass
        assert shop_lock.is_free(other, "night", in_home=True)
        assert shop_lock.is_free(other, "night") != is_refused
    assert is_refused == corner_shop.database_url.startswith("postgresql")


def test_who_waits_gets_the_lock_when_it_is_free(corner_shop: Shop) -> None:
    done = threading.Event()

    def wait() -> None:
        with shop_lock.hold(corner_shop, "refresh"):
            done.set()

    with shop_lock.hold(corner_shop, "refresh"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not done.wait(0.3)
    assert done.wait(10)
    waiting.join()
