"""Virtual time: calls that wait for their moment, and a digest of all that has happened."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable
from typing import Any


class Clock:
    """Runs calls in order of time, and in order of arrangement where the time is the same. Starts at 0 s."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.digest = 0
        """Of every `note` so far: two runs that did the same have the same."""
        self._waiting: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._arranged = 0

    def after(self, delay_s: float, call: Callable[..., object], *args: Any) -> None:
        """Have something called later."""
        self.at(self.now + delay_s, call, *args)

    def at(self, when: float, call: Callable[..., object], *args: Any) -> None:
        """Have something called at a time, which must not be over."""
        self._arranged += 1
        heapq.heappush(self._waiting, (when, self._arranged, call, args))

    def step(self) -> bool:
        """Make the next call. False if there is none."""
        if not self._waiting:
            return False
        when, _, call, args = heapq.heappop(self._waiting)
        assert when >= self.now, "a call was arranged for a time that is over"
        self.now = when
        self.steps += 1
        call(*args)
        return True

    def run(self, until: float, over: Callable[[], bool] | None = None) -> bool:
        """Make calls up to a time, or until `over()`. Returns whether it is over."""
        while not (over is not None and over()):
            if not self._waiting or self._waiting[0][0] > until:
                self.now = max(self.now, until)
                return over is not None and over()
            self.step()
        return True

    def note(self, what: str) -> None:
        """Put something that happens now into the digest."""
        self.digest = zlib.crc32(f"{self.now:.9f} {what}".encode(), self.digest)
