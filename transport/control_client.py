"""Control messages between clients and the master."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nimbusd.transport.control_node import Load, Pipeline

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
