"""A node's decisions: what the master is told of its leases, and what is kept until it answers.

Facts in, orders out, time as a value. What the master orders of a node (`GrantLease`, `RevokeLease`,
`Acknowledge`) is a fact here, and what a node tells the master (`HeartbeatSeen`, `PiecesStored` …) is an order
here, in the same words. An outcome is told again until it is acknowledged: a lost connection or a restarted
master costs nothing that was made. Which worker makes which episode is `Staff`'s decision.
"""

from __future__ import annotations

from collections.abc import Iterator

from nimbusd.core.ids import JobId, LeaseId, NodeId, WorkerId
from nimbusd.core.master.facts import (
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
from nimbusd.core.master.nodes import HEARTBEAT_S
from nimbusd.core.node.backlog import Backlog, Held, Plan
from nimbusd.core.node.commits import Commits
from nimbusd.core.node.facts import (
    Connected,
    DrainSet,
    DropPiece,
    DropPlan,
    EpisodeBegan,
    EpisodeFailed,
    EpisodePlanned,
    EpisodeStored,
    JobChanged,
    JobKnown,
    JobUnfit,
    NodeFact,
    NodeOrder,
    StopWorker,
    WorkerGone,
    WorkerMeasured,
    WorkerPulls,
    WorkerReturns,
    WorkerWaits,
)
from nimbusd.core.node.heartbeats import Heartbeats
from nimbusd.core.node.held import TELL_AGAIN_S, HeldLease, HeldLeases
from nimbusd.core.node.split import Role
from nimbusd.core.node.staff import Staff, Worker

STORE = "store"
"""The stage that a worker's writer thread does."""


class NodeMachine:
    """Call `handle` for every fact and `settle` once for the batch, and again now and then as time passes.

    slots, plan_only, memory_bytes, spill_bytes: see Staff.
    """

    def __init__(
        self,
        node: NodeId,
        session: str,
        slots: int,
        heartbeat_s: float = HEARTBEAT_S,
        *,
        plan_only: int = 0,
        memory_bytes: int | None = None,
        spill_bytes: int = 256 << 20,
    ) -> None:
        self._node = node
        self._session = session
        self._leases = HeldLeases()
        self._backlog = Backlog()
        self._staff = Staff(self._leases, self._backlog, slots, plan_only, memory_bytes, spill_bytes)
        self._heartbeats = Heartbeats(slots, heartbeat_s, self._leases, self._staff)
        self._commits: Commits[StoredPiece] = Commits()
        self._draining = False
        self._unfit: set[JobId] = set()

    # --- what the shell may ask ---

    def idle(self) -> bool:
        """Whether nothing is held and nothing waits for an acknowledgement."""
        return not len(self._leases)

    def sizes(self) -> dict[str, int]:
        """How much is remembered of leases, by kind: all zero when the node is idle."""
        return {
            "leases": len(self._leases),
            "stored": len(self._commits),
            "given": sum(len(worker.given) for worker in self._staff.workers.values()),
            "holding": self._leases.holding(),
            "planned": self._backlog.planned(),
        }

    def plans(self) -> int:
        """Files of planned sequences that are still wanted."""
        return self._backlog.planned() + self._backlog.kept()

    def jobs(self) -> frozenset[JobId]:
        """The jobs of which leases are held."""
        return self._leases.jobs()

    def leases(self) -> frozenset[LeaseId]:
        """The leases that are held."""
        return frozenset(self._leases.ids())

    def busy(self, worker: WorkerId) -> bool:
        """Whether a worker has episodes."""
        known = self._staff.workers.get(worker)
        return known is not None and bool(known.given)

    def running(self) -> Iterator[tuple[WorkerId, LeaseId, int, str, float]]:
        """(worker, lease, index, stage, when it began) of every episode that has begun."""
        for worker, known in self._staff.workers.items():
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
            case JobKnown():
                self._staff.job_known(fact)
            case WorkerWaits(worker, renders):
                self._staff.workers[worker] = Worker(renders)
            case WorkerPulls(worker, credit):
                self._staff.pulls(worker, credit, now)
            case WorkerMeasured(worker, rss_bytes, gpu_bytes):
                return self._staff.measured(worker, rss_bytes, gpu_bytes)
            case EpisodeBegan(worker, lease, index, stage):
                self._began(worker, lease, index, stage, now)
            case EpisodePlanned():
                return self._episode_planned(fact)
            case EpisodeStored():
                return self._episode_stored(fact, now)
            case EpisodeFailed():
                return self._failed(fact, now)
            case WorkerReturns(worker, episodes):
                for held in episodes:
                    if self._take(worker, held):
                        self._wait_again(held)
            case WorkerGone():
                return self._gone(fact, now)
            case JobUnfit(job):
                self._unfit.add(job)
            case JobChanged(job):
                self._unfit.discard(job)
                return self._staff.job_changed(job)
            case Connected(heartbeat_s):
                self._heartbeats.connected(heartbeat_s)
                for held_lease in self._leases:
                    held_lease.again_at = now
            case DrainSet(on):
                self._draining = on
        return []

    # --- the master ---

    def _lease(self, fact: GrantLease) -> None:
        lease = self._leases.open(fact)
        if lease is None:
            return
        for index in list(lease.waiting):
            if self._backlog.reuse((fact.lease, index), lease.episode(index)):
                self._leases.drop_waiting(lease, [index])
                lease.planned.add(index)

    def _revoke(self, fact: RevokeLease, now: float) -> list[NodeOrder]:
        held = self._leases.get(fact.lease)
        if held is None:
            if fact.kill and not fact.indexes:
                self._leases.remember_over(fact.lease)  # it has overtaken the lease
            return []
        wanted = set(fact.indexes) if fact.indexes else {*held.waiting, *held.planned, *held.given}
        if not fact.kill:
            return self._give_back(held, now, wanted)
        # Outcomes stay until they are acknowledged: only the ledger knows whether a piece is garbage.
        self._leases.drop_waiting(held, wanted)
        orders = self._drop_planned(held, wanted)
        for worker in sorted({held.given[index] for index in wanted & held.given.keys()}):
            known = self._staff.workers[worker]
            for key in [key for key in known.given if key[0] == fact.lease and key[1] in wanted]:
                if known.given[key] is None:
                    continue  # it will be made, and refused: cheaper than a new worker
                if not known.unwanted:
                    known.unwanted = True
                    orders.append(StopWorker(worker, "what it is making is no longer wanted"))
                self._take(worker, key)
                orders += self._end_plan(key)
        self._forget_if_over(held)
        return orders

    def _drop_planned(self, held: HeldLease, wanted: set[int]) -> list[NodeOrder]:
        """Take plans that no renderer has from the backlog."""
        orders: list[NodeOrder] = []
        for index in sorted(wanted & held.planned):
            held.planned.discard(index)
            orders += self._end_plan((held.lease.lease, index))
        return orders

    def _give_back(self, held: HeldLease, now: float, wanted: set[int] | None = None) -> list[NodeOrder]:
        """Give back what no worker has; its plans are lost."""
        planned = held.planned if wanted is None else held.planned & wanted
        indexes = (*self._leases.drop_waiting(held, wanted), *sorted(planned))
        if not indexes:
            return []
        orders = self._drop_planned(held, set(planned))
        for index in indexes:
            held.note(index, None, now)
        self._heartbeats.gave_back()
        return [*orders, EpisodesReturned(self._node, held.lease.lease, indexes)]

    def _acknowledged(self, fact: Acknowledge) -> list[NodeOrder]:
        held = self._leases.get(fact.lease)
        if held is None:
            return []
        self._commits.answered(fact.lease)
        orders: list[NodeOrder] = []
        for index in (*fact.indexes, *fact.refused):
            piece = held.told.pop(index, None)
            if index in fact.refused and isinstance(piece, StoredPiece):
                orders.append(DropPiece(held.lease.job, piece.folder))
        self._forget_if_over(held)
        return orders

    def _forget_if_over(self, held: HeldLease) -> None:
        if self._leases.close_if_over(held):
            self._commits.forget(held.lease.lease)

    # --- workers ---

    def _began(self, worker: WorkerId, lease: LeaseId, index: int, stage: str, now: float) -> None:
        known = self._staff.workers.get(worker)
        if known is not None and (lease, index) in known.given:
            begun = known.given[lease, index]
            known.given[lease, index] = (stage, now if begun is None else begun[1])

    def _take(self, worker: WorkerId, held: Held) -> bool:
        """Take an episode from a worker. False if it does not have it."""
        known = self._staff.workers.get(worker)
        if known is None or held not in known.given:
            return False
        del known.given[held]
        del self._leases[held[0]].given[held[1]]
        return True

    def _wait_again(self, held: Held) -> None:
        """Have an episode wait for another worker, first in line."""
        lease = self._leases[held[0]]
        if self._backlog.put_back(held):
            lease.planned.add(held[1])
        else:
            self._leases.wait_again(lease, held[1])

    def _end_plan(self, held: Held) -> list[NodeOrder]:
        plan = self._backlog.end(held)
        return [DropPlan(plan.path)] if plan is not None else []

    def _episode_planned(self, fact: EpisodePlanned) -> list[NodeOrder]:
        held = (fact.lease, fact.index)
        if not self._take(fact.worker, held):
            return [DropPlan(fact.plan.path)]  # it was revoked meanwhile
        lease = self._leases[fact.lease]
        lease.planned.add(fact.index)
        self._backlog.add(held, lease.episode(fact.index), fact.plan)
        self._staff.pace(lease.lease.job).planned(fact.plan.cost_s, good=True)
        return []

    def _episode_stored(self, fact: EpisodeStored, now: float) -> list[NodeOrder]:
        piece, held = fact.piece, (fact.lease, fact.piece.index)
        plan = self._backlog.plan_of(held)
        if not self._take(fact.worker, held):
            known = self._staff.workers.get(fact.worker)
            job = known.job if known is not None else None
            return [] if job is None else [DropPiece(job, piece.folder)]  # revoked meanwhile: nobody will commit it
        self._heartbeats.episode_made(piece.cost_s)
        lease = self._leases[fact.lease]
        pace = self._staff.pace(lease.lease.job)
        if plan is None:
            pace.planned(fact.plan_s, good=True)
        plan_s = fact.plan_s if plan is None else plan.cost_s
        pace.rendered(max(0.0, piece.cost_s - plan_s - fact.store_s), fact.store_s, now)
        lease.note(piece.index, piece, now)
        self._commits.stored(fact.lease, piece)
        return self._end_plan(held)

    def _failed(self, fact: EpisodeFailed, now: float) -> list[NodeOrder]:
        held = (fact.lease, fact.index)
        if not self._take(fact.worker, held):
            return []
        if fact.planned:
            self._staff.pace(self._leases[fact.lease].lease.job).planned(fact.cost_s, good=False)
        return [*self._keep_plan(held, now, fact.final), self._tell_failure(fact, now)]

    def _keep_plan(self, held: Held, now: float, final: bool = False) -> list[NodeOrder]:
        """An attempt failed: its plan, if it had one, is kept for the next."""
        if final:
            return self._end_plan(held)
        forgotten = self._backlog.keep(held, now)
        return [DropPlan(forgotten.path)] if forgotten is not None else []

    def _tell_failure(self, fact: EpisodeFailed, now: float) -> AttemptFailed:
        held = self._leases[fact.lease]
        failure = AttemptFailed(
            self._node,
            fact.lease,
            held.lease.attempt,
            held.episode(fact.index),
            fact.stage,
            fact.reason,
            fact.detail,
            fact.evidence,
            fact.cost_s,
            fact.planned,
            fact.final,
            fact.blameless,
        )
        held.note(fact.index, failure, now)
        return failure

    def _gone(self, fact: WorkerGone, now: float) -> list[NodeOrder]:
        """What a dead worker had begun failed; what it had not waits for another one.

        If it was not heard to begin anything, it died before it could say so: in the first episode that it had. Where
        one of its threads is known to be to blame, what the other one had begun is innocent: it goes back uncharged.
        """
        known = self._staff.gone(fact.worker, now)
        if known is None:
            return []
        if known.given and not (known.recalled or known.unwanted or any(known.given.values())):
            known.given[next(iter(known.given))] = ("plan" if known.role is Role.PLAN else "load", now)
        guilty = _guilty(known, fact.stage)
        orders: list[NodeOrder] = []
        for held, begun in known.given.items():
            lease, index = self._leases[held[0]], held[1]
            del lease.given[index]
            innocent = known.unwanted or held not in guilty
            if known.job in self._unfit or (begun is not None and innocent):  # not made here again: files may be torn
                orders += self._end_plan(held)
                lease.told[index] = None
                lease.again_at = now + TELL_AGAIN_S
                self._heartbeats.gave_back()
                orders.append(EpisodesReturned(self._node, held[0], (index,)))
            elif begun is None:
                self._wait_again(held)
            else:
                stage, began = begun
                failure = EpisodeFailed(
                    fact.worker, *held, stage, fact.reason, fact.detail, fact.evidence, cost_s=now - began
                )
                orders += [*self._keep_plan(held, now), self._tell_failure(failure, now)]
        return orders

    # --- what follows ---

    def settle(self, now: float) -> list[NodeOrder]:
        """What follows from the facts so far and from the time: work for workers, news for the master."""
        orders: list[NodeOrder] = []
        if self._draining or self._unfit:
            for held in list(self._leases):
                if self._draining or held.lease.job in self._unfit:
                    orders += self._give_back(held, now)
        orders += self._staff.settle(now)
        orders += [self._tell_stored(self._leases[lease], pieces) for lease, pieces in self._commits.due(now)]
        if self._heartbeats.due(now):
            orders += self._tell_again(now)
            orders += [DropPlan(plan.path) for plan in self._forgotten(now)]
        if self._heartbeats.worth_telling(now, draining=self._draining):
            orders.append(self._heartbeat(now))
        return orders

    def _forgotten(self, now: float) -> list[Plan]:
        """Plans of jobs of which nothing is held any more."""
        jobs = self._leases.jobs()
        self._staff.forget(jobs)
        return self._backlog.forget_kept(jobs, now)

    def _tell_stored(self, held: HeldLease, pieces: tuple[StoredPiece, ...]) -> PiecesStored:
        lease = held.lease
        return PiecesStored(self._node, lease.lease, lease.job, lease.scene, lease.attempt, pieces)

    def _tell_again(self, now: float) -> list[NodeOrder]:
        """Repeat what was told and not acknowledged for a while."""
        orders: list[NodeOrder] = []
        for held in self._leases:
            if not held.told or held.again_at > now:
                continue
            pieces = tuple(piece for piece in held.told.values() if isinstance(piece, StoredPiece))
            returned = tuple(index for index, outcome in held.told.items() if outcome is None)
            orders += [outcome for outcome in held.told.values() if isinstance(outcome, AttemptFailed)]
            if pieces:
                self._commits.repeated(held.lease.lease, now)
                orders.append(self._tell_stored(held, pieces))
            if returned:
                orders.append(EpisodesReturned(self._node, held.lease.lease, returned))
            held.again_at = now + TELL_AGAIN_S
        return orders

    # --- heartbeats ---

    def _heartbeat(self, now: float) -> HeartbeatSeen:
        seq, credit = self._heartbeats.tell(now, draining=self._draining)
        running = tuple(RunningEpisode(lease, index, now - began) for _, lease, index, _, began in self.running())
        pipelines = tuple(self._staff.pipelines(now))
        return HeartbeatSeen(self._node, self._session, seq, credit, self._leases.ids(), running, pipelines)


def _guilty(known: Worker, stage: str) -> set[Held]:
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
