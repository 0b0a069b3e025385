"""The end of each fault: pure bookkeeping of what was hit, and what worked again when."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from nimbusd.chaos.plan import OF_JOBS, Kind
from nimbusd.core.ids import EpisodeKey

_BY_ANY_COMMIT = {Kind.MASTER, *OF_JOBS} - {Kind.LIAR}
_NOT_BY_WORK = {Kind.WATCHDOG, Kind.MASTER, *OF_JOBS}


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that has happened."""

    number: int
    kind: Kind
    at_s: float
    """CLOCK_MONOTONIC; of a fault that lasts, its end."""
    node: str = ""
    """Empty for the master's and the job's."""
    slot: str = ""
    """Empty where no compute worker was hit."""
    pid: int = 0
    """The process that must be replaced; 0 where none must."""
    episodes: tuple[EpisodeKey, ...] = ()
    """One of these must be settled."""

    def __str__(self) -> str:
        whose = f" of {self.node} {self.slot}".rstrip() if self.node else ""
        return f"fault {self.number}, {self.kind.value}{whose}"


@dataclass(frozen=True, slots=True)
class WorkDone:
    """A compute worker did its part of an episode. episode: the one that it stored (done once it is committed), if it
    did.
    """

    node: str
    slot: str
    pid: int
    at_s: float
    episode: EpisodeKey | None


@dataclass(slots=True)
class _Open:
    hit: Hit
    candidates: list[EpisodeKey] = field(default_factory=list)


class Recoveries:
    """A fault is over when the slot or node that it hit has done work again that was committed.

    A worker that only plans has done its work once the plan is made, a writer that publishes once it has. A watchdog's
    fault is over when another looks after the node, a master's and a job's when any episode is settled, a hostile
    node's when one is that it lied about.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._settled_s: dict[EpisodeKey, float] = {}
        self.took_s: dict[Kind, list[float]] = {}
        self.hits: dict[Kind, int] = {}

    @property
    def unfinished(self) -> int:
        """Faults after which nothing was committed yet."""
        return len(self._open)

    @property
    def open(self) -> tuple[Hit, ...]:
        """Those faults."""
        return tuple(waiting.hit for waiting in self._open.values())

    def hit(self, hit: Hit) -> None:
        """A fault has happened."""
        self.hits[hit.kind] = self.hits.get(hit.kind, 0) + 1
        self._open[hit.number] = _Open(hit, list(hit.episodes))
        settled = [at_s for episode in hit.episodes if (at_s := self._settled_s.get(episode, -1.0)) >= hit.at_s]
        if settled:
            self._close(hit.number, min(settled))

    def done(self, work: WorkDone) -> None:
        """A compute worker has done its part of an episode."""
        for number, waiting in list(self._open.items()):
            hit = waiting.hit
            if hit.node != work.node or work.at_s < hit.at_s or hit.kind in _NOT_BY_WORK:
                continue
            if hit.slot not in ("", work.slot) or work.pid == hit.pid:
                continue
            if work.episode is None:
                self._close(number, work.at_s)
            elif (settled_s := self._settled_s.get(work.episode)) is not None and settled_s >= hit.at_s:
                self._close(number, settled_s)
            else:
                waiting.candidates.append(work.episode)

    def settled(self, episode: EpisodeKey, at_s: float) -> None:
        """By an event of the master an episode is settled: committed, or found to be impossible."""
        self._settled_s[episode] = at_s
        for number, waiting in list(self._open.items()):
            if waiting.hit.at_s <= at_s and (waiting.hit.kind in _BY_ANY_COMMIT or episode in waiting.candidates):
                self._close(number, at_s)

    def ended(self, settled: Collection[EpisodeKey], at_s: float) -> None:
        """A job has ended with these episodes settled, some of them without an event of a master that was killed."""
        for number, waiting in list(self._open.items()):
            if any(episode in settled for episode in waiting.candidates):
                self._close(number, at_s)

    def back(self, number: int, at_s: float) -> None:
        """Close the fault: what it took is there again, which is all that it takes."""
        if number in self._open:
            self._close(number, at_s)

    def forget(self, job: str) -> None:
        """A job is over: its commits need not be remembered."""
        self._settled_s = {key: at_s for key, at_s in self._settled_s.items() if key.job != job}

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
