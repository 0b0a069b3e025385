"""A connection to the master: one DEALER socket that connects again by itself, for nodes and for clients.

Nothing is queued while there is no connection (`send` says so). So nothing is sent twice by a reconnect alone, a node's
Hello comes first on each connection, and the owner always knows what a lost connection may have swallowed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from nimbusd.transport.codec import MessageError
from nimbusd.transport.errors import TransportError
from nimbusd.transport.messages import control
from nimbusd.transport.security.keys import KeyPair, is_key
from nimbusd.transport.sockets.addresses import check_address
from nimbusd.transport.sockets.monitor import ConnectionEvent, ConnectionMonitor
from nimbusd.transport.sockets.reader import SocketReader

FIRST_PAUSE_S = 0.1
"""Before connecting again; each pause is longer than the one before it."""
PING_S = 5.0
CONNECT_S = 5.0
MOST_QUEUED = 10_000
"""Messages that wait to be sent, or to be read."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The longest times of a connection, in seconds."""

    pause_s: float
    """Between two attempts to connect."""
    handshake_s: float
    silence_s: float
    """Without a sign of life from the other end, which is asked for one every `PING_S`."""


class Dealer:
    """The socket, its monitor and its reader. Belongs to the running loop, in which everything is called.

    on_message: each message of the master. on_unreadable: one that is none of ours; a VersionError is that of a master
    of another version. on_event: what happens to the connection, once `connected` says what follows from it.
    """

    def __init__(
        self,
        address: str,
        patience: Patience,
        on_message: Callable[[control.Message], None],
        on_unreadable: Callable[[MessageError], None],
        on_event: Callable[[ConnectionEvent], None],
        *,
        keys: KeyPair | None = None,
        master_key: str = "",
        any_local_user: bool = False,
    ) -> None:
        """Begin to connect. keys: our own, None: nothing is encrypted; master_key: the one that the master must prove
        to have. any_local_user: on the loopback address there are none, and whoever listens there is trusted.

        Raises AddressError for an address that is malformed or needs keys, TransportError for one that cannot be used.
        """
        check_address(address, encrypted=keys is not None, any_local_user=any_local_user)
        assert keys is None or is_key(master_key), "a master can be trusted by its public key alone"
        self.address = address
        self.connected = False
        self._on_message = on_message
        self._on_unreadable = on_unreadable
        self._on_event = on_event
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._set_up(patience, keys, master_key)
        self._monitor = ConnectionMonitor(self._socket, self._see)  # before there is anything to see
        self._reader = SocketReader(self._socket, self._read_one)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise TransportError(f"cannot connect to {address}: {error.strerror}") from error

    def send(self, frame: bytes) -> bool:
        """Hand a frame to the connection; never waits. False: there is none now, or the master reads too slowly."""
        if not self.connected:
            return False
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self._reader.wake()
        return True

    def connect_again(self) -> None:
        """Connect once more after a handshake that failed: ZeroMQ gives up after most of these."""
        with contextlib.suppress(zmq.ZMQError):  # it may have let go of the address, or not
            self._socket.disconnect(self.address)
        self._socket.connect(self.address)

    def close(self, linger_s: float = 0.0) -> None:
        """Leave; nothing is called back any more. What is queued has linger_s to go out, for which this waits.

        Closing again does nothing.
        """
        if self._socket.closed:
            return
        self._reader.close()
        self._monitor.close()
        self._socket.close(linger=int(linger_s * 1000))
        self._context.term()

    def _set_up(self, patience: Patience, keys: KeyPair | None, master_key: str) -> None:
        socket = self._socket
        socket.linger = 0
        socket.immediate = True  # queue on a connection that stands only
        socket.reconnect_ivl, socket.reconnect_ivl_max = _ms(FIRST_PAUSE_S), _ms(patience.pause_s)
        socket.connect_timeout = _ms(CONNECT_S)
        socket.handshake_ivl = _ms(patience.handshake_s)
        socket.heartbeat_ivl, socket.heartbeat_timeout = _ms(PING_S), _ms(patience.silence_s)
        socket.heartbeat_ttl = 30_000
        socket.tcp_keepalive, socket.tcp_keepalive_idle = 1, 60
        socket.maxmsgsize = control.CODEC.max_bytes + 256
        socket.sndhwm = socket.rcvhwm = MOST_QUEUED
        socket.ipv6 = True
        if keys is not None:
            socket.curve_publickey, socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
            socket.curve_serverkey = master_key.encode()

    def _read_one(self) -> None:
        frame = self._socket.recv(zmq.NOBLOCK)
        if self._socket.rcvmore:
            while self._socket.rcvmore:
                self._socket.recv(zmq.NOBLOCK)
            frame = b""  # no message has several parts; an empty one is malformed
        try:
            message = control.decode(frame)
        except MessageError as error:
            self._on_unreadable(error)
        else:
            self._on_message(message)

    def _see(self, event: ConnectionEvent) -> None:
        if event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._socket.getsockopt(zmq.EVENTS)  # makes the socket notice its new connection, so that it can send
            self.connected = True
        elif event.event == zmq.EVENT_DISCONNECTED:
            if not self.connected:
                return
            self.connected = False
        self._on_event(event)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
