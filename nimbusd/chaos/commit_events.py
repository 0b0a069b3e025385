"""The events of a master, followed in a thread through its restarts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping

from nimbusd.client import Client, ClientClosed, Event, Gap
from nimbusd.core.ids import EpisodeKey, JobId


class CommitEvents(threading.Thread):
    """Counts the commits among the master's events, and notes when episodes were settled."""

    def __init__(self, client: Client) -> None:
        super().__init__(name="commits", daemon=True)
        self._client = client
        self._cursor = client.cursor()
        self._lock = threading.Lock()
        self._commits: dict[str, Counter[EpisodeKey]] = {}
        self._news: list[tuple[EpisodeKey, float]] = []
        self.missed = 0
        """Places where events were lost, which a killed master takes along."""

    def run(self) -> None:
        """Follow the master until the client is closed."""
        try:
            for item in self._client.watch(self._cursor):
                with self._lock:
                    self._take(item)
        except ClientClosed:
            return

    def of(self, job: str) -> Mapping[EpisodeKey, int]:
        """The number of commit events of each episode of a job."""
        with self._lock:
            return Counter(self._commits.get(job, {}))

    def news(self) -> list[tuple[EpisodeKey, float]]:
        """Episodes settled since the last call, committed or found to be impossible, with times (CLOCK_MONOTONIC)."""
        with self._lock:
            news, self._news = self._news, []
        return news

    def _take(self, item: Event | Gap) -> None:
        if isinstance(item, Gap):
            self.missed += 1
        elif item.name in ("episode_committed", "episode_failed"):
            episode = EpisodeKey(JobId(item.job), str(item.fields["scene"]), int(item.fields["index"]))
            if item.name == "episode_committed":
                self._commits.setdefault(item.job, Counter())[episode] += 1
            self._news.append((episode, time.monotonic()))
