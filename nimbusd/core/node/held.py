"""The leases that a node holds: what waits to be begun, who has what, what the master has not acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from nimbusd.core.ids import Attempt, EpisodeKey, JobId, LeaseId, WorkerId
from nimbusd.core.tally import Tally
from nimbusd.transport.messages.node import Fail, Lease, Stored

Outcome: TypeAlias = Stored | Fail | None
"""The end of an episode here; None: it is given back."""
TELL_AGAIN_S = 3.0
MOST_REMEMBERED = 1024
"""Leases that are over: a message that comes late, or twice, must not open one again."""


@dataclass(slots=True)
class HeldLease:
    """A lease and its episodes, by index."""

    order: Lease
    """The master's order."""
    waiting: deque[int] = field(default_factory=deque)
    """Not begun."""
    given: dict[int, WorkerId] = field(default_factory=dict)
    """At a compute worker."""
    planned: set[int] = field(default_factory=set)
    """In the backlog."""
    told: dict[int, Outcome] = field(default_factory=dict)
    """Over, and not yet acknowledged."""
    again_at: float = 0.0
    """The time at which the outcomes are told again."""

    @property
    def id(self) -> LeaseId:
        return self.order.lease

    @property
    def job(self) -> JobId:
        return self.order.job

    def over(self) -> bool:
        return not (self.waiting or self.given or self.planned or self.told)

    def attempt(self, index: int) -> Attempt:
        """The attempt at an episode that this lease is for."""
        order = self.order
        return Attempt(EpisodeKey(order.job, order.scene, index), order.attempt, order.lease)

    def note(self, index: int, outcome: Outcome, now: float) -> None:
        """Keep an outcome, which is told now, until it is acknowledged."""
        if not self.told:
            self.again_at = now + TELL_AGAIN_S
        self.told[index] = outcome


class HeldLeases:
    """All leases of a node, in the order in which they came."""

    def __init__(self) -> None:
        self._leases: dict[LeaseId, HeldLease] = {}
        self._over: dict[LeaseId, None] = {}
        self._waiting: Tally[JobId] = Tally()

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[HeldLease]:
        return iter(self._leases.values())

    def __getitem__(self, lease: LeaseId) -> HeldLease:
        return self._leases[lease]

    def get(self, lease: LeaseId) -> HeldLease | None:
        """A lease that is held, or None."""
        return self._leases.get(lease)

    def ids(self) -> tuple[LeaseId, ...]:
        """The leases' ids, in order."""
        return tuple(self._leases)

    def jobs(self) -> frozenset[JobId]:
        """The jobs of which leases are held."""
        return frozenset(held.job for held in self)

    def waiting(self, job: JobId | None = None) -> int:
        """Episodes that wait to be begun, of a job or of all."""
        return sum(self._waiting.values()) if job is None else self._waiting[job]

    def holding(self) -> int:
        """Episodes of which no outcome is known."""
        return sum(len(held.waiting) + len(held.given) + len(held.planned) for held in self)

    def open(self, lease: Lease) -> HeldLease | None:
        """Take a lease in; None if it is here already, or over."""
        if lease.lease in self._leases or lease.lease in self._over:
            return None
        held = self._leases[lease.lease] = HeldLease(lease)
        for span in lease.spans:
            held.waiting.extend(range(span.start, span.stop))
        self._waiting.change(lease.job, len(held.waiting))
        return held

    def begin_next(self, held: HeldLease) -> int:
        """The first episode that waits; it waits no more."""
        self._waiting.change(held.job, -1)
        return held.waiting.popleft()

    def wait_again(self, held: HeldLease, index: int) -> None:
        """Have an episode wait to be begun, first in line."""
        held.waiting.appendleft(index)
        self._waiting.change(held.job, 1)

    def drop_waiting(self, held: HeldLease, wanted: Iterable[int] | None = None) -> tuple[int, ...]:
        """Take episodes (all, or those of `wanted`) from those that wait; returns them."""
        chosen = None if wanted is None else set(wanted)
        dropped = tuple(index for index in held.waiting if chosen is None or index in chosen)
        if dropped:
            gone = set(dropped)
            held.waiting = deque(index for index in held.waiting if index not in gone)
            self._waiting.change(held.job, -len(dropped))
        return dropped

    def close_if_over(self, held: HeldLease) -> bool:
        """Forget a lease of which nothing is left to do or to tell. Returns whether it was."""
        if not held.over():
            return False
        del self._leases[held.id]
        self.remember_over(held.id)
        return True

    def sizes(self) -> tuple[int, int]:
        """The numbers of leases that are held, and of those that are over and remembered."""
        return len(self._leases), len(self._over)

    def remembered(self) -> int:
        """The number of leases that are over and remembered."""
        return len(self._over)

    def remember_over(self, lease: LeaseId) -> None:
        """A lease must not be opened any more."""
        self._over[lease] = None
        if len(self._over) > MOST_REMEMBERED:
            del self._over[next(iter(self._over))]
