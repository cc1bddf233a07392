"""BG/NBD, on shops whose customers were drawn from known parameters."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import gamma
from scipy.stats import beta

from models.btyd import bg_nbd
from models.btyd.bg_nbd import BgNbd, PurchaseSummary

#: The published parameters of CDNOW, alpha in weeks (Fader, Hardie and Lee 2005, table 2).
CDNOW = BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)


def shop(
    truth: BgNbd, customers: int, *, days: float, ahead: float = 0.0, seed: int = 0
) -> tuple[PurchaseSummary, np.ndarray]:
    """Customers drawn from the model, and how often each bought in the `ahead` days after."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(truth.r, 1 / truth.alpha, customers)
    dropout = rng.beta(truth.a, truth.b, customers)
    T = rng.uniform(0.7, 1.0, customers) * days
    x, t_x, later_purchases, now = (np.zeros(customers) for _ in range(4))
    alive = np.ones(customers, dtype=bool)
    while alive.any():
        now = now + rng.exponential(1 / np.maximum(rate, 1e-9))
        alive = alive & (now <= T + ahead)
        is_past = alive & (now <= T)
        x, t_x = x + is_past, np.where(is_past, now, t_x)
        later_purchases = later_purchases + (alive & ~is_past)
        alive = alive & (rng.random(customers) >= dropout)
    return PurchaseSummary(x, t_x, T), later_purchases


def test_the_published_parameters_are_recovered_from_customers_drawn_from_them() -> None:
    past, _ = shop(CDNOW, 60_000, days=39.0)
    fitted = BgNbd.fit(*past)
    assert fitted.r == pytest.approx(0.243, rel=0.05)
    assert fitted.alpha == pytest.approx(4.414, rel=0.08)
    assert fitted.a == pytest.approx(0.793, rel=0.15)
    assert fitted.b == pytest.approx(2.426, rel=0.20)
    assert fitted.a / (fitted.a + fitted.b) == pytest.approx(0.793 / (0.793 + 2.426), rel=0.06)


def test_the_unit_of_time_changes_nothing_but_alpha() -> None:
    past, _ = shop(CDNOW, 5_000, days=39.0)
    weeks, days = BgNbd.fit(*past), BgNbd.fit(past.x, past.t_x * 7, past.T * 7)
    assert days.alpha == pytest.approx(7 * weeks.alpha, rel=1e-3)
    assert (days.r, days.a, days.b) == pytest.approx((weeks.r, weeks.a, weeks.b), rel=1e-3)


def test_the_probability_of_no_purchase_is_the_share_that_did_not_buy() -> None:
    truth = BgNbd(r=0.8, alpha=10.0, a=0.6, b=3.0)
    past, later_purchases = shop(truth, 60_000, days=200.0, ahead=28.0)
    expected = truth.p_no_purchase(*past, 28)
    for tenth in np.array_split(np.argsort(expected), 10):
        assert (later_purchases[tenth] == 0).mean() == pytest.approx(expected[tenth].mean(), abs=0.022)
    count = truth.expected_purchases(*past, 28)
    for tenth in np.array_split(np.argsort(count), 10):
        assert later_purchases[tenth].mean() == pytest.approx(count[tenth].mean(), rel=0.07, abs=0.01)


def test_an_alive_customer_may_not_buy_so_one_minus_p_alive_is_not_churn() -> None:
    truth = BgNbd(r=0.8, alpha=10.0, a=0.6, b=3.0)
    past, later_purchases = shop(truth, 20_000, days=200.0, ahead=28.0)
    churn_rate = (later_purchases == 0).mean()
    assert truth.p_no_purchase(*past, 28).mean() == pytest.approx(churn_rate, abs=0.01)
    assert (1 - truth.p_alive(*past)).mean() < churn_rate - 0.1


def test_the_survival_curve_is_the_probability_of_each_horizon_and_never_rises() -> None:
    past = PurchaseSummary(np.array([0.0, 3.0, 40.0]), np.array([0.0, 50.0, 300.0]), np.array([10.0, 80.0, 310.0]))
    curve = CDNOW.survival(*past, 60)
    assert curve.shape == (3, 60)
    assert curve[:, 27] == pytest.approx(CDNOW.p_no_purchase(*past, 28))
    assert (np.diff(curve, axis=1) <= 0).all()
    assert (CDNOW.p_no_purchase(*past, 0) == 1).all()


def test_the_expected_number_of_purchases_is_its_integral() -> None:
    """E = P(alive) times the mean, over the posterior of p, of the purchases before dropout."""
    model, ahead = BgNbd(r=1.3, alpha=9.0, a=0.7, b=2.2), 40.0
    x, t_x, T = 4.0, 60.0, 75.0

    def before_dropout(p: float) -> float:
        no_purchase = ((model.alpha + T) / (model.alpha + T + p * ahead)) ** (model.r + x)
        return (1 - no_purchase) / p * beta.pdf(p, model.a, model.b + x)

    alive = model.p_alive(x, t_x, T)[0]
    by_hand = alive * quad(before_dropout, 0, 1)[0]
    assert model.expected_purchases(x, t_x, T, ahead)[0] == pytest.approx(by_hand, rel=1e-5)


def test_expected_purchases_are_continuous_where_a_is_one() -> None:
    counts = [BgNbd(1.0, 10.0, a, 2.0).expected_purchases(5, 50, 60, 30)[0] for a in (1 - 1e-4, 1.0, 1 + 1e-4)]
    assert counts[1] == pytest.approx((counts[0] + counts[2]) / 2, rel=1e-4)


def test_the_likelihood_is_that_of_the_paper() -> None:
    r, alpha, a, b = 0.9, 12.0, 0.7, 2.5
    x, t_x, T = 3.0, 40.0, 55.0

    def euler(first: float, second: float) -> float:
        return float(gamma(first) * gamma(second) / gamma(first + second))

    rates = gamma(r + x) / gamma(r) * alpha**r
    alive = euler(a, b + x) / euler(a, b) * rates / (alpha + T) ** (r + x)
    dropped_out = euler(a + 1, b + x - 1) / euler(a, b) * rates / (alpha + t_x) ** (r + x)
    past = PurchaseSummary(*(np.array([part]) for part in (x, t_x, T)))
    value, gradient = bg_nbd._log_likelihood(np.array([r, alpha, a, b]), past, past.x, np.array([0]))
    assert value == pytest.approx(np.log(alive + dropped_out))
    steps = np.eye(4) * 1e-6
    for parameter in range(4):
        value_above = bg_nbd._log_likelihood(
            np.array([r, alpha, a, b]) + steps[parameter], past, past.x, np.array([0])
        )[0]
        assert gradient[parameter] == pytest.approx((value_above - value) / 1e-6, rel=1e-3, abs=1e-4)
    assert BgNbd(r, alpha, a, b).p_alive(x, t_x, T)[0] == pytest.approx(alive / (alive + dropped_out))


@pytest.mark.parametrize("past", [(0, 0, 0), (0, 0, 500), (300, 330, 331), (4000, 3000, 3001), (1, 1, 1)])
def test_a_shop_with_one_customer_gets_predictions(past: tuple[int, int, int]) -> None:
    model = BgNbd.fit(*past)
    curve = model.survival(*past, 180)
    assert np.isfinite(curve).all()
    assert ((curve >= 0) & (curve <= 1)).all()
    assert np.isfinite(model.expected_purchases(*past, 28)).all()
    assert model.expected_purchases(*past, 28)[0] >= 0


def test_a_longer_recency_means_more_churn() -> None:
    last_days = np.array([100.0, 90.0, 60.0, 10.0])
    churn = BgNbd(1.0, 10.0, 0.5, 2.0).p_no_purchase(np.full(4, 8.0), last_days, np.full(4, 100.0), 28)
    assert (np.diff(churn) > 0).all()


def test_the_two_parts_of_the_log_odds_add_up_and_measure_frequency_and_recency() -> None:
    model = BgNbd(1.0, 10.0, 0.5, 2.0)
    past = PurchaseSummary(np.array([8.0, 8.0, 1.0]), np.array([100.0, 40.0, 100.0]), np.array([100.0, 100.0, 100.0]))
    frequency_part, recency_part = model.no_purchase_log_odds_parts(past, 28)
    assert frequency_part + recency_part == pytest.approx(bg_nbd.log_odds(model.p_no_purchase(*past, 28)))
    assert recency_part[0] == pytest.approx(0)
    assert recency_part[1] > 1
    assert frequency_part[0] == pytest.approx(frequency_part[1])
    assert frequency_part[2] > frequency_part[0]


def test_a_first_purchase_yesterday_has_no_follow_up_time() -> None:
    frame = pd.DataFrame(
        {"purchase_days": [1.0, 3.0, np.nan], "span_days": [0.0, 9.0, np.nan], "tenure_days": [1.0, 12.0, np.nan]}
    )
    past = bg_nbd.purchase_summary(frame)
    assert past.x.tolist() == [0, 3 - 1, 0]
    assert past.t_x.tolist() == [0, 9, 0]
    assert past.T.tolist() == [1 - 1, 12 - 1, 0]


def test_a_hundred_thousand_customers_take_seconds() -> None:
    past, _ = shop(CDNOW, 100_000, days=39.0)
    started = time.process_time()
    BgNbd.fit(*past)
    assert time.process_time() - started < 5


def test_the_same_histories_are_fitted_once(monkeypatch):
    fits, fit_parameters = [], bg_nbd._fit_parameters
    monkeypatch.setattr(bg_nbd, "_fit_parameters", lambda summary: fits.append(1) or fit_parameters(summary))
    x, t_x, total = np.array([1.0, 3.0, 0.0]), np.array([20.0, 61.5, 0.0]), np.array([90.0, 91.0, 33.0])
    first = bg_nbd.BgNbd.fit(x, t_x, total)
    assert bg_nbd.BgNbd.fit(list(x), list(t_x), list(total)) == first
    assert len(fits) == 1
    assert bg_nbd.BgNbd.fit(x, t_x, total + 1) != first
    assert len(fits) == 2
