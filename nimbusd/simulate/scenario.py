"""Stories of what may happen to a cluster: nodes, jobs and faults, as values that a seed or a test draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from nimbusd.core.ids import JobId
from nimbusd.core.master.facts import JobPlan
from nimbusd.core.node.split import Mode
from nimbusd.simulate.cluster import Cluster, Timing
from nimbusd.simulate.master import Moment
from nimbusd.simulate.network import FAIR, Weather
from nimbusd.simulate.node_model import NodeModel
from nimbusd.simulate.violation import Violation
from nimbusd.simulate.workload import DrawnWorkload, scenes_of

CALM_AFTER_S = 30.0
"""All faults are over by then."""
SLACK_S = 300.0
"""For pauses, restarts and nodes that are given up, on top of the work itself."""

# --- faults; times in seconds from the start ---


@dataclass(frozen=True, slots=True)
class MasterCrash:
    """The master dies, at a time or at the first such moment after it, and comes back."""

    at: float
    down_s: float
    moment: Moment | None = None


@dataclass(frozen=True, slots=True)
class NodeCrash:
    """A node dies, and comes back as a new process."""

    at: float
    node: int
    down_s: float


@dataclass(frozen=True, slots=True)
class NodeLeaves:
    """A node says goodbye with whatever it holds, and comes back."""

    at: float
    node: int
    down_s: float


@dataclass(frozen=True, slots=True)
class Partition:
    """Nothing gets through between a node and the master, in one direction or both."""

    at: float
    node: int
    for_s: float
    to_master: bool
    to_node: bool


@dataclass(frozen=True, slots=True)
class Storm:
    """The network loses, repeats, delays and reorders messages."""

    at: float
    for_s: float
    weather: Weather


@dataclass(frozen=True, slots=True)
class DiskFull:
    """A node cannot store."""

    at: float
    node: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Drained:
    """A node is given no work for a while."""

    at: float
    node: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody cancels a job, and may submit it again."""

    at: float
    job: int
    again_after_s: float | None


@dataclass(frozen=True, slots=True)
class Retried:
    """Somebody gives quarantined episodes another chance."""

    at: float
    job: int


Fault: TypeAlias = MasterCrash | NodeCrash | NodeLeaves | Partition | Storm | DiskFull | Drained | Cancelled | Retried


@dataclass(frozen=True, slots=True)
class Member:
    """A node, and when it joins."""

    model: NodeModel
    joins_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Submission:
    """A job, and when it is submitted."""

    workload: DrawnWorkload
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that happens. Nodes and jobs are named by their place, so a smaller scenario is one, too."""

    seed: int
    members: tuple[Member, ...]
    submissions: tuple[Submission, ...]
    faults: tuple[Fault, ...]
    weather: Weather = FAIR
    commit_s: float = 0.002


def play(scenario: Scenario) -> Cluster:
    """Let everything happen, and check everything. Raises Violation."""
    cluster = Cluster(scenario.seed, weather=scenario.weather, timing=Timing(commit_s=scenario.commit_s))
    for number, member in enumerate(scenario.members):
        cluster.clock.at(member.joins_at, cluster.add_node, f"n{number}", member.model)
    for submission in scenario.submissions:
        cluster.clock.at(submission.at, cluster.submit, submission.workload)
    for fault in scenario.faults:
        cluster.clock.at(fault.at, _inject, cluster, scenario, fault)
    cluster.clock.at(CALM_AFTER_S, _calm, cluster)
    last_s = max([CALM_AFTER_S, *map(_last_wish_s, scenario.faults)])
    cluster.run(last_s + 1.0)
    deadline_s = last_s + SLACK_S + 2 * _all_work_s(scenario)
    if not cluster.run(deadline_s, cluster.is_over):
        raise Violation("I2", f"the cluster is not done at {deadline_s:.0f} s: {_what_is_left(cluster)}")
    cluster.run(cluster.clock.now + 1.0)  # what is still on its way
    cluster.invariants.at_end()
    return cluster


def _last_wish_s(fault: Fault) -> float:
    """The time at which a fault is through: also of a job that is submitted again, which may be after the calm."""
    return fault.at + (fault.again_after_s or 0.0) if isinstance(fault, Cancelled) else fault.at


def _all_work_s(scenario: Scenario) -> float:
    """Seconds that everything would take, done after the faults by one slot of the slowest node."""
    slowest = min(member.model.speed for member in scenario.members)
    return sum(
        (workload.cost_s(scene.name, index) + workload.load_s(scene.name)) / slowest
        for workload in (submission.workload for submission in scenario.submissions)
        for scene in workload.plan.scenes
        for index in range(max(scene.wanted, scene.most_tried))
    )


def _calm(cluster: Cluster) -> None:
    """The end of all faults: whatever is down comes back, for good."""
    cluster.network.weather = FAIR
    cluster.master.spare()
    cluster.master.start()
    for name, node in cluster.nodes.items():
        cluster.heal(name)
        node.disk_full = False
        node.model = node.model.reliable()
        node.start()
        cluster.master.drain(name, False)


def _what_is_left(cluster: Cluster) -> str:
    jobs = {name: (pages.state.value, len(pages.leases)) for name, pages in cluster.ledger.jobs.items()}
    nodes = {name: node.machine.sizes() for name, node in cluster.nodes.items() if node.machine is not None}
    return f"jobs (state, open leases) {jobs}; nodes {nodes}"


def _inject(cluster: Cluster, scenario: Scenario, fault: Fault) -> None:
    after, up = cluster.clock.after, cluster.when_up
    match fault:
        case MasterCrash(_, down_s, moment):
            if moment is not None:
                cluster.master.crash_at(moment, down_s)
            else:
                cluster.master.crash()
                after(down_s, cluster.master.start)
        case Storm(_, for_s, weather):
            cluster.network.weather = weather
            after(for_s, _set_weather, cluster, scenario.weather)
        case Cancelled(_, number, again_after_s):
            workload = scenario.submissions[number % len(scenario.submissions)].workload
            up(cluster.master.cancel, workload.plan.job)
            if again_after_s is not None:
                # Before the calm: whether all is over is asked from then on.
                after(min(again_after_s, max(0.0, CALM_AFTER_S - cluster.clock.now)), cluster.submit, workload)
        case Retried(_, number):
            up(cluster.master.retry, scenario.submissions[number % len(scenario.submissions)].workload.plan.job)
        case _:
            _hit_node(cluster, f"n{fault.node % len(scenario.members)}", fault)


def _hit_node(cluster: Cluster, name: str, fault: NodeCrash | NodeLeaves | Partition | DiskFull | Drained) -> None:
    node, after = cluster.nodes.get(name), cluster.clock.after
    if node is None:
        return  # it has not joined yet
    match fault:
        case NodeCrash(_, _, down_s):
            node.crash()
            after(down_s, node.start)
        case NodeLeaves(_, _, down_s):
            node.leave()
            after(down_s, node.start)
        case Partition(_, _, for_s, to_master, to_node):
            cluster.cut(name, to_master, to_node)
            after(for_s, cluster.heal, name)
        case DiskFull(_, _, for_s):
            node.disk_full = True
            after(for_s, setattr, node, "disk_full", False)
        case Drained(_, _, for_s):
            cluster.when_up(cluster.master.drain, name, True)
            after(for_s, cluster.when_up, cluster.master.drain, name, False)


def _set_weather(cluster: Cluster, weather: Weather) -> None:
    if cluster.clock.now < CALM_AFTER_S:
        cluster.network.weather = weather


# --- drawing ---


def draw_scenario(seed: int) -> Scenario:
    """A scenario that depends on the seed alone."""
    rng = Random(seed)
    members = tuple(_draw_member(rng, number) for number in range(rng.randint(1, 5)))
    submissions = tuple(_draw_submission(rng, number) for number in range(rng.choice((1, 1, 1, 2, 3))))
    faults = tuple(_draw_fault(rng) for _ in range(rng.choice((0, 2, 5, 10))))
    weather = rng.choice((FAIR, Weather(0.005, 0.02), Weather(0.001, 0.2, reorder=True), Weather(loss=0.02)))
    return Scenario(seed, members, submissions, faults, weather, rng.choice((0.0, 0.002, 0.05)))


def _draw_member(rng: Random, number: int) -> Member:
    slots = rng.randint(1, 4)
    model = NodeModel(
        slots=slots,
        plan_only=rng.choice((0, 0, 0, slots // 2)),
        mode=rng.choice((Mode.AUTO, Mode.AUTO, Mode.FUSED, Mode.DECOUPLED)),
        speed=rng.choice((0.2, 1.0, 1.0, 1.5)),
        environment=rng.choice("aaab") if number else "a",
        prefetch=rng.choice((1, 1, 2)),
        start_s=rng.choice((0.01, 1.0)),
        open_s=rng.choice((0.0, 0.5)),
        crashes=rng.choice((0.0, 0.0, 0.1)),
        hangs=rng.choice((0.0, 0.0, 0.05)),
        unfit=frozenset({JobId("job1")}) if number and rng.random() < 0.1 else frozenset(),
    )
    return Member(model, joins_at=rng.choice((0.0, 0.0, 0.0, rng.uniform(0, 25))))


def _draw_submission(rng: Random, number: int) -> Submission:
    wanted, exact = rng.randint(1, 12), rng.random() < 0.7
    plan = JobPlan(
        JobId(f"job{number}"),
        scenes_of(rng.randint(1, 6), wanted, exact, wanted + rng.choice((0, 3, 20))),
        user=rng.choice(("ann", "bob")),
        priority=rng.choice((0, 0, 1)),
        attempts=rng.randint(1, 3),
        environment=rng.choice(("", "a")),
        max_nodes=rng.choice((0, 0, 0, 1, 2)),
        dynload=rng.random() < 0.85,
    )
    workload = DrawnWorkload(
        plan,
        seed=rng.randrange(1 << 30),
        mean_s=rng.choice((0.05, 0.5, 2.0)),
        scene_spread=rng.choice((0.0, 1.0)),
        episode_spread=rng.choice((0.0, 0.3, 1.0)),
        scene_load_s=rng.choice((0.0, 0.5)),
        unplannable=rng.choice((0.0, 0.2, 0.5)),
        broken=rng.choice((0.0, 0.0, 0.1)),
        poison=rng.choice((0.0, 0.0, 0.1)),
    )
    return Submission(workload, at=rng.choice((0.0, 0.0, rng.uniform(0, 20))))


def _draw_fault(rng: Random) -> Fault:
    at, node, for_s = rng.uniform(0.0, 25.0), rng.randrange(6), rng.choice((0.5, 3.0, 10.0))
    kinds: Sequence[Fault] = (
        MasterCrash(at, for_s / 4, rng.choice((None, *Moment))),
        NodeCrash(at, node, for_s),
        NodeLeaves(at, node, for_s),
        Partition(at, node, for_s, *rng.choice(((True, True), (True, False), (False, True)))),
        Storm(at, for_s, Weather(0.01, rng.choice((0.05, 1.0, 4.0)), True, rng.choice((0.0, 0.3)), 0.2)),
        DiskFull(at, node, for_s),
        Drained(at, node, for_s),
        Cancelled(at, rng.randrange(3), rng.choice((None, 0.01, 5.0))),
        Retried(at, rng.randrange(3)),
    )
    return rng.choices(kinds, weights=(4, 3, 1, 3, 3, 1, 1, 1, 1))[0]
