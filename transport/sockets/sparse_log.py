"""Log lines about what strangers send: at most one of a kind in a while, however much they send."""

from __future__ import annotations

import logging
from collections.abc import Callable


class SparseLog:
    """Warnings by kind. clock: monotonic seconds."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float], *, every_s: float = 10.0) -> None:
        self._log = log
        self._clock = clock
        self._every_s = every_s
        self._said_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warn(self, kind: str, text: str, *args: object) -> None:
        """Say it, unless something of the same kind was said lately; then count it for the next time."""
        now = self._clock()
        if now - self._said_at.get(kind, -self._every_s) < self._every_s:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said_at[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        self._log.warning(
            f"{text} (and %d more like it since)" if unsaid else text, *args, *([unsaid] if unsaid else [])
        )
