"""A virtual master: the real `Scheduler`, and the shell's rule that entries are durable before orders leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Protocol, TypeAlias

from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.master.facts import (
    CheckSettled,
    EnvironmentAccepted,
    EpisodesReleased,
    Fact,
    JobAdded,
    JobCancelled,
    JobPlan,
    JobWaits,
    NodeDrainAsked,
    NodeLost,
    Order,
    PackagesChanged,
)
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.core.records import JobRecorded, JobState, LeaseClosed, LeaseOpened, LedgerEntry, Record
from nimbusd.simulate.clock import Clock
from nimbusd.simulate.ledger import VirtualLedger
from nimbusd.simulate.node import ToNode
from nimbusd.transport.messages.node import Ack, Drain, Hello, Lease, Revoke, SayHello, Welcome

CARRY_OUT_S = 0.0005
"""From the end of a transaction until its orders leave: a crash may come in between."""


class Moment(Enum):
    """A moment at which a crash is the most interesting."""

    BEFORE_DURABLE = "before_durable"
    BEFORE_ORDERS = "before_orders"
    """Durable, but nobody has been told."""
    AMID_ORDERS = "amid_orders"
    """Some have been told."""


ENTRIES = (Record, LeaseOpened, LeaseClosed, JobRecorded)

_Step: TypeAlias = "Order | Callable[[], list[Order]] | _ToNode"
_ToNode: TypeAlias = tuple[NodeId, ToNode]


class Decider(Protocol):
    """A scheduler, or one that stands in for it in a comparison."""

    def handle(self, fact: Fact, now: float) -> list[Order]:
        """Take in a fact."""

    def settle(self, now: float) -> list[Order]:
        """Draw the consequences of the facts so far and of the time."""


class MasterWorld(Protocol):
    """The surroundings of a master."""

    clock: Clock
    dead_after_s: float
    heartbeat_s: float
    master_tick_s: float
    commit_s: float

    def tell_node(self, node: str, message: ToNode) -> None:
        """Send something to a node."""

    def master_is_up(self) -> None:
        """A master's process has started."""

    def decided(self) -> None:
        """The scheduler has been told something."""


class VirtualMaster:
    """A master that can crash at any moment. What it knows dies with it; the ledger stays."""

    def __init__(
        self, world: MasterWorld, ledger: VirtualLedger, decider: Callable[[int, float], Decider] = Scheduler
    ) -> None:
        self.scheduler: Decider | None = None
        self.up_since = 0.0
        self.losses = 0
        self._trap: tuple[Moment, float] | None = None
        self._world = world
        self._clock = world.clock
        self._ledger = ledger
        self._decider = decider
        self._drained: set[str] = set()
        self._queue: list[_Step] = []
        self._writing = False

    # --- life and death ---

    def start(self) -> None:
        """Start the master's process, from the ledger as it stands."""
        if self.scheduler is not None:
            return
        ledger = self._ledger
        ledger.epoch += 1
        self.up_since = self._clock.now
        self.scheduler = self._decider(ledger.epoch, self._world.dead_after_s)
        for node in sorted(self._drained):
            self._enqueue(self.scheduler.handle(NodeDrainAsked(NodeId(node), True), self._clock.now))
        for job, pages in ledger.jobs.items():
            if pages.state in (JobState.RUNNING, JobState.PAUSED):
                added = JobAdded(pages.plan, ledger.history(job), tuple(pages.leases.values()), pages.state)
                self._enqueue(self.scheduler.handle(added, self._clock.now))
        self._settle()
        self._clock.after(self._world.master_tick_s, self._tick, ledger.epoch)
        self._world.master_is_up()

    def crash(self) -> None:
        """The process dies; what was not durable is forgotten."""
        self.scheduler = None
        self._queue = []
        self._writing = False
        self._trap = None

    def crash_at(self, moment: Moment, down_s: float) -> None:
        """Crash at the next such moment, and come back."""
        self._trap = moment, down_s

    def spare(self) -> None:
        """Don't crash at a moment that has not come yet."""
        self._trap = None

    def is_settled(self) -> bool:
        """True where all that was decided is durable and carried out."""
        return not self._queue and not self._writing

    def _tick(self, epoch: int) -> None:
        if self.scheduler is not None and self._ledger.epoch == epoch:
            self._settle()
            self._clock.after(self._world.master_tick_s, self._tick, epoch)

    # --- facts and wishes ---

    def receive(self, fact: Fact) -> None:
        """A message from a node."""
        if self.scheduler is None:
            return
        self._enqueue(self.scheduler.handle(fact, self._clock.now))
        if isinstance(fact, Hello):
            welcome = Welcome(self._ledger.epoch, self._world.heartbeat_s, self._world.dead_after_s)
            self._enqueue([(fact.node, welcome), (fact.node, Drain(fact.node in self._drained))])
        self._settle()

    def submit(self, plan: JobPlan) -> None:
        """Run a job, or go on with it. Only called while the master is up, as the next three."""

        def add() -> list[Order]:
            pages = self._ledger.jobs.get(plan.job)
            if pages is not None and pages.state in (JobState.RUNNING, JobState.PAUSED):
                return []
            self._ledger.add(plan)
            return self._handle(JobAdded(self._ledger.jobs[plan.job].plan, self._ledger.history(plan.job)))

        self._enqueue([add])
        self._settle()

    def cancel(self, job: JobId) -> None:
        """End a job."""
        self._enqueue(self._handle(JobCancelled(job)))
        self._settle()

    def accept_environment(self, job: JobId) -> None:
        """Have a job go on with the packages that most slots have."""
        self._enqueue(self._handle(EnvironmentAccepted(job)))
        self._settle()

    def retry(self, job: JobId) -> None:
        """Give quarantined episodes another chance, of a job that has ended, too."""

        def release() -> list[Order]:
            pages = self._ledger.jobs.get(job)
            if pages is None:
                return []
            is_open = pages.state in (JobState.RUNNING, JobState.PAUSED)
            if is_open and not self._knows(job):  # its end is not durable yet
                self._enqueue([release])
                return []
            released = self._ledger.release_quarantined(job)
            if is_open:
                return self._handle(EpisodesReleased(job, released))
            self._ledger.add(pages.plan)
            return self._handle(JobAdded(pages.plan, self._ledger.history(job)))

        self._enqueue([release])
        self._settle()

    def drain(self, node: str, on: bool) -> None:
        """Give a node no more work, or work again."""
        (self._drained.add if on else self._drained.discard)(node)
        self._enqueue(self._handle(NodeDrainAsked(NodeId(node), on)))
        self._enqueue([(NodeId(node), Drain(on))])
        self._settle()

    def _knows(self, job: JobId) -> bool:
        return not isinstance(self.scheduler, Scheduler) or job in self.scheduler.tasks.jobs

    def _falls(self, moment: Moment) -> bool:
        """Crash if this is the moment to."""
        if self._trap is None or self._trap[0] is not moment:
            return False
        self._clock.after(self._trap[1], self.start)
        self.crash()
        return True

    # --- orders ---

    def _handle(self, fact: Fact) -> list[Order]:
        assert self.scheduler is not None
        return self.scheduler.handle(fact, self._clock.now)

    def _settle(self) -> None:
        assert self.scheduler is not None
        self._enqueue(self.scheduler.settle(self._clock.now))
        self._world.decided()
        if self._queue and not self._writing:
            self._write()

    def _enqueue(self, steps: Iterable[_Step]) -> None:
        self._queue.extend(steps)

    def _write(self) -> None:
        """Begin a transaction with everything that waits."""
        while self._queue and self._world.commit_s == 0:
            batch, self._queue = self._queue, []
            self._carry_out(self._make_durable(batch))
        if not self._queue:
            return
        batch, self._queue = self._queue, []
        self._writing = True
        entries = any(callable(step) or isinstance(step, ENTRIES) for step in batch)
        delay_s = self._world.commit_s if entries else 0.0
        self._clock.after(delay_s, self._written, batch, self._ledger.epoch)

    def _written(self, batch: list[_Step], epoch: int) -> None:
        if self.scheduler is None or self._ledger.epoch != epoch:
            return
        if self._falls(Moment.BEFORE_DURABLE):
            return
        orders = self._make_durable(batch)
        if not self._falls(Moment.BEFORE_ORDERS):
            self._clock.after(CARRY_OUT_S, self._leave, orders, epoch)

    def _leave(self, orders: list[_Step], epoch: int) -> None:
        if self.scheduler is None or self._ledger.epoch != epoch:
            return
        half = len(orders) // 2
        self._carry_out(orders[:half])
        if orders and self._falls(Moment.AMID_ORDERS):
            return
        orders = orders[half:]
        self._carry_out(orders)
        self._writing = False
        if self._queue:
            self._write()

    def _make_durable(self, batch: list[_Step]) -> list[_Step]:
        """Apply the ledger's part. Returns the rest."""
        rest: list[_Step] = []
        entries: list[LedgerEntry] = []
        for step in batch:
            if isinstance(step, ENTRIES):
                entries.append(step)
            elif callable(step):
                self._ledger.apply(entries)
                entries = []
                self._queue.extend(step())
            else:
                rest.append(step)
        if entries:
            self._ledger.apply(entries)
        return rest

    def _carry_out(self, orders: list[_Step]) -> None:
        tell = self._world.tell_node
        for order in orders:
            match order:
                case Lease(node=node) | Revoke(node=node) | Ack(node=node) | SayHello(node=node):
                    tell(node, order)
                case CheckSettled(node, attempt, folder):
                    key, index = attempt.key, (attempt.key.index,)
                    if self._ledger.is_committed(key.job, key.scene, key.index, folder):
                        tell(node, Ack(node, attempt.lease, index))
                    else:
                        tell(node, Ack(node, attempt.lease, (), index))
                case NodeLost():
                    self.losses += 1
                case JobWaits() | PackagesChanged():
                    pass  # for those who watch
                case (str() as node, message):
                    tell(node, message)
                case _:
                    raise AssertionError(f"{order} is no order")
