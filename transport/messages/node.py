"""Control messages between nodes and the master: plain values, which the core takes and orders as they are.

What a node says has bounds, as nobody knows who wrote its program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from nimbusd.core.ids import Attempt, JobId, LeaseId, NodeId, Span
from nimbusd.transport.messages.bounds import (
    MOST_BYTES,
    MOST_FOLDER,
    MOST_FRAMES,
    MOST_INT,
    Bytes,
    Digest,
    Id,
    Index,
    Length,
    NodeName,
    Packages,
    Place,
    Printable,
    Range,
    Rate,
    Seconds,
    Sentence,
    Timings,
    Word,
)
from nimbusd.transport.messages.failures import Failure

MOST_LEASES = 20_000
"""That one node can hold."""
MOST_EPISODES = 4_096
"""Of one lease, or under way on one node."""

Sender: TypeAlias = Annotated[NodeId, Length(100, least=1), Printable()]
"""The node that a message is of."""
JobName: TypeAlias = Annotated[JobId, Length(1_024)]
LeaseNumber: TypeAlias = Annotated[LeaseId, Range(0, MOST_INT)]

# --- node → master ---


@dataclass(frozen=True, slots=True)
class Hello:
    """First on every connection. session: new at each start of the node's process.

    environment: hash over `packages`. packages: versions of all that is installed, of the driver and the like, by name;
    of these the master compares those that count for a job. slots: compute workers it can run.
    """

    node: Sender
    session: Word
    version: Word
    environment: Word
    packages: Packages
    slots: Annotated[int, Range(0, MOST_EPISODES)]
    devices: Annotated[tuple[Word, ...], Length(256)]


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """One GPU. busy: share of the last interval, 0 to 1."""

    name: Word
    busy: Rate
    memory_used_bytes: Bytes
    memory_total_bytes: Bytes


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a node's hardware. cpu: share of all cores in use, 0 to 1."""

    cpu: Rate
    memory_used_bytes: Bytes
    memory_total_bytes: Bytes
    gpus: Annotated[tuple[GpuLoad, ...], Length(64)] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """An episode that a compute worker is at. elapsed_s: since it began."""

    lease: LeaseNumber
    index: Index
    stage: Word
    elapsed_s: Seconds


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """A job's progress on a node: the live model of section 6.1.2 of the Nimbus paper.

    mode: `fused` or `decoupled`. planners, renderers: compute workers. backlog: plans that wait. plan_s, render_s,
    store_s: mean seconds per episode. good: share of plans that succeed. planning, rendering: processes at it, mean
    over the last minute. mu_plan, mu_render, theory (lambda) and achieved: episodes per second.
    """

    job: JobName
    mode: Word
    planners: Index
    renderers: Index
    backlog: Index
    plan_s: Rate
    render_s: Rate
    store_s: Rate
    good: Rate
    planning: Rate
    rendering: Rate
    mu_plan: Rate
    mu_render: Rate
    theory: Rate
    achieved: Rate


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Node → master, every interval and whenever something changes. seq grows by one within a session.

    credit: episodes that the node can take beyond those it holds; the latest seq counts. held: the leases it
    holds. running: the episodes that have begun. pipelines: the jobs at work.
    """

    node: Sender
    session: Word
    seq: Id
    credit: Annotated[int, Range(0, 1_000_000)]
    held: Annotated[tuple[LeaseNumber, ...], Length(MOST_LEASES)]
    running: Annotated[tuple[Running, ...], Length(MOST_EPISODES)]
    load: Load | None = None
    pipelines: Annotated[tuple[PipelineReport, ...], Length(256)] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """An episode whose piece is durable. cost_s: what it took a slot; timings_s: stage → seconds."""

    index: Index
    folder: Annotated[str, Length(MOST_FOLDER)]
    frames: Annotated[int, Range(0, MOST_FRAMES)]
    size_bytes: Annotated[int, Range(0, MOST_BYTES)]
    digest: Digest
    cost_s: Seconds
    timings_s: Timings = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Commit:
    """Node → master: these episodes of a lease are stored. Sent again until acknowledged."""

    node: Sender
    lease: LeaseNumber
    job: JobName
    scene: Place
    attempt: Index
    stored: Annotated[tuple[Stored, ...], Length(MOST_EPISODES)]


@dataclass(frozen=True, slots=True)
class Fail:
    """Node → master: an attempt came to nothing. Sent again until acknowledged. cost_s: what it took a slot."""

    node: Sender
    attempt: Attempt
    failure: Failure
    cost_s: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Node → master: episodes of a lease that have not begun here and will not. Sent again until acknowledged."""

    node: Sender
    lease: LeaseNumber
    indexes: Annotated[tuple[Index, ...], Length(MOST_EPISODES)]


@dataclass(frozen=True, slots=True)
class CannotRun:
    """Node → master: this job's components cannot be made here (no backend, say), and never will be."""

    node: Sender
    job: JobName
    error: Sentence


@dataclass(frozen=True, slots=True)
class NeedJob:
    """Node → master: I hold leases of a job whose description I don't have."""

    node: Sender
    job: JobName


@dataclass(frozen=True, slots=True)
class Bye:
    """Node → master, last: I leave and hold nothing. why: in words."""

    node: Sender
    session: Word
    why: Sentence


# --- master → node; what the core orders names the node that it is for ---


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to Hello. epoch: grows by one at each start of the master."""

    epoch: int
    heartbeat_s: float
    dead_after_s: float


@dataclass(frozen=True, slots=True)
class SayHello:
    """Master → node: I don't know you, or thought you lost. Say Hello."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job's description without its scenes, which come with the leases. spec: `Job.to_dict()`, no scenes.

    began_with: versions of the packages that it began with, by name; empty if that is not known.
    """

    job: JobId
    spec: dict[str, Any]
    began_with: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """Master → node: make these episodes of one scene. At most MAX_LEASE_BYTES on the wire."""

    node: NodeId
    lease: LeaseId
    job: JobId
    scene: str
    attempt: int
    """The fencing number of all of them."""
    spans: tuple[Span, ...]
    entry: dict[str, Any] = field(default_factory=dict, hash=False)
    """The scene's entry in the job."""
    careful: bool = False
    """Make each alone: a worker has died of one of them, or beside it. So nobody else is blamed if it happens again."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Master → node: settled, durably. refused: pieces whose attempt had been fenced off; they are garbage."""

    node: NodeId
    lease: LeaseId
    indexes: tuple[int, ...]
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Revoke:
    """Master → node: give back those of these episodes that have not begun; none named: all of the lease.

    kill: stop what has begun, too, and don't report it.
    """

    node: NodeId
    lease: LeaseId
    indexes: tuple[int, ...] = ()
    kill: bool = False


@dataclass(frozen=True, slots=True)
class Drain:
    """Master → node: finish what has begun, give back the rest, take nothing new. on=False: go on again."""

    on: bool = True


@dataclass(frozen=True, slots=True)
class Stop:
    """Master → node: drain and leave."""


# --- enrolment: the only messages between the master and a key that it does not know ---


@dataclass(frozen=True, slots=True)
class Enrol:
    """Node → master: let the key of this connection be that of `node`. secret: from a token. Answered by Enrolled."""

    request: Id
    node: NodeName
    secret: Annotated[str, Length(200)]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Answer to Enrol: from now on the key of this connection is known as `node`."""

    request: int
    node: str
