"""Reading and checking a job in a process of its own: components are users' code, and may do anything when imported.

Nothing in the current folder passes for a module there: components are installed, or lie on PYTHONPATH. What the
process prints is kept back, and told only where it does not answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nimbusd.job.check import Findings
from nimbusd.job.job import Job
from nimbusd.job.problems import JobError, Problem

READ_TIMEOUT_S = 120.0
DEEP_TIMEOUT_S = 12 * 3600.0
_MOST_ANSWER_BYTES = 1 << 30
_KEPT_BYTES = 1 << 16
_TOLD_LINES = 20


@dataclass(frozen=True, slots=True)
class CheckedJob:
    """A job whose components were checked in another process.

    written: stage → arguments as the file has them. output_at: the place, in the file or the command line, that names
    the output.
    """

    job: Job
    findings: Findings
    written: Mapping[str, Mapping[str, Any]]
    output_at: str


def read_apart(
    path: Path,
    *,
    output: Path | None = None,
    overrides: Iterable[str] = (),
    deep: bool = False,
    timeout_s: float | None = None,
) -> CheckedJob:
    """The job in file `path`, and what `check_job` finds. output, overrides: as for `read_job`.

    deep: load the scenes too. timeout_s: None for READ_TIMEOUT_S, or DEEP_TIMEOUT_S where they are loaded.

    Raises JobError with every mistake in the file, or with how the process ended that did not answer.
    """
    timeout_s = timeout_s or (DEEP_TIMEOUT_S if deep else READ_TIMEOUT_S)
    request: dict[str, Any] = {"path": str(path), "output": None if output is None else str(output)}
    request |= {"overrides": list(overrides), "deep": deep}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "nimbusd.job.apart_main", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # what it starts ends with it
    )
    ends = time.monotonic() + timeout_s
    try:
        ear = _Ear(process, ends)
        ear.ask(json.dumps(request | {"ends": ends}).encode())
        in_time = ear.listen()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if in_time:
        with contextlib.suppress(ValueError):
            return _understood(json.loads(ear.answer))
    raise JobError([Problem(str(path), _why_not(process.returncode, timeout_s if not in_time else None, ear.words()))])


def _understood(answer: Mapping[str, Any]) -> CheckedJob:
    if "problems" in answer:
        raise JobError(_problems(answer["problems"]))
    findings = Findings(tuple(_problems(answer["errors"])), tuple(_problems(answer["warnings"])))
    return CheckedJob(Job.from_dict(answer["job"]), findings, answer["written"], answer["output_at"])


def _problems(told: Iterable[Iterable[str]]) -> list[Problem]:
    return [Problem(*problem) for problem in told]


def _why_not(status: int, timeout_s: float | None, words: str) -> str:
    if timeout_s is not None:
        why = f"took more than {timeout_s:g} s, and was ended"
    elif status < 0:
        why = f"was killed by {signal.Signals(-status).name}"
    else:
        why = f"ended with status {status} and without an answer"
    said = f"; its last words were:\n{words}" if words else ""
    return f"the process that imports the job's components and checks them {why}{said}"


class _Ear:
    """The parent's ends of a process: what it answers, and the last of what it says besides."""

    def __init__(self, process: subprocess.Popen[bytes], ends: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._ends = process, ends
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self.answer = b""
        self._said = b""

    def ask(self, request: bytes) -> None:
        """Write the request; a process that is gone already does not hear it."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(request)
            self._stdin.close()

    def listen(self) -> bool:
        """Read until the answer is whole or the process has ended; False: time is up."""
        parts: list[bytes] = []
        with selectors.DefaultSelector() as selector, _pidfd(self._process) as ended:
            for stream in (self._stdout, self._stderr):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            over = False
            while not over and (left_s := self._ends - time.monotonic()) > 0:
                ready = [key.fileobj for key, _ in selector.select(left_s)]
                over = ended in ready or (self._stdout in ready and not self._read(self._stdout, parts))
                if self._stderr in ready and not self._read_words():
                    selector.unregister(self._stderr)
                if sum(map(len, parts)) > _MOST_ANSWER_BYTES:
                    break
            while over and self._read(self._stdout, parts):
                pass
            while over and self._read_words():
                pass
        self.answer = b"".join(parts)
        return over

    def words(self) -> str:
        """The last lines that were said."""
        lines = self._said.decode(errors="replace").rstrip().splitlines()
        return "\n".join(f"  {line}" for line in lines[-_TOLD_LINES:])

    def _read_words(self) -> bool:
        parts: list[bytes] = []
        more = self._read(self._stderr, parts)
        self._said = b"".join([self._said, *parts])[-_KEPT_BYTES:]
        return more

    @staticmethod
    def _read(stream: IO[bytes], parts: list[bytes]) -> bool:
        """Take what is there; False: nothing is, or will be."""
        try:
            part = os.read(stream.fileno(), 1 << 20)
        except BlockingIOError:
            return False
        parts.append(part)
        return bool(part)


@contextlib.contextmanager
def _pidfd(process: subprocess.Popen[bytes]) -> Iterator[int]:
    fd = os.pidfd_open(process.pid)
    try:
        yield fd
    finally:
        os.close(fd)
