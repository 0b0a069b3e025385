"""Planners, renderers and the backlog between them, told as stories: who is given what, and when roles change."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.core.ids import JobId, LeaseId, NodeId, Span, WorkerId, slot_of, worker_of
from nimbusd.core.master.nodes import HEARTBEAT_S
from nimbusd.core.node.backlog import MOST_KEPT
from nimbusd.core.node.facts import (
    AssignJob,
    DropPlan,
    JobKnown,
    NodeFact,
    NodeOrder,
    RecallWorker,
    WorkerWaits,
)
from nimbusd.core.node.machine import NodeMachine
from nimbusd.core.node.roles import MOST_BACKLOG
from nimbusd.core.node.split import (
    Latency,
    Mode,
    Places,
    Role,
    best_planners,
    decoupled_rate,
    fused_rate,
    mode_to_have,
    planners_to_have,
)
from nimbusd.transport.messages.failures import Failure, FailureKind
from nimbusd.transport.messages.node import (
    Ack,
    Commit,
    Drain,
    Fail,
    GiveBack,
    Heartbeat,
    Lease,
    PipelineReport,
    Revoke,
    Stored,
)
from nimbusd.transport.messages.worker import (
    AttemptFailed,
    Beat,
    EpisodePlanned,
    EpisodeStored,
    MakeEpisode,
    Plan,
    WorkerPulls,
    WorkerReturns,
)
from tests.support.node_facts import gone, measured

NODE, JOB = NodeId("n"), JobId("job")


@dataclass
class Work:
    """The work of a worker of the story."""

    order: MakeEpisode
    ends_at: float


@dataclass
class StaffStory:
    """A node of workers that take their time: planning plan_s, rendering render_s, starting start_s."""

    slots: int = 3
    plan_only: int = 0
    mode: Mode = Mode.DECOUPLED
    plan_s: float = 1.0
    render_s: float = 1.0
    start_s: float = 0.5
    fail: frozenset[int] = frozenset()
    memory_bytes: int | None = None
    now: float = 0.0
    role: dict[WorkerId, Role] = field(default_factory=dict)
    at: dict[WorkerId, list[Work]] = field(default_factory=dict)
    leaving: set[WorkerId] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    stored: list[int] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    most_files: int = 0

    def __post_init__(self) -> None:
        self.machine = NodeMachine(
            NODE, "1", self.slots, plan_only=self.plan_only, memory_bytes=self.memory_bytes, spill_bytes=3000
        )
        self.generation = 0
        self.coming: list[tuple[float, str]] = []
        self.seen: list[PipelineReport] = []
        self.spilled = 0
        for number in range(self.slots):
            self.start(f"{'cpu' if number < self.plan_only else 'gpu'}:{number}")

    def start(self, slot: str) -> None:
        self.generation += 1
        worker = worker_of(slot, self.generation)
        self.at[worker] = []
        self.tell(WorkerWaits(worker, slot.startswith("gpu")))

    def lease(self, count: int, number: int = 1, scene: str = "s") -> None:
        grant = Lease(NODE, LeaseId(number), JOB, scene, 1, (Span(0, count),))
        self.tell(JobKnown(JOB, self.mode), grant)

    def tell(self, *facts: NodeFact) -> None:
        for fact in facts:
            self.carry_out(self.machine.handle(fact, self.now))
        self.carry_out(self.machine.settle(self.now))

    def carry_out(self, orders: list[NodeOrder]) -> None:
        for order in orders:
            match order:
                case AssignJob(worker, _, role):
                    self.role[worker] = role
                    self.tell(WorkerPulls(worker, 2))
                case MakeEpisode(worker=worker):
                    assert (order.plan in self.files) if order.plan else self.role[worker] is not Role.RENDER
                    self.at[worker].append(Work(order, 0.0))
                    self.begin(worker)
                case RecallWorker(worker):
                    self.leaving.add(worker)
                    unbegun = [work.order for work in self.at[worker][1:]]
                    del self.at[worker][1:]
                    self.tell(WorkerReturns(worker, tuple(order.attempt for order in unbegun)))
                    self.leave(worker)
                case DropPlan(path):
                    self.files.remove(path)
                    self.dropped.append(path)
                case Commit(lease=lease, stored=pieces):
                    self.stored += [piece.index for piece in pieces]
                    self.tell(Ack(NODE, lease, tuple(piece.index for piece in pieces)))
                case Fail(attempt=attempt):
                    self.tell(Ack(NODE, attempt.lease, (attempt.key.index,)))
                case GiveBack(lease=lease, indexes=indexes):
                    self.tell(Ack(NODE, lease, indexes))
                case Heartbeat(pipelines=pipelines):
                    self.seen += pipelines

    def begin(self, worker: WorkerId) -> None:
        first = self.at[worker][0]
        if first.ends_at == 0.0:
            took_s = self.render_s if first.order.plan else self.plan_s
            took_s += self.render_s if self.role[worker] is Role.FUSED and not first.order.plan else 0.0
            first.ends_at = self.now + took_s
            order = first.order
            self.tell(Beat(worker, order.attempt, "render" if order.plan else "plan"))

    def leave(self, worker: WorkerId) -> None:
        if not self.at[worker]:
            del self.at[worker]
            self.leaving.discard(worker)
            self.tell(gone(worker, "exit", ""))
            self.coming.append((self.now + self.start_s, slot_of(worker)))

    def finish(self, worker: WorkerId) -> None:
        order = self.at[worker].pop(0).order
        attempt, index = order.attempt, order.attempt.key.index
        if self.role[worker] is Role.PLAN and index not in self.fail:
            path = f"{attempt.lease}.{index}"
            self.files.add(path)
            self.most_files = max(self.most_files, len(self.files))
            self.spilled += order.spill
            self.tell(EpisodePlanned(worker, attempt, Plan(path, 1000, order.spill, self.plan_s)))
        elif not order.plan and index in self.fail:
            unreachable = Failure("plan", "unreachable", "", kind=FailureKind.PLANNING)
            self.tell(AttemptFailed(worker, attempt, unreachable, self.plan_s))
        else:
            cost_s = self.plan_s + self.render_s
            timings_s = {"plan": 0.0 if order.plan else self.plan_s}
            self.tell(EpisodeStored(worker, attempt, Stored(index, f"{index}", 1, 1, "d", cost_s, timings_s)))
        self.tell(WorkerPulls(worker, 1))
        if worker in self.leaving:
            self.leave(worker)
        elif self.at.get(worker):
            self.begin(worker)

    def run(self, until: float) -> None:
        """Let time pass, from one thing that happens to the next."""
        while True:
            busy = [(work[0].ends_at, worker) for worker, work in self.at.items() if work]
            times = [at for at, _ in busy] + [at for at, _ in self.coming]
            at = min([*times, self.now + HEARTBEAT_S])
            if at > until:
                return
            self.now = at
            for _, slot in [item for item in self.coming if item[0] <= at]:
                self.coming = [item for item in self.coming if item[1] != slot]
                self.start(slot)
            for ends_at, worker in busy:
                if ends_at <= at and worker in self.at and self.at[worker] and self.at[worker][0].ends_at <= at:
                    self.finish(worker)
            self.tell()

    def roles(self) -> dict[Role, int]:
        """Workers by role, of those that stay."""
        counts = dict.fromkeys(Role, 0)
        for worker in self.at:
            if worker in self.role and worker not in self.leaving:
                counts[self.role[worker]] += 1
        return counts


# --- decoupled ---


def test_what_one_process_plans_another_renders_and_a_failed_plan_reaches_no_renderer() -> None:
    story = StaffStory(fail=frozenset({1, 4}))
    story.lease(8)
    story.run(100.0)
    assert sorted(story.stored) == [0, 2, 3, 5, 6, 7]
    assert not story.files
    assert len(story.dropped) == 6


def test_where_rendering_takes_three_times_as_long_three_of_four_slots_render() -> None:
    story = StaffStory(slots=4, plan_s=1.1, render_s=3.0)
    story.lease(200)
    story.run(60.0)
    assert story.roles() == {Role.FUSED: 0, Role.PLAN: 1, Role.RENDER: 3}


def test_where_planning_takes_longer_renderers_become_planners() -> None:
    story = StaffStory(slots=4, plan_s=3.0)
    story.lease(200)
    assert story.roles()[Role.PLAN] == 1, "nothing is known yet"
    story.run(90.0)
    assert story.roles() == {Role.FUSED: 0, Role.PLAN: 3, Role.RENDER: 1}


def test_when_nothing_is_left_to_plan_the_planners_slot_renders() -> None:
    story = StaffStory(slots=2, plan_s=0.1, render_s=5.0)
    story.lease(8)
    story.run(8.0)
    assert story.roles() == {Role.FUSED: 0, Role.PLAN: 0, Role.RENDER: 2}
    story.run(60.0)
    assert sorted(story.stored) == list(range(8))


def test_planners_render_while_the_backlog_is_full_and_plan_again_before_it_is_empty() -> None:
    story = StaffStory(slots=3, plan_s=0.1, render_s=1.0)
    story.lease(300)
    story.run(95.0)
    backlogs = [seen.backlog for seen in story.seen[20:]]
    assert max(backlogs) > 50
    assert min(backlogs) > 0, "no renderer was left without a plan"
    assert {seen.planners for seen in story.seen} == {0, 1}
    assert len(story.stored) > 2.4 * 95, "two slots that render all the time make 2 a second"


def test_a_slot_does_not_change_for_a_backlog_that_is_done_before_it_could_help() -> None:
    story = StaffStory(slots=2, plan_s=0.1, render_s=0.1, start_s=30.0)
    story.lease(4)
    story.run(20.0)
    assert sorted(story.stored) == list(range(4))
    assert not story.coming, "no worker was recalled"


def test_one_slot_plans_and_renders_in_turns() -> None:
    story = StaffStory(slots=1)
    story.lease(12)
    story.run(200.0)
    assert sorted(story.stored) == list(range(12))


def test_planners_stop_at_the_high_water_mark_and_plans_beyond_the_memory_go_to_disk() -> None:
    story = StaffStory(slots=2, plan_s=0.001, render_s=1000.0)
    story.lease(10_000)
    story.run(900.0)
    assert not story.stored
    assert 3 < story.most_files <= MOST_BACKLOG
    assert story.spilled >= story.most_files - 5, "3,000 bytes are three plans, and some were being made"


def test_slots_that_cannot_render_plan_for_those_that_can() -> None:
    story = StaffStory(slots=3, plan_only=1)
    story.lease(30)
    story.run(100.0)
    cpu = {role for worker, role in story.role.items() if worker.startswith("cpu")}
    assert cpu == {Role.PLAN}
    assert sorted(story.stored) == list(range(30))


# --- modes ---


def test_auto_stays_fused_where_every_slot_can_do_everything() -> None:
    story = StaffStory(slots=4, mode=Mode.AUTO)
    story.lease(40)
    story.run(100.0)
    assert set(story.role.values()) == {Role.FUSED}
    assert sorted(story.stored) == list(range(40))


def test_auto_decouples_where_planning_can_move_beside_the_gpu() -> None:
    story = StaffStory(slots=3, plan_only=1, mode=Mode.AUTO, plan_s=1.0, render_s=2.0)
    story.lease(60)
    story.run(30.0)
    assert story.seen[-1].mode == "decoupled"
    story.run(200.0)
    assert sorted(story.stored) == list(range(60))


@given(st.integers(1, 8), st.integers(0, 4), st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.05, 1.0))
def test_no_split_beats_the_chosen_one_and_fused_beats_all_where_slots_are_alike(
    flexible: int, plan_only: int, plan_s: float, render_s: float, good: float
) -> None:
    places, latency = Places(flexible, plan_only), Latency(plan_s, render_s, good)
    best = decoupled_rate(places, best_planners(places, latency), latency)
    assert all(decoupled_rate(places, planners, latency) <= best for planners in range(flexible + 1))
    if not plan_only:
        assert fused_rate(places, latency) >= best * (1 - 1e-9)
        assert mode_to_have(places, latency, Mode.FUSED) is Mode.FUSED


def test_a_split_that_is_nearly_as_good_is_kept() -> None:
    places = Places(4)
    assert planners_to_have(places, Latency(1.0, 1.0), 2) == 2
    assert planners_to_have(Places(21), Latency(1.0, 1.0), 11) == 11, "10 would be just as good"
    assert planners_to_have(Places(21), Latency(1.0, 1.0), 5) == 10


# --- faults ---


def planned_and_taken(index: int = 0) -> tuple[StaffStory, WorkerId]:
    """A story in which a renderer has begun an episode, and which renderer."""
    story = StaffStory(slots=2, plan_s=0.1, render_s=50.0)
    story.lease(4)
    story.run(1.0)
    (renderer,) = [worker for worker, role in story.role.items() if role is Role.RENDER]
    assert story.at[renderer][0].order.attempt.key.index == index
    return story, renderer


def test_a_renderer_that_dies_loses_no_plan_and_another_attempt_is_not_planned_again() -> None:
    story, renderer = planned_and_taken()
    taken = [work.order.attempt.key.index for work in story.at.pop(renderer)]
    files = set(story.files)
    story.tell(gone(renderer, "crash", "died of signal 11"))
    assert story.files == files, "what it had not begun waits, what it had begun is tried again"
    story.coming.append((story.now + 0.5, "gpu:1"))
    again = Lease(NODE, LeaseId(2), JOB, "s", 2, (Span(taken[0], taken[0] + 1),))
    story.tell(again)
    story.run(400.0)
    assert sorted(story.stored) == [0, 1, 2, 3]
    assert len(story.dropped) == 4, "no episode was planned twice"
    assert not story.files


def test_a_planner_that_dies_costs_the_episode_that_it_had_begun_only() -> None:
    story = StaffStory(slots=2, plan_s=5.0)
    story.lease(4)
    story.run(1.0)
    (planner,) = [worker for worker, role in story.role.items() if role is Role.PLAN]
    del story.at[planner]
    story.tell(gone(planner, "hang", "killed"))
    story.coming.append((story.now + 0.5, slot_of(planner)))
    story.run(60.0)
    assert sorted(story.stored) == [1, 2, 3]


def test_a_revoked_episode_leaves_no_plan_behind() -> None:
    story, _ = planned_and_taken()
    story.tell(Revoke(NODE, LeaseId(1), (2, 3), kill=True))
    assert story.files == {"1.0", "1.1"}
    story.run(200.0)
    assert sorted(story.stored) == [0, 1]
    assert not story.files
    assert story.machine.idle()


def test_a_draining_node_gives_back_what_no_renderer_has_begun() -> None:
    story, renderer = planned_and_taken()
    story.tell(Drain(True))
    begun = {f"1.{work.order.attempt.key.index}" for work in story.at[renderer]}
    assert story.files == begun


def test_plans_that_are_kept_for_another_attempt_are_few() -> None:
    story = StaffStory(slots=2, plan_s=0.0, render_s=1000.0)
    story.lease(10 * MOST_KEPT)
    for _ in range(2 * MOST_KEPT):
        story.run(story.now + 1.0)
        (renderer,) = [worker for worker in story.at if story.role.get(worker) is Role.RENDER]
        order = story.at[renderer].pop(0).order
        story.tell(AttemptFailed(renderer, order.attempt, Failure("render", "error", "")), WorkerPulls(renderer, 1))
        if story.at[renderer]:
            story.begin(renderer)
    assert len(story.files) <= MOST_KEPT + MOST_BACKLOG + 2


def test_no_worker_more_is_started_on_a_job_than_memory_allows() -> None:
    story = StaffStory(slots=4, mode=Mode.FUSED, memory_bytes=1000, start_s=1000.0)
    story.machine.handle(JobKnown(JOB, Mode.FUSED), 0.0)
    first = next(iter(story.at))
    for worker in [worker for worker in story.at if worker != first]:
        del story.at[worker]
        story.tell(gone(worker, "exit", ""))
    story.lease(50)
    story.tell(measured(first, 400))
    for slot in ("gpu:1", "gpu:2", "gpu:3"):
        story.start(slot)
    assert len(story.role) == 2, "a third one would need 1200 bytes"


# --- what is told of it ---


def test_the_live_model_says_what_the_stages_could_give_and_what_they_give() -> None:
    story = StaffStory(slots=4, plan_s=1.01, render_s=3.0)
    story.lease(400)
    story.run(120.0)
    seen = story.seen[-1]
    assert (seen.mode, seen.planners, seen.renderers) == ("decoupled", 1, 3)
    assert seen.plan_s == pytest.approx(1.01)
    assert seen.render_s == pytest.approx(3.0)
    assert seen.mu_render == pytest.approx(1.0)
    assert seen.theory == pytest.approx(0.99, rel=0.01)
    assert seen.achieved == pytest.approx(1.0, rel=0.05)
    assert seen.rendering == pytest.approx(3.0, rel=0.1)
