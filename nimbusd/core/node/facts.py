"""What a node's state machine is told by its workers, and what it orders beside what it tells the master."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from nimbusd.core.ids import JobId, LeaseId, WorkerId
from nimbusd.core.master.facts import (
    Acknowledge,
    AttemptFailed,
    EpisodesReturned,
    GrantLease,
    HeartbeatSeen,
    PiecesStored,
    RevokeLease,
    StoredPiece,
)
from nimbusd.core.node.backlog import Plan
from nimbusd.core.node.split import Mode, Role

# --- facts, beside the master's orders ---


@dataclass(frozen=True, slots=True)
class JobKnown:
    """What a job asks of the nodes that it runs on. planners: that many slots plan in decoupled mode, whatever is
    measured; None: as many as give the highest throughput. writers: threads of each renderer that store.
    recycle_growth_bytes: see RecycleLimits.growth_bytes.
    """

    job: JobId
    mode: Mode
    planners: int | None = None
    writers: int = 1
    recycle_growth_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerWaits:
    """A compute worker has started and has no job yet. renders: whether its slot is one to render in."""

    worker: WorkerId
    renders: bool = True


@dataclass(frozen=True, slots=True)
class WorkerMeasured:
    """What a worker had in memory at the end of an episode: of the node's, and of its GPU's."""

    worker: WorkerId
    rss_bytes: int
    gpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class WorkerPulls:
    """A compute worker can take `credit` more episodes of its job."""

    worker: WorkerId
    credit: int


@dataclass(frozen=True, slots=True)
class EpisodeBegan:
    """A worker begins a stage of an episode. It says so before it does anything that could hang or crash."""

    worker: WorkerId
    lease: LeaseId
    index: int
    stage: str


@dataclass(frozen=True, slots=True)
class EpisodePlanned:
    """A worker planned an episode; its sequence lies in a file."""

    worker: WorkerId
    lease: LeaseId
    index: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class EpisodeStored:
    """A worker made an episode's piece durable. plan_s, store_s: the parts of its cost, planning being 0 where
    another worker did it.
    """

    worker: WorkerId
    lease: LeaseId
    piece: StoredPiece
    plan_s: float = 0.0
    store_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EpisodeFailed:
    """An episode came to nothing without killing its worker. The flags: see AttemptFailed."""

    worker: WorkerId
    lease: LeaseId
    index: int
    stage: str
    reason: str
    detail: str
    evidence: str = ""
    cost_s: float = 0.0
    planned: bool = False
    final: bool = False
    blameless: bool = False


@dataclass(frozen=True, slots=True)
class WorkerReturns:
    """A worker that was recalled hands back episodes that it has not begun."""

    worker: WorkerId
    episodes: tuple[tuple[LeaseId, int], ...]


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker's process has ended. evidence: stderr or a stack.

    stage: the one that it hung in, and whose episode alone is to blame; empty if that cannot be told.
    """

    worker: WorkerId
    reason: str
    detail: str
    evidence: str = ""
    stage: str = ""


@dataclass(frozen=True, slots=True)
class JobUnfit:
    """A job's components cannot be made here."""

    job: JobId


@dataclass(frozen=True, slots=True)
class JobChanged:
    """The job was submitted anew, with another output, limits or mode: workers that know it as it was must leave."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Connected:
    """The master said welcome: it may have forgotten what we last told it.

    heartbeat_s: how often it wants to hear; None: as before.
    """

    heartbeat_s: float | None = None


@dataclass(frozen=True, slots=True)
class DrainSet:
    """Take nothing new and give back what has not begun; on=False: go on."""

    on: bool


NodeFact: TypeAlias = (
    GrantLease
    | RevokeLease
    | Acknowledge
    | JobKnown
    | WorkerWaits
    | WorkerPulls
    | WorkerMeasured
    | EpisodeBegan
    | EpisodePlanned
    | EpisodeStored
    | EpisodeFailed
    | WorkerReturns
    | WorkerGone
    | JobUnfit
    | JobChanged
    | Connected
    | DrainSet
)

# --- orders, beside what the master is told ---


@dataclass(frozen=True, slots=True)
class AssignJob:
    """Make the components that the role needs from this job."""

    worker: WorkerId
    job: JobId
    role: Role = Role.FUSED


@dataclass(frozen=True, slots=True)
class MakeEpisode:
    """Have the worker do its part of an episode. plan: the file of its sequence, which it then does not plan itself.

    spill: a planned sequence shall go to disk, memory being used up.
    """

    worker: WorkerId
    lease: LeaseId
    job: JobId
    scene: str
    index: int
    attempt: int
    plan: str | None = None
    spill: bool = False


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


Told: TypeAlias = HeartbeatSeen | PiecesStored | AttemptFailed | EpisodesReturned
NodeOrder: TypeAlias = Told | AssignJob | MakeEpisode | RecallWorker | StopWorker | DropPiece | DropPlan
