"""A proxy of a Unix socket that behaves like a bad network on request: it swallows all, or cuts connections."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from nimbusd.transport.sockets.addresses import socket_path


class DroppingProxy(AbstractContextManager["DroppingProxy"]):
    """Listens on `address`, the Unix socket `place`, and passes bytes on to that of `target` (ipc), in a thread.

    `hold`: connections stand and nothing passes, as when packets are lost; `heal` delivers all that was kept back.
    `cut`: every connection breaks, and new ones do until `heal`.
    """

    def __init__(self, target: str, place: Path) -> None:
        path = socket_path(target)
        assert path is not None
        self._target = str(path)
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._held = self._cut = self._over = False
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        os.fchmod(self._listener.fileno(), 0o600)
        self._listener.bind(str(place))
        self._listener.listen()
        self.address = f"ipc://{place}"
        self._bell, bell = socket.socketpair()
        self._selector.register(bell, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ear = bell
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over = True
        self._bell.send(b"!")
        self._thread.join()
        for end in [*self._pairs, self._listener, self._bell, self._ear]:
            end.close()
        self._selector.close()

    def hold(self) -> None:
        """Let nothing pass in either direction from now on; what comes is kept."""
        with self._lock:
            self._held = True
            for end in self._pairs:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(end)

    def cut(self) -> None:
        """Break all connections, and those that come."""
        with self._lock:
            self._cut = True
            for end in list(self._pairs):
                self._drop(end)

    def heal(self) -> None:
        """Behave like a good network again."""
        with self._lock:
            self._held = self._cut = False
            for end in self._pairs:
                with contextlib.suppress(KeyError):
                    self._selector.register(end, selectors.EVENT_READ)
        self._bell.send(b"!")

    def _run(self) -> None:
        while not self._over:
            # While it sleeps in here, `heal` may register more: the bell wakes it.
            for key, _ in self._selector.select():
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if end is self._ear:
                    end.recv(64)
                    continue
                with self._lock:
                    if end is self._listener:
                        self._accept()
                    elif end in self._pairs and not self._held:
                        self._pass_on(end)

    def _accept(self) -> None:
        end, _ = self._listener.accept()
        if self._cut:
            end.close()
            return
        other = socket.socket(socket.AF_UNIX)
        try:
            other.connect(self._target)
        except OSError:  # the master is away
            end.close()
            other.close()
            return
        self._pairs[end], self._pairs[other] = other, end
        if not self._held:
            self._selector.register(end, selectors.EVENT_READ)
            self._selector.register(other, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        try:
            content = end.recv(65536)
            if content:
                self._pairs[end].sendall(content)
                return
        except OSError:
            pass  # one end is gone: so is the connection
        self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        if end not in self._pairs:  # it was dropped with its other end
            return
        other = self._pairs.pop(end)
        del self._pairs[other]
        for one in (end, other):
            with contextlib.suppress(KeyError):
                self._selector.unregister(one)
            one.close()
