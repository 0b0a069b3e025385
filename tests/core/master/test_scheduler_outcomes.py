"""The master's decisions, told as stories: what becomes of episodes that are stored or fail, and when a job pauses."""

from __future__ import annotations

from nimbusd.core.ids import JobId, LeaseId, NodeId, Span
from nimbusd.core.master.facts import CheckSettled, EpisodesReleased, JobAdded, NodeLost
from nimbusd.core.master.open_jobs import FIRST_PAUSE_S
from nimbusd.core.master.tasks import PAUSE_S
from nimbusd.core.records import JobRecorded, JobState, SceneCount, SceneHistory, State, Tried
from nimbusd.transport.messages.node import Ack, Commit, GiveBack, Lease
from tests.support.scheduler_story import (
    JOB,
    A,
    B,
    SchedulerStory,
    ended,
    failed,
    grants,
    hello,
    places,
    plan,
    records,
    scene,
    stored,
)


def test_a_commit_repeated_is_checked_against_the_ledger_instead_of_counted_twice() -> None:
    story = SchedulerStory(plan(scene("s", 2)))
    story.join(A)
    lease = grants(story.beat(A, credit=1))[0]
    assert Ack(A, lease.lease, (0,)) in story.store(lease, 0)
    (check,) = (order for order in story.store(lease, 0) if isinstance(order, CheckSettled))
    assert check.folder == "s_0.1"
    assert story.scheduler.tasks.jobs[JOB].scenes["s"].count.committed == 1


def test_a_late_commit_is_taken_if_nobody_else_was_leased_the_episode_since() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    lease = grants(story.beat(A, credit=1))[0]
    assert any(isinstance(order, NodeLost) for order in story.pass_time(6.0))
    orders = story.store(lease, 0)
    assert [record.state for record in records(orders)] == [State.COMMITTED]
    assert ended(orders) == [JobState.COMPLETE]


def test_a_zombies_commit_is_refused_after_the_episode_went_to_another_node() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    lease = grants(story.beat(A, credit=1))[0]
    story.pass_time(6.0)
    story.join(B)
    (second,) = grants(story.beat(B, credit=1))
    assert second.attempt == lease.attempt + 1
    assert [type(order) for order in story.store(lease, 0)] == [CheckSettled]
    story.tell(GiveBack(B, second.lease, (0,)))
    assert [type(order) for order in story.store(lease, 0)] == [CheckSettled], (
        "a refused piece is gone: it cannot be taken later"
    )


def test_a_piece_that_an_earlier_master_may_have_refused_is_not_taken() -> None:
    history = {"s": SceneHistory(SceneCount(), (), {0: Tried(1, 0)})}
    story = SchedulerStory()
    story.tell(JobAdded(plan(scene("s", 1), environment="e"), history))
    lease = Lease(A, LeaseId(7), JOB, "s", 1, (Span(0, 1),))
    assert [type(order) for order in story.store(lease, 0)] == [CheckSettled]


def test_messages_that_name_a_live_lease_but_another_scene_change_nothing() -> None:
    story = SchedulerStory(plan(scene("s", 1), scene("t", 1)))
    story.join(A)
    lease = grants(story.beat(A, credit=1))[0]
    wrong = Commit(A, lease.lease, JOB, "nowhere", lease.attempt, stored(lease, 0).stored)
    assert [type(order) for order in story.tell(wrong)] == [CheckSettled]


def test_a_planning_failure_is_final_and_the_next_index_takes_its_place() -> None:
    story = SchedulerStory(plan(scene("s", 2, exact=True)))
    story.join(A)
    first = story.beat(A, credit=1)
    orders = story.tell(failed(grants(first)[0], 0, planned=True))
    assert [(record.key.index, record.state) for record in records(orders)] == [(0, State.FAILED)]
    assert places(orders) == [("s", 1)]
    orders = story.store_all(orders)
    assert places(orders) == [("s", 2)]
    assert ended(story.store_all(orders)) == [JobState.COMPLETE]


def test_an_episode_that_kills_its_workers_is_quarantined_and_the_job_goes_on() -> None:
    story = SchedulerStory(plan(scene("s", 2), attempts=2))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    orders = story.tell(failed(lease, 0))
    (record,), (lease,) = records(orders), grants(orders)
    assert (record.state, record.losses) == (State.PENDING, 1)
    assert (lease.attempt, lease.spans) == (2, (Span(0, 1),))
    orders = story.tell(failed(lease, 0))
    (record,) = records(orders)
    assert (record.state, record.losses, record.failure and record.failure.reason) == (State.QUARANTINED, 2, "crashed")
    assert ended(story.store_all(orders)) == [JobState.INCOMPLETE]


def test_an_episode_that_takes_node_after_node_with_it_is_set_aside() -> None:
    story = SchedulerStory(plan(scene("s", 1), attempts=1))
    for round in range(3):
        node = NodeId(f"n{round}")
        story.join(node)
        (lease,) = grants(story.beat(node, credit=1))
        story.beat(node, credit=0, running=[(lease, 0, 1.0)])
        orders = story.tell(hello(node, "2", "e", 1))  # it restarted
    assert [record.state for record in records(orders)] == [State.QUARANTINED]


def test_an_episode_that_cost_an_attempt_is_leased_with_care() -> None:
    story = SchedulerStory(plan(scene("s", 3)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    assert not lease.careful
    again = grants([*story.tell(failed(lease, 0)), *story.beat(A, credit=2)])
    assert [other.careful for other in again] == [True, False, False]


def test_quarantined_episodes_get_another_chance() -> None:
    story = SchedulerStory(plan(scene("s", 2)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    (other,) = grants(story.tell(failed(lease, 0, final=True)))
    assert other.spans == (Span(1, 2),)
    orders = story.tell(EpisodesReleased(JOB, {"s": {0: Tried(1, 0)}})) + story.store(other, 1)
    assert [(lease.attempt, lease.spans) for lease in grants(orders)] == [(2, (Span(0, 1),))]
    assert not story.tell(EpisodesReleased(JobId("gone"), {"s": {0: Tried(1, 0)}}))


def test_a_full_disk_pauses_the_job_which_goes_on_by_itself() -> None:
    story = SchedulerStory(plan(scene("s", 3)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    orders = story.tell(failed(lease, 0, blameless=True))
    assert ended(orders) == [JobState.PAUSED]
    (record,) = records(orders)
    assert (record.state, record.losses) == (State.PENDING, 0)
    assert not grants(story.beat(A, credit=1))
    story.now += FIRST_PAUSE_S
    orders = story.beat(A, credit=1)
    assert ended(orders) == [JobState.RUNNING]
    assert grants(orders)


def test_a_paused_job_that_is_bound_to_an_environment_keeps_why_it_is_paused() -> None:
    story = SchedulerStory(plan(scene("s", 3)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=2))
    story.tell(failed(lease, 0, blameless=True))
    (bound,) = (order for order in story.store(lease, 1) if isinstance(order, JobRecorded))
    assert (bound.state, bound.why, bound.environment) == (JobState.PAUSED, "SIGSEGV", "e")


def test_a_job_whose_disk_stays_full_tries_ever_more_rarely_until_it_stores_something() -> None:
    story = SchedulerStory(plan(scene("s", 3)))
    story.join(A)

    def pause_s() -> float:
        (lease,) = grants(story.beat(A, credit=1))
        assert ended(story.tell(failed(lease, lease.spans[0].start, blameless=True))) == [JobState.PAUSED]
        began = story.now
        while True:
            story.now += 1.0
            if JobState.RUNNING in ended(story.beat(A, credit=0)):
                return story.now - began

    assert [pause_s() for _ in range(6)] == [2.0, 4.0, 8.0, 16.0, PAUSE_S, PAUSE_S]
    (lease,) = grants(story.beat(A, credit=1))
    story.store(lease, lease.spans[0].start)
    assert pause_s() == FIRST_PAUSE_S
