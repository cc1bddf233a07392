"""Timing and its baselines, on a shop whose customers' daily chances are known."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.base import InsufficientData, matrix
from models.btyd import bg_nbd
from models.survival import censored_durations, kaplan_meier
from models.timing import baselines as timing_baselines
from models.timing import model as timing_model
from models.timing import network, network_training

FIRST = pd.Timestamp("2025-01-06")  # a Monday
DAYS = 45
SMALL = {"seeds": 1, "width": 32}


def daily_chance(age: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """The chance of coming on the day that is `age` days after the last purchase: low at first, then steady."""
    return np.minimum(1.2 / gap * np.minimum(age / gap, 2.0), 0.9)


def lived(customers: int, days: int, chance: np.random.Generator, gap: np.ndarray) -> np.ndarray:
    """Who came on which day: booleans (customers, days); everybody came on day 0."""
    came = np.zeros((customers, days), dtype=bool)
    came[:, 0] = True
    last = np.zeros(customers)
    for day in range(1, days):
        came[:, day] = chance.random(customers) < daily_chance(day - last, gap)
        last = np.where(came[:, day], day, last)
    return came


def seen_at(came: np.ndarray, day: int, gap: np.ndarray) -> pd.DataFrame:
    """What is known of everybody at the start of a day."""
    past = came[:, :day]
    last = day - 1 - np.argmax(past[:, ::-1], axis=1)
    return pd.DataFrame(
        {
            "customer_key": np.arange(len(came)),
            "as_of": (FIRST + pd.Timedelta(days=day)).tz_localize("UTC"),
            "recency_days": (day - last).astype(float),
            "tenure_days": float(day),
            "purchase_days": past.sum(axis=1).astype(float),
            "span_days": last.astype(float),
            "wanted_gap_days": gap,
        }
    )


def waited(came: np.ndarray, day: int, end: int) -> pd.DataFrame:
    """Days until the next purchase from the start of a day, watched to the start of another."""
    ahead = came[:, day:end]
    bought = ahead.any(axis=1)
    return pd.DataFrame(
        {"duration_days": np.where(bought, np.argmax(ahead, axis=1) + 1, end - day), "observed": bought}
    )


def true_curves(frame: pd.DataFrame, days: int) -> np.ndarray:
    """P(no purchase in the first d days), by the chances that the shop was made with."""
    age = frame["recency_days"].to_numpy()[:, None] + np.arange(days)
    return np.cumprod(1 - daily_chance(age, frame["wanted_gap_days"].to_numpy()[:, None]), axis=1)


@cache
def renewals() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rows and waits of eight moments, of which 40 % are cut short by the end of watching; and customers now."""
    chance = np.random.default_rng(0)
    gap = chance.uniform(10, 45, 1500)
    end = 175
    came = lived(1500, end, chance, gap)
    moments = [95, 106, 117, 128, 137, 146, 157, 168]
    rows = pd.concat([seen_at(came, day, gap) for day in moments], ignore_index=True)
    waits = pd.concat([waited(came, day, end) for day in moments], ignore_index=True)
    fresh = seen_at(lived(1500, end, chance, gap), end, gap)
    # Watching also ends for reasons of its own, so that early rows are cut short as well as late ones.
    stop = chance.geometric(1 / 55, len(rows))
    cut = stop < waits["duration_days"]
    waits = waits.assign(duration_days=np.where(cut, stop, waits["duration_days"]), observed=waits["observed"] & ~cut)
    return rows, waits, fresh


@cache
def taught() -> timing_model.TimingModel:
    rows, waits, _ = renewals()
    return timing_model.TimingModel.fit(rows, waits, days=DAYS, **SMALL)


def distance(curves: np.ndarray, truth: np.ndarray) -> float:
    """How much worse than the truth in CRPS, in days: the squared gap between curves, summed over days."""
    return float(((curves - truth) ** 2).sum(axis=1).mean())


def test_the_true_distribution_is_found_though_four_in_ten_waits_were_cut_short() -> None:
    _, waits, now = renewals()
    truth = true_curves(now, DAYS)
    assert 1 - waits["observed"].mean() == pytest.approx(0.4, abs=0.04)
    assert distance(taught().score(now), truth) < 0.10
    assert np.abs(taught().score(now).mean(axis=0) - truth.mean(axis=0)).max() < 0.04


def test_dropping_the_rows_that_were_cut_short_is_worse() -> None:
    rows, waits, now = renewals()
    complete = waits["observed"].to_numpy()
    hopeful = timing_model.TimingModel.fit(rows[complete], waits[complete], days=DAYS, **SMALL).score(now)
    truth = true_curves(now, DAYS)
    assert distance(hopeful, truth) > 4 * distance(taught().score(now), truth)
    assert hopeful[:, 13].mean() < truth[:, 13].mean() - 0.05


def test_the_network_knows_more_than_the_plain_rules() -> None:
    rows, waits, now = renewals()
    truth = true_curves(now, DAYS)
    mine = distance(taught().score(now), truth)
    for rule in (timing_baselines.BgNbdTiming, timing_baselines.KaplanMeierTiming):
        assert mine < 0.5 * distance(rule.fit(rows, waits, days=DAYS).score(now), truth)


def test_a_curve_never_rises_and_moves_with_every_silent_day() -> None:
    _, _, now = renewals()
    curves = taught().score(now)
    assert curves.shape == (1500, DAYS)
    assert ((curves > 0) & (curves < 1)).all()
    assert (np.diff(curves, axis=1) <= 0).all()
    tomorrow = now.assign(recency_days=now["recency_days"] + 1, tenure_days=now["tenure_days"] + 1)
    assert (taught().score(tomorrow) != curves).any(axis=1).all()


def test_customers_are_awaited_on_their_own_weekdays() -> None:
    """A third of the shop comes on Tuesdays or not, a third on Saturdays, a third on any day."""
    chance = np.random.default_rng(3)
    habit = np.repeat([1, 5, -1], 250)
    frames, waits = [], []
    weekday = (np.arange(140)) % 7
    came = chance.random((750, 140)) < np.where(habit[:, None] < 0, 0.1, 0.7 * (weekday == habit[:, None]))
    came[:, 0] = True
    for day in (70, 80, 90, 100, 110, 120, 125):
        seen = seen_at(came, day, np.ones(750))
        for number in range(7):
            seen[f"weekday_{number}_share"] = came[:, :day][:, weekday[:day] == number].sum(1) / came[:, :day].sum(1)
        frames.append(seen.assign(as_of_weekday=day % 7))
        waits.append(waited(came, day, 140))
    rows, label = pd.concat(frames, ignore_index=True), pd.concat(waits, ignore_index=True)
    model = timing_model.TimingModel.fit(rows, label, days=14, seeds=1, most_passes=40)
    assert "as_of_weekday" not in model.columns
    for today in (0, 3):  # a Monday and a Thursday, whatever the clock of as_of says
        curves = model.score(frames[-1].assign(as_of_weekday=today))
        on_day = -np.diff(np.hstack([np.ones((750, 1)), curves]), axis=1)[:, :7]
        assert np.argmax(on_day[habit == 1].mean(axis=0)) == (1 - today) % 7
        assert np.argmax(on_day[habit == 5].mean(axis=0)) == (5 - today) % 7
        assert on_day[habit == 5].mean(axis=0)[(5 - today) % 7] > 0.4


def test_numpy_answers_what_torch_has_learned() -> None:
    import torch

    rows, label, _ = renewals()
    rows, label = rows.head(50), label.head(50)
    columns = [name for name in rows.columns if name not in ("customer_key", "as_of")]
    scales = network.fit_scales(matrix(rows, columns))
    lesson = timing_model._network_examples(
        rows, columns, scales, censored_durations.CensoredDurations.from_label(rows, label, DAYS), DAYS, seed=0
    )
    growth = network_training.NetworkSettings(dropout=0.0)
    chance = torch.Generator().manual_seed(1)
    parts = network_training.initial_weights(lesson.inputs.features.shape[1], DAYS, growth, chance)
    rows_told = network_training.to_tensors(lesson, DAYS)
    learned = network_training.negative_log_likelihood(parts, rows_told, DAYS, growth, chance).item()
    alone = network.as_ensemble({name: part.detach().numpy() for name, part in parts.items()})
    assert network.loss(alone, lesson, DAYS) == pytest.approx(learned, rel=1e-5)


def test_several_networks_together_answer_the_mean_of_their_log_odds() -> None:
    chance = np.random.default_rng(0)
    given = network.NetworkInputs(
        chance.normal(size=(4, 3)).astype(np.float32),
        chance.normal(size=(4, 5)).astype(np.float32),
        np.array([0, 2, 4, 6]),
        chance.normal(size=(4, 7)).astype(np.float32),
    )
    bends = len(network.hat_basis(5)) + 1
    sizes = {"layer0": (3, 8), "shift0": (8,), "layer1": (8, bends), "shift1": (bends,), "week": (7,), "pull": (1,)}
    grown = [{name: chance.normal(size=size).astype(np.float32) for name, size in sizes.items()} for _ in range(3)]
    each = [network.log_odds(network.as_ensemble(weights), given, 5) for weights in grown]
    assert network.log_odds(network.combine_ensemble(grown), given, 5) == pytest.approx(np.mean(each, axis=0), abs=1e-4)


def test_the_log_likelihood_counts_the_days_waited_and_the_day_of_the_purchase() -> None:
    """With no weights at all, one customer bought on day 2 and one had waited 3 days when watching ended."""
    features = np.zeros((2, 1), np.float32)
    daily = np.log(np.array([[0.1, 0.2, 0.3, 0.4]] * 2) / (1 - np.array([[0.1, 0.2, 0.3, 0.4]] * 2))).astype(np.float32)
    given = network.NetworkInputs(features, daily, np.zeros(2, np.int64), np.zeros((2, 7), np.float32))
    watch = censored_durations.CensoredDurations(
        np.array([2, 3]), np.array([True, False]), np.zeros(2, "datetime64[us]")
    )
    nothing = {"layer0": np.zeros((1, 1, len(network.hat_basis(4)) + 1)), "week": np.zeros(7), "pull": np.zeros(1)}
    nothing["shift0"] = nothing["layer0"][:, 0]
    expected = -(np.log(0.9 * 0.2) + np.log(0.9 * 0.8 * 0.7)) / 2
    assert network.loss(nothing, network.NetworkExamples(given, watch), 4) == pytest.approx(expected, rel=1e-6)


def test_what_was_known_at_an_earlier_day_has_no_later_purchases() -> None:
    moments = np.array(["2025-03-01", "2025-03-01", "2025-03-08", "2025-03-12"], "datetime64[us]")
    watch = censored_durations.CensoredDurations(np.array([4, 15, 6, 2]), np.array([True, True, False, True]), moments)
    then = watch.censored_at(np.datetime64("2025-03-11"))
    assert then.follow_up_days.tolist() == [4, 10, 3, 0]
    assert then.has_purchase.tolist() == [True, False, False, False]
    assert then.has_follow_up.tolist() == [True, True, True, False]


def test_the_moments_to_judge_by_were_watched_for_four_weeks() -> None:
    """Watching went on to 20 April: 28 days before it is 23 March."""
    moments = np.array(["2025-03-01", "2025-03-20", "2025-03-24", "2025-04-10"], "datetime64[us]")
    watch = censored_durations.CensoredDurations(
        np.array([50, 3, 4, 10]), np.array([False, True, True, False]), moments
    )
    assert watch.validation_cutoff(90) == np.datetime64("2025-03-20")
    assert watch.subset([2, 3]).validation_cutoff(90) is None


def test_the_answer_is_the_mean_of_the_networks_and_the_hazards() -> None:
    _, _, now = renewals()
    bent, straight = taught()._network_curves(now)
    assert taught().score(now) == pytest.approx((bent + straight + taught().hazard.score(now)) / 3)


def test_a_gpu_learns_what_the_cpu_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    rows, label, now = renewals()
    growth = {"days": DAYS, "most_passes": 2, **SMALL}
    fast = timing_model.TimingModel.fit(rows, label, **growth).score(now)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert np.abs(timing_model.TimingModel.fit(rows, label, **growth).score(now) - fast).max() < 1e-4


def test_the_curve_is_tilted_until_it_says_what_churn_says() -> None:
    curves = np.array([[0.9, 0.8, 0.6, 0.5], [0.5, 0.25, 0.125, 0.0625], [1.0, 1.0, 1.0, 1.0], [0.3, 0.0, 0.0, 0.0]])
    churn = np.array([0.64, 0.5, 0.2, 0.4])
    tilted = timing_model.tilt_to_churn(curves, 2, churn)
    assert (tilted[:, 1] == churn).all()
    assert tilted[0] == pytest.approx(np.array([0.9, 0.8, 0.6, 0.5]) ** 2)  # 0.8 squared is 0.64
    assert tilted[1] == pytest.approx(np.array([0.5, 0.25, 0.125, 0.0625]) ** 0.5)
    assert (np.diff(tilted, axis=1) <= 0).all()
    assert ((tilted >= 0) & (tilted <= 1)).all()


def test_churn_of_nought_or_one_bends_no_curve_out_of_shape() -> None:
    curves = np.array([[0.9, 0.8, 0.6], [0.9, 0.8, 0.6]])
    tilted = timing_model.tilt_to_churn(curves, 2, np.array([0.0, 1.0]))
    assert tilted[:, 1].tolist() == [0.0, 1.0]
    assert np.isfinite(tilted).all()
    assert (np.diff(tilted, axis=1) <= 0).all()
    with pytest.raises(ValueError, match="has 3 days and the churn horizon is 28"):
        timing_model.tilt_to_churn(curves, 28, np.array([0.5, 0.5]))


def test_kaplan_meier_by_hand() -> None:
    """Five customers: bought on days 1, 2 and 2; watched without a purchase for 1 and for 3 days; one not at all."""
    label = pd.DataFrame({"duration_days": [1, 2, 2, 1, 3, 0], "observed": [1, 1, 1, 0, 0, 0]})
    assert kaplan_meier.survival_curve(label, 4) == pytest.approx([4 / 5, 4 / 5 * 1 / 3, 4 / 5 * 1 / 3, 4 / 5 * 1 / 3])
    nobody = label.head(0)
    assert kaplan_meier.survival_curve(nobody, 2, prior_curve=np.array([0.5, 0.1])) == pytest.approx([0.5, 0.1])


def test_a_cell_of_few_customers_leans_on_everybody() -> None:
    one = pd.DataFrame({"duration_days": [1], "observed": [1]})
    leaning = kaplan_meier.survival_curve(one, 1, prior_curve=np.array([0.5]), prior_weight=10)
    assert leaning == pytest.approx([1 - (1 + 10 * 0.5) / (1 + 10)])


def test_the_rhythms_curve_is_bg_nbds() -> None:
    rows, waits, now = renewals()
    model = timing_baselines.BgNbdTiming.fit(rows, waits, days=DAYS)
    latest = rows[rows["as_of"] == rows["as_of"].max()]
    assert model.rhythm == bg_nbd.BgNbd.fit(*bg_nbd.purchase_summary(latest))
    assert model.score(now) == pytest.approx(model.rhythm.survival(*bg_nbd.purchase_summary(now), DAYS))


@pytest.mark.parametrize(
    "learner", [timing_model.TimingModel, timing_baselines.BgNbdTiming, timing_baselines.KaplanMeierTiming]
)
def test_the_saved_model_gives_the_same_curves(learner: Any, tmp_path: Path) -> None:
    rows, waits, now = renewals()
    model = taught() if learner is timing_model.TimingModel else learner.fit(rows, waits, days=DAYS)
    model.save(tmp_path)
    again = learner.load(tmp_path)
    assert (again.score(now) == model.score(now)).all()
    assert (again.population_average() == model.population_average()).all()
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".npz", ".txt"}


@pytest.mark.parametrize(
    "learner", [timing_model.TimingModel, timing_baselines.BgNbdTiming, timing_baselines.KaplanMeierTiming]
)
def test_anybody_gets_a_curve_however_little_is_known(learner: Any) -> None:
    rows, waits, now = renewals()
    model = taught() if learner is timing_model.TimingModel else learner.fit(rows, waits, days=DAYS)
    strange = now.head(4).copy()
    strange.loc[0, strange.columns[2:]] = np.nan
    strange.loc[1, ["recency_days", "tenure_days"]] = 4000.0
    strange.loc[2, ["purchase_days", "wanted_gap_days"]] = [4000.0, np.inf]
    curves = model.score(strange)
    assert np.isfinite(curves).all()
    assert ((curves >= 0) & (curves <= 1)).all()
    assert model.score(now.head(0)).shape == (0, DAYS)


def test_the_curve_of_somebody_unknown_is_everybodys() -> None:
    _, waits, _ = renewals()
    assert taught().population_average() == pytest.approx(kaplan_meier.survival_curve(waits, DAYS))


def test_scoring_never_loads_torch(tmp_path: Path) -> None:
    _, _, now = renewals()
    taught().save(tmp_path)
    now.head(5).to_parquet(tmp_path / "now.parquet")
    script = (
        "import sys, pandas, pathlib; from models.timing.model import TimingModel; folder = pathlib.Path(sys.argv[1]);"
        "print(TimingModel.load(folder).score(pandas.read_parquet(folder / 'now.parquet')).shape, 'torch' in sys.modules)"
    )
    root = Path(timing_model.__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == f"(5, {DAYS}) False"


def test_the_same_seed_gives_the_same_weights() -> None:
    rows, waits, now = renewals()
    some = np.arange(len(rows)) % 5 == 0
    growth = {"days": DAYS, "most_passes": 2, **SMALL}
    first, second = (
        timing_model.TimingModel.fit(rows[some], waits[some], seed=1, **growth).score(now) for _ in range(2)
    )
    assert (first == second).all()
    assert (timing_model.TimingModel.fit(rows[some], waits[some], seed=2, **growth).score(now) != first).any()


@pytest.mark.parametrize("learner", [timing_model.TimingModel, timing_baselines.KaplanMeierTiming])
def test_thirty_customers_are_too_few_and_the_message_counts_them(learner: Any) -> None:
    rows, waits, _ = renewals()
    with pytest.raises(InsufficientData, match=r"\d+ next purchases were seen within 45 days and \d+ are needed"):
        learner.fit(rows.head(30), waits.head(30), days=DAYS)


def test_the_rhythm_alone_answers_for_a_shop_with_one_customer() -> None:
    rows, waits, _ = renewals()
    model = timing_baselines.BgNbdTiming.fit(
        rows.head(1), waits.head(1).assign(duration_days=0, observed=False), days=DAYS
    )
    assert model.population_average() == pytest.approx(model.score(rows.head(1))[0])
