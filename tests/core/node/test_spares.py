"""Warm spares on a virtual clock: stories, and what holds whatever happens."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.core.ids import JobId, WorkerId, slot_of
from nimbusd.core.node import pool_facts as p
from nimbusd.core.node.facts import RecallWorker
from nimbusd.core.node.pool import WorkerPool
from nimbusd.core.node.spares import MOST_FAILED, PAUSE_S, RETRY_S, KillSpare, Spares, StartSpare, is_spare
from nimbusd.transport.messages.worker import Ready, Warm, WorkerHello

A, B = JobId("a"), JobId("b")
SPARE = WorkerId("spare#1")


class Node:
    """A pool and a clock; whatever is ordered is kept."""

    def __init__(self, slots: int = 2, spares: int = 1, memory_bytes: int | None = None) -> None:
        self.pool = WorkerPool(
            [f"cpu:{index}" for index in range(slots)], 60.0, spares=spares, memory_bytes=memory_bytes
        )
        self.now = 0.0
        self.workers = [order.worker for order in self.pool.start(0.0) if isinstance(order, p.SpawnWorker)]
        self.at_work: set[int] = set()

    def tell(self, fact: p.PoolFact) -> list[p.PoolOrder]:
        return self.pool.handle(fact, self.now)

    def pass_time(self, seconds: float) -> list[p.PoolOrder]:
        orders: list[p.PoolOrder] = []
        for _ in range(round(5 * seconds)):
            self.now += 0.2
            orders += self.tell(p.TimePassed())
        return orders

    def work(self, job: JobId = A) -> None:
        """Every slot has a worker at work on a job; who worked on another one has made room for it."""
        for number in range(len(self.workers)):
            if number in self.at_work:
                self.leaves(number)
            self.begins(number, job)

    def begins(self, number: int, job: JobId) -> None:
        """A worker begins to work on a job. One that was prepared for another leaves, and its successor begins."""
        worker = self.workers[number]
        self.tell(WorkerHello(worker, 1, ""))
        if orders := self.tell(p.JobAssigned(worker, job, 60.0, 10.0, None)):
            assert orders == [p.DismissWorker(worker)]
            self.leaves(number)
            self.begins(number, job)
            return
        self.at_work.add(number)
        self.tell(Ready(worker, "cpu"))

    def leaves(self, number: int) -> None:
        """A worker makes room for one with another job."""
        self.tell(RecallWorker(self.workers[number]))
        _, filled = self.tell(p.WorkerExited(self.workers[number], 0))
        assert isinstance(filled, p.SpawnWorker | p.TakeSpare)
        self.workers[number] = filled.worker

    def with_warm_spare(self) -> Node:
        if not self.at_work:
            self.work()
        assert self.pass_time(PAUSE_S + 0.4) == [StartSpare(SPARE, A)]
        assert self.tell(WorkerHello(SPARE, 1, "")) == [p.PrepareSpare(SPARE, A)]
        assert self.tell(Warm(SPARE)) == []
        return self

    def dies(self, number: int) -> p.PoolOrder:
        """A worker crashes; what its slot gets."""
        lost, filled = self.tell(p.WorkerExited(self.workers[number], -9))
        assert isinstance(lost, p.ReportLost)
        assert isinstance(filled, p.SpawnWorker | p.TakeSpare)
        self.workers[number] = filled.worker
        return filled


def test_a_slot_that_loses_its_worker_gets_the_warm_spare() -> None:
    node = Node().with_warm_spare()
    assert node.dies(0) == p.TakeSpare("cpu:0", WorkerId("cpu:0#2"), SPARE)
    assert node.dies(1) == p.SpawnWorker("cpu:1", WorkerId("cpu:1#2"), node.now)


def test_a_new_spare_is_started_once_every_slot_works_again() -> None:
    node = Node().with_warm_spare()
    node.dies(0)
    assert node.pass_time(5) == []
    node.tell(WorkerHello(node.workers[0], 1, ""))
    node.tell(p.JobAssigned(node.workers[0], A, 60.0, 10.0, None))
    assert node.pass_time(5) == []
    node.tell(Ready(node.workers[0], "cpu"))
    assert node.pass_time(PAUSE_S + 0.4) == [StartSpare(WorkerId("spare#2"), A)]


def test_no_spare_is_started_before_there_is_a_job() -> None:
    node = Node()
    for worker in node.workers:
        node.tell(WorkerHello(worker, 1, ""))
    assert node.pass_time(30) == []


def test_a_spare_that_is_not_warm_yet_is_left_alone_and_the_slot_starts_cold() -> None:
    node = Node()
    node.work()
    node.pass_time(PAUSE_S + 0.4)
    assert isinstance(node.dies(0), p.SpawnWorker)


def test_a_spare_that_dies_costs_nothing_but_a_pause() -> None:
    node = Node().with_warm_spare()
    assert node.tell(p.SpareGone(SPARE)) == []
    assert node.pass_time(RETRY_S - 0.2) == []
    assert node.pass_time(0.6) == [StartSpare(WorkerId("spare#2"), A)]


def test_spares_that_never_get_warm_are_given_up_until_the_job_changes() -> None:
    node = Node()
    node.work()
    started = []
    for _ in range(60):
        for order in node.pass_time(5):
            assert isinstance(order, StartSpare)
            started.append(order)
            node.tell(p.SpareGone(order.spare))
    assert len(started) == MOST_FAILED
    node.work(B)
    assert [order for order in node.pass_time(5) if isinstance(order, StartSpare)]


def test_a_spare_that_does_not_get_warm_in_time_is_killed_though_no_watchdog_sees_it() -> None:
    node = Node()
    node.work()
    node.pass_time(PAUSE_S + 0.4)
    assert node.pass_time(119) == []
    assert node.pass_time(2) == [KillSpare(SPARE, "not warm after 120 s")]


def test_when_the_job_changes_the_spare_is_replaced() -> None:
    node = Node(spares=2).with_warm_spare()
    assert node.pass_time(0.2) == [StartSpare(WorkerId("spare#2"), A)]
    node.work(B)  # the first worker that makes room takes the warm one
    assert node.pass_time(0.2) == [KillSpare(WorkerId("spare#2"), "prepared for a job that is no longer this node's")]
    assert node.pass_time(5) == []  # not before the other is gone
    node.tell(p.SpareGone(WorkerId("spare#2")))
    assert node.pass_time(0.2) == [StartSpare(WorkerId("spare#3"), B)]


def test_while_two_jobs_share_a_node_the_spare_stays() -> None:
    node = Node()
    node.begins(0, A)
    node.begins(1, B)
    node.with_warm_spare()
    assert node.pass_time(5) == []
    assert isinstance(node.dies(1), p.SpawnWorker)  # it worked on B, and will again
    assert isinstance(node.dies(0), p.TakeSpare)


def test_a_spares_worker_that_is_to_have_another_job_makes_room_and_has_not_failed() -> None:
    node = Node(slots=1).with_warm_spare()
    node.dies(0)
    worker = node.workers[0]
    node.tell(WorkerHello(worker, 1, ""))
    assert node.tell(p.JobAssigned(worker, B, 60.0, 10.0, None)) == [p.DismissWorker(worker)]
    lost, filled = node.tell(p.WorkerExited(worker, 0))
    assert isinstance(lost, p.ReportLost)
    assert not lost.failed
    assert isinstance(filled, p.SpawnWorker)
    assert filled.not_before == node.now
    assert node.tell(WorkerHello(filled.worker, 1, "")) == []
    assert node.tell(p.JobAssigned(filled.worker, B, 60.0, 10.0, None)) == []


def test_a_slot_in_which_starts_fail_gets_no_spare_to_burn() -> None:
    node = Node(slots=1).with_warm_spare()
    node.dies(0)
    node.tell(p.WorkerExited(node.workers[0], 1))
    assert node.pool.handle(Warm(SPARE), node.now) == []


def test_when_memory_runs_short_the_spare_goes_and_comes_back_when_there_is_enough() -> None:
    node = Node(memory_bytes=1000).with_warm_spare()
    node.tell(p.MemorySeen(1001))
    assert node.pass_time(0.2) == [KillSpare(SPARE, "the node's memory is nearly used up")]
    node.tell(p.SpareGone(SPARE))
    node.tell(p.MemorySeen(950))
    assert node.pass_time(30) == []
    node.tell(p.MemorySeen(899))
    assert node.pass_time(0.2) == [StartSpare(WorkerId("spare#2"), A)]


def test_a_node_that_leaves_kills_its_spares_and_starts_none() -> None:
    node = Node().with_warm_spare()
    assert KillSpare(SPARE, "no longer needed") in node.tell(p.StopAsked())
    assert node.pass_time(30) == []


def test_without_spares_nothing_is_started() -> None:
    node = Node(spares=0)
    node.work()
    assert node.pass_time(60) == []


class Storm:
    """A node whose workers and spares start, get ready, die and are recalled at random times."""

    def __init__(self, seed: int, slots: int, spares: int) -> None:
        self.random = random.Random(seed)
        self.most = spares
        self.node = Node(slots, spares, memory_bytes=1000)
        self.slots = [f"cpu:{index}" for index in range(slots)]
        self.stage = dict.fromkeys(self.node.workers, "starting")
        self.prepared: dict[WorkerId, JobId] = {}
        self.spares: dict[WorkerId, str] = {}
        self.spare_jobs: dict[WorkerId, JobId] = {}
        self.last_job: dict[str, JobId] = {}
        self.jobs = [A]
        self.takes = 0

    def take_in(self, orders: list[p.PoolOrder]) -> None:
        for order in orders:
            match order:
                case p.SpawnWorker(slot, worker, not_before):
                    if not_before == self.node.now and slot in self.last_job:
                        idle = [s for s, stage in self.spares.items() if stage == "warm"]
                        assert all(self.spare_jobs[s] != self.last_job[slot] for s in idle), "a slot waits for nothing"
                    self.stage[worker] = "starting"
                case p.TakeSpare(slot, worker, spare):
                    assert self.spares.pop(spare) == "warm"
                    assert self.spare_jobs[spare] == self.last_job[slot]
                    self.stage[worker], self.prepared[worker] = "starting", self.spare_jobs[spare]
                    self.takes += 1
                case StartSpare(spare, job):
                    assert is_spare(spare)
                    assert all(stage in ("idle", "ready") for stage in self.stage.values()), "a slot is being started"
                    self.spares[spare], self.spare_jobs[spare] = "starting", job
                case KillSpare(spare):
                    assert self.spares[spare] != "dying"
                    self.spares[spare] = "dying"
                case p.PrepareSpare(spare, job):
                    assert job == self.spare_jobs[spare]
                case p.DismissWorker(worker):
                    self.stage[worker] = "leaving"
                case p.KillWorker(worker):
                    self.stage[worker] = "leaving"
                case p.GiveUp():
                    raise AssertionError("nothing is wrong with the node")
            assert len(self.spares) <= self.most
            assert len(self.stage) <= len(self.slots)

    def tell(self, fact: p.PoolFact) -> None:
        self.take_in(self.node.tell(fact))

    def worker_moves_on(self, worker: WorkerId) -> None:
        slot = slot_of(worker)
        match self.stage[worker]:
            case "starting":
                self.stage[worker] = "idle"
                self.tell(WorkerHello(worker, 1, ""))
            case "idle":
                job = self.random.choice(self.jobs)
                self.last_job[slot], self.stage[worker] = job, "opening"
                mismatch = self.prepared.get(worker, job) != job
                self.tell(p.JobAssigned(worker, job, 60.0, 10.0, None))
                assert (self.stage[worker] == "leaving") == mismatch, "modules of two jobs in one process"
            case "opening":
                self.stage[worker] = "ready"
                self.tell(Ready(worker, "cpu"))
            case "ready" if self.random.random() < 0.5:
                self.tell(RecallWorker(worker))
                self.ends(worker, 0)
            case "ready":
                self.ends(worker, -9)
            case "leaving":
                self.ends(worker, 0)

    def ends(self, worker: WorkerId, status: int) -> None:
        del self.stage[worker]
        self.tell(p.WorkerExited(worker, status))

    def spare_moves_on(self, spare: WorkerId) -> None:
        stage = self.spares[spare]
        if stage == "dying" or self.random.random() < 0.1:
            del self.spares[spare]
            self.tell(p.SpareGone(spare))
        elif stage == "starting":
            self.spares[spare] = "introduced"
            self.tell(WorkerHello(spare, 1, ""))
        elif stage == "introduced":
            self.spares[spare] = "warm"
            self.tell(Warm(spare))

    def step(self) -> None:
        self.node.now += self.random.choice((0.0, 0.2, 2.0))
        if self.random.random() < 0.01:
            self.jobs = self.random.choice(([A], [B], [A, B]))
        if self.random.random() < 0.02:
            self.tell(p.MemorySeen(self.random.choice((500, 1100))))
        movers = [*self.stage, *self.spares]
        mover = self.random.choice(movers)
        if is_spare(mover):
            self.spare_moves_on(mover)
        elif self.stage[mover] != "ready" or self.random.random() < 0.1:
            self.worker_moves_on(mover)
        self.tell(p.TimePassed())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 4), spares=st.integers(0, 3))
def test_whatever_happens_no_slot_waits_beside_a_warm_spare_and_spares_never_get_in_the_way(
    seed: int, slots: int, spares: int
) -> None:
    storm = Storm(seed, slots, spares)
    for _ in range(400):
        storm.step()


def test_in_a_storm_spares_are_really_taken() -> None:
    storm = Storm(1, 2, 2)
    for _ in range(3000):
        storm.step()
    assert storm.takes > 20


def test_a_spare_that_was_taken_is_no_spare_any_more() -> None:
    spares = Spares(1)
    spares.want(A)
    spares.settle(True, 0.0)
    assert spares.settle(True, PAUSE_S) == [StartSpare(SPARE, A)]
    spares.is_warm(SPARE)
    assert spares.take(B) is None
    assert spares.take(A) == SPARE
    assert spares.take(A) is None
    assert spares.job_of(SPARE) is None
