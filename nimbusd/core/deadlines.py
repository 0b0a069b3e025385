"""Allowances: a compute worker may be silent as long as the job says, or less, once its stages were measured.

A limit that is safe for every stage of every scene is far too long for most: a planner that beats every millisecond
hangs for two minutes before anybody minds. So each stage's silences (times between beats) are learned, and the
limit comes down to some multiple of what is usual.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_GROWTH = 1.1
"""Neighbouring buckets differ by this factor: a quantile is known to 10%, and never told too small."""
_SMALLEST_S = 1e-6
_LOG_GROWTH = math.log(_GROWTH)


class Quantiles:
    """Quantiles of a stream of durations, in little memory: counts in buckets that grow by a factor.

    Why not P²: it starts as a guess, and the 99th percentile of the first hundred beats is what we ask for. Here
    every answer is an upper bound, the maximum is exact, and old durations can be made to count for less.
    """

    def __init__(self, most: int = 4096) -> None:
        """most: after so many durations, all that were seen count half."""
        self._most = most
        self._buckets: dict[int, int] = {}
        self.seen = 0
        self.longest_s = 0.0

    def add(self, duration_s: float) -> None:
        """One more duration."""
        bucket = math.ceil(math.log(duration_s / _SMALLEST_S) / _LOG_GROWTH) if duration_s > _SMALLEST_S else 0
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.seen += 1
        self.longest_s = max(self.longest_s, duration_s)
        if self.seen >= self._most:
            self._fade()

    def quantile_s(self, share: float) -> float:
        """A duration that at least `share` of those seen did not exceed, and at most 10% above the least such."""
        if not self.seen:
            return 0.0
        left = max(1, math.ceil(share * self.seen))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                break
        return min(_SMALLEST_S * _GROWTH**bucket, self.longest_s)

    def _fade(self) -> None:
        self._buckets = {bucket: count // 2 for bucket, count in self._buckets.items() if count > 1}
        self.seen = sum(self._buckets.values())


class Deadlines:
    """The allowances of a job's stages.

    limit_s: the job's beat timeout. stage_limits_s: of stages that have their own. Neither is ever exceeded. Below
    `floor_s` nothing is ever cut: a loaded machine makes anybody silent for seconds. Once `enough` silences of a
    stage are known its allowance is `factor` times their 99th percentile, and at least twice the longest of them:
    what has happened once and was well may happen again.
    """

    def __init__(
        self,
        limit_s: float,
        stage_limits_s: Mapping[str, float] | None = None,
        *,
        floor_s: float = 10.0,
        factor: float = 20.0,
        enough: int = 200,
    ) -> None:
        self._limit_s = limit_s
        self._stage_limits_s = dict(stage_limits_s or {})
        self._floor_s = floor_s
        self._factor = factor
        self._enough = enough
        self._silences: dict[str, Quantiles] = {}
        self._learned_s: dict[str, float] = {}

    def limit_s(self, stage: str) -> float:
        """The job's allowance for a stage, in seconds."""
        return self._stage_limits_s.get(stage, self._limit_s)

    def allowance_s(self, stage: str) -> float:
        """Seconds that a thread in a stage may be silent from now on."""
        limit_s = self.limit_s(stage)
        return min(limit_s, self._learned_s.get(stage, limit_s))

    def learn(self, stage: str, silence_s: float) -> None:
        """A stage was silent for so long, and then beat."""
        if stage not in self._silences:
            self._silences[stage] = Quantiles()
        silences = self._silences[stage]
        record = silence_s > silences.longest_s
        silences.add(silence_s)
        # The quantile moves slowly; the longest must count at once.
        if silences.seen >= self._enough and (record or silences.seen % 64 == 0 or stage not in self._learned_s):
            usual_s = self._factor * silences.quantile_s(0.99)
            self._learned_s[stage] = max(self._floor_s, usual_s, 2 * silences.longest_s)
