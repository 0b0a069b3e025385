"""The daemon's side of the watchdog: the heartbeat page, the process that watches it, and what that reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nimbusd.supervisor import proc
from nimbusd.supervisor.cgroups import WorkerGroups
from nimbusd.supervisor.orphans import child_ended, start_child
from nimbusd.supervisor.page import DAEMON, FIRST_WORKER, WATCHDOG, HeartbeatPage
from nimbusd.supervisor.process import python
from nimbusd.supervisor.watchdog import stack_path

log = logging.getLogger(__name__)

TURN_S = 0.2
DAEMON_ALLOWANCE_S = 10.0
SILENT_TURNS = 10
"""A watchdog that does nothing while our own event loop turns so often is started anew. Turns, not seconds: when
the machine stands still, so do both."""
STARTING_TURNS = 50
"""The same before its first beat: on a busy machine an interpreter takes its time."""
_LAST_REPORT_S = 1.0
_RESTART_PAUSES_S = (0.0, 0.0, 0.2, 0.5)
_LIVED_LONG_S = 10.0
_MOST_REPORT_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place on the page, from before it starts until it is gone."""

    line: int
    """Its number on the page."""
    generation: int
    """The number of those who had the line before."""
    options: tuple[str, ...]
    """For the worker's command line."""
    env: tuple[str, str]
    """For the worker's environment: the mark of all that descends from it."""
    fd: int
    """The page, which the worker inherits."""
    group: str
    """The control group that the worker joins; empty if there are none."""


@dataclass(frozen=True, slots=True)
class Killing:
    """The watchdog's report on a worker that it killed."""

    pid: int
    stage: str
    """Of the thread that was overdue."""
    reason: str
    overdue_s: float
    stack: str
    """Of all threads, as far as they gave it."""
    alone: bool
    """See Judgement."""

    @property
    def guilty_stage(self) -> str:
        """The stage whose episode alone is to blame; empty if that cannot be told."""
        return self.stage if self.alone else ""


class _Running(NamedTuple):
    pid: int
    pidfd: int


class WorkerWatch:
    """A node's watch over its compute workers. `run` keeps a watchdog alive; the rest may be called before.

    folder: where workers leave their stacks. workers: how many there can be at a time. condemned: is told a worker's
    pid and the reason at once when the watchdog has decided to kill it. started: is told each new watchdog's pid
    when it has looked at the page for the first time.
    page: the heartbeat page, to read.
    """

    def __init__(
        self,
        folder: Path,
        workers: int,
        condemned: Callable[[int, str], None],
        started: Callable[[int], None],
    ) -> None:
        self._folder = folder
        self.page = HeartbeatPage.create(workers)
        self._groups = WorkerGroups.make()
        self._condemned = condemned
        self._started = started
        self._free = list(range(FIRST_WORKER, self.page.lines))
        self._reports, self._theirs = _socket_pair()
        self._awaited: dict[int, asyncio.Future[Killing]] = {}
        self._beats_seen = 0
        self._silent_turns = 0
        self._starting = True
        self._process: asyncio.subprocess.Process | None = None
        self._running: _Running | None = None

    async def run(self) -> None:
        """Keep one watchdog running, until cancelled. It kills what is left of the workers when we end."""
        loop = asyncio.get_running_loop()
        self.page.line(DAEMON).prepare("loop", DAEMON_ALLOWANCE_S, time.monotonic_ns())
        self.page.line(DAEMON).occupy(os.getpid(), proc.start_ticks(os.getpid()) or 0)
        loop.add_reader(self._reports.fileno(), self._read)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._turn())
                group.create_task(self._keep())
        finally:
            loop.remove_reader(self._reports.fileno())
            self._theirs.close()
            self._reports.close()  # which is the watchdog's sign to end
            self._let_go()
            if self._process is not None and self._process.returncode is None:
                await self._process.wait()
            if self._groups is not None:
                self._groups.close()

    # --- workers ---

    def seat(self, allowance_s: float) -> Seat:
        """A place for a worker that is about to be started and owes its first beat within `allowance_s`."""
        assert self._free, "more compute workers than lines on the heartbeat page"
        number = self._free.pop(0)
        generation = self.page.line(number).prepare("start", allowance_s, time.monotonic_ns())
        group = "" if self._groups is None else self._groups.group(number)
        options = (
            *(("--group", group) if group else ()),
            "--page",
            str(self.page.fd),
            "--line",
            str(number),
            "--stacks",
            stack_path(str(self._folder), number),
        )
        env = (proc.MARK, proc.mark(self.page.page_id, number, generation))
        return Seat(number, generation, options, env, self.page.fd, group)

    def seated(self, seat: Seat, pid: int) -> None:
        """The worker runs. The watchdog takes nobody for it who is no child of ours."""
        if (ticks := proc.start_ticks(pid)) is not None:
            self.page.line(seat.line).occupy(pid, ticks)

    async def rise(self, seat: Seat, pid: int | None) -> Killing | None:
        """The worker is gone, or was never started: free its place. Returns why, if the watchdog killed it."""
        self._read()
        killing: Killing | None = None
        if pid is not None and (awaited := self._awaited.get(pid)) is not None:
            # Condemned, and dead by the signal that asks for the stacks: the report is on its way.
            try:
                killing = await asyncio.wait_for(awaited, _LAST_REPORT_S)
            except TimeoutError:
                log.warning("the watchdog condemned pid %d, and did not say that it killed it", pid)
            del self._awaited[pid]
        self.page.line(seat.line).vacate()
        self._free.append(seat.line)
        return killing

    # --- the watchdog ---

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        short_lives = 0
        while True:
            try:
                self._process = process = await self._start()
            except OSError as error:
                log.error("the watchdog cannot be started (%s): tried again", error)
                await asyncio.sleep(_RESTART_PAUSES_S[-1])
                continue
            began = loop.time()
            status = await process.wait()
            child_ended(process.pid)
            short_lives = short_lives + 1 if loop.time() - began < _LIVED_LONG_S else 0
            self._let_go()
            log.error("the watchdog (pid %d) ended with status %d: started anew", process.pid, status)
            await asyncio.sleep(_RESTART_PAUSES_S[min(short_lives, len(_RESTART_PAUSES_S) - 1)])

    async def _start(self) -> asyncio.subprocess.Process:
        fds = (self.page.fd, self._theirs.fileno())
        process = await start_child(
            python(
                "nimbusd.supervisor.watchdog",
                *map(str, fds),
                str(os.getpid()),
                str(self._folder),
                *self._groups_option(),
            ),
            fds=fds,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        with contextlib.suppress(ProcessLookupError):  # it has ended already, and is started anew
            self._running = _Running(process.pid, os.pidfd_open(process.pid))
        self._beats_seen = self.page.line(WATCHDOG).working().counter
        self._silent_turns, self._starting = 0, True
        return process

    def _groups_option(self) -> list[str]:
        return [] if self._groups is None else [self._groups.folder]

    def _let_go(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            os.close(running.pidfd)

    async def _turn(self) -> None:
        """Beat for the daemon, and look whether the watchdog does."""
        own = self.page.line(DAEMON).work
        while True:
            own.owe("loop", DAEMON_ALLOWANCE_S, time.monotonic_ns())
            beats = self.page.line(WATCHDOG).working().counter
            if beats != self._beats_seen:
                if self._starting and self._running is not None:
                    self._started(self._running.pid)
                self._beats_seen, self._silent_turns, self._starting = beats, 0, False
            self._silent_turns += 1
            allowed = STARTING_TURNS if self._starting else SILENT_TURNS
            if self._silent_turns > allowed and self._running is not None:
                log.error("the watchdog (pid %d) does nothing: killed", self._running.pid)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._running.pidfd, signal.SIGKILL)
                self._silent_turns = 0
            await asyncio.sleep(TURN_S)

    def _read(self) -> None:
        """Take in every report that has come."""
        while self._reports.fileno() >= 0:  # the last workers may go after we have ended
            try:
                frame = self._reports.recv(_MOST_REPORT_BYTES)
            except BlockingIOError:
                return
            report = json.loads(frame)
            pid = int(report["pid"])
            awaited = self._awaited.setdefault(pid, asyncio.get_running_loop().create_future())
            if report["kind"] == "condemned":
                self._condemned(pid, str(report["reason"]))
            elif not awaited.done():
                words = ("stage", "reason", "overdue_s", "stack", "alone")
                awaited.set_result(Killing(pid, *(report[word] for word in words)))


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Ours and the watchdog's end. We keep a copy of theirs, so that a report outlives a watchdog that dies."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs
