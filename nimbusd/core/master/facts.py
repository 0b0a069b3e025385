"""Facts and orders of the scheduler, beside the messages.

What a node says is a fact, and what is said to a node is an order, as it stands in `transport.messages.node`. Here are
the facts that no message carries (a job was submitted, an output is gone) and the orders that no node gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from nimbusd.core.ids import Attempt, EpisodeKey, JobId, LeaseId, NodeId
from nimbusd.core.records import JobRecorded, JobState, LeaseClosed, LeaseOpened, LostPiece, Record, SceneHistory, Tried
from nimbusd.transport.messages.node import (
    Ack,
    Bye,
    CannotRun,
    Commit,
    Fail,
    GiveBack,
    Heartbeat,
    Hello,
    Lease,
    Revoke,
    SayHello,
)

# --- what a job asks for ---


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """The episodes that a job wants of a scene.

    wanted: episodes. exact: refill failed plans from the next indexes, up to `most_tried` indexes in all.
    cost_hint: how its episodes compare in cost with other scenes' (file size, say), until some are measured.
    entry: the scene's entry in the job, which goes along with its leases.
    """

    name: str
    wanted: int
    exact: bool
    most_tried: int
    cost_hint: float = 1.0
    entry: dict[str, Any] = field(default_factory=dict, hash=False)


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
class PiecesLate:
    """A node tells of pieces that nothing waits for, so that nobody has looked at them: none of them is committed."""

    told: Commit


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
    attempt: Attempt
    why: str


@dataclass(frozen=True, slots=True)
class OutputUnseen:
    """The master cannot see what lies in a job's output. why: a sentence."""

    job: JobId
    why: str


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
    | Hello
    | Heartbeat
    | Commit
    | PiecesLate
    | Fail
    | ReviewBegan
    | ReviewEnded
    | PieceRefused
    | OutputUnseen
    | GiveBack
    | PiecesLost
    | OutputLost
    | OutputBack
    | CannotRun
    | Bye
    | NodeDrainAsked
    | EnvironmentAccepted
    | DrainAsked
)

# --- why nothing moves ---


class Cause(Enum):
    """A reason why nothing of an open job can move. The last three are found by the master's shell, the others here."""

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
class CheckSettled:
    """A piece whose attempt holds no lease: acknowledge it if it is the one in the ledger, else refuse it."""

    node: NodeId
    attempt: Attempt
    folder: str


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node is given up: silent, gone, or restarted. returned: episodes that are pending again."""

    node: NodeId
    why: str
    returned: int


@dataclass(frozen=True, slots=True)
class JobWaits:
    """Say why nothing of a job moves, which has begun to be so or changed; None: that something moves again."""

    job: JobId
    waiting: Waiting | None


@dataclass(frozen=True, slots=True)
class PackagesChanged:
    """Say that a job goes on with other packages. before, now: of those that differ, version by name."""

    job: JobId
    before: Mapping[str, str]
    now: Mapping[str, str]


Order: TypeAlias = (
    Record
    | LeaseOpened
    | LeaseClosed
    | JobRecorded
    | Lease
    | Revoke
    | Ack
    | CheckSettled
    | NodeLost
    | SayHello
    | JobWaits
    | PackagesChanged
)
