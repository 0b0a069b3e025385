"""The messages between a daemon and its compute workers: plain values, which the core takes and orders as they are.

Every message is safe to repeat. `local` packs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nimbusd.core.ids import Attempt, JobId, WorkerId
from nimbusd.transport.messages.failures import Failure
from nimbusd.transport.messages.node import Stored

# --- worker → daemon ---


@dataclass(frozen=True, slots=True)
class WorkerHello:
    """First: who I am, also as a spare. version: of nimbusd."""

    worker: WorkerId
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class Warm:
    """A spare has imported what the job needs."""

    spare: WorkerId


@dataclass(frozen=True, slots=True)
class Ready:
    """The components are made, the backend is open. device: what renders, in words."""

    worker: WorkerId
    device: str


@dataclass(frozen=True, slots=True)
class WorkerPulls:
    """I can take `credit` more episodes of my job."""

    worker: WorkerId
    credit: int


@dataclass(frozen=True, slots=True)
class Beat:
    """A thread that works on an attempt is alive. Sent at once when a stage begins, before that can hang or crash."""

    worker: WorkerId
    attempt: Attempt
    stage: str


@dataclass(frozen=True, slots=True)
class Memory:
    """A worker's memory at the end of an episode: resident, and on its GPU (0 if that is not known)."""

    rss_bytes: int
    gpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned sequence in a file. spilled: on disk, not in memory. cost_s: what planning took a slot."""

    path: str
    size_bytes: int
    spilled: bool = False
    cost_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EpisodePlanned:
    """The episode is planned; its sequence lies in a file."""

    worker: WorkerId
    attempt: Attempt
    plan: Plan
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class EpisodeStored:
    """The episode's piece is durable."""

    worker: WorkerId
    attempt: Attempt
    piece: Stored
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt came to nothing without killing its worker. cost_s: what it took a slot."""

    worker: WorkerId
    attempt: Attempt
    failure: Failure
    cost_s: float = 0.0
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class WorkerReturns:
    """I was asked to leave, and hand back what I have not begun."""

    worker: WorkerId
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Fatal:
    """No episode of the job can succeed here (the backend is unavailable)."""

    worker: WorkerId
    job: JobId
    error: str


@dataclass(frozen=True, slots=True)
class WorkerBye:
    """Last: I leave, and have said all."""

    worker: WorkerId


# --- daemon → worker ---


@dataclass(frozen=True, slots=True)
class Assign:
    """The job to work on from now on."""

    job: dict[str, Any]
    """`Job.to_dict()`, whose scenes come with the episodes."""
    output: str
    open_timeout_s: float
    """For making its components and opening its backend."""
    role: str = "fused"
    """`fused`, `plan` or `render`."""
    plans: tuple[str, ...] = ()
    """Folders for planned sequences, the first in memory, the second on disk."""
    environment: dict[str, Any] = field(default_factory=dict)
    """To be recorded with the episodes: its hash and packages, and those that are others than the job began with."""


@dataclass(frozen=True, slots=True)
class MakeEpisode:
    """Do your part of this episode."""

    worker: WorkerId
    attempt: Attempt
    entry: dict[str, Any] = field(default_factory=dict, hash=False)
    """The scene's entry in the job."""
    plan: str = ""
    """The file of its sequence, which is then not planned again; empty: it is to be planned."""
    spill: bool = False
    """A sequence that is planned goes to disk, memory being used up."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """To a spare: import what this job needs, and open nothing. job: as in Assign."""

    job: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TakePlace:
    """To a spare: you are this compute worker from now on, with its slot's device, cores and environment."""

    worker: WorkerId
    device: str
    cpus: tuple[int, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Leave:
    """Finish what you have begun, hand back the rest, and leave."""
