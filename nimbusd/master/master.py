"""The master: jobs in, leases out, commits into the ledger, datasets published.

The decisions are `Scheduler`'s; this is the shell around it. Facts of one turn of the event loop are given to it
together. What it orders is carried out in order, each batch after its ledger entries are durable: nothing is
acknowledged, or leased, that a crash could forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from nimbusd import events
from nimbusd.config import PUBLISH_MEMORY_SHARE
from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.master import facts as f
from nimbusd.core.master.nodes import DEAD_AFTER_S, EXPECTED, HEARTBEAT_S
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.core.records import (
    JobRecorded,
    JobRow,
    JobState,
    LeaseClosed,
    LeaseOpened,
    LedgerEntry,
    Record,
    SceneHistory,
    State,
)
from nimbusd.job import Job
from nimbusd.master.feed import Feed
from nimbusd.master.intake.jobs import ENDED, Intake
from nimbusd.master.intake.review import SEEN_WITHIN_S, Review
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.output.outputs import Outputs
from nimbusd.master.publish.publisher import PUBLISH_EVERY_S, Publisher
from nimbusd.stages.errors import NimbusError
from nimbusd.transport.messages import control as c
from nimbusd.transport.messages.bounds import MOST_DETAIL, plain_text

log = logging.getLogger(__name__)

TICK_S = 0.1
SPEC_EVERY_S = 0.05
"""A node that asks for descriptions more often has to ask again."""
_LEDGER = (Record, LeaseOpened, LeaseClosed, JobRecorded)

MOST_LOST = 1_000
"""Nodes that are gone, and still told of."""

JobWatcher: TypeAlias = Callable[[str, events.Event], None]
Send: TypeAlias = Callable[[NodeId, c.ToNode], None]


@dataclass(slots=True)
class OpenJob:
    """The shell's notes on a job that is not over. commits: the times at which the last episodes were settled."""

    job: Job
    row: JobRow
    began: float
    why: str = ""
    unpublished: str = ""
    """The reason why it cannot be published, which is tried again."""
    publishing: asyncio.Task[Path | None] | None = None
    """Its last publish, once all is settled; who cancels it gives up publishing."""
    commits: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class KnownNode:
    """The shell's notes on a node, beyond what the scheduler needs."""

    hello: c.Hello
    load: c.Load | None = None
    heard_at: float = 0.0
    running: tuple[c.Running, ...] = ()
    pipelines: tuple[c.PipelineReport, ...] = ()
    done: int = 0
    lost: str = ""
    specs: set[str] = field(default_factory=set)
    """Jobs whose description it was sent."""
    spec_due_at: float = 0.0
    """Before that it gets no description that it asks for."""


class Master:
    """A master over the ledger in `state`. `send` takes messages to nodes; it never blocks."""

    def __init__(
        self,
        ledger: LedgerThread,
        send: Send,
        watch: JobWatcher | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        heartbeat_s: float = HEARTBEAT_S,
        dead_after_s: float = DEAD_AFTER_S,
        publish_every_s: float = PUBLISH_EVERY_S,
        seen_within_s: float = SEEN_WITHIN_S,
        publish_memory_share: float = PUBLISH_MEMORY_SHARE,
    ) -> None:
        self.ledger = ledger
        self._send = send
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._watch = watch
        self.scheduler = Scheduler(ledger.epoch, dead_after_s)
        self.feed = Feed(ledger.epoch)
        self.open: dict[JobId, OpenJob] = {}
        self.ends: Counter[JobId] = Counter()
        self.nodes: dict[NodeId, KnownNode] = {}
        self._lost: dict[NodeId, None] = {}
        """The last of `nodes` that were lost, the latest at the end. One that came back may still be in it."""
        self.news = asyncio.Event()
        self._publisher = Publisher(ledger, self._tell_published, publish_every_s, publish_memory_share)
        self._outputs = Outputs(ledger, self.fact)
        self.intake = Intake(ledger, self._outputs, self.scheduler, self.open, self._begin, self._set_down, self.fact)
        self._review = Review(self.scheduler, self.open, self.fact, ledger.let_through, clock, seen_within_s)
        self._ending: dict[JobId, asyncio.Task[None]] = {}
        self._unanswered: set[NodeId] = set()
        """Nodes that told of pieces of jobs that were not taken on yet."""
        self._orders: list[f.Order] = []
        self._batches: deque[_Batch] = deque()
        self._turn_due = False
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready = asyncio.Event()

    # --- life ---

    async def run(self) -> None:
        """Serve until cancelled. `ready` is set as soon as jobs may be submitted."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                group.create_task(self._publisher.run(self.open))
                group.create_task(self._outputs.watch())
                group.create_task(self.ledger.failure())
                group.create_task(self._stop_at_fault())
                self.ready.set()
                while True:
                    await asyncio.sleep(TICK_S)
                    self._later()
            finally:
                self._review.close()
                self._outputs.close()

    async def resume(self) -> None:
        """Go on with the jobs of the ledger. Nodes that were drained are so still."""
        for node in await self.ledger.call(lambda ledger: ledger.drained()):
            self.fact(f.NodeDrainAsked(node, True))
        await self.intake.resume(self._group)

    def _begin(
        self, row: JobRow, job: Job, plan: f.JobPlan, history: dict[str, SceneHistory], leases: list[LeaseOpened]
    ) -> None:
        """A job is open from now on. history, leases: what the ledger knows of it."""
        self.open[row.job] = OpenJob(job, row, self._clock())
        self._publisher.begin(row.job)
        for known in self.nodes.values():
            known.specs.discard(row.job)  # it may have other limits or another output than before
        counts = [scene.count for scene in history.values()]
        self.tell(
            row.job,
            events.JobStarted(
                job.name,
                str(job.output),
                job.total_episodes,
                sum(count.committed for count in counts),
                sum(count.failed for count in counts),
                sum(count.quarantined for count in counts),
                self.scheduler.nodes.slots(),
            ),
        )
        self.fact(f.JobAdded(plan, history, tuple(leases), JobState.RUNNING))
        for node in self._unanswered:
            self._send(node, c.SayHello(node))  # then it tells again what we could not judge
        self._unanswered.clear()

    async def _set_down(self, name: JobId) -> None:
        """Let go of an open job, which is to be taken on anew. Nodes stop what they do for it."""
        if (ending := self._ending.pop(name, None)) is not None:
            ending.cancel()
            await asyncio.wait([ending])
        self.fact(f.JobSetDown(name))
        await asyncio.sleep(0)  # the turn that records it
        await self.ledger.call_writing(lambda _: None)
        self.open.pop(name, None)
        self._publisher.forget(name)
        self._outputs.release(name)

    # --- facts ---

    def heard(self, message: c.FromNode) -> None:
        """A message of a node, whose name was checked against its key. Its texts may steer no terminal from here on."""
        now = self._clock()
        node = message.node
        match message:
            case c.Hello():
                known = self.nodes.get(node)
                again = known is not None and known.hello.session == message.session
                done = known.done if known is not None else 0
                due_at = known.spec_due_at if known is not None else 0.0
                hello = dataclasses.replace(message, packages={})  # which the scheduler has while the node is there
                self.nodes[node] = KnownNode(hello, heard_at=now, done=done, spec_due_at=due_at)
                if not again:
                    log.info("node %s joined: %d slots, %s", node, message.slots, message.version)
                self._send(node, self.welcome())
                self._send(node, c.Drain(self.scheduler.nodes.is_drained(node)))
            case c.Heartbeat():
                if (known := self.nodes.get(node)) is not None:
                    known.load, known.heard_at, known.running = message.load, now, message.running
                    known.pipelines = message.pipelines
            case c.Commit():
                with self._fail_stop():
                    self._review.take(message)
                return
            case c.NeedJob(job=job):
                # A description may be of megabytes, and asking for it costs nothing.
                if (known := self.nodes.get(node)) is not None and now >= known.spec_due_at:
                    known.spec_due_at = now + SPEC_EVERY_S
                    self._send_spec(node, job)
                return
            case c.Fail():
                message = dataclasses.replace(message, failure=message.failure.plain())
            case c.CannotRun():
                message = dataclasses.replace(message, error=plain_text(message.error, MOST_DETAIL))
            case c.Bye():
                message = dataclasses.replace(message, why=plain_text(message.why, MOST_DETAIL))
            case c.GiveBack():
                pass
        self.fact(message)

    def welcome(self) -> c.Welcome:
        """The answer to a node's Hello."""
        return c.Welcome(self.ledger.epoch, self._heartbeat_s, self.scheduler.nodes.dead_after_s)

    def is_alive(self, node: NodeId, besides: str) -> bool:
        """True where the node is at work, in another session than `besides`."""
        known = self.scheduler.nodes.get(node)
        return known is not None and known.session not in (besides, EXPECTED)

    def is_known(self, node: NodeId) -> bool:
        """True where the node is there, or is one of the latest that were lost."""
        return node in self.nodes or self.scheduler.nodes.get(node) is not None

    def _node_lost(self, node: NodeId) -> None:
        """Remember it with the latest that were lost: of names that never come again there may be any number."""
        self._lost.pop(node, None)
        self._lost[node] = None
        if len(self._lost) > MOST_LOST:
            oldest = next(iter(self._lost))
            del self._lost[oldest]
            if self.scheduler.nodes.get(oldest) is None:
                self.nodes.pop(oldest, None)

    def now(self) -> float:
        """The clock that all of the master's times are of, in seconds."""
        return self._clock()

    async def drain(self, node: NodeId, on: bool) -> None:
        """Give a node no more work, and have it give back what it has not begun; on=False: work again.

        Durable on return: it stays so when the master or the node is started again.
        """
        await self.ledger.call_writing(lambda ledger: ledger.set_drained(node, on))
        self.fact(f.NodeDrainAsked(node, on))
        self._send(node, c.Drain(on))

    def fact(self, fact: f.Fact) -> None:
        """Tell the scheduler something; what follows is carried out at the end of this turn of the event loop."""
        with self._fail_stop():
            self._orders += self.scheduler.handle(fact, self._clock())
        self._later()

    @contextlib.contextmanager
    def _fail_stop(self) -> Iterator[None]:
        """An error in here ends the master: orders may be lost, and the ledger alone knows the truth then.

        Callbacks of the event loop would only have it logged, and go on with what is no longer consistent.
        """
        try:
            yield
        except BaseException as error:
            if not self._fault.done():
                self._fault.set_exception(error)
            raise

    async def _stop_at_fault(self) -> None:
        await self._fault

    def _later(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        with self._fail_stop():
            self._settle()

    def _settle(self) -> None:
        self._turn_due = False
        orders, self._orders = self._orders, []
        orders += self.scheduler.settle(self._clock())
        if not orders:
            return
        entries = [order for order in orders if isinstance(order, _LEDGER) and not _is_end(order)]
        batch = _Batch(orders, durable=not entries)
        self._batches.append(batch)
        if entries:
            self.ledger.submit_nowait(entries, lambda: self._durable(batch))
        else:
            self._carry_out()

    def _durable(self, batch: _Batch) -> None:
        batch.durable = True
        with self._fail_stop():
            self._carry_out()

    def _carry_out(self) -> None:
        """Carry out batches in order, as far as they are durable."""
        while self._batches and self._batches[0].durable:
            for order in self._batches.popleft().orders:
                self._perform(order)

    # --- orders ---

    def _perform(self, order: f.Order) -> None:
        match order:
            case Record():
                self._settled(order)
            case c.Lease():
                known = self.nodes.get(order.node)
                if known is not None and order.job not in known.specs:
                    self._send_spec(order.node, order.job)
                self._send(order.node, order)
            case c.Revoke() | c.Ack() | c.SayHello():
                self._send(order.node, order)
            case f.CheckSettled():
                self._group.create_task(self._check_settled(order))
            case f.NodeLost(node, why, returned):
                if (known := self.nodes.get(node)) is not None:
                    known.lost = why if why != "restarted" else ""
                    self._node_lost(node)
                log.warning("node %s %s; %d episodes are pending again", node, why, returned)
            case JobRecorded():
                self._job_recorded(order)
            case f.JobWaits(name, waiting):
                self._waits(name, waiting)
            case f.PackagesChanged(name, before, now):
                log.warning("job %s goes on with other packages: %s, before %s", name, dict(now), dict(before))
                self.tell(name, events.EnvironmentChanged(before, now))
            case LeaseOpened() | LeaseClosed():
                pass

    def _send_spec(self, node: NodeId, job: JobId) -> None:
        known, opened = self.nodes.get(node), self.open.get(job)
        if known is not None and opened is not None:
            known.specs.add(job)
            self._send(node, c.JobSpec(job, opened.job.without_scenes().to_dict(), dict(opened.row.began_with)))

    async def _check_settled(self, order: f.CheckSettled) -> None:
        node, attempt = order.node, order.attempt
        key, index = attempt.key, (attempt.key.index,)
        if key.job in self.intake.held_up:
            self._unanswered.add(node)
            return
        row, committed = await self.ledger.call(lambda ledger: (ledger.job(key.job), ledger.committed_piece(key)))
        if row is None:
            # A ledger that was lost had it, perhaps as committed: it stays for who adopts what lies in the output.
            log.warning("node %s has piece %s, whose job is unknown here", node, order.folder)
            self._send(node, c.Ack(node, attempt.lease, index))
        elif committed is not None and committed.folder == order.folder:
            self._send(node, c.Ack(node, attempt.lease, index))
        else:
            log.warning("refused piece %s of %s: its attempt was fenced off", order.folder, node)
            self._send(node, c.Ack(node, attempt.lease, (), index))

    def _settled(self, record: Record) -> None:
        """Tell those who watch what a record means."""
        key, job = record.key, self.open.get(record.key.job)
        if job is None:
            return
        if (piece := record.piece) is not None:
            job.commits.append(self._clock())
            if (known := self.nodes.get(NodeId(record.node))) is not None:
                known.done += 1
            self._publisher.committed(key.job)
            self.tell(
                key.job,
                events.EpisodeCommitted(
                    key.scene, key.index, record.attempt, record.node, piece.frames, piece.timings_s
                ),
            )
        elif (failure := record.failure) is not None:
            job.reasons[failure.reason] = job.reasons.get(failure.reason, 0) + 1
            if record.state is State.FAILED:
                self.tell(key.job, events.EpisodeFailed(key.scene, key.index, failure))
            else:
                quarantined = record.state is State.QUARANTINED
                self.tell(key.job, events.AttemptLost(key.scene, key.index, record.attempt, failure, quarantined))

    def _job_recorded(self, order: JobRecorded) -> None:
        job = self.open.get(order.job)
        if job is None:
            return
        if order.environment:  # which changes neither the state nor why it is so
            began_with = job.row.began_with if job.row.environment else order.packages
            job.row = dataclasses.replace(
                job.row, environment=order.environment, packages=order.packages, began_with=began_with
            )
            return
        job.why = order.why
        if order.state in ENDED:
            self._ending[order.job] = self._group.create_task(self._end(order))
        elif order.state is JobState.PAUSED:
            log.error("job %s is paused: %s", order.job, order.why)
            self.tell(order.job, events.JobPaused(order.why))
        else:
            self.tell(order.job, events.JobResumed())

    def _waits(self, name: JobId, waiting: f.Waiting | None) -> None:
        if name not in self.open:
            return
        if waiting is None:
            self.tell(name, events.JobResumed())
        else:
            log.warning("job %s is waiting: %s", name, waiting.why)
            self.tell(name, events.JobWaiting(waiting.cause.value, waiting.why))

    async def _end(self, order: JobRecorded) -> None:
        """Publish for the last time, and only then call the job ended: a restart in between does it again."""
        job = self.open[order.job]
        job.publishing = self._group.create_task(self._publish_last(order.job, job.job))
        dataset = None
        try:
            dataset = await job.publishing
        except asyncio.CancelledError:
            own_task = asyncio.current_task()
            if own_task is None or own_task.cancelling():  # it is us who are to end, not the publishing alone
                raise
            order = dataclasses.replace(order, state=JobState.CANCELLED, why=_unpublished(job))
        await self.ledger.submit([order])
        ended = await self.summary(order.job, order.state.value, order.why, dataset)
        self.ends[order.job] += 1
        del self.open[order.job]
        self._ending.pop(order.job, None)
        self._publisher.forget(order.job)
        self._outputs.release(order.job)
        self.tell(order.job, ended)

    async def _publish_last(self, name: JobId, job: Job) -> Path | None:
        try:
            await self._outputs.clear(name)
        except (OSError, NimbusError) as error:  # leftovers of no use to anybody: they go another time
            log.warning("%s: leftover pieces stay: %s", name, error)
        return await self._publisher.publish_last(name, job)

    def give_up_publishing(self, name: JobId) -> bool:
        """End a job of which nothing but its publishing is left, as cancelled. False if it is not such a job."""
        job = self.open.get(name)
        return job is not None and job.publishing is not None and job.publishing.cancel()

    async def publish_now(self, name: JobId) -> Path | None:
        """Publish what an open job has committed so far."""
        return await self._publisher.publish(name, self.open[name].job, final=False)

    async def summary(self, name: JobId, status: str, why: str, dataset: Path | None) -> events.JobEnded:
        """An open job in figures, from the ledger."""
        job = self.open[name]

        def read(ledger: Ledger) -> events.JobEnded:
            total = ledger.totals(name)
            not_made: Counter[str] = Counter()
            for failure in ledger.failures(name):
                not_made[failure.reason] += failure.episodes
            return events.JobEnded(
                name,
                status,
                total.committed,
                total.failed,
                total.quarantined,
                job.job.total_episodes,
                None if dataset is None else str(dataset),
                self._clock() - job.began,
                why,
                dict(not_made),
            )

        return await self.ledger.call(read)

    def _tell_published(self, name: str, event: events.Event) -> None:
        """Pass on what the publisher tells, and note whether the job can be published."""
        job = self.open.get(JobId(name))
        failed = event if isinstance(event, events.PublishFailed) else None
        if job is not None:
            job.unpublished = "" if failed is None else failed.why
        self.tell(name, event)
        if failed is not None and failed.final:
            self.tell(name, events.JobPaused(failed.why))

    def tell(self, job: str, event: events.Event) -> None:
        """Let everybody who watches know."""
        self.feed.add(job, event)
        self.news.set()
        self.news = asyncio.Event()
        if self._watch is not None:
            self._watch(job, event)


@dataclass(slots=True)
class _Batch:
    orders: list[f.Order]
    durable: bool


def _unpublished(job: OpenJob) -> str:
    """The reason of a job that is cancelled since its publishing was given up."""
    return "cancelled while it was being published" + (f": {job.unpublished}" if job.unpublished else "")


def _is_end(order: LedgerEntry | f.Order) -> bool:
    return isinstance(order, JobRecorded) and order.state in ENDED
