"""A node's decisions: what the master is told of its leases, and what is kept until it answers.

Facts in, orders out, time as a value: the master's messages and those of compute workers come in as they are, and what
goes to either leaves as an order. An outcome is told again until it is acknowledged: a lost connection or a restarted
master costs nothing that was made. Which worker makes which episode is `Staff`'s decision.
"""

from __future__ import annotations

from collections.abc import Iterator

from nimbusd.core.ids import Attempt, JobId, LeaseId, NodeId, WorkerId
from nimbusd.core.master.nodes import HEARTBEAT_S
from nimbusd.core.node.backlog import Backlog
from nimbusd.core.node.commits import Commits
from nimbusd.core.node.facts import (
    DropPiece,
    DropPlan,
    JobChanged,
    JobKnown,
    JobUnfit,
    NodeFact,
    NodeOrder,
    StopWorker,
    WorkerGone,
    WorkerWaits,
)
from nimbusd.core.node.heartbeats import Heartbeats
from nimbusd.core.node.held import TELL_AGAIN_S, HeldLease, HeldLeases
from nimbusd.core.node.split import Role
from nimbusd.core.node.staff import Staff, Worker
from nimbusd.stages.stage_names import PLANNING_STAGES
from nimbusd.transport.messages.bounds import MOST_SECONDS
from nimbusd.transport.messages.failures import Failure, FailureKind
from nimbusd.transport.messages.node import (
    Ack,
    Commit,
    Drain,
    Fail,
    GiveBack,
    Heartbeat,
    Lease,
    Revoke,
    Running,
    Stored,
    Welcome,
)
from nimbusd.transport.messages.worker import (
    AttemptFailed,
    Beat,
    EpisodePlanned,
    EpisodeStored,
    Memory,
    Plan,
    WorkerPulls,
    WorkerReturns,
)

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
        self._commits: Commits[Stored] = Commits()
        self._draining = False
        self._unfit: set[JobId] = set()

    # --- what the shell may ask ---

    def idle(self) -> bool:
        """True where nothing is held and nothing waits for an acknowledgement."""
        return not len(self._leases)

    def sizes(self) -> dict[str, int]:
        """Numbers of things that are remembered of leases, by kind: all zero when the node is idle."""
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
        """True where a worker has episodes."""
        known = self._staff.workers.get(worker)
        return known is not None and bool(known.given)

    def running(self, now: float) -> Iterator[tuple[WorkerId, Running]]:
        """Every episode that has begun, and who is at it."""
        for id, worker in self._staff.workers.items():
            for attempt, begun in worker.given.items():
                if begun is not None:
                    stage, began = begun
                    yield id, Running(attempt.lease, attempt.key.index, stage, now - began)

    # --- facts ---

    def handle(self, fact: NodeFact, now: float) -> list[NodeOrder]:
        """Take in a fact. Stale and repeated facts are harmless."""
        match fact:
            case Lease():
                self._lease(fact)
            case Revoke():
                return self._revoke(fact, now)
            case Ack():
                return self._acknowledged(fact)
            case JobKnown():
                self._staff.job_known(fact)
            case WorkerWaits(worker, renders):
                self._staff.workers[worker] = Worker(renders)
            case WorkerPulls(worker, credit):
                self._staff.pulls(worker, credit, now)
            case Beat(worker, attempt, stage):
                self._began(worker, attempt, stage, now)
            case EpisodePlanned(memory=memory):
                return [*self._measured(fact.worker, memory), *self._episode_planned(fact)]
            case EpisodeStored(memory=memory):
                return [*self._measured(fact.worker, memory), *self._episode_stored(fact, now)]
            case AttemptFailed(memory=memory):
                return [*self._measured(fact.worker, memory), *self._failed(fact, now)]
            case WorkerReturns(worker, attempts):
                for attempt in attempts:
                    if self._take(worker, attempt):
                        self._wait_again(attempt)
            case WorkerGone():
                return self._gone(fact, now)
            case JobUnfit(job):
                self._unfit.add(job)
            case JobChanged(job):
                self._unfit.discard(job)
                return self._staff.job_changed(job)
            case Welcome(_, heartbeat_s):
                self._heartbeats.connected(heartbeat_s)
                for held in self._leases:
                    held.again_at = now
            case Drain(on):
                self._draining = on
        return []

    # --- the master ---

    def _lease(self, order: Lease) -> None:
        held = self._leases.open(order)
        if held is None or not self._backlog.kept():
            return
        for index in list(held.waiting):
            if self._backlog.reuse(held.attempt(index)):
                self._leases.drop_waiting(held, [index])
                held.planned.add(index)

    def _revoke(self, fact: Revoke, now: float) -> list[NodeOrder]:
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
            for attempt in [a for a in known.given if a.lease == fact.lease and a.key.index in wanted]:
                if known.given[attempt] is None:
                    continue  # it will be made, and refused: cheaper than a new worker
                if not known.unwanted:
                    known.unwanted = True
                    orders.append(StopWorker(worker, "what it is making is no longer wanted"))
                self._take(worker, attempt)
                orders += self._end_plan(attempt)
        self._forget_if_over(held)
        return orders

    def _drop_planned(self, held: HeldLease, wanted: set[int]) -> list[NodeOrder]:
        """Take plans that no renderer has from the backlog."""
        orders: list[NodeOrder] = []
        for index in sorted(wanted & held.planned):
            held.planned.discard(index)
            orders += self._end_plan(held.attempt(index))
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
        return [*orders, GiveBack(self._node, held.id, indexes)]

    def _acknowledged(self, fact: Ack) -> list[NodeOrder]:
        held = self._leases.get(fact.lease)
        if held is None:
            return []
        self._commits.answered(fact.lease)
        orders: list[NodeOrder] = []
        for index in (*fact.indexes, *fact.refused):
            piece = held.told.pop(index, None)
            if index in fact.refused and isinstance(piece, Stored):
                orders.append(DropPiece(held.job, piece.folder))
        self._forget_if_over(held)
        return orders

    def _forget_if_over(self, held: HeldLease) -> None:
        if self._leases.close_if_over(held):
            self._commits.forget(held.id)

    # --- workers ---

    def _measured(self, worker: WorkerId, memory: Memory | None) -> list[NodeOrder]:
        return [] if memory is None else self._staff.measured(worker, memory.rss_bytes, memory.gpu_bytes)

    def _began(self, worker: WorkerId, attempt: Attempt, stage: str, now: float) -> None:
        known = self._staff.workers.get(worker)
        if known is not None and attempt in known.given:
            begun = known.given[attempt]
            known.given[attempt] = (stage, now if begun is None else begun[1])

    def _take(self, worker: WorkerId, attempt: Attempt) -> bool:
        """Take an episode from a worker. False if it does not have it."""
        known = self._staff.workers.get(worker)
        if known is None or attempt not in known.given:
            return False
        del known.given[attempt]
        del self._leases[attempt.lease].given[attempt.key.index]
        return True

    def _wait_again(self, attempt: Attempt) -> None:
        """Have an episode wait for another worker, first in line."""
        held = self._leases[attempt.lease]
        if self._backlog.put_back(attempt):
            held.planned.add(attempt.key.index)
        else:
            self._leases.wait_again(held, attempt.key.index)

    def _end_plan(self, attempt: Attempt) -> list[NodeOrder]:
        plan = self._backlog.end(attempt)
        return [DropPlan(plan.path)] if plan is not None else []

    def _episode_planned(self, fact: EpisodePlanned) -> list[NodeOrder]:
        attempt = fact.attempt
        if not self._take(fact.worker, attempt):
            return [DropPlan(fact.plan.path)]  # it was revoked meanwhile
        self._leases[attempt.lease].planned.add(attempt.key.index)
        self._backlog.add(attempt, fact.plan)
        self._staff.pace(attempt.key.job).planned(fact.plan.cost_s, good=True)
        return []

    def _episode_stored(self, fact: EpisodeStored, now: float) -> list[NodeOrder]:
        piece, attempt = fact.piece, fact.attempt
        plan = self._backlog.plan_of(attempt)
        if not self._take(fact.worker, attempt):
            known = self._staff.workers.get(fact.worker)
            job = known.job if known is not None else None
            return [] if job is None else [DropPiece(job, piece.folder)]  # revoked meanwhile: nobody will commit it
        self._heartbeats.episode_made(piece.cost_s)
        pace, timings_s = self._staff.pace(attempt.key.job), piece.timings_s
        plan_s, store_s = sum(timings_s.get(stage, 0.0) for stage in PLANNING_STAGES), timings_s.get("store", 0.0)
        if plan is None:
            pace.planned(plan_s, good=True)
        else:
            plan_s = plan.cost_s
        pace.rendered(max(0.0, piece.cost_s - plan_s - store_s), store_s, now)
        self._leases[attempt.lease].note(piece.index, piece, now)
        self._commits.stored(attempt.lease, piece)
        return self._end_plan(attempt)

    def _failed(self, fact: AttemptFailed, now: float) -> list[NodeOrder]:
        attempt, failure = fact.attempt, fact.failure
        if not self._take(fact.worker, attempt):
            return []
        if failure.kind is FailureKind.PLANNING:
            self._staff.pace(attempt.key.job).planned(fact.cost_s, good=False)
        kept = self._keep_plan(attempt, now, final=failure.kind is FailureKind.FINAL)
        return [*kept, self._tell_failure(attempt, failure, fact.cost_s, now)]

    def _keep_plan(self, attempt: Attempt, now: float, final: bool = False) -> list[NodeOrder]:
        """An attempt failed: its plan, if it had one, is kept for the next."""
        if final:
            return self._end_plan(attempt)
        forgotten = self._backlog.keep(attempt, now)
        return [DropPlan(forgotten.path)] if forgotten is not None else []

    def _tell_failure(self, attempt: Attempt, failure: Failure, cost_s: float, now: float) -> Fail:
        told = Fail(self._node, attempt, failure, min(cost_s, MOST_SECONDS))
        self._leases[attempt.lease].note(attempt.key.index, told, now)
        return told

    def _gone(self, fact: WorkerGone, now: float) -> list[NodeOrder]:
        """Fail what a dead worker had begun; the rest waits for another one.

        If it was not heard to begin anything, it died before it could say so: in the first episode that it had. Where
        one of its threads is known to be to blame, what the other one had begun is innocent: it goes back uncharged.
        """
        known = self._staff.gone(fact.worker, now)
        if known is None:
            return []
        if known.given and not (known.recalled or known.unwanted or any(known.given.values())):
            known.given[next(iter(known.given))] = ("plan" if known.role is Role.PLAN else "load", now)
        guilty = _guilty(known, fact.failure.stage)
        orders: list[NodeOrder] = []
        for attempt, begun in known.given.items():
            held, index = self._leases[attempt.lease], attempt.key.index
            del held.given[index]
            innocent = known.unwanted or attempt not in guilty
            if known.job in self._unfit or (begun is not None and innocent):  # not made here again: files may be torn
                orders += self._end_plan(attempt)
                held.told[index] = None
                held.again_at = now + TELL_AGAIN_S
                self._heartbeats.gave_back()
                orders.append(GiveBack(self._node, attempt.lease, (index,)))
            elif begun is None:
                self._wait_again(attempt)
            else:
                stage, began = begun
                orders += self._keep_plan(attempt, now)
                orders.append(self._tell_failure(attempt, fact.failure.in_stage(stage), now - began, now))
        return orders

    # --- what follows ---

    def settle(self, now: float) -> list[NodeOrder]:
        """Draw the consequences of the facts so far and of the time: work for workers, news for the master."""
        orders: list[NodeOrder] = []
        if self._draining or self._unfit:
            for held in list(self._leases):
                if self._draining or held.job in self._unfit:
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

    def _tell_stored(self, held: HeldLease, pieces: tuple[Stored, ...]) -> Commit:
        order = held.order
        return Commit(self._node, order.lease, order.job, order.scene, order.attempt, pieces)

    def _tell_again(self, now: float) -> list[NodeOrder]:
        """Repeat what was told and not acknowledged for a while."""
        orders: list[NodeOrder] = []
        for held in self._leases:
            if not held.told or held.again_at > now:
                continue
            pieces = tuple(piece for piece in held.told.values() if isinstance(piece, Stored))
            returned = tuple(index for index, outcome in held.told.items() if outcome is None)
            orders += [outcome for outcome in held.told.values() if isinstance(outcome, Fail)]
            if pieces:
                self._commits.repeated(held.id, now)
                orders.append(self._tell_stored(held, pieces))
            if returned:
                orders.append(GiveBack(self._node, held.id, returned))
            held.again_at = now + TELL_AGAIN_S
        return orders

    # --- heartbeats ---

    def _heartbeat(self, now: float) -> Heartbeat:
        """Without the load of the hardware, which the shell measures."""
        seq, credit = self._heartbeats.tell(now, draining=self._draining)
        running = tuple(running for _, running in self.running(now))
        pipelines = tuple(self._staff.pipelines(now))
        return Heartbeat(self._node, self._session, seq, credit, self._leases.ids(), running, pipelines=pipelines)


def _guilty(known: Worker, stage: str) -> set[Attempt]:
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
