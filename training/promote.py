"""Promote: a challenger becomes champion only by being no worse on the same unseen days, and every move is logged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from customers import champions
from customers.shop import Shop
from models import bundle, registry
from models.base import Model

from training.plans import Plan, World
from training.train import Trained, examine, not_worse


class NoVersion(Exception):
    """There is no such version to promote or to go back to; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger may speak for the shop, and why in words."""

    promoted: bool
    why: str


def decide(
    plan: Plan, world: World, trained: Trained, frame: object, rival: Model | None, *, replay: bool
) -> Verdict:
    """Compare a challenger with the champion's judged twin on the challenger's own holdout.

    `rival` is the champion as it was before it learned from its last window, so that neither of the two has seen
    the days they are compared on; None where there is no champion yet.
    """
    if replay:
        return Verdict(False, "a replay of an earlier day: the champion knows later ones")
    if rival is None:
        return Verdict(True, f"the first of its name; {trained.why}")
    if trained.fallback:
        return Verdict(False, f"the champion stays; {trained.why}")
    theirs = examine(plan, world, frame, rival)  # type: ignore[arg-type]
    mine = trained.metrics
    text = f"{plan.decisive} {mine[plan.decisive]:.4f} against the champion's {theirs[plan.decisive]:.4f}"
    if not_worse(plan, mine, theirs):
        return Verdict(True, f"{text}; {trained.why}")
    return Verdict(False, f"the champion stays: {text}")
