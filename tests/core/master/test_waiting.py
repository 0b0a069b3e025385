"""Reasons why nothing of a job moves: each has its own words, is said after a while, and never of a job that moves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from nimbusd.core.environments import changes_in_words, differences
from nimbusd.core.ids import NodeId
from nimbusd.core.master.facts import (
    Cause,
    EnvironmentAccepted,
    JobAdded,
    JobWaits,
    NodeDrainAsked,
    Order,
    PackagesChanged,
    Waiting,
)
from nimbusd.core.master.waiting import HOLDS_S, why_idle
from nimbusd.core.records import JobRecorded, JobState
from nimbusd.transport.messages.node import Bye, CannotRun, Heartbeat
from tests.support.scheduler_story import (
    JOB,
    OTHER,
    A,
    B,
    C,
    SchedulerStory,
    failed,
    grants,
    hello,
    opened,
    plan,
    restarted,
    scene,
)

OLD, NEW = {"nimbusd": "0.3.0", "numpy": "1.26.4"}, {"nimbusd": "0.3.0", "numpy": "2.0.0"}


def joins(story: SchedulerStory, node: NodeId, packages: Mapping[str, str], session: str = "1", slots: int = 1) -> None:
    """A node whose environment is made of these packages."""
    story.tell(hello(node, session, str(packages), slots, packages))


def said(orders: list[Order]) -> list[Waiting | None]:
    return [order.waiting for order in orders if isinstance(order, JobWaits) and order.job == JOB]


def why(story: SchedulerStory) -> Waiting:
    """Let a reason hold, and read what was said."""
    story.tell()
    story.pass_time(1.0)
    story.pass_time(HOLDS_S)
    waiting = story.scheduler.waits.of(JOB)
    assert waiting is not None
    return waiting


def begun(packages: Mapping[str, str] = OLD) -> SchedulerStory:
    """A job of which one episode is committed on a node with these packages, which has left."""
    story = SchedulerStory(plan(scene("s", 10)))
    joins(story, A, packages)
    (lease,) = grants(story.beat(A, credit=1))
    story.store(lease, 0)
    story.tell(Bye(A, "1", "upgrade"))
    return story


# --- the reasons ---


def test_a_job_without_a_node_waits_for_one() -> None:
    waiting = why(SchedulerStory(plan(scene("s", 1))))
    assert waiting.cause is Cause.NO_NODE
    assert "nimbusd worker" in waiting.why


def test_a_job_whose_nodes_are_drained_says_how_one_gets_work_again() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    for node in (A, B):
        story.join(node)
        story.tell(NodeDrainAsked(node, True))
    waiting = why(story)
    assert waiting == Waiting(
        Cause.DRAINED, "all 2 nodes are being drained; give one work again: nimbusctl drain a --undo"
    )


def test_a_job_that_began_with_other_packages_names_them_with_both_versions() -> None:
    story = begun()
    joins(story, A, NEW, session="2")
    story.beat(A, credit=1)
    assert why(story) == Waiting(
        Cause.ENVIRONMENT,
        "numpy 1.26.4 when this job began, 2.0.0 on a. Roll one node back, or submit the job again with "
        "--accept-environment",
    )


def test_nodes_that_differ_alike_are_named_together_and_others_by_themselves() -> None:
    story = begun()
    for node in (A, B):
        joins(story, node, NEW, session="2")
    joins(story, C, {"numpy": "1.26.4"}, session="2")
    assert why(story).why.startswith(
        "numpy 1.26.4 when this job began, 2.0.0 on a, b; nimbusd 0.3.0 when this job began, none on c"
    )


def test_a_job_that_no_node_can_make_says_the_error() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    story.tell(CannotRun(A, JOB, "component 'x' is not installed"))
    assert why(story) == Waiting(Cause.UNFIT, "a: component 'x' is not installed")


def test_a_node_that_is_started_anew_is_asked_again_whether_it_can_make_a_job() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    story.tell(CannotRun(A, JOB, "component 'x' is not installed"))
    assert not grants(story.beat(A, credit=1))
    story.join(A, session="2")
    assert grants(story.tell(Heartbeat(A, "2", 1, 1, (), ())))


def test_a_job_that_is_overtaken_says_by_whom() -> None:
    story = SchedulerStory(plan(scene("t", 100), job=OTHER, priority=5))
    story.join(A, slots=2)
    story.beat(A, credit=2)
    story.tell(JobAdded(plan(scene("s", 1))))
    story.pass_time(0.1)
    for _ in range(8):
        story.beat(A, credit=0)
        story.pass_time(1.0)
    assert story.scheduler.waits.of(JOB) == Waiting(
        Cause.BUSY, "every slot has episodes of other jobs of higher priority: other (priority 5)"
    )


def test_after_a_restart_of_the_master_a_job_waits_for_those_who_hold_what_was_begun() -> None:
    story, _ = restarted(opened(1, A, 1, 0, 1))
    waiting = why(story)
    assert waiting.cause is Cause.NO_NODE
    assert waiting.why.startswith("a has not come back since the master's restart")


def test_a_node_that_says_nothing_of_what_it_can_take_is_the_reason() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    assert why(story).cause is Cause.SILENT


def test_a_paused_job_is_not_said_to_wait_and_a_job_that_ends_is_forgotten() -> None:
    story = SchedulerStory(plan(scene("s", 1)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    orders = story.tell(failed(lease, 0, blameless=True))
    assert JobRecorded(JOB, JobState.PAUSED, "SIGSEGV") in orders
    story.tell(NodeDrainAsked(A, True))
    assert not said(story.pass_time(1.0))
    assert story.scheduler.waits.of(JOB) is None


def test_each_node_says_why_it_has_nothing_of_a_job_that_has_as_many_as_it_may_use() -> None:
    story = SchedulerStory(plan(scene("s", 10), max_nodes=1))
    for name in (A, B):
        story.join(name)
        story.beat(name, credit=1)
    job, node = story.scheduler.tasks.jobs[JOB], story.scheduler.nodes.get(B)
    assert node is not None
    assert why_idle(job, node, story.scheduler.tasks) == Waiting(
        Cause.LIMIT, "the job may use 1 node at a time, and has a"
    )
    assert story.scheduler.waits.of(JOB) is None, "it moves"


# --- when it is said ---


def test_nothing_is_said_of_the_moments_between_two_leases() -> None:
    story = SchedulerStory(plan(scene("s", 10)))
    story.join(A)
    for _ in range(5):
        (lease,) = grants(story.beat(A, credit=1))
        story.tell(NodeDrainAsked(A, True))
        story.store(lease, lease.spans[0].start)
        assert not said(story.pass_time(0.6))
        assert not said(story.pass_time(HOLDS_S - 1.0))
        story.tell(NodeDrainAsked(A, False))


def test_a_reason_is_said_once_said_again_when_it_changes_and_its_end_is_said_at_once() -> None:
    story = SchedulerStory(plan(scene("s", 10)))
    assert not said(story.tell())
    assert not said(story.pass_time(HOLDS_S - 0.5))
    (first,) = said(story.pass_time(0.6))
    assert first is not None
    assert first.cause is Cause.NO_NODE
    assert not said(story.pass_time(10.0))
    story.join(A)
    story.tell(NodeDrainAsked(A, True))
    assert not said(story.pass_time(0.6)), "it may be a moment only"
    (second,) = said(story.pass_time(HOLDS_S))
    assert second is not None
    assert second.cause is Cause.DRAINED
    story.tell(NodeDrainAsked(A, False))
    story.beat(A, credit=1)
    assert said(story.pass_time(0.6)) == [None]
    assert story.scheduler.waits.of(JOB) is None


def test_reasons_that_take_turns_are_said_all_the_same() -> None:
    story = SchedulerStory(plan(scene("s", 10)))
    story.join(A)
    told: list[Waiting | None] = []
    for turn in range(10):
        told += said(story.tell(NodeDrainAsked(A, bool(turn % 2))))
        told += said(story.pass_time(0.6))
        story.beat(A, credit=0)
    assert len(told) >= 1


# --- another environment ---


def test_an_accepted_environment_is_recorded_told_and_gets_the_rest_at_once() -> None:
    story = begun()
    joins(story, B, NEW)
    assert not grants(story.beat(B, credit=1))
    orders = story.tell(EnvironmentAccepted(JOB))
    assert JobRecorded(JOB, JobState.RUNNING, "", str(NEW), NEW) in orders
    assert PackagesChanged(JOB, {"numpy": "1.26.4"}, {"numpy": "2.0.0"}) in orders
    (lease,) = grants(orders)
    assert lease.node == B


def test_what_most_slots_have_is_accepted_and_drained_or_unfit_nodes_do_not_count() -> None:
    story = begun()
    joins(story, A, OLD, session="2", slots=4)
    joins(story, B, NEW, slots=2)
    joins(story, C, {"numpy": "3"}, slots=3)
    assert not story.tell(EnvironmentAccepted(JOB)), "most have what it began with"
    story.tell(NodeDrainAsked(A, True), CannotRun(C, JOB, "no GPU"))
    orders = story.tell(EnvironmentAccepted(JOB))
    assert [order.environment for order in orders if isinstance(order, JobRecorded)] == [str(NEW)]


def test_what_old_nodes_hold_when_another_environment_is_accepted_is_not_lost() -> None:
    story = SchedulerStory(plan(scene("s", 10)))
    joins(story, A, OLD, slots=1)
    (first,) = grants(story.beat(A, credit=1))
    (held,) = grants(story.store(first, 0))
    joins(story, B, NEW, slots=3)
    story.tell(EnvironmentAccepted(JOB))
    orders = story.store(held, 1)
    assert not grants(orders, A), "it gets no more"
    assert story.scheduler.tasks.jobs[JOB].scenes["s"].count.committed == 2


def test_there_and_back_again_nothing_is_lost() -> None:
    story = begun()
    for turn, packages in enumerate((NEW, OLD, NEW, OLD)):
        session = str(turn + 2)
        joins(story, A, packages, session=session)
        story.held.clear()
        assert why(story).cause is Cause.ENVIRONMENT
        story.tell(EnvironmentAccepted(JOB))
        (lease,) = grants(story.tell(Heartbeat(A, session, 1, 1, (), ())))
        (index,) = (span.start for span in lease.spans)
        story.store(lease, index)
        story.tell(Bye(A, session, "upgrade"))
    assert story.scheduler.tasks.jobs[JOB].scenes["s"].count.committed == 5


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ({"a": "1"}, {"a": "2"}, "a 1 when this job began, 2 here"),
        ({"a": "1"}, {}, "a 1 when this job began, none here"),
        ({"a": "1"}, {"a": "1", "b": "2"}, "no b when this job began, 2 here"),
        (
            {"a": "1"},
            {"a": "1"},
            "another environment here than when this job began, though it lists the same packages",
        ),
        ({}, {"a": "1"}, "other packages here than when this job began, which an older nimbusd did not record"),
        (
            {"a": "1", "b": "1", "c": "1", "d": "1", "nimbusd": "1"},
            {"a": "2", "b": "2", "c": "2", "d": "2", "nimbusd": "2"},
            "nimbusd 1 when this job began, 2 here; a 1 when this job began, 2 here; b 1 when this job began, 2 here; "
            "2 more packages differ",
        ),
    ],
)
def test_packages_that_differ_are_named_the_telling_ones_first(
    before: dict[str, str], now: dict[str, str], text: str
) -> None:
    assert differences(before, now, "here") == text


def test_a_change_is_told_with_what_came_and_went() -> None:
    assert changes_in_words({"a": "1", "b": "1"}, {"a": "2", "c": "3"}) == "a 1 → 2, b 1 → none, c none → 3"
