"""How jobs come to a master: submitted, taken up again after a restart, given another chance."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Container
from typing import TypeAlias

from nimbusd.core import facts as f
from nimbusd.core.episodes import JobId, JobRecorded, JobRow, JobState, LeaseOpened, SceneHistory, Tried
from nimbusd.core.scheduler import Scheduler
from nimbusd.job import Job
from nimbusd.master.ledger import LedgerError
from nimbusd.master.ledger_thread import LedgerThread
from nimbusd.master.publisher import Publisher
from nimbusd.stages.errors import NimbusError

log = logging.getLogger(__name__)

TRY_AGAIN_S = 30.0
"""After storage or a component was not as it should be."""
ENDED = (JobState.COMPLETE, JobState.INCOMPLETE, JobState.CANCELLED)

Begin: TypeAlias = Callable[[JobRow, Job, dict[str, SceneHistory], list[LeaseOpened]], None]


class Intake:
    """Takes jobs on, one at a time.

    open_jobs: those that are taken on. begin: makes a job one of them. fact: tells the scheduler.
    """

    def __init__(
        self,
        ledger: LedgerThread,
        publisher: Publisher,
        scheduler: Scheduler,
        open_jobs: Container[JobId],
        begin: Begin,
        fact: Callable[[f.Fact], None],
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._scheduler = scheduler
        self._open = open_jobs
        self._begin = begin
        self._fact = fact
        self._taking_on = asyncio.Lock()
        self.held_up: dict[JobId, str] = {}
        """Open jobs of the ledger that could not be taken on, and why."""

    async def resume(self, group: asyncio.TaskGroup) -> None:
        """Go on with the jobs of the ledger."""
        rows = await self._ledger.call(lambda ledger: [row for row in ledger.jobs() if row.state not in ENDED])
        for row in rows:
            try:
                await self._take_on(row, Job.from_dict(row.spec))
            except NimbusError as error:  # one job's output must not keep the others from going on
                self._hold_up(row, error)
                group.create_task(self._take_on_later(row))

    def _hold_up(self, row: JobRow, error: NimbusError) -> None:
        self.held_up[row.job] = str(error)
        log.error("job %s cannot go on, and is tried again every %g s: %s", row.job, TRY_AGAIN_S, error)

    async def _take_on_later(self, row: JobRow) -> None:
        while row.job in self.held_up:
            await asyncio.sleep(TRY_AGAIN_S)
            async with self._taking_on:
                if row.job not in self.held_up:  # it was submitted again
                    return
                try:
                    await self._take_on(row, Job.from_dict(row.spec))
                except NimbusError as error:
                    self._hold_up(row, error)

    async def submit(self, row: JobRow, job: Job, *, retry: bool = False) -> JobRow:
        """Take a job on, or go on with it; returns its row. retry: quarantined episodes get another chance.

        Raises LedgerError if another job has its name, or its output lies elsewhere; OutputBusy or StoreError if its
        output cannot be used.
        """
        async with self._taking_on:
            known = await self._ledger.call(lambda ledger: ledger.job(row.job))
            if known is not None and known.fingerprint != row.fingerprint:
                raise LedgerError(f"there is another job {row.job!r}, with other scenes, seed or pipeline: rename one")
            if known is not None and known.spec["output"] != row.spec["output"]:
                raise LedgerError(
                    f"job {row.job!r} has its pieces in {known.spec['output']}: submit it with that output to go on "
                    "with it, or give it another name to make it anew"
                )
            if known is not None:
                row = dataclasses.replace(
                    row,
                    submitted_unix_s=known.submitted_unix_s,
                    environment=row.environment or known.environment,
                )
            await self._ledger.call_writing(lambda ledger: ledger.put_job(row))
            if retry:
                await self._retry(row.job)
            if row.job not in self._open:
                await self._take_on(row, job)
            return row

    async def retry(self, name: JobId) -> int:
        """Make a job's quarantined episodes pending again. Returns how many."""
        async with self._taking_on:
            return await self._retry(name)

    async def _retry(self, name: JobId) -> int:
        released = await self._ledger.call_writing(lambda ledger: ledger.release_quarantined(name))
        episodes: dict[str, dict[int, Tried]] = {}
        for scene, index, tried in released:
            episodes.setdefault(scene, {})[index] = tried
        if name in self._scheduler.tasks.jobs:
            self._fact(f.EpisodesReleased(name, episodes))
        elif released and name not in self._open and (row := await self._row(name)) is not None:
            await self._ledger.submit([JobRecorded(name, JobState.RUNNING)])
            await self._take_on(row, Job.from_dict(row.spec))
        return len(released)

    async def _row(self, name: JobId) -> JobRow | None:
        return await self._ledger.call(lambda ledger: ledger.job(name))

    async def _take_on(self, row: JobRow, job: Job) -> None:
        history = await self._ledger.call(lambda ledger: ledger.history(row.job))
        leases = await self._ledger.call(lambda ledger: ledger.open_leases(row.job))
        await self._publisher.claim(row.job, job)
        await self._publisher.sweep(row.job, job)
        self.held_up.pop(row.job, None)
        self._begin(row, job, history, leases)
