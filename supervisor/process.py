"""Compute workers as processes: started fresh in a group of their own, killed as a group, never outliving us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence

from nimbusd.supervisor.target import kill_group

STDERR_LINES = 200


class WorkerProcess:
    """A running compute worker. Its output is kept as a ring of lines, for reports of failures."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._pidfd: int | None = None
        with contextlib.suppress(ProcessLookupError):  # it has ended, and has been waited for, already
            self._pidfd = os.pidfd_open(process.pid)
        self._lines: deque[str] = deque(maxlen=STDERR_LINES)

    @classmethod
    async def spawn(cls, argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int] = ()) -> WorkerProcess:
        """Start `argv` in a session and process group of its own; stdin is empty, output is kept.

        fds: file descriptors of ours that it inherits.
        """
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=tuple(fds),
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def output(self) -> str:
        """The last lines that the worker wrote."""
        return "\n".join(self._lines)

    async def wait(self) -> int:
        """Read the worker's output until it exits; returns its status, negative for a signal."""
        stream = self._process.stdout
        assert stream is not None
        reader = asyncio.create_task(self._read(stream))
        try:
            returncode = await self._process.wait()
            # A grandchild may hold the pipe open: take what is there and go on.
            await asyncio.wait([reader], timeout=1.0)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self.kill()  # whatever is left of the group
            pidfd, self._pidfd = self._pidfd, None
            if pidfd is not None:
                os.close(pidfd)
        return returncode

    async def _read(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            self._lines.extend(line.decode(errors="replace")[:1000] for line in lines)
            rest = rest[-65536:]
        if rest:
            self._lines.append(rest.decode(errors="replace")[:1000])

    def kill(self) -> None:
        """SIGKILL the worker and its group through its pidfd: no other process can have taken its pid.

        What has left the group is the watchdog's to find. Does nothing once `wait` has returned.
        """
        if self._pidfd is None:
            return
        kill_group(self._process.pid, self._pidfd)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
