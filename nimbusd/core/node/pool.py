"""Slots and their compute workers, as a pure state machine: who is alive, who must die, who is spawned anew.

Workers that fall silent are killed by the node's watchdog, which says so (`WorkerKilled`). The deadlines here are
for the time when there is none, and for what it cannot see (a worker that beats but never hears us): they come
`grace_s` later than those that the watchdog keeps.

A worker owes a sign of life within a deadline: `start_timeout_s` from its spawn until it says hello, `open_timeout_s`
of the job it is assigned from then until it is ready, `beat_timeout_s` of that job between beats while it has an
episode, and the end of each episode within `episode_timeout_s`, where that is given. A worker that waits for a
job or for work owes nothing.

A slot that loses its worker gets a warm spare (core/spares.py) where there is one, which then is its next worker: it
introduces itself by its new name, and owes what any other owes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from nimbusd.core.ids import JobId, WorkerId, slot_of, worker_of
from nimbusd.core.node.pool_facts import (
    BeatSeen,
    CannotOpen,
    DismissWorker,
    EpisodeBegan,
    GiveUp,
    JobAssigned,
    KillWorker,
    LeaseSent,
    LeaveAsked,
    MemorySeen,
    PoolFact,
    PoolOrder,
    PrepareSpare,
    ReportLost,
    SpareGone,
    SpareIntroduced,
    SpareWarm,
    SpawnWorker,
    StopAsked,
    StopWanted,
    TakeSpare,
    TimePassed,
    WorkerExited,
    WorkerIntroduced,
    WorkerKilled,
    WorkerReady,
)
from nimbusd.core.node.spares import Spares


@dataclass(slots=True)
class _Slot:
    name: str
    worker: WorkerId
    generation: int = 0
    starting: bool = True
    """It has no worker that works, or that waits for a job."""
    ready: bool = False
    job: JobId | None = None
    """Of its worker, and of the one before until it has one."""
    prepared: JobId | None = None
    """What its worker was prepared for as a spare."""
    opens_for: JobId | None = None
    """What its worker has been told to open for."""
    ready_within_s: float = 0.0
    """How long it may take to its next step: to say hello, then to open for its job."""
    beat_timeout_s: float = 0.0
    episode_timeout_s: float | None = None
    deadline: float | None = None
    episode_deadline: float | None = None
    killed: str | None = None
    stack: str = ""
    stage: str = ""
    leaving: bool = False
    failed_starts: int = 0
    present: bool = True


class WorkerPool:
    """The slots of a node, one worker each.

    A worker that dies before it was ever ready counts as a failed start; `most_failed_starts` of them in a row in one
    slot mean that something is wrong, and not with an episode: with the job that the last one opened for, which other
    nodes may be able to run, or else with the node.
    spares, memory_bytes: how many warm spares to keep, and how much memory the node may use with them.
    """

    def __init__(
        self,
        slots: Iterable[str],
        start_timeout_s: float = 300.0,
        most_failed_starts: int = 3,
        backoff_s: float = 0.5,
        grace_s: float = 0.0,
        spares: int = 0,
        memory_bytes: int | None = None,
    ) -> None:
        self._slots = {name: _Slot(name, worker_of(name, 0)) for name in slots}
        self._start_timeout_s = start_timeout_s
        self._most_failed_starts = most_failed_starts
        self._backoff_s = backoff_s
        self._grace_s = grace_s
        self._stopping = False
        # Its start and what it imports take as long as a worker's.
        self._spares = Spares(spares, memory_bytes, 2 * start_timeout_s + grace_s)

    def start(self, now: float) -> list[PoolOrder]:
        """Spawn a worker in every slot."""
        return [self._spawn(slot, now) for slot in self._slots.values()]

    def alive(self) -> int:
        """Workers spawned and not yet seen to exit."""
        return sum(slot.present for slot in self._slots.values())

    def handle(self, fact: PoolFact, now: float) -> list[PoolOrder]:
        """Take in a fact; facts about workers that have been replaced are ignored."""
        match fact:
            case WorkerIntroduced(worker):
                if (slot := self._slot(worker)) is not None:
                    slot.deadline, slot.starting = None, False
            case JobAssigned(worker):
                return self._assigned(fact, now)
            case LeaveAsked(worker):
                if (slot := self._slot(worker)) is not None:
                    slot.leaving = True
            case StopWanted(worker, why):
                if (slot := self._slot(worker)) is not None and slot.killed is None:
                    slot.killed, slot.leaving = why, True
                    return [KillWorker(worker, why)]
            case WorkerReady(worker):
                if (slot := self._slot(worker)) is not None:
                    slot.ready, slot.deadline, slot.failed_starts, slot.starting = True, None, 0, False
            case LeaseSent(worker):
                if (slot := self._slot(worker)) is not None and slot.deadline is None:
                    slot.deadline = now + slot.beat_timeout_s
            case BeatSeen(worker, busy):
                if (slot := self._slot(worker)) is not None and slot.ready:
                    slot.deadline = now + slot.beat_timeout_s if busy else None
                    slot.episode_deadline = slot.episode_deadline if busy else None
            case EpisodeBegan(worker):
                slot = self._slot(worker)
                if slot is not None and slot.ready and slot.episode_timeout_s is not None:
                    slot.episode_deadline = now + slot.episode_timeout_s
            case WorkerKilled(worker, reason, stack, stage):
                if (slot := self._slot(worker)) is not None:
                    slot.killed, slot.stack, slot.stage = slot.killed or reason, stack, stage
            case WorkerExited(worker, returncode):
                return self._exited(worker, returncode, now)
            case TimePassed():
                all_work = not any(slot.starting for slot in self._slots.values())
                return [*self._overdue(now), *self._spares.settle(all_work, now)]
            case SpareIntroduced(spare):
                if (job := self._spares.job_of(spare)) is not None:
                    return [PrepareSpare(spare, job)]
            case SpareWarm(spare):
                self._spares.is_warm(spare)
            case SpareGone(spare):
                self._spares.is_gone(spare, now)
            case MemorySeen(used_bytes):
                self._spares.memory_used(used_bytes)
            case StopAsked():
                self._stopping = True
                return [*self._kill_unready(), *self._spares.stop()]
        return []

    def _slot(self, worker: WorkerId) -> _Slot | None:
        slot = self._slots.get(slot_of(worker))
        return slot if slot is not None and slot.worker == worker and slot.present else None

    def _assigned(self, fact: JobAssigned, now: float) -> list[PoolOrder]:
        slot = self._slot(fact.worker)
        if slot is None:
            return []
        slot.job = fact.job
        self._spares.want(self._main_job())
        if slot.prepared not in (None, fact.job):
            slot.leaving = slot.starting = True
            return [DismissWorker(fact.worker)]
        slot.beat_timeout_s, slot.episode_timeout_s = fact.beat_timeout_s, fact.episode_timeout_s
        slot.ready_within_s, slot.opens_for = fact.open_timeout_s, fact.job
        slot.deadline, slot.starting = now + slot.ready_within_s, True
        return []

    def _main_job(self) -> JobId | None:
        """The job of most slots; of those that are equal, rather the one that spares are prepared for."""
        counted = Counter(slot.job for slot in self._slots.values() if slot.job is not None)
        return max(counted, key=lambda job: (counted[job], job == self._spares.job), default=None)

    def _fill(self, slot: _Slot, now: float, delay_s: float) -> SpawnWorker | TakeSpare:
        """The next worker of a slot: a warm spare, unless there is something wrong with starts."""
        spawn = self._spawn(slot, now, delay_s)
        spare = None if delay_s else self._spares.take(slot.job)
        if spare is None:
            return spawn
        slot.prepared = slot.job
        return TakeSpare(slot.name, slot.worker, spare)

    def _spawn(self, slot: _Slot, now: float, delay_s: float = 0.0) -> SpawnWorker:
        slot.generation += 1
        slot.worker = worker_of(slot.name, slot.generation)
        slot.ready, slot.killed, slot.leaving, slot.present = False, None, False, True
        slot.starting, slot.prepared, slot.opens_for = True, None, None
        slot.stack = slot.stage = ""
        slot.episode_deadline = None
        slot.ready_within_s = self._start_timeout_s
        slot.deadline = now + delay_s + slot.ready_within_s
        return SpawnWorker(slot.name, slot.worker, now + delay_s)

    def _kill_unready(self) -> list[PoolOrder]:
        """Workers that are still starting have nothing to lose, and nothing to do."""
        orders: list[PoolOrder] = []
        for slot in self._slots.values():
            if slot.present and not slot.ready and slot.killed is None:
                slot.killed = "no longer needed"
                orders.append(KillWorker(slot.worker, slot.killed))
        return orders

    def _overdue(self, now: float) -> list[PoolOrder]:
        orders: list[PoolOrder] = []
        for slot in self._slots.values():
            if slot.present and slot.killed is None and (reason := self._late(slot, now)) is not None:
                slot.killed = reason
                orders.append(KillWorker(slot.worker, reason))
        return orders

    def _late(self, slot: _Slot, now: float) -> str | None:
        """What the slot's worker owes and has not given, or None."""
        now -= self._grace_s
        if slot.deadline is not None and now > slot.deadline:
            if slot.ready:
                return f"no progress for {slot.beat_timeout_s:g} s"
            return f"not ready after {slot.ready_within_s:g} s"
        if slot.episode_deadline is not None and now > slot.episode_deadline:
            return f"an episode took longer than {slot.episode_timeout_s:g} s"
        return None

    def _exited(self, worker: WorkerId, returncode: int, now: float) -> list[PoolOrder]:
        slot = self._slot(worker)
        if slot is None:
            return []
        slot.present = False
        left = slot.leaving or (self._stopping and (not slot.ready or (returncode == 0 and slot.killed is None)))
        reason, detail = _cause(slot.killed, returncode)
        orders: list[PoolOrder] = [ReportLost(worker, reason, detail, not left, slot.stack, slot.stage)]
        if self._stopping:
            return orders
        slot.failed_starts += 0 if slot.ready or slot.leaving else 1
        if slot.failed_starts >= self._most_failed_starts:
            row = f"{slot.failed_starts} workers in a row"
            if slot.opens_for is None:
                orders.append(GiveUp(f"{row} could not start in slot {slot.name}: {detail}"))
                return orders
            orders.append(CannotOpen(slot.opens_for, f"{row} ended while they opened in slot {slot.name}: {detail}"))
            slot.failed_starts, slot.job = 0, None
        delay_s = self._backoff_s * 2 ** (slot.failed_starts - 1) if slot.failed_starts else 0.0
        orders.append(self._fill(slot, now, delay_s))
        return orders


def _cause(killed: str | None, returncode: int) -> tuple[str, str]:
    """Why a worker is gone: a word to count by, and a sentence."""
    if killed is not None:
        return "hang", f"killed: {killed}"
    if returncode < 0:
        return "crash", f"died of signal {-returncode}"
    return "exit", f"exited with status {returncode} while it was needed"
