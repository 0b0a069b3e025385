"""A daemon as systemd's service: it notifies its manager (sd_notify), and explains what its unit hides from it.

Nothing is notified where nobody asks for it, that is, where NOTIFY_SOCKET is not set.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path

log = logging.getLogger(__name__)

STATUS_EVERY_S = 10.0
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))


async def _turns() -> None:
    """Alive is what its event loop turns in."""


class Notifier:
    """The way to the service manager. It never waits and never raises: a manager that does not listen stops no work.

    address: a path, or `@name` for an abstract socket; empty: nobody is notified. watchdog_s: the silence after which
    the manager takes this process for hung; None: it does not watch.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s if address else None
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._owed: dict[str, str] = {}
        """Lines that were not taken yet. They go with the next message; of each variable only the last value counts."""
        self._said_status = ""
        self._stopping = False
        self._trouble = ""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Read the manager's variables from the environment, and take them out: our own children must not have them."""
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        if address and address[0] not in "/@":
            log.warning("NOTIFY_SOCKET=%s is neither a path nor an abstract socket: nobody is notified", address)
            address = ""
        watched = usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1e6 if watched else None)

    @contextlib.asynccontextmanager
    async def telling(
        self,
        ready: asyncio.Event,
        status: Callable[[], str],
        alive: Callable[[], Awaitable[object]] = _turns,
    ) -> AsyncIterator[None]:
        """Notify the manager while the block runs: that we serve, once `ready` is set; then, now and then, of our
        status and that we live.

        This is done in turns of the event loop, each after `alive` has returned. At the end it says that we stop, and
        the error if there was one.
        """
        if not self._address:
            yield
            return
        task = asyncio.create_task(self._tell(ready, status, alive))
        task.add_done_callback(_log_error)
        try:
            yield
        except Exception as error:
            self.stopping(f"failed: {error}")
            raise
        finally:
            task.cancel()
            await asyncio.wait([task])
            self.stopping()

    def stopping(self, status: str = "") -> None:
        """We have been asked to stop, or are about to end; said once. status: replaces the last one."""
        message = {"STATUS": status} if status else {}
        if not self._stopping:
            self._stopping = True
            message["STOPPING"] = "1"
        if message:
            self._send(message)

    async def _tell(
        self, ready: asyncio.Event, status: Callable[[], str], alive: Callable[[], Awaitable[object]]
    ) -> None:
        self._send({"STATUS": "starting"})
        await ready.wait()
        self._send({"READY": "1", "STATUS": status()})
        every_s = STATUS_EVERY_S if self.watchdog_s is None else min(STATUS_EVERY_S, self.watchdog_s / 2)
        while True:
            await alive()
            news = {"STATUS": line} if (line := status()) != self._said_status else {}
            self._send(news if self.watchdog_s is None else {**news, "WATCHDOG": "1"})
            await asyncio.sleep(every_s)

    def _send(self, message: dict[str, str]) -> None:
        self._said_status = message.get("STATUS", self._said_status)
        self._owed.update(message)
        if not self._address or not self._owed:
            return
        text = "\n".join(f"{name}={' '.join(value.split())}" for name, value in self._owed.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
                way.setblocking(False)  # a manager that is behind with reading must not stop our event loop
                way.sendto(text.encode(), self._address)
        except OSError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.warning("the service manager cannot be told %r; it goes with the next message: %s", text, error)
        else:
            self._owed.clear()
            self._trouble = ""


def _log_error(task: asyncio.Task[None]) -> None:
    """The manager hears nothing more then, and its watchdog ends us: the log must say why."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the service manager is told nothing any more", exc_info=error)


def why_hidden(path: Path, error: OSError, environ: Mapping[str, str] = os.environ) -> str:
    """A sentence to add to `error` about `path` where the unit of this service is the reason; empty elsewhere.

    systemd sets STATE_DIRECTORY for our units, and for nothing that a person starts.
    """
    if "STATE_DIRECTORY" not in environ:
        return ""
    if any(path.is_relative_to(home) for home in _HOMES):
        return (
            " The service sees no home folders (ProtectHome= of its unit): put jobs, scenes and outputs where master "
            "and nodes may go, such as /srv/nimbusd."
        )
    if error.errno == errno.EROFS:
        return (
            " The service may write to what ReadWritePaths= of its unit names, such as /srv/nimbusd; `systemctl edit` "
            "adds to it."
        )
    return ""
