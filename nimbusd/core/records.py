"""Records of the ledger: jobs and their episodes, in the words of the state machines.

An episode is `pending → leased(attempt) → committed | failed(reason) | quarantined`. Only what must survive a
crash is recorded: episodes that are settled, pending ones that were tried before, and open leases. An episode
of which nothing is known is pending and was never tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.transport.messages.failures import Failure
from nimbusd.transport.messages.node import Stored


class State(Enum):
    """The state of an episode, as recorded. Leased ones are pending in the ledger, beside an open lease."""

    PENDING = "pending"
    COMMITTED = "committed"
    FAILED = "failed"
    QUARANTINED = "quarantined"


class JobState(Enum):
    """The state of a job. RUNNING and PAUSED are open; a complete job may be given more to do by Retry."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"


# --- what the ledger is told; all records of a batch are one transaction ---


@dataclass(frozen=True, slots=True)
class Record:
    """The ledger's row of an episode from now on. A committed row never changes again."""

    key: EpisodeKey
    state: State
    attempt: int
    """The highest fencing number that was ever leased."""
    losses: int
    """Compute workers that it has cost."""
    node: str = ""
    """The node that made the attempt."""
    piece: Stored | None = None
    """Of a committed episode."""
    failure: Failure | None = None
    """Of the attempt that led to this row, if it came to nothing."""


@dataclass(frozen=True, slots=True)
class LeaseOpened:
    """A node holds these episodes. Durable before the lease leaves, so that no number is ever given twice."""

    lease: LeaseId
    job: JobId
    scene: str
    attempt: int
    node: NodeId
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class LeaseClosed:
    """All episodes of the lease are settled, or recorded as pending again."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class JobRecorded:
    """The job's state from now on. why: of a pause or an end, in words.

    environment: the hash that nodes must have from now on (JobRow.environment), recorded with a job's first commit if
    the job did not ask for one, and when another one is accepted; empty: as before. packages: what it is the hash of.
    """

    job: JobId
    state: JobState
    why: str = ""
    environment: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)


LedgerEntry: TypeAlias = Record | LeaseOpened | LeaseClosed | JobRecorded


# --- what the ledger tells after a restart ---


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as submitted. spec: `Job.to_dict()` as JSON text. fingerprint: `Job.fingerprint()`.

    packages: what `environment` is the hash of, version by name. began_with: those of the first environment. Both are
    empty until the first commit, and where they were not recorded.
    """

    job: JobId
    fingerprint: str
    spec: Mapping[str, Any]
    user: str
    priority: int
    max_nodes: int
    dynload: bool
    environment: str
    submitted_unix_s: float
    state: JobState = JobState.RUNNING
    why: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    began_with: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class SceneCount:
    """Settled episodes of a scene, and what the committed ones hold. Independent of the order of events."""

    committed: int = 0
    failed: int = 0
    quarantined: int = 0
    frames: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """A pending episode that was tried before: the highest attempt leased, and the workers it has cost."""

    attempt: int
    losses: int


@dataclass(frozen=True, slots=True)
class LostPiece:
    """An episode that was committed and is pending again, its piece being damaged or gone.

    frames, size_bytes: what it had added to the count of its scene.
    """

    tried: Tried
    frames: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SceneHistory:
    """A scene as the ledger has it. settled: sorted, disjoint, not touching. tried: pending ones by index."""

    count: SceneCount = field(default_factory=SceneCount)
    settled: tuple[Span, ...] = ()
    tried: Mapping[int, Tried] = field(default_factory=dict)
