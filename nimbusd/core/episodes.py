"""The words of a job's state machines: episodes, attempts, the facts that come in, the orders that go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType, TypeAlias

WorkerId = NewType("WorkerId", str)


class State(Enum):
    """Where an episode stands. PENDING and LEASED are open, the others settled."""

    PENDING = "pending"
    LEASED = "leased"
    COMMITTED = "committed"
    FAILED = "failed"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class EpisodeKey:
    """An episode of the job: a scene and an index in it."""

    scene: str
    index: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A lease's identity: an episode and the fencing number of the attempt."""

    key: EpisodeKey
    number: int


# --- facts ---


@dataclass(frozen=True, slots=True)
class CreditOffered:
    """A worker can take `credit` more leases."""

    worker: WorkerId
    credit: int


@dataclass(frozen=True, slots=True)
class WorkStarted:
    """A worker has begun an attempt; losing the worker now counts against the episode.

    A worker says so before it does anything that could hang or crash.
    """

    worker: WorkerId
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class PieceStored:
    """A worker made a piece durable. folder, frames, size_bytes, digest: what the ledger keeps of it."""

    worker: WorkerId
    attempt: Attempt
    folder: str
    frames: int
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt came to nothing without killing its worker.

    planned: a planning result, final. final: pointless to try again (a broken asset).
    blameless: not the episode's doing (a full disk), so it stays pending and is not counted.
    """

    worker: WorkerId
    attempt: Attempt
    stage: str
    reason: str
    detail: str
    evidence: str = ""
    planned: bool = False
    final: bool = False
    blameless: bool = False


@dataclass(frozen=True, slots=True)
class LeasesReturned:
    """A worker gives back attempts that it has not started."""

    worker: WorkerId
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died, was killed or left. evidence: stderr or a stack."""

    worker: WorkerId
    reason: str
    detail: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """Lease nothing more."""


Fact: TypeAlias = CreditOffered | WorkStarted | PieceStored | AttemptFailed | LeasesReturned | WorkerLost | DrainAsked

# --- orders ---


@dataclass(frozen=True, slots=True)
class Record:
    """Make this the ledger's row of the episode, before carrying out any other order of the batch."""

    key: EpisodeKey
    state: State
    attempt: int
    losses: int
    worker: str = ""
    stage: str = ""
    reason: str = ""
    detail: str = ""
    evidence: str = ""
    folder: str = ""
    frames: int = 0
    size_bytes: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Send the lease to the worker."""

    worker: WorkerId
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class CheckSettled:
    """A piece of an attempt that holds no lease: garbage, unless the ledger says it is the committed one."""

    attempt: Attempt
    folder: str


@dataclass(frozen=True, slots=True)
class FinishJob:
    """Nothing is open and nothing will be."""


Order: TypeAlias = Record | GrantLease | CheckSettled | FinishJob


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What a job wants of a scene.

    wanted: episodes. exact: refill failed plans from the next indexes, up to `most_tried` indexes in all.
    """

    name: str
    wanted: int
    exact: bool
    most_tried: int


@dataclass(slots=True)
class SceneCount:
    """Settled episodes of a scene. The counters never depend on the order of events."""

    committed: int = 0
    failed: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class OpenEpisode:
    """An open episode as the ledger knows it, for a restart."""

    attempt: int
    losses: int


@dataclass(frozen=True, slots=True)
class SceneHistory:
    """What the ledger knows of a scene: settled counts, open episodes, and the first index never recorded."""

    count: SceneCount = field(default_factory=SceneCount)
    open: Mapping[int, OpenEpisode] = field(default_factory=dict)
    next_index: int = 0
