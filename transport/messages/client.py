"""Control messages between clients and the master. Requests have bounds; answers are the master's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from nimbusd.transport.messages.bounds import Id, Length, NodeName, Place, Range, Seconds, Word
from nimbusd.transport.messages.failures import Failure
from nimbusd.transport.messages.node import Load, PipelineReport

# --- client → master; every request has a number that its answer repeats ---


@dataclass(frozen=True, slots=True)
class Submit:
    """Run a job. spec: `Job.to_dict()`. environment: hash that nodes must have; empty: the first node's.

    max_nodes: at most so many nodes at a time; 0: no limit. The same job again resumes it. adopt: also if its output
    was written by a newer state of the ledger, or by a job with the same seed and component versions.
    accept_environment: it goes on with the packages that most slots have now, though it began with others.
    """

    request: Id
    spec: dict[str, Any]
    user: Word
    priority: Annotated[int, Range(-1_000_000, 1_000_000)] = 0
    max_nodes: Annotated[int, Range(0, 1_000_000)] = 0
    dynload: bool = True
    environment: Word = ""
    adopt: bool = False
    accept_environment: bool = False


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs: answered by JobList. ended: those that have ended, too."""

    request: Id
    ended: bool = True


@dataclass(frozen=True, slots=True)
class JobDetail:
    """One job: answered by JobReport."""

    request: Id
    job: Place


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a job; what is committed stays and is published."""

    request: Id
    job: Place


@dataclass(frozen=True, slots=True)
class Retry:
    """Make quarantined episodes pending again."""

    request: Id
    job: Place


@dataclass(frozen=True, slots=True)
class Repair:
    """Make committed episodes again whose pieces are damaged or gone: those named by scene and index, and those whose
    manifests or sizes are not as they were committed. Answered by Done.
    """

    request: Id
    job: Place
    episodes: tuple[tuple[Place, Id], ...] = ()


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove a job that is not at work from the ledger. delete_output: and what nimbusd stored in its output."""

    request: Id
    job: Place
    delete_output: bool = False


@dataclass(frozen=True, slots=True)
class Relocate:
    """A job's output was moved: it goes on there. Answered by Done."""

    request: Id
    job: Place
    output: Annotated[str, Length(4_096)]


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed and quarantined episodes of a job with their evidence, from `offset` on: answered by FailureList."""

    request: Id
    job: Place
    offset: Id = 0
    limit: Id = 100


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes: answered by NodeList."""

    request: Id


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Give a node no more work (on=False: give it work again)."""

    request: Id
    node: NodeName
    on: bool = True


@dataclass(frozen=True, slots=True)
class Watch:
    """Events after `cursor` (empty: from now on), of one job or all: answered by Events, at once if there are any,
    else when one comes or after wait_s.
    """

    request: Id
    cursor: Annotated[str, Length(40)] = ""
    job: Place = ""
    wait_s: Seconds = 10.0


@dataclass(frozen=True, slots=True)
class MakeToken:
    """A one-line secret with which one node can join: answered by Token. ttl_s: how long it is good for."""

    request: Id
    ttl_s: Seconds = 3600.0


# --- master → client ---


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job at a glance. state: running, paused, complete, incomplete, cancelled.

    rate_per_s: episodes settled a second, lately. eta_s: None while unknown, and while nothing moves. waiting: the
    cause why nothing moves, a word; empty if something does (`nimbusd.core.master.facts.Cause`). why: why it is
    waiting, paused or incomplete.
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
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out. count: how many things it touched. detail: in words."""

    request: int
    count: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was not carried out. code: a word for programs (unknown_job, exists, bad_job, forbidden,
    bad_version, malformed, too_large, busy); error: a sentence for people. To a node (request 0): it cannot work here.
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
    are connected get none of it, node → reason. scenes: at most 200, those with quarantined episodes first, then those
    that are worked on, that have failures, and that are not finished. pipelines: node → how it goes there. not_made:
    episodes that failed or are quarantined, by reason.
    """

    request: int
    summary: JobSummary
    scenes: tuple[SceneReport, ...]
    scene_count: int
    reasons: dict[str, int]
    waiting: dict[str, str]
    pipelines: dict[str, PipelineReport] = field(default_factory=dict)
    not_made: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailureReport:
    """One failed or quarantined episode."""

    scene: str
    index: int
    attempt: int
    state: str
    failure: Failure
    node: str
    """The node that made the attempt; empty where none did."""


@dataclass(frozen=True, slots=True)
class FailureList:
    """Answer to Failures. total: of the job."""

    request: int
    failures: tuple[FailureReport, ...]
    total: int


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """A node. state: ready, draining, lost, refused. why: of the last two. episodes: it holds. done: it committed.

    silent_s: since its last heartbeat. waiting: open job that has work left → why the node gets none of it.
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
    waiting: dict[str, str] = field(default_factory=dict)


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
