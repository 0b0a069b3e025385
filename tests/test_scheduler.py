"""The master's decisions, told as stories: who gets what, what becomes of it, and what a restart remembers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nimbusd.core.episodes import (
    EpisodeKey,
    JobId,
    JobRecorded,
    JobState,
    LeaseClosed,
    LeaseId,
    LeaseOpened,
    NodeId,
    Record,
    SceneCount,
    SceneHistory,
    Span,
    State,
    Tried,
)
from nimbusd.core.facts import (
    Acknowledge,
    AskHello,
    AttemptFailed,
    CheckSettled,
    DrainAsked,
    EpisodesReleased,
    EpisodesReturned,
    Fact,
    GrantLease,
    HeartbeatSeen,
    JobAdded,
    JobCancelled,
    JobPlan,
    NodeDrainAsked,
    NodeLeft,
    NodeLost,
    NodeSeen,
    NodeUnfit,
    Order,
    PiecesStored,
    RevokeLease,
    RunningEpisode,
    ScenePlan,
    StoredPiece,
)
from nimbusd.core.open_jobs import FIRST_PAUSE_S
from nimbusd.core.scheduler import Scheduler
from nimbusd.core.tasks import PAUSE_S

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
JOB, OTHER = JobId("job"), JobId("other")


def plan(*scenes: ScenePlan, job: JobId = JOB, **more: object) -> JobPlan:
    return JobPlan(job, scenes, **more)  # type: ignore[arg-type]


def scene(name: str, wanted: int, hint: float = 1.0, exact: bool = False) -> ScenePlan:
    return ScenePlan(name, wanted, exact, 10 * wanted, hint)


def grants(orders: Sequence[Order], node: NodeId | None = None) -> list[GrantLease]:
    return [order for order in orders if isinstance(order, GrantLease) and node in (None, order.node)]


def places(orders: Sequence[Order]) -> list[tuple[str, int]]:
    """Scene and index of every episode that is leased."""
    return [(lease.scene, i) for lease in grants(orders) for span in lease.spans for i in range(span.start, span.stop)]


def records(orders: Sequence[Order]) -> list[Record]:
    return [order for order in orders if isinstance(order, Record)]


def ended(orders: Sequence[Order]) -> list[JobState]:
    return [order.state for order in orders if isinstance(order, JobRecorded) and not order.environment]


class Story:
    """A scheduler, its clock, and what it has leased to whom so far."""

    def __init__(self, *plans: JobPlan, epoch: int = 1) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(epoch)
        self.held: dict[NodeId, dict[LeaseId, GrantLease]] = {}
        self._seq = 0
        for each in plans:
            self.tell(JobAdded(each))

    def tell(self, *facts: Fact) -> list[Order]:
        orders: list[Order] = []
        for fact in facts:
            orders += self.scheduler.handle(fact, self.now)
        orders += self.scheduler.settle(self.now)
        for lease in grants(orders):
            self.held.setdefault(lease.node, {})[lease.lease] = lease
        return orders

    def pass_time(self, seconds: float) -> list[Order]:
        self.now += seconds
        return self.tell()

    def join(self, node: NodeId, slots: int = 1, environment: str = "e", session: str = "1") -> list[Order]:
        return self.tell(NodeSeen(node, session, environment, slots))

    def beat(self, node: NodeId, credit: int, running: Sequence[tuple[GrantLease, int, float]] = ()) -> list[Order]:
        self._seq += 1
        held = tuple(id for id in self.held.get(node, {}) if id in self.scheduler.tasks.leases)
        began = tuple(RunningEpisode(lease.lease, index, elapsed_s) for lease, index, elapsed_s in running)
        return self.tell(HeartbeatSeen(node, "1", self._seq, credit, held, began))

    def store(self, lease: GrantLease, *indexes: int, cost_s: float = 1.0) -> list[Order]:
        return self.tell(stored(lease, *indexes, cost_s=cost_s))

    def store_all(self, orders: Sequence[Order], cost_s: float = 1.0) -> list[Order]:
        after: list[Order] = []
        for lease in grants(orders):
            indexes = [i for span in lease.spans for i in range(span.start, span.stop)]
            after += self.store(lease, *indexes, cost_s=cost_s)
        return after

    def only(self, node: NodeId) -> GrantLease:
        (lease,) = (self.held[node][id] for id in self.scheduler.tasks.held_by(node))
        return lease


def stored(lease: GrantLease, *indexes: int, cost_s: float = 1.0) -> PiecesStored:
    pieces = tuple(StoredPiece(i, f"{lease.scene}_{i}.{lease.attempt}", 1, 10, "d", cost_s) for i in indexes)
    return PiecesStored(lease.node, lease.lease, lease.job, lease.scene, lease.attempt, pieces)


def failed(
    lease: GrantLease, index: int, *, planned: bool = False, final: bool = False, blameless: bool = False
) -> AttemptFailed:
    key = EpisodeKey(lease.job, lease.scene, index)
    return AttemptFailed(
        lease.node, lease.lease, lease.attempt, key, "render", "crashed", "SIGSEGV", "", 1.0, planned, final, blameless
    )


# --- who gets what ---


def test_a_lease_is_recorded_before_it_is_granted() -> None:
    story = Story(plan(scene("s", 1)))
    story.join(A)
    opened, grant = story.beat(A, credit=1)
    assert isinstance(opened, LeaseOpened)
    assert isinstance(grant, GrantLease)
    assert opened.lease == grant.lease
    assert grant.spans == (Span(0, 1),)


def test_a_node_gets_no_more_than_its_credit_and_leases_on_their_way_count() -> None:
    story = Story(plan(scene("s", 100)))
    story.join(A, slots=4)
    assert len(places(story.beat(A, credit=4))) == 4
    assert not grants(story.tell())
    assert not grants(story.tell(HeartbeatSeen(A, "1", 2, 4, (), ()))), "it was said before the leases arrived"
    assert len(places(story.tell(HeartbeatSeen(A, "1", 3, 2, tuple(story.held[A]), ())))) == 2


def test_a_node_that_commits_gets_more_without_a_heartbeat() -> None:
    story = Story(plan(scene("s", 100)))
    story.join(A, slots=2)
    lease, other = grants(story.beat(A, credit=2))
    assert len(places(story.store(lease, 0))) == 1
    assert not grants(story.tell(NodeDrainAsked(A, True))) + grants(story.store(other, 1))


def test_a_node_that_gives_back_unasked_gets_nothing_until_it_says_so() -> None:
    story = Story(plan(scene("s", 100)))
    story.join(A, slots=2)
    lease, other = grants(story.beat(A, credit=2))
    assert not grants(story.tell(EpisodesReturned(A, lease.lease, (0,))))
    assert grants(story.beat(A, credit=1))
    assert other.lease in story.scheduler.tasks.leases


def test_a_scene_whose_node_was_lost_waits_in_its_place_among_the_longest() -> None:
    story = Story(plan(scene("long", 10, hint=9.0), *(scene(f"s{n}", 10) for n in range(9))))
    for node in (A, B):
        story.join(node)
    assert [lease.scene for lease in grants(story.beat(A, credit=1))] == ["long"]
    story.tell(NodeLeft(A, "1", "maintenance"))
    assert [lease.scene for lease in grants(story.beat(B, credit=1))] == ["long"]


def test_every_slot_gets_a_scene_of_its_own_and_then_more_of_it() -> None:
    story = Story(plan(*(scene(f"s{n}", 10) for n in range(8))))
    story.join(A, slots=4)
    first = story.beat(A, credit=8)
    assert len({name for name, _ in places(first)}) == 4
    more = story.store_all(first)
    assert {name for name, _ in places(more)} == {name for name, _ in places(first)}


def test_the_longest_scenes_come_first() -> None:
    hints = {"short": 1.0, "long": 9.0, "medium": 3.0}
    story = Story(plan(*(scene(name, 10, hint) for name, hint in hints.items())))
    order = []
    for node in (A, B, C):
        story.join(node)
        order += [lease.scene for lease in grants(story.beat(node, credit=1))]
    assert order == ["long", "medium", "short"]


def test_ranges_shrink_as_less_is_left() -> None:
    story = Story(plan(scene("s", 400)))
    for node in (A, B):
        story.join(node)
    sizes = [len(lease.spans[0]) for lease in grants(story.beat(A, credit=1000))]
    assert sizes[0] == 100
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_a_scene_that_cannot_be_done_in_time_gets_more_slots_before_the_others_begin() -> None:
    story = Story(plan(scene("heavy", 20), *(scene(f"s{n}", 2) for n in range(10))))
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
    story = Story(plan(scene("s", 10)), plan(scene("t", 2), job=OTHER, priority=1))
    story.join(A, slots=4)
    assert grants(story.beat(A, credit=4))[0].job == OTHER


def test_users_share_slots_fairly_though_one_has_more_jobs() -> None:
    ann = [plan(scene("s", 1000), job=JobId(f"ann{n}"), user="ann") for n in range(3)]
    story = Story(*ann, plan(scene("t", 1000), job=JobId("bob"), user="bob"))
    story.join(A)
    used = {"ann": 0, "bob": 0}
    orders = story.beat(A, credit=1)
    for _ in range(200):
        (lease,) = grants(orders)
        used["bob" if lease.job == "bob" else "ann"] += 1
        orders = story.store_all(orders)
    assert used["ann"] == pytest.approx(100, abs=25)


def test_nodes_with_another_environment_get_nothing() -> None:
    story = Story(plan(scene("s", 10), environment="e1"))
    story.join(A, environment="e2")
    story.join(B, environment="e1")
    assert not grants(story.beat(A, credit=5))
    assert grants(story.beat(B, credit=1))


def test_the_first_node_decides_the_environment_and_its_first_commit_records_it() -> None:
    story = Story(plan(scene("s", 10)))
    story.join(A, environment="e1")
    story.join(B, environment="e2")
    (lease,) = grants(story.beat(A, credit=1))
    assert not grants(story.beat(B, credit=5))
    assert JobRecorded(JOB, JobState.RUNNING, environment="e1") in story.store(lease, 0)


def test_a_restarted_master_leaves_the_environment_to_the_nodes_that_hold_leases() -> None:
    story, _ = restarted(opened(7, A, 1, 0, 1))
    held = GrantLease(A, LeaseId(7), JOB, "s", 1, (Span(0, 1),))
    story.join(B, environment="e2")
    assert not grants(story.beat(B, credit=5))
    assert story.store(held, 0) == [AskHello(A)], "it has not said what its environment is"
    story.join(A, environment="e1")
    assert JobRecorded(JOB, JobState.RUNNING, environment="e1") in story.store(held, 0)
    assert not grants(story.beat(B, credit=5))


def test_a_job_uses_no_more_nodes_than_it_may() -> None:
    story = Story(plan(scene("s", 10), max_nodes=1))
    for node in (A, B):
        story.join(node)
    first = story.beat(A, credit=1)
    assert grants(first)
    assert not grants(story.beat(B, credit=1))
    story.tell(NodeDrainAsked(A, True))
    story.store_all(first)
    assert grants(story.beat(B, credit=1))


def test_without_dynload_every_node_has_its_fixed_share() -> None:
    story = Story(plan(*(scene(f"s{n}", 2) for n in range(4)), dynload=False))
    for node in (A, B):
        story.join(node)
    mine = story.beat(A, credit=100)
    assert {name for name, _ in places(mine)} == {"s0", "s2"}
    story.store_all(mine)
    assert not grants(story.beat(A, credit=100))
    assert {name for name, _ in places(story.beat(B, credit=100))} == {"s1", "s3"}


def test_the_fixed_share_of_a_node_that_cannot_work_goes_to_the_others() -> None:
    story = Story(plan(*(scene(f"s{n}", 1) for n in range(4)), dynload=False))
    for node in (A, B):
        story.join(node)
    story.beat(A, credit=100)
    story.tell(NodeDrainAsked(B, True))
    orders = story.store_all(list(story.held[A].values()))
    assert {name for name, _ in places(orders)} == {"s1", "s3"}


def test_a_static_job_without_a_share_for_the_node_does_not_block_the_next_job() -> None:
    static = plan(scene("s", 2), dynload=False, priority=1)
    story = Story(static, plan(scene("t", 2), job=OTHER))
    for node in (A, B):
        story.join(node)
    story.beat(A, credit=2)
    assert {lease.job for lease in grants(story.beat(B, credit=2))} == {OTHER}


def test_a_node_that_cannot_make_a_job_gets_no_more_of_it() -> None:
    story = Story(plan(scene("s", 4)))
    story.join(A, environment="e1")
    story.join(B, environment="e2")
    story.beat(A, credit=2)
    orders = story.tell(NodeUnfit(A, JOB, "bpy is missing"))
    assert [record.state for record in records(orders)] == [State.PENDING, State.PENDING]
    assert not grants(story.beat(A, credit=2))
    assert grants(story.beat(B, credit=1)), "the job is not bound to the environment of a node that cannot make it"


# --- when nothing is pending ---


def share_out(episodes: int = 8, cost_s: float = 10.0) -> tuple[Story, GrantLease]:
    """Node A holds everything that is left of a scene whose cost is known; B has nothing."""
    story = Story(plan(scene("s", episodes + 1)))
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
    asked = [order for order in orders if isinstance(order, RevokeLease)]
    assert asked
    assert all(order.node == A and not order.kill for order in asked)
    assert begun not in {index for order in asked for index in order.indexes if order.lease == lease.lease}
    given_back = story.tell(*(EpisodesReturned(A, order.lease, order.indexes) for order in asked))
    assert {lease.node for lease in grants(given_back)} == {B}


def test_what_is_given_back_goes_to_the_idle_node_though_another_jobs_episodes_are_not_for_it() -> None:
    story, lease = share_out()
    story.tell(JobAdded(plan(scene("t", 9), job=OTHER, environment="elsewhere")))
    story.beat(A, credit=0, running=[(lease, lease.spans[0].start, 1.0)])
    asked = [order for order in story.beat(B, credit=2) if isinstance(order, RevokeLease)]
    assert {lease.node for lease in grants(story.tell(EpisodesReturned(A, asked[0].lease, asked[0].indexes)))} == {B}


def test_what_was_asked_back_is_not_asked_for_again_at_once() -> None:
    story, lease = share_out()
    story.beat(A, credit=0, running=[(lease, lease.spans[0].start, 1.0)])
    assert [o for o in story.beat(B, credit=2) if isinstance(o, RevokeLease)]
    story.now += 1.0
    assert not [o for o in story.beat(B, credit=2) if isinstance(o, RevokeLease)]
    story.now += 3.0  # the answer was lost
    orders = story.beat(A, credit=0, running=[(lease, lease.spans[0].start, 5.0)]) + story.beat(B, credit=2)
    assert [o for o in orders if isinstance(o, RevokeLease)]


def straggler() -> tuple[Story, GrantLease, GrantLease]:
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
    assert RevokeLease(A, lease.lease, (1,), kill=True) in orders
    assert ended(orders) == [JobState.COMPLETE]
    assert [type(order) for order in story.store(lease, 1)] == [CheckSettled]


def test_the_original_may_win_over_its_copy() -> None:
    story, lease, copy = straggler()
    orders = story.store(lease, 1)
    assert [record.attempt for record in records(orders)] == [lease.attempt]
    assert RevokeLease(B, copy.lease, (1,), kill=True) in orders


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


# --- what becomes of episodes ---


def test_a_commit_repeated_is_checked_against_the_ledger_instead_of_counted_twice() -> None:
    story = Story(plan(scene("s", 2)))
    story.join(A)
    lease = grants(story.beat(A, credit=1))[0]
    assert Acknowledge(A, lease.lease, (0,)) in story.store(lease, 0)
    (check,) = (order for order in story.store(lease, 0) if isinstance(order, CheckSettled))
    assert check.folder == "s_0.1"
    assert story.scheduler.tasks.jobs[JOB].scenes["s"].count.committed == 1


def test_a_late_commit_is_taken_if_nobody_else_was_leased_the_episode_since() -> None:
    story = Story(plan(scene("s", 1)))
    story.join(A)
    lease = grants(story.beat(A, credit=1))[0]
    assert any(isinstance(order, NodeLost) for order in story.pass_time(6.0))
    orders = story.store(lease, 0)
    assert [record.state for record in records(orders)] == [State.COMMITTED]
    assert ended(orders) == [JobState.COMPLETE]


def test_a_zombies_commit_is_refused_after_the_episode_went_to_another_node() -> None:
    story = Story(plan(scene("s", 1)))
    story.join(A)
    lease = grants(story.beat(A, credit=1))[0]
    story.pass_time(6.0)
    story.join(B)
    (second,) = grants(story.beat(B, credit=1))
    assert second.attempt == lease.attempt + 1
    assert [type(order) for order in story.store(lease, 0)] == [CheckSettled]
    story.tell(EpisodesReturned(B, second.lease, (0,)))
    assert [type(order) for order in story.store(lease, 0)] == [CheckSettled], (
        "a refused piece is gone: it cannot be taken later"
    )


def test_a_piece_that_an_earlier_master_may_have_refused_is_not_taken() -> None:
    history = {"s": SceneHistory(SceneCount(), (), {0: Tried(1, 0)})}
    story = Story()
    story.tell(JobAdded(plan(scene("s", 1), environment="e"), history))
    lease = GrantLease(A, LeaseId(7), JOB, "s", 1, (Span(0, 1),))
    assert [type(order) for order in story.store(lease, 0)] == [CheckSettled]


def test_messages_that_name_a_live_lease_but_another_scene_change_nothing() -> None:
    story = Story(plan(scene("s", 1), scene("t", 1)))
    story.join(A)
    lease = grants(story.beat(A, credit=1))[0]
    wrong = PiecesStored(A, lease.lease, JOB, "nowhere", lease.attempt, stored(lease, 0).stored)
    assert [type(order) for order in story.tell(wrong)] == [CheckSettled]


def test_a_planning_failure_is_final_and_the_next_index_takes_its_place() -> None:
    story = Story(plan(scene("s", 2, exact=True)))
    story.join(A)
    first = story.beat(A, credit=1)
    orders = story.tell(failed(grants(first)[0], 0, planned=True))
    assert [(record.key.index, record.state) for record in records(orders)] == [(0, State.FAILED)]
    assert places(orders) == [("s", 1)]
    orders = story.store_all(orders)
    assert places(orders) == [("s", 2)]
    assert ended(story.store_all(orders)) == [JobState.COMPLETE]


def test_an_episode_that_kills_its_workers_is_quarantined_and_the_job_goes_on() -> None:
    story = Story(plan(scene("s", 2), attempts=2))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    orders = story.tell(failed(lease, 0))
    (record,), (lease,) = records(orders), grants(orders)
    assert (record.state, record.losses) == (State.PENDING, 1)
    assert (lease.attempt, lease.spans) == (2, (Span(0, 1),))
    orders = story.tell(failed(lease, 0))
    (record,) = records(orders)
    assert (record.state, record.losses, record.reason) == (State.QUARANTINED, 2, "crashed")
    assert ended(story.store_all(orders)) == [JobState.INCOMPLETE]


def test_an_episode_that_takes_node_after_node_with_it_is_set_aside() -> None:
    story = Story(plan(scene("s", 1), attempts=1))
    for round in range(3):
        node = NodeId(f"n{round}")
        story.join(node)
        (lease,) = grants(story.beat(node, credit=1))
        story.beat(node, credit=0, running=[(lease, 0, 1.0)])
        orders = story.tell(NodeSeen(node, "2", "e", 1))  # it restarted
    assert [record.state for record in records(orders)] == [State.QUARANTINED]


def test_an_episode_that_cost_an_attempt_is_leased_with_care() -> None:
    story = Story(plan(scene("s", 3)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    assert not lease.careful
    again = grants([*story.tell(failed(lease, 0)), *story.beat(A, credit=2)])
    assert [other.careful for other in again] == [True, False, False]


def test_quarantined_episodes_get_another_chance() -> None:
    story = Story(plan(scene("s", 2)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    (other,) = grants(story.tell(failed(lease, 0, final=True)))
    assert other.spans == (Span(1, 2),)
    orders = story.tell(EpisodesReleased(JOB, {"s": {0: Tried(1, 0)}})) + story.store(other, 1)
    assert [(lease.attempt, lease.spans) for lease in grants(orders)] == [(2, (Span(0, 1),))]
    assert not story.tell(EpisodesReleased(JobId("gone"), {"s": {0: Tried(1, 0)}}))


def test_a_full_disk_pauses_the_job_which_goes_on_by_itself() -> None:
    story = Story(plan(scene("s", 3)))
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
    story = Story(plan(scene("s", 3)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=2))
    story.tell(failed(lease, 0, blameless=True))
    (bound,) = (order for order in story.store(lease, 1) if isinstance(order, JobRecorded))
    assert (bound.state, bound.why, bound.environment) == (JobState.PAUSED, "SIGSEGV", "e")


def test_a_job_whose_disk_stays_full_tries_ever_more_rarely_until_it_stores_something() -> None:
    story = Story(plan(scene("s", 3)))
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


# --- nodes ---


def test_a_silent_node_is_lost_and_what_it_held_goes_to_others() -> None:
    story = Story(plan(scene("s", 4)))
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
    story = Story(plan(scene("s", 4)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    story.pass_time(6.0)
    assert story.tell(HeartbeatSeen(A, "1", 50, 1, (lease.lease,), ())) == [AskHello(A)]
    story.join(A)
    orders = story.tell(HeartbeatSeen(A, "1", 51, 0, (lease.lease,), ()))
    assert RevokeLease(A, lease.lease, (), kill=True) in orders


def test_a_restarted_node_loses_its_leases_at_once() -> None:
    story = Story(plan(scene("s", 1)))
    story.join(A)
    story.beat(A, credit=1)
    orders = story.join(A, session="2")
    assert NodeLost(A, "restarted", 1) in orders


def test_a_node_that_leaves_gives_its_leases_up() -> None:
    story = Story(plan(scene("s", 1)))
    story.join(A)
    story.beat(A, credit=1)
    assert NodeLost(A, "maintenance", 1) in story.tell(NodeLeft(A, "1", "maintenance"))
    assert not story.tell(NodeLeft(A, "1", "maintenance"))


def test_a_lease_that_never_arrived_is_given_up() -> None:
    story = Story(plan(scene("s", 1)))
    story.join(A)
    (lost,) = grants(story.beat(A, credit=1))
    orders: list[Order] = []
    for seq in range(100, 107):
        orders += story.tell(HeartbeatSeen(A, "1", seq, 1, (), ()))
        story.now += 1.0
    assert LeaseClosed(lost.lease) in orders
    assert [lease.attempt for lease in grants(orders)] == [2]


def test_a_lease_that_was_lost_with_its_connection_is_given_up_at_once() -> None:
    story = Story(plan(scene("s", 1)))
    story.join(A)
    (lost,) = grants(story.beat(A, credit=1))
    story.now += 0.5
    story.join(A)  # the same process, by a new connection
    orders = story.tell(HeartbeatSeen(A, "1", 100, 1, (), ()))
    assert LeaseClosed(lost.lease) in orders
    assert [lease.attempt for lease in grants(orders)] == [2]


def test_old_heartbeats_change_nothing() -> None:
    story = Story(plan(scene("s", 4)))
    story.join(A)
    story.tell(HeartbeatSeen(A, "1", 5, 0, (), ()))
    assert not story.tell(HeartbeatSeen(A, "1", 4, 4, (), ()))


def test_a_drained_node_gets_nothing_until_it_is_undrained_also_when_it_comes_back() -> None:
    story = Story(plan(scene("s", 4)))
    story.join(A)
    story.tell(NodeDrainAsked(A, True))
    assert not grants(story.beat(A, credit=2))
    story.join(A, session="2")
    assert not grants(story.tell(HeartbeatSeen(A, "2", 1, 2, (), ())))
    story.tell(NodeDrainAsked(A, False))
    assert grants(story.tell(HeartbeatSeen(A, "2", 2, 2, (), ())))


def test_a_master_that_is_about_to_leave_leases_nothing_more() -> None:
    story = Story(plan(scene("s", 4)))
    story.join(A)
    story.tell(DrainAsked())
    assert not grants(story.beat(A, credit=2))


def test_deadlines_of_nodes_that_come_and_go_do_not_pile_up() -> None:
    story = Story()
    for session in range(100):
        story.join(A, session=str(session))
        story.now += 0.01
    assert len(story.scheduler.nodes._due) == 1


# --- the job's end and the master's restart ---


def test_cancelling_stops_everything_and_records_it() -> None:
    story = Story(plan(scene("s", 4)))
    story.join(A)
    (lease,) = grants(story.beat(A, credit=1))
    orders = story.tell(JobCancelled(JOB))
    assert RevokeLease(A, lease.lease, (0,), kill=True) in orders
    assert LeaseClosed(lease.lease) in orders
    assert ended(orders) == [JobState.CANCELLED]
    assert not any(story.scheduler.sizes().values())
    assert [type(order) for order in story.store(lease, 0)] == [CheckSettled]


def test_nothing_is_remembered_of_a_job_that_has_ended() -> None:
    story = Story(plan(scene("s", 20)))
    story.join(A, slots=2)
    orders = story.beat(A, credit=4)
    while grants(orders):
        orders = story.store_all(orders)
    assert ended(orders) == [JobState.COMPLETE]
    assert not any(story.scheduler.sizes().values())


def restarted(*leases: LeaseOpened, history: dict[str, SceneHistory] | None = None) -> tuple[Story, list[Order]]:
    story = Story(epoch=2)
    orders = story.tell(JobAdded(plan(scene("s", 4)), history or {}, leases))
    return story, orders


def opened(lease: int, node: NodeId, attempt: int, start: int, stop: int) -> LeaseOpened:
    return LeaseOpened(LeaseId(lease), JOB, "s", attempt, node, (Span(start, stop),))


def test_a_restarted_master_waits_for_the_nodes_that_were_at_work() -> None:
    story, _ = restarted(opened(7, A, 1, 0, 4))
    story.join(B)
    assert not grants(story.beat(B, credit=4))
    held = GrantLease(A, LeaseId(7), JOB, "s", 1, (Span(0, 4),))
    story.join(A)
    story.tell(HeartbeatSeen(A, "1", 1, 0, (LeaseId(7),), ()))
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
    first, second = Story(plan(scene("s", 4)), epoch=1), Story(plan(scene("s", 4)), epoch=2)
    numbers = []
    for story in (first, second):
        story.join(A)
        numbers += [lease.lease for lease in grants(story.beat(A, credit=4))]
    assert len(set(numbers)) == len(numbers)
