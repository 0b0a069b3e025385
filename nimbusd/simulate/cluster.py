"""A cluster in virtual time: real decisions, virtual everything else, from one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.master.facts import Fact
from nimbusd.core.master.nodes import DEAD_AFTER_S, HEARTBEAT_S
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.core.records import JobState
from nimbusd.simulate.clock import Clock
from nimbusd.simulate.invariants import Invariants
from nimbusd.simulate.ledger import VirtualLedger
from nimbusd.simulate.master import Decider, VirtualMaster
from nimbusd.simulate.network import FAIR, Network, Weather
from nimbusd.simulate.node import ToNode, VirtualNode
from nimbusd.simulate.node_model import NodeModel
from nimbusd.simulate.violation import Violation
from nimbusd.simulate.workload import Workload
from nimbusd.transport.messages.node import Drain, Welcome
from nimbusd.transport.messages.worker import MakeEpisode

MASTER = "master"


@dataclass(frozen=True, slots=True)
class Timing:
    """The pace of the machinery. commit_s: of a ledger's transaction; 0: at once, without a moment to crash in."""

    heartbeat_s: float = HEARTBEAT_S
    dead_after_s: float = DEAD_AFTER_S
    master_tick_s: float = 0.25
    node_tick_s: float = 0.5
    commit_s: float = 0.002


class Cluster:
    """A master, its ledger, nodes and jobs. What happens to them is up to the caller; time is `clock`.

    judge: check the invariants as it goes (it costs about half of the time). With one seed and the same calls,
    everything happens again in the same way.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        weather: Weather = FAIR,
        timing: Timing | None = None,
        judge: bool = True,
        decider: Callable[[int, float], Decider] = Scheduler,
    ) -> None:
        timing = timing or Timing()
        self.heartbeat_s, self.dead_after_s = timing.heartbeat_s, timing.dead_after_s
        self.master_tick_s, self.node_tick_s, self.commit_s = timing.master_tick_s, timing.node_tick_s, timing.commit_s
        self.clock = Clock()
        self.rng = Random(seed)
        self.network = Network(self.clock, self.rng, weather)
        self.ledger = VirtualLedger()
        self.nodes: dict[str, VirtualNode] = {}
        self.jobs: dict[JobId, Workload] = {}
        self.pieces: dict[tuple[JobId, str], float] = {}
        """Folders on the shared storage, and the seconds of work that are in each."""
        self._wishes: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._begun: set[tuple[EpisodeKey, int]] = set()
        self._judge = judge
        self.master = VirtualMaster(self, self.ledger, decider)
        self.invariants = Invariants(self)
        self.master.start()
        if judge:
            self.clock.after(1.0, self._inspect)

    # --- what may be done to it ---

    def add_node(self, name: str, model: NodeModel) -> VirtualNode:
        """A node joins."""
        node = self.nodes[name] = VirtualNode(self, name, model)
        node.start()
        return node

    def submit(self, workload: Workload) -> None:
        """Run a job, or go on with it; as soon as the master is up, and again if it dies before it has recorded it."""
        self.jobs[workload.plan.job] = workload
        self.when_up(self.master.submit, workload.plan)
        self.clock.after(1.0, self._submit_again, workload)

    def _submit_again(self, workload: Workload) -> None:
        if workload.plan.job not in self.ledger.jobs:
            self.submit(workload)

    def when_up(self, call: Callable[..., None], *args: object) -> None:
        """Do something as soon as the master is up, as a client that tries again."""
        if self.master.scheduler is not None:
            call(*args)
        else:
            self._wishes.append((call, args))

    def master_is_up(self) -> None:
        wishes, self._wishes = self._wishes, []
        for call, args in wishes:
            self.when_up(call, *args)

    def cut(self, node: str, to_master: bool = True, to_node: bool = True) -> None:
        """Part a node from the master, in one direction or both."""
        if to_master:
            self.network.cut(node, MASTER)
        if to_node:
            self.network.cut(MASTER, node)

    def heal(self, node: str) -> None:
        """Undo `cut`; the node's connection is a new one, so it says hello."""
        self.network.heal(node, MASTER)
        self.network.heal(MASTER, node)
        self.nodes[node].hello()

    def is_over(self) -> bool:
        """True where every job has ended, durably, and every node knows."""
        return self.jobs_over() and all(node.machine is None or node.machine.idle() for node in self.nodes.values())

    def jobs_over(self) -> bool:
        """True where every job has ended, durably."""
        return self.master.is_settled() and all(
            pages.state not in (JobState.RUNNING, JobState.PAUSED) for pages in self.ledger.jobs.values()
        )

    def run(self, until: float, over: Callable[[], bool] | None = None) -> bool:
        """Let time pass. Returns whether `over()`."""
        return self.clock.run(until, over)

    # --- what nodes and the master see of it ---

    def workload(self, job: JobId) -> Workload:
        return self.jobs[job]

    def random(self) -> float:
        return self.rng.random()

    def tell_master(self, node: str, fact: Fact) -> None:
        self.network.send(node, MASTER, self._to_master, fact)

    def _to_master(self, fact: Fact) -> None:
        if self._judge:
            self.clock.note(repr(fact))
        self.master.receive(fact)

    def tell_node(self, node: str, message: ToNode) -> None:
        target = self.nodes[node]
        session = target.session
        in_order = isinstance(message, Welcome | Drain)
        self.network.send(MASTER, node, self._to_node, (target, session, message), in_order=in_order)

    def _to_node(self, letter: tuple[VirtualNode, int, ToNode]) -> None:
        target, session, message = letter
        if self._judge:
            self.clock.note(repr(message))
        target.receive(session, message)

    def decided(self) -> None:
        if self._judge:
            self.invariants.after_decision()

    def began(self, node: str, order: MakeEpisode) -> None:
        if not self._judge:
            return
        attempt = order.attempt.key, order.attempt.number
        if attempt in self._begun:
            raise Violation("I1", f"{node} begins {attempt}, which was begun before")
        self._begun.add(attempt)

    def stored(self, job: JobId, folder: str, busy_s: float) -> None:
        self.pieces[job, folder] = busy_s

    def dropped(self, job: JobId, folder: str) -> None:
        scene, _, rest = folder.rpartition("_")
        if self.ledger.is_committed(job, scene, int(rest.partition(".")[0]), folder):
            raise Violation("I3", f"the committed piece {folder} of {job} is removed")
        self.pieces.pop((job, folder), None)

    def _inspect(self) -> None:
        self.invariants.inspect()
        self.clock.after(1.0, self._inspect)

    # --- figures ---

    def committed_work_s(self) -> float:
        """Seconds of slots that are in committed pieces."""
        return sum(
            self.pieces[job, row.piece.folder]
            for job, pages in self.ledger.jobs.items()
            for row in pages.rows.values()
            if row.piece is not None
        )
