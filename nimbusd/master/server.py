"""A master on the network: `Master`, its socket, its gate and its ledger, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nimbusd.config import ConfigError, MasterConfig
from nimbusd.core.ids import NodeId
from nimbusd.master.ledger.errors import LedgerError
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.master import Master
from nimbusd.master.reports import Reports
from nimbusd.master.requests import Requests
from nimbusd.program.import_folders import check_import_folders
from nimbusd.program.private_state import keep_private
from nimbusd.stages.errors import NimbusError, out_of_groups
from nimbusd.transport.codec.codec import MessageError
from nimbusd.transport.errors import TransportError
from nimbusd.transport.messages import control as c
from nimbusd.transport.security.auth import Entry, Peer, PeerRole
from nimbusd.transport.security.gate import Gate
from nimbusd.transport.security.keys import KeyPair, generate, read_pair, write_pair
from nimbusd.transport.sockets.addresses import is_loopback, needs_keys, socket_path
from nimbusd.transport.sockets.local_listener import group_id, make_folder
from nimbusd.transport.sockets.master_socket import MasterSocket
from nimbusd.transport.sockets.places import place_to_listen

log = logging.getLogger(__name__)

REREAD_S = 2.0
MOST_REQUESTS = 4_000
"""That are being answered at a time, most of them by waiting for events; MOST_REQUESTS_OF_ONE of one client."""
MOST_REQUESTS_OF_ONE = 64
MOST_NODES = 20_000
"""Nodes that are known at a time, those that are lost among them."""


class _Left(Exception):
    """The master was asked to leave, and nothing is in flight any more."""


@dataclass(slots=True)
class _Asker:
    """A client. waiting: requests of it that are not answered yet."""

    waiting: int = 0
    one: asyncio.Lock = field(default_factory=asyncio.Lock)


class MasterServer:
    """Serves nodes and clients until asked to leave. Make it inside a running loop."""

    def __init__(self, config: MasterConfig) -> None:
        self._config = config
        self.ready = asyncio.Event()
        """Nodes and clients may come."""
        self._leaving = asyncio.Event()
        self._peers: dict[NodeId, Peer] = {}
        check_import_folders(config.trusted_import_folders)
        keep_private(config.state, ("ledger.sqlite", "ledger.sqlite-writer"))
        self._gid = None if config.group is None else group_id(config.group)
        self._bind = config.bind or (_own_socket(self._gid),)
        if self._gid is not None and all(socket_path(address) is None for address in self._bind):
            raise ConfigError("`group` is for a Unix socket, and this master has none: add --bind ipc://PATH")
        self._keys, self._gate = _keys_and_gate(config, self._bind)
        self._one_answer = asyncio.Lock()
        self._askers: dict[bytes, _Asker] = {}
        """Clients that wait for an answer, by the route to them."""
        self._waiting = 0

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that it listens on."""
        return self._socket.addresses

    def leave(self) -> None:
        """Take in nothing more, write and acknowledge what was taken in, and end `run`."""
        self._leaving.set()

    async def check(self) -> None:
        """Wait until the ledger's thread answers, after all that it has to do now."""
        with contextlib.suppress(LedgerError):  # an answer as well: `run` ends by it, or has ended
            await self._master.ledger.call_writing(lambda _: None)

    def status(self) -> str:
        """Its state in a line."""
        return self._reports.line()

    async def run(self) -> None:
        """Go on with the ledger's jobs, listen, and serve until asked to leave."""
        state = self._config.state
        began = time.monotonic()
        async with LedgerThread.opened(state / "ledger.sqlite") as ledger:
            self._master = Master(
                ledger,
                self._send,
                heartbeat_s=self._config.heartbeat_s,
                dead_after_s=self._config.dead_after_s,
                publish_every_s=self._config.publish_every_s,
                seen_within_s=self._config.seen_within_s,
                publish_memory_share=self._config.publish_memory_share,
            )
            self._reports = Reports(self._master)
            tokens = self._make_token if self._keys is not None else None
            self._requests = Requests(self._master, lambda: self._socket.counters, tokens)
            with out_of_groups(NimbusError, TransportError), contextlib.ExitStack() as held:
                try:
                    async with asyncio.TaskGroup() as group:
                        self._group = group
                        group.create_task(self._until_left())
                        group.create_task(self._master.run())
                        await self._master.ready.wait()
                        # Before anybody can be heard: what nodes hold and commit must not look strange to us.
                        await self._master.resume()
                        self._socket = MasterSocket(
                            self._bind,
                            self._received,
                            keys=self._keys,
                            gate=self._gate,
                            any_local_user=self._config.allow_any_local_user,
                            gid=self._gid,
                        )
                        held.callback(self._socket.close)
                        group.create_task(self._reread_allow_list())
                        log.info(
                            "listening on %s; %d open jobs resumed in %.2f s",
                            ", ".join(self.addresses),
                            len(self._master.open),
                            time.monotonic() - began,
                        )
                        self.ready.set()
                except* _Left:
                    log.info("stopped; nodes go on with what they hold and come back")

    async def _until_left(self) -> None:
        """Raise _Left once we were asked to leave. Nothing is heard from then on; who is not answered asks again."""
        await self._leaving.wait()
        if self.ready.is_set():
            await asyncio.sleep(0)  # what was heard in this turn of the event loop goes to the ledger
            await self.check()
        raise _Left

    async def _reread_allow_list(self) -> None:
        """Read the allow-list again and again: who was taken off is shut out soon, though its connection stands."""
        while self._gate is not None:
            await asyncio.sleep(REREAD_S)
            self._gate.refresh()

    # --- messages ---

    def _received(self, peer: Peer, message: c.Message) -> None:
        if self._leaving.is_set():
            return
        if isinstance(message, c.FROM_NODE):
            if self._is_of_its_node(peer, message):
                self._master.heard(message)
        elif isinstance(message, c.REQUESTS):
            asker = self._askers.setdefault(peer.route, _Asker())
            if asker.waiting < MOST_REQUESTS_OF_ONE and self._waiting < MOST_REQUESTS:
                asker.waiting += 1
                self._waiting += 1
                self._group.create_task(self._answer(peer, message, asker))
            else:
                self._refuse(peer, message.request, "busy", "too many requests wait for an answer; ask again later")
        else:
            log.warning("%s sent %s, which only a master may send", peer, type(message).__name__)

    def _is_of_its_node(self, peer: Peer, message: c.FromNode) -> bool:
        """True where the node of that name is at the other end. Each connection of it begins with a Hello.

        Of two processes of the same name, the one that is here stays, and the other is refused, unless the first
        has fallen silent or its connection is gone: then it was restarted.
        """
        node = NodeId(message.node)
        if node not in self._peers and len(self._peers) >= MOST_NODES and not self._forget_lost():
            log.warning("did not hear node %s: %d nodes are at work, and no more are taken", node, MOST_NODES)
            return False  # it goes on to say that it is there
        holder = self._peers.setdefault(node, peer)
        if holder == peer:
            return True
        if not isinstance(message, c.Hello):
            self._socket.send(peer, c.SayHello(node))
            return False
        if self._master.is_alive(node, message.session) and self._socket.send(holder, self._master.welcome()):
            error = f"there is a node {message.node!r} already, and it is at work: give each node a --name of its own"
            log.warning("refused a second node %s", node)
            self._socket.send(peer, c.Refused(0, "name_taken", error))
            return False
        self._peers[node] = peer
        return True

    def _forget_lost(self) -> bool:
        """Forget the connections of nodes that are gone: names cost nothing. Whether there were any."""
        gone = [node for node in self._peers if not self._master.is_known(node)]
        for node in gone:
            del self._peers[node]
        return bool(gone)

    async def _turn(self, asker: _Asker) -> None:
        """Wait for a turn of the event loop in which no other answer is begun or packed: nodes are heard in between.

        Of each client one request waits for that, so that who asks little does not wait for who asks a lot.
        """
        async with asker.one, self._one_answer:
            await asyncio.sleep(0)

    async def _answer(self, peer: Peer, request: c.Request, asker: _Asker) -> None:
        try:
            await self._turn(asker)
            reply = await self._reply(peer, request)
            await self._turn(asker)
            self._socket.send(peer, reply)
        except MessageError as error:
            log.error("the answer to %s of %s cannot be sent: %s", type(request).__name__, peer, error)
            self._refuse(peer, request.request, "too_large", f"the answer cannot be sent: {error}; ask for less")
        finally:
            asker.waiting -= 1
            self._waiting -= 1
            if not asker.waiting:
                self._askers.pop(peer.route, None)

    async def _reply(self, peer: Peer, request: c.Request) -> c.Reply:
        try:
            return await self._requests.answer(request)
        except Exception:
            log.exception("cannot answer %s of %s", type(request).__name__, peer)
            return c.Refused(request.request, "internal", "the master failed to answer; its log says why")

    def _refuse(self, peer: Peer, request: int, code: str, error: str) -> None:
        self._socket.send(peer, c.Refused(request, code, error))

    def _send(self, node: NodeId, message: c.ToNode) -> None:
        if (peer := self._peers.get(node)) is not None:
            self._socket.send(peer, message)

    def _make_token(self, ttl_s: float) -> tuple[str, float]:
        assert self._gate is not None
        assert self._keys is not None
        token = self._gate.make_token(self._advertised(), self._keys.public, ttl_s)
        return token.text(), token.expires_unix_s

    def _advertised(self) -> str:
        """The address that a node elsewhere reaches us by."""
        if self._config.advertise is not None:
            return self._config.advertise
        open_ones = self._config.allow_any_local_user
        reached = [address for address in self.addresses if needs_keys(address, any_local_user=open_ones)]
        address = next((address for address in reached if not is_loopback(address)), reached[0])
        return address.replace("0.0.0.0", platform.node()).replace("[::]", platform.node())


def _own_socket(gid: int | None) -> str:
    """The address of the Unix socket of this user's master, in a folder that is closed to others."""
    place = place_to_listen(os.environ, os.geteuid(), for_group=gid is not None)
    make_folder(place, gid)
    return place.address


def _keys_and_gate(config: MasterConfig, bind: Sequence[str]) -> tuple[KeyPair | None, Gate | None]:
    """None where nobody needs them. The first start makes keys: the master's, and its operator's."""
    if not any(needs_keys(address, any_local_user=config.allow_any_local_user) for address in bind):
        return None, None
    keys, admin = _own_pair(config.state, "master"), _own_pair(config.state, "admin")
    gate = Gate(config.state)
    if gate.entry(admin.public) is None:
        gate.add(Entry(PeerRole.ADMIN, "admin", admin.public))
    return keys, gate


def _own_pair(folder: Path, name: str) -> KeyPair:
    """The pair in the folder, made on the first start."""
    if not (path := folder / f"{name}.key").exists():
        write_pair(generate(), folder, name)
        log.info("made new keys: %s", path)
    return read_pair(path)
