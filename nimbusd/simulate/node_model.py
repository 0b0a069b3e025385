"""A virtual node's traits, and its surroundings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from nimbusd.core.ids import JobId
from nimbusd.core.master.facts import Fact
from nimbusd.core.node.split import Mode
from nimbusd.simulate.clock import Clock
from nimbusd.simulate.workload import Workload
from nimbusd.transport.messages.worker import MakeEpisode


@dataclass(frozen=True, slots=True)
class NodeModel:
    """The traits of a node.

    plan_only: of its slots, how many cannot render. mode: of every job here. speed: of its slots. prefetch:
    episodes that a worker has at a time, the running one included. start_s: from a worker's spawn until it waits
    for a job; open_s: from then on until it can begin. crashes, hangs: shares of attempts that kill their worker; a
    hang is killed hang_s after the episode should have ended. stalls: share of attempts that take stall_factor
    times as long, for no reason that lies in the episode.
    """

    slots: int = 1
    plan_only: int = 0
    mode: Mode = Mode.AUTO
    speed: float = 1.0
    environment: str = "e"
    prefetch: int = 1
    start_s: float = 0.1
    open_s: float = 0.0
    crashes: float = 0.0
    hangs: float = 0.0
    hang_s: float = 3.0
    stalls: float = 0.0
    stall_factor: float = 5.0
    unfit: frozenset[JobId] = frozenset()

    def reliable(self) -> NodeModel:
        """The same node, without workers that die by chance."""
        return replace(self, crashes=0.0, hangs=0.0)

    def of_one_slot(self) -> NodeModel:
        """The same node, with one slot only."""
        return replace(self, slots=1, plan_only=0)

    def fused(self) -> NodeModel:
        """The same node, every slot of which makes episodes whole."""
        return replace(self, mode=Mode.FUSED, plan_only=0)


class NodeWorld(Protocol):
    """The surroundings of a node."""

    clock: Clock
    heartbeat_s: float
    node_tick_s: float

    def workload(self, job: JobId) -> Workload:
        """The job as it really is."""

    def random(self) -> float:
        """A number in [0, 1) for what happens by chance."""

    def tell_master(self, node: str, fact: Fact) -> None:
        """Send something to the master."""

    def began(self, node: str, order: MakeEpisode) -> None:
        """A worker begins an attempt."""

    def stored(self, job: JobId, folder: str, busy_s: float) -> None:
        """A piece is durable."""

    def dropped(self, job: JobId, folder: str) -> None:
        """A node removes a piece."""
