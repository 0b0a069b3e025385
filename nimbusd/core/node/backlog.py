"""The backlog of a node: planned, not yet rendered.

A planned sequence lies in a file; here is only where. A plan leaves the backlog for good when its episode is stored,
not when a renderer takes it, so that a renderer that dies loses nothing. What remains of an episode that failed after
planning is kept for its next attempt: the same seeds would only give the same plan again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from nimbusd.core.ids import Attempt, EpisodeKey, JobId
from nimbusd.core.tally import Tally
from nimbusd.transport.messages.worker import Plan

MOST_KEPT = 32
KEPT_S = 30.0
"""A plan is kept at least so long for another attempt, though nothing of its job is leased meanwhile."""


@dataclass(slots=True)
class _Planned:
    plan: Plan
    waits: bool = True


class Backlog:
    """Plans in the order in which renderers shall take them."""

    def __init__(self) -> None:
        self._planned: OrderedDict[Attempt, _Planned] = OrderedDict()
        self._kept: OrderedDict[EpisodeKey, tuple[Plan, float]] = OrderedDict()
        """With the time since when."""
        self._waiting: Tally[JobId] = Tally()
        self._sizes_bytes: dict[JobId, int] = {}
        self.memory_bytes = 0
        """Of all plans that lie in memory."""

    def __len__(self) -> int:
        return sum(self._waiting.values())

    def waiting(self, job: JobId) -> int:
        """Plans of a job that no renderer has."""
        return self._waiting[job]

    def planned(self) -> int:
        """Plans of episodes that are leased, whether a renderer has them or not."""
        return len(self._planned)

    def kept(self) -> int:
        """Plans that are kept for another attempt: at most MOST_KEPT."""
        return len(self._kept)

    def largest_bytes(self, job: JobId) -> int:
        """The largest plan of a job so far; 0 before the first."""
        return self._sizes_bytes.get(job, 0)

    def add(self, attempt: Attempt, plan: Plan) -> None:
        """An episode has been planned."""
        assert attempt not in self._planned
        self._planned[attempt] = _Planned(plan)
        job = attempt.key.job
        self._waiting.change(job, 1)
        self._sizes_bytes[job] = max(self._sizes_bytes.get(job, 0), plan.size_bytes)
        self.memory_bytes += 0 if plan.spilled else plan.size_bytes

    def reuse(self, attempt: Attempt) -> bool:
        """An episode is leased again: True if its plan is still here, and back in the backlog."""
        kept = self._kept.pop(attempt.key, None) if self._kept else None
        if kept is None:
            return False
        self._planned[attempt] = _Planned(kept[0])
        self._planned.move_to_end(attempt, last=False)
        self._waiting.change(attempt.key.job, 1)
        return True

    def next_of(self, job: JobId, scene: str | None) -> Attempt | None:
        """The next plan for a renderer: the oldest of a scene, else of the job; None if there is none."""
        oldest = None
        for attempt, planned in self._planned.items():
            if planned.waits and attempt.key.job == job:
                if scene is None or attempt.key.scene == scene:
                    return attempt
                oldest = oldest or attempt
        return oldest

    def hand_out(self, attempt: Attempt) -> Plan:
        """A renderer takes a plan; it stays ours until `end` or `keep`."""
        planned = self._planned[attempt]
        assert planned.waits
        planned.waits = False
        self._waiting.change(attempt.key.job, -1)
        return planned.plan

    def plan_of(self, attempt: Attempt) -> Plan | None:
        """The plan of an episode, if it has one."""
        planned = self._planned.get(attempt)
        return planned.plan if planned is not None else None

    def put_back(self, attempt: Attempt) -> bool:
        """A renderer did not use a plan: it is first in line again. False if the episode has none."""
        planned = self._planned.get(attempt)
        if planned is None:
            return False
        assert not planned.waits
        planned.waits = True
        self._planned.move_to_end(attempt, last=False)
        self._waiting.change(attempt.key.job, 1)
        return True

    def end(self, attempt: Attempt) -> Plan | None:
        """An episode is over: its plan, whose file is garbage from now on."""
        planned = self._planned.pop(attempt, None)
        if planned is None:
            return None
        if planned.waits:
            self._waiting.change(attempt.key.job, -1)
        self.memory_bytes -= 0 if planned.plan.spilled else planned.plan.size_bytes
        return planned.plan

    def keep(self, attempt: Attempt, now: float) -> Plan | None:
        """An attempt failed after planning: keep its plan for the next one. Returns one that is forgotten instead."""
        planned = self._planned.pop(attempt, None)
        if planned is None:
            return None
        if planned.waits:
            self._waiting.change(attempt.key.job, -1)
        dropped = self._kept.pop(attempt.key, None)
        self._kept[attempt.key] = planned.plan, now
        if dropped is None and len(self._kept) > MOST_KEPT:
            _, dropped = self._kept.popitem(last=False)
        if dropped is None:
            return None
        self.memory_bytes -= 0 if dropped[0].spilled else dropped[0].size_bytes
        return dropped[0]

    def forget_kept(self, jobs: frozenset[JobId], now: float) -> list[Plan]:
        """Plans that were kept for jobs other than these, long enough, which are garbage from now on."""
        gone = [e for e, (_, since) in self._kept.items() if e.job not in jobs and now - since > KEPT_S]
        plans = [self._kept.pop(episode)[0] for episode in gone]
        self.memory_bytes -= sum(plan.size_bytes for plan in plans if not plan.spilled)
        for job in [job for job in self._sizes_bytes if job not in jobs and not self.waiting(job)]:
            del self._sizes_bytes[job]
        return plans
