"""A champion is opened only if it is whole: changed files are refused, and a killed promotion leaves the old one."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.btyd import bg_nbd
from models.recommender.popularity import Bestsellers, Popularity
from models.registry import bundle, learners
from models.registry import champions as registry_champions
from models.timing import baselines as timing_baselines

APPLES, BREAD = 1, 2


def popularity_model(*products: int) -> Popularity:
    """A model that recommends these products, in this order."""
    return Popularity(Bestsellers(np.array(products), np.linspace(0.9, 0.1, len(products))))


def first_product(champion: bundle.Champion | None) -> int:
    assert champion is not None
    customer = pd.DataFrame([{"customer_key": 1, "product_keys": None}])
    return int(champion.model.score(customer, n=1, lists=("any",)).product_key.iloc[0])


@pytest.fixture
def apples(tmp_path: Path) -> Path:
    bundle.write(popularity_model(APPLES, BREAD), tmp_path / "apples", facts={"as_of": "2017-12-04T05:00:00Z"})
    return tmp_path / "apples"


@pytest.fixture
def bread(tmp_path: Path) -> Path:
    bundle.write(popularity_model(BREAD, APPLES), tmp_path / "bread", facts={"as_of": "2017-12-05T05:00:00Z"})
    return tmp_path / "bread"


@pytest.fixture
def champions(tmp_path: Path) -> Path:
    return tmp_path / "champions"


def rewrite(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_bundle_lists_its_files_and_opens(apples):
    manifest = bundle.verify(apples)
    assert manifest.learner == "bestsellers.Popularity"
    assert manifest.facts == {"as_of": "2017-12-04T05:00:00Z"}
    assert manifest.files["arrays.npz"][1] == (apples / "arrays.npz").stat().st_size
    _, model = bundle.open_model(apples)
    assert model.population_average()[0].tolist() == [APPLES, BREAD]


def test_writing_the_same_model_twice_gives_the_same_bytes(apples, tmp_path):
    bundle.write(popularity_model(APPLES, BREAD), tmp_path / "again", facts={"as_of": "2017-12-04T05:00:00Z"})
    assert bundle.verify(tmp_path / "again") == bundle.verify(apples)


def test_a_bundle_is_not_written_over_another_nor_for_an_unknown_learner(apples, tmp_path):
    with pytest.raises(bundle.InvalidBundle, match="not empty"):
        bundle.write(popularity_model(BREAD), apples, facts={})
    with pytest.raises(bundle.InvalidBundle, match="has no learner id"):
        bundle.write(object(), tmp_path / "other", facts={})  # type: ignore[arg-type]


def change_byte(folder: Path) -> None:
    content = bytearray((folder / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "arrays.npz").write_bytes(content)


def replace_file_by_link(folder: Path) -> None:
    (folder / "arrays.npz").rename(folder.parent / "elsewhere.npz")
    (folder / "arrays.npz").symlink_to(folder.parent / "elsewhere.npz")


def replace_manifest_by_link(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "elsewhere.json")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere.json")


def add_path_outside(folder: Path) -> None:
    (folder.parent / "outside.npz").write_bytes((folder / "arrays.npz").read_bytes())
    rewrite(folder, lambda manifest: manifest["files"].update({"../outside.npz": manifest["files"]["arrays.npz"]}))


def replace_file_by_folder(folder: Path) -> None:
    (folder / "arrays.npz").unlink()
    (folder / "arrays.npz").mkdir()


TAMPERINGS = {
    "a changed byte": change_byte,
    "a file cut short": lambda folder: os.truncate(folder / "arrays.npz", 40),
    "a file too long": lambda folder: (folder / "arrays.npz").open("ab").write(b"more"),
    "a missing file": lambda folder: (folder / "arrays.npz").unlink(),
    "a file that is not listed": lambda folder: (folder / "model.pkl").write_bytes(b"cos\nsystem\n"),
    "a hidden file": lambda folder: (folder / ".hidden").write_text("x"),
    "a folder that is not listed": lambda folder: (folder / "code").mkdir(),
    "a folder for a file": replace_file_by_folder,
    "a link for a file": replace_file_by_link,
    "a link for the manifest": replace_manifest_by_link,
    "a path that leaves the folder": add_path_outside,
    "an absolute path": lambda folder: rewrite(
        folder, lambda manifest: manifest["files"].update({"/etc/hostname": manifest["files"]["arrays.npz"]})
    ),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "a manifest cut short": lambda folder: os.truncate(folder / "manifest.json", 30),
    "an endless manifest": lambda folder: (folder / "manifest.json").write_text(" " * 2_000_000),
    "a deep manifest": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "a manifest of another shape": lambda folder: (folder / "manifest.json").write_text("[1, 2]"),
    "files of another shape": lambda folder: rewrite(folder, lambda manifest: manifest.update(files=["arrays.npz"])),
    "no checksum": lambda folder: rewrite(folder, lambda manifest: manifest["files"]["arrays.npz"].pop("sha256")),
    "a learner by import path": lambda folder: rewrite(folder, lambda manifest: manifest.update(learner="os:system")),
    "a learner that is no string": lambda folder: rewrite(folder, lambda manifest: manifest.update(learner=["x"])),
    "no facts": lambda folder: rewrite(folder, lambda manifest: manifest.pop("facts")),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_tampered_bundle_is_neither_opened_nor_published(tampering, apples, champions):
    TAMPERINGS[tampering](apples)
    with pytest.raises(bundle.InvalidBundle):
        bundle.open_model(apples)
    with pytest.raises(bundle.InvalidBundle):
        bundle.publish(apples, champions, "recommender", "1")
    assert bundle.open_champion(champions, "recommender") is None


def test_every_single_changed_byte_is_detected(apples):
    content = (apples / "arrays.npz").read_bytes()
    for position in range(0, len(content), 7):
        (apples / "arrays.npz").write_bytes(
            content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :]
        )
        with pytest.raises(bundle.InvalidBundle, match=r"arrays\.npz has changed"):
            bundle.verify(apples)
    (apples / "arrays.npz").write_bytes(content)
    bundle.verify(apples)


def test_there_is_no_champion_before_the_first_is_published(champions):
    assert bundle.open_champion(champions, "recommender") is None


def test_the_published_champion_is_opened_with_its_facts(apples, champions):
    assert bundle.publish(apples, champions, "recommender", "1") == champions / "recommender" / "1"
    champion = bundle.open_champion(champions, "recommender")
    assert first_product(champion) == APPLES
    assert (champion.name, champion.version, champion.facts["as_of"][:10]) == (
        "recommender",
        "1",
        "2017-12-04",
    )


def test_publishing_twice_changes_nothing_and_a_rollback_is_publishing_again(apples, bread, champions):
    for folder, version in ((apples, "1"), (apples, "1"), (bread, "2"), (apples, "1")):
        bundle.publish(folder, champions, "recommender", version)
    assert first_product(bundle.open_champion(champions, "recommender")) == APPLES
    assert sorted(path.name for path in (champions / "recommender").iterdir()) == ["1", "2"]


def test_a_version_never_changes_its_content(apples, bread, champions):
    bundle.publish(apples, champions, "recommender", "1")
    with pytest.raises(bundle.InvalidBundle, match="already published with other content"):
        bundle.publish(bread, champions, "recommender", "1")
    assert first_product(bundle.open_champion(champions, "recommender")) == APPLES


def test_a_damaged_version_is_refused_and_repaired_by_publishing_it_again(apples, champions):
    published = bundle.publish(apples, champions, "recommender", "1")
    change_byte(published)
    with pytest.raises(bundle.InvalidBundle, match="has changed"):
        bundle.open_champion(champions, "recommender")
    bundle.publish(apples, champions, "recommender", "1")
    assert first_product(bundle.open_champion(champions, "recommender")) == APPLES
    assert [path.name for path in (champions / "recommender").iterdir()] == ["1"]


def test_a_valid_bundle_that_is_not_the_published_one_is_refused(apples, bread, champions):
    published = bundle.publish(apples, champions, "recommender", "1")
    shutil.rmtree(published)
    shutil.copytree(bread, published)
    with pytest.raises(bundle.InvalidBundle, match="not the one that was published"):
        bundle.open_champion(champions, "recommender")


@pytest.mark.parametrize("version", ["../1", "", "1/2", ".hidden", "a b"])
def test_a_version_is_a_plain_word(version, apples, champions):
    with pytest.raises(bundle.InvalidBundle, match="plain words"):
        bundle.publish(apples, champions, "recommender", version)


@pytest.mark.parametrize(
    "pointer", ["{", "[]", "{}", '{"version": "../../x", "manifest_sha256": "0"}', '{"version": 1}']
)
def test_a_broken_pointer_is_refused(pointer, apples, champions):
    bundle.publish(apples, champions, "recommender", "1")
    (champions / "recommender.json").write_text(pointer)
    with pytest.raises(bundle.InvalidBundle):
        bundle.open_champion(champions, "recommender")


def test_only_the_versions_published_last_are_retained(apples, champions):
    for version in "12345":
        bundle.publish(apples, champions, "recommender", version, keep_versions=3)
    assert sorted(path.name for path in (champions / "recommender").iterdir()) == ["3", "4", "5"]


PUBLISHER = """
import sys
from pathlib import Path
from models.registry import bundle
apples, bread, champions = map(Path, sys.argv[1:4])
print("ready", flush=True)
version = int(sys.argv[4])
while True:
    version += 1
    bundle.publish((apples, bread)[version % 2], champions, "recommender", str(version))
"""


@pytest.mark.acceptance
def test_a_publisher_killed_at_any_time_leaves_a_champion_that_opens(apples, bread, champions):
    rng = random.Random(1)
    bundle.publish(apples, champions, "recommender", "0")
    opened_versions = set()
    for kill in range(10):
        start = str(1000 * (kill + 1))
        command = [sys.executable, "-c", PUBLISHER, str(apples), str(bread), str(champions), start]
        publisher = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(bundle.__file__).parents[2])
        assert publisher.stdout is not None
        publisher.stdout.readline()
        time.sleep(rng.uniform(0, 0.06))
        publisher.kill()
        publisher.communicate()
        champion = bundle.open_champion(champions, "recommender")
        assert champion is not None
        assert first_product(champion) == (APPLES, BREAD)[int(champion.version) % 2]
        opened_versions.add(champion.version)
    assert len(opened_versions) > 1
    bundle.publish(apples, champions, "recommender", "999998")
    assert not list((champions / "recommender").glob(".*"))


def test_folders_of_a_killed_publisher_are_cleared_and_those_of_a_running_one_are_not(apples, champions):
    versions = champions / "recommender"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for owner in (dead.pid, os.getppid()):
        (versions / f".7.{owner}").mkdir(parents=True)
    bundle.publish(apples, champions, "recommender", "8")
    assert sorted(path.name for path in versions.iterdir()) == [f".7.{os.getppid()}", "8"]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_promotion_is_detected_within_half_a_second_and_not_checked_more_often(apples, bread, champions):
    clock = Clock()
    served = registry_champions.Champions(champions, clock=clock)
    assert served.get("recommender") is None
    assert served.errors == {}
    bundle.publish(apples, champions, "recommender", "1")
    assert served.get("recommender") is None
    clock.now = 0.5
    first = served.get("recommender")
    assert first_product(first) == APPLES
    bundle.publish(bread, champions, "recommender", "2")
    clock.now = 0.9
    assert served.get("recommender") is first
    clock.now = 1.0
    assert first_product(served.get("recommender")) == BREAD


def test_a_champion_that_cannot_be_opened_leaves_the_last_one_serving_and_reports_an_error(apples, bread, champions):
    clock = Clock()
    served = registry_champions.Champions(champions, clock=clock)
    bundle.publish(apples, champions, "recommender", "1")
    assert first_product(served.get("recommender")) == APPLES
    published = bundle.publish(bread, champions, "recommender", "2")
    original = (published / "arrays.npz").read_bytes()
    change_byte(published)
    clock.now = 1.0
    assert first_product(served.get("recommender")) == APPLES
    assert served.errors == {"recommender": "arrays.npz has changed since it was written"}
    (published / "arrays.npz").write_bytes(original)
    clock.now = 2.0
    assert first_product(served.get("recommender")) == APPLES
    clock.now = 40.0
    assert first_product(served.get("recommender")) == BREAD
    assert served.errors == {}


def test_a_deleted_pointer_leaves_the_champion_serving(apples, champions):
    clock = Clock()
    served = registry_champions.Champions(champions, clock=clock)
    bundle.publish(apples, champions, "recommender", "1")
    served.get("recommender")
    (champions / "recommender.json").unlink()
    clock.now = 1.0
    assert first_product(served.get("recommender")) == APPLES
    assert "pointer is gone" in served.errors["recommender"]


def test_many_readers_get_only_whole_champions_while_they_change(apples, bread, champions):
    bundle.publish(apples, champions, "recommender", "0")
    served = registry_champions.Champions(champions, check_seconds=0.0)
    mismatched, is_done = [], threading.Event()

    def read() -> None:
        while not is_done.is_set():
            champion = served.get("recommender")
            if champion is None or first_product(champion) != (APPLES, BREAD)[int(champion.version) % 2]:
                mismatched.append(champion)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for version in range(1, 13):
        bundle.publish((apples, bread)[version % 2], champions, "recommender", str(version))
    is_done.set()
    for reader in readers:
        reader.join()
    assert not mismatched
    assert served.get("recommender").version == "12"
    assert served.errors == {}


@pytest.mark.parametrize("learner", learners.LEARNERS)
def test_every_learner_id_opens_the_class_with_that_id(learner: str) -> None:
    assert learners.learner_id(learners.learner_class(learner)) == learner


def test_a_timing_model_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    baseline = timing_baselines.BgNbdTiming(bg_nbd.BgNbd(1.0, 10.0, 0.5, 2.0), 3, np.array([0.9, 0.8, 0.7]))
    bundle.write(baseline, tmp_path / "old", facts={})
    manifest = tmp_path / "old" / bundle.MANIFEST
    manifest.write_text(manifest.read_text().replace("baselines.BgNbdTiming", "timing.Timing"))
    with pytest.raises(bundle.InvalidBundle, match="another version of regulars; run: regulars run"):
        bundle.open_model(tmp_path / "old")
