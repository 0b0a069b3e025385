"""Processes of nimbusd on this machine that are started, watched, killed and started again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

import nimbusd
from nimbusd.stages.errors import NimbusError

PATIENCE_S = 45.0
"""The longest wait for what must come. It passes only where something is broken."""
_PACKAGE = str(Path(nimbusd.__file__).parent.parent)


class ProcessFailed(NimbusError):
    """A process did not do what it was started for; the text has the end of its log."""


class Daemon:
    """A process whose log is read as it is written."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start `argv`, and add its output to `log`. env: changes to our own environment.

        It imports the same nimbusd as we do, in whatever folder it is started.
        """
        paths = [env.get("PYTHONPATH", ""), _PACKAGE, os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **env, **own}
        )
        self.pid = self._process.pid
        self._lines: list[tuple[float, str]] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def _read(self, log: Path) -> None:
        assert self._process.stdout is not None
        with log.open("ab") as file:
            for line in self._process.stdout:
                file.write(line)
                file.flush()
                with self._news:
                    self._lines.append((time.monotonic(), line.decode(errors="replace").rstrip()))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def mark(self) -> int:
        """The place of now in the log, to wait for what comes after it."""
        with self._news:
            return len(self._lines)

    def wait_for(self, pattern: str, after: int = 0, timeout_s: float = PATIENCE_S) -> str:
        """The first line with a match of `pattern` in it, from the mark `after` on. Raises ProcessFailed."""
        return self._wait_for(pattern, after, timeout_s)[1]

    def seconds_until(self, pattern: str, timeout_s: float = PATIENCE_S) -> float:
        """Seconds from the start of the process to its first line with a match of `pattern`."""
        return self._wait_for(pattern, 0, timeout_s)[0] - self.started_at

    def _wait_for(self, pattern: str, after: int, timeout_s: float) -> tuple[float, str]:
        ends = time.monotonic() + timeout_s
        with self._news:
            while True:
                for at, line in self._lines[after:]:
                    if re.search(pattern, line):
                        return at, line
                after = len(self._lines)
                left_s = ends - time.monotonic()
                if self._ended:
                    raise ProcessFailed(f"the process ended without {pattern!r}:\n{self.tail()}")
                if left_s <= 0:
                    raise ProcessFailed(f"no {pattern!r} within {timeout_s:g} s:\n{self.tail()}")
                self._news.wait(left_s)

    def said(self, text: str) -> list[str]:
        """The lines so far with `text` in them."""
        with self._news:
            return [line for _, line in self._lines if text in line]

    def tail(self) -> str:
        """The last lines, for messages."""
        return "\n".join(line for _, line in self._lines[-30:])

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._process.poll() is None

    def compute_workers(self) -> list[psutil.Process]:
        """The compute workers of a node, now."""
        return self._children("nimbusd.compute.worker")

    def watchdogs(self) -> list[psutil.Process]:
        """The watchdog of a node, now; none while it is replaced."""
        return self._children("nimbusd.supervisor.watchdog")

    def _children(self, module: str) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if module in child.cmdline():
                        found.append(child)
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> list[psutil.Process]:
        """SIGKILL, and wait until it is gone. Returns the compute workers that it leaves alive."""
        workers = self.compute_workers()
        self._process.kill()
        self._process.wait()
        _, left = psutil.wait_procs(workers, timeout=10)
        self._reader.join()
        return left

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit status, once it has ended by itself. Raises subprocess.TimeoutExpired."""
        status = self._process.wait(timeout_s)
        self._reader.join()
        return status
