"""The parts of stories of the scheduler: jobs, leases, and a scheduler with a clock."""

from __future__ import annotations

from collections.abc import Sequence

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span, indexes_of
from nimbusd.core.master.facts import (
    AttemptFailed,
    Fact,
    GrantLease,
    HeartbeatSeen,
    JobAdded,
    JobPlan,
    NodeSeen,
    Order,
    PiecesStored,
    RunningEpisode,
    ScenePlan,
    StoredPiece,
)
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.core.records import JobRecorded, JobState, LeaseOpened, Record, SceneHistory

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
JOB, OTHER = JobId("job"), JobId("other")


def plan(*scenes: ScenePlan, job: JobId = JOB, **more: object) -> JobPlan:
    return JobPlan(job, scenes, **more)  # type: ignore[arg-type]


def scene(name: str, wanted: int, hint: float = 1.0, exact: bool = False) -> ScenePlan:
    return ScenePlan(name, wanted, exact, 10 * wanted, hint)


def grants(orders: Sequence[Order], node: NodeId | None = None) -> list[GrantLease]:
    return [order for order in orders if isinstance(order, GrantLease) and node in (None, order.node)]


def places(orders: Sequence[Order]) -> list[tuple[str, int]]:
    """Scene and index of every episode that is leased."""
    return [(lease.scene, i) for lease in grants(orders) for i in indexes_of(lease.spans)]


def records(orders: Sequence[Order]) -> list[Record]:
    return [order for order in orders if isinstance(order, Record)]


def ended(orders: Sequence[Order]) -> list[JobState]:
    return [order.state for order in orders if isinstance(order, JobRecorded) and not order.environment]


class Story:
    """A scheduler, its clock, and what it has leased to whom so far."""

    def __init__(self, *plans: JobPlan, epoch: int = 1) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(epoch)
        self.held: dict[NodeId, dict[LeaseId, GrantLease]] = {}
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
        return self.tell(NodeSeen(node, session, environment, slots))

    def beat(self, node: NodeId, credit: int, running: Sequence[tuple[GrantLease, int, float]] = ()) -> list[Order]:
        self._seq += 1
        held = tuple(id for id in self.held.get(node, {}) if id in self.scheduler.tasks.leases)
        began = tuple(RunningEpisode(lease.lease, index, elapsed_s) for lease, index, elapsed_s in running)
        return self.tell(HeartbeatSeen(node, "1", self._seq, credit, held, began))

    def store(self, lease: GrantLease, *indexes: int, cost_s: float = 1.0) -> list[Order]:
        return self.tell(stored(lease, *indexes, cost_s=cost_s))

    def store_all(self, orders: Sequence[Order], cost_s: float = 1.0) -> list[Order]:
        after: list[Order] = []
        for lease in grants(orders):
            after += self.store(lease, *indexes_of(lease.spans), cost_s=cost_s)
        return after

    def only(self, node: NodeId) -> GrantLease:
        (lease,) = (self.held[node][id] for id in self.scheduler.tasks.held_by(node))
        return lease


def stored(lease: GrantLease, *indexes: int, cost_s: float = 1.0) -> PiecesStored:
    pieces = tuple(StoredPiece(i, f"{lease.scene}_{i}.{lease.attempt}", 1, 10, "d", cost_s) for i in indexes)
    return PiecesStored(lease.node, lease.lease, lease.job, lease.scene, lease.attempt, pieces)


def failed(
    lease: GrantLease, index: int, *, planned: bool = False, final: bool = False, blameless: bool = False
) -> AttemptFailed:
    key = EpisodeKey(lease.job, lease.scene, index)
    return AttemptFailed(
        lease.node, lease.lease, lease.attempt, key, "render", "crashed", "SIGSEGV", "", 1.0, planned, final, blameless
    )


def restarted(*leases: LeaseOpened, history: dict[str, SceneHistory] | None = None) -> tuple[Story, list[Order]]:
    story = Story(epoch=2)
    orders = story.tell(JobAdded(plan(scene("s", 4)), history or {}, leases))
    return story, orders


def opened(lease: int, node: NodeId, attempt: int, start: int, stop: int) -> LeaseOpened:
    return LeaseOpened(LeaseId(lease), JOB, "s", attempt, node, (Span(start, stop),))
