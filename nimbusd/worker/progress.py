"""How a compute worker shows its progress on the heartbeat page: each working thread for itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from nimbusd.core.deadlines import Deadlines
from nimbusd.supervisor.page import Pulse


class Progress:
    """One thread's promises. Only that thread may call it.

    What a thread waits for is no silence of its own: `rest` when another thread must act first.
    """

    def __init__(self, pulse: Pulse, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
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

        familiar: it does what it has done before in this process (the same scene, a first attempt), so that its
        silences can be learned from and held against it. Anything else has all the time that the job gives.
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
