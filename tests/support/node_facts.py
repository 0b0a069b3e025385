"""Facts of a node's state machine in few words, as its stories tell them."""

from __future__ import annotations

from nimbusd.core.ids import Attempt, EpisodeKey, JobId, LeaseId, WorkerId
from nimbusd.core.master.nodes import DEAD_AFTER_S, HEARTBEAT_S
from nimbusd.core.node.facts import WorkerGone
from nimbusd.transport.messages.failures import Failure
from nimbusd.transport.messages.node import Lease, Welcome
from nimbusd.transport.messages.worker import AttemptFailed, Memory


def attempt(lease: int, index: int, scene: str = "s", job: str = "job", number: int = 1) -> Attempt:
    return Attempt(EpisodeKey(JobId(job), scene, index), number, LeaseId(lease))


def attempt_of(lease: Lease, index: int) -> Attempt:
    return Attempt(EpisodeKey(lease.job, lease.scene, index), lease.attempt, lease.lease)


def gone(worker: WorkerId, reason: str, detail: str = "", evidence: str = "", stage: str = "") -> WorkerGone:
    return WorkerGone(worker, Failure(stage, reason, detail, evidence))


def welcome(heartbeat_s: float = HEARTBEAT_S) -> Welcome:
    return Welcome(1, heartbeat_s, DEAD_AFTER_S)


def measured(worker: WorkerId, rss_bytes: int) -> AttemptFailed:
    """A worker's memory, as it is told at the end of an attempt: here of one that nobody waits for any more."""
    return AttemptFailed(worker, attempt(99, 0), Failure("render", "error", ""), memory=Memory(rss_bytes))
