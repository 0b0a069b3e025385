"""Jobs on their way into a master: submitted, taken up again after a restart, given another chance, forgotten.

A job is in the ledger only once its output folder is claimed, and a refusal leaves nothing. One that cannot be taken
on after a restart is *held up*: it is tried again now and then, and may be cancelled and forgotten meanwhile.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Container, Iterable
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.master import facts as f
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.core.records import JobRecorded, JobRow, JobState, LeaseOpened, LostPiece, SceneHistory, Tried
from nimbusd.job import Job
from nimbusd.master.intake.adoption import Adoption
from nimbusd.master.intake.plan import plan_of
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.output.outputs import Outputs, check_moved
from nimbusd.stages.errors import NimbusError

log = logging.getLogger(__name__)

TRY_AGAIN_S = 30.0
"""After storage or a component was not as it should be."""
RESUME_S = 5.0
"""A master that starts waits at most so long for the outputs of its jobs; what takes longer goes on beside it."""
ENDED = (JobState.COMPLETE, JobState.INCOMPLETE, JobState.CANCELLED)
_LOOKING = "its output is being looked at"

Begin: TypeAlias = Callable[[JobRow, Job, f.JobPlan, dict[str, SceneHistory], list[LeaseOpened]], None]


class Intake:
    """Takes jobs on, each by itself.

    open_jobs: those that are taken on. begin: makes a job one of them. set_down: makes one of them none of them, to be
    taken on anew. fact: tells the scheduler.
    """

    def __init__(
        self,
        ledger: LedgerThread,
        outputs: Outputs,
        scheduler: Scheduler,
        open_jobs: Container[JobId],
        begin: Begin,
        set_down: Callable[[JobId], Awaitable[None]],
        fact: Callable[[f.Fact], None],
    ) -> None:
        self._ledger = ledger
        self._outputs = outputs
        self._scheduler = scheduler
        self._open = open_jobs
        self._begin = begin
        self._set_down = set_down
        self._fact = fact
        self._locks: WeakValueDictionary[JobId, asyncio.Lock] = WeakValueDictionary()
        self.held_up: dict[JobId, str] = {}
        """Open jobs of the ledger that are not taken on yet, or could not be, and why."""

    # --- after a restart ---

    async def resume(self, group: asyncio.TaskGroup) -> None:
        """Go on with the jobs of the ledger: with those that take long, beside others that do not."""
        rows = await self._ledger.call(lambda ledger: [row for row in ledger.jobs() if row.state not in ENDED])
        self.held_up |= dict.fromkeys((row.job for row in rows), _LOOKING)
        if rows:
            await asyncio.wait([group.create_task(self._resume(row)) for row in rows], timeout=RESUME_S)

    async def _resume(self, row: JobRow) -> None:
        while row.job in self.held_up:
            async with self._lock(row.job):
                if row.job not in self.held_up:  # it was submitted again, or cancelled
                    return
                try:
                    await self._take_on(row, job_of(row), wanted=lambda: row.job in self.held_up)
                    return
                except NimbusError as error:  # one job's output must not keep the others from going on
                    self.held_up[row.job] = str(error)
                    log.error("job %s is held up, and is tried again every %g s: %s", row.job, TRY_AGAIN_S, error)
            await asyncio.sleep(TRY_AGAIN_S)

    # --- what clients ask for ---

    async def submit(self, row: JobRow, job: Job, *, retry: bool = False, adopt: bool = False) -> JobRow:
        """Take a job on, or go on with it; returns its row. retry: quarantined episodes get another chance.

        adopt: also if its output was written by a newer state of the ledger, or with settings that are the same but for
        their fingerprint. Raises LedgerError if another job has its name, or its output lies elsewhere; OutputBusy,
        OutputTaken or StoreError if its output cannot be used. Then the ledger is as it was.
        """
        async with self._lock(row.job):
            known = await self._ledger.call(lambda ledger: ledger.job(row.job))
            if known is not None:
                row, job = await self._same_job(known, row, job)
            if row.job in self._open and (known is None or known.spec["output"] == row.spec["output"]):
                await self._ledger.call_writing(lambda ledger: ledger.put_job(row))
            else:
                if row.job in self._open:  # its output was moved
                    await self._set_down(row.job)
                await self._take_on(row, job, adopt=adopt, record=True)
            if retry:
                await self._retry(row.job)
            return row

    async def _same_job(self, known: JobRow, row: JobRow, job: Job) -> tuple[JobRow, Job]:
        """The row of a job that is submitted again, and the job. Raises LedgerError if it is not the same one.

        Of one that began, those packages count that counted when it did.
        """
        if known.fingerprint != row.fingerprint:
            raise LedgerError(
                f"there is another job {row.job!r}, with other scenes, seed or pipeline: rename one, or remove the "
                f"other: `nimbusctl forget {row.job}`"
            )
        if known.spec.get("output") != row.spec["output"]:
            before, now = Path(str(known.spec.get("output"))), Path(str(row.spec["output"]))
            await asyncio.to_thread(check_moved, row.job, row.fingerprint, before, now)
        if known.environment:
            requires = known.spec.get("requires")
            job = dataclasses.replace(job, requires=None if requires is None else tuple(requires))
            row = dataclasses.replace(row, spec={**row.spec, "requires": requires})
        row = dataclasses.replace(
            row,
            submitted_unix_s=known.submitted_unix_s,
            environment=row.environment or known.environment,
            packages=known.packages if row.environment in ("", known.environment) else {},
            began_with=known.began_with,
        )
        return row, job

    async def retry(self, name: JobId) -> int:
        """Make a job's quarantined episodes pending again. Returns how many."""
        async with self._lock(name):
            return await self._retry(name)

    async def _retry(self, name: JobId) -> int:
        released = await self._ledger.call_writing(lambda ledger: ledger.release_quarantined(name))
        episodes: dict[str, dict[int, Tried]] = {}
        for scene, index, tried in released:
            episodes.setdefault(scene, {})[index] = tried
        if name in self._scheduler.tasks.jobs:
            self._fact(f.EpisodesReleased(name, episodes))
        elif released:
            await self._go_on(name)
        return len(released)

    async def put_back(self, name: JobId, episodes: Iterable[EpisodeKey]) -> int:
        """Have committed episodes made again, whose pieces are damaged or gone. Returns how many."""
        async with self._lock(name):
            lost = await self._ledger.call_writing(lambda ledger: ledger.put_back(name, episodes))
            by_scene: dict[str, dict[int, LostPiece]] = {}
            for key, piece in lost:
                by_scene.setdefault(key.scene, {})[key.index] = piece
            if name in self._scheduler.tasks.jobs:
                self._fact(f.PiecesLost(name, by_scene))
            elif lost:
                await self._go_on(name)
            return len(lost)

    async def cancel(self, name: JobId) -> bool:
        """Give up a job that is held up. False if it is not."""
        if self.held_up.pop(name, None) is None:
            return False
        await self._ledger.submit([JobRecorded(name, JobState.CANCELLED)])
        return True

    async def forget(self, name: JobId) -> Job | None:
        """Remove a job that is not at work from the ledger. Returns it, if its description is readable.

        Raises LedgerError for one that is at work.
        """
        if name in self._open:
            raise LedgerError(f"job {name!r} is not over: `nimbusctl cancel {name}` first")
        self.held_up.pop(name, None)
        async with self._lock(name):
            if name in self._open:  # it was submitted meanwhile
                raise LedgerError(f"job {name!r} is not over: `nimbusctl cancel {name}` first")
            row = await self._ledger.call(lambda ledger: ledger.job(name))
            await self._ledger.call_writing(lambda ledger: ledger.forget(name))
        try:
            return None if row is None else job_of(row)
        except NimbusError:
            return None

    # --- how ---

    def _lock(self, name: JobId) -> asyncio.Lock:
        """Of whoever takes on, changes or forgets a job of this name; kept as long as somebody holds or wants it."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def _go_on(self, name: JobId) -> None:
        """Take a job on again that is over, or that only its publishing keeps open."""
        row = await self._ledger.call(lambda ledger: ledger.job(name))
        if row is None:
            return
        if name in self._open:
            await self._set_down(name)
        await self._ledger.submit([JobRecorded(name, JobState.RUNNING)])
        await self._take_on(row, job_of(row))

    async def _take_on(
        self,
        row: JobRow,
        job: Job,
        *,
        adopt: bool = False,
        record: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Claim a job's output, adopt what lies there, and begin.

        record: put the job into the ledger once it is claimed. wanted: asked when it is.
        """
        plan = await asyncio.to_thread(plan_of, row, job)
        adoption = await self._outputs.take(job, anyway=adopt)
        try:
            if not wanted():
                self._outputs.release(row.job)
                return
            await self._ledger.call_writing(lambda ledger: _write(ledger, row, adoption, record=record))
            await self._outputs.settle(job, adoption)
            plan = dataclasses.replace(plan, first_attempt=adoption.first_attempt)
            history = await self._ledger.call(lambda ledger: ledger.history(row.job))
            leases = await self._ledger.call(lambda ledger: ledger.open_leases(row.job))
        except BaseException:
            self._outputs.release(row.job)
            raise
        self.held_up.pop(row.job, None)
        self._begin(row, job, plan, history, leases)


def job_of(row: JobRow) -> Job:
    """The job of a row of the ledger. Raises NimbusError if its description is none that this nimbusd understands."""
    try:
        return Job.from_dict(row.spec)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NimbusError(
            f"the description of job {row.job!r} in the ledger cannot be read ({type(error).__name__}: {error}). "
            f"Submit the job file again, or remove the job: `nimbusctl forget {row.job}`"
        ) from error


def _write(ledger: Ledger, row: JobRow, adoption: Adoption, *, record: bool) -> None:
    if record:
        ledger.put_job(row)
    if adoption.lost:
        ledger.put_back(row.job, adoption.lost)
    ledger.apply(adoption.records)
