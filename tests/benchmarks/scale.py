"""Scale benchmark: time and memory to rank every list of a shop forty times as large as the real one.

Customers are drawn from the Complete Journey, and each product of a purchase history is swapped for another of its
subcategory with probability 0.3, so that no two histories are alike. Ours ranks all three lists of fifty, batch by
batch as a nightly run does; the reference is implicit's own `recommend` (new products only, folding customers in). Each
side runs in a process of its own, so that its peak of memory is its own. `make bench` runs it after the speed ratios.
"""

from __future__ import annotations

import os

# As in the command, and before numpy is imported: idle threads do not spin.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", OPENBLAS_NUM_THREADS="1")

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import scipy.sparse
from implicit.cpu.als import AlternatingLeastSquares

from models import arrays
from models.recommender import purchase_history
from models.recommender.matrix_factorisation import MatrixFactorisation
from models.recommender.model import Recommender

Swap = Callable[[np.ndarray, np.random.Generator], np.ndarray]

CUSTOMERS, BATCH_SIZE, LENGTH = 100_000, 5_000, 50
SWAP_SHARE = 0.3
#: A nightly run of the large shop must fit on a small machine.
MAX_SECONDS, MAX_GIB = 600, 4.0


def main() -> None:
    """Measure both sides, one after the other, and print the ratio between them."""
    arguments = _parse_arguments()
    if arguments.side:
        print(json.dumps(_measure_side(arguments.side, Path(arguments.folder), arguments.customers)))  # noqa: T201
        return
    with TemporaryDirectory(prefix="regulars-scale-") as folder:
        _prepare_inputs(Path(folder))
        sides = {side: _run_side(side, folder, arguments.customers) for side in ("ours", "implicit")}
    for side, spent in sides.items():
        print(f"{side:9} {spent['cpu']:7.1f} s CPU {spent['wall']:7.1f} s {spent['peak_gib']:5.2f} GiB at most")  # noqa: T201
    ours, reference = sides["ours"], sides["implicit"]
    met = ours["wall"] <= MAX_SECONDS and ours["peak_gib"] <= MAX_GIB
    print(f"{arguments.customers:,} customers x {ours['products']:,} products: {ours['cpu'] / reference['cpu']:.2f}x "  # noqa: T201
          f"implicit's recommend; aim {MAX_SECONDS} s and {MAX_GIB:g} GiB {'met' if met else 'missed'}")  # fmt: skip


def _prepare_inputs(folder: Path) -> None:
    """Write the real shop's model and purchase histories to the folder that both sides read."""
    import speed

    journey = speed.CompleteJourneyShop(folder)
    (folder / "model").mkdir()
    journey.recommender.save(folder / "model")
    journey.current_rows.to_parquet(folder / "histories.parquet")


def _run_side(side: str, folder: str, customers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", side, "--folder", folder, "--customers", str(customers)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    spent: dict[str, float] = json.loads(output.splitlines()[-1])
    return spent


def _measure_side(side: str, folder: Path, customers: int) -> dict[str, float]:
    model = Recommender.load(folder / "model")
    real = pd.read_parquet(folder / "histories.parquet")
    cpu, wall = _time_ours(model, real, customers) if side == "ours" else _time_implicit(model, real, customers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"cpu": cpu, "wall": wall, "peak_gib": peak, "products": len(model.product_context.factorisation.products)}


def _time_ours(model: Recommender, real: pd.DataFrame, customers: int) -> tuple[float, float]:
    cpu = wall = 0.0
    for batch in _grow_customers(model, real, customers):
        started = time.process_time(), time.perf_counter()
        model.score(batch, n=LENGTH)
        cpu, wall = cpu + time.process_time() - started[0], wall + time.perf_counter() - started[1]
    return cpu, wall


def _time_implicit(model: Recommender, real: pd.DataFrame, customers: int) -> tuple[float, float]:
    factorisation = model.product_context.factorisation
    rows = [_purchase_matrix(factorisation, batch) for batch in _grow_customers(model, real, customers)]
    bought = scipy.sparse.vstack(rows, format="csr")
    reference = AlternatingLeastSquares(
        factors=factorisation.factors.shape[1], regularization=factorisation.regularisation, num_threads=1
    )
    reference.item_factors = factorisation.factors
    reference.user_factors = np.zeros((bought.shape[0], factorisation.factors.shape[1]), np.float32)
    started = time.process_time(), time.perf_counter()
    reference.recommend(np.arange(bought.shape[0]), bought, N=LENGTH, recalculate_user=True)
    return time.process_time() - started[0], time.perf_counter() - started[1]


def _purchase_matrix(factorisation: MatrixFactorisation, batch: pd.DataFrame) -> scipy.sparse.csr_matrix:
    history = purchase_history.read(batch, [purchase_history.weight_column(factorisation.half_life)])
    positions, is_present = arrays.find_positions(factorisation.products, history.products)
    weights = history.weights(factorisation.half_life)[is_present].astype(np.float32)
    return scipy.sparse.csr_matrix(
        (weights, (history.rows[is_present], positions[is_present])), (len(history), len(factorisation.products))
    )


def _grow_customers(model: Recommender, real: pd.DataFrame, customers: int) -> Iterator[pd.DataFrame]:
    """The customers of the large shop, batch by batch, the same in every run."""
    rng = np.random.default_rng(1)
    swap = _make_swap(model)
    for start in range(0, customers, BATCH_SIZE):
        drawn = real.iloc[rng.integers(0, len(real), min(BATCH_SIZE, customers - start))].reset_index(drop=True)
        sizes = drawn["product_keys"].map(len).to_numpy()
        products = swap(np.concatenate(drawn["product_keys"].to_numpy()), rng)
        keys = np.split(products, np.cumsum(sizes)[:-1])
        # A product that occurs twice in a history stays twice: it is as much work, and the lists are not used.
        yield drawn.assign(customer_key=np.arange(start, start + len(drawn)), product_keys=keys)


def _make_swap(model: Recommender) -> Swap:
    """A function that swaps products for others of their subcategory, each with probability SWAP_SHARE."""
    categories = model.product_context.categories
    order = np.argsort(categories.codes[:, 0], kind="stable")
    codes = categories.codes[order, 0]

    def swap(products: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        subcategories = categories.codes_at_level(products, "subcategory")
        first, last = np.searchsorted(codes, subcategories, "left"), np.searchsorted(codes, subcategories, "right")
        others = categories.products[
            order[(first + rng.random(len(subcategories)) * (last - first)).astype(np.int64) % len(order)]
        ]
        swapped: np.ndarray = np.where(
            (subcategories >= 0) & (rng.random(len(subcategories)) < SWAP_SHARE), others, products
        )
        return swapped

    return swap


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory to rank all lists of a large shop.")
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--side", choices=("ours", "implicit"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
