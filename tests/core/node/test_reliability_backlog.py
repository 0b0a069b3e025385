"""A slow consumer: planners far faster than renderers fill the backlog to its mark, and no further."""

from __future__ import annotations

from collections import Counter, deque

from nimbusd.core.ids import JobId, LeaseId, NodeId, Span, WorkerId
from nimbusd.core.node.facts import AssignJob, DropPlan, JobKnown, NodeFact, RecallWorker, WorkerWaits
from nimbusd.core.node.machine import NodeMachine
from nimbusd.core.node.roles import MOST_BACKLOG
from nimbusd.core.node.split import Mode
from nimbusd.transport.messages.node import Ack, Commit, Lease, Stored
from nimbusd.transport.messages.worker import Beat, EpisodePlanned, EpisodeStored, MakeEpisode, Plan, WorkerPulls
from tests.support.node_facts import gone

NODE, JOB, LEASE = NodeId("n"), JobId("job"), LeaseId(1)
PLANNER, RENDERER = WorkerId("cpu:0#1"), WorkerId("gpu:0.0#1")
EPISODES = 10_000
PLAN_BYTES = 1 << 20
SPILL_BYTES = 16 << 20


class Line:
    """A node with a slot that plans at once, and one that renders when it is told to."""

    def __init__(self, *, renders: bool) -> None:
        self.now = 0.0
        self.machine = NodeMachine(NODE, "1", 2, plan_only=1, spill_bytes=SPILL_BYTES)
        self.rendering: deque[MakeEpisode] = deque()
        self.planned: dict[str, bool] = {}
        """Files of plans: whether they were spilled to disk."""
        self.stored: Counter[int] = Counter()
        self.most_plans = self.most_memory_bytes = 0
        self.tell(WorkerWaits(PLANNER, renders=False), *([WorkerWaits(RENDERER)] if renders else []))
        self.tell(JobKnown(JOB, Mode.DECOUPLED), Lease(NODE, LEASE, JOB, "s", 1, (Span(0, EPISODES),)))

    def tell(self, *facts: NodeFact) -> None:
        todo = deque(facts)
        while todo:
            orders = self.machine.handle(todo.popleft(), self.now)
            orders += [] if todo else self.machine.settle(self.now)
            for order in orders:
                match order:
                    case AssignJob(worker):
                        todo.append(WorkerPulls(worker, 2))
                    case MakeEpisode(worker=worker) if worker == PLANNER:
                        todo += self._plan(order)
                    case MakeEpisode():
                        self.rendering.append(order)
                    case RecallWorker(worker):
                        todo += [gone(worker, "left"), WorkerWaits(worker, renders=worker == RENDERER)]
                    case DropPlan(path):
                        del self.planned[path]
                    case Commit(stored=pieces):
                        todo.append(Ack(NODE, LEASE, tuple(piece.index for piece in pieces)))
                    case _:
                        pass
            self.most_plans = max(self.most_plans, len(self.planned))
            in_memory = sum(not spilled for spilled in self.planned.values())
            self.most_memory_bytes = max(self.most_memory_bytes, in_memory * PLAN_BYTES)

    def _plan(self, order: MakeEpisode) -> list[NodeFact]:
        path = f"{order.attempt.key.index}.plan"
        self.planned[path] = order.spill
        plan = Plan(path, PLAN_BYTES, order.spill, cost_s=0.01)
        began = Beat(PLANNER, order.attempt, "plan")
        return [began, EpisodePlanned(PLANNER, order.attempt, plan), WorkerPulls(PLANNER, 1)]

    def render_one(self) -> None:
        """The renderer stores its next episode."""
        order = self.rendering.popleft()
        assert order.plan in self.planned, "rendered from a plan that is gone"
        self.now += 1.0
        index = order.attempt.key.index
        self.stored[index] += 1
        piece = Stored(index, f"s_{index}.1", 1, 10, "d", 1.0, {"store": 0.1})
        self.tell(Beat(RENDERER, order.attempt, "render"))
        self.tell(EpisodeStored(RENDERER, order.attempt, piece), WorkerPulls(RENDERER, 1))


def test_where_nobody_renders_planners_stop_at_the_high_water_mark() -> None:
    line = Line(renders=False)
    for _ in range(1_000):
        line.now += 1.0
        line.tell()
    assert 0 < len(line.planned) <= MOST_BACKLOG
    assert line.machine.plans() == len(line.planned)


def test_a_renderer_a_hundred_times_slower_than_the_planner_never_has_more_than_the_mark_before_it() -> None:
    line = Line(renders=True)
    while line.rendering:
        line.render_one()
    assert line.stored == Counter(range(EPISODES))
    assert 1 < line.most_plans <= MOST_BACKLOG + 2, "beyond those that wait: what the renderer has"
    assert line.most_memory_bytes <= SPILL_BYTES + 2 * PLAN_BYTES
    assert not line.planned, "plans were left behind"
    assert not any(line.machine.sizes().values())
