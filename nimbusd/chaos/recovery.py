"""When each fault was over: pure bookkeeping of what was hit, and what worked again when."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from nimbusd.chaos.plan import Kind

Told: TypeAlias = tuple[str, str, int]
"""(job, scene, index) of an episode."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that has happened. at_s: CLOCK_MONOTONIC, of a partition its end.

    node, slot: whose; empty for the master's. pid: of the process that must be replaced; 0 where none must.
    """

    number: int
    kind: Kind
    at_s: float
    node: str = ""
    slot: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class WorkDone:
    """A compute worker did its part of an episode. episode: which, if it was stored (it is done once committed)."""

    node: str
    slot: str
    pid: int
    at_s: float
    episode: Told | None


@dataclass(slots=True)
class _Open:
    hit: Hit
    candidates: list[Told] = field(default_factory=list)


class Recoveries:
    """A fault is over when the slot or node that it hit has done work again that was committed.

    A worker that only plans has done its work once the plan is made. A watchdog's fault is over when another looks
    after the node, a master's when it tells of any commit.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._told_s: dict[Told, float] = {}
        self.took_s: dict[Kind, list[float]] = {}
        self.hits: dict[Kind, int] = {}

    @property
    def unfinished(self) -> int:
        """Faults after which nothing was committed yet."""
        return len(self._open)

    def hit(self, hit: Hit) -> None:
        """A fault has happened."""
        self.hits[hit.kind] = self.hits.get(hit.kind, 0) + 1
        self._open[hit.number] = _Open(hit)

    def done(self, work: WorkDone) -> None:
        """A compute worker has done its part of an episode."""
        for number, waiting in list(self._open.items()):
            hit = waiting.hit
            if hit.node != work.node or work.at_s < hit.at_s or hit.kind in (Kind.MASTER, Kind.WATCHDOG):
                continue
            if hit.slot not in ("", work.slot) or work.pid == hit.pid:
                continue
            if work.episode is None:
                self._close(number, work.at_s)
            elif (told_s := self._told_s.get(work.episode)) is not None and told_s >= hit.at_s:
                self._close(number, told_s)
            else:
                waiting.candidates.append(work.episode)

    def told(self, episode: Told, at_s: float) -> None:
        """The master has told of a commit."""
        self._told_s[episode] = at_s
        for number, waiting in list(self._open.items()):
            if waiting.hit.at_s <= at_s and (waiting.hit.kind is Kind.MASTER or episode in waiting.candidates):
                self._close(number, at_s)

    def back(self, number: int, at_s: float) -> None:
        """What the fault took is there again, which is all that it takes."""
        if number in self._open:
            self._close(number, at_s)

    def forget(self, job: str) -> None:
        """A job is over: its commits need not be remembered."""
        self._told_s = {told: at_s for told, at_s in self._told_s.items() if told[0] != job}

    def _close(self, number: int, at_s: float) -> None:
        hit = self._open.pop(number).hit
        self.took_s.setdefault(hit.kind, []).append(max(0.0, at_s - hit.at_s))


def spread(values_s: Sequence[float]) -> Mapping[str, float] | None:
    """Least, median and greatest; None of nothing."""
    if not values_s:
        return None
    return {
        "min_s": round(min(values_s), 2),
        "median_s": round(statistics.median(values_s), 2),
        "max_s": round(max(values_s), 2),
    }
