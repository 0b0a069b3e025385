"""Control messages between nodes and the master."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# --- node → master ---


@dataclass(frozen=True, slots=True)
class Hello:
    """First on every connection. session: new at each start of the node's process.

    environment: hash of what decides the pixels and plans that this node makes (package versions, driver,
    components). packages: what went into it, to say what differs. slots: compute workers it can run.
    """

    node: str
    session: str
    version: str
    environment: str
    packages: dict[str, str]
    slots: int
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """One GPU. busy: share of the last interval, 0 to 1."""

    name: str
    busy: float
    memory_used_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """What a node's hardware does. cpu: share of all cores in use, 0 to 1."""

    cpu: float
    memory_used_bytes: int
    memory_total_bytes: int
    gpus: tuple[GpuLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """An episode that a compute worker is at. elapsed_s: since it began."""

    lease: int
    index: int
    stage: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How a job goes on a node: the live model of section 6.1.2 of the Nimbus paper.

    mode: `fused` or `decoupled`. planners, renderers: compute workers. backlog: plans that wait. plan_s, render_s,
    store_s: mean seconds per episode. good: share of plans that succeed. planning, rendering: processes at it, mean
    over the last minute. mu_plan, mu_render, theory (lambda) and achieved: episodes per second.
    """

    job: str
    mode: str
    planners: int
    renderers: int
    backlog: int
    plan_s: float
    render_s: float
    store_s: float
    good: float
    planning: float
    rendering: float
    mu_plan: float
    mu_render: float
    theory: float
    achieved: float


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Node → master, every interval and whenever something changes. seq grows by one within a session.

    credit: episodes that the node can take beyond those it holds; the latest seq counts. held: the leases it
    holds. running: the episodes that have begun. pipelines: the jobs at work.
    """

    node: str
    session: str
    seq: int
    credit: int
    held: tuple[int, ...]
    running: tuple[Running, ...]
    load: Load | None = None
    pipelines: tuple[Pipeline, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """An episode whose piece is durable. cost_s: what it took a slot; timings_s: stage → seconds."""

    index: int
    folder: str
    frames: int
    size_bytes: int
    digest: str
    cost_s: float
    timings_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Commit:
    """Node → master: these episodes of a lease are stored. Sent again until acknowledged."""

    node: str
    lease: int
    job: str
    scene: str
    attempt: int
    stored: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class Fail:
    """Node → master: an attempt came to nothing. Sent again until acknowledged.

    planned: a planning result, final. final: pointless to try again. blameless: not the episode's doing.
    """

    node: str
    lease: int
    job: str
    scene: str
    attempt: int
    index: int
    stage: str
    reason: str
    detail: str
    evidence: str
    cost_s: float
    planned: bool = False
    final: bool = False
    blameless: bool = False


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Node → master: episodes of a lease that have not begun here and will not. Sent again until acknowledged."""

    node: str
    lease: int
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CannotRun:
    """Node → master: this job's components cannot be made here (no backend, say), and never will be."""

    node: str
    job: str
    error: str


@dataclass(frozen=True, slots=True)
class NeedJob:
    """Node → master: I hold leases of a job whose description I don't have."""

    node: str
    job: str


@dataclass(frozen=True, slots=True)
class Bye:
    """Node → master, last: I leave and hold nothing. why: in words."""

    node: str
    session: str
    why: str


# --- master → node ---


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to Hello. epoch: grows by one at each start of the master."""

    epoch: int
    heartbeat_s: float
    dead_after_s: float


@dataclass(frozen=True, slots=True)
class SayHello:
    """Master → node: I don't know you, or thought you lost. Say Hello."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job's description without its scenes, which come with the leases. spec: `Job.to_dict()`, no scenes."""

    job: str
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lease:
    """Make these episodes of one scene. spans: (first index, count) pairs. entry: the scene's entry in the job.

    attempt: the fencing number of all of them. careful: make each alone, one of them has cost a worker. At most
    MAX_LEASE_BYTES on the wire.
    """

    lease: int
    job: str
    scene: str
    attempt: int
    spans: tuple[tuple[int, int], ...]
    entry: dict[str, Any]
    careful: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """Master → node: settled, durably. refused: pieces whose attempt had been fenced off; they are garbage."""

    lease: int
    indexes: tuple[int, ...]
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Revoke:
    """Master → node: give back those of these episodes that have not begun; none named: all of the lease.

    kill: stop what has begun, too, and don't report it.
    """

    lease: int
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

    request: int
    node: str
    secret: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Answer to Enrol: from now on the key of this connection is known as `node`."""

    request: int
    node: str
