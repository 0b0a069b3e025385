"""Slots and workers on a virtual clock: the silent are killed, the dead replaced, the hopeless given up."""

from __future__ import annotations

from nimbusd.core.ids import JobId, WorkerId
from nimbusd.core.node.facts import RecallWorker, StopWorker
from nimbusd.core.node.pool import WorkerPool
from nimbusd.core.node.pool_facts import (
    BeatSeen,
    CannotOpen,
    EpisodeBegan,
    GiveUp,
    JobAssigned,
    KillWorker,
    LeaseSent,
    PoolOrder,
    ReportLost,
    SpawnWorker,
    StopAsked,
    TimePassed,
    WorkerExited,
    WorkerKilled,
)
from nimbusd.transport.messages.worker import Ready, WorkerHello

W, JOB = WorkerId("cpu:0#1"), JobId("j")


def ready_pool(episode_timeout_s: float | None = None) -> WorkerPool:
    pool = WorkerPool(["cpu:0"], start_timeout_s=60.0)
    assert pool.start(0.0) == [SpawnWorker("cpu:0", W, 0.0)]
    pool.handle(WorkerHello(W, 1, ""), 0.5)
    pool.handle(JobAssigned(W, JOB, open_timeout_s=60.0, beat_timeout_s=10.0, episode_timeout_s=episode_timeout_s), 0.5)
    pool.handle(Ready(W, "cpu"), 1.0)
    return pool


def killed(orders: list[PoolOrder]) -> list[WorkerId]:
    return [order.worker for order in orders if isinstance(order, KillWorker)]


def test_a_busy_worker_that_falls_silent_is_killed_once() -> None:
    pool = ready_pool()
    pool.handle(BeatSeen(W, busy=True), 2.0)
    assert killed(pool.handle(TimePassed(), 12.0)) == []
    assert killed(pool.handle(TimePassed(), 12.1)) == [W]
    assert killed(pool.handle(TimePassed(), 99.0)) == []


def test_a_worker_without_work_owes_no_beat() -> None:
    pool = ready_pool()
    pool.handle(BeatSeen(W, busy=True), 2.0)
    pool.handle(BeatSeen(W, busy=False), 3.0)
    assert killed(pool.handle(TimePassed(), 1e6)) == []


def test_a_worker_that_hangs_before_its_first_beat_is_killed() -> None:
    pool = ready_pool()
    pool.handle(LeaseSent(W), 2.0)
    pool.handle(LeaseSent(W), 11.0)  # a lease ahead of need does not put off the beat that is owed
    assert killed(pool.handle(TimePassed(), 12.1)) == [W]


def test_a_worker_that_never_gets_ready_is_killed() -> None:
    pool = WorkerPool(["cpu:0"], start_timeout_s=60.0)
    pool.start(0.0)
    assert killed(pool.handle(TimePassed(), 61.0)) == [W]


def test_a_worker_that_waits_for_a_job_owes_nothing() -> None:
    pool = WorkerPool(["cpu:0"], start_timeout_s=60.0)
    pool.start(0.0)
    pool.handle(WorkerHello(W, 1, ""), 5.0)
    assert killed(pool.handle(TimePassed(), 1e6)) == []
    pool.handle(JobAssigned(W, JOB, open_timeout_s=60.0, beat_timeout_s=10.0, episode_timeout_s=None), 1e6)
    assert killed(pool.handle(TimePassed(), 1e6 + 61.0)) == [W]


def test_a_worker_may_take_as_long_to_open_as_its_job_says() -> None:
    pool = WorkerPool(["cpu:0"], start_timeout_s=300.0)
    pool.start(0.0)
    pool.handle(WorkerHello(W, 1, ""), 5.0)
    pool.handle(JobAssigned(W, JOB, open_timeout_s=20.0, beat_timeout_s=10.0, episode_timeout_s=None), 6.0)
    assert pool.handle(TimePassed(), 25.9) == []
    assert pool.handle(TimePassed(), 26.1) == [KillWorker(W, "not ready after 20 s")]


def test_a_worker_that_makes_room_for_another_job_is_replaced_at_once_and_has_not_failed() -> None:
    pool = ready_pool()
    pool.handle(RecallWorker(W), 5.0)
    lost, spawn = pool.handle(WorkerExited(W, 0), 6.0)
    assert isinstance(lost, ReportLost)
    assert not lost.failed
    assert spawn == SpawnWorker("cpu:0", WorkerId("cpu:0#2"), 6.0)


def test_a_worker_whose_work_nobody_wants_is_killed_and_has_not_failed() -> None:
    pool = ready_pool()
    assert pool.handle(StopWorker(W, "no longer wanted"), 5.0) == [KillWorker(W, "no longer wanted")]
    lost, _ = pool.handle(WorkerExited(W, -9), 5.1)
    assert isinstance(lost, ReportLost)
    assert not lost.failed


def test_an_episode_that_beats_for_ever_is_killed_at_its_own_limit() -> None:
    pool = ready_pool(episode_timeout_s=30.0)
    pool.handle(EpisodeBegan(W), 2.0)
    for now in range(2, 32):
        pool.handle(BeatSeen(W, busy=True), float(now))
        assert killed(pool.handle(TimePassed(), float(now))) == []
    pool.handle(BeatSeen(W, busy=True), 33.0)
    assert killed(pool.handle(TimePassed(), 33.0)) == [W]


def test_a_dead_worker_is_reported_and_its_slot_filled_again() -> None:
    pool = ready_pool()
    lost, spawn = pool.handle(WorkerExited(W, -11), 5.0)
    assert lost == ReportLost(W, "crash", "died of signal 11", failed=True)
    assert spawn == SpawnWorker("cpu:0", WorkerId("cpu:0#2"), 5.0)


def test_an_exit_with_status_0_while_needed_is_a_failure() -> None:
    lost = ready_pool().handle(WorkerExited(W, 0), 5.0)[0]
    assert isinstance(lost, ReportLost)
    assert lost.failed
    assert lost.reason == "exit"


def test_facts_about_a_replaced_worker_are_ignored() -> None:
    pool = ready_pool()
    pool.handle(WorkerExited(W, -9), 5.0)
    assert pool.handle(WorkerExited(W, -9), 6.0) == []
    pool.handle(BeatSeen(W, busy=True), 6.0)
    assert pool.alive() == 1


def test_workers_that_cannot_start_are_tried_with_growing_pauses_and_given_up() -> None:
    pool = WorkerPool(["cpu:0"], most_failed_starts=3, backoff_s=0.5)
    pool.start(0.0)
    pauses = []
    for number in (1, 2):
        spawn = pool.handle(WorkerExited(WorkerId(f"cpu:0#{number}"), 1), 10.0)[-1]
        assert isinstance(spawn, SpawnWorker)
        pauses.append(spawn.not_before - 10.0)
    assert pauses == [0.5, 1.0]
    assert isinstance(pool.handle(WorkerExited(WorkerId("cpu:0#3"), 1), 20.0)[-1], GiveUp)


def test_a_job_that_ends_its_workers_while_they_open_is_unfit_here_and_the_slot_goes_on() -> None:
    pool = WorkerPool(["cpu:0"], most_failed_starts=3)
    pool.start(0.0)
    for number in (1, 2, 3):
        worker = WorkerId(f"cpu:0#{number}")
        pool.handle(WorkerHello(worker, 1, ""), 1.0)
        pool.handle(JobAssigned(worker, JobId("bad"), 60.0, 60.0, None), 1.0)
        lost, *orders = pool.handle(WorkerExited(worker, -11), 2.0)
        assert isinstance(lost, ReportLost)
    unfit, spawn = orders
    assert unfit == CannotOpen(
        JobId("bad"), "3 workers in a row ended while they opened in slot cpu:0: died of signal 11"
    )
    assert spawn == SpawnWorker("cpu:0", WorkerId("cpu:0#4"), 2.0)


def test_after_a_stop_nothing_is_spawned_and_an_orderly_exit_is_no_failure() -> None:
    pool = ready_pool()
    pool.handle(StopAsked(), 5.0)
    assert pool.handle(WorkerExited(W, 0), 6.0) == [
        ReportLost(W, "exit", "exited with status 0 while it was needed", failed=False)
    ]
    assert pool.alive() == 0


def test_a_stop_kills_workers_that_are_still_starting() -> None:
    pool = WorkerPool(["cpu:0"])
    pool.start(0.0)
    assert killed(pool.handle(StopAsked(), 1.0)) == [W]
    (lost,) = pool.handle(WorkerExited(W, -9), 1.1)
    assert isinstance(lost, ReportLost)
    assert not lost.failed


def test_a_worker_that_the_watchdog_killed_is_reported_as_hung_with_its_stack() -> None:
    pool = ready_pool()
    assert pool.handle(WorkerKilled(W, "no progress in stage render for 10 s", "in gen_obs", "render"), 5.0) == []
    lost, spawn = pool.handle(WorkerExited(W, -9), 5.1)
    detail = "killed: no progress in stage render for 10 s"
    assert lost == ReportLost(W, "hang", detail, failed=True, stack="in gen_obs", stage="render")
    assert isinstance(spawn, SpawnWorker)
    after = pool.handle(WorkerExited(spawn.worker, -11), 6.0)[0]
    assert after == ReportLost(spawn.worker, "crash", "died of signal 11", failed=True)


def test_where_a_watchdog_kills_the_pool_waits_longer() -> None:
    pool = WorkerPool(["cpu:0"], start_timeout_s=60.0, grace_s=3.0)
    pool.start(0.0)
    assert killed(pool.handle(TimePassed(), 62.9)) == []
    assert killed(pool.handle(TimePassed(), 63.1)) == [W]
