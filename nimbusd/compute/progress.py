"""The progress of a compute worker's threads, as the heartbeat page shows it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Protocol

from nimbusd.compute.deadlines import Deadlines
from nimbusd.compute.link import DaemonLink
from nimbusd.transport.messages.local import Message


class Owes(Protocol):
    """A place to make promises known: a `Pulse`, or a part of one."""

    def owe(self, stage: str, allowance_s: float, now_ns: int) -> None:
        """I am in `stage`, and beat again within `allowance_s` from `now_ns`."""

    def rest(self) -> None:
        """I owe nothing."""


class SharedPulse:
    """One pulse for several threads: it shows the promise that must be kept first."""

    def __init__(self, pulse: Owes) -> None:
        self._pulse = pulse
        self._lock = threading.Lock()
        self._owed: dict[int, tuple[float, str, float, int]] = {}
        self._parts = itertools.count()

    def part(self) -> Owes:
        """A new thread's part of it."""
        return _Part(self, next(self._parts))

    def set(self, part: int, owed: tuple[str, float, int] | None) -> None:
        """Set what a part owes from now on: (stage, allowance_s, now_ns), or None for nothing."""
        with self._lock:
            if owed is None:
                self._owed.pop(part, None)
            else:
                self._owed[part] = (owed[2] + owed[1] * 1e9, *owed)
            if self._owed:
                _, stage, allowance_s, since_ns = min(self._owed.values())
                self._pulse.owe(stage, allowance_s, since_ns)
            else:
                self._pulse.rest()


class _Part:
    def __init__(self, whole: SharedPulse, number: int) -> None:
        self._whole = whole
        self._number = number

    def owe(self, stage: str, allowance_s: float, now_ns: int) -> None:
        self._whole.set(self._number, (stage, allowance_s, now_ns))

    def rest(self) -> None:
        self._whole.set(self._number, None)


class ThreadProgress:
    """One thread's promises. Only that thread may call it.

    What a thread waits for is no silence of its own: `rest` when another thread must act first.
    """

    def __init__(self, pulse: Owes, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._pulse = pulse
        self._clock_ns = clock_ns
        self._stage = ""
        self._deadlines: Deadlines | None = None
        self._familiar = False
        self._beat_ns = 0

    def promise(self, stage: str, allowance_s: float) -> None:
        """In `stage`, and out of it within `allowance_s`; `beat` gives no more time."""
        self._end()
        self._pulse.owe(stage, allowance_s, self._clock_ns())

    def begin(self, stage: str, deadlines: Deadlines, familiar: bool) -> None:
        """A stage of an episode begins, and beats from now on.

        familiar: the same has been done in this process before (the same scene, a first attempt), so that silences can
        be learned from and measured by what was learned. Anything else has all the time that the job gives.
        """
        now_ns = self._clock_ns()
        self._learn(now_ns)
        self._stage, self._deadlines, self._familiar, self._beat_ns = stage, deadlines, familiar, now_ns
        self._pulse.owe(stage, self._allowance_s(deadlines), now_ns)

    def beat(self) -> None:
        """Still at it, and getting on."""
        if self._deadlines is not None:
            now_ns = self._clock_ns()
            self._learn(now_ns)
            self._beat_ns = now_ns
            self._pulse.owe(self._stage, self._allowance_s(self._deadlines), now_ns)

    def rest(self) -> None:
        """Nothing to do, or nothing that can be done now."""
        self._end()
        self._pulse.rest()

    def _end(self) -> None:
        self._learn(self._clock_ns())
        self._deadlines = None

    def _allowance_s(self, deadlines: Deadlines) -> float:
        return deadlines.allowance_s(self._stage) if self._familiar else deadlines.limit_s(self._stage)

    def _learn(self, now_ns: int) -> None:
        if self._deadlines is not None and self._familiar:
            self._deadlines.learn(self._stage, (now_ns - self._beat_ns) / 1e9)


def wait_for_message(link: DaemonLink, progress: ThreadProgress, within_s: float) -> Message:
    """Wait for the next message from the daemon. A thread that waits in vain shows that it could take one."""
    while True:
        progress.promise("wait", within_s)
        if (message := link.receive(timeout_s=within_s / 4)) is not None:
            return message
