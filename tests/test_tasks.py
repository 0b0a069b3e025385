"""The task table under adversarial schedules: nothing lost, nothing twice, the same episodes in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.core.episodes import (
    Attempt,
    AttemptFailed,
    CheckSettled,
    CreditOffered,
    DrainAsked,
    EpisodeKey,
    Fact,
    FinishJob,
    GrantLease,
    LeasesReturned,
    OpenEpisode,
    Order,
    PieceStored,
    Record,
    SceneCount,
    SceneHistory,
    ScenePlan,
    State,
    WorkerId,
    WorkerLost,
    WorkStarted,
)
from nimbusd.core.tasks import TaskTable

W1, W2 = WorkerId("w1"), WorkerId("w2")


def stored(worker: WorkerId, attempt: Attempt) -> PieceStored:
    key = attempt.key
    return PieceStored(worker, attempt, f"{key.scene}.{key.index}.{attempt.number}", 10, 100, "digest")


def leases(orders: list[Order]) -> list[Attempt]:
    return [order.attempt for order in orders if isinstance(order, GrantLease)]


def test_a_lease_is_recorded_before_it_is_granted() -> None:
    table = TaskTable([ScenePlan("a", 1, True, 5)])
    record, grant = table.handle(CreditOffered(W1, 1))
    assert isinstance(record, Record)
    assert record.state is State.LEASED
    assert isinstance(grant, GrantLease)
    assert grant.attempt == Attempt(EpisodeKey("a", 0), 1)


def test_a_commit_of_a_lost_lease_is_refused_and_the_episode_made_once() -> None:
    table = TaskTable([ScenePlan("a", 1, True, 5)])
    (first,) = leases(table.handle(CreditOffered(W1, 1)))
    table.handle(WorkStarted(W1, first))
    table.handle(WorkerLost(W1, "hang", "killed"))
    (second,) = leases(table.handle(CreditOffered(W2, 1)))
    assert second.number == first.number + 1
    assert table.handle(stored(W1, first)) == [CheckSettled(first, "a.0.1")]
    orders = table.handle(stored(W2, second))
    assert [order.state for order in orders if isinstance(order, Record)] == [State.COMMITTED]
    assert FinishJob() in orders


def test_a_repeated_commit_is_left_to_the_ledger() -> None:
    table = TaskTable([ScenePlan("a", 2, True, 5)])
    (first,) = leases(table.handle(CreditOffered(W1, 1)))
    table.handle(stored(W1, first))
    assert table.handle(stored(W1, first)) == [CheckSettled(first, "a.0.1")]
    assert table.counts["a"].committed == 1


def test_an_episode_that_kills_its_workers_is_quarantined_and_the_rest_goes_on() -> None:
    table = TaskTable([ScenePlan("a", 2, True, 10)], attempts=2)
    poison = EpisodeKey("a", 0)
    for number in (1, 2):
        worker = WorkerId(f"w{number}")
        (attempt,) = leases(table.handle(CreditOffered(worker, 1)))
        assert attempt == Attempt(poison, number)
        table.handle(WorkStarted(worker, attempt))
        table.handle(WorkerLost(worker, "crash", "signal 11"))
    (other,) = leases(table.handle(CreditOffered(W1, 1)))
    assert other.key == EpisodeKey("a", 1)
    assert FinishJob() in table.handle(stored(W1, other))
    assert table.counts["a"] == SceneCount(committed=1, quarantined=1)


def test_leases_that_were_not_started_are_not_blamed_for_their_workers_death() -> None:
    table = TaskTable([ScenePlan("a", 9, True, 99)], attempts=1)
    granted = leases(table.handle(CreditOffered(W1, 2)))
    table.handle(WorkStarted(W1, granted[0]))
    table.handle(WorkerLost(W1, "crash", "signal 11"))
    assert table.counts["a"].quarantined == 1
    assert leases(table.handle(CreditOffered(W2, 1))) == [Attempt(granted[1].key, 2)]


def test_the_last_episodes_are_not_queued_behind_a_busy_worker() -> None:
    plenty = TaskTable([ScenePlan("a", 9, True, 99)])
    assert len(leases(plenty.handle(CreditOffered(W1, 2)))) == 2
    table = TaskTable([ScenePlan("a", 2, True, 10)])
    table.handle(CreditOffered(W1, 2))
    table.handle(CreditOffered(W2, 2))
    assert len(table.leased_to(W1)) == len(table.leased_to(W2)) == 1


def test_a_worker_stays_with_its_scene_and_two_workers_take_two_scenes() -> None:
    table = TaskTable([ScenePlan("a", 20, True, 99), ScenePlan("b", 20, True, 99)])
    seen: dict[WorkerId, set[str]] = {W1: set(), W2: set()}
    for _ in range(10):
        for worker in (W1, W2):
            for attempt in leases(table.handle(CreditOffered(worker, 1))):
                seen[worker].add(attempt.key.scene)
                table.handle(stored(worker, attempt))
    assert seen == {W1: {"a"}, W2: {"b"}}


def test_draining_grants_nothing_more_and_takes_what_comes() -> None:
    table = TaskTable([ScenePlan("a", 3, True, 9)])
    (first,) = leases(table.handle(CreditOffered(W1, 1)))
    assert leases(table.handle(DrainAsked()) + table.handle(CreditOffered(W2, 1))) == []
    assert any(isinstance(order, Record) for order in table.handle(stored(W1, first)))
    assert table.open_episodes() == 2


def test_a_restart_leases_open_episodes_with_a_higher_attempt() -> None:
    past = SceneHistory(SceneCount(committed=1), {1: OpenEpisode(attempt=4, losses=1)}, next_index=2)
    table = TaskTable([ScenePlan("a", 3, True, 9)], history={"a": past})
    assert leases(table.handle(CreditOffered(W1, 1))) == [Attempt(EpisodeKey("a", 1), 5)]
    assert leases(table.handle(CreditOffered(W2, 1))) == [Attempt(EpisodeKey("a", 2), 1)]


def test_a_finished_job_finishes_at_once_after_a_restart() -> None:
    table = TaskTable([ScenePlan("a", 1, True, 9)], history={"a": SceneHistory(SceneCount(committed=1), {}, 1)})
    assert table.start() == [FinishJob()]


@pytest.mark.parametrize("exact", [True, False])
def test_a_broken_asset_is_quarantined_without_another_try(exact: bool) -> None:
    table = TaskTable([ScenePlan("a", 1, exact, 5)], attempts=3)
    (first,) = leases(table.handle(CreditOffered(W1, 1)))
    broken = AttemptFailed(W1, first, "load", "asset_error", "a.glb is missing", final=True)
    (record, finish) = table.handle(broken)
    assert isinstance(record, Record)
    assert record.state is State.QUARANTINED
    assert isinstance(finish, FinishJob)


@dataclass
class Story:
    """Drives a table as unreliable workers would, and keeps what a ledger would."""

    table: TaskTable
    plans_that_fail: set[EpisodeKey]
    rng: np.random.Generator
    ledger: dict[EpisodeKey, Record] = field(default_factory=dict)
    commits: list[EpisodeKey] = field(default_factory=list)
    held: dict[WorkerId, list[Attempt]] = field(default_factory=dict)
    late: list[Fact] = field(default_factory=list)
    generation: int = 0
    finished: bool = False

    def tell(self, fact: Fact) -> None:
        for order in self.table.handle(fact):
            match order:
                case Record():
                    if order.state is State.COMMITTED:
                        self.commits.append(order.key)
                    self.ledger[order.key] = order
                case GrantLease(worker, attempt):
                    assert self.ledger[attempt.key].attempt == attempt.number
                    self.held[worker].append(attempt)
                case FinishJob():
                    self.finished = True

    def hire(self) -> None:
        self.generation += 1
        worker = WorkerId(f"w{self.generation}")
        self.held[worker] = []
        self.tell(CreditOffered(worker, 2))

    def step(self, lossy: bool) -> None:
        """One thing happens: work, a death, a message that comes again or late."""
        if not self.held:
            self.hire()
        worker = sorted(self.held)[self.rng.integers(len(self.held))]
        dice = self.rng.random()
        if lossy and dice < 0.15:
            late = [stored(worker, attempt) for attempt in self.held.pop(worker)]
            self.late += late
            self.tell(WorkerLost(worker, "crash", "died"))
        elif lossy and dice < 0.25 and self.late:
            self.tell(self.late[self.rng.integers(len(self.late))])
        elif lossy and dice < 0.3 and self.held[worker]:
            back = self.held[worker].pop()
            self.tell(LeasesReturned(worker, (back,)))
            self.tell(CreditOffered(worker, 1))
        elif self.held[worker]:
            attempt = self.held[worker].pop(0)
            self.tell(WorkStarted(worker, attempt))
            if attempt.key in self.plans_that_fail:
                self.tell(AttemptFailed(worker, attempt, "plan", "unreachable", "", planned=True))
            else:
                self.tell(stored(worker, attempt))
                self.late.append(stored(worker, attempt))
            self.tell(CreditOffered(worker, 1))
        elif len(self.held) < 4:
            self.hire()
        assert len(self.commits) == len(set(self.commits)), "an episode was committed twice"


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), fail_share=st.floats(0, 0.6), scenes=st.integers(1, 4), wanted=st.integers(1, 6))
def test_whatever_happens_the_same_episodes_are_committed_once(
    seed: int, fail_share: float, scenes: int, wanted: int
) -> None:
    rng = np.random.default_rng(seed)
    names = [f"s{number}" for number in range(scenes)]
    fails = {EpisodeKey(name, i) for name in names for i in range(200) if rng.random() < fail_share}
    plans = [ScenePlan(name, wanted, True, 200) for name in names]

    def play(lossy: bool) -> set[EpisodeKey]:
        story = Story(TaskTable(plans, attempts=10_000), fails, rng)
        for _ in range(20_000):
            story.step(lossy)
            if story.finished:
                break
        assert story.finished, "the job did not come to an end"
        assert story.table.open_episodes() == 0
        return set(story.commits)

    calm, stormy = play(lossy=False), play(lossy=True)
    assert calm == stormy
    assert len(calm) == scenes * wanted


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), restarts=st.integers(1, 5))
def test_a_job_interrupted_at_any_moment_goes_on_from_its_ledger(seed: int, restarts: int) -> None:
    rng = np.random.default_rng(seed)
    fails = {EpisodeKey("a", i) for i in range(100) if rng.random() < 0.3}
    plan = ScenePlan("a", 8, True, 100)
    story = Story(TaskTable([plan], attempts=10_000), fails, rng)
    for _ in range(restarts):
        for _ in range(int(rng.integers(0, 30))):
            story.step(lossy=True)
        story.table = TaskTable([plan], attempts=10_000, history={"a": history_of(story.ledger)})
        story.held.clear()
        story.finished = FinishJob() in story.table.start()
    for _ in range(5000):
        if story.finished:
            break
        story.step(lossy=False)
    successes = [i for i in range(100) if EpisodeKey("a", i) not in fails]
    assert sorted(key.index for key in story.commits) == successes[:8]


def history_of(ledger: dict[EpisodeKey, Record]) -> SceneHistory:
    """What a ledger with these rows tells a restart; leases of the dead run are open episodes."""
    states = [record.state for record in ledger.values()]
    count = SceneCount(states.count(State.COMMITTED), states.count(State.FAILED), states.count(State.QUARANTINED))
    still_open = (State.PENDING, State.LEASED)
    opened = {k.index: OpenEpisode(r.attempt, r.losses) for k, r in ledger.items() if r.state in still_open}
    next_index = max((key.index for key in ledger), default=-1) + 1
    known = {key.index for key in ledger}
    opened |= {index: OpenEpisode(0, 0) for index in range(next_index) if index not in known}
    return SceneHistory(count, opened, next_index)
