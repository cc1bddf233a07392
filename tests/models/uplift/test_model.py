"""The uplift model, on mailings with a known effect: contact brings back customers with high `doubt` only."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.base import InsufficientData
from models.registry import bundle
from models.uplift import treatment_data
from models.uplift.cross_fitting import OVERLAP, CrossFittedScores, cross_fit
from models.uplift.model import UpliftModel
from models.uplift.treatment_data import MIN_GROUP_SIZE, TreatmentData, require_enough, sample_rows

QUICK = {"folds": 3, "count": 30}
EFFECT = 0.3


def draw_mailings(
    seed: int, *, effect: float, customers: int = 1200, chosen: float = 1.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two mailings, a month apart. Customers with high `fond` buy anyway, and are contacted more often (`chosen`)."""
    rng = np.random.default_rng(seed)
    keys = np.tile(np.arange(customers), 2)
    fond, doubt, height = np.tile(rng.normal(size=(customers, 3)), (2, 1)).T
    contacted = rng.random(2 * customers) < 1 / (1 + np.exp(0.4 - chosen * fond))
    purchase_probability = 1 / (1 + np.exp(0.5 - fond)) + effect * (contacted & (doubt > 0.5))
    frame = pd.DataFrame({"customer_key": keys, "fond": fond, "doubt": doubt, "height": height})
    days = pd.to_datetime(np.repeat(["2025-03-01", "2025-04-01"], customers), utc=True)
    frame.insert(1, "as_of", days)
    outcome = (rng.random(2 * customers) < purchase_probability).astype(float)
    return frame, pd.DataFrame({"contacted": contacted, "outcome": outcome})


@pytest.fixture(scope="module")
def cross_fitted() -> tuple[TreatmentData, CrossFittedScores]:
    treatment_data = TreatmentData.from_frame(*draw_mailings(1, effect=EFFECT))
    return treatment_data, cross_fit(treatment_data, **QUICK)


def test_every_learner_finds_the_customers_with_an_effect(
    cross_fitted: tuple[TreatmentData, CrossFittedScores],
) -> None:
    treatment_data, scores = cross_fitted
    has_doubt = treatment_data.design[:, treatment_data.columns.index("doubt")] > 0.5
    for learner, effect in scores.effects.items():
        assert effect[has_doubt].mean() > effect[~has_doubt].mean() + EFFECT / 3, learner


def test_dr_scores_have_the_effect_as_their_mean_although_loyal_customers_were_contacted_more(
    cross_fitted: tuple[TreatmentData, CrossFittedScores],
) -> None:
    treatment_data, scores = cross_fitted
    has_doubt = treatment_data.design[:, treatment_data.columns.index("doubt")] > 0.5
    is_contacted = treatment_data.contacted & scores.has_overlap
    naive = (
        treatment_data.outcome[is_contacted].mean()
        - treatment_data.outcome[scores.has_overlap & ~treatment_data.contacted].mean()
    )
    assert naive > EFFECT * has_doubt.mean() + 0.08, "as they are, the contacted look far better"
    assert scores.dr_scores[scores.has_overlap & has_doubt].mean() == pytest.approx(EFFECT, abs=0.1)
    assert scores.dr_scores[scores.has_overlap & ~has_doubt].mean() == pytest.approx(0, abs=0.06)


def test_no_customer_is_scored_by_a_model_fitted_to_them() -> None:
    frame, label = draw_mailings(2, effect=0.0, customers=500)
    before = cross_fit(TreatmentData.from_frame(frame, label), **QUICK)
    is_customer = (frame["customer_key"] == 7).to_numpy()
    changed_label = label.assign(outcome=np.where(is_customer, 1 - label["outcome"], label["outcome"]))
    after = cross_fit(TreatmentData.from_frame(frame, changed_label), **QUICK)
    for learner in ("x", "dr", "t"):
        np.testing.assert_array_equal(before.effects[learner][is_customer], after.effects[learner][is_customer])
        assert not np.array_equal(before.effects[learner], after.effects[learner]), "models of other customers changed"


def test_customers_who_were_certain_to_be_contacted_have_no_overlap() -> None:
    frame, label = draw_mailings(3, effect=0.0, customers=1500)
    is_certain = (frame["fond"] > 1).to_numpy()
    treatment_data = TreatmentData.from_frame(frame, label.assign(contacted=label["contacted"] | is_certain))
    scores = cross_fit(treatment_data, folds=4, count=100)
    assert scores.has_overlap[is_certain].mean() < 0.2
    assert scores.has_overlap[~is_certain].mean() > 0.8
    assert (scores.propensity[scores.has_overlap] <= OVERLAP[1]).all()


def test_a_served_effect_is_shrunk_to_the_average_and_saved_in_a_bundle(
    cross_fitted: tuple[TreatmentData, CrossFittedScores], tmp_path: Path
) -> None:
    treatment_data, scores = cross_fitted
    model, rows = UpliftModel.fit_from_scores(treatment_data, scores), draw_mailings(4, effect=EFFECT, customers=300)[0]
    effect, has_doubt = model.score(rows), (rows["doubt"] > 0.5).to_numpy()
    assert effect[has_doubt].mean() > effect[~has_doubt].mean() + EFFECT / 3
    assert model.population_average() == pytest.approx(scores.dr_scores[scores.has_overlap].mean())
    assert 0 <= model.slope <= 1
    assert (np.abs(effect) <= 1).all()
    bundle.write(model, tmp_path / "bundle", facts={})
    _, loaded = bundle.open_model(tmp_path / "bundle")
    np.testing.assert_array_equal(loaded.score(rows), effect)


def test_an_effect_on_spend_is_an_amount_and_not_a_probability() -> None:
    frame, label = draw_mailings(5, effect=EFFECT, customers=800)
    model = UpliftModel.fit(frame, label.assign(outcome=20.0 * label["outcome"] + 0.5), **QUICK)
    share = (frame["doubt"] > 0.5).mean()
    assert model.population_average() == pytest.approx(20 * EFFECT * share, abs=1.2)


def test_missing_features_give_finite_scores() -> None:
    frame, label = draw_mailings(6, effect=0.0, customers=500)
    frame.loc[::3, "height"] = np.nan
    frame["blank"], frame["same"] = np.nan, 1.0
    scores = cross_fit(TreatmentData.from_frame(frame, label), **QUICK)
    assert np.isfinite(scores.dr_scores).all()
    assert np.isfinite(np.column_stack(list(scores.effects.values()))).all()


def test_of_too_many_rows_customers_are_sampled_with_all_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    customers = np.tile(np.arange(1000), 3)
    assert sample_rows(customers).all()
    monkeypatch.setattr(treatment_data, "MAX_ROWS", 600)
    drawn = sample_rows(customers).reshape(3, -1)
    assert (drawn.sum(axis=1) == 200).all()
    assert (drawn == drawn[0]).all()


@pytest.mark.parametrize(
    ("contacted", "others", "message"),
    [(0, 500, "nobody was contacted"), (500, 0, "everybody was contacted"), (MIN_GROUP_SIZE - 1, 500, "at least 100")],
)
def test_too_few_contacted_or_not_contacted_are_refused(contacted: int, others: int, message: str) -> None:
    with pytest.raises(InsufficientData, match=message):
        require_enough(contacted, others)
    frame, _ = draw_mailings(0, effect=0.0, customers=300)
    rows = frame.head(contacted + others).reset_index(drop=True)
    label = pd.DataFrame({"contacted": np.arange(len(rows)) < contacted, "outcome": 0.0})
    with pytest.raises(InsufficientData):
        UpliftModel.fit(rows, label)
