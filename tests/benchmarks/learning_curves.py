"""Learning curves: what each model gains from more customers to learn from, on the same hold-out of all customers.

A nightly run of a very large shop trains on a sample of `Task.max_customers` customers. Each learner is fitted on an
eighth, a quarter, a half and all of the customers of two real shops, on what was known before the hold-out, and
evaluated on the hold-out of all of them. Where the curve is flat, more customers would not help. Run it with
`python tests/benchmarks/learning_curves.py`; with REGULARS_ONLINE_RETAIL=PATH/online_retail_ii.parquet the gift
wholesaler is measured too.
"""

from __future__ import annotations

import os

# As in the command, and before numpy is imported: idle threads do not spin.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", OPENBLAS_NUM_THREADS="1", DO_NOT_TRACK="true")

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import pandas as pd

from customers.shop.settings import Shop
from models.base import InsufficientData
from pipelines.nightly.run_context import open_run_context, sample_customers
from training import train
from training.tasks import all_tasks
from training.tasks.task import Task, TrainingData

SHARES = (0.125, 0.25, 0.5, 1.0)
LOADERS = {"grocer": datasets.load_grocer, "wholesaler": datasets.load_wholesaler}


def main() -> None:
    """Print the primary metric of each task by the number of customers that it was learned from."""
    arguments = _parse_arguments()
    tasks = [task for task in all_tasks.TASKS if not arguments.only or task.name in arguments.only]
    with TemporaryDirectory(prefix="regulars-curves-") as folder:
        for shop in (LOADERS[name](Path(folder), _print_progress) for name in arguments.shops):
            if shop is not None:
                for line in _measure_shop(shop, tasks):
                    print(f"{shop.home.name:12} {line}", flush=True)  # noqa: T201


def _measure_shop(shop: Shop, tasks: list[Task]) -> Iterator[str]:
    with open_run_context(shop, None, {}, _print_progress) as context:
        for task in tasks:
            frame = context.load_task_frame(task)
            customers = frame["customer_key"].nunique()
            for share in SHARES:
                sample = sample_customers(frame, int(customers * share))
                value = _evaluate_sample(task, context.training_data, frame, sample)
                yield f"{task.name:12} {sample['customer_key'].nunique():6,} customers  {task.primary_metric} {value}"


def _evaluate_sample(task: Task, training_data: TrainingData, frame: pd.DataFrame, sample: pd.DataFrame) -> str:
    """The primary metric, on the hold-out of all customers, of a learner fitted on some before it."""
    holdout = training_data.calendar.cutoff_before(task.holdout_days(training_data))
    try:
        model = train.fit_before_holdout(task, training_data, sample, holdout)
    except InsufficientData as error:
        return f"- ({error})"
    return f"{train.evaluate(task, training_data, frame, model)[task.primary_metric]:.4f}"


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What each model gains from more customers to learn from.")
    parser.add_argument("--only", nargs="+", help="names of tasks")
    parser.add_argument("--shops", nargs="+", choices=LOADERS, default=list(LOADERS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
