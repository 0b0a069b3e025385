"""The episodes that the daemon has leased to a compute worker, from their arrival to their end."""

from __future__ import annotations

from collections import deque

from nimbusd.compute.link import DaemonLink
from nimbusd.compute.progress import ThreadProgress, wait_for_message
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.types import Episode
from nimbusd.transport.messages import worker as m


class Leases:
    """The leases of the worker `name`. Only the working thread asks for the next; any thread may end one.

    working: the progress of that thread. wait_s: how often it shows that it waits.
    """

    def __init__(self, link: DaemonLink, name: str, working: ThreadProgress, wait_s: float) -> None:
        self._link = link
        self._name = name
        self._working = working
        self._wait_s = wait_s
        self._waiting: deque[m.Lease] = deque()
        self._begun: dict[tuple[str, int, int], m.Lease] = {}
        self.current: m.Lease | None = None
        """Of the episode that is being loaded, planned or rendered."""

    def next(self) -> m.Lease | None:
        """Wait for the next lease, which is the current one from now on.

        None once the daemon wants us to leave: what has not begun has gone back then.
        """
        self.current = None
        while True:
            if self._waiting:
                self._working.promise("wait", self._wait_s)
                message = self._link.receive(timeout_s=0.0)
            else:
                message = wait_for_message(self._link, self._working, self._wait_s)
            if isinstance(message, m.Lease):
                self._waiting.append(message)
            elif isinstance(message, m.Drain):
                self._link.send(m.GiveBack(self._name, tuple(lease.episode for lease in self._waiting)))
                return None
            elif message is None:
                return self._begin(self._waiting.popleft())
            else:
                raise NimbusError(f"the daemon sent an unexpected {type(message).__name__}")

    def of(self, episode: Episode) -> m.Lease:
        """The lease of an episode that has begun."""
        return self._begun[_key(episode)]

    def end(self, episode: Episode) -> m.EpisodeRef:
        """Forget an episode, whose end is about to be told. Returns what the daemon calls it."""
        return self._begun.pop(_key(episode)).episode

    def _begin(self, lease: m.Lease) -> m.Lease:
        ref = lease.episode
        self.current = self._begun[ref.scene, ref.index, ref.attempt] = lease
        return lease


def _key(episode: Episode) -> tuple[str, int, int]:
    request = episode.request
    return request.scene, request.index, request.attempt
