"""Pace of a job's pipeline on a node: latencies, concurrency and throughput, measured while it runs."""

from __future__ import annotations

import math
from collections import deque

from nimbusd.core.estimate import Mean
from nimbusd.core.node.split import Latency

ENOUGH = 3
"""Samples of a stage before anything is decided by its mean."""
WINDOW_S = 60.0
_MOST_TIMES = 512


class Pace:
    """Of one job on one node. All methods take what happened and, where it matters, when."""

    def __init__(self) -> None:
        self._plan = Mean()
        self._good = Mean()
        self._render = Mean()
        self._store = Mean()
        self.writers = 1
        """Threads of a renderer that store."""
        self._stored_at: deque[float] = deque(maxlen=_MOST_TIMES)
        self._at_it = 0, 0
        self._means: tuple[float, ...] = (0.0, 0.0, 0.0)
        """Of processes that plan, of those that render, and of 1: the weight of all observations so far."""
        self._observed_at: float | None = None

    def planned(self, cost_s: float, good: bool) -> None:
        """A plan took a process so long, and did or did not succeed."""
        self._plan.add(cost_s)
        self._good.add(float(good), memory=200)

    def rendered(self, render_s: float, store_s: float, now: float) -> None:
        """An episode was rendered and stored."""
        self._render.add(render_s)
        self._store.add(store_s)
        self._stored_at.append(now)

    def observe(self, planning: int, rendering: int, now: float) -> None:
        """The numbers of processes that plan and that render have changed."""
        if self._observed_at is not None:
            weight = 1.0 - math.exp(-max(0.0, now - self._observed_at) / WINDOW_S)
            at_it = (*self._at_it, 1.0)
            self._means = tuple(mean + (n - mean) * weight for mean, n in zip(self._means, at_it, strict=True))
        self._at_it, self._observed_at = (planning, rendering), now

    def concurrency(self) -> tuple[float, float]:
        """Processes that plan and that render, means over the last minute, or since the first observation."""
        planning, rendering, observed = self._means
        return planning / max(observed, 1e-9), rendering / max(observed, 1e-9)

    def latency(self) -> Latency | None:
        """The mean latencies; None before both stages were seen a few times.

        Storing overlaps the next rendering, and matters where it takes longer.
        """
        if self._plan.count < ENOUGH or self._render.count < ENOUGH:
            return None
        return Latency(self._plan.value, max(self._render.value, self._store.value / self.writers), self._good.value)

    def means_s(self) -> tuple[float, float, float]:
        """Seconds to plan, to render and to store an episode; 0 where nothing is known."""
        return self._plan.value, self._render.value, self._store.value

    def good(self) -> float:
        """Share of plans that succeed."""
        return self._good.value if self._good.count else 1.0

    def achieved(self, now: float) -> float:
        """Episodes stored per second, over the last minute or since the first."""
        while len(self._stored_at) > 2 and now - self._stored_at[1] > WINDOW_S:
            self._stored_at.popleft()
        if len(self._stored_at) < 2:
            return 0.0
        return (len(self._stored_at) - 1) / max(now - self._stored_at[0], 1e-9)
