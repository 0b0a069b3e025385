"""The master: jobs in, leases out, commits into the ledger, datasets published.

The decisions are `Scheduler`'s; this is the shell around it. Facts of one turn of the event loop are given to it
together. What it orders is carried out in order, each batch after its ledger entries are durable: nothing is
acknowledged, or leased, that a crash could forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from nimbusd import events, wire
from nimbusd.core import facts as f
from nimbusd.core.episodes import (
    EpisodeKey,
    JobId,
    JobRecorded,
    JobRow,
    JobState,
    LeaseClosed,
    LeaseOpened,
    LedgerEntry,
    NodeId,
    Record,
    SceneHistory,
    State,
)
from nimbusd.core.nodes import DEAD_AFTER_S, EXPECTED, HEARTBEAT_S
from nimbusd.core.scheduler import Scheduler
from nimbusd.job import Job
from nimbusd.master.feed import Feed
from nimbusd.master.intake import ENDED, TRY_AGAIN_S, Intake
from nimbusd.master.ledger import Ledger
from nimbusd.master.ledger_thread import LedgerThread
from nimbusd.master.plan import plan_of
from nimbusd.master.publisher import PUBLISH_EVERY_S, Publisher
from nimbusd.stages.errors import NimbusError
from nimbusd.transport import control as c

log = logging.getLogger(__name__)

TICK_S = 0.1
_LEDGER = (Record, LeaseOpened, LeaseClosed, JobRecorded)

JobWatcher: TypeAlias = Callable[[str, events.Event], None]
Send: TypeAlias = Callable[[NodeId, c.ToNode], None]


@dataclass(slots=True)
class OpenJob:
    """What the shell knows of a job that is not over. commits: when the last episodes were settled."""

    job: Job
    row: JobRow
    began: float
    why: str = ""
    unpublished: str = ""
    """Why it cannot be published, which is tried again."""
    commits: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class KnownNode:
    """What the shell knows of a node, beyond what the scheduler needs."""

    hello: c.Hello
    load: c.Load | None = None
    heard_at: float = 0.0
    running: tuple[c.Running, ...] = ()
    pipelines: tuple[c.Pipeline, ...] = ()
    done: int = 0
    lost: str = ""
    specs: set[str] = field(default_factory=set)
    """Jobs whose description it was sent."""


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
        self.news = asyncio.Event()
        self._publisher = Publisher(ledger, self.tell, publish_every_s)
        self.intake = Intake(ledger, self._publisher, self.scheduler, self.open, self._begin, self.fact)
        self._timings: dict[EpisodeKey, dict[str, float]] = {}
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
                group.create_task(self.ledger.failure())
                group.create_task(self._stop_at_fault())
                self.ready.set()
                while True:
                    await asyncio.sleep(TICK_S)
                    self._later()
            finally:
                self._publisher.close()

    async def resume(self) -> None:
        """Go on with the jobs of the ledger."""
        await self.intake.resume(self._group)

    def _begin(self, row: JobRow, job: Job, history: dict[str, SceneHistory], leases: list[LeaseOpened]) -> None:
        """A job is open from now on. history, leases: what the ledger knows of it."""
        self.open[row.job] = OpenJob(job, row, self._clock())
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
        self.fact(f.JobAdded(plan_of(row, job), history, tuple(leases), JobState.RUNNING))

    # --- facts ---

    def heard(self, message: c.FromNode) -> None:
        """A message of a node, whose name was checked against its key."""
        now = self._clock()
        node = NodeId(message.node)
        match message:
            case c.Hello():
                known = self.nodes.get(node)
                again = known is not None and known.hello.session == message.session
                done = known.done if known is not None else 0
                self.nodes[node] = KnownNode(message, heard_at=now, done=done)
                if not again:
                    log.info("node %s joined: %d slots, %s", node, message.slots, message.version)
                self._send(node, self.welcome())
            case c.Heartbeat():
                if (known := self.nodes.get(node)) is not None:
                    known.load, known.heard_at, known.running = message.load, now, message.running
                    known.pipelines = message.pipelines
            case c.Commit():
                for stored in message.stored:
                    key = EpisodeKey(JobId(message.job), message.scene, stored.index)
                    self._timings[key] = stored.timings_s
            case c.NeedJob(_, job):
                self._send_spec(node, JobId(job))
            case _:
                pass
        if (fact := wire.fact_from_node(message)) is not None:
            self.fact(fact)

    def welcome(self) -> c.Welcome:
        """The answer to a node's Hello."""
        return c.Welcome(self.ledger.epoch, self._heartbeat_s, self.scheduler.nodes.dead_after_s)

    def is_alive(self, node: NodeId, besides: str) -> bool:
        """Whether the node is at work, in another session than `besides`."""
        known = self.scheduler.nodes.get(node)
        return known is not None and known.session not in (besides, EXPECTED)

    def now(self) -> float:
        """The clock that all of the master's times are of, in seconds."""
        return self._clock()

    def drain(self, node: NodeId, on: bool) -> None:
        """Tell a node to give back what it has not begun; on=False: to go on."""
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
            case f.GrantLease():
                self._grant(order)
            case f.RevokeLease() | f.Acknowledge():
                self._send(order.node, wire.message_to_node(order, {}))
            case f.CheckSettled(key=key):
                self._timings.pop(key, None)
                self._group.create_task(self._check_settled(order))
            case f.AskHello(node):
                self._send(node, c.SayHello())
            case f.NodeLost(node, why, returned):
                if (known := self.nodes.get(node)) is not None:
                    known.lost = why if why != "restarted" else ""
                log.warning("node %s %s; %d episodes are pending again", node, why, returned)
            case JobRecorded():
                self._job_recorded(order)
            case LeaseOpened() | LeaseClosed():
                pass

    def _grant(self, order: f.GrantLease) -> None:
        entry = self.open[order.job].job.scene_entries[order.scene]
        known = self.nodes.get(order.node)
        if known is not None and order.job not in known.specs:
            self._send_spec(order.node, order.job)
        self._send(order.node, wire.message_to_node(order, entry))

    def _send_spec(self, node: NodeId, job: JobId) -> None:
        if (known := self.nodes.get(node)) is not None and job in self.open:
            known.specs.add(job)
            self._send(node, c.JobSpec(job, {**self.open[job].job.to_dict(), "scenes": []}))

    async def _check_settled(self, order: f.CheckSettled) -> None:
        committed = await self.ledger.call(lambda ledger: ledger.committed_piece(order.key))
        index = (order.key.index,)
        if committed is not None and committed.folder == order.folder:
            self._send(order.node, c.Ack(order.lease, index))
        else:
            log.warning("refused piece %s of %s: its attempt was fenced off", order.folder, order.node)
            self._send(order.node, c.Ack(order.lease, (), index))

    def _settled(self, record: Record) -> None:
        """What a record means to those who watch."""
        key, job = record.key, self.open.get(record.key.job)
        if job is None:
            return
        match record.state:
            case State.COMMITTED:
                job.commits.append(self._clock())
                if (known := self.nodes.get(NodeId(record.worker))) is not None:
                    known.done += 1
                self._publisher.committed(key.job)
                timings_s = self._timings.pop(key, {})
                self.tell(
                    key.job,
                    events.EpisodeCommitted(
                        key.scene, key.index, record.attempt, record.worker, record.frames, timings_s
                    ),
                )
            case State.FAILED:
                job.reasons[record.reason] = job.reasons.get(record.reason, 0) + 1
                self.tell(key.job, events.EpisodeFailed(key.scene, key.index, record.reason, record.detail))
            case State.PENDING | State.QUARANTINED if record.reason:
                job.reasons[record.reason] = job.reasons.get(record.reason, 0) + 1
                quarantined = record.state is State.QUARANTINED
                self.tell(
                    key.job,
                    events.AttemptLost(key.scene, key.index, record.attempt, record.reason, record.detail, quarantined),
                )
            case _:
                pass

    def _job_recorded(self, order: JobRecorded) -> None:
        job = self.open.get(order.job)
        if job is None or order.environment:  # which changes neither the state nor why it is so
            return
        job.why = order.why
        if order.state in ENDED:
            self._group.create_task(self._end(order))
        elif order.state is JobState.PAUSED:
            log.error("job %s is paused: %s", order.job, order.why)
            self.tell(order.job, events.JobPaused(order.why))
        else:
            self.tell(order.job, events.JobResumed())

    async def _end(self, order: JobRecorded) -> None:
        """Publish for the last time, and only then call the job ended: a restart in between does it again."""
        job = self.open[order.job]
        await self._publisher.sweep(order.job, job.job)
        while True:
            try:
                dataset = await self._publisher.publish(order.job, job.job, final=True)
                break
            except NimbusError as error:
                job.unpublished = str(error)
                log.error("job %s: %s", order.job, error)
                self.tell(order.job, events.JobPaused(str(error)))
                await asyncio.sleep(TRY_AGAIN_S)
        await self.ledger.submit([order])
        ended = await self.summary(order.job, order.state.value, order.why, dataset)
        self.ends[order.job] += 1
        del self.open[order.job]
        self._publisher.release(order.job)
        self.tell(order.job, ended)

    async def publish_now(self, name: JobId) -> Path | None:
        """Publish what an open job has committed so far."""
        return await self._publisher.publish(name, self.open[name].job, final=False)

    async def summary(self, name: JobId, status: str, why: str, dataset: Path | None) -> events.JobEnded:
        """An open job in figures, from the ledger."""
        job = self.open[name]

        def read(ledger: Ledger) -> events.JobEnded:
            total = ledger.totals(name)
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
                ledger.reasons(name),
            )

        return await self.ledger.call(read)

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


def _is_end(order: LedgerEntry | f.Order) -> bool:
    return isinstance(order, JobRecorded) and order.state in ENDED
