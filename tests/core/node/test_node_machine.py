"""A node's decisions, told as stories: which worker makes what, and what the master is told until it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from nimbusd.core.ids import JobId, LeaseId, NodeId, Span, WorkerId
from nimbusd.core.master.nodes import HEARTBEAT_S
from nimbusd.core.node.facts import (
    AssignJob,
    DropPiece,
    JobUnfit,
    NodeFact,
    NodeOrder,
    RecallWorker,
    StopWorker,
    WorkerWaits,
)
from nimbusd.core.node.held import MOST_REMEMBERED, TELL_AGAIN_S, HeldLeases
from nimbusd.core.node.machine import NodeMachine
from nimbusd.transport.messages.failures import Failure, FailureKind
from nimbusd.transport.messages.node import Ack, Commit, Drain, Fail, GiveBack, Heartbeat, Lease, Revoke, Stored
from nimbusd.transport.messages.worker import (
    AttemptFailed,
    Beat,
    EpisodeStored,
    MakeEpisode,
    WorkerPulls,
    WorkerReturns,
)
from tests.support.node_facts import attempt, gone, welcome

NODE, JOB, OTHER = NodeId("n"), JobId("job"), JobId("other")
W1, W2 = WorkerId("gpu:0#0"), WorkerId("gpu:1#1")


def lease(number: int, scene: str, count: int, job: JobId = JOB, attempt: int = 1) -> Lease:
    return Lease(NODE, LeaseId(number), job, scene, attempt, (Span(0, count),))


def piece(index: int, scene: str = "s", attempt: int = 1, cost_s: float = 0.1) -> Stored:
    return Stored(index, f"{scene}_{index}.{attempt}", 1, 10, "d", cost_s)


def made(orders: Sequence[NodeOrder]) -> list[tuple[WorkerId, str, int]]:
    return [
        (order.worker, order.attempt.key.scene, order.attempt.key.index)
        for order in orders
        if isinstance(order, MakeEpisode)
    ]


def told(orders: Sequence[NodeOrder]) -> list[NodeOrder]:
    return [order for order in orders if isinstance(order, Commit | Fail | GiveBack)]


class NodeStory:
    """A node's machine, its clock, and workers that pull one episode each and begin the first that they have."""

    def __init__(self, *workers: WorkerId, slots: int = 2) -> None:
        self.now = 100.0
        self.machine = NodeMachine(NODE, "1", slots)
        for worker in workers:
            self.tell(WorkerWaits(worker))

    def tell(self, *facts: NodeFact) -> list[NodeOrder]:
        orders = [order for fact in facts for order in self.machine.handle(fact, self.now)]
        orders += self.machine.settle(self.now)
        for order in list(orders):
            if isinstance(order, AssignJob):
                orders += self.tell(WorkerPulls(order.worker, 1))
            elif isinstance(order, MakeEpisode) and order.worker not in {
                worker for worker, _ in self.machine.running(self.now)
            }:
                self.machine.handle(Beat(order.worker, order.attempt, "plan"), self.now)
        return orders

    def pass_time(self, seconds: float) -> list[NodeOrder]:
        self.now += seconds
        return self.tell()

    def store(self, worker: WorkerId, number: int, index: int, scene: str = "s", fence: int = 1) -> list[NodeOrder]:
        stored = EpisodeStored(worker, attempt(number, index, scene, number=fence), piece(index, scene))
        return self.tell(stored, WorkerPulls(worker, 1))


def test_a_worker_without_a_job_is_assigned_the_one_that_waits() -> None:
    story = NodeStory(W1)
    orders = story.tell(lease(1, "s", 2))
    assert AssignJob(W1, JOB) in orders
    assert made(orders) == [(W1, "s", 0)]


def test_every_worker_takes_a_scene_that_no_other_has_loaded_and_keeps_it() -> None:
    story = NodeStory(W1, W2)
    orders = story.tell(lease(1, "s", 3), lease(2, "t", 3))
    assert {(worker, scene) for worker, scene, _ in made(orders)} == {(W1, "s"), (W2, "t")}
    assert made(story.store(W2, 2, 0, "t")) == [(W2, "t", 1)]
    assert made(story.store(W1, 1, 0)) == [(W1, "s", 1)]


def test_an_episode_goes_to_the_idle_worker_that_has_its_scene_loaded() -> None:
    story = NodeStory(W1, W2)
    story.tell(lease(1, "s", 1), lease(2, "t", 1))
    story.store(W1, 1, 0)
    story.store(W2, 2, 0, "t")
    assert made(story.tell(lease(3, "t", 1))) == [(W2, "t", 0)]


def test_a_scene_that_only_one_worker_has_is_shared_rather_than_let_a_slot_idle() -> None:
    story = NodeStory(W1, W2)
    assert [worker for worker, _, _ in made(story.tell(lease(1, "s", 2)))] == [W1, W2]


def test_a_worker_is_recalled_when_only_another_jobs_work_waits() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 1))
    story.store(W1, 1, 0)
    assert RecallWorker(W1) in story.tell(lease(2, "t", 1, job=OTHER))
    assert not made(story.tell())
    story.tell(gone(W1, "left", ""))
    assert made(story.tell(WorkerWaits(W2))) == [(W2, "t", 0)]


def test_a_piece_is_told_until_it_is_acknowledged() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 1))
    (first,) = told(story.store(W1, 1, 0))
    assert isinstance(first, Commit)
    assert not told(story.pass_time(TELL_AGAIN_S - 0.5))
    assert told(story.pass_time(1.5)) == [first]
    story.tell(Ack(NODE, LeaseId(1), (0,)))
    assert not told(story.pass_time(2 * TELL_AGAIN_S))
    assert story.machine.idle()


def test_new_outcomes_of_a_lease_do_not_put_off_telling_a_lost_one_again() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 20))
    again: list[int] = []
    for index in range(8):
        orders = told(story.store(W1, 1, index))
        again += [len(order.stored) for order in orders if isinstance(order, Commit) and len(order.stored) > 1]
        story.now += 1.0
    assert again, "the first pieces were never told again"


def test_everything_is_told_again_to_a_master_that_says_welcome() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 2))
    (first,) = told(story.store(W1, 1, 0))
    orders = story.tell(welcome())
    assert first in orders
    (beat,) = (order for order in orders if isinstance(order, Heartbeat))
    assert beat.held == (1,)
    assert [(running.lease, running.index) for running in beat.running] == [(1, 1)]


def test_the_piece_of_a_fenced_attempt_is_dropped_when_it_is_refused() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 1))
    story.store(W1, 1, 0)
    assert DropPiece(JOB, "s_0.1") in story.tell(Ack(NODE, LeaseId(1), (), (0,)))


def test_a_revoked_lease_does_not_drop_pieces_that_may_be_committed() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 3))
    story.store(W1, 1, 0)
    orders = story.tell(Revoke(NODE, LeaseId(1), (), kill=True))
    assert not [order for order in orders if isinstance(order, DropPiece)]
    assert StopWorker(W1, "what it is making is no longer wanted") in orders
    again = told(story.pass_time(TELL_AGAIN_S + 1.0))
    assert [order.stored[0].index for order in again if isinstance(order, Commit)] == [0]
    story.tell(gone(W1, "stopped", ""), Ack(NODE, LeaseId(1), (0,)))
    assert story.machine.idle()
    assert not any(story.machine.sizes().values())


def test_a_split_gives_back_what_has_not_begun() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 4))
    assert told(story.tell(Revoke(NODE, LeaseId(1), (0, 2, 3)))) == [GiveBack(NODE, LeaseId(1), (2, 3))]
    assert told(story.pass_time(TELL_AGAIN_S)) == [GiveBack(NODE, LeaseId(1), (2, 3))]
    story.tell(Ack(NODE, LeaseId(1), (2, 3)))
    assert made(story.store(W1, 1, 0)) == [(W1, "s", 1)]


def test_a_lease_that_comes_twice_is_not_made_twice() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 1))
    assert not made(story.tell(lease(1, "s", 1)))
    story.store(W1, 1, 0)
    story.tell(Ack(NODE, LeaseId(1), (0,)))
    assert not made(story.tell(lease(1, "s", 1)))
    assert story.machine.idle()


def test_a_lease_that_comes_after_its_end_is_not_opened() -> None:
    story = NodeStory(W1)
    story.tell(Revoke(NODE, LeaseId(1), (), kill=True))
    assert not made(story.tell(lease(1, "s", 1)))


def test_what_is_remembered_of_leases_that_are_over_is_bounded() -> None:
    leases = HeldLeases()
    for number in range(2 * MOST_REMEMBERED):
        leases.remember_over(LeaseId(number))
    assert leases.remembered() == MOST_REMEMBERED


def test_what_a_dead_worker_had_begun_failed_and_what_it_had_not_is_made_by_another() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 9))
    story.tell(WorkerPulls(W1, 1))
    story.now += 2.0
    orders = story.tell(gone(W1, "crashed", "SIGSEGV", "stack"))
    (failure,) = told(orders)
    assert isinstance(failure, Fail)
    assert (failure.attempt.key.index, failure.failure.reason, failure.cost_s) == (0, "crashed", 2.0)
    assert failure.failure.kind is FailureKind.COUNTED
    assert [index for _, _, index in made(story.tell(WorkerWaits(W2)))] == [1]


def storing_and_rendering() -> NodeStory:
    """Episode 0 is being stored and episode 1 rendered, episode 2 waits in the worker's queue."""
    story = NodeStory(W1)
    story.tell(lease(1, "s", 9))
    story.tell(Beat(W1, attempt(1, 0), "store"), WorkerPulls(W1, 2))
    story.now += 1.0
    story.tell(Beat(W1, attempt(1, 1), "load"), Beat(W1, attempt(1, 1), "render"))
    return story


@pytest.mark.parametrize(("stage", "guilty", "innocent"), [("render", 1, 0), ("plan", 1, 0), ("store", 0, 1)])
def test_an_episode_whose_worker_hung_in_another_one_is_returned_and_not_charged(
    stage: str, guilty: int, innocent: int
) -> None:
    story = storing_and_rendering()
    orders = told(story.tell(gone(W1, "hang", "killed", "stack", stage)))
    assert [order.attempt.key.index for order in orders if isinstance(order, Fail)] == [guilty]
    assert [order.indexes for order in orders if isinstance(order, GiveBack)] == [(innocent,)]
    assert [index for _, _, index in made(story.tell(WorkerWaits(W2)))] == [2]
    story.tell(Ack(NODE, LeaseId(1), (0, 1)))
    assert story.machine.sizes()["leases"] == 1, "the rest of the lease goes on"


@pytest.mark.parametrize("stage", ["", "wait"])
def test_where_nobody_can_tell_which_thread_hung_all_that_had_begun_is_charged(stage: str) -> None:
    story = storing_and_rendering()
    if stage:
        story.tell(EpisodeStored(W1, attempt(1, 1), piece(1)))
    orders = told(story.tell(gone(W1, "hang", "killed", "stack", stage)))
    assert [order.attempt.key.index for order in orders if isinstance(order, Fail)] == ([0] if stage else [0, 1])
    assert not [order for order in orders if isinstance(order, GiveBack)]


def test_an_episode_that_cost_a_worker_before_is_made_alone() -> None:
    for careful in (False, True):
        story = NodeStory(W1)
        story.tell(lease(1, "s", 1))
        orders = story.tell(replace(lease(2, "t", 4, attempt=2), careful=careful), WorkerPulls(W1, 9))
        assert made(orders) == ([] if careful else [(W1, "t", index) for index in range(3)])
    assert made(story.store(W1, 1, 0)) == [(W1, "t", 0)]
    assert made(story.tell(WorkerPulls(W1, 9))) == []
    assert made(story.store(W1, 2, 0, "t", fence=2)) == [(W1, "t", 1)]


def test_of_two_episodes_that_are_not_stored_yet_a_hang_is_the_later_ones_fault() -> None:
    story = storing_and_rendering()
    story.now += 1.0
    story.tell(Beat(W1, attempt(1, 2), "load"))
    orders = told(story.tell(gone(W1, "hang", "killed", "", "load")))
    assert [order.attempt.key.index for order in orders if isinstance(order, Fail)] == [2]


def test_a_failed_plan_is_told_as_a_result() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 1))
    no_path = Failure("plan", "no_path", "no way to the goal", kind=FailureKind.PLANNING)
    fact = AttemptFailed(W1, attempt(1, 0), no_path)
    (failure,) = told(story.tell(fact))
    assert isinstance(failure, Fail)
    assert failure.failure == no_path


def test_a_draining_node_finishes_what_has_begun_and_gives_back_the_rest() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 3))
    orders = story.tell(Drain(True))
    assert told(orders) == [GiveBack(NODE, LeaseId(1), (1, 2))]
    assert not made(story.store(W1, 1, 0))
    beats = [order for order in story.pass_time(HEARTBEAT_S) if isinstance(order, Heartbeat)]
    assert [beat.credit for beat in beats] == [0]
    assert told(story.tell(lease(2, "s", 1))) == [GiveBack(NODE, LeaseId(2), (0,))]


def test_a_draining_node_gives_back_what_its_workers_hand_back_later() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 9))
    assert [index for _, _, index in made(story.tell(WorkerPulls(W1, 1)))] == [1], "it has one more in its queue"
    story.tell(Drain(True))
    orders = story.tell(WorkerReturns(W1, (attempt(1, 1),)))
    assert told(orders) == [GiveBack(NODE, LeaseId(1), (1,))]


def test_a_job_that_cannot_be_made_here_is_given_back() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 3))
    orders = story.tell(JobUnfit(JOB), gone(W1, "cannot_open", ""))
    returned = {index for order in told(orders) if isinstance(order, GiveBack) for index in order.indexes}
    assert returned == {0, 1, 2}


def test_credit_is_a_slot_each_while_costs_are_unknown_and_much_more_when_they_are_short() -> None:
    story = NodeStory(W1, W2)
    (beat,) = (order for order in story.pass_time(HEARTBEAT_S) if isinstance(order, Heartbeat))
    assert beat.credit == 2
    story.tell(lease(1, "s", 1))
    story.tell(EpisodeStored(W1, attempt(1, 0), piece(0, cost_s=0.001)), WorkerPulls(W1, 1))
    (beat,) = (order for order in story.pass_time(HEARTBEAT_S) if isinstance(order, Heartbeat))
    assert beat.credit >= 1000


def test_a_worker_that_is_idle_is_told_of_though_another_has_more_than_it_can_do() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 9))
    story.tell(WorkerPulls(W1, 1))
    story.tell(Revoke(NODE, LeaseId(1), (2, 3, 4, 5, 6, 7, 8)))  # W1 still has two of them
    (beat,) = (order for order in story.tell(WorkerWaits(W2)) if isinstance(order, Heartbeat))
    assert beat.credit == 1


def test_a_node_whose_capacity_stays_tells_of_it_once_an_interval_however_much_it_stores() -> None:
    story = NodeStory(W1)
    story.tell(lease(1, "s", 1))
    story.tell(EpisodeStored(W1, attempt(1, 0), piece(0, cost_s=1e-4)), WorkerPulls(W1, 1))
    (beat,) = (order for order in story.pass_time(HEARTBEAT_S) if isinstance(order, Heartbeat))
    assert beat.credit > 20
    story.tell(lease(2, "t", 20))
    orders = []
    for index in range(20):
        again = EpisodeStored(W1, attempt(2, index, "t"), piece(index, "t", cost_s=1e-4))
        orders += story.tell(again, WorkerPulls(W1, 1))
    assert sum(isinstance(order, Commit) for order in orders) == 1, "the rest waits for the answer"
    assert not [order for order in orders if isinstance(order, Heartbeat)]


def test_a_node_that_gave_episodes_back_says_at_once_what_it_can_take() -> None:
    story = NodeStory(W1, W2)
    story.tell(lease(1, "s", 4))
    story.pass_time(HEARTBEAT_S)
    orders = story.tell(Revoke(NODE, LeaseId(1), (2, 3)))
    assert [order.indexes for order in orders if isinstance(order, GiveBack)] == [(2, 3)]
    orders += story.store(W1, 1, 0)
    assert [order for order in orders if isinstance(order, Heartbeat)]


def test_long_episodes_are_not_queued() -> None:
    story = NodeStory(W1, W2)
    story.tell(lease(1, "s", 1))
    story.tell(EpisodeStored(W1, attempt(1, 0), piece(0, cost_s=60.0)), WorkerPulls(W1, 1))
    (beat,) = (order for order in story.pass_time(HEARTBEAT_S) if isinstance(order, Heartbeat))
    assert beat.credit == 2


def test_heartbeats_count_up_and_come_at_least_every_interval() -> None:
    story = NodeStory(W1)
    beats = [order for _ in range(5) for order in story.pass_time(HEARTBEAT_S) if isinstance(order, Heartbeat)]
    assert [beat.seq for beat in beats] == list(range(beats[0].seq, beats[0].seq + 5))
