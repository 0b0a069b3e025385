"""A virtual network: delay, loss, duplication, reordering and partitions, on links between named ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from nimbusd.simulate.clock import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Weather:
    """Faults of the network, by chance.

    delay_s: of every message; jitter_s: mean of what comes on top (exponential). reorder: later messages may
    overtake earlier ones; without it a link keeps their order, as TCP does. loss, duplication: shares of messages.
    """

    delay_s: float = 0.002
    jitter_s: float = 0.0
    reorder: bool = False
    loss: float = 0.0
    duplication: float = 0.0


FAIR = Weather()


class Network:
    """Carries messages. A partition also swallows what is on its way."""

    def __init__(self, clock: Clock, rng: Random, weather: Weather = FAIR) -> None:
        self.weather = weather
        self.lost = 0
        self._clock = clock
        self._rng = rng
        self._cut: set[tuple[str, str]] = set()
        self._last: dict[tuple[str, str], float] = {}

    def cut(self, source: str, target: str) -> None:
        """Let nothing through in this direction."""
        self._cut.add((source, target))

    def heal(self, source: str, target: str) -> None:
        """Let messages through again."""
        self._cut.discard((source, target))

    def is_cut(self, source: str, target: str) -> bool:
        """True where nothing gets through in this direction."""
        return (source, target) in self._cut

    def lag_s(self) -> float:
        """For how long a message that is sent now may have to wait for those before it."""
        return max(self._last.values(), default=0.0) - self._clock.now

    def send(
        self, source: str, target: str, deliver: Callable[[T], None], message: T, *, in_order: bool = False
    ) -> None:
        """Have `deliver(message)` called when the message arrives, if it does.

        in_order: it is what only the end of a connection can lose, and a new connection tells again: it may be delayed
        and cut off, but neither lost otherwise nor repeated, and overtakes no other such message.
        """
        weather = self.weather
        copies = 1
        if not in_order:
            copies += weather.duplication > 0 and self._rng.random() < weather.duplication
        for _ in range(copies):
            if not in_order and weather.loss > 0 and self._rng.random() < weather.loss:
                self.lost += 1
                continue
            delay_s = weather.delay_s + (self._rng.expovariate(1 / weather.jitter_s) if weather.jitter_s else 0.0)
            when, link = self._clock.now + delay_s, (source, target)
            if in_order or not weather.reorder:
                when = self._last[link] = max(when, self._last.get(link, 0.0))
            self._clock.at(when, self._arrive, link, deliver, message)

    def _arrive(self, link: tuple[str, str], deliver: Callable[[T], None], message: T) -> None:
        if link in self._cut:
            self.lost += 1
        else:
            deliver(message)
