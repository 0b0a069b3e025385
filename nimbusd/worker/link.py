"""The compute worker's side of the socket: one thread owns it, any thread may send."""

from __future__ import annotations

import logging
import queue
import threading

import zmq

from nimbusd.transport.messages import Message, MessageError, decode, encode

log = logging.getLogger(__name__)


class DaemonLink:
    """A DEALER connection to the daemon, safe to use from the render thread and the writer thread at once.

    The thread that owns the socket only carries messages. It never makes any, so that a worker whose working
    threads hang falls silent.
    """

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        # ZeroMQ sockets must not be shared between threads: senders go through a locked inproc socket.
        self._lock = threading.Lock()
        self._outlet = self._context.socket(zmq.PUSH)
        self._outlet.bind("inproc://outbox")
        self._thread = threading.Thread(target=self._carry, args=(endpoint,), name="link", daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Queue a message for the daemon. Never blocks."""
        with self._lock:
            self._outlet.send(encode(message))

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message from the daemon, or None after timeout_s (None waits for ever)."""
        try:
            return self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Send what is queued and leave."""
        with self._lock:
            self._outlet.send(b"")
        self._thread.join()
        self._outlet.close()
        self._context.term()

    def _carry(self, endpoint: str) -> None:
        outbox = self._context.socket(zmq.PULL)
        outbox.connect("inproc://outbox")
        daemon = self._context.socket(zmq.DEALER)
        daemon.setsockopt(zmq.LINGER, 5000)
        daemon.connect(endpoint)
        poller = zmq.Poller()
        poller.register(outbox, zmq.POLLIN)
        poller.register(daemon, zmq.POLLIN)
        open_ = True
        while open_:
            ready = dict(poller.poll())
            if outbox in ready:
                frame = outbox.recv()
                open_ = bool(frame)
                if frame:
                    daemon.send(frame)
            if daemon in ready:
                try:
                    self._inbox.put(decode(daemon.recv()))
                except MessageError as error:
                    log.warning("dropped a message from the daemon: %s", error)
        outbox.close()
        daemon.close()
