"""Pieces that are stored and not told yet, and the rule by which they go out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from nimbusd.core.ids import LeaseId

GATHER_S = 0.05
"""The longest time that a piece waits for the answer to those before it."""

P = TypeVar("P")


class Commits(Generic[P]):
    """Pieces that are stored and not told yet. Of each lease one commit is under way at a time.

    What is stored meanwhile goes with the next one, as soon as the answer is there, or after `GATHER_S`. So where
    nobody waits for anything a piece is told at once, and a master that has much to do hears of many pieces in few
    messages. (Nagle's rule for small packets, RFC 896.)
    """

    def __init__(self) -> None:
        self._untold: dict[LeaseId, list[P]] = {}
        self._sent_at: dict[LeaseId, float] = {}

    def __len__(self) -> int:
        """Leases of which something is not told, or not answered."""
        return len(self._untold.keys() | self._sent_at.keys())

    def stored(self, lease: LeaseId, piece: P) -> None:
        """Note a piece that is to be told."""
        self._untold.setdefault(lease, []).append(piece)

    def due(self, now: float) -> Iterator[tuple[LeaseId, tuple[P, ...]]]:
        """Take the pieces that are to be told now, by lease."""
        ready = [lease for lease in self._untold if now - self._sent_at.get(lease, -GATHER_S) >= GATHER_S]
        for lease in ready:
            self._sent_at[lease] = now
            yield lease, tuple(self._untold.pop(lease))

    def answered(self, lease: LeaseId) -> None:
        """The master has answered for a lease: what waits may be told."""
        self._sent_at.pop(lease, None)

    def repeated(self, lease: LeaseId, now: float) -> None:
        """All pieces of a lease are told now, whether they were told before or not."""
        self._untold.pop(lease, None)
        self._sent_at[lease] = now

    def forget(self, lease: LeaseId) -> None:
        """A lease is over."""
        self._untold.pop(lease, None)
        self._sent_at.pop(lease, None)
