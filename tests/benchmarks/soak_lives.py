"""Processes that come and go, each life measured by itself: how memory, descriptors and threads went in them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

FEWEST_SAMPLES = 10
SHORTEST_S = 240.0
"""A life that went on for less after its warm-up says nothing of hours."""
MOST_SAMPLES = 400
"""Of one life: the slopes are those between all pairs."""
SPARE = 4
"""Descriptors and threads that may be open at the moment of a sample and not at that of another."""


class Sample(NamedTuple):
    """A process at one moment. at_s: since it was first seen."""

    at_s: float
    rss_kib: int
    fds: int
    threads: int


@dataclass(frozen=True, slots=True)
class Course:
    """The growth of the processes of a role, after the warm-up of each.

    lives: how many were there for long enough; over_s: how long together. slope_kib: the median of the slopes between
    all pairs of samples of one life, over all lives, in KiB per hour. fds, threads: the median over lives of how many
    more there were at the end. grows: what is beyond its bound, as words; empty for none.
    """

    role: str
    lives: int
    over_s: float
    first_rss_mib: float
    last_rss_mib: float
    slope_kib: float
    fds: float
    threads: float
    grows: tuple[str, ...]


def course(role: str, lives: Sequence[Sequence[Sample]], warm_up_s: float, bound_kib: float) -> Course | None:
    """None if no life was long enough. bound_kib: of the slope, per hour."""
    late = [[sample for sample in life if sample.at_s >= warm_up_s] for life in lives]
    late = [
        _thinned(life) for life in late if len(life) >= FEWEST_SAMPLES and life[-1].at_s - life[0].at_s >= SHORTEST_S
    ]
    if not late:
        return None
    slope = statistics.median(itertools.chain.from_iterable(map(_slopes, late)))
    fds = statistics.median(_growth(life, lambda sample: sample.fds) for life in late)
    threads = statistics.median(_growth(life, lambda sample: sample.threads) for life in late)
    grows = tuple(
        what
        for what, beyond in (("memory", slope > bound_kib), ("fds", fds > SPARE), ("threads", threads > SPARE))
        if beyond
    )
    return Course(
        role,
        len(late),
        round(sum(life[-1].at_s - life[0].at_s for life in late), 1),
        round(statistics.median(life[0].rss_kib for life in late) / 1024, 1),
        round(statistics.median(life[-1].rss_kib for life in late) / 1024, 1),
        round(slope, 1),
        fds,
        threads,
        grows,
    )


def _thinned(life: list[Sample]) -> list[Sample]:
    return life[:: -(-len(life) // MOST_SAMPLES)]


def _slopes(life: list[Sample]) -> list[float]:
    return [
        3600 * (later.rss_kib - sooner.rss_kib) / (later.at_s - sooner.at_s)
        for sooner, later in itertools.combinations(life, 2)
        if later.at_s > sooner.at_s
    ]


def _growth(life: list[Sample], value: Callable[[Sample], int]) -> float:
    few = FEWEST_SAMPLES // 2
    return statistics.median(map(value, life[-few:])) - statistics.median(map(value, life[:few]))
