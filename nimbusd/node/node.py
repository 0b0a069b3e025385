"""A node: compute workers in its slots, and a link to a master.

The decisions are `NodeMachine`'s and `WorkerPool`'s; this is the shell around them. Every fact (a message, an
exit, a tick) is given to the machines, and one task carries out what they order, in order.
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
from typing import Any, Protocol, TypeAlias

import zmq
import zmq.asyncio

from nimbusd import __version__, events
from nimbusd.core.environments import differing
from nimbusd.core.ids import JobId, NodeId, WorkerId
from nimbusd.core.node import facts as n
from nimbusd.core.node import pool_facts as p
from nimbusd.core.node.machine import NodeMachine
from nimbusd.core.node.pool import WorkerPool
from nimbusd.core.node.recycle import MB
from nimbusd.core.node.spares import KillSpare, StartSpare, is_spare
from nimbusd.job import Job
from nimbusd.master.output.trash import throw_away
from nimbusd.node.environment import LoadMeter, environment_hash, packages
from nimbusd.node.folders import FolderPlaces
from nimbusd.node.memory import node_memory
from nimbusd.node.processes import START_TIMEOUT_S, ComputeProcesses, Ended
from nimbusd.node.slots import Slot, environment_of_place
from nimbusd.node.unfinished import UnfinishedPieces, remove_pieces
from nimbusd.stages.errors import NimbusError, out_of_groups
from nimbusd.transport.messages import control as c
from nimbusd.transport.messages import local as m
from nimbusd.transport.messages.bounds import MOST_DETAIL, plain_text
from nimbusd.transport.messages.failures import Failure

log = logging.getLogger(__name__)

TICK_S = 0.2
ACKNOWLEDGED_WITHIN_S = 10.0
"""How long a node that leaves waits for the master to acknowledge what it made."""
BACKSTOP_S = 5.0
"""How much later than the watchdog the daemon itself kills the silent: the time to replace a watchdog, and a kill."""
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
        self._slots = {slot.name: slot for slot in slots}
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
        self._spares = spares
        self._pool = WorkerPool(
            self._slots, START_TIMEOUT_S, grace_s=BACKSTOP_S, spares=spares, memory_bytes=memory_bytes
        )
        self._jobs: dict[JobId, Job] = {}
        self._began_with: dict[JobId, dict[str, str]] = {}
        """The packages that jobs began with, as far as the master knows them."""
        self._unknown: dict[JobId, list[c.Lease]] = {}
        self._devices: set[str] = set()
        self._addresses: dict[WorkerId, bytes] = {}
        self._processes = ComputeProcesses(self._process_ended, clock=clock)
        self._unfinished = UnfinishedPieces()
        self._stages: dict[WorkerId, events.StageBegan] = {}
        self._unfit: dict[JobId, str] = {}
        self._orders: deque[_Order] = deque()
        self._wake = asyncio.Event()
        self._over = asyncio.Event()
        self._leaving = ""
        self._dropped_messages = 0
        self._meter = LoadMeter()
        self._worked_until: float | None = None
        self.ready = asyncio.Event()
        """A compute worker has started well: this node can work."""

    # --- what the owner may ask ---

    async def run(self) -> None:
        """Work until drained. Raises NimbusError if no compute worker can run here."""
        with self._places.folders() as self._folders:
            endpoint = f"ipc://{self._folders.sockets}/node"
            self._processes.open(
                self._folders.sockets, self._folders.temporary, endpoint, tuple(self._slots.values()), self._spares
            )
            context = zmq.asyncio.Context()
            self._socket = context.socket(zmq.ROUTER)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.MAXMSGSIZE, m.MAX_MESSAGE_BYTES)
            self._socket.bind(endpoint)
            try:
                with out_of_groups(NimbusError):
                    await self._run_tasks()
                self._link.send(c.Bye(self._name, self._session, plain_text(self._leaving, MOST_DETAIL)))
            finally:
                self.kill()
                self._socket.close()
                context.term()

    async def _run_tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            tasks = (self._processes.watch(), self._receive(), self._tick(), self._carry_out())
            helpers = [group.create_task(task) for task in tasks]
            self._order(self._pool.start(self._clock()))
            await self._over.wait()
            for helper in helpers:
                helper.cancel()

    def status(self) -> str:
        """What it does, in a line."""
        under_way = sum(1 for _ in self._machine.running(self._clock()))
        line = f"{under_way} episodes under way in {len(self._slots)} slots"
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
        self._processes.kill_all()

    def say_hello(self) -> None:
        """Introduce ourselves; on every connection, and when the master asks."""
        devices = tuple(sorted(self._devices))
        hello = c.Hello(
            self._name, self._session, __version__, environment_hash(), dict(packages()), len(self._slots), devices
        )
        self._link.send(hello)

    # --- the master ---

    def heard(self, message: c.ToNode) -> None:
        """A message from the master."""
        match message:
            case c.Welcome() | c.Revoke() | c.Ack():
                self._fact(message)
            case c.SayHello():
                self.say_hello()
            case c.JobSpec(job, spec, began_with):
                self._began_with[job] = began_with
                try:
                    told = Job.from_dict(spec)
                except NimbusError as refusal:  # of a master that knows other jobs than this node
                    self._unfit[job] = str(refusal)
                    self._tell_unfit(job)
                    return
                if self._jobs.get(job, told) != told:
                    self._unfit.pop(job, None)
                    self._fact(n.JobChanged(job))
                self._jobs[job] = told
                for lease in self._unknown.pop(job, ()):
                    self.heard(lease)
            case c.Lease(job=job):
                if job in self._unfit:  # the master forgot it, or never heard
                    self._tell_unfit(job)
                if job not in self._jobs:
                    self._unknown.setdefault(job, []).append(message)
                    self._link.send(c.NeedJob(self._name, job))
                    return
                known = self._jobs[job]
                growth_mb = known.limits.recycle_growth_mb
                growth_bytes = None if growth_mb is None else int(growth_mb * MB)
                self._fact(n.JobKnown(job, known.mode, known.planners, known.writers, growth_bytes))
                self._fact(message)
            case c.Drain(on):
                self._fact(c.Drain(on or bool(self._leaving)))
            case c.Stop():
                self.leave("the master asked")
            case c.Refused():
                raise NimbusError(f"the master refuses this node: {message.error}")

    # --- compute workers ---

    async def _receive(self) -> None:
        while True:
            address, *frames = await self._socket.recv_multipart()
            try:
                message = m.decode(frames[-1] if frames else b"")
            except m.MessageError as error:
                self._dropped_messages += 1
                log.warning("dropped message %d that is none of ours: %s", self._dropped_messages, error)
                continue
            self._worker_said(address, message)

    def _worker_said(self, address: bytes, message: m.Message) -> None:
        now = self._clock()
        match message:
            case m.WorkerHello(worker, pid) if is_spare(worker):
                self._addresses[worker] = address
                log.info("%s said hello from pid %d", worker, pid)
                self._pool_fact(p.SpareIntroduced(worker))
            case m.Warm(spare):
                log.info("%s is warm, pid %d", spare, self._processes.pid(spare))
                self._pool_fact(p.SpareWarm(spare))
            case m.WorkerHello(worker, pid, version):
                self._addresses[worker] = address
                log.info("worker %s said hello from pid %d, nimbusd %s", worker, pid, version)
                self.ready.set()
                self._pool.handle(p.WorkerIntroduced(worker), now)
                if self._leaving:
                    self._order([n.RecallWorker(worker)])
                else:
                    self._fact(n.WorkerWaits(worker, self._slot_of(worker).renders))
            case m.Ready(worker, device):
                self._order([events.WorkerUp(worker, self._processes.pid(worker), device)])
                self._devices.add(device)
                self._pool_fact(p.WorkerReady(worker))
            case m.Beat(worker, attempt, stage):
                self._unfinished.began(worker, attempt)
                self._pool.handle(p.BeatSeen(worker, busy=True), now)
                if stage == "load":
                    self._pool.handle(p.EpisodeBegan(worker), now)
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
                self._pool.handle(p.BeatSeen(message.worker, self._machine.busy(message.worker)), self._clock())
            case m.WorkerPulls() | m.WorkerReturns():
                self._fact(message)
            case m.Fatal(worker, job, error):
                self._pool.handle(p.LeaveAsked(worker), now)
                self._cannot_run(job, error)
            case m.WorkerBye(worker):
                self._processes.said_bye(worker)
            case m.Assign() | m.MakeEpisode() | m.Leave() | m.Prepare() | m.TakePlace():
                log.warning("worker sent %s, which only a daemon may send", type(message).__name__)

    def _cannot_run(self, job: JobId, error: str) -> None:
        log.error("job %s cannot run here: %s", job, error)
        self._unfit[job] = error
        self._tell_unfit(job)
        self._fact(n.JobUnfit(job))

    def _tell_unfit(self, job: JobId) -> None:
        self._link.send(c.CannotRun(self._name, job, plain_text(self._unfit[job], MOST_DETAIL)))

    def _slot_of(self, worker: WorkerId) -> Slot:
        return self._slots[worker.rpartition("#")[0]]

    # --- facts and orders ---

    def _fact(self, fact: n.NodeFact) -> None:
        self._order(self._machine.handle(fact, self._clock()))
        self._wake.set()

    def _pool_fact(self, fact: p.PoolFact) -> None:
        self._order(self._pool.handle(fact, self._clock()))

    def _order(self, orders: Iterable[_Order]) -> None:
        self._orders.extend(orders)
        self._wake.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._spares:
                self._pool.handle(p.MemorySeen(node_memory().used_bytes), self._clock())
            self._pool_fact(p.TimePassed())

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
                self._pool.handle(p.LeaseSent(worker), self._clock())
                await self._send(worker, order)
            case n.AssignJob(worker, job, role):
                limits, spec = self._jobs[job].limits, self._jobs[job]
                self._unfinished.works_on(worker, spec.output)
                assigned = p.JobAssigned(
                    worker, job, limits.open_timeout_s, limits.longest_silence_s(), limits.episode_timeout_s
                )
                if dismissed := self._pool.handle(assigned, self._clock()):
                    self._order(dismissed)
                    return
                plans = (str(self._folders.memory), str(self._folders.disk))
                output, open_s = str(spec.output), limits.open_timeout_s
                assignment = m.Assign(spec.to_dict(), output, open_s, role.value, plans, self._environment(job))
                await self._send(worker, assignment)
            case n.RecallWorker(worker, why):
                if why:
                    log.info("worker %s makes room for a new one: %s", worker, why)
                self._pool.handle(p.LeaveAsked(worker), self._clock())
                await self._send(worker, m.Leave())
            case n.StopWorker(worker, why):
                self._pool_fact(p.StopWanted(worker, why))
            case n.DropPiece(job, folder):
                why = "it belongs to an attempt that was given up"
                dropping = asyncio.to_thread(throw_away, self._jobs[job].output, folder, why, time.time())
                self._group.create_task(dropping)  # the master hears of us also while storage hangs
            case n.DropPlan(path):
                await asyncio.to_thread(_remove_file, Path(path))
            case p.SpawnWorker(slot, worker, not_before):
                self._group.create_task(self._processes.look_after(self._slots[slot], worker, not_before))
            case p.TakeSpare(slot, worker, spare):
                await self._take_spare(self._slots[slot], worker, spare)
            case p.DismissWorker(worker):
                await self._send(worker, m.Leave())
            case StartSpare(spare):
                self._group.create_task(self._processes.look_after_spare(spare))
            case p.PrepareSpare(spare, job):
                await self._send(spare, m.Prepare(self._jobs[job].to_dict()))
            case KillSpare(spare, reason):
                log.info("killing %s: %s", spare, reason)
                self._processes.kill(spare)
            case p.KillWorker(worker, reason):
                log.warning("killing worker %s: %s", worker, reason)
                self._processes.kill(worker)
            case p.ReportLost():
                self._lost(order)
            case p.CannotOpen(job, detail):
                self._cannot_run(job, detail)
            case p.GiveUp(detail):
                raise NimbusError(f"no compute worker can run here: {detail}")
            case events.WorkerUp() | events.StageBegan():
                self._watch(order)
            case c.Heartbeat():
                self._link.send(dataclasses.replace(order, load=self._meter.load()))
            case c.Commit() | c.Fail() | c.GiveBack():
                self._link.send(order)

    def _environment(self, job: JobId) -> dict[str, Any]:
        """What is recorded with episodes: the packages, and those that are others than the job began with."""
        environment: dict[str, Any] = {"hash": environment_hash(), "packages": dict(packages())}
        if began_with := self._began_with.get(job):
            before, now = differing(began_with, packages())
            if before or now:
                environment |= {"before": before, "now": now}
        return environment

    async def _send(self, worker: WorkerId, message: m.Message) -> None:
        if (address := self._addresses.get(worker)) is not None:
            await self._socket.send_multipart([address, m.encode(message)])

    # --- the ends of workers ---

    def _process_ended(self, fact: Ended) -> None:
        self._addresses.pop(fact.spare if isinstance(fact, p.SpareGone) else fact.worker, None)
        self._pool_fact(fact)

    async def _take_spare(self, slot: Slot, worker: WorkerId, spare: WorkerId) -> None:
        if self._processes.take(spare, worker):
            log.info("%s takes the place of worker %s", spare, worker)
            place = m.TakePlace(worker, slot.device, slot.cpus, dict(environment_of_place(slot)))
            await self._send(spare, place)
            self._addresses.pop(spare, None)
        else:
            self._group.create_task(self._processes.look_after(slot, worker, self._clock()))

    def _lost(self, order: p.ReportLost) -> None:
        evidence = "\n".join(filter(None, (self._processes.last_words(order.worker), order.stack)))
        failure = Failure(order.stage, order.reason, order.detail, evidence)
        self._stages.pop(order.worker, None)
        if pieces := self._unfinished.left_by(order.worker):
            self._group.create_task(asyncio.to_thread(remove_pieces, pieces))
        if order.failed:
            self._watch(events.WorkerDown(order.worker, failure))
        self._fact(n.WorkerGone(order.worker, failure.plain()))

    def _send_home(self) -> None:
        """Ask every worker to leave once it has finished what it has begun."""
        self._pool_fact(p.StopAsked())
        self._order([n.RecallWorker(worker) for worker in self._addresses])

    def _end_if_done(self) -> None:
        """The end: nobody works any more, and the master has acknowledged all that was made, or does not answer."""
        if not self._leaving or self._pool.alive():
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
