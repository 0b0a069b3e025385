"""Whole clusters in virtual time: thousands of schedules of faults, with every invariant checked at every step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nimbusd.cli.simulate import simulate
from nimbusd.core.ids import JobId
from nimbusd.core.master.facts import Cause, JobPlan, JobWaits, Order
from nimbusd.core.master.grants import Grants
from nimbusd.core.master.nodes import LiveNode, WorkerManager
from nimbusd.core.master.scenes import SceneEpisodes
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.core.master.tasks import TaskManager
from nimbusd.core.master.waiting import Waits
from nimbusd.core.node.facts import DropPiece, NodeOrder
from nimbusd.core.node.machine import NodeMachine
from nimbusd.core.records import JobState, State
from nimbusd.simulate import Cluster, DrawnWorkload, NodeModel, Violation, Weather, scenes_of
from nimbusd.simulate.capacity import CapacityQuestion, answer
from nimbusd.simulate.master import Moment
from nimbusd.simulate.network import FAIR
from nimbusd.simulate.scenario import (
    Cancelled,
    DiskFull,
    Drained,
    Fault,
    MasterCrash,
    Member,
    NodeCrash,
    NodeLeaves,
    Partition,
    Retried,
    Scenario,
    Storm,
    Submission,
    draw_scenario,
    play,
)
from nimbusd.simulate.storm import first_failure
from nimbusd.transport.messages.node import Ack
from tests.support.slow import quick_first

JOB = JobId("job")
STORM_SEEDS, CHUNKS = 1800, 9


# --- many schedules ---


@pytest.mark.parametrize("chunk", quick_first(range(CHUNKS)))
def test_no_schedule_drawn_from_a_seed_violates_an_invariant(chunk: int) -> None:
    count = STORM_SEEDS // CHUNKS
    failure = first_failure(chunk * count, count)
    assert failure is None, f"{failure}; replay: python -m nimbusd.simulate.storm --replay {failure[0]}"


times = st.floats(0.0, 25.0).map(lambda t: round(t, 2))
spans = st.sampled_from([0.3, 2.0, 7.0, 15.0])
numbers = st.integers(0, 3)
weathers = st.builds(
    Weather,
    delay_s=st.sampled_from([0.001, 0.05]),
    jitter_s=st.sampled_from([0.0, 0.1, 2.0]),
    reorder=st.booleans(),
    loss=st.sampled_from([0.0, 0.05, 0.4]),
    duplication=st.sampled_from([0.0, 0.3]),
)
faults: st.SearchStrategy[Fault] = st.one_of(
    st.builds(MasterCrash, times, spans, st.sampled_from([None, *Moment])),
    st.builds(NodeCrash, times, numbers, spans),
    st.builds(NodeLeaves, times, numbers, spans),
    st.builds(Partition, times, numbers, spans, st.booleans(), st.booleans()),
    st.builds(Storm, times, spans, weathers),
    st.builds(DiskFull, times, numbers, spans),
    st.builds(Drained, times, numbers, spans),
    st.builds(Cancelled, times, numbers, st.none() | spans),
    st.builds(Retried, times, numbers),
)
members = st.builds(
    Member,
    st.builds(
        NodeModel,
        slots=st.integers(1, 3),
        speed=st.sampled_from([0.3, 1.0]),
        prefetch=st.sampled_from([1, 2]),
        crashes=st.sampled_from([0.0, 0.1]),
        hangs=st.sampled_from([0.0, 0.1]),
    ),
    joins_at=st.sampled_from([0.0, 0.0, 10.0]),
)


@st.composite
def submissions(draw: st.DrawFn, number: int) -> Submission:
    wanted = draw(st.integers(1, 8))
    plan = JobPlan(
        JobId(f"job{number}"),
        scenes_of(draw(st.integers(1, 4)), wanted, draw(st.booleans()), wanted + draw(st.sampled_from([0, 10]))),
        user=draw(st.sampled_from(["ann", "bob"])),
        priority=draw(st.sampled_from([0, 1])),
        attempts=draw(st.integers(1, 3)),
        max_nodes=draw(st.sampled_from([0, 0, 1])),
        dynload=draw(st.sampled_from([True, True, False])),
    )
    workload = DrawnWorkload(
        plan,
        seed=draw(st.integers(0, 9)),
        mean_s=draw(st.sampled_from([0.1, 1.0, 5.0])),
        episode_spread=draw(st.sampled_from([0.0, 1.0])),
        scene_load_s=draw(st.sampled_from([0.0, 0.5])),
        unplannable=draw(st.sampled_from([0.0, 0.3])),
        broken=draw(st.sampled_from([0.0, 0.1])),
        poison=draw(st.sampled_from([0.0, 0.1])),
    )
    return Submission(workload, draw(st.sampled_from([0.0, 5.0])))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    jobs = draw(st.integers(1, 2))
    return Scenario(
        seed=draw(st.integers(0, 99)),
        members=tuple(draw(st.lists(members, min_size=1, max_size=4))),
        submissions=tuple(draw(submissions(number)) for number in range(jobs)),
        faults=tuple(draw(st.lists(faults, max_size=8))),
        weather=draw(st.sampled_from([FAIR, Weather(0.002, 0.05, reorder=True)])),
    )


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_no_schedule_that_hypothesis_finds_violates_an_invariant(scenario: Scenario) -> None:
    play(scenario)


def test_a_job_that_is_submitted_again_after_the_calm_is_played_to_its_end() -> None:
    workload = DrawnWorkload(JobPlan(JobId("job0"), scenes_of(1, 1), attempts=1), mean_s=0.1, scene_load_s=0.5)
    faults = (MasterCrash(0.0, 15.0, None), Cancelled(16.5, 0, 15.0))
    cluster = play(Scenario(0, (Member(NodeModel(slots=1, speed=0.3)),), (Submission(workload),), faults))
    assert cluster.ledger.jobs[JobId("job0")].state is JobState.COMPLETE


# --- replay ---


def test_a_seed_replays_exactly() -> None:
    for seed in (3, 8, 21):
        first, second = play(draw_scenario(seed)), play(draw_scenario(seed))
        assert (first.clock.steps, first.clock.digest) == (second.clock.steps, second.clock.digest)
    assert play(draw_scenario(4)).clock.digest != first.clock.digest


def test_a_seed_replays_exactly_in_another_process() -> None:
    command = [sys.executable, "-m", "nimbusd.simulate.storm", "--replay", "8"]
    lines = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        lines.add(done.stdout.splitlines()[-1])
    assert len(lines) == 1
    assert "all is well" in lines.pop()


# --- stories ---


def small(
    mean_s: float = 1.0, *, scenes: int = 4, wanted: int = 6, unplannable: float = 0.0, poison: float = 0.0
) -> DrawnWorkload:
    plan = JobPlan(JOB, scenes_of(scenes, wanted))
    return DrawnWorkload(plan, 0, mean_s, 0.3, 0.3, 0.2, unplannable=unplannable, poison=poison)


def cluster_of(nodes: int, workload: DrawnWorkload) -> Cluster:
    cluster = Cluster(1)
    for number in range(nodes):
        cluster.add_node(f"n{number}", NodeModel(slots=2))
    cluster.submit(workload)
    return cluster


def indexes(cluster: Cluster, state: State) -> set[tuple[str, int]]:
    pages = cluster.ledger.jobs.get(JOB)
    return {place for place, row in pages.rows.items() if row.state is state} if pages else set()


def test_the_same_episodes_are_made_whatever_happens() -> None:
    calm = cluster_of(1, small(unplannable=0.3))
    assert calm.run(1000.0, calm.is_over)
    stormy = cluster_of(3, small(unplannable=0.3))
    stormy.run(4.0)
    stormy.nodes["n0"].crash()
    stormy.master.crash()
    stormy.run(6.0)
    stormy.master.start()
    stormy.nodes["n0"].start()
    stormy.cut("n1")
    stormy.run(15.0)
    stormy.heal("n1")
    assert stormy.run(1000.0, stormy.is_over)
    for state in State:
        assert indexes(calm, state) == indexes(stormy, state)
    assert calm.ledger.jobs[JOB].state is stormy.ledger.jobs[JOB].state is JobState.COMPLETE


@pytest.mark.parametrize("moment", Moment)
def test_a_master_that_dies_in_every_transaction_still_gets_done(moment: Moment) -> None:
    cluster = cluster_of(2, small(0.3, scenes=2, wanted=4))
    crashes = 0

    def is_done() -> bool:
        return JOB in cluster.ledger.jobs and cluster.is_over()

    while not is_done():
        if cluster.master.scheduler is not None and crashes < 30:
            cluster.master.crash_at(moment, 0.1)
            crashes += 1
        cluster.run(cluster.clock.now + 1.5, is_done)
        assert cluster.clock.now < 300.0
    assert len(indexes(cluster, State.COMMITTED)) == 8


def test_what_was_made_behind_a_partition_is_committed_when_it_heals() -> None:
    cluster = cluster_of(1, small(3.0, scenes=1, wanted=2))
    cluster.run(1.0)
    cluster.cut("n0")
    cluster.run(15.0)
    assert cluster.master.losses == 1
    cluster.heal("n0")
    assert cluster.run(20.0, cluster.is_over), "it was made before, and is not made again"
    assert {row.attempt for row in cluster.ledger.jobs[JOB].rows.values()} == {1}


def test_a_poison_scene_is_set_aside_and_the_rest_is_made() -> None:
    cluster = cluster_of(2, small(0.5, poison=0.2))
    assert cluster.run(200.0, cluster.is_over)
    poisoned = indexes(cluster, State.QUARANTINED)
    assert poisoned
    assert len(indexes(cluster, State.COMMITTED)) == 24 - len(poisoned)
    assert cluster.ledger.jobs[JOB].state is JobState.INCOMPLETE
    assert all(row.losses == 3 for row in cluster.ledger.jobs[JOB].rows.values() if row.state is State.QUARANTINED)


def test_a_full_disk_costs_nothing_but_time() -> None:
    cluster = cluster_of(2, small(0.5))
    for node in cluster.nodes.values():
        node.disk_full = True
    cluster.run(20.0)
    assert not indexes(cluster, State.COMMITTED)
    for node in cluster.nodes.values():
        node.disk_full = False
    assert cluster.run(200.0, cluster.is_over)
    assert len(indexes(cluster, State.COMMITTED)) == 24
    assert all(row.losses == 0 for row in cluster.ledger.jobs[JOB].rows.values())


def test_a_job_bound_to_an_environment_stays_so_across_a_restart_of_the_master() -> None:
    cluster = Cluster(1)
    cluster.add_node("first", NodeModel(environment="e1"))
    cluster.submit(small())
    cluster.run(3.0)
    cluster.master.crash()
    cluster.nodes["first"].crash()
    cluster.add_node("second", NodeModel(environment="e2"))
    cluster.master.start()
    cluster.run(30.0)
    made_by = {row.node for row in cluster.ledger.jobs[JOB].rows.values() if row.state is State.COMMITTED}
    assert made_by == {"first"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(("n0", "n1", "n2")), st.sampled_from("ab"), st.booleans()), max_size=6))
def test_nodes_that_are_upgraded_and_rolled_back_in_any_order_lose_and_double_nothing(
    turns: list[tuple[str, str, bool]],
) -> None:
    cluster = Cluster(1)
    for name in ("n0", "n1", "n2"):
        cluster.add_node(name, NodeModel(environment="a"))
    cluster.submit(small())
    cluster.run(1.0)
    for name, environment, accepted in turns:
        node = cluster.nodes[name]
        node.crash()
        node.model = replace(node.model, environment=environment)
        node.start()
        if accepted:
            cluster.when_up(cluster.master.accept_environment, JOB)
        cluster.run(cluster.clock.now + 2.0)
    cluster.when_up(cluster.master.accept_environment, JOB)  # or it may wait, and I11 has it say why
    assert cluster.run(cluster.clock.now + 300.0, cluster.is_over)
    cluster.invariants.at_end()
    assert cluster.ledger.jobs[JOB].state is JobState.COMPLETE


def test_a_job_of_which_nothing_can_move_says_so_in_the_simulation_too() -> None:
    cluster = Cluster(1)
    cluster.submit(small())
    cluster.run(10.0)
    scheduler = cluster.master.scheduler
    assert isinstance(scheduler, Scheduler)
    waiting = scheduler.waits.of(JOB)
    assert waiting is not None
    assert waiting.cause is Cause.NO_NODE


# --- the judge has teeth ---


def never_said(self: Waits, found: object, now: float) -> list[JobWaits]:
    return []


def no_attempts(self: SceneEpisodes, spans: object) -> int:
    return 0


def nobody_overdue(self: WorkerManager, now: float) -> list[LiveNode]:
    return []


def no_refill(self: SceneEpisodes) -> None:
    goal = self.plan.wanted
    if self.next_index < goal:
        SceneEpisodes.open_up_to(self, goal - 1)


def drop_on_any_answer(self: NodeMachine, fact: Ack) -> list[NodeOrder]:
    held = self._leases.get(fact.lease)
    return [DropPiece(JOB, f"{held.order.scene}_{i}.{held.order.attempt}") for i in fact.indexes] if held else []


def forget_nothing(self: TaskManager, job: object) -> list[Order]:
    return []


def feed_nobody_after_a_while(self: Grants, node: LiveNode, now: float) -> list[Order]:
    return feed(self, node, now) if now < 3.0 else []


feed = Grants.grant


@pytest.mark.parametrize(
    ("place", "name", "sabotage", "rule"),
    [
        (SceneEpisodes, "attempts_of", no_attempts, "I1"),
        (SceneEpisodes, "refill", no_refill, "I2"),
        (NodeMachine, "_acknowledged", drop_on_any_answer, "I3"),
        (WorkerManager, "overdue", nobody_overdue, "I4"),
        (Grants, "grant", feed_nobody_after_a_while, "I5"),
        (TaskManager, "finish_if_done", forget_nothing, "I2"),
    ],
)
def test_a_broken_scheduler_is_found_out(
    monkeypatch: pytest.MonkeyPatch, place: type, name: str, sabotage: Callable[..., object], rule: str
) -> None:
    monkeypatch.setattr(place, name, sabotage)
    faults = (NodeCrash(4.0, 0, 15.0),)
    workload = small(2.0, unplannable=0.3)
    with pytest.raises(Violation) as caught:
        play(Scenario(1, (Member(NodeModel(2)), Member(NodeModel(2))), (Submission(workload),), faults))
    assert caught.value.rule == rule


def test_a_scheduler_that_never_says_why_nothing_moves_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waits, "look", never_said)
    cluster = Cluster(1)
    cluster.submit(small())
    with pytest.raises(Violation) as caught:
        cluster.run(10.0)
    assert caught.value.rule == "I11"


def test_scenarios_can_be_made_smaller_while_they_fail() -> None:
    scenario = draw_scenario(8)
    play(replace(scenario, faults=scenario.faults[:1], members=scenario.members[:1]))


# --- planning capacity ---


def test_more_nodes_take_less_time_and_the_shares_add_up() -> None:
    question = CapacityQuestion(40, 5, 30.0, 0.5, 0.3, None, 10.0, slots=4, mtbf_s=3600.0, crashes=0.02)
    few, many = answer(question, 1), answer(question, 4)
    assert few.episodes == many.episodes == 200
    assert many.makespan_s < few.makespan_s / 2
    for each in (few, many):
        assert each.useful + each.loading + each.lost + each.idle == pytest.approx(1.0)
        assert min(each.useful, each.loading, each.lost, each.idle) >= 0.0
        assert 0.5 < each.efficiency <= 1.0


def test_dynamic_scheduling_beats_the_static_one() -> None:
    question = CapacityQuestion(64, 10, 60.0, 0.6, 0.3, None, 20.0, slots=4, speed_spread=0.2)
    ours, static = answer(question, 4), answer(replace(question, dynload=False, one_slot_nodes=True), 4)
    assert ours.makespan_s < 0.85 * static.makespan_s


def test_nimbusctl_simulate_prints_a_row_for_every_number_of_nodes() -> None:
    arguments = ["--scenes", "20", "--episodes", "4", "--cost", "10", "--nodes", "1,3", "--seeds", "1"]
    done = CliRunner().invoke(simulate, arguments)
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines() if line.strip()[:1].isdigit()][-2:] == ["1", "3"]
    done = CliRunner().invoke(simulate, [*arguments, "--json"])
    assert [row["nodes"] for row in json.loads(done.output)["answers"]] == [1, 3]


def test_nimbusctl_simulate_says_what_is_missing() -> None:
    done = CliRunner().invoke(simulate, ["--cost", "10"])
    assert done.exit_code == 2
    assert "--scenes and --episodes" in done.output
    done = CliRunner().invoke(simulate, ["--cost", "10", "--nodes", "two"])
    assert "write 1,2,4,8" in done.output
