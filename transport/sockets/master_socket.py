"""The master's side of the control protocol: one ROUTER for encrypted addresses, one for those of this machine."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import zmq

from nimbusd.transport.codec import MAX_MESSAGE_BYTES, MessageError, VersionError
from nimbusd.transport.errors import TransportError
from nimbusd.transport.messages import control
from nimbusd.transport.security.auth import Peer, PeerRole, objection
from nimbusd.transport.security.gate import Gate
from nimbusd.transport.security.keys import KeyPair
from nimbusd.transport.security.zap import ZapHandler
from nimbusd.transport.sockets.addresses import AddressError, check_address, needs_keys, socket_path
from nimbusd.transport.sockets.local_listener import LocalListener
from nimbusd.transport.sockets.monitor import ConnectionEvent, ConnectionMonitor
from nimbusd.transport.sockets.reader import SocketReader
from nimbusd.transport.sockets.sparse_log import SparseLog

log = logging.getLogger(__name__)

OnMessage: TypeAlias = Callable[[Peer, control.Message], None]

_MAX_BYTES = {
    PeerRole.LOCAL: control.MAX_JOB_BYTES,
    PeerRole.ADMIN: control.MAX_JOB_BYTES,
    PeerRole.NODE: MAX_MESSAGE_BYTES,
    PeerRole.GUEST: 4096,
}
"""The largest frame that a peer may make this process unpack, by how far it is trusted."""
_QUEUED_PER_PEER = 2_000
_NOT_ACCEPTED = "did not accept a connection on %s: of another user, or there are too many (errno %d)"


class MasterSocket:
    """Receives from nodes and clients, and sends to them. Belongs to the running loop.

    on_message: called in the loop with each message that is well formed and that its peer may say. Everything else is
    dropped and counted in `counters`; who is refused for a reason that its user can mend is told so by `Refused`.
    Enrolment is settled here, by the gate.

    counters: received, sent, malformed, oversized, bad_version, forbidden, unroutable (the peer has gone), backlogged
    (the peer reads too slowly), enrolled, connected, disconnected, wrong_key, bad_handshake.
    """

    def __init__(
        self,
        bind: Sequence[str],
        on_message: OnMessage,
        *,
        keys: KeyPair | None = None,
        gate: Gate | None = None,
        any_local_user: bool = False,
        gid: int | None = None,
    ) -> None:
        """Listen on all of `bind`. With keys and a gate, tcp addresses are encrypted; without, they are refused.
        ipc addresses are never encrypted: they are for this user, root and, if it is given, the group `gid`.

        any_local_user: the loopback address is for all users of this machine, and is not encrypted.
        Raises AddressError for an unsafe or malformed address, TransportError for one that cannot be had.
        """
        assert (keys is None) == (gate is None), "keys tell the master from others, the gate tells others apart"
        if not bind:
            raise AddressError("a master needs at least one address to listen on")
        for address in bind:
            check_address(address, encrypted=keys is not None, any_local_user=any_local_user)
        self.counters: Counter[str] = Counter()
        self._on_message = on_message
        self._gate = gate
        self._sparse = SparseLog(log, asyncio.get_running_loop().time)
        _allow_many_files()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = ZapHandler(self._context, self._admits) if gate is not None else None
        self._listeners: list[_Listener] = []
        try:
            encrypted = [address for address in bind if needs_keys(address, any_local_user=any_local_user)]
            plain = [address for address in bind if address not in encrypted]
            for addresses, pair in ((encrypted, keys), (plain, None)):
                if addresses:
                    self._listeners.append(_Listener(len(self._listeners), self._context, addresses, pair, gid, self))
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that it listens on; ports that were left to the system are filled in."""
        return tuple(address for listener in self._listeners for address in listener.addresses)

    def send(self, peer: Peer, message: control.Message) -> bool:
        """Queue a message for a peer; never waits. False: it has gone or reads too slowly, and the message is dropped.

        Raises MessageError for a message that is too large.
        """
        failed = self._listeners[peer.listener].send(peer.route, control.encode(message))
        self.counters["sent" if failed is None else failed] += 1
        return failed is None

    def close(self) -> None:
        """Stop listening and drop what is queued."""
        for listener in self._listeners:
            listener.close()
        if self._zap is not None:
            self._zap.close()
        self._context.term()

    def _admits(self, key: str, where_from: str) -> bool:
        assert self._gate is not None
        admitted = self._gate.admits(key)
        if not admitted:
            self.counters["wrong_key"] += 1
            self._sparse.warn("wrong_key", "turned away a peer at %s: its key %s is not authorized", where_from, key)
        return admitted

    def receive(self, listener: int, route: bytes, key: str, frame: bytes) -> None:
        """Judge a frame that a listener has read, and pass its message on."""
        peer = self._peer(listener, route, key)
        self.counters["received"] += 1
        size = len(frame)
        if size > _MAX_BYTES[peer.role]:
            self._drop("oversized", peer, f"{size} bytes")
            return
        try:
            message = control.decode(frame)
        except VersionError as error:
            self._drop("bad_version", peer, str(error))
            self.send(peer, control.Refused(error.request, "bad_version", _told_to_peer(error)))
            return
        except MessageError as error:
            self._drop("malformed", peer, str(error))
            if error.request:
                self.send(peer, control.Refused(error.request, "malformed", str(error)))
            return
        if isinstance(message, control.Enrol):
            self._enrol(peer, message)
            return
        refused = objection(peer, message)
        if refused is not None:
            self._drop("forbidden", peer, refused)
            self.send(peer, control.Refused(getattr(message, "request", 0), "forbidden", refused))
            return
        self._on_message(peer, message)

    def _peer(self, listener: int, route: bytes, key: str) -> Peer:
        if not key:
            return Peer(listener, route, PeerRole.LOCAL)
        assert self._gate is not None
        entry = self._gate.entry(key)
        if entry is None:
            return Peer(listener, route, PeerRole.GUEST, "", key)
        return Peer(listener, route, entry.role, entry.name, key)

    def _enrol(self, peer: Peer, message: control.Enrol) -> None:
        why_not = self._gate.enrol(peer.key, message.node, message.secret) if self._gate else "no keys are used here"
        if why_not is None:
            self.counters["enrolled"] += 1
            self.send(peer, control.Enrolled(message.request, message.node))
        else:
            self._drop("forbidden", peer, why_not)
            self.send(peer, control.Refused(message.request, "forbidden", why_not))

    def _drop(self, kind: str, peer: Peer, why: str) -> None:
        self.counters[kind] += 1
        self._sparse.warn(kind, "dropped a message of %s: %s", peer, why)

    def connection_event(self, event: ConnectionEvent) -> None:
        """Count an event that a listener's monitor has seen."""
        if event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.counters["connected"] += 1
        elif event.event == zmq.EVENT_DISCONNECTED:
            self.counters["disconnected"] += 1
        elif event.event == zmq.EVENT_ACCEPT_FAILED:
            self.counters["accept_failed"] += 1
            self._sparse.warn("accept_failed", _NOT_ACCEPTED, event.address, event.value)
        elif event.failed and event.event != zmq.EVENT_HANDSHAKE_FAILED_AUTH:  # that one is counted by its key
            self.counters["bad_handshake"] += 1
            self._sparse.warn("bad_handshake", "a peer could not connect to %s: %s", event.address, event.failed)


class _Listener:
    """One ROUTER. Peers of an encrypted one are told apart by the key that ZAP put on their messages."""

    def __init__(
        self,
        number: int,
        context: zmq.Context[zmq.Socket[bytes]],
        addresses: Sequence[str],
        keys: KeyPair | None,
        gid: int | None,
        master: MasterSocket,
    ) -> None:
        self._number = number
        self._master = master
        self._encrypted = keys is not None
        self._socket = socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.router_mandatory = True
        socket.sndhwm = _QUEUED_PER_PEER
        socket.rcvhwm = 1000
        socket.backlog = 4096
        socket.maxmsgsize = control.CODEC.max_bytes + 256
        socket.handshake_ivl = 15_000
        # Nodes ping often, and a master with thousands of them only to notice who vanished without a word.
        socket.heartbeat_ivl, socket.heartbeat_timeout = 30_000, 60_000
        socket.tcp_keepalive, socket.tcp_keepalive_idle = 1, 60
        socket.ipv6 = any("[" in address for address in addresses)
        if keys is not None:
            socket.curve_server = True
            socket.curve_secretkey = keys.secret.encode()
        self._monitor = ConnectionMonitor(socket, master.connection_event)
        self._local: list[LocalListener] = []
        bound = []
        try:
            for address in addresses:
                self._bind(address, gid)
                bound.append(socket.get_string(zmq.LAST_ENDPOINT))
        except BaseException:
            self._unbind()
            raise
        self.addresses = tuple(bound)
        self._reader = SocketReader(socket, self._read_one)

    def send(self, route: bytes, frame: bytes) -> str | None:
        """None, or the counter that tells why it was not sent."""
        try:
            self._socket.send(route, zmq.SNDMORE | zmq.NOBLOCK)
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return "backlogged"
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return "unroutable"
        finally:
            self._reader.wake()
        return None

    def close(self) -> None:
        self._reader.close()
        self._unbind()

    def _bind(self, address: str, gid: int | None) -> None:
        if (path := socket_path(address)) is not None:
            listener = LocalListener(path, gid)
            self._local.append(listener)
            listener.listen(self._socket)
            return
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise TransportError(f"cannot listen on {address}: {error.strerror}") from error

    def _unbind(self) -> None:
        self._monitor.close()
        self._socket.close()
        for listener in self._local:
            listener.close()

    def _read_one(self) -> None:
        route = self._socket.recv(zmq.NOBLOCK)
        part = self._socket.recv(zmq.NOBLOCK, copy=False)
        if part.more:
            while part.more:
                part = self._socket.recv(zmq.NOBLOCK, copy=False)
            frame = b""  # no message has several parts; an empty one is malformed
        else:
            frame = part.bytes
        self._master.receive(self._number, route, str(part.get("User-Id")) if self._encrypted else "", frame)


def _told_to_peer(error: VersionError) -> str:
    return (
        f"this master speaks protocol version {control.PROTOCOL_VERSION}, you speak {error.version!r:.40}; "
        "install the same version of nimbusd on both"
    )


def _allow_many_files() -> None:
    """Each peer takes a descriptor; the usual soft limit is 1024 of them, the hard one far above."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
