"""The facts that the pool of a node's compute workers is told, and its orders.

It is told messages of workers and orders to them as they are; here are the facts that nobody says in a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from nimbusd.core.ids import JobId, WorkerId
from nimbusd.core.node.facts import RecallWorker, StopWorker
from nimbusd.core.node.spares import SpareOrder
from nimbusd.transport.messages.worker import Fatal, Ready, Warm, WorkerHello

# --- facts ---


@dataclass(frozen=True, slots=True)
class JobAssigned:
    """A worker is to be told its job, whose limits count from now on."""

    worker: WorkerId
    job: JobId
    open_timeout_s: float
    beat_timeout_s: float
    episode_timeout_s: float | None


@dataclass(frozen=True, slots=True)
class BeatSeen:
    """A worker showed progress. busy: it still has work."""

    worker: WorkerId
    busy: bool


@dataclass(frozen=True, slots=True)
class LeaseSent:
    """A worker was given work: from now on it owes a beat."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class EpisodeBegan:
    """A worker has turned to its next episode."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class WorkerKilled:
    """The watchdog killed a worker; its exit is told next."""

    worker: WorkerId
    reason: str
    stack: str
    """Of its threads, as the watchdog found them."""
    stage: str = ""
    """Of the thread that alone is to blame; empty if that cannot be told."""


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """A worker's process is gone. returncode: negative for a signal, as subprocess has it."""

    worker: WorkerId
    returncode: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Look at the deadlines."""


@dataclass(frozen=True, slots=True)
class SpareGone:
    """A spare's process is gone."""

    spare: WorkerId


@dataclass(frozen=True, slots=True)
class MemorySeen:
    """The memory of the node that is in use, by whomever."""

    used_bytes: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Spawn nothing more. Workers leave by themselves; those that are still starting are killed."""


PoolFact: TypeAlias = (
    WorkerHello
    | Ready
    | Warm
    | Fatal
    | RecallWorker
    | StopWorker
    | JobAssigned
    | LeaseSent
    | BeatSeen
    | EpisodeBegan
    | WorkerKilled
    | WorkerExited
    | TimePassed
    | SpareGone
    | MemorySeen
    | StopAsked
)

# --- orders ---


@dataclass(frozen=True, slots=True)
class SpawnWorker:
    """Start a compute worker in a slot, not before `not_before` (same clock as `now`)."""

    slot: str
    worker: WorkerId
    not_before: float


@dataclass(frozen=True, slots=True)
class TakeSpare:
    """A warm spare is the slot's worker from now on, by that name. If it has just died, one is started."""

    slot: str
    worker: WorkerId
    spare: WorkerId


@dataclass(frozen=True, slots=True)
class PrepareSpare:
    """Tell a spare what to prepare for."""

    spare: WorkerId
    job: JobId


@dataclass(frozen=True, slots=True)
class DismissWorker:
    """Have a worker leave instead of telling it its job: what it was prepared for may not go along with that."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class KillWorker:
    """SIGKILL the worker's process group; its exit is reported afterwards as any other."""

    worker: WorkerId
    reason: str


@dataclass(frozen=True, slots=True)
class ReportLost:
    """Tell that the worker is gone to whoever gave it episodes."""

    worker: WorkerId
    reason: str
    """A word to count by: `hang`, `crash` or `exit`."""
    detail: str
    """A sentence."""
    failed: bool
    """The worker should not have gone."""
    stack: str = ""
    """Of its threads, if the watchdog killed it."""
    stage: str = ""
    """Of the thread that alone is to blame, if the watchdog killed it."""


@dataclass(frozen=True, slots=True)
class CannotOpen:
    """No worker can be opened for a job here; the slot's next one is for others."""

    job: JobId
    detail: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No worker can be started here."""

    detail: str


PoolOrder: TypeAlias = (
    SpawnWorker | TakeSpare | PrepareSpare | DismissWorker | KillWorker | ReportLost | CannotOpen | GiveUp | SpareOrder
)
