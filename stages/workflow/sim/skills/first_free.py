"""`first_free`: of several ways to do one thing, the first with nothing against it, and why the others failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim.reasons import Reason

ROUGH_RAD = 0.05
"""Spacing of the samples at which ways are checked while there are others to choose from."""

C = TypeVar("C")
W = TypeVar("W")


class Hopeless(PlanningFailed):
    """No candidate would do better: `first_free` passes it on."""


def first_free(candidates: Iterable[C], plan: Callable[[C], W]) -> tuple[W | None, Counter[str]]:
    """The first plan that can be made of a candidate, None without one, and how many candidates failed, by reason.

    candidates: taken one at a time, so that later ones cost nothing and may draw random numbers.
    plan: raises PlanningFailed for a candidate that does not do, Hopeless where no other would.
    """
    failed: Counter[str] = Counter()
    for candidate in candidates:
        try:
            return plan(candidate), failed
        except Hopeless:
            raise
        except PlanningFailed as error:
            failed[error.reason] += 1
    return None, failed


def reason_of(failed: Counter[str]) -> Reason:
    """The reason where no candidate does: `no_path` where one was within reach, else `ik_failed`."""
    return "no_path" if failed["no_path"] else "ik_failed"
