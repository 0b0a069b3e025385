"""The control protocol: messages between nodes, clients and the master.

Frozen dataclasses, packed by `codec`. Every message is safe to repeat, lose and reorder across reconnects: leases
have numbers, commits are acknowledged, and a node's heartbeat says all that it holds.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nimbusd.transport.codec import Codec

PROTOCOL_VERSION = 1
MAX_LEASE_BYTES = 4096
"""A node loads the rest of a scene from storage (lazy context)."""
MAX_JOB_BYTES = 16 << 20
"""Of what holds a job with thousands of scenes, or an answer to a client with a row for each of 10,000 nodes."""

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


# --- client → master; every request has a number that its answer repeats ---


@dataclass(frozen=True, slots=True)
class Submit:
    """Run a job. spec: `Job.to_dict()`. environment: hash that nodes must have; empty: the first node's.

    max_nodes: at most so many nodes at a time; 0: no limit. The same job again resumes it.
    """

    request: int
    spec: dict[str, Any]
    user: str
    priority: int = 0
    max_nodes: int = 0
    dynload: bool = True
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs: answered by JobList. ended: those that have ended, too."""

    request: int
    ended: bool = True


@dataclass(frozen=True, slots=True)
class JobDetail:
    """One job: answered by JobReport."""

    request: int
    job: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a job; what is committed stays and is published."""

    request: int
    job: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Make quarantined episodes pending again."""

    request: int
    job: str


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed and quarantined episodes of a job with their evidence, from `offset` on: answered by FailureList."""

    request: int
    job: str
    offset: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes: answered by NodeList."""

    request: int


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Give a node no more work (on=False: give it work again)."""

    request: int
    node: str
    on: bool = True


@dataclass(frozen=True, slots=True)
class Watch:
    """Events after `cursor` (empty: from now on), of one job or all: answered by Events, at once if there are any,
    else when one comes or after wait_s.
    """

    request: int
    cursor: str = ""
    job: str = ""
    wait_s: float = 10.0


@dataclass(frozen=True, slots=True)
class MakeToken:
    """A one-line secret with which one node can join: answered by Token. ttl_s: how long it is good for."""

    request: int
    ttl_s: float = 3600.0


# --- master → client ---


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job at a glance. state: running, paused, complete, incomplete, cancelled.

    rate_per_s: episodes settled a second, lately. eta_s: None while unknown. why: why it is paused or incomplete.
    """

    job: str
    user: str
    priority: int
    state: str
    wanted: int
    committed: int
    failed: int
    quarantined: int
    leased: int
    nodes: int
    frames: int
    size_bytes: int
    submitted_unix_s: float
    elapsed_s: float
    rate_per_s: float
    eta_s: float | None
    output: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out. count: how many things it touched. detail: in words."""

    request: int
    count: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was not carried out. code: a word for programs (unknown_job, exists, bad_job, forbidden,
    bad_version, malformed, too_large); error: a sentence for people. To a node (request 0): it cannot work here.
    """

    request: int
    code: str
    error: str


@dataclass(frozen=True, slots=True)
class JobList:
    """Answer to Jobs, in order of submission."""

    request: int
    jobs: tuple[JobSummary, ...]


@dataclass(frozen=True, slots=True)
class SceneReport:
    """A scene of a job. cost_s: estimated seconds per episode; None before the first one."""

    scene: str
    wanted: int
    committed: int
    failed: int
    quarantined: int
    leased: int
    cost_s: float | None


@dataclass(frozen=True, slots=True)
class JobReport:
    """Answer to JobDetail. reasons: failed, quarantined or retried attempts by reason. waiting: why nodes that
    are connected get none of it, node → reason. scenes: the unfinished ones first, at most 200. pipelines: node → how
    it goes there.
    """

    request: int
    summary: JobSummary
    scenes: tuple[SceneReport, ...]
    scene_count: int
    reasons: dict[str, int]
    waiting: dict[str, str]
    pipelines: dict[str, Pipeline] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailureReport:
    """One failed or quarantined episode."""

    scene: str
    index: int
    attempt: int
    state: str
    stage: str
    reason: str
    detail: str
    evidence: str
    worker: str


@dataclass(frozen=True, slots=True)
class FailureList:
    """Answer to Failures. total: of the job."""

    request: int
    failures: tuple[FailureReport, ...]
    total: int


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """A node. state: ready, draining, lost, refused. why: of the last two. episodes: it holds. done: it committed.

    silent_s: since its last heartbeat.
    """

    node: str
    state: str
    version: str
    environment: str
    slots: int
    devices: tuple[str, ...]
    episodes: int
    done: int
    silent_s: float
    load: Load | None
    running: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class NodeList:
    """Answer to Nodes, by name. counters: of the master (messages dropped, wrong keys, …)."""

    request: int
    nodes: tuple[NodeSummary, ...]
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class Events:
    """Answer to Watch. cursor: pass it to the next Watch. missed: events that were dropped before `events`,
    because the client came too late. events: `nimbusd.events.to_json` of each, with its job.
    """

    request: int
    cursor: str
    events: tuple[dict[str, Any], ...]
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """Answer to MakeToken. token: the whole of what a node needs, one line."""

    request: int
    token: str
    expires_unix_s: float


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


FromNode: TypeAlias = Hello | Heartbeat | Commit | Fail | GiveBack | CannotRun | NeedJob | Bye
ToNode: TypeAlias = Welcome | SayHello | JobSpec | Lease | Ack | Revoke | Drain | Stop | Refused
Request: TypeAlias = Submit | Jobs | JobDetail | Cancel | Retry | Failures | Nodes | DrainNode | Watch | MakeToken
Reply: TypeAlias = Done | Refused | JobList | JobReport | FailureList | NodeList | Events | Token
Enrolment: TypeAlias = Enrol | Enrolled
Message: TypeAlias = FromNode | ToNode | Request | Reply | Enrolment

MESSAGES: tuple[type[Any], ...] = typing.get_args(Message)
TO_NODE: tuple[type[Any], ...] = typing.get_args(ToNode)
FROM_NODE: tuple[type[Any], ...] = typing.get_args(FromNode)
REQUESTS: tuple[type[Any], ...] = typing.get_args(Request)

CODEC: Codec[Message] = Codec(
    MESSAGES,
    version=PROTOCOL_VERSION,
    limits={Lease: MAX_LEASE_BYTES}
    | dict.fromkeys((Submit, JobSpec, JobList, JobReport, FailureList, NodeList, Events), MAX_JOB_BYTES),
    any_version=(Refused,),
)


def encode(message: Message) -> bytes:
    """Pack a message. Raises MessageError, which names the scene, if a Lease is larger than MAX_LEASE_BYTES."""
    return CODEC.encode(message)


def decode(frame: bytes) -> Message:
    """Unpack and check a message. Raises VersionError or another MessageError for anything that is not one.

    A Refused is understood whatever version the peer speaks.
    """
    return CODEC.decode(frame)
