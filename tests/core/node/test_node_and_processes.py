"""The node's state machine: what was found with real processes, which show it only now and then."""

from __future__ import annotations

from nimbusd.core.ids import JobId, LeaseId, NodeId, Span, WorkerId
from nimbusd.core.node import facts as n
from nimbusd.core.node.machine import NodeMachine
from nimbusd.transport.messages.node import Fail, Heartbeat, Lease, Revoke, Stored
from nimbusd.transport.messages.worker import Beat, EpisodeStored, MakeEpisode, WorkerPulls
from tests.support.node_facts import attempt, gone, welcome

NODE, WORKER = NodeId("w1"), WorkerId("cpu:0#1")


def machine_at_work() -> NodeMachine:
    """A node whose one worker has the first of two episodes of a job."""
    node = NodeMachine(NODE, "s", 1)
    node.handle(n.WorkerWaits(WORKER), 0.0)
    node.handle(lease(1, "low"), 0.0)
    node.settle(0.0)
    node.handle(WorkerPulls(WORKER, 1), 0.0)
    assert any(isinstance(order, MakeEpisode) for order in node.settle(0.0))
    return node


def lease(number: int, job: str) -> Lease:
    return Lease(NODE, LeaseId(number), JobId(job), "a", 1, (Span(0, 2),))


def piece(index: int) -> Stored:
    return Stored(index, f"piece{index}", 1, 1, "digest", 0.1)


def test_a_worker_that_dies_before_it_says_what_it_began_costs_the_first_episode_it_had() -> None:
    node = machine_at_work()
    (failure,) = node.handle(gone(WORKER, "exit", "exited with status 0"), 1.0)
    assert isinstance(failure, Fail)
    assert failure.attempt.key.index == 0


def test_a_worker_serves_the_job_whose_leases_came_first_though_its_own_has_work() -> None:
    node = machine_at_work()
    node.handle(lease(2, "high"), 0.1)
    node.handle(EpisodeStored(WORKER, attempt(1, 0, "a", "low"), piece(0)), 0.2)
    node.handle(WorkerPulls(WORKER, 1), 0.2)
    assert any(isinstance(order, MakeEpisode) for order in node.settle(0.2))
    node.handle(lease(3, "low"), 0.3)
    node.handle(EpisodeStored(WORKER, attempt(1, 1, "a", "low"), piece(1)), 0.4)
    node.handle(WorkerPulls(WORKER, 1), 0.4)
    assert n.RecallWorker(WORKER) in node.settle(0.4)
    node.handle(gone(WORKER, "exit"), 0.5)
    node.handle(n.WorkerWaits(WorkerId("cpu:0#2")), 0.6)
    assert n.AssignJob(WorkerId("cpu:0#2"), JobId("high")) in node.settle(0.6)


def test_a_piece_that_is_stored_after_its_lease_was_revoked_is_dropped() -> None:
    node = machine_at_work()
    node.handle(Beat(WORKER, attempt(1, 0, "a", "low"), "render"), 0.1)
    node.handle(Revoke(NODE, LeaseId(1), (0,), kill=True), 0.2)
    orders = node.handle(EpisodeStored(WORKER, attempt(1, 0, "a", "low"), piece(0)), 0.3)
    assert orders == [n.DropPiece(JobId("low"), "piece0")]


def test_heartbeats_come_as_often_as_the_master_says() -> None:
    node = machine_at_work()
    node.handle(welcome(0.25), 1.0)
    node.settle(1.0)
    assert not [order for order in node.settle(1.2) if isinstance(order, Heartbeat)]
    assert [order for order in node.settle(1.3) if isinstance(order, Heartbeat)]
