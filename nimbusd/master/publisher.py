"""Publishing: what is committed becomes a dataset, now and then while a job runs, and when it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from nimbusd import events
from nimbusd.core.episodes import JobId
from nimbusd.job import Job
from nimbusd.master.ledger_thread import LedgerThread
from nimbusd.master.output import claim_output, publish_job, remember_job, sweep_pieces
from nimbusd.master.publish_apart import publish_apart
from nimbusd.stages.errors import NimbusError, StoreError
from nimbusd.stages.store.piece import PIECES

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 30.0
PUBLISH_SHARE = 20
"""Publishing takes at most one part in so many of the time: a slow publish is followed by a longer pause."""


MOST_HERE = 500
"""Episodes that are published in this process. More of them take memory that grows with all that was ever made."""


class _HasJob(Protocol):
    @property
    def job(self) -> Job: ...


class Publisher:
    """The output folders of a master's jobs. One publish at a time; commits go on meanwhile.

    every_s: at least so long between two rounds of publishing.
    """

    def __init__(
        self, ledger: LedgerThread, tell: Callable[[str, events.Event], None], every_s: float = PUBLISH_EVERY_S
    ) -> None:
        self._ledger = ledger
        self._every_s = every_s
        self._tell = tell
        self._news: dict[JobId, int] = {}
        self._one = asyncio.Lock()
        self._claims: dict[JobId, ExitStack] = {}

    async def claim(self, name: JobId, job: Job) -> None:
        """Take a job's output folder. Raises OutputBusy while another process works on it, or StoreError."""

        def claim() -> ExitStack:
            with ExitStack() as held:
                try:
                    held.enter_context(claim_output(job.output))
                    job.output.joinpath(PIECES).mkdir(exist_ok=True)
                    remember_job(job.output, job, self._ledger.path)
                except OSError as error:
                    raise StoreError(f"output {job.output} of job {name!r} cannot be used: {error}") from error
                return held.pop_all()

        self._claims[name] = await asyncio.to_thread(claim)

    async def sweep(self, name: JobId, job: Job) -> None:
        """Remove what crashed or refused attempts left behind."""
        swept = await self._ledger.call_apart(lambda ledger: sweep_pieces(job.output, name, ledger))
        if swept:
            log.info("%s: swept %d leftover pieces", job.output, swept)

    def release(self, name: JobId) -> None:
        """Let others work on the output folder of a job."""
        self._claims.pop(name).close()

    def close(self) -> None:
        """Release all output folders."""
        for name in list(self._claims):
            self.release(name)

    def committed(self, job: JobId) -> None:
        """There is something new to publish."""
        self._news[job] = self._news.get(job, 0) + 1

    async def run(self, jobs: Mapping[JobId, _HasJob]) -> None:
        """Publish now and then, until cancelled."""
        pause_s = self._every_s
        while True:
            await asyncio.sleep(pause_s)
            began = time.monotonic()
            for name in [name for name in jobs if self._news.pop(name, 0)]:
                try:
                    await self.publish(name, jobs[name].job, final=False)
                except NimbusError as error:
                    log.error("%s: %s", name, error)
            pause_s = max(self._every_s, PUBLISH_SHARE * (time.monotonic() - began))

    async def publish(self, name: JobId, job: Job, *, final: bool) -> Path | None:
        """Publish what is committed. Returns the dataset's path, None while nothing is committed."""
        async with self._one:
            count = await self._ledger.call(lambda ledger: ledger.totals(name))
            if count.committed > MOST_HERE:
                dataset, episodes = await publish_apart(job, self._ledger.path, final=final)
            else:
                dataset, episodes = await self._ledger.call_apart(
                    lambda ledger: publish_job(job, job.output, ledger, final=final)
                )
        if dataset is not None:
            self._tell(name, events.Published(str(dataset), episodes, final))
        return dataset
