"""A champion that predicts otherwise than when it was trained is refused before it serves."""

import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.registry import bundle, champion_checks, golden
from models.registry.champions import Champions
from models.timing.baselines import BgNbdTiming

CUSTOMERS = 60
FEATURES = ("purchase_days", "recency_days", "span_days", "tenure_days")


def training_frame(customers: int = CUSTOMERS) -> pd.DataFrame:
    """Customers who bought 1 to 20 times in their 200 days; columns as the timing model reads."""
    rng = np.random.default_rng(3)
    purchase_days = rng.integers(2, 20, customers).astype(float)
    recency_days = rng.integers(1, 90, customers).astype(float)
    return pd.DataFrame(
        {
            "customer_key": np.arange(7_000, 7_000 + customers),
            "as_of": pd.Timestamp("2026-05-01", tz="UTC"),
            "purchase_days": purchase_days,
            "recency_days": recency_days,
            "span_days": 200 - recency_days,
            "tenure_days": 200.0,
            "product_keys": [rng.permutation(500)[: 5 + row % 7] for row in range(customers)],
            "weights": [rng.random(5 + row % 7) for row in range(customers)],
        }
    )


def timing_model() -> BgNbdTiming:
    frame = training_frame()
    durations = pd.DataFrame({"duration_days": np.full(CUSTOMERS, 30.0), "observed": np.arange(CUSTOMERS) % 2 == 0})
    durations = durations.assign(event=durations["observed"])
    return BgNbdTiming.fit(frame, durations, days=30)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with golden predictions."""
    folder = tmp_path_factory.mktemp("written") / "bundle"
    bundle.write(timing_model(), folder, facts={}, golden_frame=training_frame())
    return folder


def rewritten(written: Path, folder: Path, change=lambda folder: None, **facts: str) -> Path:
    """A copy whose files were changed, with a manifest that fits: what only the predictions can reveal."""
    shutil.copytree(written, folder)
    change(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["facts"] = facts
    for name in manifest["files"]:
        sha256, size = bundle._digest_and_size(folder / name)
        manifest["files"][name] = {"sha256": sha256, "size": size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_numbers_are_means_of_two_different_customers() -> None:
    """Also where a customer has many rows, one for each offer or category."""
    customers = np.repeat(np.arange(6), 50)
    frame = pd.DataFrame({"customer_key": customers, "as_of": pd.Timestamp("2026-05-01", tz="UTC")})
    inputs = golden.build_inputs(frame.assign(spend=3.0**customers))
    assert len(inputs) == len(frame)
    assert not inputs["spend"].isin(3.0 ** np.arange(6)).any()


def test_without_rows_there_are_no_golden_ones() -> None:
    empty = pd.DataFrame({"customer_key": [], "as_of": pd.to_datetime([], utc=True), "spend": []})
    assert golden.build_inputs(empty).empty


def alter_model(folder: Path) -> None:
    """A parameter that is a little different."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    name = next(key for key, value in content.items() if isinstance(value, dict | float))
    if isinstance(content[name], dict):
        inner = next(key for key, value in content[name].items() if isinstance(value, float))
        content[name][inner] *= 1.5
    else:
        content[name] *= 1.5
    path.write_text(json.dumps(content))


def alter_golden(folder: Path) -> None:
    """Golden predictions that the model does not give."""
    outputs = pd.read_parquet(folder / golden.OUTPUTS_FILE)
    (outputs + 2e-6).to_parquet(folder / golden.OUTPUTS_FILE)


def test_golden_rows_are_of_nobody() -> None:
    frame = training_frame()
    inputs = golden.build_inputs(frame)
    assert list(inputs.columns) == list(frame.columns)
    assert inputs["customer_key"].tolist() == list(range(golden.CUSTOMERS))
    assert not set(inputs["customer_key"]) & set(frame["customer_key"])
    real_rows = set(frame[list(FEATURES)].itertuples(index=False, name=None))
    assert sum(row in real_rows for row in inputs[list(FEATURES)].itertuples(index=False, name=None)) <= 2
    assert (inputs["recency_days"] <= inputs["tenure_days"]).all()
    real_lists = {tuple(each) for each in frame["product_keys"]}
    assert not real_lists & {tuple(each) for each in inputs["product_keys"]}
    assert all(len(np.unique(each)) == len(each) for each in inputs["product_keys"])
    assert (inputs["product_keys"].map(len) == inputs["weights"].map(len)).all()


@pytest.mark.parametrize("customers", [0, 1, 4, 5])
def test_a_shop_with_hardly_any_customers_has_no_golden_rows(customers: int, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle.write(timing_model(), folder, facts={}, golden_frame=training_frame(customers))
    assert golden.has_golden(folder) == (customers >= 5)
    if customers >= 5:
        assert champion_checks.check(folder) is None


def test_an_unchanged_bundle_passes_in_a_process_of_its_own(written: Path) -> None:
    assert find_fault(written, written) is None


def test_another_prediction_is_refused(written: Path, tmp_path: Path) -> None:
    assert "differ from its golden ones" in str(champion_checks.check(rewritten(written, tmp_path / "a", alter_golden)))
    assert "differ from its golden ones" in str(champion_checks.check(rewritten(written, tmp_path / "b", alter_model)))


def test_a_corrupt_bundle_is_refused(written: Path, tmp_path: Path) -> None:
    corrupt = rewritten(written, tmp_path / "corrupt")
    (corrupt / "model.json").write_bytes(b"{")
    assert "has changed since it was written" in str(find_fault(corrupt))


def test_constant_predictions_are_refused_and_rightly_constant_ones_are_not() -> None:
    expected = pd.DataFrame({"prediction_0": [0.1, 0.5, 0.9]})
    assert golden.compare(expected * 0 + 0.5, expected) == "its predictions are the same for everybody"
    assert golden.compare(expected * 0, expected * 0) is None
    assert golden.compare(expected.head(2), expected) is not None
    assert golden.compare(expected + np.nan, expected) is not None
    assert golden.compare(expected + np.nan, expected + np.nan) is None
    assert golden.compare(expected + 9e-7, expected) is None


def test_a_champion_much_slower_than_the_present_one_is_refused(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = rewritten(written, tmp_path / "slow", slow="yes")
    predict = golden.predict

    def predict_slowly(model, inputs):
        time.sleep(0.02 if model.__dict__.get("is_slow") else 0)
        return predict(model, inputs)

    open_model = bundle.open_model

    def open_marked(folder):
        manifest, model = open_model(folder)
        object.__setattr__(model, "is_slow", "slow" in manifest.facts)
        return manifest, model

    monkeypatch.setattr(bundle, "open_model", open_marked)
    monkeypatch.setattr(golden, "predict", predict_slowly)
    monkeypatch.setattr(champion_checks, "SLOW_SECONDS", 0.01)
    monkeypatch.setattr(champion_checks, "MAX_SLOWDOWN", 1.5)
    assert "times as long" in str(champion_checks.check(slow, written))
    assert champion_checks.check(written, slow) is None


def publish(folder: Path, champions: Path, version: str) -> None:
    bundle.publish(folder, champions, "timing", version)


def find_fault(folder: Path, present: Path | None = None) -> object:
    [fault] = champion_checks.find_faults([champion_checks.BundlePair(folder, present)])
    return fault


def check_once(champions: Path, pointer: bundle.ChampionPointer) -> None:
    [(checked, refusal)] = champion_checks.check_all(champions, {pointer: "1"})
    assert checked == pointer
    if refusal:
        raise refusal


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_refused_champion_leaves_the_last_one_serving_also_after_a_restart(written: Path, tmp_path: Path) -> None:
    champions = tmp_path / "champions"
    publish(rewritten(written, tmp_path / "first", number="1"), champions, "1")
    serving = Champions(champions, check_seconds=0.01)
    assert serving.get("timing").version == "1"

    publish(rewritten(written, tmp_path / "second", number="2"), champions, "2")
    time.sleep(0.02)
    assert serving.get("timing").version == "1"
    assert serving.is_checking
    wait_for(lambda: serving.get("timing").version == "2")
    assert serving.errors == {}
    wait_for(lambda: not serving.is_checking)

    publish(rewritten(written, tmp_path / "third", alter_golden, number="3"), champions, "3")
    wait_for(lambda: (serving.get("timing"), serving.errors)[1])
    assert serving.get("timing").version == "2"
    assert "differ" in serving.errors["timing"]
    assert champion_checks.read_refusal(champions, "timing") == serving.errors["timing"]

    restarted = Champions(champions)
    assert restarted.get("timing").version == "2"
    assert "differ" in restarted.errors["timing"]

    publish(rewritten(written, tmp_path / "fourth", number="4"), champions, "4")
    wait_for(lambda: serving.get("timing").version == "4")
    assert serving.errors == {}
    assert champion_checks.read_refusal(champions, "timing") is None


def test_a_check_without_a_result_is_repeated(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    champions = tmp_path / "champions"
    publish(rewritten(written, tmp_path / "first", number="1"), champions, "1")
    publish(rewritten(written, tmp_path / "second", number="2"), champions, "2")
    pointer = bundle.read_pointer(champions, "timing")
    assert pointer is not None
    with monkeypatch.context() as busy:
        busy.setattr(champion_checks, "TIMEOUT_SECONDS", 0.001)
        with pytest.raises(champion_checks.CheckIncomplete):
            check_once(champions, pointer)
    assert champion_checks.read_fault(champions, pointer) is None
    check_once(champions, pointer)


def test_a_version_that_is_published_again_is_checked_again(written: Path, tmp_path: Path) -> None:
    champions = tmp_path / "champions"
    publish(rewritten(written, tmp_path / "first", number="1"), champions, "1")
    second = rewritten(written, tmp_path / "second", number="2")
    publish(second, champions, "2")
    pointer = bundle.read_pointer(champions, "timing")
    assert pointer is not None
    (champions / "timing" / "2" / "model.json").write_bytes(b"{")
    with pytest.raises(bundle.InvalidBundle):
        check_once(champions, pointer)
    assert champion_checks.read_fault(champions, pointer)
    publish(second, champions, "2")
    check_once(champions, pointer)
    assert champion_checks.read_fault(champions, pointer) is None


def test_watching_notices_a_promotion_without_a_request(written: Path, tmp_path: Path) -> None:
    champions = tmp_path / "champions"
    publish(rewritten(written, tmp_path / "first", number="1"), champions, "1")
    serving = Champions(champions, check_seconds=0.01)
    serving.watch(["timing"])
    slot = serving._slot("timing")
    wait_for(lambda: slot.champion and slot.champion.version == "1")
    publish(rewritten(written, tmp_path / "second", number="2"), champions, "2")
    wait_for(lambda: slot.champion.version == "2")


def test_after_an_error_the_next_promotion_is_noticed(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champions = tmp_path / "champions"
    publish(rewritten(written, tmp_path / "first", number="1"), champions, "1")
    serving = Champions(champions, check_seconds=0.01)
    serving.watch(["timing"])
    slot = serving._slot("timing")
    wait_for(lambda: slot.champion)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "read_pointer", lambda *_, **__: 1 / 0)
        publish(rewritten(written, tmp_path / "second", number="2"), champions, "2")
        time.sleep(0.1)  # the watching thread meets the error
        with serving._slots_lock:
            slot.awaits_check = True
        serving._check_waiting()
    wait_for(lambda: slot.champion.version == "2")


def test_one_process_checks_all_that_wait_and_another_one_the_rest_after_a_crash(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = rewritten(written, tmp_path / "altered", alter_golden)
    unreadable = rewritten(written, tmp_path / "bad", lambda folder: (folder / golden.INPUTS_FILE).write_bytes(b"x"))
    pairs = [champion_checks.BundlePair(folder, None) for folder in (written, altered, unreadable, written)]
    started: list[int] = []
    begin = champion_checks._CheckProcess.__init__

    def count(process: champion_checks._CheckProcess, rest: list[champion_checks.BundlePair]) -> None:
        started.append(len(rest))
        begin(process, rest)

    monkeypatch.setattr(champion_checks._CheckProcess, "__init__", count)
    first, second, third, fourth = champion_checks.find_faults(pairs)
    assert (first, fourth) == (None, None)
    assert "differ" in str(second)
    assert isinstance(third, champion_checks.CheckIncomplete)
    assert started == [4, 1]
    assert list(champion_checks.find_faults([])) == []


def test_what_a_library_prints_is_no_result() -> None:
    lines = ["a library's warning", "{}", f'{champion_checks._RESULT_MARK}{{"fault": "bad"}}', "another"]
    process = object.__new__(champion_checks._CheckProcess)
    process._process = subprocess.Popen(["printf", "%s\\n", *lines], stdout=subprocess.PIPE, text=True)
    assert list(process.read_faults()) == ["bad"]


def test_two_servers_check_a_version_once(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    champions = tmp_path / "champions"
    publish(rewritten(written, tmp_path / "first", number="1"), champions, "1")
    publish(rewritten(written, tmp_path / "second", number="2"), champions, "2")
    pointer = bundle.read_pointer(champions, "timing")
    assert pointer is not None
    results = []
    checks: list[int] = []
    monkeypatch.setattr(
        champion_checks, "find_faults", lambda pairs: (checks.append(1), time.sleep(0.5), iter([None]))[2]
    )
    threads = [
        threading.Thread(target=lambda: results.extend(champion_checks.check_all(champions, {pointer: "1"})))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(pointer, None)] * 2
    assert checks == [1]
