"""Feeds nonsense to the decoder and to the ports of a live master, and watches both.

    python -m tests.support.fuzz_control [--seconds 30] [--seed 0] [--json]

Half of the time goes to the decoder: messages of each type, damaged in many ways. Anything that it raises but
MessageError is a failure. The other half goes to a master in a process of its own, with one open and one encrypted
port: half frames, oversized frames, messages that never end, damaged messages, strangers' keys, missing encryption,
connections dropped at any moment. Meanwhile an honest node on each port must get every answer, and the master's
memory and open files must not grow. Exit status 1 if something failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import uvloop
import zmq

from nimbusd.core.ids import NodeId
from nimbusd.transport.messages import control as c
from nimbusd.transport.security.auth import Entry, Peer, PeerRole
from nimbusd.transport.security.gate import Gate
from nimbusd.transport.security.keys import KeyPair, generate
from nimbusd.transport.sockets.master_socket import MasterSocket
from nimbusd.transport.sockets.node_link import NodeLink
from tests.support.fuzz_frames import any_message, damaged, fuzz_decoder
from tests.support.raw_peers import GREETING, READY, RawPeer, frame

MAX_GROWTH_BYTES = 32 << 20
MAX_MORE_FILES = 64
_ATTACKS_AT_ONCE = 8
_ANSWER_WITHIN_S = 10.0


class Port:
    """A master in a process of its own. addresses: the open one and the encrypted one."""

    def __init__(self, folder: Path) -> None:
        """Start it. Its gate lets the key `self.node` in as that of node `honest`, and has a token open."""
        self.node = generate()
        Gate(folder).add(Entry(PeerRole.NODE, "honest", self.node.public))
        command = [sys.executable, "-m", "tests.support.fuzz_control", "--serve", str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._watched = psutil.Process(self._process.pid)
        said = json.loads(self._line())
        self.addresses: list[str] = said["addresses"]
        self.master_key: str = said["master_key"]

    def rss_bytes(self) -> int:
        return int(self._watched.memory_info().rss)

    def open_files(self) -> int:
        return int(self._watched.num_fds())

    def stop(self) -> tuple[dict[str, dict[str, int]], list[str]]:
        """End it; what each port counted, and the errors that its loop met."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        said = json.loads(self._line())
        self._process.wait()
        return said["ports"], said["errors"]

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


async def serve(folder: Path) -> None:
    """The process of `Port`: answer Hello by Welcome until standard input ends, then print what was counted."""
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(str(context.get("exception"))))
    logging.disable(logging.WARNING)
    keys, gate = generate(), Gate(folder)
    gate.make_token("tcp://127.0.0.1:7600", keys.public, 86_400.0)  # lets strangers in as guests
    ports = [_answering(), _answering(keys=keys, gate=gate)]
    addresses = [port.addresses[0] for port in ports]
    sys.stdout.write(json.dumps({"addresses": addresses, "master_key": keys.public}) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    counted = dict(zip(("open", "encrypted"), (dict(port.counters) for port in ports), strict=True))
    sys.stdout.write(json.dumps({"ports": counted, "errors": errors}) + "\n")
    for port in ports:
        port.close()


def _answering(**security: Any) -> MasterSocket:
    def answer(peer: Peer, message: c.Message) -> None:
        if isinstance(message, c.Hello):
            socket.send(peer, c.Welcome(1, 1.0, 5.0))

    socket = MasterSocket(("tcp://127.0.0.1:*",), answer, any_local_user=not security, **security)
    return socket


class HonestNode:
    """Says Hello again and again, and counts the answers and how long the slowest took."""

    def __init__(self, address: str, **keys: Any) -> None:
        self.answers = 0
        self.slowest_s = 0.0
        self.breaks = 0
        self._answered = asyncio.Event()
        self._connected = asyncio.Event()
        self._link = NodeLink(
            address,
            self._got,
            on_connected=self._connected.set,
            on_disconnected=self._broke,
            any_local_user=not keys,
            **keys,
        )

    async def run(self, ends: float) -> None:
        """Raises TimeoutError if an answer takes longer than _ANSWER_WITHIN_S."""
        await asyncio.wait_for(self._connected.wait(), _ANSWER_WITHIN_S)
        while time.monotonic() < ends:
            began = time.monotonic()
            self._answered.clear()
            self._link.send(c.Hello(NodeId("honest"), "s", "0", "env", {}, 1, ()))
            await asyncio.wait_for(self._answered.wait(), _ANSWER_WITHIN_S)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(0.01)

    def close(self) -> None:
        self._link.close()

    def _got(self, message: c.Message) -> None:
        self.answers += 1
        self._answered.set()

    def _broke(self) -> None:
        self.breaks += 1


class Attacker:
    """Does one bad thing after another to both ports. done: how often it did each."""

    def __init__(self, port: Port, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        messages = [c.encode(any_message(rng)) for _ in range(500)]
        # Made beforehand, so that making them does not keep the honest nodes of this process waiting.
        self._frames = messages[:100] + [damaged(message, rng) for message in messages[100:]]
        self.done: Counter[str] = Counter()

    async def run(self, ends: float) -> None:
        """Until then."""
        ways: list[Callable[[], Awaitable[None]]] = [
            self._garbage, self._half_handshake, self._half_frame, self._oversize, self._many_parts,
            self._damaged_messages, self._wrong_master_key, self._stranger, self._no_encryption,
        ]  # fmt: skip
        while time.monotonic() < ends:
            way = self._rng.choice(ways)
            try:
                async with asyncio.timeout(2):
                    await way()
            except (OSError, EOFError, TimeoutError, zmq.Again):  # turned away, which is as good
                self.done["turned away"] += 1
            self.done[way.__name__.strip("_")] += 1

    def close(self) -> None:
        self._context.destroy(linger=0)

    async def _garbage(self) -> None:
        peer = await RawPeer.connect(self._rng.choice(self._port.addresses))
        peer.write(self._rng.randbytes(self._rng.randrange(1, 5000)))
        await asyncio.sleep(self._rng.choice([0, 0.01]))
        peer.close()

    async def _half_handshake(self) -> None:
        peer = await RawPeer.connect(self._rng.choice(self._port.addresses))
        hello = damaged(GREETING + READY, self._rng)
        peer.write(hello[: self._rng.randrange(len(hello) + 1)])
        await asyncio.sleep(self._rng.choice([0, 0.01]))
        peer.close()

    async def _half_frame(self) -> None:
        peer = await RawPeer.shaken_hands(self._port.addresses[0])
        peer.write(frame(b"x" * 10, announced=self._rng.choice([11, 1000, 1 << 20, c.MAX_JOB_BYTES])))
        await asyncio.sleep(self._rng.choice([0, 0.05]))
        peer.close()

    async def _oversize(self) -> None:
        peer = await RawPeer.shaken_hands(self._port.addresses[0])
        if self._rng.random() < 0.5:
            peer.write(frame(b"", announced=1 << self._rng.randrange(26, 63)))
        else:  # of a size that may come in, and is no message
            peer.write(frame(b"\xdd\x00\x00\xff\xff" * 200_000))
            await peer.drain()
        peer.close()

    async def _many_parts(self) -> None:
        peer = await RawPeer.shaken_hands(self._port.addresses[0])
        peer.write(frame(b"x" * 10, flags=1) * 1000 + frame(b"x") * self._rng.randrange(2))
        await peer.drain()
        peer.close()

    async def _damaged_messages(self) -> None:
        await self._send_damaged(self._port.addresses[0])

    async def _stranger(self) -> None:
        await self._send_damaged(self._port.addresses[1], generate(), self._port.master_key)

    async def _wrong_master_key(self) -> None:
        await self._send_damaged(self._port.addresses[1], self._port.node, generate().public)

    async def _no_encryption(self) -> None:
        await self._send_damaged(self._port.addresses[1])

    async def _send_damaged(self, address: str, keys: KeyPair | None = None, master_key: str = "") -> None:
        with self._context.socket(zmq.DEALER) as socket:
            socket.linger = 20
            if keys is not None:
                socket.curve_publickey, socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
                socket.curve_serverkey = master_key.encode()
            socket.connect(address)
            for message in self._rng.choices(self._frames, k=self._rng.randrange(1, 200)):
                socket.send(message, zmq.NOBLOCK)
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class LiveResult:
    """rss: of the master's process, after a first fifth of the attacks and at the end."""

    attacks: dict[str, int]
    counted: dict[str, dict[str, int]]
    errors: tuple[str, ...]
    answers: int
    breaks: int
    slowest_answer_s: float
    rss_before_bytes: int
    rss_after_bytes: int
    files_before: int
    files_after: int

    @property
    def failures(self) -> list[str]:
        """Findings: what should not have been, as sentences."""
        out = [f"the master's loop met an error: {error}" for error in self.errors]
        if (growth := self.rss_after_bytes - self.rss_before_bytes) > MAX_GROWTH_BYTES:
            out.append(f"the master's memory grew by {growth / 2**20:.1f} MiB")
        if self.files_after > self.files_before + MAX_MORE_FILES:
            out.append(f"the master's open files grew from {self.files_before} to {self.files_after}")
        if self.breaks:
            out.append(f"honest nodes lost their connection {self.breaks} times")
        return out


async def fuzz_live(rng: random.Random, seconds: float) -> LiveResult:
    """Attack a master. Raises TimeoutError if an honest node gets no answer."""
    with tempfile.TemporaryDirectory() as folder:
        port = Port(Path(folder))
        nodes = [
            HonestNode(port.addresses[0]),
            HonestNode(port.addresses[1], keys=port.node, master_key=port.master_key),
        ]
        attackers = [Attacker(port, random.Random(rng.random())) for _ in range(_ATTACKS_AT_ONCE)]
        before = (0, 0)
        for share in (0.2, 0.8):
            ends = time.monotonic() + seconds * share
            async with asyncio.TaskGroup() as group:
                for run in (*(node.run for node in nodes), *(attacker.run for attacker in attackers)):
                    group.create_task(run(ends))
            before = before if before[0] else (port.rss_bytes(), port.open_files())
        rss_after, files_after = port.rss_bytes(), port.open_files()
        for close in (*(node.close for node in nodes), *(attacker.close for attacker in attackers)):
            close()
        counted, errors = port.stop()
        return LiveResult(
            attacks=dict(sum((attacker.done for attacker in attackers), Counter())),
            counted=counted,
            errors=tuple(errors),
            answers=sum(node.answers for node in nodes),
            breaks=sum(node.breaks for node in nodes),
            slowest_answer_s=max(node.slowest_s for node in nodes),
            rss_before_bytes=before[0],
            rss_after_bytes=rss_after,
            files_before=before[1],
            files_after=files_after,
        )


@click.command()
@click.option("--seconds", type=click.FloatRange(1.0), default=30.0, show_default=True, help="In all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the damage.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--serve", "folder", type=click.Path(path_type=Path), hidden=True)
def main(seconds: float, seed: int, as_json: bool, folder: Path | None) -> None:
    """Fuzz the decoder and a live master."""
    if folder is not None:
        uvloop.run(serve(folder))
        return
    rng = random.Random(seed)
    own = psutil.Process()
    rss_before = own.memory_info().rss
    decoded = fuzz_decoder(rng, seconds=seconds / 2)
    rss_after = own.memory_info().rss
    live = uvloop.run(fuzz_live(rng, seconds / 2))
    row = {
        "decoder": {**decoded, "rss_before_bytes": rss_before, "rss_after_bytes": rss_after},
        "live": {**asdict(live), "failures": live.failures},
    }
    sys.stdout.write(json.dumps(row, indent=2) + "\n" if as_json else _table(row))
    sys.exit(1 if live.failures else 0)


def _table(row: dict[str, Any]) -> str:
    lines = []
    for part, figures in row.items():
        lines.append(part)
        for name, value in figures.items():
            if name.endswith("_bytes"):
                name, value = name.removesuffix("_bytes"), f"{value / 2**20:.1f} MiB"
            elif isinstance(value, float):
                value = f"{value:.3f}"
            elif isinstance(value, dict):
                value = ", ".join(f"{key} {count}" for key, count in sorted(value.items()))
            lines.append(f"  {name.replace('_', ' '):18} {value or 'none'}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
