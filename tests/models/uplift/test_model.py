"""Whom contact brings back, in a town where that is known: those with `doubt` need a nudge, no others."""

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
NUDGED = 0.3


def town(seed: int, *, nudge: float, people: int = 1200, chosen: float = 1.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two mailings, a month apart. The fond come anyway, and are the likelier to be written to (`chosen`)."""
    rng = np.random.default_rng(seed)
    who = np.tile(np.arange(people), 2)
    fond, doubt, height = np.tile(rng.normal(size=(people, 3)), (2, 1)).T
    contacted = rng.random(2 * people) < 1 / (1 + np.exp(0.4 - chosen * fond))
    comes = 1 / (1 + np.exp(0.5 - fond)) + nudge * (contacted & (doubt > 0.5))
    frame = pd.DataFrame({"customer_key": who, "fond": fond, "doubt": doubt, "height": height})
    days = pd.to_datetime(np.repeat(["2025-03-01", "2025-04-01"], people), utc=True)
    frame.insert(1, "as_of", days)
    came = (rng.random(2 * people) < comes).astype(float)
    return frame, pd.DataFrame({"contacted": contacted, "outcome": came})


@pytest.fixture(scope="module")
def nudged() -> tuple[TreatmentData, CrossFittedScores]:
    trial = TreatmentData.from_frame(*town(1, nudge=NUDGED))
    return trial, cross_fit(trial, **QUICK)


def test_every_learner_finds_those_who_need_a_nudge(nudged: tuple[TreatmentData, CrossFittedScores]) -> None:
    trial, seen = nudged
    doubt = trial.design[:, trial.columns.index("doubt")] > 0.5
    for learner, effect in seen.effects.items():
        assert effect[doubt].mean() > effect[~doubt].mean() + NUDGED / 3, learner


def test_scores_have_the_effect_as_their_mean_although_the_fond_were_written_to(
    nudged: tuple[TreatmentData, CrossFittedScores],
) -> None:
    trial, seen = nudged
    doubt = trial.design[:, trial.columns.index("doubt")] > 0.5
    reached = trial.contacted & seen.has_overlap
    naive = trial.outcome[reached].mean() - trial.outcome[seen.has_overlap & ~trial.contacted].mean()
    assert naive > NUDGED * doubt.mean() + 0.08, "as they are, the contacted look far better"
    assert seen.dr_scores[seen.has_overlap & doubt].mean() == pytest.approx(NUDGED, abs=0.1)
    assert seen.dr_scores[seen.has_overlap & ~doubt].mean() == pytest.approx(0, abs=0.06)


def test_nobody_is_judged_by_a_model_that_has_seen_them() -> None:
    frame, label = town(2, nudge=0.0, people=500)
    before = cross_fit(TreatmentData.from_frame(frame, label), **QUICK)
    mine = (frame["customer_key"] == 7).to_numpy()
    other = label.assign(outcome=np.where(mine, 1 - label["outcome"], label["outcome"]))
    after = cross_fit(TreatmentData.from_frame(frame, other), **QUICK)
    for learner in ("x", "dr", "t"):
        np.testing.assert_array_equal(before.effects[learner][mine], after.effects[learner][mine])
        assert not np.array_equal(before.effects[learner], after.effects[learner]), "others have learned from it"


def test_whoever_was_sure_to_be_contacted_is_left_out() -> None:
    frame, label = town(3, nudge=0.0, people=1500)
    sure = (frame["fond"] > 1).to_numpy()
    trial = TreatmentData.from_frame(frame, label.assign(contacted=label["contacted"] | sure))
    seen = cross_fit(trial, folds=4, count=100)
    assert seen.has_overlap[sure].mean() < 0.2
    assert seen.has_overlap[~sure].mean() > 0.8
    assert (seen.propensity[seen.has_overlap] <= OVERLAP[1]).all()


def test_a_served_effect_is_drawn_to_the_average_and_lives_as_files(
    nudged: tuple[TreatmentData, CrossFittedScores], tmp_path: Path
) -> None:
    trial, seen = nudged
    model, rows = UpliftModel.fit_from_scores(trial, seen), town(4, nudge=NUDGED, people=300)[0]
    effect, doubt = model.score(rows), (rows["doubt"] > 0.5).to_numpy()
    assert effect[doubt].mean() > effect[~doubt].mean() + NUDGED / 3
    assert model.population_average() == pytest.approx(seen.dr_scores[seen.has_overlap].mean())
    assert 0 <= model.slope <= 1
    assert (np.abs(effect) <= 1).all()
    bundle.write(model, tmp_path / "bundle", facts={})
    _, again = bundle.open_model(tmp_path / "bundle")
    np.testing.assert_array_equal(again.score(rows), effect)


def test_money_is_an_amount_and_not_a_chance() -> None:
    frame, label = town(5, nudge=NUDGED, people=800)
    model = UpliftModel.fit(frame, label.assign(outcome=20.0 * label["outcome"] + 0.5), **QUICK)
    share = (frame["doubt"] > 0.5).mean()
    assert model.population_average() == pytest.approx(20 * NUDGED * share, abs=1.2)


def test_what_is_not_known_of_a_customer_is_no_number() -> None:
    frame, label = town(6, nudge=0.0, people=500)
    frame.loc[::3, "height"] = np.nan
    frame["blank"], frame["same"] = np.nan, 1.0
    seen = cross_fit(TreatmentData.from_frame(frame, label), **QUICK)
    assert np.isfinite(seen.dr_scores).all()
    assert np.isfinite(np.column_stack(list(seen.effects.values()))).all()


def test_of_too_many_rows_customers_are_drawn_with_all_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    customers = np.tile(np.arange(1000), 3)
    assert sample_rows(customers).all()
    monkeypatch.setattr(treatment_data, "MAX_ROWS", 600)
    drawn = sample_rows(customers).reshape(3, -1)
    assert (drawn.sum(axis=1) == 200).all()
    assert (drawn == drawn[0]).all()


@pytest.mark.parametrize(
    ("contacted", "others", "words"),
    [(0, 500, "nobody was contacted"), (500, 0, "everybody was contacted"), (MIN_GROUP_SIZE - 1, 500, "at least 100")],
)
def test_too_few_of_either_kind_say_nothing(contacted: int, others: int, words: str) -> None:
    with pytest.raises(InsufficientData, match=words):
        require_enough(contacted, others)
    frame, _ = town(0, nudge=0.0, people=300)
    rows = frame.head(contacted + others).reset_index(drop=True)
    label = pd.DataFrame({"contacted": np.arange(len(rows)) < contacted, "outcome": 0.0})
    with pytest.raises(InsufficientData):
        UpliftModel.fit(rows, label)
