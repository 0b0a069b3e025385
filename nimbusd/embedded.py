"""`nimbusctl run`: a master and a node in one process tree, on one event loop.

The same `Master` and `Node` as in a cluster; only the wire between them is a function call, and the ledger lies
in the job's output folder.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from nimbusd import events
from nimbusd.config import MEMORY_SHARE
from nimbusd.core.environments import differences, environment_of
from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.master.facts import Cause, DrainAsked, EnvironmentAccepted
from nimbusd.core.master.nodes import EXPECTED
from nimbusd.job import Job
from nimbusd.machine.memory import node_memory
from nimbusd.master.intake.rebuild import row_of
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.master import Master
from nimbusd.master.output.folder import claim_output, ledger_path, owner_of
from nimbusd.master.output.owner import Whose, refusal
from nimbusd.master.publish.apart import NotPublished
from nimbusd.node.environment import environment
from nimbusd.node.node import Node
from nimbusd.node.slots import Slot
from nimbusd.stages.errors import NimbusError, out_of_groups
from nimbusd.transport.messages import control as c

NODE = "local"


class JobRun:
    """One run of a job on this machine, from the ledger as it stands to the published dataset.

    slots: where compute workers run. watch: is told what happens. spares: processes to keep warm for slots that lose
    their worker. retry_quarantined: give episodes that were set aside another chance. adopt: take over what lies in the
    output also if a newer state of its ledger was there, or it is of the same seed and component versions only.
    accept_environment: go on with the packages of this machine, though the job began with others.
    `drain()` and `kill()` may be called from the event loop's thread at any time.
    """

    def __init__(
        self,
        job: Job,
        slots: tuple[Slot, ...],
        watch: events.Watcher,
        *,
        spares: int = 0,
        retry_quarantined: bool = False,
        adopt: bool = False,
        accept_environment: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._name = JobId(job.name)
        self._slots = slots
        self._spares = spares
        self._tell = watch
        self._retry_quarantined = retry_quarantined
        self._adopt = adopt
        self._accept_environment = accept_environment
        self._clock = clock
        self._node: Node | None = None
        self._ended: events.JobEnded | None = None
        self._over = asyncio.Event()
        self._stopped_because = ""
        self._drained = False
        self._publishing: asyncio.Task[Path | None] | None = None

    async def run(self) -> events.JobEnded:
        """Make what is missing and publish. Raises NimbusError if the job cannot run here at all."""
        began = self._clock()
        path = ledger_path(self._job.output)
        with claim_output(self._job.output):  # says who works on it, if anybody does; the master claims it for good
            mark = owner_of(self._job.output)
            if mark is not None and mark.job != self._job.name:  # before a ledger of ours is there
                raise refusal(self._job.output, mark, Whose.OTHER_JOB, self._job.name)
        async with LedgerThread.opened(path) as ledger:
            await ledger.call(self._check)
            self._master = Master(ledger, self._to_node, self._watch, clock=self._clock)
            with out_of_groups(NimbusError):
                async with asyncio.TaskGroup() as group:
                    serving = group.create_task(self._master.run())
                    await self._master.ready.wait()
                    await self._master.intake.submit(
                        row_of(self._job), self._job, retry=self._retry_quarantined, adopt=self._adopt
                    )
                    # The node of an earlier run died with it: nobody comes back for its leases.
                    self._master.fact(c.Bye(NodeId(NODE), EXPECTED, "ended"))
                    await self._work(group)
                    ended = self._ended or await self._cut_short()
                    serving.cancel()
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
        if self._publishing is not None:
            self._publishing.cancel()

    # --- the two halves ---

    async def _work(self, group: asyncio.TaskGroup) -> None:
        """Have a node work until the job is over; none is started if nothing is missing."""
        if self._name not in self._master.scheduler.tasks.jobs:
            await self._over.wait()
            return
        if self._accept_environment:
            here = environment()
            self._master.fact(EnvironmentAccepted(self._name, here.hash, here.packages))
        if self._is_of_another_environment():
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

    def _is_of_another_environment(self) -> bool:
        """True where the job began with other packages, which stops this run: nothing here would ever change that."""
        job = self._master.scheduler.tasks.jobs[self._name]
        everything = environment()
        here = environment_of(everything.packages, job.plan.counting)
        if job.environment in ("", here.hash, everything.hash):
            return False
        differs = differences(job.packages, here.packages, "here")
        way_out = "Go on with --accept-environment, or install what the job began with and run the same command again"
        self._stopped_because = f"{differs}. {way_out}"
        self._tell(events.JobWaiting(Cause.ENVIRONMENT.value, self._stopped_because))
        self._master.fact(DrainAsked())
        return True

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
                self._tell(dataclasses.replace(event, slots=len(self._slots)))
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

    async def _cut_short(self) -> events.JobEnded:
        """End a run that was asked to stop: publish what there is, unless that failed or was under way."""
        job, dataset = self._master.open[self._name], None
        if job.publishing is None and not job.unpublished:
            self._publishing = asyncio.create_task(self._master.publish_now(self._name))
            try:
                dataset = await self._publishing
            except NotPublished:
                pass  # which was told
            except asyncio.CancelledError:
                own_task = asyncio.current_task()
                if own_task is None or own_task.cancelling():  # it is not that we were killed
                    raise
        status = "stopped" if self._stopped_because else "interrupted"
        return await self._master.summary(self._name, status, self._stopped_because, dataset)


class _Wire:
    """The node's link to a master in the same process."""

    def __init__(self, send: Callable[[c.FromNode], None]) -> None:
        self._send = send

    def send(self, message: c.FromNode) -> None:
        self._send(message)
