"""Heartbeats: the moment for the next one, and the number of episodes that it says can be taken."""

from __future__ import annotations

import math

from nimbusd.core.estimate import Mean
from nimbusd.core.master.nodes import LONG_S
from nimbusd.core.node.held import HeldLeases
from nimbusd.core.node.staff import Staff

AHEAD_S = 0.5
"""Work that a node keeps queued, beside one next episode for every slot: more than a round trip to the master. Where
episodes are long, nothing is queued (LONG_S)."""
MOST_AHEAD = 2048
WORTH_TELLING = 1 / 8
"""The change of what a node can hold, as a part of what the master heard, that is worth a heartbeat of its own."""


class Heartbeats:
    """Of a node with so many slots, at least every `every_s`."""

    def __init__(self, slots: int, every_s: float, leases: HeldLeases, staff: Staff) -> None:
        self._slots = slots
        self._every_s = every_s
        self._leases = leases
        self._staff = staff
        self._cost = Mean()
        self._seq = 0
        self._told_at = -math.inf
        self._told_capacity: int | None = None
        """Episodes that the master reckons with; None: it waits to hear."""

    def connected(self, every_s: float | None) -> None:
        """The master is there again, and knows nothing. every_s: how often it wants to hear, if it says."""
        self._every_s = self._every_s if every_s is None else every_s
        self._told_at = -math.inf

    def episode_made(self, cost_s: float) -> None:
        """An episode took a slot so long."""
        self._cost.add(cost_s)

    def gave_back(self) -> None:
        """Episodes are given back: the master takes it that no more can be held, until it hears otherwise."""
        self._told_capacity = None

    def due(self, now: float) -> bool:
        """True where the last one is so long ago that the next must follow."""
        return now - self._told_at >= self._every_s

    def worth_telling(self, now: float, *, draining: bool) -> bool:
        """True where one is due, or half of what can be held is free and the master reckons with another capacity.

        The master counts what it leases and what is settled, so that a node whose capacity stays needs to tell
        nothing. draining: the node takes nothing more.
        """
        if self.due(now):
            return True
        if 2 * self._leases.holding() > self._most_held() and self._staff.idle() <= self._leases.waiting():
            return False
        told = self._told_capacity
        return told is None or abs(self._capacity(draining) - told) > WORTH_TELLING * told

    def tell(self, now: float, *, draining: bool) -> tuple[int, int]:
        """One is told now: its number, and how many episodes can be taken beyond those that are held."""
        self._seq += 1
        self._told_at, self._told_capacity = now, self._capacity(draining)
        return self._seq, self._credit(draining)

    def _most_held(self) -> int:
        """Episodes to hold at most: one for every slot, those for the backlogs, and some ahead.

        None are held ahead while their cost is not known, or long.
        """
        most = self._slots + self._staff.room()
        if not self._cost.count or self._cost.value >= LONG_S:
            return most
        return most + min(MOST_AHEAD, self._slots + math.ceil(AHEAD_S * self._slots / max(self._cost.value, 1e-6)))

    def _credit(self, draining: bool) -> int:
        if draining:
            return 0
        return max(0, self._most_held() - self._leases.holding(), self._staff.idle() - self._leases.waiting())

    def _capacity(self, draining: bool) -> int:
        return self._leases.holding() + self._credit(draining)
