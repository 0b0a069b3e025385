"""Publishing: what is committed becomes a dataset, now and then while a job runs, and when it ends.

Each publish is a process of its own (see `publish_apart`). Jobs do not wait for one another, except for one of LANES
places; those whose last publish failed share a single other one, so that hanging writers hinder only each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from nimbusd import events
from nimbusd.config import PUBLISH_MEMORY_SHARE
from nimbusd.core.ids import JobId
from nimbusd.core.master.publishing import PublishTimes
from nimbusd.job import Job
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.publish.apart import NotPublished, publish_apart, publish_limits

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 30.0
LANES = 3
LOOK_S = 0.5
"""Seconds between two looks whether a job is due."""


class _HasJob(Protocol):
    @property
    def job(self) -> Job: ...


class Publisher:
    """Publishes a master's jobs. One publish at a time of a job; commits go on meanwhile.

    every_s: at least so long between two publishes of a job. memory_share: of the machine's memory, for each of them.
    """

    def __init__(
        self,
        ledger: LedgerThread,
        tell: Callable[[str, events.Event], None],
        every_s: float = PUBLISH_EVERY_S,
        memory_share: float = PUBLISH_MEMORY_SHARE,
    ) -> None:
        self._ledger = ledger
        self._every_s = every_s
        self._memory_share = memory_share
        self._tell = tell
        self._times = PublishTimes(every_s)
        self._one: dict[JobId, asyncio.Lock] = {}
        self._over: set[JobId] = set()
        """Jobs that are published for the last time."""
        self._lanes = asyncio.Semaphore(LANES)
        self._doubtful_lane = asyncio.Semaphore(1)
        self._jobs: set[JobId] = set()

    def begin(self, name: JobId) -> None:
        """A job is open."""
        self._jobs.add(name)

    def forget(self, name: JobId) -> None:
        """A job is over, or will begin anew."""
        self._jobs.discard(name)
        self._times.forget(name)
        self._over.discard(name)

    def committed(self, job: JobId) -> None:
        """There is something new to publish."""
        self._times.news(job, time.monotonic())

    async def run(self, jobs: Mapping[JobId, _HasJob]) -> None:
        """Publish now and then, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(min(LOOK_S, self._every_s))
                for name in self._times.due(time.monotonic()):
                    if name in jobs and name not in self._over:
                        self._times.began(name)
                        group.create_task(self._publish_interim(name, jobs[name].job))

    async def _publish_interim(self, name: JobId, job: Job) -> None:
        with contextlib.suppress(NotPublished):  # which was told, and is tried again
            await self.publish(name, job, final=False)

    async def publish(self, name: JobId, job: Job, *, final: bool) -> Path | None:
        """Publish what is committed. Returns the dataset's path, None while nothing is committed.

        Raises NotPublished, which was told to those who watch.
        """
        lane = self._doubtful_lane if self._times.is_doubtful(name) else self._lanes
        async with self._one.setdefault(name, asyncio.Lock()), lane:
            if not final and (name in self._over or name not in self._jobs):
                return None  # the job ended while it waited for its turn
            self._times.began(name)
            began = time.monotonic()
            limits = publish_limits(job, self._memory_share)
            try:
                dataset, episodes = await publish_apart(job, self._ledger.path, limits, final=final)
            except NotPublished as error:
                again_s = self._times.failed(name, time.monotonic())
                if final or name in self._jobs:  # else its job is over by now, and nobody tries again
                    log.error("%s: %s; tried again in %g s\n%s", name, error, again_s, error.evidence)
                    self._tell(name, events.PublishFailed(str(error), error.evidence, final, again_s))
                raise
            self._times.succeeded(name, time.monotonic() - began, time.monotonic())
        if dataset is not None:
            self._tell(name, events.Published(str(dataset), episodes, final))
        return dataset

    async def publish_last(self, name: JobId, job: Job) -> Path | None:
        """Publish what a job that is over has committed; where that fails, again and again until it succeeds."""
        self._over.add(name)
        while True:
            with contextlib.suppress(NotPublished):  # which was told
                return await self.publish(name, job, final=True)
            await asyncio.sleep(self._times.again_in_s(name, time.monotonic()))
