"""The client's end of the connection to the master: one DEALER socket on an asyncio loop, and what became of it.

Nothing is queued while there is no connection (`send` says so), so a request is never sent twice by a reconnect
alone, and the owner always knows which ones a lost connection may have swallowed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

from nimbusd.transport.client.errors import ClientError
from nimbusd.transport.messages import control
from nimbusd.transport.security.keys import KeyPair, generate, is_key
from nimbusd.transport.sockets.addresses import AddressError, check_address, socket_path
from nimbusd.transport.sockets.reader import SocketReader

RECONNECT_MS = (100, 2000)
"""First pause before connecting again, and the longest."""
HANDSHAKE_MS = 5000
PING_MS = 5000
BROKEN_OFF_TO_BELIEVE = 3
"""A handshake that breaks off may be a master that is just dying. So many in a row mean another key.

Also one that wants encryption from a client without: whether its greeting is read before it hangs up is a race.
"""

_BROKEN_OFF = zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
_UNLIKE = zmq.Event.HANDSHAKE_FAILED_PROTOCOL
_DENIED = zmq.Event.HANDSHAKE_FAILED_AUTH
_RETRIED = zmq.Event.CONNECT_RETRIED
_WATCHED = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED | _RETRIED | _BROKEN_OFF | _UNLIKE | _DENIED


class ClientSocket:
    """A connection that keeps itself up. Made and used on the loop that runs.

    on_frame: what the master sent. on_change: `connected` or `refused` is another than before. master_key: the
    master's public key in Z85; empty: nothing is encrypted, which is for ipc and, with any_local_user, for loopback
    alone. pair: this client's; None: a new one, which a master will not know.

    Raises ClientError for an address or a key that cannot be used.
    """

    def __init__(
        self,
        address: str,
        master_key: str,
        pair: KeyPair | None,
        on_frame: Callable[[bytes], None],
        on_change: Callable[[], None],
        *,
        any_local_user: bool = False,
    ) -> None:
        try:
            check_address(address, encrypted=bool(master_key), any_local_user=any_local_user)
        except AddressError as error:
            raise ClientError(str(error)) from error
        if master_key and not is_key(master_key):
            raise ClientError(f"the master's key {master_key!r} is not a public key: 40 characters, as in a .pub file")
        self.address = address
        self.connected = False
        self.tried_in_vain = asyncio.Event()
        """An attempt to connect has failed."""
        self.refused = ""
        """Why the two sides cannot agree, in words; empty while they do, or while there is nobody to agree with."""
        self._encrypted = bool(master_key)
        self._broken_off = 0
        self._given_up = False
        self._on_frame = on_frame
        self._on_change = on_change
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        try:
            self._set_up(master_key, pair)
            self._monitor = self._socket.get_monitor_socket(_WATCHED)
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ClientError(f"cannot connect to {address}: {error.strerror}") from error
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._events = SocketReader(self._monitor, self._read_event)
        self._frames = SocketReader(self._socket, self._read_frame)

    def send(self, frame: bytes) -> bool:
        """Hand a frame to the connection. False: there is none just now."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self._frames.wake()
        return True

    def try_again(self) -> None:
        """Connect once more after a refusal that ZeroMQ does not retry by itself."""
        if self._given_up:
            self._given_up = False
            self.refused = ""
            with contextlib.suppress(zmq.ZMQError):  # it may have let go of the address, or not
                self._socket.disconnect(self.address)
            self._socket.connect(self.address)

    def close(self) -> None:
        """Leave at once. Nothing is called back any more. Closing again does nothing."""
        if self._socket.closed:
            return
        self._events.close()
        self._frames.close()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.destroy(linger=0)

    def _set_up(self, master_key: str, pair: KeyPair | None) -> None:
        socket = self._socket
        socket.linger = 0
        socket.immediate = True
        socket.maxmsgsize = control.CODEC.max_bytes
        socket.handshake_ivl = HANDSHAKE_MS
        socket.reconnect_ivl, socket.reconnect_ivl_max = RECONNECT_MS
        socket.heartbeat_ivl, socket.heartbeat_timeout = PING_MS, 3 * PING_MS
        socket.ipv6 = True
        if master_key:
            pair = pair or generate()
            socket.curve_serverkey = master_key.encode()
            socket.curve_publickey, socket.curve_secretkey = pair.public.encode(), pair.secret.encode()

    def _read_frame(self) -> None:
        self._on_frame(self._socket.recv_multipart(zmq.NOBLOCK)[-1])

    def _read_event(self) -> None:
        event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
        before = self.connected, self.refused
        self._see(event)
        if before != (self.connected, self.refused):
            self._on_change()

    def _see(self, event: int) -> None:
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            self.connected, self.refused, self._broken_off = True, "", 0
        elif event == zmq.Event.DISCONNECTED:
            self.connected = False
        elif event == _RETRIED:
            self.tried_in_vain.set()
        elif event == _DENIED:
            self._given_up = True
            self.refused = (
                f"the master at {self.address} does not know this client's key. "
                "Its operator lets it in by adding the public key to the master's list of authorized keys."
            )
        elif event == _UNLIKE:
            self._given_up = True
            self.refused = self._how_unlike()
        elif event == _BROKEN_OFF:
            self._broken_off += 1
            if self._broken_off >= BROKEN_OFF_TO_BELIEVE:
                self.refused = self._how_unlike()

    def _how_unlike(self) -> str:
        if socket_path(self.address) is not None:
            return (
                f"the master at {self.address} hung up: it takes its own user, root, and the members of the group "
                "that it was started with (--group)"
            )
        if self._encrypted:
            return f"what listens at {self.address} does not have the master's key that was given for it"
        return f"the master at {self.address} wants encryption: give its public key, and a key of your own"
