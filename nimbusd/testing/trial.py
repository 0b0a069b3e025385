"""A trial: one process that tries a component, watched to its end, and what it left behind."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from nimbusd.makers.arithmetic import maker_environment
from nimbusd.makers.leaving import LEAVE_S
from nimbusd.node.folders import environment_of_temporary_files
from nimbusd.supervisor import proc
from nimbusd.supervisor.process import python
from nimbusd.supervisor.target import Target, read_stack

_CHUNK_BYTES = 65536
_STACK_S = 2.0
_CLOSE_S = LEAVE_S + 25.0
_GONE_S = 1.0
"""Time for the children of a killed process to notice it."""
_WORDS_BYTES = 2000


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """The work of one process.

    indexes: the episodes to call the component for, in this order. look: check what it returns, and that it leaves
    alone what it is given. publish: how many pieces to publish at the end. folders: publish those of the output
    `stored_in` instead.
    """

    component: str
    args: Mapping[str, Any]
    scene: Mapping[str, Any]
    beside: Mapping[str, Any]
    device: str
    output: Path
    indexes: tuple[int, ...]
    look: bool = False
    publish: int = 0
    folders: tuple[str, ...] = ()
    stored_in: Path = Path()

    def to_json(self) -> bytes:
        """The request as the process reads it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return orjson.dumps(values, default=str)


@dataclass(frozen=True, slots=True)
class TrialCall:
    """One call of the component.

    silence_s: longest stretch without a beat. failed: reason of a PlanningFailed. changed: it changed what it was
    given. memory_bytes, descriptors, threads, processes: what the process held afterwards.
    """

    index: int
    seconds: float
    silence_s: float
    beats: int
    failed: str
    digest: str
    faults: tuple[str, ...]
    changed: bool
    memory_bytes: int
    descriptors: int
    threads: int
    processes: int


@dataclass
class Trial:
    """All that was seen of a process, from its first event to after its end.

    stage: of the component, once it was found. declared: faults of what it declares; None: it did not come so far, as
    with attempts and published. dataset: digest of what was published; folders: of which pieces. unfit: why this
    machine cannot run it. error: why it ended before its work was done; evidence: its traceback, stacks or last words.
    silent: it gave no sign of progress. calling: it ended in the middle of a call. closing: its work was done, and it
    was to close. killed: as was ordered. alive: processes that it left. files: temporary files that it left after it
    had closed.
    """

    stage: str = ""
    declared: tuple[str, ...] | None = None
    opened_s: float | None = None
    calls: list[TrialCall] = field(default_factory=list)
    attempts: tuple[str, ...] | None = None
    published: tuple[str, ...] | None = None
    dataset: str = ""
    folders: tuple[str, ...] = ()
    closing: bool = False
    closed: bool = False
    threads_left: tuple[str, ...] = ()
    unfit: str = ""
    error: str = ""
    evidence: str = ""
    silent: bool = False
    calling: bool = False
    killed: bool = False
    alive: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def run_trial(
    request: TrialRequest,
    folder: Path,
    *,
    beat_timeout_s: float,
    open_timeout_s: float,
    kill_after_s: float | None = None,
) -> Trial:
    """Run it in `folder`, which must be empty. kill_after_s: SIGKILL its process so long into the first call."""
    (folder / "work").mkdir(parents=True)
    (folder / "request").write_bytes(request.to_json())
    mark = secrets.randbits(63)
    ear, mouth = os.pipe()
    argv = python("nimbusd.testing.trial_main", "--request", str(folder / "request"), "--tell", str(mouth))
    argv += ["--parent", str(os.getpid()), "--stacks", str(folder / "stacks")]
    environment = {**maker_environment(os.environ), **environment_of_temporary_files(folder / "work")}
    environment[proc.MARK] = proc.mark(mark, 0, 0)
    with (folder / "words").open("wb") as words:
        try:
            process = subprocess.Popen(
                argv,
                pass_fds=[mouth],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                cwd=folder / "work",
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(mouth)
    try:
        return _TrialWatcher(process, ear, folder, beat_timeout_s, open_timeout_s, kill_after_s, mark).run()
    finally:
        os.close(ear)


class _TrialWatcher:
    """Follows a trial's process to its end."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        ear: int,
        folder: Path,
        beat_timeout_s: float,
        open_timeout_s: float,
        kill_after_s: float | None,
        mark: int,
    ) -> None:
        self._process, self._ear, self._folder, self._mark = process, ear, folder, mark
        self._beat_timeout_s, self._kill_after_s = beat_timeout_s, kill_after_s
        self._target = Target(process.pid, os.pidfd_open(process.pid))
        self._silence_s = open_timeout_s
        self._heard_at = time.monotonic()
        self._kill_at: float | None = None
        self._seen = Trial()

    def run(self) -> Trial:
        seen = self._seen
        try:
            for line in self._lines():
                if line is None:
                    break
                self._take(orjson.loads(line))
            self._wait()
            seen.alive = self._left_alive()
        finally:
            self._target.kill()
            self._process.wait()
            self._target.close()
        if seen.closed:
            work = self._folder / "work"
            seen.files = tuple(sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()))
        if seen.error and not seen.evidence:
            seen.evidence = (self._folder / "words").read_text(errors="replace")[-_WORDS_BYTES:].strip()
        return seen

    def _lines(self) -> Iterator[bytes | None]:
        """Lines that the process tells, until it lets go of the pipe; None when its time is up."""
        rest = b""
        while True:
            ready, _, _ = select.select([self._ear, self._target.pidfd], [], [], self._left_s())
            if not ready:
                yield None
                return
            if self._ear not in ready:
                return
            if not (chunk := os.read(self._ear, _CHUNK_BYTES)):
                return
            self._heard_at = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines

    def _left_s(self) -> float:
        ends = self._heard_at + self._silence_s
        if self._kill_at is not None:
            ends = min(ends, self._kill_at)
        return max(0.0, ends - time.monotonic())

    def _take(self, event: dict[str, Any]) -> None:
        seen = self._seen
        match event["event"]:
            case "found":
                seen.stage = event["stage"]
            case "declared":
                seen.declared = tuple(event["faults"])
            case "opened":
                seen.opened_s = event["seconds"]
                self._silence_s = self._beat_timeout_s
            case "began":
                seen.calling = True
                if self._kill_after_s is not None and not seen.calls:
                    self._kill_at = time.monotonic() + self._kill_after_s
            case "called":
                seen.calling = False
                said = {part.name: event[part.name] for part in fields(TrialCall)}
                seen.calls.append(TrialCall(**{**said, "faults": tuple(event["faults"])}))
            case "attempts":
                seen.attempts = tuple(event["faults"])
            case "published":
                seen.published, seen.dataset = tuple(event["faults"]), event["digest"]
                seen.folders = tuple(event["folders"])
            case "closing":
                seen.closing = True
            case "closed":
                seen.closed, seen.threads_left = True, tuple(event["threads"])
                self._silence_s = _CLOSE_S
            case "unfit":
                seen.unfit = event["error"]
            case "error":
                seen.error, seen.evidence = event["error"], event["evidence"]

    def _wait(self) -> None:
        """Have it end: by itself, by the kill that was ordered, or because it is silent."""
        seen = self._seen
        if self._kill_at is not None and self._target.alive() and time.monotonic() >= self._kill_at:
            seen.killed = True
            self._process.kill()
            self._process.wait()
            return
        left_s = self._left_s() if self._kill_at is None else _CLOSE_S
        try:
            status = self._process.wait(max(left_s, 0.0) if not seen.closed else _CLOSE_S)
        except subprocess.TimeoutExpired:
            self._silent()
            return
        if not (seen.closed or seen.unfit or seen.error):
            ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            seen.error = f"its process {ended} before its work was done"

    def _silent(self) -> None:
        seen = self._seen
        seen.silent = True
        where = "in a call" if seen.calling else "while it opened" if seen.opened_s is None else "between calls"
        seen.error = f"no sign of progress {where} for {self._silence_s:g} s"
        if self._target.ask_stack():
            try:
                self._process.wait(_STACK_S)
            except subprocess.TimeoutExpired:
                seen.error += "; it could not say where"
        seen.evidence = read_stack(str(self._folder / "stacks"))
        self._process.kill()
        self._process.wait()

    def _left_alive(self) -> tuple[str, ...]:
        """Processes that outlived it, a moment after its end. They are killed."""
        ends = time.monotonic() + _GONE_S
        while (found := proc.marked(self._mark)) and time.monotonic() < ends:
            time.sleep(0.02)
        names = []
        for one in found:
            names.append(f"{_command(one.pid)} (pid {one.pid})")
            _kill(one)
        return tuple(names)


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "a process"
    return b" ".join(words[:4]).decode(errors="replace").strip() or "a process"


def _kill(found: proc.SeenProcess) -> None:
    try:
        target = Target(found.pid, os.pidfd_open(found.pid))
    except ProcessLookupError:  # it has ended meanwhile
        return
    try:
        if proc.start_ticks(found.pid) == found.start_ticks:
            target.kill()
    finally:
        target.close()
