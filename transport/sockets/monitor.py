"""Events of a socket's connections, from ZeroMQ's socket monitor."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from nimbusd.transport.sockets.reader import SocketReader

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_ACCEPT_FAILED
)


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """event: a zmq.Event. value: its status, protocol error, errno or descriptor. address: the endpoint's."""

    event: int
    value: int
    address: str

    @property
    def failed(self) -> str | None:
        """The reason why a handshake failed, in words; None: the event is of another kind."""
        if self.event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return f"the key was refused (status {self.value})"
        if self.event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            if self.value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
                return "one side encrypts and the other does not"
            return f"the other side speaks no ZeroMQ, or with another key (error {self.value:#x})"
        if self.event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            return (
                f"the handshake broke off ({os.strerror(self.value) if self.value in errno.errorcode else self.value})"
            )
        return None


class ConnectionMonitor:
    """Calls `on_event` in the loop for each event of `socket`."""

    def __init__(self, socket: zmq.Socket[bytes], on_event: Callable[[ConnectionEvent], None]) -> None:
        self._watched = socket
        self._on_event = on_event
        address = f"inproc://monitor-{id(socket)}"
        self._socket = socket.context.socket(zmq.PAIR)
        self._socket.linger = 0
        # ZeroMQ's input/output thread blocks while a monitor's queue is full, so it must not become full.
        self._socket.rcvhwm = 0
        socket.monitor(address, _EVENTS)
        self._socket.connect(address)
        self._reader = SocketReader(self._socket, self._read_one)

    def close(self) -> None:
        """Watch no more. Call it before the watched socket is closed."""
        self._reader.close()
        self._watched.monitor(None, 0)
        self._socket.close()

    def _read_one(self) -> None:
        raw = parse_monitor_message(self._socket.recv_multipart(zmq.NOBLOCK))
        self._on_event(
            ConnectionEvent(int(raw["event"]), int(raw["value"]), raw["endpoint"].decode("utf-8", "replace"))
        )
