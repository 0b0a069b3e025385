"""Requests that await an answer: their numbers, when they are sent again, and when they are given up.

No clock and no socket in here: the client (or a test) says what time it is and carries out what comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nimbusd.transport.messages import control

REPEAT_AFTER_S = 3.0
"""The time without an answer after which a request is sent again: every request may be repeated."""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A request on its way. patience_s: how long the master may take by design (a Watch). sent_at: None: not yet."""

    message: control.Request
    asked_at: float
    give_up_at: float
    patience_s: float = 0.0
    sent_at: float | None = None

    @property
    def number(self) -> int:
        """The answer repeats it."""
        return self.message.request

    def due_at(self) -> float:
        """The time at which it is to be sent (again), if there is a connection."""
        return self.asked_at if self.sent_at is None else self.sent_at + self.patience_s + REPEAT_AFTER_S


class RequestTable:
    """The outstanding requests of one client. Numbers start at 1 and are never used twice."""

    def __init__(self) -> None:
        self._outstanding: dict[int, Outstanding] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._outstanding)

    def ask(
        self, make: Callable[[int], control.Request], now: float, timeout_s: float, patience_s: float = 0.0
    ) -> Outstanding:
        """Give a request its number. It is due at once, and given up `timeout_s` after the master's patience."""
        self._last += 1
        request = Outstanding(make(self._last), now, now + patience_s + timeout_s, patience_s)
        assert request.number == self._last, "a request must carry the number that it was given"
        self._outstanding[request.number] = request
        return request

    def due(self, now: float) -> list[Outstanding]:
        """Those to send now, oldest first. Say `sent` of each that left."""
        return [request for request in self._outstanding.values() if request.due_at() <= now]

    def sent(self, number: int, now: float) -> None:
        """The request left on the connection."""
        self._outstanding[number] = replace(self._outstanding[number], sent_at=now)

    def reconnected(self) -> None:
        """A new connection: what was sent on the old one may be lost, so all are due."""
        for number, request in self._outstanding.items():
            self._outstanding[number] = replace(request, sent_at=None)

    def settle(self, number: int) -> Outstanding | None:
        """Answered, or nobody waits for it any more. None: it was not outstanding (a second answer)."""
        return self._outstanding.pop(number, None)

    def expired(self, now: float) -> list[Outstanding]:
        """Those to give up now; they are forgotten."""
        late = [request for request in self._outstanding.values() if request.give_up_at <= now]
        for request in late:
            del self._outstanding[request.number]
        return late

    def all(self) -> list[Outstanding]:
        """Every outstanding request, oldest first."""
        return list(self._outstanding.values())

    def next_at(self, connected: bool) -> float | None:
        """The time at which `due` or `expired` will have something if no answer comes; None: nothing is asked."""
        times = [request.give_up_at for request in self._outstanding.values()]
        if connected:
            times += [request.due_at() for request in self._outstanding.values()]
        return min(times, default=None)
