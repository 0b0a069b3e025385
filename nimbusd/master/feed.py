"""The master's events, kept for a while so that a client that was away can go on where it was."""

from __future__ import annotations

import itertools
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeAlias

import orjson

from nimbusd.events import Event, to_json

KEPT = 20_000
_CHUNK = 250

_Told: TypeAlias = dict[str, Any]


class Feed:
    """A ring of events with cursors. A cursor is `epoch:number`: one of another epoch is before everything.

    kept: at least so many. The latest, which most clients ask for, are kept as they are; older ones in compressed
    chunks: they are much alike, and 20,000 of them would otherwise be the larger part of a master's memory.
    """

    def __init__(self, epoch: int, kept: int = KEPT) -> None:
        self._epoch = epoch
        self._chunk = min(_CHUNK, max(1, kept))
        self._old: deque[bytes] = deque(maxlen=-(-kept // self._chunk))
        self._latest: deque[_Told] = deque()
        self._next = 0

    @property
    def cursor(self) -> str:
        """The place of the next event."""
        return f"{self._epoch}:{self._next}"

    def add(self, job: str, event: Event) -> None:
        """Append an event of a job."""
        self._latest.append({**to_json(event), "job": job, "cursor": f"{self._epoch}:{self._next + 1}"})
        self._next += 1
        if len(self._latest) >= 2 * self._chunk:
            chunk = [self._latest.popleft() for _ in range(self._chunk)]
            self._old.append(zlib.compress(orjson.dumps(chunk), 6))

    def since(self, cursor: str, job: str = "", most: int = 500) -> tuple[tuple[dict[str, Any], ...], str, int]:
        """(events, cursor to go on with, events that are gone). An empty cursor: from now on.

        Raises ValueError for what is not a cursor.
        """
        if not cursor:
            return (), self.cursor, 0
        epoch, _, number = cursor.partition(":")
        first = self._next - len(self._latest) - self._chunk * len(self._old)
        if not (epoch.isdecimal() and number.isdecimal()):
            raise ValueError(f"{cursor!r} is no cursor")
        wanted = min(int(number), self._next) if int(epoch) == self._epoch else 0
        start = min(max(wanted, first), self._next)
        missed = start - wanted if wanted < start else 0
        found: list[dict[str, Any]] = []
        at = start
        for event in self._from(start - first):
            if len(found) == most:
                break
            at += 1
            if not job or event["job"] == job:
                found.append(event)
        return tuple(found), f"{self._epoch}:{at}", missed

    def _from(self, place: int) -> Iterator[_Told]:
        """The events that are kept, without the first so many."""
        chunks, rest = divmod(place, self._chunk)
        for chunk in itertools.islice(self._old, chunks, None):
            yield from orjson.loads(zlib.decompress(chunk))[rest:]
            rest = 0
        skipped = max(0, place - self._chunk * len(self._old))
        yield from itertools.islice(self._latest, skipped, None)
