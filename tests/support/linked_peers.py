"""A master's socket and nodes' links that remember what they hear, for tests to wait for."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from nimbusd.core.ids import NodeId
from nimbusd.transport.messages import control as c
from nimbusd.transport.security.auth import Entry, Peer
from nimbusd.transport.security.gate import Gate
from nimbusd.transport.security.keys import KeyPair, generate
from nimbusd.transport.sockets.master_socket import MasterSocket
from nimbusd.transport.sockets.monitor import ConnectionEvent
from nimbusd.transport.sockets.node_link import NodeLink

LOOPBACK = "tcp://127.0.0.1:*"
ANSWER = c.Welcome(1, 1.0, 5.0)
MASTER_KEYS = generate()


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the loop that daemons use."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


class Waiter:
    """Waits until something holds, looking again at each event."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


class Master(MasterSocket):
    """Answers each message of a node by Welcome, and each request by Done."""

    def __init__(self, bind: str | tuple[str, ...] = LOOPBACK, **security: Any) -> None:
        self.heard: list[tuple[Peer, c.Message]] = []
        self.events = Waiter()
        security.setdefault("any_local_user", "keys" not in security)
        super().__init__((bind,) if isinstance(bind, str) else bind, self._answer, **security)

    def _answer(self, peer: Peer, message: c.Message) -> None:
        self.heard.append((peer, message))
        self.send(peer, c.Done(message.request) if isinstance(message, c.REQUESTS) else ANSWER)

    def receive(self, listener: int, route: bytes, key: str, frame: bytes) -> None:
        super().receive(listener, route, key, frame)
        self.events.notify()

    def connection_event(self, event: ConnectionEvent) -> None:
        super().connection_event(event)
        self.events.notify()

    async def counts(self, **counted: int) -> None:
        """Wait until the counters stand so."""
        await self.events.until(lambda: all(self.counters[name] >= count for name, count in counted.items()))
        assert {name: self.counters[name] for name in counted} == counted


class Link:
    """A node's link that remembers what happens."""

    def __init__(self, address: str, **keys: Any) -> None:
        self.received: list[c.Message] = []
        self.troubles: list[str] = []
        self.connections = self.breaks = 0
        self.events = Waiter()
        keys.setdefault("any_local_user", "keys" not in keys)
        self.link = NodeLink(
            address,
            self._got,
            on_connected=self._connected,
            on_disconnected=self._disconnected,
            on_trouble=self._troubled,
            **keys,
        )

    def _got(self, message: c.Message) -> None:
        self.received.append(message)
        self.events.notify()

    def _connected(self) -> None:
        self.connections += 1
        self.events.notify()

    def _disconnected(self) -> None:
        self.breaks += 1
        self.events.notify()

    def _troubled(self, trouble: str) -> None:
        self.troubles.append(trouble)
        self.events.notify()

    async def connected(self, times: int = 1) -> None:
        await self.events.until(lambda: self.connections == times)

    async def broken(self) -> None:
        await self.events.until(lambda: self.breaks > 0)

    async def trouble(self) -> str:
        """The first or next trouble."""
        await self.events.until(lambda: bool(self.troubles))
        return self.troubles.pop(0)

    async def ask(self, message: c.Message) -> c.Message:
        """Send, and take the next message that comes."""
        await self.events.until(lambda: self.link.connected)
        assert self.link.send(message)
        return await self.next()

    async def next(self) -> c.Message:
        await self.events.until(lambda: bool(self.received))
        return self.received.pop(0)


@asynccontextmanager
async def linked(address: str, **keys: Any) -> AsyncIterator[Link]:
    link = Link(address, **keys)
    try:
        yield link
    finally:
        link.link.close(linger_s=0)


@asynccontextmanager
async def serving(bind: str | tuple[str, ...] = LOOPBACK, **security: Any) -> AsyncIterator[Master]:
    master = Master(bind, **security)
    try:
        yield master
    finally:
        master.close()


@asynccontextmanager
async def encrypted(folder: Path, *entries: Entry) -> AsyncIterator[tuple[Master, Gate]]:
    gate = Gate(folder)
    for entry in entries:
        gate.add(entry)
    async with serving(keys=MASTER_KEYS, gate=gate) as master:
        yield master, gate


def hello(node: str) -> c.Hello:
    return c.Hello(NodeId(node), "s1", "0.1.0", "env", {}, 1, ())


def secure(keys: KeyPair, master: KeyPair = MASTER_KEYS) -> dict[str, Any]:
    return {"keys": keys, "master_key": master.public}
