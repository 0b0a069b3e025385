"""Answers ZeroMQ's question, at each CURVE handshake, whether the key of a peer may come in (RFC 27, ZAP)."""

from __future__ import annotations

from collections.abc import Callable

import zmq
from zmq.utils import z85

from nimbusd.transport.sockets.reader import SocketReader

_ENDPOINT = "inproc://zeromq.zap.01"


class ZapHandler:
    """The one of a context. Who comes in has its key as `User-Id` on each of its messages.

    admits: public key in Z85 and address of the peer → may it come in.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], admits: Callable[[str, str], bool]) -> None:
        self._admits = admits
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        self._reader = SocketReader(self._socket, self._read_one)

    def close(self) -> None:
        """Admit nobody any more."""
        self._reader.close()
        self._socket.close()

    def _read_one(self) -> None:
        # asker, empty, version, request, domain, address, identity, mechanism, then what the mechanism knows
        parts = self._socket.recv_multipart(zmq.NOBLOCK)
        asker, version, request = parts[0], parts[2], parts[3]
        curve = parts[7] == b"CURVE" and len(parts) == 9 and len(parts[8]) == 32
        key = z85.encode(parts[8]) if curve else b""
        if curve and self._admits(key.decode(), parts[5].decode("utf-8", "replace")):
            answer = [b"200", b"OK", key, b""]
        else:
            answer = [b"400", b"key not authorized", b"", b""]
        self._socket.send_multipart([asker, b"", version, request, *answer], zmq.NOBLOCK)
        self._reader.wake()
