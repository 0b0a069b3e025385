"""The nodes of a cluster: who is alive, what they can take, how fast they are. (The paper's WorkerManager.)"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nimbusd.core.environments import Environment, environment_of
from nimbusd.core.estimate import Mean
from nimbusd.core.ids import LeaseId, NodeId
from nimbusd.transport.messages.node import Heartbeat, Hello, Running

HEARTBEAT_S = 1.0
DEAD_AFTER_S = 5.0
LONG_S = 4.0
"""Episodes that take so long are not queued on nodes: a slot can wait for a message, and nobody has to be asked to give
them back. It is also where the order of scenes matters."""
EXPECTED = ""
"""The session of a node that is known from the ledger only."""


@dataclass(slots=True)
class LiveNode:
    """A node, from its first hello until it is lost or leaves.

    hello_at: when it last said hello; what was sent to it before, and did not arrive, is lost. capacity: episodes
    that it can hold, as far as is known. speed: how much faster than the mean it works.
    """

    name: NodeId
    session: str
    environment: str
    slots: int
    deadline: float
    hello_at: float
    seq: int = -1
    capacity: int = 0
    held: frozenset[LeaseId] = frozenset()
    running: tuple[Running, ...] = ()
    draining: bool = False
    pace: Mean = field(default_factory=Mean)
    packages: Mapping[str, str] = field(default_factory=dict)
    """Those that its environment is the hash of."""
    _environments: dict[frozenset[str], Environment] = field(default_factory=dict)
    """The part of its packages that counts, by the names that do."""

    @property
    def is_here(self) -> bool:
        """True once it has said hello to this master; until then it is a name in the ledger."""
        return self.session != EXPECTED

    def environment_for(self, counting: frozenset[str] | None) -> Environment:
        """The part of its environment that counts for a job. counting: names of packages; None: all of them."""
        if counting is None:
            return Environment(self.environment, self.packages)
        if (found := self._environments.get(counting)) is None:
            found = self._environments[counting] = environment_of(self.packages, counting)
        return found

    @property
    def speed(self) -> float:
        """1 for a node of mean speed, from how its episodes' cost compared with what was expected."""
        return 1.0 / self.pace.value if self.pace.count >= 3 and self.pace.value > 0 else 1.0


class WorkerManager:
    """Liveness is ours, not TCP's: a node that has been silent for `dead_after_s` is lost.

    Deadlines wait in a heap, one entry per node, pushed on only when they come up: a heartbeat costs no more
    with ten thousand nodes than with one.
    """

    def __init__(self, dead_after_s: float = DEAD_AFTER_S) -> None:
        self.dead_after_s = dead_after_s
        self._nodes: dict[NodeId, LiveNode] = {}
        self._due: list[tuple[float, NodeId]] = []
        self._in_due: set[NodeId] = set()
        self._drained: set[NodeId] = set()
        self._slots: int | None = None

    def __iter__(self) -> Iterator[LiveNode]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, name: NodeId) -> LiveNode | None:
        """The node, unless it is lost or unknown."""
        return self._nodes.get(name)

    def slots(self) -> int:
        """Slots of all nodes that get work."""
        if self._slots is None:
            self._slots = sum(node.slots for node in self._nodes.values() if not node.draining)
        return self._slots

    def hello(self, fact: Hello, now: float) -> LiveNode | None:
        """A node connects. Returns what was known of it if it has restarted, so that what it held is gone."""
        node = self._nodes.get(fact.node)
        self._slots = None
        if node is not None and node.session == fact.session:
            node.environment, node.slots, node.hello_at = fact.environment, fact.slots, now
            node.packages = fact.packages
            node._environments.clear()
            self._seen(node, now)
            return None
        fresh = LiveNode(fact.node, fact.session, fact.environment, fact.slots, now + self.dead_after_s, now)
        fresh.draining = fact.node in self._drained
        fresh.packages = fact.packages
        self._add(fresh)
        return node if node is not None and node.is_here else None

    def expect(self, name: NodeId, now: float) -> None:
        """A node that held leases before the master restarted: give it time to come back."""
        if name not in self._nodes:
            self._add(LiveNode(name, EXPECTED, "", 0, now + 2 * self.dead_after_s, now))

    def _add(self, node: LiveNode) -> None:
        self._nodes[node.name] = node
        if node.name not in self._in_due:
            self._in_due.add(node.name)
            heapq.heappush(self._due, (node.deadline, node.name))

    def heartbeat(self, fact: Heartbeat, now: float) -> LiveNode | None:
        """The node, brought up to date; None for old news. It is known, by this session."""
        node = self._nodes[fact.node]
        assert node.session == fact.session
        if fact.seq <= node.seq:
            return None
        node.seq = fact.seq
        node.held, node.running = frozenset(fact.held), fact.running
        self._seen(node, now)
        return node

    def remove(self, name: NodeId) -> LiveNode | None:
        """Forget a node; its deadline in the heap is skipped when it comes up."""
        self._slots = None
        return self._nodes.pop(name, None)

    def is_drained(self, name: NodeId) -> bool:
        """True where a node gets no more work, be it here or away."""
        return name in self._drained

    def drain(self, name: NodeId, on: bool) -> None:
        """Remember that a node gets no more work, also when it comes back later."""
        (self._drained.add if on else self._drained.discard)(name)
        if (node := self._nodes.get(name)) is not None:
            node.draining = on
            self._slots = None

    def overdue(self, now: float) -> list[LiveNode]:
        """Nodes whose deadline has passed; the caller removes them."""
        late: list[LiveNode] = []
        while self._due and self._due[0][0] < now:
            _, name = heapq.heappop(self._due)
            node = self._nodes.get(name)
            if node is not None and node.deadline >= now:
                heapq.heappush(self._due, (node.deadline, name))
                continue
            self._in_due.discard(name)
            if node is not None:
                late.append(node)
        return late

    def _seen(self, node: LiveNode, now: float) -> None:
        node.deadline = max(node.deadline, now + self.dead_after_s)
