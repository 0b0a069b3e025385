"""The messages between a daemon and its compute workers: frozen dataclasses, packed by `codec`.

Every message is safe to repeat. Unknown types, wrong fields and oversized frames raise `MessageError`, which
the receiver counts and drops; they never crash it. Nothing is pickled.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nimbusd.transport.codec.codec import MAX_MESSAGE_BYTES, Codec, MessageError

__all__ = ["MAX_MESSAGE_BYTES", "MessageError", "decode", "encode"]

WORKER_PROTOCOL_VERSION = 1
"""Of what a node and its own processes say to each other."""
MAX_JOB_BYTES = 16 << 20
"""Of a Welcome: a job may have thousands of scenes."""


@dataclass(frozen=True, slots=True)
class EpisodeRef:
    """An attempt at an episode: the scene, the index in it, the lease and its fencing number."""

    scene: str
    index: int
    attempt: int
    lease: int


@dataclass(frozen=True, slots=True)
class Hello:
    """Worker → daemon, first: who I am. version: of nimbusd."""

    slot: str
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """Daemon → worker: the job to work on. job: `Job.to_dict()`, whose scenes come with the leases.

    open_timeout_s: for making its components and opening its backend. role: `fused`, `plan` or `render`. plans: folders
    for planned sequences, the first in memory, the second on disk. environment: to be recorded with the episodes: its
    hash and packages, and those that are others than the job began with.
    """

    job: dict[str, Any]
    output: str
    open_timeout_s: float
    role: str = "fused"
    plans: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Daemon → spare: import what this job needs, and open nothing. job: as in Welcome."""

    job: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Warm:
    """Spare → daemon: I have imported what the job needs. slot: my name as a spare."""

    slot: str


@dataclass(frozen=True, slots=True)
class TakePlace:
    """Daemon → spare: you are this compute worker from now on, with its slot's device, cores and environment."""

    worker: str
    device: str
    cpus: tuple[int, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker → daemon: components are made, the backend is open. device: what renders, in words."""

    slot: str
    device: str


@dataclass(frozen=True, slots=True)
class Pull:
    """Worker → daemon: I can take `credit` more leases."""

    slot: str
    credit: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Daemon → worker: do your part of this episode. entry: its scene's entry in the job.

    plan: the file of its sequence; empty: it is to be planned. spill: a sequence that is planned goes to disk.
    """

    episode: EpisodeRef
    entry: dict[str, Any]
    plan: str = ""
    spill: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """Worker → daemon: a thread that works on `episode` is alive; sent at once when a stage begins."""

    slot: str
    episode: EpisodeRef
    stage: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What a worker has in memory at the end of an episode. rss_bytes: resident; gpu_bytes: on its GPU."""

    rss_bytes: int
    gpu_bytes: int


@dataclass(frozen=True, slots=True)
class Planned:
    """Worker → daemon: the episode is planned; its sequence lies in the file `path`. timings_s: stage → seconds."""

    slot: str
    episode: EpisodeRef
    path: str
    size_bytes: int
    spilled: bool
    timings_s: dict[str, float]
    memory: Memory


@dataclass(frozen=True, slots=True)
class Commit:
    """Worker → daemon: the piece is durable. digest: of its manifest; timings_s: stage → seconds."""

    slot: str
    episode: EpisodeRef
    folder: str
    frames: int
    size_bytes: int
    digest: str
    timings_s: dict[str, float]
    memory: Memory


@dataclass(frozen=True, slots=True)
class Fail:
    """Worker → daemon: this attempt came to nothing. planned: a planning result, not a fault."""

    slot: str
    episode: EpisodeRef
    stage: str
    reason: str
    detail: str
    planned: bool
    evidence: str
    timings_s: dict[str, float]
    memory: Memory


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Worker → daemon: leases that I have not started and will not."""

    slot: str
    episodes: tuple[EpisodeRef, ...]


@dataclass(frozen=True, slots=True)
class Fatal:
    """Worker → daemon: no episode can succeed here (the backend is unavailable)."""

    slot: str
    job: str
    error: str


@dataclass(frozen=True, slots=True)
class Bye:
    """Worker → daemon, last: I leave, and have said all."""

    slot: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Daemon → worker: finish what you have started, give back the rest, and leave."""


Message: TypeAlias = (
    Hello
    | Welcome
    | Prepare
    | Warm
    | TakePlace
    | Ready
    | Pull
    | Lease
    | Beat
    | Planned
    | Commit
    | Fail
    | GiveBack
    | Fatal
    | Bye
    | Drain
)

CODEC: Codec[Message] = Codec(
    typing.get_args(Message), version=WORKER_PROTOCOL_VERSION, limits={Welcome: MAX_JOB_BYTES, Prepare: MAX_JOB_BYTES}
)


def encode(message: Message) -> bytes:
    """Pack a message. Raises MessageError if it is too large."""
    return CODEC.encode(message)


def decode(frame: bytes) -> Message:
    """Unpack and check a message. Raises MessageError for anything that is not one."""
    return CODEC.decode(frame)
