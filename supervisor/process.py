"""Compute workers as processes: started fresh in a group of their own, killed as a group, never outliving us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence

import uvloop

from nimbusd.supervisor.cgroups import kill_group_at
from nimbusd.supervisor.orphans import child_ended, end_orphans, start_child
from nimbusd.supervisor.target import kill_group

STDERR_LINES = 200


def python(module: str, *args: str) -> list[str]:
    """The command line that runs a module in this interpreter, which imports nothing from the current folder."""
    return [sys.executable, "-P", "-m", module, *args]


async def read_pipe(fd: int, limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Read a pipe whose end we have; closing the transport closes it. limit: of a line."""
    stream = asyncio.StreamReader(limit)
    loop = asyncio.get_running_loop()
    # uvloop closes the descriptor, and the file after it: whatever another thread has opened in between would be closed
    # in its place, be it a connection, or the ledger. asyncio's own loop closes the file alone.
    pipe = os.fdopen(fd, "rb", buffering=0, closefd=not isinstance(loop, uvloop.Loop))
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    return stream, transport


class WorkerProcess:
    """A running compute worker. Its output is kept as a ring of lines, for reports of failures."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: asyncio.StreamReader,
        ear: asyncio.ReadTransport,
        group: str = "",
    ) -> None:
        self._process = process
        self._output = output
        self._ear = ear
        self._group = group
        self._pidfd: int | None = None
        with contextlib.suppress(ProcessLookupError):  # it has ended, and has been waited for, already
            self._pidfd = os.pidfd_open(process.pid)
        self._lines: deque[str] = deque(maxlen=STDERR_LINES)

    @classmethod
    async def spawn(
        cls, argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int] = (), group: str = ""
    ) -> WorkerProcess:
        """Start `argv` in a session and process group of its own; stdin is empty, output is kept.

        fds: file descriptors of ours that it inherits. group: the control group that it joins, if it does.
        """
        # Not asyncio's own pipe: there, waiting for a process lasts until nobody holds the pipe any more.
        ear, mouth = os.pipe()
        try:
            output, transport = await read_pipe(ear)
            try:
                process = await start_child(
                    argv,
                    env=env,
                    fds=fds,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=mouth,
                    stderr=asyncio.subprocess.STDOUT,
                )
            except BaseException:
                transport.close()
                raise
        finally:
            os.close(mouth)
        return cls(process, output, transport, group)

    @property
    def pid(self) -> int:
        return self._process.pid

    def output(self) -> str:
        """The last lines that the worker wrote."""
        return "\n".join(self._lines)

    async def wait(self) -> int:
        """Read the worker's output until it exits; returns its status, negative for a signal.

        Nothing that it has started is left then.
        """
        reader = asyncio.create_task(self._read(self._output))
        try:
            returncode = await self._process.wait()
            child_ended(self._process.pid)
            self.kill()  # whatever is left of the group
            await end_orphans()
            # A grandchild that got away may hold the pipe open: take what is there and go on.
            await asyncio.wait([reader], timeout=1.0)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self._ear.close()
            self.kill()  # if we were cancelled
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

        What has left the group is found when it has ended (see `orphans`), and by the watchdog. Does nothing once
        `wait` has returned.
        """
        if self._pidfd is None:
            return
        if self._group:
            kill_group_at(self._group)
        kill_group(self._process.pid, self._pidfd)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
