"""The scripted nodes of `tests.benchmarks.dispatch`: they speak the protocol of nodes, and make nothing.

    python -m tests.benchmarks.dispatch_peers MASTER NODES

One process plays all of them, so that their number changes what the master hears and not who shares its cores. Each
has one slot and a connection of its own. It reacts to messages, and never polls: what it is leased is stored at once,
as the smallest piece there is, and told by `Commits`, the rule of the real node. Runs until its standard input ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from nimbusd.core.ids import LeaseId, NodeId, indexes_of
from nimbusd.core.node.commits import GATHER_S, Commits
from nimbusd.core.node.heartbeats import MOST_AHEAD
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.piece import MANIFEST, PIECES, manifest_digest, piece_folder
from nimbusd.stages.types import EpisodeRequest, Piece, PieceFile
from nimbusd.transport.messages import control as c
from nimbusd.transport.sockets.node_link import NodeLink

AT_ONCE = 16
"""Episodes that a node makes before the process looks at its sockets again."""
MOST_HELD = MOST_AHEAD + 1
"""Episodes that a real node of one slot holds when they take no time."""
NOTHING = to_json({"length": 1, "files": []}, indent=True)
"""The manifest of a piece of one frame without files."""
DIGEST = manifest_digest(Piece("", 1, (PieceFile(MANIFEST, len(NOTHING), hashlib.sha256(NOTHING).hexdigest()),)))


@dataclass
class _Held:
    lease: c.Lease
    waiting: deque[int]
    unacknowledged: set[int] = field(default_factory=set)


class ScriptedNode:
    """A node of one slot whose episodes take no time."""

    def __init__(self, address: str, name: str) -> None:
        self._node = NodeId(name)
        self._loop = asyncio.get_running_loop()
        self._held: dict[LeaseId, _Held] = {}
        self._seq = 0
        self._commits: Commits[c.Stored] = Commits()
        self._working = False
        self._link = NodeLink(address, self._heard, on_connected=self._hello)

    def _hello(self) -> None:
        self._link.send(c.Hello(self._node, "s", "bench", "bench", {}, 1, ()))

    def _heard(self, message: c.Message) -> None:
        match message:
            case c.Welcome():
                self._beat(message.heartbeat_s)
            case c.SayHello():
                self._hello()
            case c.JobSpec(_, spec):
                self._pieces = Path(spec["output"]) / PIECES
            case c.Lease():
                self._held[message.lease] = _Held(message, deque(indexes_of(message.spans)))
                self._work_soon()
            case c.Ack(_, lease, indexes, refused):
                assert not refused, f"the master refused pieces of {self._node}"
                held = self._held[lease]
                held.unacknowledged.difference_update(indexes)
                self._commits.answered(lease)
                if not (held.waiting or held.unacknowledged):
                    del self._held[lease]
                self._tell_stored()
            case c.Revoke(_, lease, indexes):
                revoked = self._held.get(lease)
                if revoked is not None and (wanted := set(indexes or revoked.waiting) & set(revoked.waiting)):
                    revoked.waiting = deque(index for index in revoked.waiting if index not in wanted)
                    revoked.unacknowledged |= wanted
                    self._link.send(c.GiveBack(self._node, lease, tuple(sorted(wanted))))
                    self._tell()  # the master reckons with no more than is held, until it hears otherwise
            case _:
                pass

    def _beat(self, every_s: float) -> None:
        self._tell()
        self._loop.call_later(every_s, self._beat, every_s)

    def _tell(self) -> None:
        self._seq += 1
        credit = max(0, MOST_HELD - self._waiting())
        self._link.send(c.Heartbeat(self._node, "s", self._seq, credit, tuple(self._held), ()))

    def _waiting(self) -> int:
        return sum(len(held.waiting) for held in self._held.values())

    def _work_soon(self) -> None:
        if not self._working:
            self._working = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        """Make some episodes of the first lease that has any."""
        self._working = False
        if (held := next((held for held in self._held.values() if held.waiting), None)) is None:
            return
        for _ in range(min(AT_ONCE, len(held.waiting))):
            piece = self._store(held.lease, held.waiting.popleft())
            held.unacknowledged.add(piece.index)
            self._commits.stored(held.lease.lease, piece)
        self._tell_stored()
        self._loop.call_later(GATHER_S, self._tell_stored)
        self._work_soon()

    def _tell_stored(self) -> None:
        for id, stored in self._commits.due(self._loop.time()):
            lease = self._held[id].lease
            self._link.send(c.Commit(self._node, id, lease.job, lease.scene, lease.attempt, stored))

    def _store(self, lease: c.Lease, index: int) -> c.Stored:
        """The smallest piece there is, in its place; not synced, since that is no work of the master."""
        folder = piece_folder(EpisodeRequest(lease.job, lease.scene, index, attempt=lease.attempt))
        path = f"{self._pieces}/{folder}"
        os.mkdir(path)
        with open(f"{path}/{MANIFEST}", "wb", buffering=0) as file:
            file.write(NOTHING)
        return c.Stored(index, folder, 1, len(NOTHING), DIGEST, 1e-5)


async def main(address: str, nodes: int) -> None:
    peers = [ScriptedNode(address, f"n{number}") for number in range(nodes)]
    await asyncio.to_thread(sys.stdin.read)
    del peers


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
