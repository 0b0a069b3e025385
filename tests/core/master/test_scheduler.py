"""The master's decisions, told as stories: who gets what, and what is done when nothing is left to lease."""

from __future__ import annotations

import pytest

from nimbusd.core.ids import JobId, LeaseId, Span
from nimbusd.core.master.facts import CheckSettled, JobAdded, NodeDrainAsked, ReviewBegan
from nimbusd.core.records import JobRecorded, JobState, LeaseOpened, State
from nimbusd.transport.messages.node import Bye, CannotRun, GiveBack, Heartbeat, Lease, Revoke, SayHello
from tests.support.scheduler_story import (
    JOB,
    OTHER,
    A,
    B,
    C,
    SchedulerStory,
    ended,
    failed,
    grants,
    opened,
    places,
    plan,
    records,
    restarted,
    scene,
)

# --- who gets what ---


def test_a_lease_is_recorded_before_it_is_granted() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    opened, grant = story.beat(A, credit=1)
    assert isinstance(opened, LeaseOpened)
    assert isinstance(grant, Lease)
    assert opened.lease == grant.lease
    assert grant.spans == (Span(0, 1),)


def test_a_node_gets_no_more_than_its_credit_and_leases_on_their_way_count() -> None:
    story = SchedulerStory(plan(scene("s", 100)))
    story.join(A, slots=4)
    assert len(places(story.beat(A, credit=4))) == 4
    assert not grants(story.tell())
    assert not grants(story.tell(Heartbeat(A, "1", 2, 4, (), ()))), "it was said before the leases arrived"
    assert len(places(story.tell(Heartbeat(A, "1", 3, 2, tuple(story.held[A]), ())))) == 2


def test_a_node_that_commits_gets_more_without_a_heartbeat() -> None:
    story = SchedulerStory(plan(scene("s", 100)))
    story.join(A, slots=2)
    lease, other = grants(story.beat(A, credit=2))
    assert len(places(story.store(lease, 0))) == 1
    assert not grants(story.tell(NodeDrainAsked(A, True))) + grants(story.store(other, 1))


def test_a_node_that_gives_back_unasked_gets_nothing_until_it_says_so() -> None:
    story = SchedulerStory(plan(scene("s", 100)))
    story.join(A, slots=2)
    lease, other = grants(story.beat(A, credit=2))
    assert not grants(story.tell(GiveBack(A, lease.lease, (0,))))
    assert grants(story.beat(A, credit=1))
    assert other.lease in story.scheduler.tasks.leases


def test_a_scene_whose_node_was_lost_waits_in_its_place_among_the_longest() -> None:
    story = SchedulerStory(plan(scene("long", 10, hint=9.0), *(scene(f"s{n}", 10) for n in range(9))))
    for node in (A, B):
        story.join(node)
    assert [lease.scene for lease in grants(story.beat(A, credit=1))] == ["long"]
    story.tell(Bye(A, "1", "maintenance"))
    assert [lease.scene for lease in grants(story.beat(B, credit=1))] == ["long"]


def test_every_slot_gets_a_scene_of_its_own_and_then_more_of_it() -> None:
    story = SchedulerStory(plan(*(scene(f"s{n}", 10) for n in range(8))))
    story.join(A, slots=4)
    first = story.beat(A, credit=8)
    assert len({name for name, _ in places(first)}) == 4
    more = story.store_all(first)
    assert {name for name, _ in places(more)} == {name for name, _ in places(first)}


def test_the_longest_scenes_come_first() -> None:
    hints = {"short": 1.0, "long": 9.0, "medium": 3.0}
    story = SchedulerStory(plan(*(scene(name, 10, hint) for name, hint in hints.items())))
    order = []
    for node in (A, B, C):
        story.join(node)
        order += [lease.scene for lease in grants(story.beat(node, credit=1))]
    assert order == ["long", "medium", "short"]


def test_ranges_shrink_as_less_is_left() -> None:
    story = SchedulerStory(plan(scene("s", 400)))
    for node in (A, B):
        story.join(node)
    sizes: list[int] = []
    while leases := grants(story.beat(A, credit=1000)):
        sizes += [lease.spans[0].size for lease in leases]
    assert sizes[0] == 100
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_one_node_does_not_take_all_that_is_left_however_much_it_can_hold() -> None:
    story = SchedulerStory(plan(*(scene(f"s{n}", 40) for n in range(10))))
    for node in (A, B):
        story.join(node)
    assert len(places(story.beat(A, credit=1000))) == 120, "a quarter, in whole scenes of 40"
    assert len(places(story.beat(B, credit=1000))) == 80


def test_every_idle_slot_gets_an_episode_though_that_is_more_than_the_range() -> None:
    story = SchedulerStory(plan(scene("s", 40)))
    story.join(A, slots=30)
    story.join(B, slots=30)
    assert 30 <= len(places(story.beat(A, credit=100))) < 40


def test_a_scene_that_cannot_be_done_in_time_gets_more_slots_before_the_others_begin() -> None:
    story = SchedulerStory(plan(scene("heavy", 20), *(scene(f"s{n}", 2) for n in range(10))))
    story.join(A)
    story.join(B)
    (heavy,), (light,) = grants(story.beat(A, credit=1)), grants(story.beat(B, credit=1))
    assert (heavy.scene, light.scene) == ("heavy", "s9")
    (light,) = grants(story.store(light, 0, cost_s=1.0))
    assert light.scene == "s9", "it has this one loaded"
    story.store(heavy, 0, cost_s=100.0)
    story.now += 2.0
    assert [lease.scene for lease in grants(story.store(light, 1, cost_s=1.0))] == ["heavy"]


def test_a_job_of_higher_priority_goes_first() -> None:
    story = SchedulerStory(plan(scene("s", 10)), plan(scene("t", 2), job=OTHER, priority=1))
    story.join(A, slots=4)
    assert grants(story.beat(A, credit=4))[0].job == OTHER


def test_users_share_slots_fairly_though_one_has_more_jobs() -> None:
    ann = [plan(scene("s", 1000), job=JobId(f"ann{n}"), user="ann") for n in range(3)]
    story = SchedulerStory(*ann, plan(scene("t", 1000), job=JobId("bob"), user="bob"))
    story.join(A)
    used = {"ann": 0, "bob": 0}
    orders = story.beat(A, credit=1)
    for _ in range(200):
        (lease,) = grants(orders)
        used["bob" if lease.job == "bob" else "ann"] += 1
        orders = story.store_all(orders)
    assert used["ann"] == pytest.approx(100, abs=25)


def test_nodes_with_another_environment_get_nothing() -> None:
    story = SchedulerStory(plan(scene("s", 10), environment="e1"))
    story.join(A, environment="e2")
    story.join(B, environment="e1")
    assert not grants(story.beat(A, credit=5))
    assert grants(story.beat(B, credit=1))


def test_the_first_node_decides_the_environment_and_its_first_commit_records_it() -> None:
    story = SchedulerStory(plan(scene("s", 10)))
    story.join(A, environment="e1")
    story.join(B, environment="e2")
    (lease,) = grants(story.beat(A, credit=1))
    assert not grants(story.beat(B, credit=5))
    assert JobRecorded(JOB, JobState.RUNNING, environment="e1") in story.store(lease, 0)


def test_a_restarted_master_leaves_the_environment_to_the_nodes_that_hold_leases() -> None:
    story, _ = restarted(opened(7, A, 1, 0, 1))
    held = Lease(A, LeaseId(7), JOB, "s", 1, (Span(0, 1),))
    story.join(B, environment="e2")
    assert not grants(story.beat(B, credit=5))
    assert story.store(held, 0) == [SayHello(A)], "it has not said what its environment is"
    story.join(A, environment="e1")
    assert JobRecorded(JOB, JobState.RUNNING, environment="e1") in story.store(held, 0)
    assert not grants(story.beat(B, credit=5))


def test_a_job_uses_no_more_nodes_than_it_may() -> None:
    story = SchedulerStory(plan(scene("s", 10), max_nodes=1))
    for node in (A, B):
        story.join(node)
    first = story.beat(A, credit=1)
    assert grants(first)
    assert not grants(story.beat(B, credit=1))
    story.tell(NodeDrainAsked(A, True))
    story.store_all(first)
    assert grants(story.beat(B, credit=1))


def test_without_dynload_every_node_has_its_fixed_share() -> None:
    story = SchedulerStory(plan(*(scene(f"s{n}", 2) for n in range(4)), dynload=False))
    for node in (A, B):
        story.join(node)
    mine = story.beat(A, credit=100)
    assert {name for name, _ in places(mine)} == {"s0", "s2"}
    story.store_all(mine)
    assert not grants(story.beat(A, credit=100))
    assert {name for name, _ in places(story.beat(B, credit=100))} == {"s1", "s3"}


def test_the_fixed_share_of_a_node_that_cannot_work_goes_to_the_others() -> None:
    story = SchedulerStory(plan(*(scene(f"s{n}", 1) for n in range(4)), dynload=False))
    for node in (A, B):
        story.join(node)
    story.beat(A, credit=100)
    story.tell(NodeDrainAsked(B, True))
    orders = story.store_all(list(story.held[A].values()))
    assert {name for name, _ in places(orders)} == {"s1", "s3"}


def test_a_static_job_without_a_share_for_the_node_does_not_block_the_next_job() -> None:
    static = plan(scene("s", 2), dynload=False, priority=1)
    story = SchedulerStory(static, plan(scene("t", 2), job=OTHER))
    for node in (A, B):
        story.join(node)
    story.beat(A, credit=2)
    assert {lease.job for lease in grants(story.beat(B, credit=2))} == {OTHER}


def test_a_node_that_cannot_make_a_job_gets_no_more_of_it() -> None:
    story = SchedulerStory(plan(scene("s", 4)))
    story.join(A, environment="e1")
    story.join(B, environment="e2")
    story.beat(A, credit=2)
    orders = story.tell(CannotRun(A, JOB, "bpy is missing"))
    assert [record.state for record in records(orders)] == [State.PENDING, State.PENDING]
    assert not grants(story.beat(A, credit=2))
    assert grants(story.beat(B, credit=1)), "the job is not bound to the environment of a node that cannot make it"


# --- when nothing is pending ---


def share_out(episodes: int = 8, cost_s: float = 10.0) -> tuple[SchedulerStory, Lease]:
    """Node A holds everything that is left of a scene whose cost is known; B has nothing."""
    story = SchedulerStory(plan(scene("s", episodes + 1)))
    story.join(A)
    first = story.beat(A, credit=1)
    story.beat(A, credit=episodes)
    story.store_all(first, cost_s=cost_s)
    story.join(B)
    assert not story.scheduler.tasks.jobs[JOB].pending.episodes
    story.now += 1.0
    lease = story.held[A][next(iter(story.scheduler.tasks.held_by(A)))]
    return story, lease


def test_a_lease_is_split_when_another_node_has_nothing_to_do() -> None:
    story, lease = share_out()
    begun = lease.spans[0].start
    story.beat(A, credit=0, running=[(lease, begun, 1.0)])
    orders = story.beat(B, credit=2)
    asked = [order for order in orders if isinstance(order, Revoke)]
    assert asked
    assert all(order.node == A and not order.kill for order in asked)
    assert begun not in {index for order in asked for index in order.indexes if order.lease == lease.lease}
    given_back = story.tell(*(GiveBack(A, order.lease, order.indexes) for order in asked))
    assert {lease.node for lease in grants(given_back)} == {B}


def test_what_is_stored_already_is_not_asked_back_while_its_piece_is_looked_at() -> None:
    story, lease = share_out()
    stored = tuple(index for span in lease.spans for index in range(span.start, span.stop))
    story.tell(ReviewBegan(A, lease.lease, lease.job, lease.scene, lease.attempt, stored))
    story.beat(A, credit=0)
    asked = [order for order in story.beat(B, credit=2) if isinstance(order, Revoke)]
    assert not [order for order in asked if order.lease == lease.lease]


def test_what_is_given_back_goes_to_the_idle_node_though_another_jobs_episodes_are_not_for_it() -> None:
    story, lease = share_out()
    story.tell(JobAdded(plan(scene("t", 9), job=OTHER, environment="elsewhere")))
    story.beat(A, credit=0, running=[(lease, lease.spans[0].start, 1.0)])
    asked = [order for order in story.beat(B, credit=2) if isinstance(order, Revoke)]
    assert {lease.node for lease in grants(story.tell(GiveBack(A, asked[0].lease, asked[0].indexes)))} == {B}


def test_what_was_asked_back_is_not_asked_for_again_at_once() -> None:
    story, lease = share_out()
    story.beat(A, credit=0, running=[(lease, lease.spans[0].start, 1.0)])
    assert [o for o in story.beat(B, credit=2) if isinstance(o, Revoke)]
    story.now += 1.0
    assert not [o for o in story.beat(B, credit=2) if isinstance(o, Revoke)]
    story.now += 3.0  # the answer was lost
    orders = story.beat(A, credit=0, running=[(lease, lease.spans[0].start, 5.0)]) + story.beat(B, credit=2)
    assert [o for o in orders if isinstance(o, Revoke)]


def straggler() -> tuple[SchedulerStory, Lease, Lease]:
    """The last episode takes A much longer than it should; B has a copy of it."""
    story, lease = share_out(1)
    story.beat(A, credit=0, running=[(lease, 1, 35.0)])
    (copy,) = grants(story.beat(B, credit=2))
    return story, lease, copy


def test_a_straggler_is_run_again_elsewhere_and_the_first_commit_wins() -> None:
    story, lease, copy = straggler()
    assert copy.attempt > lease.attempt
    orders = story.store(copy, 1)
    assert [record.attempt for record in records(orders)] == [copy.attempt]
    assert Revoke(A, lease.lease, (1,), kill=True) in orders
    assert ended(orders) == [JobState.COMPLETE]
    assert [type(order) for order in story.store(lease, 1)] == [CheckSettled]


def test_the_original_may_win_over_its_copy() -> None:
    story, lease, copy = straggler()
    orders = story.store(lease, 1)
    assert [record.attempt for record in records(orders)] == [lease.attempt]
    assert Revoke(B, copy.lease, (1,), kill=True) in orders


def test_a_copy_that_fails_leaves_the_original_alone_and_its_number_is_not_used_again() -> None:
    story, lease, copy = straggler()
    story.tell(failed(copy, 1))
    assert not story.scheduler.tasks.jobs[JOB].pending.episodes
    orders = story.tell(failed(lease, 1))
    (record,) = records(orders)
    assert record.attempt == copy.attempt
    assert all(lease.attempt > copy.attempt for lease in grants(orders))


def test_a_quarantined_episode_remembers_its_copys_number() -> None:
    story, lease, copy = straggler()
    (record,) = records(story.tell(failed(lease, 1, final=True)))
    assert (record.state, record.attempt) == (State.QUARANTINED, copy.attempt)
