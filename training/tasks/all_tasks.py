"""The table of tasks, one row per task."""

from __future__ import annotations

from training.tasks import churn, offers, recommender, restock, timing, value
from training.tasks.task import Task

#: A single window may be unusual; two are evaluated where fitting is cheap enough.
TWO_CUTOFFS = 2
#: Differences in the primary metric below half a percent are ties: twice that is sampling noise on 2,000 customers.
TIE_TOLERANCE = 0.005
#: A household of the Complete Journey has some five hundred rows, one per category or offer and cutoff, in these tasks.
MAX_EXPANDED_CUSTOMERS = 5_000
#: A household has lists of some 350 products at each of four cutoffs: 0.3 MB, and as much again while they are read.
MAX_LISTED_CUSTOMERS = 10_000


TASKS: tuple[Task, ...] = (
    Task(
        "recommender",
        question="Which products will this customer buy in the next four weeks?",
        service="recommender_v1",
        learner="recommender.Recommender",
        baselines=("bestsellers.Popularity", "bestsellers.DecayedFrequency"),
        primary_metric="ndcg_10",
        holdout_days=recommender.list_window_days,
        label=recommender.label_baskets,
        evaluated_rows=recommender.has_purchases,
        evaluate=recommender.evaluate_lists,
        settings=lambda training_data: {"window_days": recommender.list_window_days(training_data)},
        learner_inputs=lambda training_data: {
            name: getattr(training_data, name) for name in ("products", "prices", "together")
        },
        guardrails={"distinct_lists": 0.8, "products_shown": 0.2},
        max_customers=MAX_LISTED_CUSTOMERS,
    ),
    Task(
        "offers",
        question="Will this customer redeem this offer if they get it?",
        service="offers_v1",
        learner="offers.Offers",
        baselines=("offers.AffinityRate",),
        primary_metric="map",
        holdout_days=offers.offer_window_days,
        label=offers.label_redemptions,
        evaluated_rows=offers.is_labelled,
        evaluate=offers.evaluate_offers,
        expand="offers",
        max_customers=MAX_EXPANDED_CUSTOMERS,
        is_event_based=True,
    ),
    Task(
        "churn",
        question="Will this customer buy nothing within the churn horizon?",
        service="churn_v1",
        learner="churn.Churn",
        baselines=(
            "baselines.RecencyChurn",
            "baselines.RfmLogistic",
            "seasoned.SeasonedBgNbd",
            "baselines.BgNbdChurn",
        ),
        n_cutoffs=TWO_CUTOFFS,
        primary_metric="log_loss",
        holdout_days=lambda training_data: training_data.churn_days,
        label=churn.label_churn,
        evaluated_rows=churn.is_active_and_labelled,
        evaluate=churn.evaluate_churn,
        settings=lambda training_data: {"horizon_days": training_data.churn_days},
    ),
    Task(
        "timing",
        question="In how many days will this customer buy again?",
        service="timing_v1",
        learner="timing.Timing",
        baselines=("baselines.KaplanMeierTiming", "baselines.BgNbdTiming"),
        n_cutoffs=TWO_CUTOFFS,
        primary_metric="crps_levelled",
        holdout_days=timing.timing_window_days,
        label=timing.label_time_to_purchase,
        evaluated_rows=timing.is_active_with_follow_up,
        evaluate=timing.evaluate_survival_curves,
        settings=lambda training_data: {"days": timing.curve_days(training_data)},
    ),
    Task(
        "restock",
        question="Will this customer buy from this category again within one, two or four weeks?",
        service="restock_v1",
        learner="restock.Restock",
        baselines=("stocks.PairRhythm", "stocks.OwnRate"),
        n_cutoffs=TWO_CUTOFFS,
        primary_metric="log_loss",
        holdout_days=recommender.list_window_days,
        label=restock.label_repurchases,
        evaluated_rows=restock.is_regular_category,
        evaluate=restock.evaluate_restock,
        expand="needs",
        max_customers=MAX_EXPANDED_CUSTOMERS,
    ),
    Task(
        "value",
        question="How much will this customer spend over the value horizon?",
        service="value_v1",
        learner="value.Value",
        baselines=("spending.RateValue", "spending.BgNbdGammaGamma"),
        n_cutoffs=TWO_CUTOFFS,
        primary_metric="ngini",
        holdout_days=value.value_window_days,
        label=value.label_spend,
        evaluated_rows=value.is_window_complete,
        evaluate=value.evaluate_value,
        settings=lambda training_data: {"horizon_days": value.value_window_days(training_data)},
    ),
)


def get_task(name: str) -> Task:
    """The task of this name. Raises KeyError for an unknown name."""
    tasks_by_name = {each.name: each for each in TASKS}
    if name not in tasks_by_name:
        raise KeyError(f"no task is named {name!r}; there are {', '.join(tasks_by_name)}")
    return tasks_by_name[name]
