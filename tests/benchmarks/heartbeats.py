"""The price of the heartbeats of many nodes for a master: processor share and memory per node.

    python -m tests.benchmarks.heartbeats [--nodes 1000 10000] [--seconds 20] [--json]

The master is a real one, in a process of its own, over TCP. The nodes are simulated, each with a connection of its
own: they say hello, then send a heartbeat with a load report once a second, evenly spread. `busy` nodes also hold a
lease each, as they would while a job runs. What is not counted is what the nodes themselves spend.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import zmq

from nimbusd.client import Client
from nimbusd.core.ids import LeaseId, NodeId
from nimbusd.transport.messages import control as c
from tests.benchmarks.dispatch import master_process, toy_job

MOST_IN_ONE = 4_000
LOAD = c.Load(0.5, 8 << 30, 64 << 30)


@dataclass(frozen=True)
class Row:
    """cpu: share of one core. alive: nodes that the master counted as alive at the end."""

    nodes: int
    busy: bool
    heartbeats_per_s: float
    cpu: float
    us_per_heartbeat: float
    kib_per_node: float
    alive: int


class Crowd:
    """Simulated nodes, in as many processes as their sockets need: each takes two file descriptors."""

    def __init__(self, address: str, nodes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._parts: list[Connection] = []
        for first in range(0, nodes, MOST_IN_ONE):
            ours, theirs = context.Pipe()
            count = min(MOST_IN_ONE, nodes - first)
            context.Process(target=_simulate, args=(theirs, address, first, count), daemon=True).start()
            self._parts.append(ours)
        for part in self._parts:
            part.recv()

    def beat(self, seconds: float, credit: int = 0) -> float:
        """Heartbeats of every node once a second. Returns how many went out a second."""
        return self._ask(("beat", seconds, credit))

    def take_leases(self) -> int:
        """Note the leases that have come. Returns how many nodes hold one."""
        return int(self._ask(("take_leases",)))

    def close(self) -> None:
        """Stop simulating."""
        for part in self._parts:
            part.close()

    def _ask(self, what: tuple[object, ...]) -> float:
        for part in self._parts:
            part.send(what)
        return float(sum(part.recv() for part in self._parts))


def _simulate(commands: Connection, address: str, first: int, count: int) -> None:
    """A part of the crowd, until the other end is closed."""
    part = _Part(address, first, count)
    commands.send(None)
    while True:
        try:
            name, *args = commands.recv()
        except EOFError:
            part.close()
            return
        commands.send(getattr(part, name)(*args))


class _Part:
    """Simulated nodes of one process, with one socket each."""

    def __init__(self, address: str, first: int, nodes: int) -> None:
        self._first = first
        self._context = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, nodes + 100)
        self._sockets = []
        self._held: list[tuple[LeaseId, ...]] = [()] * nodes
        self._seq = 0
        for number in range(first, first + nodes):
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.connect(address)
            socket.send(c.encode(c.Hello(NodeId(f"n{number}"), "s", "bench", "bench", {}, 8, ("cpu",))))
            self._sockets.append(socket)
            if number % 200 == 199:
                time.sleep(0.05)  # the listening socket has a queue of its own

    def beat(self, seconds: float, credit: int = 0) -> float:
        """Heartbeats of every node once a second. Returns how many went out a second."""
        sent, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            due = int(elapsed * len(self._sockets))
            if sent >= due:
                time.sleep(0.001)
                continue
            for number in range(sent, due):
                self._beat_one(number % len(self._sockets), credit)
            sent = due
        return sent / (time.perf_counter() - began)

    def _beat_one(self, number: int, credit: int) -> None:
        self._seq += 1
        socket, held = self._sockets[number], self._held[number]
        running = tuple(c.Running(lease, 0, "render", 12.5) for lease in held)
        socket.send(
            c.encode(
                c.Heartbeat(
                    NodeId(f"n{self._first + number}"), "s", self._seq, credit * (not held), held, running, LOAD
                )
            )
        )

    def take_leases(self) -> int:
        """Note the leases that have come. Returns how many nodes hold one."""
        for number, socket in enumerate(self._sockets):
            while socket.poll(0):
                if isinstance(message := c.decode(socket.recv()), c.Lease):
                    self._held[number] = (message.lease,)
        return sum(bool(held) for held in self._held)

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._context.term()


def measure(nodes: int, seconds: float) -> list[Row]:
    """Idle nodes, then busy ones."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="heartbeats-") as folder, master_process(Path(folder)) as (address, pid):
        master = psutil.Process(pid)
        with Client.connect(address) as client:
            empty_bytes = master.memory_info().rss
            crowd = Crowd(address, nodes)
            crowd.beat(3.0)
            for busy in (False, True):
                if busy:
                    client.submit(toy_job("job", Path(folder) / "out", 8 * nodes))
                    crowd.beat(2.0, credit=1)
                    holding = crowd.take_leases()
                    if holding < nodes:
                        print(f"only {holding} of {nodes} nodes were given a lease", file=sys.stderr)
                    crowd.beat(1.0)
                before = master.cpu_times()
                rate = crowd.beat(seconds)
                after = master.cpu_times()
                spent = after.user + after.system - before.user - before.system
                alive = sum(node.state == "ready" for node in client.nodes())
                kib = (master.memory_info().rss - empty_bytes) / 1024 / nodes
                rows.append(Row(nodes, busy, rate, spent / seconds, 1e6 * spent / seconds / rate, kib, alive))
        crowd.close()
    return rows


def table(rows: list[Row]) -> str:
    head = f"{'nodes':>7}{'busy':>6}{'heartbeats/s':>14}{'cores':>8}{'µs each':>9}{'KiB/node':>10}{'alive':>7}"
    return "\n".join(
        [
            head,
            *(
                f"{r.nodes:>7}{'yes' if r.busy else 'no':>6}{r.heartbeats_per_s:>14.0f}{r.cpu:>8.2f}"
                f"{r.us_per_heartbeat:>9.1f}{r.kib_per_node:>10.1f}{r.alive:>7}"
                for r in rows
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [row for nodes in args.nodes for row in measure(nodes, args.seconds)]
    print(json.dumps([asdict(row) for row in rows], indent=1) if args.json else table(rows))


if __name__ == "__main__":
    main()
