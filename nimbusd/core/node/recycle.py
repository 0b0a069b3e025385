"""Recycle compute workers that have grown too large, by the memory that they tell of after each episode.

A worker takes memory for its scene and its caches at first, and holds it; that is no leak. So its first episodes make
the baseline, and what it takes from then on is judged by how much it has grown over it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MB = 1 << 20
WARM_UP = 5
"""Episodes whose largest measurement is the baseline."""
LASTING = 3
"""Measurements in a row that must be too large: one may fall into a moment when an episode is being stored."""
LEAST_GROWTH_BYTES = 512 * MB
WORTH_IT = 0.25
"""A worker beyond its share is replaced only if it has grown by this part: else the next is no smaller."""


@dataclass(frozen=True, slots=True)
class RecycleLimits:
    """Limits of a worker's memory. growth_bytes: over its baseline; None: half of that, and at least 512 MB.

    share_bytes, gpu_share_bytes: its slot's fair share of the node's memory and of its GPU's; 0: not known.
    """

    growth_bytes: int | None = None
    share_bytes: int = 0
    gpu_share_bytes: int = 0


class WorkerMemory:
    """The memory of one compute worker, from its start to its end."""

    def __init__(self, limits: RecycleLimits) -> None:
        self._kinds = (
            _Kind("memory", limits.growth_bytes, limits.share_bytes),
            _Kind("GPU memory", limits.growth_bytes, limits.gpu_share_bytes),
        )

    def measured(self, rss_bytes: int, gpu_bytes: int = 0) -> str | None:
        """An episode is over, and the worker takes so much. Returns why it should make room for a new one, or None.

        gpu_bytes: 0 where that is not known.
        """
        reasons = [kind.measured(taken) for kind, taken in zip(self._kinds, (rss_bytes, gpu_bytes), strict=True)]
        return next((reason for reason in reasons if reason is not None), None)


class _Kind:
    """One kind of memory. limit_bytes: of growth; None: by the baseline."""

    def __init__(self, word: str, limit_bytes: int | None, share_bytes: int) -> None:
        self._word = word
        self._limit_bytes = limit_bytes
        self._share_bytes = share_bytes
        self._baseline_bytes = 0
        self._smallest_bytes: int | None = None
        self._measured = 0
        self._last: deque[int] = deque(maxlen=LASTING)

    def measured(self, taken_bytes: int) -> str | None:
        self._measured += 1
        self._last.append(taken_bytes)
        self._smallest_bytes = min(taken_bytes, self._smallest_bytes or taken_bytes)
        has_grown = taken_bytes - self._smallest_bytes > WORTH_IT * self._smallest_bytes
        if 0 < self._share_bytes < taken_bytes and has_grown:
            return f"{self._word}: {_mb(taken_bytes)}, its share is {_mb(self._share_bytes)}"
        if self._measured <= WARM_UP:
            self._baseline_bytes = max(self._baseline_bytes, taken_bytes)
            return None
        grown_bytes = min(self._last) - self._baseline_bytes
        if len(self._last) == LASTING and grown_bytes > self._allowed_bytes():
            return f"{self._word}: grown by {_mb(grown_bytes)} to {_mb(taken_bytes)}"
        return None

    def _allowed_bytes(self) -> int:
        if self._limit_bytes is not None:
            return self._limit_bytes
        return max(LEAST_GROWTH_BYTES, self._baseline_bytes // 2)


def _mb(number: int) -> str:
    return f"{number / MB:.0f} MB"
