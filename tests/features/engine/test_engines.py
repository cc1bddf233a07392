"""An engine that cannot be opened says what to install."""

import shutil
import sys

import pytest

from customers.shop.errors import ShopUnavailable
from features.engine import engines


def test_spark_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    for name in [name for name in sys.modules if name in ("features.engine.spark", "ibis.backends.pyspark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("features.engine.spark", raising=False)
    with pytest.raises(ShopUnavailable, match=r"pip install .*regulars\[spark\]"), engines.open_engine("spark"):
        pass


def test_spark_without_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'regulars[spark]'")
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ShopUnavailable, match="openjdk-17-jre-headless"), engines.open_engine("spark"):
        pass
