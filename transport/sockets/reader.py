"""ZeroMQ sockets on an asyncio loop without a future per message: the loop watches the socket's file descriptor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq


class SocketReader:
    """Calls `read_one` while the socket has messages. read_one: receives with NOBLOCK and lets zmq.Again through.

    At most `per_turn` messages are read before others have their turn in the loop. The descriptor tells of changes
    only, and sending may consume what it tells: call `wake` after each send.
    """

    def __init__(self, socket: zmq.Socket[bytes], read_one: Callable[[], None], *, per_turn: int = 256) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_one = read_one
        self._per_turn = per_turn
        fd = int(socket.getsockopt(zmq.FD))
        self._fd: int | None = fd
        self._next: asyncio.Handle | None = None
        self._loop.add_reader(fd, self._read)
        self.wake()

    def wake(self) -> None:
        """Look for messages in the loop's next turn."""
        if self._next is None and self._fd is not None:
            self._next = self._loop.call_soon(self._read)

    def close(self) -> None:
        """Read no more. Call it before the socket is closed."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            self._fd = None
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _read(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        more = True
        try:
            for _ in range(self._per_turn):
                if self._fd is None:  # closed by what a message led to
                    return
                self._read_one()
        except zmq.Again:
            more = False
        finally:
            if more:  # also after an error in what a message led to: the descriptor would not tell again
                self.wake()
