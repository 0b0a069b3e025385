"""The master's decisions, told as stories: nodes that come and go, jobs that end, masters that restart."""

from __future__ import annotations

from nimbusd.core.ids import LeaseId, Span
from nimbusd.core.master.facts import CheckSettled, DrainAsked, JobCancelled, NodeDrainAsked, NodeLost, Order
from nimbusd.core.records import JobState, LeaseClosed, SceneCount, SceneHistory, Tried
from nimbusd.transport.messages.node import Bye, Heartbeat, Lease, Revoke, SayHello
from tests.support.scheduler_story import (
    JOB,
    A,
    B,
    C,
    SchedulerStory,
    ended,
    grants,
    opened,
    plan,
    records,
    restarted,
    scene,
)

# --- nodes ---


def test_a_silent_node_is_lost_and_what_it_held_goes_to_others() -> None:
    story = SchedulerStory(plan(scene("s", 4)))
    story.join(A)
    story.beat(A, credit=4)
    story.now = 4.0
    story.join(B)
    assert not grants(story.beat(B, credit=4))
    story.now = 5.1
    orders = story.beat(B, credit=4)
    assert [order for order in orders if isinstance(order, NodeLost)]
    assert {lease.node for lease in grants(orders)} == {B}
    assert {lease.attempt for lease in grants(orders)} == {2}


def test_a_node_that_comes_back_after_it_was_lost_is_asked_to_say_hello() -> None:
    story = SchedulerStory(plan(scene("s", 4)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    story.pass_time(6.0)
    assert story.tell(Heartbeat(A, "1", 50, 1, (lease.lease,), ())) == [SayHello(A)]
    story.join(A)
    orders = story.tell(Heartbeat(A, "1", 51, 0, (lease.lease,), ()))
    assert Revoke(A, lease.lease, (), kill=True) in orders


def test_a_restarted_node_loses_its_leases_at_once() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    story.beat(A, credit=1)
    orders = story.join(A, session="2")
    assert NodeLost(A, "restarted", 1) in orders


def test_a_node_that_leaves_gives_its_leases_up() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    story.beat(A, credit=1)
    assert NodeLost(A, "maintenance", 1) in story.tell(Bye(A, "1", "maintenance"))
    assert not story.tell(Bye(A, "1", "maintenance"))


def test_a_lease_that_never_arrived_is_given_up() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    (lost,) = grants(story.beat(A, credit=1))
    orders: list[Order] = []
    for seq in range(100, 107):
        orders += story.tell(Heartbeat(A, "1", seq, 1, (), ()))
        story.now += 1.0
    assert LeaseClosed(lost.lease) in orders
    assert [lease.attempt for lease in grants(orders)] == [2]


def test_a_lease_that_was_lost_with_its_connection_is_given_up_at_once() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    (lost,) = grants(story.beat(A, credit=1))
    story.now += 0.5
    story.join(A)  # the same process, by a new connection
    orders = story.tell(Heartbeat(A, "1", 100, 1, (), ()))
    assert LeaseClosed(lost.lease) in orders
    assert [lease.attempt for lease in grants(orders)] == [2]


def test_attempts_begin_where_those_of_earlier_ledgers_cannot_be() -> None:
    story = SchedulerStory(plan(scene("s", 1), first_attempt=1001))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    assert lease.attempt == 1001
    story.tell(Bye(A, "1", "maintenance"))
    story.join(B)
    assert [lease.attempt for lease in grants(story.beat(B, credit=1))] == [1002]


def test_old_heartbeats_change_nothing() -> None:
    story = SchedulerStory(plan(scene("s", 4)))
    story.join(A)
    story.tell(Heartbeat(A, "1", 5, 0, (), ()))
    assert not story.tell(Heartbeat(A, "1", 4, 4, (), ()))


def test_a_drained_node_gets_nothing_until_it_is_undrained_also_when_it_comes_back() -> None:
    story = SchedulerStory(plan(scene("s", 4)))
    story.join(A)
    story.tell(NodeDrainAsked(A, True))
    assert not grants(story.beat(A, credit=2))
    story.join(A, session="2")
    assert not grants(story.tell(Heartbeat(A, "2", 1, 2, (), ())))
    story.tell(NodeDrainAsked(A, False))
    assert grants(story.tell(Heartbeat(A, "2", 2, 2, (), ())))


def test_a_master_that_is_about_to_leave_leases_nothing_more() -> None:
    story = SchedulerStory(plan(scene("s", 4)))
    story.join(A)
    story.tell(DrainAsked())
    assert not grants(story.beat(A, credit=2))


def test_deadlines_of_nodes_that_come_and_go_do_not_pile_up() -> None:
    story = SchedulerStory()
    for session in range(100):
        story.join(A, session=str(session))
        story.now += 0.01
    assert len(story.scheduler.nodes._due) == 1


# --- the job's end and the master's restart ---


def test_cancelling_stops_everything_and_records_it() -> None:
    story = SchedulerStory(plan(scene("s", 4)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    orders = story.tell(JobCancelled(JOB))
    assert Revoke(A, lease.lease, (0,), kill=True) in orders
    assert LeaseClosed(lease.lease) in orders
    assert ended(orders) == [JobState.CANCELLED]
    assert not any(story.scheduler.sizes().values())
    assert [type(order) for order in story.store(lease, 0)] == [CheckSettled]


def test_nothing_is_remembered_of_a_job_that_has_ended() -> None:
    story = SchedulerStory(plan(scene("s", 20)))
    story.join(A, slots=2)
    orders = story.beat(A, credit=4)
    while grants(orders):
        orders = story.store_all(orders)
    assert ended(orders) == [JobState.COMPLETE]
    assert not any(story.scheduler.sizes().values())


def test_a_restarted_master_waits_for_the_nodes_that_were_at_work() -> None:
    story, _ = restarted(opened(7, A, 1, 0, 4))
    story.join(B)
    assert not grants(story.beat(B, credit=4))
    held = Lease(A, LeaseId(7), JOB, "s", 1, (Span(0, 4),))
    story.join(A)
    story.tell(Heartbeat(A, "1", 1, 0, (LeaseId(7),), ()))
    orders = story.store(held, 0, 1, 2, 3)
    assert ended(orders) == [JobState.COMPLETE]


def test_a_restarted_master_gives_nodes_up_that_do_not_come_back() -> None:
    story, _ = restarted(opened(7, A, 1, 0, 4))
    orders = story.pass_time(10.5)
    assert NodeLost(A, "has been silent for 5 s", 4) in orders
    assert {record.attempt for record in records(orders)} == {1}


def test_a_restarted_master_does_not_restore_what_a_lease_had_given_up() -> None:
    history = {"s": SceneHistory(SceneCount(committed=1), (Span(0, 1),), {1: Tried(1, 0)})}
    story, _ = restarted(opened(7, A, 1, 0, 3), opened(8, B, 2, 1, 2), history=history)
    assert story.scheduler.tasks.leases[LeaseId(7)].open == {2}
    assert story.scheduler.tasks.leases[LeaseId(8)].open == {1}


def test_a_restarted_master_restores_both_leases_of_an_episode_that_runs_twice() -> None:
    story, _ = restarted(opened(7, A, 1, 0, 1), opened(8, B, 2, 0, 1))
    copies = story.scheduler.tasks.jobs[JOB].copies
    assert [lease.id for lease in copies["s", 0]] == [7, 8]
    orders = story.pass_time(10.5)
    orders += story.join(C) + story.beat(C, credit=4)
    assert 3 in {lease.attempt for lease in grants(orders)}


def test_a_restarted_master_closes_leases_of_which_nothing_is_left() -> None:
    history = {"s": SceneHistory(SceneCount(committed=2), (Span(0, 2),), {})}
    _, orders = restarted(opened(7, A, 1, 0, 2), history=history)
    assert orders == [LeaseClosed(LeaseId(7))]


def test_lease_numbers_never_repeat_across_restarts() -> None:
    first, second = SchedulerStory(plan(scene("s", 4)), epoch=1), SchedulerStory(plan(scene("s", 4)), epoch=2)
    numbers = []
    for story in (first, second):
        story.join(A)
        numbers += [lease.lease for lease in grants(story.beat(A, credit=4))]
    assert len(set(numbers)) == len(numbers)
