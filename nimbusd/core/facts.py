"""What the scheduler is told, and what it orders. Frozen dataclasses, named as facts and as orders.

The caller makes the ledger entries of a batch durable before it carries out the batch's other orders, so that
nothing is ever acknowledged, or leased, that a crash could forget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from nimbusd.core.episodes import (
    EpisodeKey,
    JobId,
    JobRecorded,
    JobState,
    LeaseClosed,
    LeaseId,
    LeaseOpened,
    NodeId,
    Record,
    SceneHistory,
    Span,
    Tried,
)

# --- what a job asks for ---


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What a job wants of a scene.

    wanted: episodes. exact: refill failed plans from the next indexes, up to `most_tried` indexes in all.
    cost_hint: how its episodes compare in cost with other scenes' (file size, say), until some are measured.
    """

    name: str
    wanted: int
    exact: bool
    most_tried: int
    cost_hint: float = 1.0


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job as the scheduler sees it.

    attempts: worker losses or errors after which an episode is quarantined. environment: hash that nodes must
    have; empty: that of the first node it is leased to. max_nodes: at most so many at a time; 0: any number.
    dynload: False gives every node a fixed share of the scenes, as systems without load balancing do.
    """

    job: JobId
    scenes: tuple[ScenePlan, ...]
    user: str = ""
    priority: int = 0
    attempts: int = 3
    environment: str = ""
    max_nodes: int = 0
    dynload: bool = True


@dataclass(frozen=True, slots=True)
class RunningEpisode:
    """An episode that a node says has begun, elapsed_s ago."""

    lease: LeaseId
    index: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """A durable piece. cost_s: what the episode took a slot."""

    index: int
    folder: str
    frames: int
    size_bytes: int
    digest: str
    cost_s: float


# --- facts ---


@dataclass(frozen=True, slots=True)
class JobAdded:
    """A job to run, or to go on with. open_leases: of it, from the ledger, after a restart."""

    plan: JobPlan
    history: Mapping[str, SceneHistory] = field(default_factory=dict)
    open_leases: tuple[LeaseOpened, ...] = ()
    state: JobState = JobState.RUNNING


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """Somebody wants no more of the job."""

    job: JobId


@dataclass(frozen=True, slots=True)
class EpisodesReleased:
    """Quarantined episodes that get another chance, already pending in the ledger."""

    job: JobId
    episodes: Mapping[str, Mapping[int, Tried]]


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node said hello. A session that differs from the last one means that it has restarted."""

    node: NodeId
    session: str
    environment: str
    slots: int


@dataclass(frozen=True, slots=True)
class PipelineSeen:
    """How a job goes on a node: the live model of section 6.1.2 of the Nimbus paper.

    mode: `fused` or `decoupled`. planners, renderers: compute workers; backlog: plans that wait. plan_s, render_s,
    store_s: mean seconds per episode. good: share of plans that succeed. planning, rendering: mean concurrency over
    the last minute. mu_plan, mu_render, theory (lambda) and achieved: episodes per second.
    """

    job: JobId
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
class HeartbeatSeen:
    """A node's state. seq orders the heartbeats of a session; credit is what it can take beyond `held`."""

    node: NodeId
    session: str
    seq: int
    credit: int
    held: tuple[LeaseId, ...]
    running: tuple[RunningEpisode, ...]
    pipelines: tuple[PipelineSeen, ...] = ()


@dataclass(frozen=True, slots=True)
class PiecesStored:
    """A node made pieces of a lease durable."""

    node: NodeId
    lease: LeaseId
    job: JobId
    scene: str
    attempt: int
    stored: tuple[StoredPiece, ...]


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt came to nothing.

    planned: a planning result, final. final: pointless to try again (a broken asset). blameless: not the
    episode's doing (a full disk): it stays pending, is not counted, and the job pauses.
    """

    node: NodeId
    lease: LeaseId
    attempt: int
    key: EpisodeKey
    stage: str
    reason: str
    detail: str
    evidence: str = ""
    cost_s: float = 0.0
    planned: bool = False
    final: bool = False
    blameless: bool = False


@dataclass(frozen=True, slots=True)
class EpisodesReturned:
    """A node gives back episodes that it has not begun."""

    node: NodeId
    lease: LeaseId
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NodeUnfit:
    """A node cannot make a job's components. error: a sentence."""

    node: NodeId
    job: JobId
    error: str


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """A node said goodbye."""

    node: NodeId
    session: str
    why: str


@dataclass(frozen=True, slots=True)
class NodeDrainAsked:
    """Give a node no more work, or work again."""

    node: NodeId
    on: bool


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """Lease nothing more, to anybody: the master is about to leave."""


Fact: TypeAlias = (
    JobAdded
    | JobCancelled
    | EpisodesReleased
    | NodeSeen
    | HeartbeatSeen
    | PiecesStored
    | AttemptFailed
    | EpisodesReturned
    | NodeUnfit
    | NodeLeft
    | NodeDrainAsked
    | DrainAsked
)

# --- orders ---


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Send the lease to the node.

    careful: a worker has died of one of these episodes, or beside it. Each is made alone, so that if it happens again
    nobody else is blamed.
    """

    node: NodeId
    lease: LeaseId
    job: JobId
    scene: str
    attempt: int
    spans: tuple[Span, ...]
    careful: bool = False


@dataclass(frozen=True, slots=True)
class RevokeLease:
    """Ask the node for those of these episodes that have not begun. kill: and to stop those that have."""

    node: NodeId
    lease: LeaseId
    indexes: tuple[int, ...]
    kill: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Tell the node that these episodes of the lease are settled; refused: that their pieces are garbage."""

    node: NodeId
    lease: LeaseId
    indexes: tuple[int, ...]
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckSettled:
    """A piece whose attempt holds no lease: acknowledge it if it is the one in the ledger, else refuse it."""

    node: NodeId
    lease: LeaseId
    key: EpisodeKey
    folder: str


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node is given up: silent, gone, or restarted. returned: episodes that are pending again."""

    node: NodeId
    why: str
    returned: int


@dataclass(frozen=True, slots=True)
class AskHello:
    """A node that we don't know, or thought lost, is alive: have it introduce itself."""

    node: NodeId


Order: TypeAlias = (
    Record
    | LeaseOpened
    | LeaseClosed
    | JobRecorded
    | GrantLease
    | RevokeLease
    | Acknowledge
    | CheckSettled
    | NodeLost
    | AskHello
)
