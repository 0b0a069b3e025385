"""`nimbusctl run`: a master and a node in one process tree, on one event loop.

The same `Master` and `Node` as in a cluster; only the wire between them is a function call, and the ledger lies
in the job's output folder.
"""

from __future__ import annotations

import asyncio
import dataclasses
import getpass
import time
from collections.abc import Callable

from nimbusd import events
from nimbusd.config import MEMORY_SHARE
from nimbusd.core.episodes import JobId, JobRow, NodeId
from nimbusd.core.facts import DrainAsked, NodeLeft
from nimbusd.core.nodes import EXPECTED
from nimbusd.job import Job
from nimbusd.master.daemon import Master
from nimbusd.master.ledger import Ledger, LedgerError
from nimbusd.master.ledger_thread import LedgerThread
from nimbusd.master.output import claim_output, ledger_path
from nimbusd.stages.errors import NimbusError, out_of_groups
from nimbusd.transport import control as c
from nimbusd.worker.daemon import Node
from nimbusd.worker.memory import node_memory
from nimbusd.worker.slots import Slot

NODE = "local"


class JobRun:
    """One run of a job on this machine, from the ledger as it stands to the published dataset.

    slots: where compute workers run. watch: is told what happens. spares: processes to keep warm for slots that lose
    their worker. retry_quarantined: give episodes that were set aside another chance. `drain()` and `kill()` may be
    called from the event loop's thread at any time.
    """

    def __init__(
        self,
        job: Job,
        slots: tuple[Slot, ...],
        watch: events.Watcher,
        *,
        spares: int = 0,
        retry_quarantined: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._name = JobId(job.name)
        self._slots = slots
        self._spares = spares
        self._tell = watch
        self._retry_quarantined = retry_quarantined
        self._clock = clock
        self._node: Node | None = None
        self._ended: events.JobEnded | None = None
        self._over = asyncio.Event()
        self._stopped_because = ""
        self._drained = False

    async def run(self) -> events.JobEnded:
        """Make what is missing and publish. Raises NimbusError if the job cannot run here at all."""
        began = self._clock()
        path = ledger_path(self._job.output)
        with claim_output(self._job.output):
            pass  # says who works on it, if anybody does; the master claims it for good
        async with LedgerThread.opened(path) as ledger:
            await ledger.call(self._check)
            self._master = Master(ledger, self._to_node, self._watch, clock=self._clock)
            with out_of_groups(NimbusError):
                async with asyncio.TaskGroup() as group:
                    serving = group.create_task(self._master.run())
                    await self._master.ready.wait()
                    await self._master.intake.submit(self._row(), self._job, retry=self._retry_quarantined)
                    # The node of an earlier run died with it: nobody comes back for its leases.
                    self._master.fact(NodeLeft(NodeId(NODE), EXPECTED, "ended"))
                    await self._work(group)
                    serving.cancel()
            ended = self._ended or await self._cut_short(self._clock() - began)
        self._tell(dataclasses.replace(ended, elapsed_s=self._clock() - began))
        return ended

    def drain(self, why: str = "interrupted") -> None:
        """Finish the episodes that have begun, start none."""
        if not self._drained:
            self._drained = True
            self._tell(events.Draining(why))
            self._master.fact(DrainAsked())
            self._over.set()

    def kill(self) -> None:
        """Stop at once. What was not committed is made again by the next run."""
        if self._node is not None:
            self._node.kill()

    # --- the two halves ---

    async def _work(self, group: asyncio.TaskGroup) -> None:
        """Have a node work until the job is over; none is started if nothing is missing."""
        if self._name not in self._master.scheduler.tasks.jobs:
            await self._over.wait()
            return
        memory_bytes = int(MEMORY_SHARE * node_memory().limit_bytes)
        self._node = Node(
            NODE,
            self._slots,
            _Wire(self._to_master),
            self._tell,
            memory_bytes=memory_bytes,
            spares=self._spares,
            clock=self._clock,
        )
        self._node.say_hello()
        working = group.create_task(self._node.run())
        await self._over.wait()
        self._node.leave("the run is over")
        await working

    def _to_node(self, _: NodeId, message: c.ToNode) -> None:
        if self._node is not None:
            asyncio.get_running_loop().call_soon(self._node.heard, message)

    def _to_master(self, message: c.FromNode) -> None:
        if isinstance(message, c.CannotRun):
            raise NimbusError(message.error)
        asyncio.get_running_loop().call_soon(self._master.heard, message)

    def _watch(self, _: str, event: events.Event) -> None:
        match event:
            case events.JobEnded():
                self._ended = event
                self._over.set()
            case events.JobPaused(why):
                self._stopped_because = f"{why}. Put that right and run the same command again."
                self.drain(self._stopped_because)
            case events.JobStarted():
                self._tell(dataclasses.replace(event, workers=len(self._slots)))
            case _:
                self._tell(event)

    # --- the ends ---

    def _check(self, ledger: Ledger) -> None:
        """An output folder belongs to one job."""
        for row in ledger.jobs():
            if row.job != self._name or row.fingerprint != self._job.fingerprint():
                raise LedgerError(
                    f"{ledger.path} belongs to job {row.job!r} with other scenes, seed or pipeline than "
                    f"{self._name!r} has now. Choose another --output, or restore the job file to resume."
                )

    def _row(self) -> JobRow:
        job = self._job
        return JobRow(
            job=self._name,
            fingerprint=job.fingerprint(),
            spec=job.to_dict(),
            user=getpass.getuser(),
            priority=0,
            max_nodes=0,
            dynload=True,
            environment="",
            submitted_unix_s=time.time(),
        )

    async def _cut_short(self, elapsed_s: float) -> events.JobEnded:
        """How a run ended that was asked to stop: published as far as it is."""
        dataset = await self._master.publish_now(self._name)
        status = "stopped" if self._stopped_because else "interrupted"
        ended = await self._master.summary(self._name, status, self._stopped_because, dataset)
        return dataclasses.replace(ended, elapsed_s=elapsed_s)


class _Wire:
    """The node's link to a master in the same process."""

    def __init__(self, send: Callable[[c.FromNode], None]) -> None:
        self._send = send

    def send(self, message: c.FromNode) -> None:
        self._send(message)
