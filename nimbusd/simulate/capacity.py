"""Estimate a job on a number of nodes: its makespan, and where the slots' time goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from nimbusd.core.ids import JobId
from nimbusd.core.master.facts import JobPlan, ScenePlan
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.simulate.cluster import Cluster, Timing
from nimbusd.simulate.master import Decider
from nimbusd.simulate.node_model import NodeModel
from nimbusd.simulate.violation import Violation
from nimbusd.simulate.workload import DrawnWorkload, lognormal

JOB = JobId("job")
_PATIENCE = 50.0
"""A job that takes so many times what it should does not end at all."""


@dataclass(frozen=True, slots=True)
class CapacityQuestion:
    """A job and the machines for it. Spreads are standard deviations of a logarithm.

    mean_s: mean cost of an episode; scene_spread, episode_spread: of it between scenes, and within one. hint_spread:
    of the error of what is told of a scene's cost beforehand; None: nothing is told. load_s: to load a scene.
    speed_spread: between nodes. mtbf_s: of a node; repair_s: until it is back. crashes, stalls: shares of attempts.
    one_slot_nodes: every slot is a node of its own, which fails with the others of its machine.
    """

    scenes: int
    episodes: int
    mean_s: float
    scene_spread: float = 0.0
    episode_spread: float = 0.0
    hint_spread: float | None = None
    load_s: float = 0.0
    slots: int = 1
    speed_spread: float = 0.0
    mtbf_s: float = 0.0
    repair_s: float = 300.0
    crashes: float = 0.0
    stalls: float = 0.0
    dynload: bool = True
    one_slot_nodes: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The result. The shares are of the time of all slots, and add up to 1.

    bound_s: no order of work could take less: all work, with one loading per scene, on all slots as fast as they are,
    or the longest episode with its loading on the fastest one. useful: in committed pieces; loading; lost: in attempts
    that came to nothing, or were not needed; idle: the rest, nodes that were down included. node_losses: nodes that
    the master gave up. speed: of all slots together, 1 being that of a mean slot.
    """

    nodes: int
    slots: int
    seed: int
    speed: float
    makespan_s: float
    bound_s: float
    useful: float
    loading: float
    lost: float
    idle: float
    episodes: int
    node_losses: int
    steps: int

    @property
    def efficiency(self) -> float:
        """The lower bound of the makespan, as a share of it."""
        return self.bound_s / self.makespan_s


def answer(
    question: CapacityQuestion, nodes: int, seed: int = 0, decider: Callable[[int, float], Decider] = Scheduler
) -> Answer:
    """Run the job on a simulated cluster of so many nodes, all of which are there from the start."""
    workload = _workload(question, seed)
    beat_s = min(10.0, max(1.0, question.mean_s / 6))
    beat_s *= 4 if question.one_slot_nodes else 1  # there are many, and their heartbeats decide nothing
    timing = Timing(beat_s, 3 * beat_s, beat_s / 2, beat_s, commit_s=0.0)
    cluster = Cluster(seed, timing=timing, judge=False, decider=decider)
    speeds = [lognormal(1.0, question.speed_spread, seed, "speed", number) for number in range(nodes)]
    machines: list[list[str]] = []
    for number, speed in enumerate(speeds):
        model = NodeModel(question.slots, speed=speed, crashes=question.crashes, stalls=question.stalls)
        machines.append(_add_machine(cluster, f"n{number:04}", model, one_slot_nodes=question.one_slot_nodes))
    cluster.run(1.0)  # everybody has said hello
    cluster.submit(workload)
    began = cluster.clock.now
    if question.mtbf_s:
        for number, machine in enumerate(machines):
            _fail_now_and_then(cluster, machine, question, Random(f"{seed} {number}"))

    costs = [workload.cost_s(scene.name, i) for scene in workload.plan.scenes for i in range(question.episodes)]
    work_s = sum(costs) + question.scenes * question.load_s
    slots_s = sum(speeds) * question.slots
    bound_s = max(work_s / slots_s, (max(costs) + question.load_s) / max(speeds))
    if not cluster.run(began + _PATIENCE * bound_s + 3600.0, cluster.jobs_over):
        raise Violation("I2", f"the job has not ended after {cluster.clock.now - began:.0f} s")
    pages = cluster.ledger.jobs[JOB]
    makespan_s = cluster.clock.now - began
    all_s = makespan_s * nodes * question.slots
    useful_s = cluster.committed_work_s()
    busy_s = sum(node.busy_s() for node in cluster.nodes.values())
    loading_s = sum(node.spent.loading_s for node in cluster.nodes.values())
    return Answer(
        nodes,
        nodes * question.slots,
        seed,
        sum(speeds) * question.slots,
        makespan_s,
        bound_s,
        useful_s / all_s,
        loading_s / all_s,
        max(0.0, busy_s - loading_s - useful_s) / all_s,  # not less than 0 by rounding
        1.0 - busy_s / all_s,
        len(pages.rows),
        cluster.master.losses,
        cluster.clock.steps,
    )


def _workload(question: CapacityQuestion, seed: int) -> DrawnWorkload:
    width = len(str(question.scenes - 1))
    names = [f"s{number:0{width}}" for number in range(question.scenes)]
    job = DrawnWorkload(
        JobPlan(JOB, ()),
        seed,
        question.mean_s,
        question.scene_spread,
        question.episode_spread,
        question.load_s,
    )

    def hint(name: str) -> float:
        if question.hint_spread is None:
            return 1.0
        return job.scene_cost_s(name) * lognormal(1.0, question.hint_spread, seed, "hint", name)

    plans = tuple(ScenePlan(name, question.episodes, False, question.episodes, hint(name)) for name in names)
    job.plan = JobPlan(JOB, plans, dynload=question.dynload)
    return job


def _add_machine(cluster: Cluster, name: str, model: NodeModel, *, one_slot_nodes: bool) -> list[str]:
    if not one_slot_nodes:
        cluster.add_node(name, model)
        return [name]
    names = [f"{name}.{slot}" for slot in range(model.slots)]
    for each in names:
        cluster.add_node(each, model.of_one_slot())
    return names


def _fail_now_and_then(cluster: Cluster, machine: list[str], question: CapacityQuestion, rng: Random) -> None:
    def fail() -> None:
        for name in machine:
            cluster.nodes[name].crash()
            cluster.clock.after(question.repair_s, cluster.nodes[name].start)
        cluster.clock.after(question.repair_s + rng.expovariate(1 / question.mtbf_s), fail)

    cluster.clock.after(rng.expovariate(1 / question.mtbf_s), fail)
