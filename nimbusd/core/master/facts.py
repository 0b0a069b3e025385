"""What the scheduler is told, and what it orders. Frozen dataclasses, named as facts and as orders.

The caller makes the ledger entries of a batch durable before it carries out the batch's other orders, so that
nothing is ever acknowledged, or leased, that a crash could forget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.core.records import JobRecorded, JobState, LeaseClosed, LeaseOpened, LostPiece, Record, SceneHistory, Tried

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
    dynload: False gives every node a fixed share of the scenes, as systems without load balancing do. packages: of
    the environment, version by name; empty where that was never recorded. counting: names of the packages that count
    for it (see `core.environments`); None: all that a node tells. first_attempt: the number of the first attempt at an
    episode.
    """

    job: JobId
    scenes: tuple[ScenePlan, ...]
    user: str = ""
    priority: int = 0
    attempts: int = 3
    environment: str = ""
    max_nodes: int = 0
    dynload: bool = True
    packages: Mapping[str, str] = field(default_factory=dict)
    first_attempt: int = 1
    counting: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class RunningEpisode:
    """An episode that a node says has begun, elapsed_s ago."""

    lease: LeaseId
    index: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """A durable piece. cost_s: what the episode took a slot. timings_s: how that was spent, by stage."""

    index: int
    folder: str
    frames: int
    size_bytes: int
    digest: str
    cost_s: float
    timings_s: Mapping[str, float] = field(default_factory=dict, hash=False)


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
class JobSetDown:
    """The job is to be taken on anew: nodes stop what they do for it, and nothing of it is over."""

    job: JobId


@dataclass(frozen=True, slots=True)
class EpisodesReleased:
    """Quarantined episodes that get another chance, already pending in the ledger."""

    job: JobId
    episodes: Mapping[str, Mapping[int, Tried]]


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node said hello. A session that differs from the last one means that it has restarted.

    packages: what its environment is the hash of, version by name.
    """

    node: NodeId
    session: str
    environment: str
    slots: int
    packages: Mapping[str, str] = field(default_factory=dict)


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
    """A node made pieces of a lease durable. The scheduler hears of it once somebody has looked at them."""

    node: NodeId
    lease: LeaseId
    job: JobId
    scene: str
    attempt: int
    stored: tuple[StoredPiece, ...]


@dataclass(frozen=True, slots=True)
class PiecesLate:
    """A node tells of pieces that nothing waits for, so that nobody has looked at them: none of them is committed."""

    told: PiecesStored


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
class ReviewBegan:
    """Pieces of a node are being looked at: those of attempts that were given up are leased to nobody meanwhile."""

    node: NodeId
    lease: LeaseId
    job: JobId
    scene: str
    attempt: int
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReviewEnded:
    """A look at a piece of an episode came to nothing that could be recorded."""

    key: EpisodeKey


@dataclass(frozen=True, slots=True)
class PieceRefused:
    """A piece that a node told of is not as it said, or not there. why: a sentence."""

    node: NodeId
    lease: LeaseId
    attempt: int
    key: EpisodeKey
    why: str


@dataclass(frozen=True, slots=True)
class OutputUnseen:
    """The master cannot see what lies in a job's output. why: a sentence."""

    job: JobId
    why: str


@dataclass(frozen=True, slots=True)
class EpisodesReturned:
    """A node gives back episodes that it has not begun."""

    node: NodeId
    lease: LeaseId
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PiecesLost:
    """Committed episodes whose pieces are damaged or gone, already pending again in the ledger."""

    job: JobId
    episodes: Mapping[str, Mapping[int, LostPiece]]


@dataclass(frozen=True, slots=True)
class OutputLost:
    """Nothing can be stored for a job any more. why: a sentence."""

    job: JobId
    why: str


@dataclass(frozen=True, slots=True)
class OutputBack:
    """A job's output can be written to again."""

    job: JobId


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
class EnvironmentAccepted:
    """A job shall go on with other packages than it began with.

    environment, packages: those; empty: what most slots have that could work on it.
    """

    job: JobId
    environment: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """Lease nothing more, to anybody: the master is about to leave."""


Fact: TypeAlias = (
    JobAdded
    | JobCancelled
    | JobSetDown
    | EpisodesReleased
    | NodeSeen
    | HeartbeatSeen
    | PiecesStored
    | PiecesLate
    | AttemptFailed
    | ReviewBegan
    | ReviewEnded
    | PieceRefused
    | OutputUnseen
    | EpisodesReturned
    | PiecesLost
    | OutputLost
    | OutputBack
    | NodeUnfit
    | NodeLeft
    | NodeDrainAsked
    | EnvironmentAccepted
    | DrainAsked
)

# --- why nothing moves ---


class Cause(Enum):
    """Why nothing of an open job can move. The last three are found by the master's shell, the others here."""

    NO_NODE = "no_node"
    """No node is connected, or none of those that hold what was begun."""
    DRAINED = "drained"
    """Every node is being drained."""
    ENVIRONMENT = "environment"
    """Nodes have other packages than the job began with."""
    UNFIT = "unfit"
    """The job's components cannot be made on any node."""
    BUSY = "busy"
    """Every slot that could work on it has other jobs' episodes."""
    SILENT = "silent"
    """Nodes could work on it, and have not said that they can take anything."""
    LIMIT = "limit"
    """Of a node, not of a job: the job has as many nodes as it may use."""
    ENDED = "ended"
    """Of a node, not of a job: the job is paused, or over."""
    STORAGE = "storage"
    """Its output takes nothing: it is paused."""
    HELD_UP = "held_up"
    """It could not be taken on after the master's start, which is tried again."""
    PUBLISHING = "publishing"
    """Every episode is settled, and the dataset is not there yet."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A cause, and a sentence for people without its full stop."""

    cause: Cause
    why: str


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


@dataclass(frozen=True, slots=True)
class JobWaits:
    """Say why nothing of a job moves, which has begun to be so or changed; None: that something moves again."""

    job: JobId
    waiting: Waiting | None


@dataclass(frozen=True, slots=True)
class EnvironmentChanged:
    """Say that a job goes on with other packages. before, now: of those that differ, version by name."""

    job: JobId
    before: Mapping[str, str]
    now: Mapping[str, str]


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
    | JobWaits
    | EnvironmentChanged
)
