"""Facts and orders of a node's state machine, beside the messages.

What the master and the compute workers say is a fact, and what is said to them is an order, as it stands in
`transport.messages`. Here are the facts that no message carries and the orders that the shell expands or carries out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from nimbusd.core.ids import JobId, WorkerId
from nimbusd.core.node.split import Mode, Role
from nimbusd.transport.messages.failures import Failure
from nimbusd.transport.messages.node import Ack, Commit, Drain, Fail, GiveBack, Heartbeat, Lease, Revoke, Welcome
from nimbusd.transport.messages.worker import (
    AttemptFailed,
    Beat,
    EpisodePlanned,
    EpisodeStored,
    MakeEpisode,
    WorkerPulls,
    WorkerReturns,
)

# --- facts ---


@dataclass(frozen=True, slots=True)
class JobKnown:
    """A job's wishes to the nodes that it runs on."""

    job: JobId
    mode: Mode
    planners: int | None = None
    """Slots that plan in decoupled mode, whatever is measured; None: as many as give the highest throughput."""
    writers: int = 1
    """Threads of each renderer that store."""
    recycle_growth_bytes: int | None = None
    """RecycleLimits.growth_bytes."""


@dataclass(frozen=True, slots=True)
class WorkerWaits:
    """A compute worker has started and has no job yet. renders: True where its slot is one to render in."""

    worker: WorkerId
    renders: bool = True


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker's process has ended.

    failure: why. Its stage is the one that the worker hung in, whose episode alone is to blame; empty if that cannot be
    told.
    """

    worker: WorkerId
    failure: Failure


@dataclass(frozen=True, slots=True)
class JobUnfit:
    """A job's components cannot be made here."""

    job: JobId


@dataclass(frozen=True, slots=True)
class JobChanged:
    """The job was submitted anew, with another output, limits or mode: workers that know it as it was must leave."""

    job: JobId


FromMaster: TypeAlias = Welcome | Lease | Revoke | Ack | Drain
FromWorker: TypeAlias = WorkerPulls | Beat | EpisodePlanned | EpisodeStored | AttemptFailed | WorkerReturns
NodeFact: TypeAlias = FromMaster | FromWorker | JobKnown | WorkerWaits | WorkerGone | JobUnfit | JobChanged

# --- orders ---


@dataclass(frozen=True, slots=True)
class AssignJob:
    """Make the components that the role needs from this job."""

    worker: WorkerId
    job: JobId
    role: Role = Role.FUSED


@dataclass(frozen=True, slots=True)
class RecallWorker:
    """Have the worker finish what it has begun and leave: its slot is wanted for another job or role, or it has grown
    too large. why: in words, where it is the worker's own fault.
    """

    worker: WorkerId
    why: str = ""


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Kill the worker: nobody wants what it is making. why: in words."""

    worker: WorkerId
    why: str


@dataclass(frozen=True, slots=True)
class DropPiece:
    """The piece of a fenced attempt is garbage."""

    job: JobId
    folder: str


@dataclass(frozen=True, slots=True)
class DropPlan:
    """Nobody will render from this file any more."""

    path: str


ToMaster: TypeAlias = Heartbeat | Commit | Fail | GiveBack
NodeOrder: TypeAlias = ToMaster | AssignJob | MakeEpisode | RecallWorker | StopWorker | DropPiece | DropPlan
