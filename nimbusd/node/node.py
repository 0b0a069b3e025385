"""A node: compute workers in its slots, and a link to a master.

The decisions are `NodeMachine`'s, on jobs and episodes, and `WorkerPool`'s, on slots. This is the shell around them,
with `ComputeWorkers`, `NodeJobs` and a `Link` to the master for hands. The machines are told every fact (a message, an
exit, a tick), and one task carries out their orders, in order.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeAlias

from nimbusd import __version__, events
from nimbusd.core.ids import NodeId, WorkerId
from nimbusd.core.node import facts as n
from nimbusd.core.node import pool_facts as p
from nimbusd.core.node.machine import NodeMachine
from nimbusd.core.node.spares import is_spare
from nimbusd.node.environment import LoadMeter, environment
from nimbusd.node.folders import FolderPlaces
from nimbusd.node.jobs import NodeJobs
from nimbusd.node.slots import Slot
from nimbusd.node.unfinished import UnfinishedPieces, remove_pieces
from nimbusd.node.workers import ComputeWorkers
from nimbusd.stages.errors import NimbusError, out_of_groups
from nimbusd.stages.store.trash import throw_away
from nimbusd.transport.messages import control as c
from nimbusd.transport.messages import local as m
from nimbusd.transport.messages.bounds import MOST_DETAIL, plain_text
from nimbusd.transport.messages.failures import Failure

log = logging.getLogger(__name__)

ACKNOWLEDGED_WITHIN_S = 10.0
"""The time that a node that leaves waits for the master to acknowledge what it made."""

_Order: TypeAlias = n.NodeOrder | p.PoolOrder | events.WorkerUp | events.StageBegan


class Link(Protocol):
    """The way to the master. Messages may be lost with the connection; the machine tells again."""

    def send(self, message: c.FromNode) -> object: ...


class Node:
    """A node from its start until it is drained or killed.

    name: unique in the cluster. slots: where compute workers run. watch: is told what happens here. memory_bytes: that
    all compute workers together may use; None: no limit. spares: processes to keep warm for slots that lose theirs.
    places: of its folders; None: where `FolderPlaces` chooses.
    """

    def __init__(
        self,
        name: str,
        slots: tuple[Slot, ...],
        link: Link,
        watch: events.Watcher,
        *,
        memory_bytes: int | None = None,
        spares: int = 0,
        places: FolderPlaces | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = NodeId(name)
        self._session = uuid.uuid4().hex
        self._slots = len(slots)
        self._link = link
        self._watch = watch
        self._clock = clock
        self._places = places or FolderPlaces.choose()
        self._machine = NodeMachine(
            self._name,
            self._session,
            len(slots),
            plan_only=sum(not slot.renders for slot in slots),
            memory_bytes=memory_bytes,
            spill_bytes=self._places.memory_bytes,
        )
        self._workers = ComputeWorkers(
            {slot.name: slot for slot in slots}, self._order, memory_bytes=memory_bytes, spares=spares, clock=clock
        )
        self._jobs = NodeJobs(self._name, link.send, self._fact)
        self._devices: set[str] = set()
        self._unfinished = UnfinishedPieces()
        self._stages: dict[WorkerId, events.StageBegan] = {}
        self._orders: deque[_Order] = deque()
        self._wake = asyncio.Event()
        self._over = asyncio.Event()
        self._leaving = ""
        self._meter = LoadMeter()
        self._worked_until: float | None = None
        self.ready = asyncio.Event()
        """A compute worker has started well: this node can work."""

    # --- what the owner may ask ---

    async def run(self) -> None:
        """Work until drained. Raises NimbusError if no compute worker can run here."""
        with self._places.folders() as self._folders:
            self._workers.open(self._folders)
            try:
                with out_of_groups(NimbusError):
                    await self._run_tasks()
                self._link.send(c.Bye(self._name, self._session, plain_text(self._leaving, MOST_DETAIL)))
            finally:
                self.kill()
                self._workers.close()

    async def _run_tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            tasks = (*self._workers.tasks(), self._receive(), self._carry_out())
            helpers = [group.create_task(task) for task in tasks]
            self._workers.start(group)
            await self._over.wait()
            for helper in helpers:
                helper.cancel()

    def status(self) -> str:
        """The work of this node, in a line."""
        under_way = sum(1 for _ in self._machine.running(self._clock()))
        line = f"{under_way} episodes under way in {self._slots} slots"
        return f"{line}; leaving: {self._leaving}" if self._leaving else line

    def leave(self, why: str) -> None:
        """Finish what has begun, give back the rest, say goodbye, and end `run`."""
        if not self._leaving:
            self._leaving = why
            log.info("leaving, %s: finishing what has begun", why)
            self._fact(c.Drain(True))
            self._send_home()
            self._end_if_done()

    def kill(self) -> None:
        """End `run` at once: SIGKILL every compute worker, and wait for nothing."""
        self._over.set()
        self._workers.kill_all()

    def say_hello(self) -> None:
        """Introduce ourselves; on every connection, and when the master asks."""
        devices, here = tuple(sorted(self._devices)), environment()
        hello = c.Hello(self._name, self._session, __version__, here.hash, dict(here.packages), self._slots, devices)
        self._link.send(hello)

    # --- the master ---

    def heard(self, message: c.ToNode) -> None:
        """A message from the master."""
        match message:
            case c.Welcome() | c.Revoke() | c.Ack():
                self._fact(message)
            case c.SayHello():
                self.say_hello()
            case c.JobSpec():
                self._jobs.take(message)
            case c.Lease():
                self._jobs.take_lease(message)
            case c.Drain(on):
                self._fact(c.Drain(on or bool(self._leaving)))
            case c.Stop():
                self.leave("the master asked")
            case c.Refused():
                raise NimbusError(f"the master refuses this node: {message.error}")

    # --- compute workers ---

    async def _receive(self) -> None:
        while True:
            self._worker_said(await self._workers.receive())

    def _worker_said(self, message: m.Message) -> None:
        match message:
            case m.WorkerHello(worker, pid) if is_spare(worker):
                log.info("%s said hello from pid %d", worker, pid)
                self._workers.tell(message)
            case m.Warm(spare):
                log.info("%s is warm, pid %d", spare, self._workers.pid(spare))
                self._workers.tell(message)
            case m.WorkerHello(worker, pid, version):
                log.info("worker %s said hello from pid %d, nimbusd %s", worker, pid, version)
                self.ready.set()
                self._workers.tell(message)
                if self._leaving:
                    self._order([n.RecallWorker(worker)])
                else:
                    self._fact(n.WorkerWaits(worker, self._workers.slot_of(worker).renders))
            case m.Ready(worker, device):
                self._order([events.WorkerUp(worker, self._workers.pid(worker), device)])
                self._devices.add(device)
                self._workers.tell(message)
            case m.Beat(worker, attempt, stage):
                self._unfinished.began(worker, attempt)
                self._workers.tell(p.BeatSeen(worker, busy=True))
                if stage == "load":
                    self._workers.tell(p.EpisodeBegan(worker))
                self._fact(message)
                began = events.StageBegan(worker, attempt.key.scene, attempt.key.index, attempt.number, stage)
                if self._stages.get(worker) != began:  # a beat tells of the stage again
                    self._stages[worker] = began
                    self._order([began])
            case m.EpisodePlanned() | m.EpisodeStored() | m.AttemptFailed():
                self._unfinished.ended(message.worker, message.attempt)
                if isinstance(message, m.EpisodeStored):
                    key = message.attempt.key
                    log.debug("%s/%d is stored in %s", key.scene, key.index, message.piece.folder)
                self._fact(message)
                # That is progress, and if it was the worker's last episode, it owes nothing more.
                self._workers.tell(p.BeatSeen(message.worker, self._machine.busy(message.worker)))
            case m.WorkerPulls() | m.WorkerReturns():
                self._fact(message)
            case m.Fatal(job=job, error=error):
                self._workers.tell(message)
                self._jobs.cannot_run(job, error)
            case m.WorkerBye(worker):
                self._workers.said_bye(worker)
            case m.Assign() | m.MakeEpisode() | m.Leave() | m.Prepare() | m.TakePlace():
                log.warning("worker sent %s, which only a daemon may send", type(message).__name__)

    # --- facts and orders ---

    def _fact(self, fact: n.NodeFact) -> None:
        self._order(self._machine.handle(fact, self._clock()))

    def _order(self, orders: Iterable[_Order]) -> None:
        self._orders.extend(orders)
        self._wake.set()

    async def _carry_out(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._orders.extend(self._machine.settle(self._clock()))
            while self._orders:
                await self._perform(self._orders.popleft())
            self._end_if_done()

    async def _perform(self, order: _Order) -> None:
        match order:
            case m.MakeEpisode(worker):
                self._workers.tell(p.LeaseSent(worker))
                await self._workers.send(worker, order)
            case n.AssignJob(worker, job, role):
                spec = self._jobs[job]
                self._unfinished.works_on(worker, spec.output)
                if self._workers.assign(worker, job, spec):
                    plans = (str(self._folders.memory), str(self._folders.disk))
                    output, open_s = str(spec.output), spec.limits.open_timeout_s
                    environment = self._jobs.environment(job)
                    assignment = m.Assign(spec.to_dict(), output, open_s, role.value, plans, environment)
                    await self._workers.send(worker, assignment)
            case n.RecallWorker(worker, why):
                if why:
                    log.info("worker %s makes room for a new one: %s", worker, why)
                self._workers.tell(order)
                await self._workers.send(worker, m.Leave())
            case n.StopWorker():
                self._workers.tell(order)
            case n.DropPiece(job, folder):
                why = "it belongs to an attempt that was given up"
                dropping = asyncio.to_thread(throw_away, self._jobs[job].output, folder, why, time.time())
                self._group.create_task(dropping)  # the master hears of us also while storage hangs
            case n.DropPlan(path):
                await asyncio.to_thread(_remove_file, Path(path))
            case p.ReportLost():
                self._lost(order)
            case p.CannotOpen(job, detail):
                self._jobs.cannot_run(job, detail)
            case p.GiveUp(detail):
                raise NimbusError(f"no compute worker can run here: {detail}")
            case events.WorkerUp() | events.StageBegan():
                self._watch(order)
            case c.Heartbeat():
                self._link.send(dataclasses.replace(order, load=self._meter.load()))
            case c.Commit() | c.Fail() | c.GiveBack():
                self._link.send(order)
            case _:
                await self._workers.perform(order, self._jobs.__getitem__)

    # --- the ends of workers ---

    def _lost(self, order: p.ReportLost) -> None:
        evidence = "\n".join(filter(None, (self._workers.last_words(order.worker), order.stack)))
        failure = Failure(order.stage, order.reason, order.detail, evidence)
        self._stages.pop(order.worker, None)
        if pieces := self._unfinished.left_by(order.worker):
            self._group.create_task(asyncio.to_thread(remove_pieces, pieces))
        if order.failed:
            self._watch(events.WorkerDown(order.worker, failure))
        self._fact(n.WorkerGone(order.worker, failure.plain()))

    def _send_home(self) -> None:
        """Ask every worker to leave once it has finished what it has begun."""
        self._workers.tell(p.StopAsked())
        self._order([n.RecallWorker(worker) for worker in self._workers.present()])

    def _end_if_done(self) -> None:
        """The end: nobody works any more, and the master has acknowledged all that was made, or does not answer."""
        if not self._leaving or self._workers.alive():
            return
        if self._worked_until is None:
            self._worked_until = self._clock()
        if self._machine.idle():
            self._over.set()
        elif self._clock() - self._worked_until > ACKNOWLEDGED_WITHIN_S:
            log.warning("leaving without an answer from the master: what it has not acknowledged is made again")
            self._over.set()


def _remove_file(path: Path) -> None:
    path.unlink(missing_ok=True)
