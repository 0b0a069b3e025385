"""A node of `tests.benchmarks.dispatch`: the real node machine and link, with tasks that are function calls.

    python -m tests.benchmarks.dispatch_node MASTER NAME TASK_S RESULT

Runs until its standard input is closed, then writes to RESULT how long its slot waited between two tasks, in seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from pathlib import Path

import uvloop

from nimbusd import wire
from nimbusd.core.ids import NodeId, WorkerId
from nimbusd.core.master.facts import StoredPiece
from nimbusd.core.node import facts as n
from nimbusd.core.node.machine import NodeMachine
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.piece import MANIFEST, PIECES, manifest_digest, piece_folder
from nimbusd.stages.types import EpisodeRequest, Piece, PieceFile
from nimbusd.transport.messages import control as c
from nimbusd.transport.sockets.node_link import NodeLink

WORKER = WorkerId("inline")
BURST_S = 0.002
"""How long tasks run before the socket is looked after again."""
CREDIT = 4096
NOTHING = to_json({"length": 1, "files": []}, indent=True)
"""The manifest of a piece of one frame without files."""
DIGEST = manifest_digest(Piece("", 1, (PieceFile(MANIFEST, len(NOTHING), hashlib.sha256(NOTHING).hexdigest()),)))


class InlineNode:
    """One slot that executes tasks in the loop's own thread."""

    def __init__(self, address: str, name: str, task_s: float) -> None:
        self._task_s = task_s
        self._machine = NodeMachine(NodeId(name), name, slots=1)
        self._name = name
        self._waiting: list[n.MakeEpisode] = []
        self._idle_since: float | None = None
        self.gaps_s: list[float] = []
        self._link = NodeLink(address, self._heard, on_connected=self._hello)
        self._facts(n.WorkerWaits(WORKER), n.WorkerPulls(WORKER, CREDIT))

    def _hello(self) -> None:
        self._link.send(c.Hello(self._name, self._name, "bench", "bench", {}, 1, ()))

    def _heard(self, message: c.Message) -> None:
        match message:
            case c.Welcome():
                self._facts(n.Connected())
            case c.Lease() | c.Revoke() | c.Ack():
                self._facts(wire.fact_from_master(message, NodeId(self._name)))
            case c.SayHello():
                self._hello()
            case c.JobSpec(_, spec):
                self._pieces = Path(spec["output"]) / PIECES
            case _:
                pass

    def _facts(self, *facts: n.NodeFact) -> None:
        now = time.monotonic()
        for fact in facts:
            self._carry_out(self._machine.handle(fact, now))

    def _carry_out(self, orders: list[n.NodeOrder]) -> None:
        for order in orders:
            if isinstance(order, n.MakeEpisode):
                self._waiting.append(order)
            elif isinstance(order, n.RecallWorker):  # for another job: this worker needs no new process for it
                self._facts(n.WorkerGone(WORKER, "exit", ""), n.WorkerWaits(WORKER), n.WorkerPulls(WORKER, CREDIT))
            elif not isinstance(order, n.AssignJob | n.StopWorker | n.DropPiece | n.DropPlan):
                self._link.send(wire.message_to_master(order, {}, None))

    async def run(self) -> None:
        """Work for ever."""
        while True:
            self._carry_out(self._machine.settle(time.monotonic()))
            if not self._waiting:
                await asyncio.sleep(0.0005)
                continue
            self._burst()
            await asyncio.sleep(0)

    def _burst(self) -> None:
        """Execute tasks for a while; their pieces are announced together."""
        began = time.monotonic()
        facts: list[n.NodeFact] = []
        done = 0
        for order in self._waiting:
            start = time.monotonic()
            if start - began > BURST_S:
                break
            if self._idle_since is not None:
                self.gaps_s.append(start - self._idle_since)
            while time.monotonic() - start < self._task_s:
                pass
            self._idle_since = end = time.monotonic()
            piece = self._store(order, end - start)
            facts += (n.EpisodeStored(WORKER, order.lease, piece), n.WorkerPulls(WORKER, 1))
            done += 1
        del self._waiting[:done]
        self._facts(*facts)

    def _store(self, order: n.MakeEpisode, cost_s: float) -> StoredPiece:
        """The smallest piece there is, in its place; not synced, since that is no work of the master."""
        folder = piece_folder(EpisodeRequest(order.job, order.scene, order.index, attempt=order.attempt))
        (self._pieces / folder).mkdir()
        (self._pieces / folder / MANIFEST).write_bytes(NOTHING)
        return StoredPiece(order.index, folder, 1, len(NOTHING), DIGEST, cost_s)


async def main(address: str, name: str, task_s: float) -> list[float]:
    node = InlineNode(address, name, task_s)
    working = asyncio.create_task(node.run())
    await asyncio.to_thread(sys.stdin.read)
    working.cancel()
    return node.gaps_s


if __name__ == "__main__":
    gaps_s = uvloop.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
    Path(sys.argv[4]).write_text(json.dumps(gaps_s))
