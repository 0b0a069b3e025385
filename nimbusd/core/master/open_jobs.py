"""Jobs that are not over, and the leases on them: what the tasks' tables hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from nimbusd.core.estimate import Estimates
from nimbusd.core.ids import JobId, LeaseId, NodeId
from nimbusd.core.master.alike import FirstFailures
from nimbusd.core.master.facts import JobPlan
from nimbusd.core.master.nodes import LiveNode
from nimbusd.core.master.scenes import Pending, SceneEpisodes
from nimbusd.core.records import JobState
from nimbusd.core.tally import Tally

FIRST_PAUSE_S = 2.0
"""The first pause of a job whose storage takes nothing."""


@dataclass(slots=True)
class OpenLease:
    """Episodes of a scene that a node holds. open: not settled yet; revoking: asked back, and when."""

    id: LeaseId
    job: JobId
    scene: str
    node: NodeId
    attempt: int
    open: set[int]
    granted_at: float
    revoking: dict[int, float] = field(default_factory=dict)
    in_review: set[int] = field(default_factory=set)
    """Episodes of which a piece is being looked at: there is nothing left to give back."""

    def drop(self, index: int) -> None:
        """Hold an episode no more."""
        self.open.discard(index)
        self.revoking.pop(index, None)
        self.in_review.discard(index)


@dataclass(slots=True)
class Doubt:
    """Evidence against a node in a job.

    lies: pieces that were not as it said. blamed: times that it blamed the storage since it last stored something;
    stored_elsewhere: pieces of other nodes meanwhile.
    """

    lies: int = 0
    blamed: int = 0
    stored_elsewhere: int = 0


@dataclass(slots=True)
class JobTasks:
    """A job that is not over."""

    plan: JobPlan
    scenes: dict[str, SceneEpisodes]
    pending: Pending
    state: JobState
    environment: str
    """That its nodes must have: the first node's, recorded with the first commit, if none was asked for."""
    is_bound: bool
    """True once the environment is recorded."""
    order: int
    first_failures: FirstFailures
    estimates: Estimates = field(default_factory=Estimates)
    leases: dict[LeaseId, OpenLease] = field(default_factory=dict)
    nodes: Tally[NodeId] = field(default_factory=Tally)
    """Leases by node."""
    holders: Tally[str] = field(default_factory=Tally)
    """Leases by scene."""
    copies: dict[tuple[str, int], list[OpenLease]] = field(default_factory=dict)
    """Episodes that are in two leases."""
    node_losses: Counter[tuple[str, int]] = field(default_factory=Counter)
    left: set[str] = field(default_factory=set)
    """Scenes of which something was given back or given up since the lease policy last looked."""
    unfit: dict[NodeId, str] = field(default_factory=dict)
    """Nodes that cannot run it, and why."""
    doubts: dict[NodeId, Doubt] = field(default_factory=dict)
    """Nodes that may not be telling the truth."""
    resume_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    """Seconds of the next pause."""
    why: str = ""
    """The reason of a pause, in words."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Of its environment, version by name; empty while that is not known."""

    def bind(self, node: LiveNode) -> None:
        """Take a node's environment for the job's, if it has none yet; learn what packages make it up."""
        there = node.environment_for(self.plan.counting)
        self.environment = self.environment or there.hash
        if not self.packages and self.fits(node):
            self.packages = there.packages

    def fits(self, node: LiveNode) -> bool:
        """True where a node has the job's environment. A hash that was asked for may be over all that the node has."""
        return self.environment in (node.environment_for(self.plan.counting).hash, node.environment)

    def doubtful(self) -> set[str]:
        """Scenes that wait for others, which may go better: nothing has succeeded yet, and these have failed."""
        failed = self.first_failures.scenes
        return failed if failed and any(scene not in failed for scene in self.pending.scenes) else set()

    def cost_s(self, scene: str) -> float:
        """Expected seconds per episode."""
        return self.estimates.cost_s(scene, self.scenes[scene].plan.cost_hint)
