"""Times to publish a job's dataset, and limits of a process that publishes.

A writer is somebody else's code: it may be slow, fail for a while, or hang for ever. So each job has its own times,
and one whose last publishing failed waits longer after every failure, at most MOST_PAUSE_S.
"""

from __future__ import annotations

from dataclasses import dataclass

from nimbusd.core.ids import JobId

PUBLISH_FRACTION = 1 / 20
"""The part of the time that publishing takes at most: a slow publish is followed by a longer pause."""
FIRST_PAUSE_S = 5.0
MOST_PAUSE_S = 600.0


def pause_s(failures: int) -> float:
    """Seconds to wait after a number of failures in a row, at least one."""
    assert failures > 0
    return min(MOST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True)
class PublishLimits:
    """Limits of a publishing process. silence_s: without a beat. memory_bytes: with all that it has started."""

    silence_s: float
    memory_bytes: int


def must_die(limits: PublishLimits, silent_s: float, memory_bytes: int) -> str:
    """The reason to kill a publishing process; empty if it may go on."""
    if silent_s > limits.silence_s:
        return f"no sign of progress for {limits.silence_s:g} s"
    if memory_bytes > limits.memory_bytes:
        return f"it took {memory_bytes / 1e6:,.0f} MB of memory, and may take {limits.memory_bytes / 1e6:,.0f} MB"
    return ""


@dataclass(slots=True)
class _Times:
    """not_before: None until there is something to publish. failures: in a row."""

    has_news: bool = False
    running: bool = False
    not_before: float | None = None
    failures: int = 0


class PublishTimes:
    """The times at which running jobs are to be published.

    every_s: at least so long from the first news to a publish, and from one publish to the next. A publish may end when
    its job is over and forgotten: that changes nothing.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._jobs: dict[JobId, _Times] = {}

    def news(self, job: JobId, now: float) -> None:
        """There is something new to publish."""
        times = self._jobs.setdefault(job, _Times())
        times.has_news = True
        if times.not_before is None:
            times.not_before = now + self._every_s

    def due(self, now: float) -> list[JobId]:
        """The jobs to publish now."""
        return [
            job
            for job, times in self._jobs.items()
            if times.has_news and not times.running and times.not_before is not None and times.not_before <= now
        ]

    def began(self, job: JobId) -> None:
        """A publish of all that is committed has begun."""
        times = self._jobs.setdefault(job, _Times())
        times.has_news, times.running = False, True

    def succeeded(self, job: JobId, took_s: float, now: float) -> None:
        """The publish is done."""
        times = self._jobs.get(job, _Times())
        times.running, times.failures = False, 0
        times.not_before = now + max(self._every_s, took_s / PUBLISH_FRACTION)

    def failed(self, job: JobId, now: float) -> float:
        """The publish came to nothing, and is due again. Returns in how many seconds."""
        times = self._jobs.get(job, _Times())
        times.running, times.has_news = False, True
        times.failures += 1
        times.not_before = now + pause_s(times.failures)
        return pause_s(times.failures)

    def again_in_s(self, job: JobId, now: float) -> float:
        """Seconds until the job may be published again."""
        times = self._jobs.get(job, _Times())
        return 0.0 if times.not_before is None else max(0.0, times.not_before - now)

    def is_doubtful(self, job: JobId) -> bool:
        """True where the job's last publish failed."""
        return job in self._jobs and self._jobs[job].failures > 0

    def forget(self, job: JobId) -> None:
        """The job is over."""
        self._jobs.pop(job, None)
