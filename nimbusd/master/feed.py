"""The master's events, kept for a while so that a client that was away can go on where it was."""

from __future__ import annotations

from collections import deque
from typing import Any

from nimbusd.events import Event, to_json

KEPT = 20_000


class Feed:
    """A ring of events with cursors. A cursor is `epoch:number`: one of another epoch is before everything."""

    def __init__(self, epoch: int, kept: int = KEPT) -> None:
        self._epoch = epoch
        self._events: deque[dict[str, Any]] = deque(maxlen=kept)
        self._next = 0

    @property
    def cursor(self) -> str:
        """Where the next event will be."""
        return f"{self._epoch}:{self._next}"

    def add(self, job: str, event: Event) -> None:
        """Append an event of a job."""
        self._events.append({**to_json(event), "job": job, "cursor": f"{self._epoch}:{self._next + 1}"})
        self._next += 1

    def since(self, cursor: str, job: str = "", most: int = 500) -> tuple[tuple[dict[str, Any], ...], str, int]:
        """(events, cursor to go on with, events that are gone). An empty cursor: from now on.

        Raises ValueError for what is not a cursor.
        """
        if not cursor:
            return (), self.cursor, 0
        epoch, _, number = cursor.partition(":")
        first = self._next - len(self._events)
        wanted = int(number) if int(epoch) == self._epoch else 0
        start = min(max(wanted, first), self._next)
        missed = start - wanted if wanted < start else 0
        found: list[dict[str, Any]] = []
        at = start
        while at < self._next and len(found) < most:
            event = self._events[at - first]
            if not job or event["job"] == job:
                found.append(event)
            at += 1
        return tuple(found), f"{self._epoch}:{at}", missed
