"""The compute workers of a node: the shell around `WorkerPool`, with their processes and the socket to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TypeAlias

from nimbusd.core.ids import JobId, WorkerId, slot_of
from nimbusd.core.node import pool_facts as p
from nimbusd.core.node.pool import WorkerPool
from nimbusd.core.node.spares import KillSpare, StartSpare
from nimbusd.job import Job
from nimbusd.machine.memory import node_memory
from nimbusd.node.folders import NodeFolders
from nimbusd.node.processes import START_TIMEOUT_S, ComputeProcesses, Ended
from nimbusd.node.slots import Slot, environment_of_place
from nimbusd.node.workers_socket import WorkersSocket
from nimbusd.transport.messages import local as m

log = logging.getLogger(__name__)

TICK_S = 0.2
BACKSTOP_S = 5.0
"""The daemon itself kills the silent this much later than the watchdog: time to replace a watchdog, and for a kill."""

WorkersOrder: TypeAlias = (
    p.SpawnWorker | p.TakeSpare | p.PrepareSpare | p.DismissWorker | p.KillWorker | StartSpare | KillSpare
)
"""The pool's orders that are carried out here. The others concern jobs and episodes."""


class ComputeWorkers:
    """The workers in `slots`, and the spares beside them.

    order: takes the pool's orders. Each WorkersOrder among them comes back to `perform`, in turn with other orders.
    memory_bytes: that all of them together may use; None: no limit. spares: the number of processes to keep warm.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        order: Callable[[Iterable[p.PoolOrder]], None],
        *,
        memory_bytes: int | None = None,
        spares: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._order = order
        self._clock = clock
        self._spares = spares
        self._pool = WorkerPool(slots, START_TIMEOUT_S, grace_s=BACKSTOP_S, spares=spares, memory_bytes=memory_bytes)
        self._processes = ComputeProcesses(self._process_ended, clock=clock)
        self._socket = WorkersSocket()

    # --- from start to end ---

    def open(self, folders: NodeFolders) -> None:
        """Make the socket, before anything is started."""
        endpoint = f"ipc://{folders.sockets}/node"
        slots = tuple(self._slots.values())
        self._processes.open(folders.sockets, folders.temporary, endpoint, slots, self._spares)
        self._socket.open(endpoint)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Fill every slot. group: runs what looks after each process, to its end."""
        self._group = group
        self._order(self._pool.start(self._clock()))

    def tasks(self) -> tuple[Coroutine[None, None, None], ...]:
        """The tasks to run as long as there are workers: a watchdog over them, and a look at their deadlines."""
        return self._processes.watch(), self._tick()

    def kill_all(self) -> None:
        """SIGKILL every worker, and start none from now on."""
        self._processes.kill_all()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # --- facts ---

    def tell(self, fact: p.PoolFact) -> None:
        """Tell the pool."""
        self._order(self._pool.handle(fact, self._clock()))

    def assign(self, worker: WorkerId, job: JobId, spec: Job) -> bool:
        """Tell the pool that a worker is given a job. False if it shall leave instead."""
        limits = spec.limits
        assigned = p.JobAssigned(
            worker, job, limits.open_timeout_s, limits.longest_silence_s(), limits.episode_timeout_s
        )
        orders = self._pool.handle(assigned, self._clock())
        self._order(orders)
        return not orders

    def _process_ended(self, fact: Ended) -> None:
        self._socket.forget(fact.spare if isinstance(fact, p.SpareGone) else fact.worker)
        self.tell(fact)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._spares:
                self.tell(p.MemorySeen(node_memory().used_bytes))
            self.tell(p.TimePassed())

    # --- what can be asked ---

    def alive(self) -> int:
        """Workers that were started and are not gone."""
        return self._pool.alive()

    def present(self) -> list[WorkerId]:
        """Workers and spares that have said hello and are not gone."""
        return self._socket.workers()

    def slot_of(self, worker: WorkerId) -> Slot:
        """The slot of a worker."""
        return self._slots[slot_of(worker)]

    def pid(self, worker: WorkerId) -> int:
        """Of a running worker; 0 if it does not run."""
        return self._processes.pid(worker)

    def last_words(self, worker: WorkerId) -> str:
        """The end of what a worker that is gone wrote on standard output and error; once."""
        return self._processes.last_words(worker)

    # --- messages ---

    async def receive(self) -> m.Message:
        """The next message from a worker."""
        return await self._socket.receive()

    async def send(self, worker: WorkerId, message: m.ToWorker) -> None:
        """Send a worker something; nothing happens if it is not there."""
        await self._socket.send(worker, message)

    def said_bye(self, worker: WorkerId) -> None:
        """All that the worker had to say has arrived."""
        self._processes.said_bye(worker)

    # --- orders ---

    async def perform(self, order: WorkersOrder, job_of: Callable[[JobId], Job]) -> None:
        """Carry out an order of the pool. job_of: a job by its name."""
        match order:
            case p.SpawnWorker(slot, worker, not_before):
                self._group.create_task(self._processes.look_after(self._slots[slot], worker, not_before))
            case p.TakeSpare(slot, worker, spare):
                await self._take_spare(self._slots[slot], worker, spare)
            case p.DismissWorker(worker):
                await self.send(worker, m.Leave())
            case p.PrepareSpare(spare, job):
                await self.send(spare, m.Prepare(job_of(job).to_dict()))
            case StartSpare(spare):
                self._group.create_task(self._processes.look_after_spare(spare))
            case KillSpare(spare, reason):
                log.info("killing %s: %s", spare, reason)
                self._processes.kill(spare)
            case p.KillWorker(worker, reason):
                log.warning("killing worker %s: %s", worker, reason)
                self._processes.kill(worker)

    async def _take_spare(self, slot: Slot, worker: WorkerId, spare: WorkerId) -> None:
        if self._processes.take(spare, worker):
            log.info("%s takes the place of worker %s", spare, worker)
            place = m.TakePlace(worker, slot.device, slot.cpus, dict(environment_of_place(slot)))
            await self.send(spare, place)
            self._socket.forget(spare)
        else:
            self._group.create_task(self._processes.look_after(slot, worker, self._clock()))
