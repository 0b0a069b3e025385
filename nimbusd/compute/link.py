"""The compute worker's side of the socket: one thread owns it, any thread may send."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque

import zmq

from nimbusd.transport.messages.local import Message, MessageError, decode, encode

log = logging.getLogger(__name__)


class DaemonLink:
    """A DEALER connection to the daemon, safe to use from the render thread and the writer thread at once.

    The thread that owns the socket only carries messages. It never makes any, so that a worker whose working
    threads hang falls silent.
    """

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        # ZeroMQ sockets must not be shared between threads: senders queue, and wake the owner by a locked bell.
        self._lock = threading.Lock()
        self._outbox: deque[tuple[bytes, threading.Event]] = deque()
        self._bell = self._context.socket(zmq.PUSH)
        self._bell.bind("inproc://bell")
        self._thread = threading.Thread(target=self._carry, args=(endpoint,), name="link", daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Hand a message to ZeroMQ for the daemon.

        Returns once ZeroMQ has it: from then on it leaves even if a working thread hangs in C code and holds
        the GIL, so that the daemon knows what the worker was doing.
        """
        self._hand_over(encode(message))

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message from the daemon, or None after timeout_s (None waits for ever)."""
        try:
            return self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Send what is queued and leave."""
        self._hand_over(b"")
        self._thread.join()
        self._bell.close()
        self._context.term()

    def _hand_over(self, frame: bytes) -> None:
        taken = threading.Event()
        with self._lock:
            self._outbox.append((frame, taken))
            self._bell.send(b"")
        taken.wait()

    def _carry(self, endpoint: str) -> None:
        bell = self._context.socket(zmq.PULL)
        bell.connect("inproc://bell")
        daemon = self._context.socket(zmq.DEALER)
        daemon.setsockopt(zmq.LINGER, 5000)
        daemon.connect(endpoint)
        poller = zmq.Poller()
        poller.register(bell, zmq.POLLIN)
        poller.register(daemon, zmq.POLLIN)
        open_ = True
        while open_:
            ready = dict(poller.poll())
            if bell in ready:
                bell.recv()
                frame, taken = self._outbox.popleft()
                open_ = bool(frame)
                if frame:
                    daemon.send(frame)
                taken.set()
            if daemon in ready:
                try:
                    self._inbox.put(decode(daemon.recv()))
                except MessageError as error:
                    log.warning("dropped a message from the daemon: %s", error)
        bell.close()
        daemon.close()
