"""The master's event stream as a client follows it: with a cursor, across the master's absences and restarts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from nimbusd.transport.errors import MasterUnreachable
from nimbusd.transport.messages import control

log = logging.getLogger("nimbusd.client")

WATCH_S = 10.0
"""How long one Watch waits at the master for events."""
AWAY_S = 1.0
"""Pause between tries while a master that was reached before is away."""

T = TypeVar("T")
AskEvents: TypeAlias = Callable[[str, str, float], Awaitable[control.Events]]
"""(cursor, job, wait_s) → the master's answer."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. name: such as `episode_committed`; fields: what it says of it (see docs/cluster.md).

    cursor: pass it to `watch` to go on after this event.
    """

    name: str
    job: str
    time_unix_s: float
    cursor: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gap:
    """Events are missing here: the master keeps only so many, or it has started anew.

    missed: how many; None: nobody knows. cursor: as in Event. Ask for `job` or `jobs` to learn where things stand.
    """

    missed: int | None
    cursor: str


class Follow:
    """A place in the master's events, and the way on from there. One reader at a time.

    away_s: how long the master may be away before that is an error; None: for ever.
    """

    def __init__(
        self, ask: AskEvents, cursor: str | None = None, job: str | None = None, away_s: float | None = None
    ) -> None:
        self._ask = ask
        self._job = job or ""
        self._away_s = away_s
        self.cursor = cursor or ""

    async def begin(self) -> None:
        """Take the place of now, unless there is one already."""
        if not self.cursor:
            self.cursor = (await self._events(0.0)).cursor

    async def more(self) -> list[Event | Gap]:
        """What has happened since, waiting for it a while; may be nothing. The cursor moves on."""
        await self.begin()
        before = self.cursor
        answer = await self._events(WATCH_S)
        self.cursor = answer.cursor
        found: list[Event | Gap] = [_event(values, answer.cursor) for values in answer.events]
        if _epoch(before) != _epoch(answer.cursor):  # what the old master told last died with it
            found.insert(0, Gap(None, before))
        elif answer.missed:
            found.insert(0, Gap(answer.missed, before))
        return found

    async def through_absence(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` answers, however long the master is away meanwhile, if `away_s` allows it."""
        clock = asyncio.get_running_loop().time
        began = clock()
        told = False
        while True:
            try:
                return await ask()
            except MasterUnreachable as error:
                if self._away_s is not None and clock() - began >= self._away_s:
                    raise
                if not told:
                    log.warning("%s Trying again until it is back.", error)
                    told = True
                await asyncio.sleep(AWAY_S)

    async def _events(self, wait_s: float) -> control.Events:
        return await self.through_absence(lambda: self._ask(self.cursor, self._job, wait_s))


def _event(values: Mapping[str, Any], otherwise: str) -> Event:
    """An event as the master tells it. otherwise: the cursor of one that has none of its own."""
    fields = dict(values)
    name, job = str(fields.pop("event", "")), str(fields.pop("job", ""))
    time_s, cursor = fields.pop("time", 0.0), fields.pop("cursor", otherwise)
    return Event(name, job, float(time_s), str(cursor), fields)


def _epoch(cursor: str) -> str:
    """Which life of the master a cursor is of; the rest of it is the master's business."""
    return cursor.partition(":")[0]
