"""The episodes that the daemon wants of a compute worker, from the order to their end."""

from __future__ import annotations

from collections import deque

from nimbusd.compute.link import DaemonLink
from nimbusd.compute.progress import ThreadProgress, wait_for_message
from nimbusd.core.ids import Attempt, WorkerId
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.types import EpisodeRequest
from nimbusd.transport.messages import local as m


class EpisodeOrders:
    """The orders for episodes to a worker. Only the working thread asks for the next; any thread may end one.

    working: the progress of that thread. wait_s: how often it shows that it waits.
    """

    def __init__(self, link: DaemonLink, worker: WorkerId, working: ThreadProgress, wait_s: float) -> None:
        self._link = link
        self._worker = worker
        self._working = working
        self._wait_s = wait_s
        self._waiting: deque[m.MakeEpisode] = deque()
        self._begun: dict[EpisodeRequest, m.MakeEpisode] = {}
        self.current: m.MakeEpisode | None = None
        """For the episode that is being loaded, planned or rendered."""

    def next(self) -> m.MakeEpisode | None:
        """Wait for the next order. None once the daemon wants us to leave: what has not begun has gone back then."""
        self.current = None
        while True:
            if self._waiting:
                self._working.promise("wait", self._wait_s)
                message = self._link.receive(timeout_s=0.0)
            else:
                message = wait_for_message(self._link, self._working, self._wait_s)
            if isinstance(message, m.MakeEpisode):
                self._waiting.append(message)
            elif isinstance(message, m.Leave):
                self._link.send(m.WorkerReturns(self._worker, tuple(order.attempt for order in self._waiting)))
                return None
            elif message is None:
                return self._waiting.popleft()
            else:
                raise NimbusError(f"the daemon sent an unexpected {type(message).__name__}")

    def begin(self, order: m.MakeEpisode, request: EpisodeRequest) -> None:
        """Turn to an order, which asks for the episode of this request."""
        self.current = self._begun[request] = order

    def of(self, request: EpisodeRequest) -> m.MakeEpisode:
        """The order for an episode that has begun."""
        return self._begun[request]

    def end(self, request: EpisodeRequest) -> Attempt:
        """Forget an order, since the end of its attempt is about to be told. Returns the attempt."""
        return self._begun.pop(request).attempt
