"""Warm spares: which processes are kept ready to take a slot, as a pure state machine.

A spare is a compute worker without a slot. It has imported what the node's job needs, and holds no device. When a
slot loses its worker, a warm spare takes its place at once; another one is started when every slot works again.

What is promised: never more spares than asked for; none is started while a slot lacks a working worker; a slot that
is to be filled at once takes a spare if one is warm for the job that it had; none is kept when memory runs short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from nimbusd.core.ids import JobId, WorkerId, slot_of, worker_of

PAUSE_S = 1.0
"""The time that every slot must have worked before a spare is started: the job's first episodes come first."""
RETRY_S = 5.0
"""The pause after a spare that was lost, doubled with every one that was lost before it was warm."""
MOST_FAILED = 3
"""The number of spares in a row, lost before they were warm, after which the job gets none any more."""
ENOUGH_FREE = 0.9
"""Spares are given up when memory is used up, and started again below this share of it."""
_SPARE = "spare"
"""Stands for the slot in the name of a process that has none."""


def is_spare(worker: WorkerId) -> bool:
    """True if a process goes by the name of a spare."""
    return slot_of(worker) == _SPARE


@dataclass(frozen=True, slots=True)
class StartSpare:
    """Start a process without a slot, and have it prepare for the job."""

    spare: WorkerId
    job: JobId


@dataclass(frozen=True, slots=True)
class KillSpare:
    """SIGKILL it: it has nothing to lose. Its end is told as any other."""

    spare: WorkerId
    reason: str


SpareOrder: TypeAlias = StartSpare | KillSpare


@dataclass(slots=True)
class _Spare:
    job: JobId
    deadline: float
    warm: bool = False
    dying: bool = False


class Spares:
    """The spares of a node.

    most: how many there may be. memory_bytes: what the node may use; None: no limit. warm_within_s: a spare that takes
    longer is killed.
    """

    def __init__(self, most: int, memory_bytes: int | None = None, warm_within_s: float = math.inf) -> None:
        self._most = most
        self._memory_bytes = memory_bytes
        self._warm_within_s = warm_within_s
        self._spares: dict[WorkerId, _Spare] = {}
        self.job: JobId | None = None
        """The job that spares are prepared for."""
        self._started = 0
        self._failed = 0
        self._not_before = -math.inf
        self._working_since: float | None = None
        self._short = False

    # --- facts ---

    def want(self, job: JobId | None) -> None:
        """Prepare for this job from now on."""
        if job != self.job:
            self.job, self._failed, self._not_before = job, 0, -math.inf

    def job_of(self, spare: WorkerId) -> JobId | None:
        """The job that a spare is to prepare for; None if it is no longer needed."""
        process = self._spares.get(spare)
        return None if process is None or process.dying else process.job

    def is_warm(self, spare: WorkerId) -> None:
        """A spare has imported what its job needs, and waits."""
        if (process := self._spares.get(spare)) is not None:
            process.warm, self._failed = True, 0

    def is_gone(self, spare: WorkerId, now: float) -> None:
        """A spare's process has ended."""
        process = self._spares.pop(spare, None)
        if process is None or process.dying:
            return
        self._failed += 0 if process.warm else 1
        self._not_before = now + RETRY_S * 2 ** max(0, self._failed - 1)

    def memory_used(self, used_bytes: int) -> None:
        """Note how much of the node's memory is in use, by whomever."""
        if self._memory_bytes is not None:
            self._short = used_bytes > self._memory_bytes * (ENOUGH_FREE if self._short else 1.0)

    # --- decisions ---

    def take(self, job: JobId | None) -> WorkerId | None:
        """A warm spare for `job`, which is none any more: it is a slot's worker now. None if there is none."""
        for spare, process in self._spares.items():
            if process.warm and not process.dying and process.job == job:
                del self._spares[spare]
                return spare
        return None

    def settle(self, all_work: bool, now: float) -> list[SpareOrder]:
        """Decide what follows from the facts so far and from the time.

        all_work: every slot has a worker at work, or one that waits for some.
        """
        if not all_work:
            self._working_since = None
        elif self._working_since is None:
            self._working_since = now
        orders: list[SpareOrder] = []
        for spare, process in self._spares.items():
            if not process.dying and (reason := self._needless(process, now)) is not None:
                process.dying = True
                orders.append(KillSpare(spare, reason))
        if (job := self.job) is not None and self._may_start(now):
            self._started += 1
            spare = worker_of(_SPARE, self._started)
            self._spares[spare] = _Spare(job, now + self._warm_within_s)
            orders.append(StartSpare(spare, job))
        return orders

    def stop(self) -> list[SpareOrder]:
        """The node leaves: no spare is wanted from now on."""
        self._most = 0
        return self.settle(False, -math.inf)

    def _needless(self, process: _Spare, now: float) -> str | None:
        if self._most == 0:
            return "no longer needed"
        if process.job != self.job:
            return "prepared for a job that is no longer this node's"
        if self._short:
            return "the node's memory is nearly used up"
        if not process.warm and now > process.deadline:
            return f"not warm after {self._warm_within_s:g} s"
        return None

    def _may_start(self, now: float) -> bool:
        if self._working_since is None or now - self._working_since < PAUSE_S or now < self._not_before:
            return False
        if self._short or self._failed >= MOST_FAILED:
            return False
        return len(self._spares) < self._most and all(process.warm for process in self._spares.values())
