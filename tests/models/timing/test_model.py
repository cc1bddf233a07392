"""The timing model and its baselines, on a shop whose customers' daily purchase probabilities are known."""

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


def daily_probability(age: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """P(purchase) on the day that is `age` days after the last purchase: low at first, then constant."""
    return np.minimum(1.2 / gap * np.minimum(age / gap, 2.0), 0.9)


def draw_purchases(customers: int, days: int, rng: np.random.Generator, gap: np.ndarray) -> np.ndarray:
    """Which customers bought on which day: booleans (customers, days); all bought on day 0."""
    is_purchase = np.zeros((customers, days), dtype=bool)
    is_purchase[:, 0] = True
    last = np.zeros(customers)
    for day in range(1, days):
        is_purchase[:, day] = rng.random(customers) < daily_probability(day - last, gap)
        last = np.where(is_purchase[:, day], day, last)
    return is_purchase


def features_at(is_purchase: np.ndarray, day: int, gap: np.ndarray) -> pd.DataFrame:
    """Features of all customers at the start of a day."""
    past = is_purchase[:, :day]
    last = day - 1 - np.argmax(past[:, ::-1], axis=1)
    return pd.DataFrame(
        {
            "customer_key": np.arange(len(is_purchase)),
            "as_of": (FIRST + pd.Timedelta(days=day)).tz_localize("UTC"),
            "recency_days": (day - last).astype(float),
            "tenure_days": float(day),
            "purchase_days": past.sum(axis=1).astype(float),
            "span_days": last.astype(float),
            "wanted_gap_days": gap,
        }
    )


def days_to_next_purchase(is_purchase: np.ndarray, day: int, end: int) -> pd.DataFrame:
    """Days to the next purchase from the start of a day, followed up to the start of day `end`."""
    is_purchase_ahead = is_purchase[:, day:end]
    bought = is_purchase_ahead.any(axis=1)
    return pd.DataFrame(
        {"duration_days": np.where(bought, np.argmax(is_purchase_ahead, axis=1) + 1, end - day), "observed": bought}
    )


def true_curves(frame: pd.DataFrame, days: int) -> np.ndarray:
    """P(no purchase in the first d days), by the probabilities that the shop was drawn with."""
    age = frame["recency_days"].to_numpy()[:, None] + np.arange(days)
    return np.cumprod(1 - daily_probability(age, frame["wanted_gap_days"].to_numpy()[:, None]), axis=1)


@cache
def shop() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Features and durations of eight cutoffs, 40 % of them censored; and the customers now."""
    rng = np.random.default_rng(0)
    gap = rng.uniform(10, 45, 1500)
    end = 175
    is_purchase = draw_purchases(1500, end, rng, gap)
    cutoffs = [95, 106, 117, 128, 137, 146, 157, 168]
    rows = pd.concat([features_at(is_purchase, day, gap) for day in cutoffs], ignore_index=True)
    label = pd.concat([days_to_next_purchase(is_purchase, day, end) for day in cutoffs], ignore_index=True)
    current = features_at(draw_purchases(1500, end, rng, gap), end, gap)
    # Follow-up also ends at random, so that early rows are censored as well as late ones.
    stop = rng.geometric(1 / 55, len(rows))
    is_censored = stop < label["duration_days"]
    label = label.assign(
        duration_days=np.where(is_censored, stop, label["duration_days"]), observed=label["observed"] & ~is_censored
    )
    return rows, label, current


@cache
def fitted_model() -> timing_model.TimingModel:
    rows, label, _ = shop()
    return timing_model.TimingModel.fit(rows, label, days=DAYS, **SMALL)


def excess_crps(curves: np.ndarray, truth: np.ndarray) -> float:
    """CRPS above that of the truth, in days: the squared difference of the curves, summed over days."""
    return float(((curves - truth) ** 2).sum(axis=1).mean())


@pytest.mark.acceptance
def test_the_true_distribution_is_recovered_though_four_in_ten_durations_are_censored() -> None:
    _, label, now = shop()
    truth = true_curves(now, DAYS)
    assert 1 - label["observed"].mean() == pytest.approx(0.4, abs=0.04)
    assert excess_crps(fitted_model().score(now), truth) < 0.10
    assert np.abs(fitted_model().score(now).mean(axis=0) - truth.mean(axis=0)).max() < 0.04


def test_dropping_censored_rows_is_worse() -> None:
    rows, label, now = shop()
    is_observed = label["observed"].to_numpy()
    uncensored_curves = timing_model.TimingModel.fit(rows[is_observed], label[is_observed], days=DAYS, **SMALL).score(
        now
    )
    truth = true_curves(now, DAYS)
    assert excess_crps(uncensored_curves, truth) > 4 * excess_crps(fitted_model().score(now), truth)
    assert uncensored_curves[:, 13].mean() < truth[:, 13].mean() - 0.05


def test_the_timing_model_is_better_than_its_baselines() -> None:
    rows, label, now = shop()
    truth = true_curves(now, DAYS)
    model_excess = excess_crps(fitted_model().score(now), truth)
    for baseline in (timing_baselines.BgNbdTiming, timing_baselines.KaplanMeierTiming):
        assert model_excess < 0.5 * excess_crps(baseline.fit(rows, label, days=DAYS).score(now), truth)


def test_a_curve_never_rises_and_changes_with_every_day_without_a_purchase() -> None:
    _, _, now = shop()
    curves = fitted_model().score(now)
    assert curves.shape == (1500, DAYS)
    assert ((curves > 0) & (curves < 1)).all()
    assert (np.diff(curves, axis=1) <= 0).all()
    tomorrow = now.assign(recency_days=now["recency_days"] + 1, tenure_days=now["tenure_days"] + 1)
    assert (fitted_model().score(tomorrow) != curves).any(axis=1).all()


def test_purchases_are_predicted_on_the_customers_own_weekdays() -> None:
    """A third of the customers buy only on Tuesdays, a third only on Saturdays, a third on any day."""
    rng = np.random.default_rng(3)
    usual_weekday = np.repeat([1, 5, -1], 250)
    frames, labels = [], []
    weekday = (np.arange(140)) % 7
    bought = rng.random((750, 140)) < np.where(
        usual_weekday[:, None] < 0, 0.1, 0.7 * (weekday == usual_weekday[:, None])
    )
    bought[:, 0] = True
    for day in (70, 80, 90, 100, 110, 120, 125):
        features = features_at(bought, day, np.ones(750))
        for number in range(7):
            features[f"weekday_{number}_share"] = bought[:, :day][:, weekday[:day] == number].sum(1) / bought[
                :, :day
            ].sum(1)
        frames.append(features.assign(as_of_weekday=day % 7))
        labels.append(days_to_next_purchase(bought, day, 140))
    rows, label = pd.concat(frames, ignore_index=True), pd.concat(labels, ignore_index=True)
    model = timing_model.TimingModel.fit(rows, label, days=14, seeds=1, most_passes=40)
    assert "as_of_weekday" not in model.columns
    for today in (0, 3):  # a Monday and a Thursday, whatever weekday as_of is
        curves = model.score(frames[-1].assign(as_of_weekday=today))
        on_day = -np.diff(np.hstack([np.ones((750, 1)), curves]), axis=1)[:, :7]
        assert np.argmax(on_day[usual_weekday == 1].mean(axis=0)) == (1 - today) % 7
        assert np.argmax(on_day[usual_weekday == 5].mean(axis=0)) == (5 - today) % 7
        assert on_day[usual_weekday == 5].mean(axis=0)[(5 - today) % 7] > 0.4


def test_the_numpy_loss_equals_that_of_torch() -> None:
    import torch

    rows, label, _ = shop()
    rows, label = rows.head(50), label.head(50)
    columns = [name for name in rows.columns if name not in ("customer_key", "as_of")]
    scales = network.fit_scales(matrix(rows, columns))
    examples = timing_model._network_examples(
        rows, columns, scales, censored_durations.CensoredDurations.from_label(rows, label, DAYS), DAYS, seed=0
    )
    settings = network_training.NetworkSettings(dropout=0.0)
    generator = torch.Generator().manual_seed(1)
    weights = network_training.initial_weights(examples.inputs.features.shape[1], DAYS, settings, generator)
    tensors = network_training.to_tensors(examples, DAYS)
    torch_loss = network_training.negative_log_likelihood(weights, tensors, DAYS, settings, generator).item()
    ensemble = network.as_ensemble({name: weight.detach().numpy() for name, weight in weights.items()})
    assert network.loss(ensemble, examples, DAYS) == pytest.approx(torch_loss, rel=1e-5)


def test_an_ensemble_of_networks_gives_the_mean_of_their_log_odds() -> None:
    rng = np.random.default_rng(0)
    inputs = network.NetworkInputs(
        rng.normal(size=(4, 3)).astype(np.float32),
        rng.normal(size=(4, 5)).astype(np.float32),
        np.array([0, 2, 4, 6]),
        rng.normal(size=(4, 7)).astype(np.float32),
    )
    output_size = len(network.hat_basis(5)) + 1
    sizes = {
        "layer0": (3, 8),
        "shift0": (8,),
        "layer1": (8, output_size),
        "shift1": (output_size,),
        "week": (7,),
        "pull": (1,),
    }
    networks = [{name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()} for _ in range(3)]
    each = [network.log_odds(network.as_ensemble(weights), inputs, 5) for weights in networks]
    assert network.log_odds(network.combine_ensemble(networks), inputs, 5) == pytest.approx(
        np.mean(each, axis=0), abs=1e-4
    )


def test_the_log_likelihood_counts_the_days_without_a_purchase_and_the_day_of_the_purchase() -> None:
    """With all weights zero: one customer bought on day 2, and one was followed for 3 days without a purchase."""
    features = np.zeros((2, 1), np.float32)
    daily = np.log(np.array([[0.1, 0.2, 0.3, 0.4]] * 2) / (1 - np.array([[0.1, 0.2, 0.3, 0.4]] * 2))).astype(np.float32)
    inputs = network.NetworkInputs(features, daily, np.zeros(2, np.int64), np.zeros((2, 7), np.float32))
    durations = censored_durations.CensoredDurations(
        np.array([2, 3]), np.array([True, False]), np.zeros(2, "datetime64[us]")
    )
    zero_weights = {"layer0": np.zeros((1, 1, len(network.hat_basis(4)) + 1)), "week": np.zeros(7), "pull": np.zeros(1)}
    zero_weights["shift0"] = zero_weights["layer0"][:, 0]
    expected = -(np.log(0.9 * 0.2) + np.log(0.9 * 0.8 * 0.7)) / 2
    assert network.loss(zero_weights, network.NetworkExamples(inputs, durations), 4) == pytest.approx(
        expected, rel=1e-6
    )


def test_durations_censored_at_an_earlier_day_have_no_later_purchases() -> None:
    cutoffs = np.array(["2025-03-01", "2025-03-01", "2025-03-08", "2025-03-12"], "datetime64[us]")
    durations = censored_durations.CensoredDurations(
        np.array([4, 15, 6, 2]), np.array([True, True, False, True]), cutoffs
    )
    earlier = durations.censored_at(np.datetime64("2025-03-11"))
    assert earlier.follow_up_days.tolist() == [4, 10, 3, 0]
    assert earlier.has_purchase.tolist() == [True, False, False, False]
    assert earlier.has_follow_up.tolist() == [True, True, True, False]


def test_validation_cutoffs_have_four_weeks_of_follow_up() -> None:
    """Follow-up went on to 20 April: 28 days before it is 23 March."""
    cutoffs = np.array(["2025-03-01", "2025-03-20", "2025-03-24", "2025-04-10"], "datetime64[us]")
    durations = censored_durations.CensoredDurations(
        np.array([50, 3, 4, 10]), np.array([False, True, True, False]), cutoffs
    )
    assert durations.validation_cutoff(90) == np.datetime64("2025-03-20")
    assert durations.subset([2, 3]).validation_cutoff(90) is None


def test_the_prediction_is_the_mean_of_the_networks_and_the_hazard_trees() -> None:
    _, _, now = shop()
    nonlinear, linear = fitted_model()._network_curves(now)
    assert fitted_model().score(now) == pytest.approx((nonlinear + linear + fitted_model().hazard.score(now)) / 3)


def test_a_gpu_learns_what_the_cpu_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    rows, label, now = shop()
    settings = {"days": DAYS, "most_passes": 2, **SMALL}
    fast = timing_model.TimingModel.fit(rows, label, **settings).score(now)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert np.abs(timing_model.TimingModel.fit(rows, label, **settings).score(now) - fast).max() < 1e-4


def test_the_curve_is_tilted_to_the_churn_probability() -> None:
    curves = np.array([[0.9, 0.8, 0.6, 0.5], [0.5, 0.25, 0.125, 0.0625], [1.0, 1.0, 1.0, 1.0], [0.3, 0.0, 0.0, 0.0]])
    churn = np.array([0.64, 0.5, 0.2, 0.4])
    tilted = timing_model.tilt_to_churn(curves, 2, churn)
    assert (tilted[:, 1] == churn).all()
    assert tilted[0] == pytest.approx(np.array([0.9, 0.8, 0.6, 0.5]) ** 2)  # 0.8 squared is 0.64
    assert tilted[1] == pytest.approx(np.array([0.5, 0.25, 0.125, 0.0625]) ** 0.5)
    assert (np.diff(tilted, axis=1) <= 0).all()
    assert ((tilted >= 0) & (tilted <= 1)).all()


def test_churn_of_zero_or_one_leaves_a_valid_curve() -> None:
    curves = np.array([[0.9, 0.8, 0.6], [0.9, 0.8, 0.6]])
    tilted = timing_model.tilt_to_churn(curves, 2, np.array([0.0, 1.0]))
    assert tilted[:, 1].tolist() == [0.0, 1.0]
    assert np.isfinite(tilted).all()
    assert (np.diff(tilted, axis=1) <= 0).all()
    with pytest.raises(ValueError, match="has 3 days and the churn horizon is 28"):
        timing_model.tilt_to_churn(curves, 28, np.array([0.5, 0.5]))


def test_kaplan_meier_by_hand() -> None:
    """Five customers: purchases on days 1, 2 and 2; censored after 1 and 3 days; a sixth without follow-up."""
    label = pd.DataFrame({"duration_days": [1, 2, 2, 1, 3, 0], "observed": [1, 1, 1, 0, 0, 0]})
    assert kaplan_meier.survival_curve(label, 4) == pytest.approx([4 / 5, 4 / 5 * 1 / 3, 4 / 5 * 1 / 3, 4 / 5 * 1 / 3])
    no_rows = label.head(0)
    assert kaplan_meier.survival_curve(no_rows, 2, prior_curve=np.array([0.5, 0.1])) == pytest.approx([0.5, 0.1])


def test_a_cell_of_few_customers_is_shrunk_to_the_prior_curve() -> None:
    one = pd.DataFrame({"duration_days": [1], "observed": [1]})
    curve = kaplan_meier.survival_curve(one, 1, prior_curve=np.array([0.5]), prior_weight=10)
    assert curve == pytest.approx([1 - (1 + 10 * 0.5) / (1 + 10)])


def test_the_bg_nbd_baseline_has_the_survival_curve_of_bg_nbd() -> None:
    rows, label, now = shop()
    model = timing_baselines.BgNbdTiming.fit(rows, label, days=DAYS)
    latest = rows[rows["as_of"] == rows["as_of"].max()]
    assert model.bgnbd == bg_nbd.BgNbd.fit(*bg_nbd.purchase_summary(latest))
    assert model.score(now) == pytest.approx(model.bgnbd.survival(*bg_nbd.purchase_summary(now), DAYS))


@pytest.mark.parametrize(
    "learner", [timing_model.TimingModel, timing_baselines.BgNbdTiming, timing_baselines.KaplanMeierTiming]
)
def test_the_saved_model_gives_the_same_curves(learner: Any, tmp_path: Path) -> None:
    rows, label, now = shop()
    model = fitted_model() if learner is timing_model.TimingModel else learner.fit(rows, label, days=DAYS)
    model.save(tmp_path)
    loaded = learner.load(tmp_path)
    assert (loaded.score(now) == model.score(now)).all()
    assert (loaded.population_average() == model.population_average()).all()
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".npz", ".txt"}


@pytest.mark.parametrize(
    "learner", [timing_model.TimingModel, timing_baselines.BgNbdTiming, timing_baselines.KaplanMeierTiming]
)
def test_any_customer_gets_a_curve_however_few_features_are_available(learner: Any) -> None:
    rows, label, now = shop()
    model = fitted_model() if learner is timing_model.TimingModel else learner.fit(rows, label, days=DAYS)
    unusual = now.head(4).copy()
    unusual.loc[0, unusual.columns[2:]] = np.nan
    unusual.loc[1, ["recency_days", "tenure_days"]] = 4000.0
    unusual.loc[2, ["purchase_days", "wanted_gap_days"]] = [4000.0, np.inf]
    curves = model.score(unusual)
    assert np.isfinite(curves).all()
    assert ((curves >= 0) & (curves <= 1)).all()
    assert model.score(now.head(0)).shape == (0, DAYS)


def test_the_population_average_is_the_kaplan_meier_curve() -> None:
    _, label, _ = shop()
    assert fitted_model().population_average() == pytest.approx(kaplan_meier.survival_curve(label, DAYS))


def test_scoring_never_loads_torch(tmp_path: Path) -> None:
    _, _, now = shop()
    fitted_model().save(tmp_path)
    now.head(5).to_parquet(tmp_path / "now.parquet")
    script = (
        "import sys, pandas, pathlib; from models.timing.model import TimingModel; folder = pathlib.Path(sys.argv[1]);"
        "shape = TimingModel.load(folder).score(pandas.read_parquet(folder / 'now.parquet')).shape;"
        "print(shape, 'torch' in sys.modules)"
    )
    root = Path(timing_model.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == f"(5, {DAYS}) False"


def test_the_same_seed_gives_the_same_weights() -> None:
    rows, label, now = shop()
    is_sampled = np.arange(len(rows)) % 5 == 0
    settings = {"days": DAYS, "most_passes": 2, **SMALL}
    first, second = (
        timing_model.TimingModel.fit(rows[is_sampled], label[is_sampled], seed=1, **settings).score(now)
        for _ in range(2)
    )
    assert (first == second).all()
    assert (
        timing_model.TimingModel.fit(rows[is_sampled], label[is_sampled], seed=2, **settings).score(now) != first
    ).any()


@pytest.mark.parametrize("learner", [timing_model.TimingModel, timing_baselines.KaplanMeierTiming])
def test_thirty_customers_are_too_few_and_the_message_counts_them(learner: Any) -> None:
    rows, label, _ = shop()
    with pytest.raises(InsufficientData, match=r"\d+ next purchases were observed within 45 days and \d+ are needed"):
        learner.fit(rows.head(30), label.head(30), days=DAYS)


def test_bg_nbd_alone_scores_a_shop_with_one_customer() -> None:
    rows, label, _ = shop()
    model = timing_baselines.BgNbdTiming.fit(
        rows.head(1), label.head(1).assign(duration_days=0, observed=False), days=DAYS
    )
    assert model.population_average() == pytest.approx(model.score(rows.head(1))[0])
