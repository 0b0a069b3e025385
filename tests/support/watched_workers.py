"""A watchdog whose daemon is the test, and workers of a few lines."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from nimbusd.supervisor import proc
from nimbusd.supervisor.page import FIRST_WORKER, HeartbeatPage
from nimbusd.supervisor.process import WorkerProcess
from nimbusd.supervisor.watch import Seat, WorkerWatch
from nimbusd.supervisor.watchdog import stack_path

PATIENCE_S = 30.0
"""The longest wait for what must come. It passes only in a failing test."""
PRELUDE = """
import ctypes, os, signal, subprocess, sys, threading, time
from nimbusd.supervisor.page import own_line
from nimbusd.supervisor.target import dump_stacks_when_asked
page, number, stacks, allowance_s = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
dump_stacks_when_asked(stacks)
line = own_line(page, number)
def render():
    line.work.owe("render", allowance_s, time.monotonic_ns())
    print("render", flush=True)
"""
SPAWN = """
group = subprocess.Popen(["sleep", "1000"])
other_group = subprocess.Popen(["sleep", "1000"], process_group=0)
session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
orphan = subprocess.check_output(["sh", "-c", "setsid sleep 1000 >/dev/null & echo $!"], text=True)
with open(stacks + ".children", "w") as file:
    file.write(f"{group.pid} {other_group.pid} {session.pid} {orphan}")
"""
"""The processes that a worker starts; it writes their pids down beside its stacks."""


class Bench:
    """A watchdog whose daemon we are, and workers that we wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = HeartbeatPage.create(4)
        self.reports, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reports.settimeout(PATIENCE_S)
        self._children: list[subprocess.Popen[str]] = []
        argv = [sys.executable, "-m", "nimbusd.supervisor.watchdog", str(self.page.fd), str(theirs.fileno())]
        self.watchdog = self._popen([*argv, str(os.getpid()), str(folder)], (self.page.fd, theirs.fileno()), {})
        theirs.close()

    def _popen(self, argv: list[str], fds: tuple[int, ...], env: dict[str, str]) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            argv,
            pass_fds=fds,
            env={**os.environ, **env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._children.append(child)
        return child

    def worker(self, body: str, *, number: int = FIRST_WORKER, allowance_s: float = 0.2, **env: str) -> Any:
        """Start a worker that runs `body` after the prelude."""
        line = self.page.line(number)
        generation = line.prepare("start", 60.0, time.monotonic_ns())
        marked = {proc.MARK: proc.mark(self.page.page_id, number, generation), **env}
        options = [str(self.page.fd), str(number), stack_path(str(self.folder), number), str(allowance_s)]
        argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(body), *options]
        child = self._popen(argv, (self.page.fd,), marked)
        ticks = proc.start_ticks(child.pid)
        assert ticks is not None
        line.occupy(child.pid, ticks)
        return child

    def report(self) -> dict[str, Any]:
        """The next report; fails if none comes."""
        return dict(json.loads(self.reports.recv(1 << 18)))

    def killing(self) -> dict[str, Any]:
        """The next report of a kill, which must follow that of its verdict."""
        condemned, killed = self.report(), self.report()
        assert (condemned["kind"], killed["kind"]) == ("condemned", "killed")
        assert condemned["pid"] == killed["pid"]
        return killed

    def hanging(self, body: str, **options: Any) -> dict[str, Any]:
        """The report of a worker that hangs in `body`, once it is dead."""
        child = self.worker(body, **options)
        killed = self.killing()
        assert killed["pid"] == child.pid
        assert child.wait(PATIENCE_S) < 0
        return killed

    def close(self) -> None:
        self.reports.close()
        assert self.watchdog.wait(PATIENCE_S) in (0, -signal.SIGKILL), self.watchdog.communicate()[1]
        for child in self._children:
            child.kill()
            child.communicate()


def gone(pid: int) -> None:
    """Wait until a process is gone, or dead and only waited for."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], PATIENCE_S)[0], f"pid {pid} lives: {proc.where(pid)}"
    finally:
        os.close(pidfd)


async def start(watch: WorkerWatch, body: str, allowance_s: float = 0.2) -> tuple[Seat, WorkerProcess]:
    """Start a worker that runs `body` after the prelude, in a seat of a watch."""
    seat = watch.seat(60.0)
    options = dict(zip(seat.options[::2], seat.options[1::2], strict=True))
    argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(body)]
    argv += [options["--page"], options["--line"], options["--stacks"], str(allowance_s)]
    process = await WorkerProcess.spawn(argv, {**os.environ, seat.env[0]: seat.env[1]}, [seat.fd])
    watch.seated(seat, process.pid)
    return seat, process
