"""A virtual node: the real `NodeMachine`, compute workers that only take time, and the shell's rules between them."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from nimbusd.core.ids import Attempt, JobId, NodeId, WorkerId, slot_of, worker_of
from nimbusd.core.node.facts import (
    AssignJob,
    DropPiece,
    DropPlan,
    JobKnown,
    JobUnfit,
    NodeFact,
    NodeOrder,
    RecallWorker,
    StopWorker,
    WorkerGone,
    WorkerWaits,
)
from nimbusd.core.node.machine import NodeMachine
from nimbusd.core.node.split import Role
from nimbusd.simulate.node_model import NodeModel, NodeWorld
from nimbusd.simulate.workload import Fate
from nimbusd.transport.messages.failures import Failure, kind_of
from nimbusd.transport.messages.node import (
    Ack,
    Bye,
    CannotRun,
    Commit,
    Drain,
    Fail,
    GiveBack,
    Heartbeat,
    Hello,
    Lease,
    Revoke,
    SayHello,
    Stored,
    Welcome,
)
from nimbusd.transport.messages.worker import (
    AttemptFailed,
    Beat,
    EpisodePlanned,
    EpisodeStored,
    MakeEpisode,
    Plan,
    WorkerPulls,
    WorkerReturns,
)

HELLO_AGAIN_S = 1.0
PLAN_SHARE = 0.2
"""The part of an episode's time that is planning, after which it is known whether it can be planned."""


ToNode: TypeAlias = Welcome | SayHello | Lease | Revoke | Ack | Drain


@dataclass(slots=True, eq=False)
class _Worker:
    id: WorkerId
    renders: bool = True
    job: JobId | None = None
    role: Role = Role.FUSED
    loaded: tuple[JobId, str] | None = None
    queue: deque[MakeEpisode] = field(default_factory=deque)
    current: MakeEpisode | None = None
    began_at: float = 0.0
    loads_until: float = 0.0
    ready: bool = False
    leaving: bool = False


@dataclass(slots=True)
class Spent:
    """Seconds of slots. busy: in attempts, loading included; loading: scenes."""

    busy_s: float = 0.0
    loading_s: float = 0.0


class VirtualNode:
    """A node that can crash, be cut off and come back. Everything it holds dies with it, except stored pieces."""

    def __init__(self, world: NodeWorld, name: str, model: NodeModel) -> None:
        self.name = name
        self.model = model
        self.machine: NodeMachine | None = None
        self.session = 0
        self.welcomed = False
        self.down_since: float | None = 0.0
        self.disk_full = False
        self.spent = Spent()
        self._world = world
        self._clock = world.clock
        self._slots: dict[str, _Worker] = {}
        self._spawned = itertools.count()
        self._plans: set[str] = set()
        """Files of planned sequences."""
        self._rendered: set[Attempt] = set()

    # --- life and death ---

    def start(self) -> None:
        """Start the node's process."""
        if self.machine is not None:
            return
        self.session += 1
        self.down_since = None
        session = f"{self.name}.{self.session}"
        model = self.model
        self.machine = NodeMachine(
            NodeId(self.name), session, model.slots, self._world.heartbeat_s, plan_only=model.plan_only
        )
        for number in range(model.slots):
            self._spawn(f"{'gpu' if number >= model.plan_only else 'cpu'}:{number}", self.session)
        self.hello()
        self._clock.after(self._world.node_tick_s * self._world.random(), self._tick, self.session)

    def crash(self) -> None:
        """The process dies, and its workers with it."""
        if self.machine is not None:
            for worker in self._slots.values():
                self._account(worker)
            self.machine, self.down_since, self.welcomed = None, self._clock.now, False
            self._slots.clear()
            self._plans.clear()

    def leave(self) -> None:
        """Say goodbye and stop. The shell does so when the machine is idle."""
        if self.machine is not None:
            self._world.tell_master(self.name, Bye(NodeId(self.name), f"{self.name}.{self.session}", "said bye"))
            self.crash()

    def hello(self) -> None:
        """Introduce the node to the master, until it says welcome."""
        self.welcomed = False
        self._introduce(self.session)

    def _introduce(self, session: int) -> None:
        if self.machine is None or self.session != session or self.welcomed:
            return
        model = self.model
        packages = {"renderer": model.environment}
        name = NodeId(self.name)
        hello = Hello(name, f"{self.name}.{session}", "", model.environment, packages, model.slots, ())
        self._world.tell_master(self.name, hello)
        self._clock.after(HELLO_AGAIN_S, self._introduce, session)

    def _tick(self, session: int) -> None:
        if self.machine is not None and self.session == session:
            self._settle()
            self._clock.after(self._world.node_tick_s, self._tick, session)

    # --- what can be seen from outside ---

    def idle_workers(self) -> list[WorkerId]:
        """Workers that are ready, could begin an episode, and have nothing to do.

        Who only renders waits for plans, and who only plans for room in the backlog: they count where nobody works.
        """
        idle = [worker for worker in self._slots.values() if worker.ready and worker.current is None]
        nobody_works = all(worker.ready and worker.current is None for worker in self._slots.values())
        split = any(worker.role is not Role.FUSED for worker in self._slots.values())
        return [w.id for w in idle if nobody_works or not (split or w.role is not Role.FUSED or not w.renders)]

    def plans_are_accounted_for(self) -> bool:
        """True where every plan that lies here is one that somebody may still want, and the other way round."""
        return self.machine is None or len(self._plans) == self.machine.plans()

    def busy_s(self) -> float:
        """Seconds that slots have been at work so far."""
        now = self._clock.now
        return self.spent.busy_s + sum(now - w.began_at for w in self._slots.values() if w.current is not None)

    # --- messages and facts ---

    def receive(self, session: int, message: ToNode) -> None:
        """A message from the master, sent to a session of this node; it is lost with the session's connection."""
        if self.machine is None or session != self.session:
            return
        match message:
            case SayHello():
                self.hello()
            case Welcome():
                self.welcomed = True
                self._feed(message)
            case Lease(job=job):
                if job in self.model.unfit:  # a restarted master does not know any more
                    self._tell_unfit(job)
                self._feed(JobKnown(job, self.model.mode), message)
            case _:
                self._feed(message)

    def _feed(self, *facts: NodeFact) -> None:
        machine = self.machine
        assert machine is not None
        for fact in facts:
            for order in machine.handle(fact, self._clock.now):
                self._carry_out(order)
        self._settle()

    def _settle(self) -> None:
        if self.machine is not None:
            for order in self.machine.settle(self._clock.now):
                self._carry_out(order)

    def _carry_out(self, order: NodeOrder) -> None:
        match order:
            case Heartbeat() | Commit() | Fail() | GiveBack():
                self._world.tell_master(self.name, order)
            case MakeEpisode(worker=id):
                worker = self._worker(id)
                assert worker is not None
                assert not worker.leaving
                assert worker.job == order.attempt.key.job
                assert order.plan in (self._plans if order.plan or worker.role is Role.RENDER else {""})
                assert not order.plan or worker.role is not Role.PLAN
                worker.queue.append(order)
                self._begin_next(worker)
            case AssignJob(id, job, role):
                worker = self._worker(id)
                assert worker is not None
                assert worker.job is None
                assert worker.renders or role is Role.PLAN
                worker.job, worker.role, worker.ready = job, role, False
                self._clock.after(self.model.open_s, self._opened, worker, self.session)
            case RecallWorker(id):
                if (worker := self._worker(id)) is not None:
                    worker.leaving = True
                    self._clock.after(0.0, self._leave, worker, self.session)
            case StopWorker(id):
                if (worker := self._worker(id)) is not None:
                    self._clock.after(0.0, self._kill, worker, self.session, "stopped")
            case DropPiece(job, folder):
                self._world.dropped(job, folder)
            case DropPlan(path):
                self._plans.remove(path)

    def _tell_unfit(self, job: JobId) -> None:
        self._world.tell_master(self.name, CannotRun(NodeId(self.name), job, "its backend is missing here"))

    # --- workers ---

    def _worker(self, worker: WorkerId) -> _Worker | None:
        known = self._slots.get(slot_of(worker))
        return known if known is not None and known.id == worker else None

    def _is_alive(self, worker: _Worker, session: int) -> bool:
        return session == self.session and self._worker(worker.id) is worker

    def _spawn(self, slot: str, session: int) -> None:
        if self.machine is None or self.session != session:
            return
        worker = _Worker(worker_of(slot, next(self._spawned)), slot.startswith("gpu"))
        self._slots[slot] = worker
        self._clock.after(self.model.start_s, self._started, worker, session)

    def _started(self, worker: _Worker, session: int) -> None:
        if self._is_alive(worker, session):
            worker.ready = True
            self._feed(WorkerWaits(worker.id, worker.renders))

    def _opened(self, worker: _Worker, session: int) -> None:
        if not self._is_alive(worker, session):
            return
        assert worker.job is not None
        if worker.job in self.model.unfit:
            self._tell_unfit(worker.job)
            self._feed(JobUnfit(worker.job))
            self._kill(worker, session, "cannot_open")
        else:
            worker.ready = True
            self._feed(WorkerPulls(worker.id, self.model.prefetch))

    def _leave(self, worker: _Worker, session: int) -> None:
        """Hand back what has not begun; go when the rest is done."""
        if not self._is_alive(worker, session):
            return
        if worker.queue:
            unbegun = tuple(order.attempt for order in worker.queue)
            worker.queue.clear()
            self._feed(WorkerReturns(worker.id, unbegun))
        if worker.current is None:
            self._kill(worker, session, "left")

    def _kill(self, worker: _Worker, session: int, reason: str) -> None:
        """A worker's process ends, for whatever reason; another one takes its slot."""
        if not self._is_alive(worker, session):
            return
        slot = slot_of(worker.id)
        self._account(worker)
        del self._slots[slot]
        self._feed(WorkerGone(worker.id, Failure("", reason, f"worker {worker.id} ended: {reason}")))
        self._spawn(slot, session)

    def _account(self, worker: _Worker) -> None:
        """Account for what a worker was at, which is over."""
        if worker.current is not None:
            now = self._clock.now
            self.spent.busy_s += now - worker.began_at
            self.spent.loading_s += min(now, worker.loads_until) - worker.began_at

    def _begin_next(self, worker: _Worker) -> None:
        if worker.current is not None or not worker.queue:
            return
        assert self.machine is not None
        order = worker.current = worker.queue.popleft()
        attempt = order.attempt
        key = attempt.key
        if not order.plan or not order.plan.endswith(f".{attempt.lease}"):  # else it was begun when it was planned
            self._world.began(self.name, order)
        if worker.role is not Role.PLAN:
            assert attempt not in self._rendered, "an attempt is rendered twice"
            self._rendered.add(attempt)
        orders = self.machine.handle(Beat(worker.id, attempt, "render"), self._clock.now)
        assert not orders
        workload, model = self._world.workload(key.job), self.model
        place = key.job, key.scene
        loading_s = 0.0 if worker.loaded == place else workload.load_s(key.scene) / model.speed
        worker.loaded = place
        worker.began_at, worker.loads_until = self._clock.now, self._clock.now + loading_s
        making_s = workload.cost_s(key.scene, key.index) / model.speed * _share(worker, order)
        if model.stalls and self._world.random() < model.stalls:
            making_s *= model.stall_factor
        chance = self._world.random() if model.crashes or model.hangs else 1.0
        fate = workload.fate(key.scene, key.index)
        if chance < model.crashes or fate is Fate.POISON:
            self._clock.after(loading_s + making_s / 2, self._died, worker, self.session, order, "crash")
        elif chance < model.crashes + model.hangs:
            self._clock.after(loading_s + making_s + model.hang_s, self._died, worker, self.session, order, "hang")
        else:
            share = PLAN_SHARE if fate is Fate.UNPLANNABLE and worker.role is Role.FUSED else 1.0
            self._clock.after(
                loading_s + share * making_s, self._done, worker, self.session, order, fate, loading_s, share * making_s
            )

    def _died(self, worker: _Worker, session: int, order: MakeEpisode, reason: str) -> None:
        if worker.current is order:
            self._kill(worker, session, reason)

    def _done(
        self, worker: _Worker, session: int, order: MakeEpisode, fate: Fate, loading_s: float, making_s: float
    ) -> None:
        if not self._is_alive(worker, session):
            return
        assert worker.current is order
        self._account(worker)
        worker.current = None
        took_s = loading_s + making_s
        attempt = order.attempt
        key = attempt.key
        outcome: EpisodeStored | AttemptFailed | EpisodePlanned
        if fate is Fate.UNPLANNABLE:
            no_path = Failure("plan", "no_path", "there is no way to the goal", "", kind_of("no_path", planning=True))
            outcome = AttemptFailed(worker.id, attempt, no_path, took_s)
        elif fate is Fate.BROKEN:
            broken = Failure("load", "asset_error", "a mesh file is missing", "", kind_of("asset_error"))
            outcome = AttemptFailed(worker.id, attempt, broken, took_s)
        elif worker.role is Role.PLAN:
            plan = Plan(f"{key.scene}_{key.index}.{attempt.number}.{attempt.lease}", 1000, order.spill, took_s)
            assert plan.path not in self._plans
            self._plans.add(plan.path)
            outcome = EpisodePlanned(worker.id, attempt, plan)
        elif self.disk_full:
            full = Failure("store", "disk_full", "no space is left", "", kind_of("disk_full"))
            outcome = AttemptFailed(worker.id, attempt, full, took_s)
        else:
            folder = f"{key.scene}_{key.index}.{attempt.number}"
            self._world.stored(key.job, folder, making_s)
            outcome = EpisodeStored(worker.id, attempt, Stored(key.index, folder, 1, 1, "digest", took_s))
        if worker.leaving:
            self._feed(outcome)
            self._leave(worker, session)
        else:
            self._begin_next(worker)
            self._feed(outcome, WorkerPulls(worker.id, 1))


def _share(worker: _Worker, order: MakeEpisode) -> float:
    """The part of an episode's work that a worker does."""
    if order.plan:
        return 1.0 - PLAN_SHARE
    return PLAN_SHARE if worker.role is Role.PLAN else 1.0
