"""The BG/CNBD-k family, on customers drawn from it and against values computed another way."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import beta as euler
from scipy.special import gamma, gammaincc

from models.btyd import bg_cnbd_k, bg_nbd
from models.btyd.bg_cnbd_k import BgCnbdK
from models.btyd.bg_nbd import BgNbd, PurchaseSummary

REGULAR = BgCnbdK(r=2.0, alpha=20.0, a=0.6, b=3.0, k=2.5, dropout_at_zero=True)


def shop(
    truth: BgCnbdK, customers: int, *, days: float, ahead: float, seed: int = 0
) -> tuple[PurchaseSummary, np.ndarray, np.ndarray]:
    """Customers drawn from the model: summaries, days to the next purchase, purchases in the `ahead` days after."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(truth.r, 1 / truth.alpha, customers)
    dropout = rng.beta(truth.a, truth.b, customers)
    T = rng.uniform(0.7, 1.0, customers) * days
    x, t_x, later_purchases, now = (np.zeros(customers) for _ in range(4))
    days_to_next = np.full(customers, np.inf)
    alive = rng.random(customers) >= dropout * truth.dropout_at_zero
    while alive.any():
        now = now + rng.gamma(truth.k, 1 / np.maximum(rate, 1e-9))
        alive = alive & (now <= T + ahead)
        is_past, is_later = alive & (now <= T), alive & (now > T)
        x, t_x = x + is_past, np.where(is_past, now, t_x)
        days_to_next, later_purchases = (
            np.where(is_later & np.isinf(days_to_next), now - T, days_to_next),
            later_purchases + is_later,
        )
        alive = alive & (rng.random(customers) >= dropout)
    return PurchaseSummary(x, t_x, T), days_to_next, later_purchases


def test_with_exponential_gaps_and_no_dropout_at_zero_it_is_bg_nbd() -> None:
    past = PurchaseSummary(
        np.array([0.0, 3.0, 40.0, 4000.0]), np.array([0.0, 40.0, 90.0, 3000.0]), np.array([50.0, 55.0, 100.0, 3001.0])
    )
    reference, model = BgNbd(0.9, 12.0, 0.7, 2.5), BgCnbdK(0.9, 12.0, 0.7, 2.5)
    assert model.p_alive(*past) == pytest.approx(reference.p_alive(*past))
    assert model.survival(*past, 90) == pytest.approx(reference.survival(*past, 90))
    assert model.rate(past.x, past.T) == pytest.approx(reference.rate(past.x, past.T))
    assert np.array(model.no_purchase_log_odds_parts(past, 28)) == pytest.approx(
        np.array(reference.no_purchase_log_odds_parts(past, 28))
    )


def test_as_k_tends_to_one_the_model_tends_to_bg_nbd() -> None:
    exponential, nearly_exponential = BgCnbdK(0.9, 12.0, 0.7, 2.5), BgCnbdK(0.9, 12.0, 0.7, 2.5, k=1 + 1e-9)
    assert nearly_exponential.survival(3, 40, 55, 60) == pytest.approx(exponential.survival(3, 40, 55, 60), rel=1e-6)


def test_the_published_customer_buys_1_226_times_in_39_weeks() -> None:
    published = BgCnbdK(r=0.243, alpha=4.414, a=0.793, b=2.426)  # Fader, Hardie and Lee 2005; x = 2, t_x = 30.43
    assert published.expected_purchases(2, 30.43, 38.86, 39.0)[0] == pytest.approx(1.226, abs=0.002)
    assert BgNbd(0.243, 4.414, 0.793, 2.426).expected_purchases(2, 30.43, 38.86, 39.0)[0] == pytest.approx(
        1.226, abs=0.002
    )


def test_dropout_at_zero_differs_from_bg_nbd_by_one_more_chance_of_dropout() -> None:
    r, alpha, a, b, T = 0.525, 6.183, 0.891, 1.614, 30.0  # CDNOW's MBG/NBD (Batislam, Denizel and Filiztekin 2007)
    staying = euler(a, b + 1) / euler(a, b) * (alpha / (alpha + T)) ** r
    dropping_out = euler(a + 1, b) / euler(a, b)
    model = BgCnbdK(r, alpha, a, b, dropout_at_zero=True)
    assert model.p_alive(0, 0, T)[0] == pytest.approx(staying / (staying + dropping_out))
    assert BgCnbdK(r, alpha, a, b).p_alive(0, 0, T)[0] == 1.0


def test_the_likelihood_is_the_integral_over_rates_and_dropout_probabilities() -> None:
    r, alpha, a, b, k, x, t_x, T = 1.4, 9.0, 0.8, 2.2, 1.7, 4.0, 60.0, 75.0

    def density(rate: float, *, is_alive: bool) -> float:
        gaps = rate ** (k * x) * np.exp(-rate * t_x) * (gammaincc(k, rate * (T - t_x)) if is_alive else 1.0)
        return float(alpha**r / gamma(r) * rate ** (r - 1) * np.exp(-alpha * rate) * gaps)

    alive = euler(a, b + x + 1) / euler(a, b) * quad(lambda rate: density(rate, is_alive=True), 0, 2, epsabs=0)[0]
    dropped_out = (
        euler(a + 1, b + x) / euler(a, b) * quad(lambda rate: density(rate, is_alive=False), 0, 2, epsabs=0)[0]
    )
    past = PurchaseSummary(np.array([x]), np.array([t_x]), np.array([T]))
    objective = bg_cnbd_k._objective(past, k, True)
    standardised = (np.log([r, alpha, a, b]) - bg_nbd.PRIOR_CENTRE) / bg_nbd.PRIOR_WIDTH
    value, gradient = objective(np.log([r, alpha, a, b]))
    assert 0.5 * standardised @ standardised - value == pytest.approx(np.log(alive + dropped_out))
    value_above = objective(np.log([r, alpha, a, b]) + 1e-4 * np.eye(4)[0])[0]
    assert gradient[0] == pytest.approx((value_above - value) / 1e-4, rel=1e-2)
    assert BgCnbdK(r, alpha, a, b, k, dropout_at_zero=True).p_alive(x, t_x, T)[0] == pytest.approx(
        alive / (alive + dropped_out)
    )


def test_the_parameters_are_recovered_from_customers_drawn_from_them() -> None:
    past, _, _ = shop(REGULAR, 5_000, days=400.0, ahead=0.0)
    fitted = BgCnbdK.fit(*past, k=2.5, dropout_at_zero=True)
    assert fitted.r == pytest.approx(2.0, rel=0.12)
    assert fitted.alpha == pytest.approx(20.0, rel=0.12)
    assert fitted.a / (fitted.a + fitted.b) == pytest.approx(0.6 / 3.6, rel=0.15)


@pytest.mark.parametrize("truth", [REGULAR, BgCnbdK(0.8, 10.0, 0.6, 3.0), BgCnbdK(1.5, 30.0, 1.2, 4.0, k=4.0)])
def test_predictions_match_the_purchases_of_drawn_customers(truth: BgCnbdK) -> None:
    past, days_to_next, later_purchases = shop(truth, 15_000, days=250.0, ahead=60.0)
    churn = truth.p_no_purchase(*past, 28.0)
    for tenth in np.array_split(np.argsort(churn, kind="stable"), 10):
        assert (days_to_next[tenth] > 28).mean() == pytest.approx(churn[tenth].mean(), abs=0.04)
    expected = truth.expected_purchases(*past, 60.0)
    assert expected.mean() == pytest.approx(later_purchases.mean(), rel=0.06)
    for fifth in np.array_split(np.argsort(expected, kind="stable"), 5)[1:]:
        assert expected[fifth].mean() == pytest.approx(later_purchases[fifth].mean(), rel=0.12, abs=0.03)


def test_the_family_is_selected_by_its_predictions_and_not_by_its_likelihood() -> None:
    now, days_to_next, _ = shop(REGULAR, 1000, days=300.0, ahead=30.0)
    follow_up_days, has_purchase = np.minimum(np.ceil(days_to_next), 30.0), (days_to_next <= 30).astype(float)
    choices = [(1.0, False), (1.0, True), (2.5, True)]
    assert bg_cnbd_k.select_family(now, [(now, follow_up_days, has_purchase)], choices).k == 2.5
    exponential, days_to_next, _ = shop(BgCnbdK(0.8, 10.0, 0.6, 3.0), 1000, days=300.0, ahead=30.0)
    follow_up_days, has_purchase = np.minimum(np.ceil(days_to_next), 30.0), (days_to_next <= 30).astype(float)
    assert bg_cnbd_k.select_family(exponential, [(exponential, follow_up_days, has_purchase)], choices).k == 1.0
    assert bg_cnbd_k.select_family(now, []).k == 1.0


@pytest.mark.parametrize("past", [(0, 0, 0), (0, 0, 500), (300, 330, 331), (4000, 3000, 3001), (1, 1, 1)])
@pytest.mark.parametrize("dropout_at_zero", [False, True])
def test_a_shop_with_one_customer_gets_predictions(past: tuple[int, int, int], dropout_at_zero: bool) -> None:
    model = BgCnbdK.fit(*past, k=2.0, dropout_at_zero=dropout_at_zero)
    curve = model.survival(*past, 180)
    assert ((curve >= 0) & (curve <= 1)).all()
    assert (np.diff(curve, axis=1) <= 0).all()
    assert 0 <= model.expected_purchases(*past, 28)[0] <= 10_000


def test_a_hundred_thousand_customers_take_seconds() -> None:
    sample, _, _ = shop(REGULAR, 5_000, days=200.0, ahead=0.0)
    past = PurchaseSummary(*(np.tile(part, 20) for part in sample))
    started = time.process_time()
    model = BgCnbdK.fit(*past, k=2.5, dropout_at_zero=True)
    model.p_no_purchase(*past, 28.0)
    assert time.process_time() - started < 8
