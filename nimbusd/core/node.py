"""A node's decisions: which worker makes which episode, what the master is told, what is kept until it answers.

Facts in, orders out, time as a value. What the master orders of a node (`GrantLease`, `RevokeLease`,
`Acknowledge`) is a fact here, and what a node tells the master (`HeartbeatSeen`, `PiecesStored` …) is an order
here, in the same words. An outcome is told again until it is acknowledged: a lost connection or a restarted
master costs nothing that was made.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from nimbusd.core.episodes import EpisodeKey, JobId, LeaseId, NodeId, WorkerId
from nimbusd.core.estimate import Mean
from nimbusd.core.facts import (
    Acknowledge,
    AttemptFailed,
    EpisodesReturned,
    GrantLease,
    HeartbeatSeen,
    PiecesStored,
    RevokeLease,
    RunningEpisode,
    StoredPiece,
)
from nimbusd.core.node_facts import (
    AssignJob,
    Connected,
    DrainSet,
    DropPiece,
    EpisodeBegan,
    EpisodeFailed,
    EpisodeStored,
    JobUnfit,
    MakeEpisode,
    NodeFact,
    NodeOrder,
    RecallWorker,
    StopWorker,
    WorkerGone,
    WorkerPulls,
    WorkerReturns,
    WorkerWaits,
)
from nimbusd.core.nodes import HEARTBEAT_S, LONG_S

AHEAD_S = 0.5
"""Work that a node keeps queued, beside one next episode for every slot: more than a round trip to the master. Where
episodes are long, nothing is queued (LONG_S)."""
MOST_AHEAD = 2048
STORE = "store"
"""The stage that a worker's writer thread does."""
TELL_AGAIN_S = 3.0
MOST_REMEMBERED = 1024
"""Leases that are over: a message that comes late, or twice, must not open one again."""


@dataclass(slots=True)
class _Held:
    """A lease. waiting: not given to a worker; given: to whom; told: outcomes that are not acknowledged."""

    lease: GrantLease
    waiting: deque[int] = field(default_factory=deque)
    given: dict[int, WorkerId] = field(default_factory=dict)
    told: dict[int, StoredPiece | AttemptFailed | None] = field(default_factory=dict)
    """None: returned."""
    again_at: float = 0.0

    def over(self) -> bool:
        return not (self.waiting or self.given or self.told)


@dataclass(slots=True)
class _Worker:
    job: JobId | None = None
    credit: int = 0
    given: dict[tuple[LeaseId, int], tuple[str, float] | None] = field(default_factory=dict)
    """Episodes it has: None before they begin, then stage and when they began."""
    loaded: tuple[JobId, str] | None = None
    """Job and scene of the last episode it was given."""
    recalled: bool = False
    unwanted: bool = False

    def is_wanted(self) -> bool:
        return not (self.recalled or self.unwanted)


class NodeMachine:
    """Call `handle` for every fact and `settle` once for the batch, and again now and then as time passes."""

    def __init__(self, node: NodeId, session: str, slots: int, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._node = node
        self._session = session
        self._slots = slots
        self._heartbeat_s = heartbeat_s
        self._leases: dict[LeaseId, _Held] = {}
        self._workers: dict[WorkerId, _Worker] = {}
        self._cost = Mean()
        self._stored: dict[LeaseId, list[StoredPiece]] = {}
        self._holding = 0
        """Episodes that wait or are given to a worker."""
        self._waiting = 0
        self._over: dict[LeaseId, None] = {}
        self._seq = 0
        self._told_at = -math.inf
        self._told_credit = -1
        self._draining = False
        self._unfit: set[JobId] = set()

    # --- what the shell may ask ---

    def idle(self) -> bool:
        """Whether nothing is held and nothing waits for an acknowledgement."""
        return not self._leases

    def sizes(self) -> dict[str, int]:
        """How much is remembered of leases, by kind: all zero when the node is idle."""
        given = sum(len(worker.given) for worker in self._workers.values())
        return {"leases": len(self._leases), "stored": len(self._stored), "given": given, "holding": self._holding}

    def jobs(self) -> frozenset[JobId]:
        """The jobs of which leases are held."""
        return frozenset(held.lease.job for held in self._leases.values())

    def busy(self, worker: WorkerId) -> bool:
        """Whether a worker has episodes."""
        known = self._workers.get(worker)
        return known is not None and bool(known.given)

    def running(self) -> Iterator[tuple[WorkerId, LeaseId, int, str, float]]:
        """(worker, lease, index, stage, when it began) of every episode that has begun."""
        for worker, known in self._workers.items():
            for (lease, index), begun in known.given.items():
                if begun is not None:
                    yield worker, lease, index, *begun

    # --- facts ---

    def handle(self, fact: NodeFact, now: float) -> list[NodeOrder]:
        """Take in a fact. Stale and repeated facts are harmless."""
        match fact:
            case GrantLease():
                self._lease(fact)
            case RevokeLease():
                return self._revoke(fact, now)
            case Acknowledge():
                return self._acknowledged(fact)
            case WorkerWaits(worker):
                self._workers[worker] = _Worker()
            case WorkerPulls(worker, credit):
                if (known := self._workers.get(worker)) is not None:
                    known.credit += credit
            case EpisodeBegan(worker, lease, index, stage):
                self._began(worker, lease, index, stage, now)
            case EpisodeStored(worker, lease, piece):
                if self._take(worker, lease, piece.index):
                    self._cost.add(piece.cost_s)
                    self._note(self._leases[lease], piece.index, piece, now)
                    self._stored.setdefault(lease, []).append(piece)
                elif (known := self._workers.get(worker)) is not None and known.job is not None:
                    return [DropPiece(known.job, piece.folder)]  # it was revoked meanwhile: nobody will commit it
            case EpisodeFailed():
                return self._failed(fact, now)
            case WorkerReturns(worker, episodes):
                for lease, index in episodes:
                    if self._take(worker, lease, index):
                        self._wait(lease, index)
            case WorkerGone():
                return self._gone(fact, now)
            case JobUnfit(job):
                self._unfit.add(job)
            case Connected(heartbeat_s):
                self._heartbeat_s = self._heartbeat_s if heartbeat_s is None else heartbeat_s
                self._told_at = -math.inf
                for held in self._leases.values():
                    held.again_at = now
            case DrainSet(on):
                self._draining = on
        return []

    def _lease(self, fact: GrantLease) -> None:
        if fact.lease in self._leases or fact.lease in self._over:
            return
        held = self._leases[fact.lease] = _Held(fact)
        for span in fact.spans:
            held.waiting.extend(range(span.start, span.stop))
        self._holding += len(held.waiting)
        self._waiting += len(held.waiting)

    def _revoke(self, fact: RevokeLease, now: float) -> list[NodeOrder]:
        held = self._leases.get(fact.lease)
        if held is None:
            if fact.kill and not fact.indexes:
                self._remember_over(fact.lease)  # it has overtaken the lease
            return []
        wanted = set(fact.indexes) if fact.indexes else {*held.waiting, *held.given}
        if not fact.kill:
            return self._return_waiting(held, now, wanted)
        # Outcomes stay until they are acknowledged: only the ledger knows whether a piece is garbage.
        self._drop_waiting(held, wanted)
        orders: list[NodeOrder] = []
        for worker in sorted({held.given[index] for index in wanted & held.given.keys()}):
            known = self._workers[worker]
            for key in [key for key in known.given if key[0] == fact.lease and key[1] in wanted]:
                if known.given[key] is None:
                    continue  # it will be made, and refused: cheaper than a new worker
                if not known.unwanted:
                    known.unwanted = True
                    orders.append(StopWorker(worker, "what it is making is no longer wanted"))
                self._take(worker, *key)
        self._forget_if_over(held)
        return orders

    def _drop_waiting(self, held: _Held, wanted: set[int] | None = None) -> tuple[int, ...]:
        """Take episodes from those that wait; returns them."""
        dropped = tuple(index for index in held.waiting if wanted is None or index in wanted)
        if dropped:
            gone = set(dropped)
            held.waiting = deque(index for index in held.waiting if index not in gone)
            self._holding -= len(dropped)
            self._waiting -= len(dropped)
        return dropped

    def _return_waiting(self, held: _Held, now: float, wanted: set[int] | None = None) -> list[NodeOrder]:
        """Give back what has not been given to a worker."""
        indexes = self._drop_waiting(held, wanted)
        if not indexes:
            return []
        for index in indexes:
            self._note(held, index, None, now)
        return [EpisodesReturned(self._node, held.lease.lease, indexes)]

    @staticmethod
    def _note(held: _Held, index: int, outcome: StoredPiece | AttemptFailed | None, now: float) -> None:
        """Keep an outcome, which is told now, until it is acknowledged."""
        if not held.told:
            held.again_at = now + TELL_AGAIN_S
        held.told[index] = outcome

    def _acknowledged(self, fact: Acknowledge) -> list[NodeOrder]:
        held = self._leases.get(fact.lease)
        if held is None:
            return []
        orders: list[NodeOrder] = []
        for index in (*fact.indexes, *fact.refused):
            piece = held.told.pop(index, None)
            if index in fact.refused and isinstance(piece, StoredPiece):
                orders.append(DropPiece(held.lease.job, piece.folder))
        self._forget_if_over(held)
        return orders

    def _forget_if_over(self, held: _Held) -> None:
        if held.over():
            del self._leases[held.lease.lease]
            self._stored.pop(held.lease.lease, None)
            self._remember_over(held.lease.lease)

    def _remember_over(self, lease: LeaseId) -> None:
        self._over[lease] = None
        if len(self._over) > MOST_REMEMBERED:
            del self._over[next(iter(self._over))]

    # --- workers ---

    def _began(self, worker: WorkerId, lease: LeaseId, index: int, stage: str, now: float) -> None:
        known = self._workers.get(worker)
        if known is not None and (lease, index) in known.given:
            begun = known.given[lease, index]
            known.given[lease, index] = (stage, now if begun is None else begun[1])

    def _take(self, worker: WorkerId, lease: LeaseId, index: int) -> bool:
        """Take an episode from a worker. False if it does not have it."""
        known = self._workers.get(worker)
        if known is None or (lease, index) not in known.given:
            return False
        del known.given[lease, index]
        del self._leases[lease].given[index]
        self._holding -= 1
        return True

    def _wait(self, lease: LeaseId, index: int) -> None:
        """Have an episode wait for another worker, first in line."""
        self._leases[lease].waiting.appendleft(index)
        self._holding += 1
        self._waiting += 1

    def _failed(self, fact: EpisodeFailed, now: float) -> list[NodeOrder]:
        if not self._take(fact.worker, fact.lease, fact.index):
            return []
        return [self._tell_failure(fact, now)]

    def _tell_failure(self, fact: EpisodeFailed, now: float) -> AttemptFailed:
        held = self._leases[fact.lease]
        lease = held.lease
        failure = AttemptFailed(
            self._node,
            fact.lease,
            lease.attempt,
            EpisodeKey(lease.job, lease.scene, fact.index),
            fact.stage,
            fact.reason,
            fact.detail,
            fact.evidence,
            fact.cost_s,
            fact.planned,
            fact.final,
            fact.blameless,
        )
        self._note(held, fact.index, failure, now)
        return failure

    def _gone(self, fact: WorkerGone, now: float) -> list[NodeOrder]:
        """What a dead worker had begun failed; what it had not waits for another one.

        If it was not heard to begin anything, it died before it could say so: in the first episode that it had. Where
        one of its threads is known to be to blame, what the other one had begun is innocent: it goes back uncharged.
        """
        known = self._workers.pop(fact.worker, None)
        if known is None:
            return []
        if known.given and not (known.recalled or known.unwanted or any(known.given.values())):
            known.given[next(iter(known.given))] = ("load", now)
        guilty = _guilty(known, fact.stage)
        orders: list[NodeOrder] = []
        for (lease, index), begun in known.given.items():
            held = self._leases[lease]
            del held.given[index]
            self._holding -= 1
            innocent = known.unwanted or (lease, index) not in guilty
            if known.job in self._unfit or (begun is not None and innocent):  # not made here again: files may be torn
                held.told[index] = None
                held.again_at = now + TELL_AGAIN_S
                orders.append(EpisodesReturned(self._node, lease, (index,)))
            elif begun is None:
                self._wait(lease, index)
            else:
                stage, began = begun
                failure = EpisodeFailed(
                    fact.worker, lease, index, stage, fact.reason, fact.detail, fact.evidence, now - began
                )
                orders.append(self._tell_failure(failure, now))
        return orders

    # --- what follows ---

    def settle(self, now: float) -> list[NodeOrder]:
        """What follows from the facts so far and from the time: work for workers, news for the master."""
        orders: list[NodeOrder] = []
        if self._waiting and (self._draining or self._unfit):
            for held in list(self._leases.values()):
                if self._draining or held.lease.job in self._unfit:
                    orders += self._return_waiting(held, now)
        if self._waiting:
            orders += self._feed()
        for lease, pieces in self._stored.items():
            orders.append(self._tell_stored(self._leases[lease], tuple(pieces)))
        self._stored.clear()
        if now - self._told_at >= self._heartbeat_s:
            orders += self._tell_again(now)
        if self._worth_telling(now):
            orders.append(self._heartbeat(now))
        return orders

    def _feed(self) -> list[NodeOrder]:
        """Give workers what waits, first those that have its scene loaded; change a worker's job where only other
        jobs' work waits.
        """
        orders: list[NodeOrder] = []
        idle_first = sorted(self._workers.items(), key=lambda item: len(item[1].given))
        for worker, known in idle_first:
            if not known.given and known.credit > 0 and known.is_wanted():
                held = self._lease_of_loaded(known) if not self._is_overtaken(known) else None
                if held is not None:
                    orders.append(self._give(worker, known, held))
        for worker, known in idle_first:
            while self._waiting and known.is_wanted():
                if known.given and (known.credit <= 0 or self._waiting <= len(self._workers)):
                    break  # the last episodes go to whoever is free first, not into a queue behind another
                held = None
                if not self._is_overtaken(known):
                    held = self._lease_of_loaded(known) or self._next_lease(known)
                if held is None:
                    if not known.given:  # others' work waits, and none of its own, or it came later
                        known.recalled = True
                        orders.append(RecallWorker(worker))
                    break
                if known.job is None:
                    known.job = held.lease.job
                    orders.append(AssignJob(worker, known.job))
                if known.credit <= 0:
                    break
                orders.append(self._give(worker, known, held))
        return orders

    def _is_overtaken(self, known: _Worker) -> bool:
        """Whether a worker shall leave its job: another's leases came first, and wait for more workers than it has.

        The master leases by priority and fair share, so that what came first is to be made first.
        """
        job = next((held.lease.job for held in self._leases.values() if held.waiting), None)
        if known.job in (None, job) or job is None:
            return False
        waiting = sum(len(held.waiting) for held in self._leases.values() if held.lease.job == job)
        workers = self._slots - len(self._workers)  # those that are being started
        workers += sum(other.job in (None, job) or other.recalled for other in self._workers.values())
        return workers < waiting

    def _lease_of_loaded(self, known: _Worker) -> _Held | None:
        for held in self._leases.values():
            if held.waiting and (held.lease.job, held.lease.scene) == known.loaded:
                return held
        return None

    def _next_lease(self, known: _Worker) -> _Held | None:
        """What a worker can be given: rather from a scene that no other worker has loaded."""
        waiting = [held for held in self._leases.values() if held.waiting]
        job = known.job or waiting[0].lease.job
        fits = [held for held in waiting if held.lease.job == job]
        if len(fits) <= 1:
            return fits[0] if fits else None
        taken = {other.loaded for other in self._workers.values()}
        return min(fits, key=lambda held: ((held.lease.job, held.lease.scene) in taken, -len(held.waiting)))

    def _give(self, worker: WorkerId, known: _Worker, held: _Held) -> MakeEpisode:
        index, lease = held.waiting.popleft(), held.lease
        self._waiting -= 1
        held.given[index] = worker
        known.loaded = lease.job, lease.scene
        known.given[lease.lease, index] = None
        known.credit -= 1
        return MakeEpisode(worker, lease.lease, lease.job, lease.scene, index, lease.attempt)

    def _tell_stored(self, held: _Held, pieces: tuple[StoredPiece, ...]) -> PiecesStored:
        lease = held.lease
        return PiecesStored(self._node, lease.lease, lease.job, lease.scene, lease.attempt, pieces)

    def _tell_again(self, now: float) -> list[NodeOrder]:
        """Repeat what was told and not acknowledged for a while."""
        orders: list[NodeOrder] = []
        for held in self._leases.values():
            if not held.told or held.again_at > now:
                continue
            pieces = tuple(piece for piece in held.told.values() if isinstance(piece, StoredPiece))
            returned = tuple(index for index, outcome in held.told.items() if outcome is None)
            orders += [outcome for outcome in held.told.values() if isinstance(outcome, AttemptFailed)]
            if pieces:
                orders.append(self._tell_stored(held, pieces))
            if returned:
                orders.append(EpisodesReturned(self._node, held.lease.lease, returned))
            held.again_at = now + TELL_AGAIN_S
        return orders

    # --- heartbeats ---

    def _ahead(self) -> int:
        """How many episodes to hold beyond one for every slot: none while their cost is not known, or long."""
        if not self._cost.count or self._cost.value >= LONG_S:
            return 0
        return min(MOST_AHEAD, self._slots + math.ceil(AHEAD_S * self._slots / max(self._cost.value, 1e-6)))

    def _credit(self) -> int:
        if self._draining:
            return 0
        return max(0, self._slots + self._ahead() - self._holding, self._idle_workers() - self._waiting)

    def _idle_workers(self) -> int:
        """Workers that have nothing, though others may have more than one episode, one of them long."""
        return sum(known.is_wanted() and not known.given for known in self._workers.values())

    def _worth_telling(self, now: float) -> bool:
        """A heartbeat is due, or half of what we can hold is free and the master does not know it."""
        if now - self._told_at >= self._heartbeat_s:
            return True
        credit = self._credit()
        if credit == self._told_credit:
            return False
        return 2 * self._holding <= self._slots + self._ahead() or self._idle_workers() > self._waiting

    def _heartbeat(self, now: float) -> HeartbeatSeen:
        self._seq += 1
        self._told_at, self._told_credit = now, self._credit()
        running = tuple(RunningEpisode(lease, index, now - began) for _, lease, index, _, began in self.running())
        return HeartbeatSeen(self._node, self._session, self._seq, self._told_credit, tuple(self._leases), running)


def _guilty(known: _Worker, stage: str) -> set[tuple[LeaseId, int]]:
    """The episodes to blame for a worker's death in a stage: all that it had begun, where that tells nothing.

    The writer thread stores; the working thread does everything else, and is at what it began last.
    """
    begun = {key: began for key, began in known.given.items() if began is not None}
    stored = {key for key, (at, _) in begun.items() if at == STORE}
    worked = begun.keys() - stored
    if stage == STORE and stored:
        return stored
    if stage and stage != STORE and worked:
        return {max(worked, key=lambda key: begun[key][1])}
    return set(begun)
