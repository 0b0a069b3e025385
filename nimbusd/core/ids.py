"""Names of jobs, nodes, workers, leases and episodes, the same everywhere.

Messages carry them as they are, so this lies beneath the messages, and imports nothing of them but their bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, NamedTuple, NewType

from nimbusd.transport.messages.bounds import MOST_INT, Index, Length, Place, Range

JobId = NewType("JobId", str)
"""A job's name: unique at a master."""


NodeId = NewType("NodeId", str)
"""A node's name: unique at a master."""


WorkerId = NewType("WorkerId", str)
"""A compute worker of a node: its slot and how many came before it there, `cpu:0#3`."""
_NUMBER = "#"


def worker_of(slot: str, number: int) -> WorkerId:
    """The name of a slot's compute worker. number: of those before it in this slot."""
    return WorkerId(f"{slot}{_NUMBER}{number}")


def slot_of(worker: str) -> str:
    """The slot of a compute worker, by the worker's name; empty for what is no such name."""
    return worker.rpartition(_NUMBER)[0]


LeaseId = NewType("LeaseId", int)
"""Unique for the life of a ledger: the master's epoch in the high bits."""


class Span(NamedTuple):
    """Episode indexes start … stop - 1."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of its episodes."""
        return self.stop - self.start


def indexes_of(spans: Iterable[Span]) -> Iterator[int]:
    """The indexes in these spans."""
    return (index for span in spans for index in range(span.start, span.stop))


def spans_of(indexes: Iterable[int]) -> tuple[Span, ...]:
    """Sorted, disjoint spans, not touching each other, of these indexes."""
    spans: list[Span] = []
    for index in sorted(indexes):
        if spans and spans[-1].stop == index:
            spans[-1] = Span(spans[-1].start, index + 1)
        else:
            spans.append(Span(index, index + 1))
    return tuple(spans)


@dataclass(frozen=True, slots=True)
class EpisodeKey:
    """An episode: a scene of a job and an index in it."""

    job: Annotated[JobId, Length(1_024)]
    scene: Place
    index: Index


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at an episode."""

    key: EpisodeKey
    number: Index
    """Its fencing number, which grows by one with each lease of the episode."""
    lease: Annotated[LeaseId, Range(0, MOST_INT)]
    """The lease that it is made under."""
