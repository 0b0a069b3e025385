"""The parts of stories of the scheduler: jobs, leases, and a scheduler with a clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nimbusd.core.ids import Attempt, EpisodeKey, JobId, LeaseId, NodeId, Span, indexes_of
from nimbusd.core.master.facts import Fact, JobAdded, JobPlan, Order, ScenePlan
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.core.records import JobRecorded, JobState, LeaseOpened, Record, SceneHistory
from nimbusd.transport.messages.failures import Failure, FailureKind
from nimbusd.transport.messages.node import Commit, Fail, Heartbeat, Hello, Lease, Running, Stored

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
JOB, OTHER = JobId("job"), JobId("other")


def plan(*scenes: ScenePlan, job: JobId = JOB, **more: object) -> JobPlan:
    return JobPlan(job, scenes, **more)  # type: ignore[arg-type]


def scene(name: str, wanted: int, hint: float = 1.0, exact: bool = False) -> ScenePlan:
    return ScenePlan(name, wanted, exact, 10 * wanted, hint)


def grants(orders: Sequence[Order], node: NodeId | None = None) -> list[Lease]:
    return [order for order in orders if isinstance(order, Lease) and node in (None, order.node)]


def places(orders: Sequence[Order]) -> list[tuple[str, int]]:
    """Scene and index of every episode that is leased."""
    return [(lease.scene, i) for lease in grants(orders) for i in indexes_of(lease.spans)]


def records(orders: Sequence[Order]) -> list[Record]:
    return [order for order in orders if isinstance(order, Record)]


def ended(orders: Sequence[Order]) -> list[JobState]:
    return [order.state for order in orders if isinstance(order, JobRecorded) and not order.environment]


class SchedulerStory:
    """A scheduler, its clock, and what it has leased to whom so far."""

    def __init__(self, *plans: JobPlan, epoch: int = 1) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(epoch)
        self.held: dict[NodeId, dict[LeaseId, Lease]] = {}
        self._seq = 0
        for each in plans:
            self.tell(JobAdded(each))

    def tell(self, *facts: Fact) -> list[Order]:
        orders: list[Order] = []
        for fact in facts:
            orders += self.scheduler.handle(fact, self.now)
        orders += self.scheduler.settle(self.now)
        for lease in grants(orders):
            self.held.setdefault(lease.node, {})[lease.lease] = lease
        return orders

    def pass_time(self, seconds: float) -> list[Order]:
        self.now += seconds
        return self.tell()

    def join(self, node: NodeId, slots: int = 1, environment: str = "e", session: str = "1") -> list[Order]:
        return self.tell(hello(node, session, environment, slots))

    def beat(self, node: NodeId, credit: int, running: Sequence[tuple[Lease, int, float]] = ()) -> list[Order]:
        self._seq += 1
        held = tuple(id for id in self.held.get(node, {}) if id in self.scheduler.tasks.leases)
        began = tuple(Running(lease.lease, index, "render", elapsed_s) for lease, index, elapsed_s in running)
        return self.tell(Heartbeat(node, "1", self._seq, credit, held, began))

    def store(self, lease: Lease, *indexes: int, cost_s: float = 1.0) -> list[Order]:
        return self.tell(stored(lease, *indexes, cost_s=cost_s))

    def store_all(self, orders: Sequence[Order], cost_s: float = 1.0) -> list[Order]:
        after: list[Order] = []
        for lease in grants(orders):
            after += self.store(lease, *indexes_of(lease.spans), cost_s=cost_s)
        return after

    def only(self, node: NodeId) -> Lease:
        (lease,) = (self.held[node][id] for id in self.scheduler.tasks.held_by(node))
        return lease


def stored(lease: Lease, *indexes: int, cost_s: float = 1.0) -> Commit:
    pieces = tuple(Stored(i, f"{lease.scene}_{i}.{lease.attempt}", 1, 10, "d", cost_s) for i in indexes)
    return Commit(lease.node, lease.lease, lease.job, lease.scene, lease.attempt, pieces)


def failed(lease: Lease, index: int, *, planned: bool = False, final: bool = False, blameless: bool = False) -> Fail:
    flags = {FailureKind.PLANNING: planned, FailureKind.FINAL: final, FailureKind.BLAMELESS: blameless}
    kind = next((kind for kind, is_set in flags.items() if is_set), FailureKind.COUNTED)
    attempt = Attempt(EpisodeKey(lease.job, lease.scene, index), lease.attempt, lease.lease)
    return Fail(lease.node, attempt, Failure("render", "crashed", "SIGSEGV", "", kind), 1.0)


def hello(node: NodeId, session: str, environment: str, slots: int, packages: Mapping[str, str] | None = None) -> Hello:
    return Hello(node, session, "0.1", environment, dict(packages or {}), slots, ())


def restarted(
    *leases: LeaseOpened, history: dict[str, SceneHistory] | None = None
) -> tuple[SchedulerStory, list[Order]]:
    story = SchedulerStory(epoch=2)
    orders = story.tell(JobAdded(plan(scene("s", 4)), history or {}, leases))
    return story, orders


def opened(lease: int, node: NodeId, attempt: int, start: int, stop: int) -> LeaseOpened:
    return LeaseOpened(LeaseId(lease), JOB, "s", attempt, node, (Span(start, stop),))
