"""Slots and their compute workers, as a pure state machine: who is alive, who must die, who is spawned anew.

Workers that fall silent are killed by the node's watchdog, which says so (`WorkerKilled`). The deadlines here are
for the time when there is none, and for what it cannot see (a worker that beats but never hears us): they come
`grace_s` later than those that the watchdog keeps.

A worker owes a sign of life within a deadline: `start_timeout_s` from its spawn until it says hello, `open_timeout_s`
of the job it is assigned from then until it is ready, `beat_timeout_s` of that job between beats while it has an
episode, and the end of each episode within `episode_timeout_s`, where that is given. A worker that waits for a
job or for work owes nothing.

A slot that loses its worker gets a warm spare (`Spares`) where there is one, which then is its next worker: it
introduces itself by its new name, and owes what any other owes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from nimbusd.core.ids import JobId, WorkerId, slot_of, worker_of
from nimbusd.core.node.facts import RecallWorker, StopWorker
from nimbusd.core.node.pool_facts import (
    BeatSeen,
    CannotOpen,
    DismissWorker,
    EpisodeBegan,
    GiveUp,
    JobAssigned,
    KillWorker,
    LeaseSent,
    MemorySeen,
    PoolFact,
    PoolOrder,
    PrepareSpare,
    ReportLost,
    SpareGone,
    SpawnWorker,
    StopAsked,
    TakeSpare,
    TimePassed,
    WorkerExited,
    WorkerKilled,
)
from nimbusd.core.node.slot_states import ASKED_TO_LEAVE, AT_WORK, OPEN, SlotEvent, SlotState, next_state
from nimbusd.core.node.spares import Spares, is_spare
from nimbusd.transport.messages.worker import Fatal, Ready, Warm, WorkerHello


@dataclass(slots=True)
class _Slot:
    name: str
    worker: WorkerId
    """The present one, or the last."""
    generation: int = 0
    """The number of the worker in this slot."""
    state: SlotState = SlotState.VACANT
    deadline: float | None = None
    """The time at which the worker's next sign of life is due; None if it owes none."""
    episode_deadline: float | None = None
    """The time by which its episode must be over."""
    job: JobId | None = None
    """Of the worker, and of the one before until it has one."""
    prepared: JobId | None = None
    """The job that the worker was prepared for as a spare."""
    opens_for: JobId | None = None
    """The job that the worker was told to open for."""
    ready_within_s: float = 0.0
    """The time to its next step: to say hello, then to open for its job."""
    beat_timeout_s: float = 0.0
    episode_timeout_s: float | None = None
    killed: str | None = None
    """The reason for which the worker was killed."""
    killed_in: SlotState | None = None
    """The state that it was killed in."""
    stack: str = ""
    """Of the threads of a worker that the watchdog killed."""
    stage: str = ""
    """Of the thread that alone was to blame."""
    failed_starts: int = 0
    """The number of workers in a row that ended before they were ready."""

    def meet(self, event: SlotEvent, deadline: float | None = None) -> bool:
        """Move on as the table says, to a new deadline. False if the event came out of turn: nothing follows then."""
        following = next_state(self.state, event)
        if following is None:
            return False
        self.state, self.deadline = following, deadline
        return True

    def recall(self) -> None:
        """The worker is asked to leave, and still owes what it owes."""
        self.meet(SlotEvent.RECALL, self.deadline)

    def kill(self, why: str) -> None:
        """The worker is killed; of several reasons the first counts."""
        if self.state is not SlotState.DYING:
            self.killed, self.killed_in = why, self.state
        self.meet(SlotEvent.KILL)

    def last_state(self) -> SlotState:
        """The state that the worker is in, or was in when it was killed."""
        return self.killed_in or self.state


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
        """Spawn a worker in every slot; none if a stop was asked for before."""
        return [] if self._stopping else [self._spawn(slot, now) for slot in self._slots.values()]

    def alive(self) -> int:
        """Workers spawned and not yet seen to exit."""
        return sum(slot.state is not SlotState.VACANT for slot in self._slots.values())

    def states(self) -> dict[str, SlotState]:
        """The state of each slot, by name."""
        return {slot.name: slot.state for slot in self._slots.values()}

    def handle(self, fact: PoolFact, now: float) -> list[PoolOrder]:
        """Take in a fact; facts about workers that have been replaced are ignored."""
        match fact:
            case WorkerHello(worker) if is_spare(worker):
                if (job := self._spares.job_of(worker)) is not None:
                    return [PrepareSpare(worker, job)]
            case WorkerHello(worker):
                if (slot := self._slot(worker)) is not None:
                    slot.meet(SlotEvent.HELLO)
            case JobAssigned():
                return self._assigned(fact, now)
            case RecallWorker(worker) | Fatal(worker):
                if (slot := self._slot(worker)) is not None:
                    slot.recall()
            case StopWorker(worker, why):
                if (slot := self._slot(worker)) is not None and slot.state is not SlotState.DYING:
                    slot.recall()
                    slot.kill(why)
                    return [KillWorker(worker, why)]
            case Ready(worker):
                if (slot := self._slot(worker)) is not None and slot.meet(SlotEvent.READY):
                    slot.failed_starts = 0
            case LeaseSent(worker):
                if (slot := self._slot(worker)) is not None:  # a lease ahead of need puts no beat off
                    owed = now + slot.beat_timeout_s if slot.deadline is None else slot.deadline
                    slot.meet(SlotEvent.LEASE, owed)
            case BeatSeen(worker, busy=True):
                if (slot := self._slot(worker)) is not None:
                    slot.meet(SlotEvent.BEAT, now + slot.beat_timeout_s)
            case BeatSeen(worker):
                if (slot := self._slot(worker)) is not None and slot.meet(SlotEvent.DONE):
                    slot.episode_deadline = None
            case EpisodeBegan(worker):
                slot = self._slot(worker)
                if slot is not None and slot.state in OPEN and slot.episode_timeout_s is not None:
                    slot.episode_deadline = now + slot.episode_timeout_s
            case WorkerKilled(worker, reason, stack, stage):
                if (slot := self._slot(worker)) is not None:
                    slot.kill(reason)
                    slot.stack, slot.stage = stack, stage
            case WorkerExited(worker, returncode):
                return self._exited(worker, returncode, now)
            case TimePassed():
                overdue = self._overdue(now)
                all_work = all(slot.state in AT_WORK for slot in self._slots.values())
                return [*overdue, *self._spares.settle(all_work, now)]
            case Warm(spare):
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
        present = slot is not None and slot.worker == worker and slot.state is not SlotState.VACANT
        return slot if present else None

    def _assigned(self, fact: JobAssigned, now: float) -> list[PoolOrder]:
        slot = self._slot(fact.worker)
        if slot is None or next_state(slot.state, SlotEvent.ASSIGN) is None:
            return []
        slot.job = fact.job
        self._spares.want(self._main_job())
        if slot.prepared not in (None, fact.job):
            slot.recall()
            return [DismissWorker(fact.worker)]
        slot.beat_timeout_s, slot.episode_timeout_s = fact.beat_timeout_s, fact.episode_timeout_s
        slot.ready_within_s, slot.opens_for = fact.open_timeout_s, fact.job
        slot.meet(SlotEvent.ASSIGN, now + fact.open_timeout_s)
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
        slot.killed = slot.killed_in = slot.prepared = slot.opens_for = slot.episode_deadline = None
        slot.stack = slot.stage = ""
        slot.ready_within_s = self._start_timeout_s
        slot.meet(SlotEvent.FILL, now + delay_s + slot.ready_within_s)
        return SpawnWorker(slot.name, slot.worker, now + delay_s)

    def _kill_unready(self) -> list[PoolOrder]:
        """Workers that are still starting have nothing to lose, and nothing to do."""
        orders: list[PoolOrder] = []
        for slot in self._slots.values():
            if slot.state not in OPEN | {SlotState.VACANT, SlotState.DYING}:
                slot.kill(why := "no longer needed")
                orders.append(KillWorker(slot.worker, why))
        return orders

    def _overdue(self, now: float) -> list[PoolOrder]:
        orders: list[PoolOrder] = []
        for slot in self._slots.values():
            if (reason := self._late(slot, now)) is not None:
                slot.kill(reason)
                orders.append(KillWorker(slot.worker, reason))
        return orders

    def _late(self, slot: _Slot, now: float) -> str | None:
        """The sign of life that a slot's worker owes and has not given, in words; None if there is none."""
        if slot.state in (SlotState.VACANT, SlotState.DYING):
            return None
        now -= self._grace_s
        if slot.deadline is not None and now > slot.deadline:
            if slot.state in OPEN:
                return f"no progress for {slot.beat_timeout_s:g} s"
            return f"not ready after {slot.ready_within_s:g} s"
        if slot.episode_deadline is not None and now > slot.episode_deadline:
            return f"an episode took longer than {slot.episode_timeout_s:g} s"
        return None

    def _exited(self, worker: WorkerId, returncode: int, now: float) -> list[PoolOrder]:
        slot = self._slot(worker)
        if slot is None:
            return []
        last = slot.last_state()
        slot.meet(SlotEvent.EXIT)
        in_order = returncode == 0 and slot.killed is None
        left = last in ASKED_TO_LEAVE or (self._stopping and (last not in OPEN or in_order))
        reason, detail = _cause(slot.killed, returncode)
        orders: list[PoolOrder] = [ReportLost(worker, reason, detail, not left, slot.stack, slot.stage)]
        if self._stopping:
            return orders
        slot.failed_starts += 0 if last in OPEN | ASKED_TO_LEAVE else 1
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
    """The cause of a worker's end: a word to count by, and a sentence."""
    if killed is not None:
        return "hang", f"killed: {killed}"
    if returncode < 0:
        return "crash", f"died of signal {-returncode}"
    return "exit", f"exited with status {returncode} while it was needed"
