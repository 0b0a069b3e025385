"""A hostile node: it speaks as nodes do, takes leases, and says of their pieces what is not so."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import zmq

from nimbusd.chaos.lies import BARE_LIES, LIES
from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId
from nimbusd.node.environment import environment
from nimbusd.stages.errors import StoreError
from nimbusd.stages.types import EpisodeRequest
from nimbusd.transport.codec.codec import MessageError
from nimbusd.transport.messages import control as c

BEAT_S = 0.2
_CREDIT = 2


class Liar(threading.Thread):
    """Lies about each lease of one job, until it leaves without a word, with all that it holds.

    address: the master's, without encryption. seed: of the lies.
    """

    def __init__(self, address: str, name: str, job: str, output: Path, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self._address = address
        self._job = job
        self._output = output
        self._node = NodeId(self.name)
        self._rng = random.Random(seed)
        self._leaves = threading.Event()
        self._lock = threading.Lock()
        self._lied: dict[tuple[int, int], EpisodeKey] = {}
        self._refused: set[EpisodeKey] = set()
        self._believed: set[EpisodeKey] = set()
        self.first_lie_s: float | None = None
        """The moment of its first lie (CLOCK_MONOTONIC)."""

    @property
    def refused(self) -> frozenset[EpisodeKey]:
        """Episodes that the master refused to take from it."""
        with self._lock:
            return frozenset(self._refused)

    @property
    def believed(self) -> frozenset[EpisodeKey]:
        """Episodes that the master took from it, of which there must be none."""
        with self._lock:
            return frozenset(self._believed)

    def leave(self) -> None:
        """End without a farewell."""
        self._leaves.set()
        self.join()

    def run(self) -> None:
        """Join, and lie, until asked to leave."""
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(self._address)
        seq, leases = 0, dict[LeaseId, c.Lease]()
        socket.send(c.encode(self._hello()))
        while not self._leaves.is_set():
            seq += 1
            beat = c.Heartbeat(self._node, self.name, seq, _CREDIT, tuple(leases), ())
            socket.send(c.encode(beat))
            if not socket.poll(int(BEAT_S * 1000)):
                continue
            try:
                message = c.decode(socket.recv())
            except MessageError:
                continue
            match message:
                case c.SayHello():
                    seq = 0
                    socket.send(c.encode(self._hello()))
                    for lease in leases.values():  # who asks may have died before it answered
                        socket.send(c.encode(self._lie(lease)))
                case c.Lease() if message.job == self._job:
                    leases[message.lease] = message
                    socket.send(c.encode(self._lie(message)))
                case c.Ack():
                    self._answered(message)
                case _:
                    pass
            self._leaves.wait(BEAT_S / 4)
        socket.close()
        context.term()

    def _hello(self) -> c.Hello:
        here = environment()
        return c.Hello(self._node, self.name, "1", here.hash, dict(here.packages), _CREDIT, ("cpu",))

    def _lie(self, lease: c.Lease) -> c.Commit:
        span = lease.spans[0]
        request = EpisodeRequest(lease.job, lease.scene, self._rng.randrange(*span), attempt=lease.attempt)
        lie = self._rng.choice(list(BARE_LIES.values()))
        try:
            stored = lie(self._output, request)
        except (OSError, StoreError):  # the output is not what it was: there is nothing to lie about
            stored = LIES["outside"](self._output, request)
        with self._lock:
            self._lied[lease.lease, request.index] = EpisodeKey(JobId(lease.job), lease.scene, request.index)
            self.first_lie_s = self.first_lie_s or time.monotonic()
        return c.Commit(self._node, lease.lease, lease.job, lease.scene, lease.attempt, (stored,))

    def _answered(self, ack: c.Ack) -> None:
        with self._lock:
            self._refused |= {self._lied[ack.lease, i] for i in ack.refused if (ack.lease, i) in self._lied}
            self._believed |= {self._lied[ack.lease, i] for i in ack.indexes if (ack.lease, i) in self._lied}
