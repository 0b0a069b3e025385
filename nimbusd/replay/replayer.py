"""Makes one episode again: starts the attempt's process, watches it as a node would, and reports how it ended."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import orjson

from nimbusd.job import Job
from nimbusd.makers.arithmetic import maker_environment
from nimbusd.stages.errors import BackendUnavailable
from nimbusd.supervisor.process import python
from nimbusd.supervisor.target import Target, read_stack

START_TIMEOUT_S = 300.0
CLOSE_S = 30.0
STACK_S = 2.0
_CHUNK_BYTES = 65536

StageSeen: TypeAlias = Callable[[str, float], None]
"""Told of each stage that is through: its name (`open` first) and its seconds."""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """The episode to make, and how."""

    job: Job
    scene: str
    index: int
    output: Path
    """An empty folder for the piece."""
    attempt: int = 1
    until: str = "store"
    """The last stage."""
    device: str = "auto"
    """For the renderer."""
    timeout_s: float | None = None
    """For the whole attempt, from `load` on; None: as the job says."""
    debugger: bool = False
    """Stop at exceptions, with no other limit than timeout_s."""

    def described(self) -> bytes:
        """The request as the attempt's process reads it, with this scene alone."""
        spec = {**self.job.to_dict(), "scenes": [[self.scene, dict(self.job.scene_entries[self.scene])]]}
        fields: dict[str, Any] = {"job": spec, "output": str(self.output), "until": self.until, "device": self.device}
        fields["fingerprint"] = self.job.fingerprint()  # of all scenes
        fields |= {"scene": self.scene, "index": self.index, "attempt": self.attempt, "debugger": self.debugger}
        return orjson.dumps(fields)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt. stage, reason, detail, evidence: of its failure; the reason is empty if there is none.

    planned: the failure is a planning result. frames: of the plan, where there is one. folder: of the piece.
    """

    timings_s: Mapping[str, float]
    stage: str = ""
    reason: str = ""
    detail: str = ""
    evidence: str = ""
    planned: bool = False
    frames: int | None = None
    folder: str = ""

    @property
    def failed(self) -> bool:
        """True if it came to nothing."""
        return bool(self.reason)


def replay_episode(request: ReplayRequest, seen: StageSeen, stdout: IO[str] | None = None) -> Outcome:
    """Make the episode, and wait for its end. stdout: where what components print goes; default: ours.

    Raises BackendUnavailable if this machine cannot run the job's components. A KeyboardInterrupt ends the attempt.
    """
    with tempfile.TemporaryDirectory(prefix="nimbusd-replay-") as name:
        folder = Path(name)
        (folder / "request").write_bytes(request.described())
        ear, mouth = os.pipe()
        argv = python("nimbusd.replay.attempt", "--request", str(folder / "request"))
        argv += ["--tell", str(mouth), "--parent", str(os.getpid()), "--stacks", str(folder / "stacks")]
        try:
            # The debugger needs the terminal; without it the attempt leads a group, all of which can be killed.
            process = subprocess.Popen(
                argv,
                pass_fds=[mouth],
                stdout=stdout,
                env=maker_environment(os.environ),
                start_new_session=not request.debugger,
            )
        finally:
            os.close(mouth)
        try:
            return _Watcher(request, process, ear, folder / "stacks", seen).run()
        finally:
            os.close(ear)


class _Watcher:
    """Follows an attempt's process to its end."""

    def __init__(
        self, request: ReplayRequest, process: subprocess.Popen[bytes], ear: int, stacks: Path, seen: StageSeen
    ) -> None:
        self._process = process
        self._ear = ear
        self._stacks = stacks
        self._seen = seen
        self._target = Target(process.pid, os.pidfd_open(process.pid))
        self._limits = None if request.debugger else request.job.limits
        self._timeout_s = request.timeout_s
        if self._limits is not None and request.timeout_s is None:
            self._timeout_s = self._limits.episode_timeout_s
        self._heard_at = time.monotonic()
        self._silence_s: float | None = None if request.debugger else START_TIMEOUT_S
        self._ends: float | None = None
        self._stage = "open"
        self._timings_s: dict[str, float] = {}
        self._told: dict[str, Any] | None = None
        self._on_interrupt = signal.getsignal(signal.SIGINT)

    def run(self) -> Outcome:
        try:
            killed = ""
            for line in self._lines():
                if line is None:
                    killed = self._late()
                    break
                self._take(orjson.loads(line))
            if killed:
                return self._killed(killed)
            return self._exited()
        finally:
            signal.signal(signal.SIGINT, self._on_interrupt)
            self._target.kill()
            self._process.wait()
            self._target.close()

    def _lines(self) -> Iterator[bytes | None]:
        """The events of the attempt, until it closes the pipe; None when it has passed one of its limits."""
        rest = b""
        while True:
            ready, _, _ = select.select([self._ear, self._target.pidfd], [], [], self._left_s())
            if not ready:
                yield None
                return
            if self._ear not in ready:  # it is gone; what it has started may hold the pipe still
                return
            if not (chunk := os.read(self._ear, _CHUNK_BYTES)):
                return
            self._heard_at = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines

    def _left_s(self) -> float | None:
        ends = [] if self._ends is None else [self._ends]
        if self._silence_s is not None:
            ends.append(self._heard_at + self._silence_s)
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _late(self) -> str:
        if self._ends is not None and time.monotonic() >= self._ends:
            return f"the attempt took longer than {self._timeout_s:g} s"
        return f"no progress for {self._silence_s:g} s"

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "opened":
                self._through({"open": event["seconds"]})
                if self._timeout_s is not None:
                    self._ends = time.monotonic() + self._timeout_s
            case "stage":
                self._stage = event["stage"]
                if self._limits is not None:
                    own_s = self._limits.stage_limits_s()
                    self._silence_s = own_s.get(self._stage, self._limits.beat_timeout_s)
                self._through(event["timings_s"])
            case "debugger":  # a person is at work
                self._silence_s = self._ends = self._timeout_s = None
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the debugger's from now on
            case "ended":
                self._told = event
                self._through(event["timings_s"])
                self._ends, self._silence_s = None, CLOSE_S
            case "unfit":
                raise BackendUnavailable(event["error"])

    def _through(self, timings_s: Mapping[str, float]) -> None:
        for stage, seconds in timings_s.items():
            if stage not in self._timings_s:
                self._timings_s[stage] = seconds
                self._seen(stage, seconds)

    def _killed(self, why: str) -> Outcome:
        """It hangs: its stacks first, as a watchdog takes them, then SIGKILL."""
        if self._told is not None:
            return self._outcome(self._told)  # only its components do not close; the episode is settled
        if self._target.ask_stack():
            try:
                self._process.wait(STACK_S)
            except subprocess.TimeoutExpired:
                why += "; it could not say where"
        evidence = read_stack(str(self._stacks))
        return Outcome(self._timings_s, self._stage, "hang", f"killed: {why}", evidence)

    def _exited(self) -> Outcome:
        try:
            status = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            return self._killed("it does not end")
        if self._told is not None:
            return self._outcome(self._told)
        if status < 0:
            detail = f"died of signal {-status} ({signal.Signals(-status).name})"
            return Outcome(self._timings_s, self._stage, "crash", detail)
        return Outcome(self._timings_s, self._stage, "exit", f"exited with status {status} while it was needed")

    def _outcome(self, told: Mapping[str, Any]) -> Outcome:
        made = Outcome(self._timings_s, frames=told["frames"], folder=told["folder"] or "")
        if (failure := told["failure"]) is None:
            return made
        return dataclasses.replace(made, **failure)
