"""Review of the pieces that nodes tell of, off the event loop, before the scheduler hears of them.

A node's word costs nothing, and a ledger row is for ever. So a commit of an attempt that is leased waits here until
somebody has looked at the piece: one batch per job at a time, in the order in which it was told. Storage that hangs
keeps its own job waiting, and no other. What no lease stands behind is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeAlias

from nimbusd.core.ids import Attempt, EpisodeKey, JobId
from nimbusd.core.master.facts import (
    Fact,
    OutputUnseen,
    PieceRefused,
    PiecesLate,
    ReviewBegan,
    ReviewEnded,
)
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.job import Job
from nimbusd.master.intake.sight import Seen, Sight, look, misnamed
from nimbusd.transport.messages.bounds import MOST_DETAIL, plain_text
from nimbusd.transport.messages.node import Commit, Stored

log = logging.getLogger(__name__)

SEEN_WITHIN_S = 60.0
"""Seconds that a piece may stay unseen: network file systems remember for a while that something was not there."""
MOST_AT_ONCE = 256
"""Pieces that are looked at before the scheduler hears of any."""
_THREADS = 32

_Place: TypeAlias = tuple[str, int, int]
"""(node, lease, index)"""


class _HasJob(Protocol):
    @property
    def job(self) -> Job: ...


@dataclass(slots=True)
class _Waiting:
    """Commits of a job that nobody has looked at yet, and whether somebody is at it."""

    told: list[Commit] = field(default_factory=list)
    busy: bool = False


class Review:
    """Takes commits, and tells the scheduler of those that are true.

    jobs: those that are open. tell: gives the scheduler a fact. under_way: is told when a thread begins to look, and
    when it ends. clock, seen_within_s: in seconds.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        jobs: Mapping[JobId, _HasJob],
        tell: Callable[[Fact], None],
        under_way: Callable[[bool], None],
        clock: Callable[[], float],
        seen_within_s: float = SEEN_WITHIN_S,
    ) -> None:
        self._scheduler = scheduler
        self._jobs = jobs
        self._tell = tell
        self._tell_under_way = under_way
        self._clock = clock
        self._seen_within_s = seen_within_s
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(_THREADS, "pieces")
        self._waiting: dict[JobId, _Waiting] = {}
        self._under_way: set[_Place] = set()
        self._missing_since: dict[_Place, float] = {}
        self._closed = False

    def close(self) -> None:
        """Look at nothing more."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def take(self, fact: Commit) -> None:
        """A node says that it has stored pieces. Those that are waited for already are not looked at twice."""
        wanted = self._scheduler.tasks.committable(fact)
        late = tuple(piece for piece in fact.stored if piece.index not in wanted)
        if late:
            self._tell(PiecesLate(replace(fact, stored=late)))
        due: list[Stored] = []
        for piece in {piece.index: piece for piece in fact.stored if piece.index in wanted}.values():
            place = fact.node, fact.lease, piece.index
            if place in self._under_way:
                continue
            if (why := misnamed(_key(fact, piece), fact.attempt, piece.folder)) is not None:
                self._refuse(fact, piece, why)
                continue
            self._under_way.add(place)
            due.append(piece)
        if due:
            indexes = tuple(piece.index for piece in due)
            self._tell(ReviewBegan(fact.node, fact.lease, fact.job, fact.scene, fact.attempt, indexes))
            waiting = self._waiting.setdefault(fact.job, _Waiting())
            waiting.told.append(replace(fact, stored=tuple(due)))
            if not waiting.busy:
                waiting.busy = True
                self._loop.call_soon(self._look, fact.job)  # what comes in this turn goes along

    def _look(self, name: JobId) -> None:
        waiting = self._waiting[name]
        batch: list[Commit] = []
        count = 0
        while waiting.told and count < MOST_AT_ONCE:
            batch.append(waiting.told.pop(0))
            count += len(batch[-1].stored)
        job = self._jobs.get(name)
        if not batch or job is None or self._closed:  # a job that ended meanwhile needs none of it
            for fact in (*batch, *waiting.told):
                self._under_way.difference_update((fact.node, fact.lease, piece.index) for piece in fact.stored)
            del self._waiting[name]
            return
        self._tell_under_way(True)
        looking = self._loop.run_in_executor(self._threads, _look_at_all, job.job.output, batch)
        looking.add_done_callback(lambda done: self._looked(name, batch, done))

    def _looked(self, name: JobId, batch: list[Commit], done: asyncio.Future[list[list[Seen]]]) -> None:
        self._tell_under_way(False)
        if self._closed or done.cancelled():
            return
        for fact, seen in zip(batch, done.result(), strict=True):
            self._judge(fact, seen)
        self._look(name)

    def _judge(self, fact: Commit, seen: list[Seen]) -> None:
        good: list[Stored] = []
        for piece, found in zip(fact.stored, seen, strict=True):
            place = fact.node, fact.lease, piece.index
            self._under_way.discard(place)
            since = self._missing_since.pop(place, self._clock())
            match found.sight:
                case Sight.GOOD:
                    good.append(piece)
                case Sight.MISSING if self._clock() - since < self._seen_within_s:
                    self._missing_since[place] = since  # its node tells of it again
                    self._tell(ReviewEnded(_key(fact, piece)))
                case Sight.MISSING | Sight.WRONG:
                    self._refuse(fact, piece, found.why)
                case Sight.BLIND:
                    self._tell(ReviewEnded(_key(fact, piece)))
                    self._tell(OutputUnseen(fact.job, found.why))
        self._forget_old()
        if good:
            self._tell(replace(fact, stored=tuple(good)))

    def _refuse(self, fact: Commit, piece: Stored, why: str) -> None:
        why = plain_text(why, MOST_DETAIL)
        key = _key(fact, piece)
        log.warning("refused a piece of %s/%s/%d by node %s: %s", key.job, key.scene, key.index, fact.node, why)
        self._tell(PieceRefused(fact.node, Attempt(key, fact.attempt, fact.lease), why))

    def _forget_old(self) -> None:
        """Stop waiting for pieces that their nodes do not tell of again."""
        if len(self._missing_since) > 10_000:
            late = self._clock() - 2 * self._seen_within_s
            self._missing_since = {place: since for place, since in self._missing_since.items() if since > late}


def _look_at_all(output: Path, batch: list[Commit]) -> list[list[Seen]]:
    return [[look(output, _key(fact, piece), piece) for piece in fact.stored] for fact in batch]


def _key(fact: Commit, piece: Stored) -> EpisodeKey:
    return EpisodeKey(fact.job, fact.scene, piece.index)
