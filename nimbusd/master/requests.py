"""Clients' requests, answered one by one. A bad request is refused with a sentence; it never harms the master."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.core.master.facts import EnvironmentAccepted, JobCancelled
from nimbusd.core.records import JobRow
from nimbusd.core.words import counted
from nimbusd.job import Job
from nimbusd.master.intake.jobs import job_of
from nimbusd.master.intake.repair import chosen, damaged, set_aside
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.master.master import Master
from nimbusd.master.output.folder import delete_output_of
from nimbusd.master.reports import Reports
from nimbusd.stages.errors import NimbusError
from nimbusd.transport.codec.codec import MessageError
from nimbusd.transport.messages import control as c

MOST_WAIT_S = 60.0
MOST_FAILURES = 500
_LONGEST_NAME = NodeId("n" * 100)
_MOST_SPANS = (Span(2**31, 2**31),) * 64
MOST_FAILURES_BYTES = c.MAX_JOB_BYTES // 2
"""Of text in one list of failures: evidence in other alphabets takes up to four bytes a character."""


class Requests:
    """Answers requests. tokens: issues a join token good for so many seconds, as (token, expiry in Unix seconds);
    None where nobody can join.
    """

    def __init__(
        self,
        master: Master,
        counters: Callable[[], Mapping[str, int]],
        tokens: Callable[[float], tuple[str, float]] | None = None,
    ) -> None:
        self._master = master
        self._reports = Reports(master)
        self._counters = counters
        self._tokens = tokens

    async def answer(self, request: c.Request) -> c.Reply:
        """The answer to a request."""
        try:
            return await self._answer(request)
        except _Unknown as error:
            return c.Refused(request.request, error.code, str(error))
        except LedgerError as error:
            return c.Refused(request.request, "exists", str(error))
        except NimbusError as error:
            return c.Refused(request.request, "bad_job", str(error))

    async def _answer(self, request: c.Request) -> c.Reply:
        number = request.request
        match request:
            case c.Submit():
                return c.JobList(number, (await self._reports.summary(await self._submit(request)),))
            case c.Jobs(_, ended):
                return c.JobList(number, await self._reports.jobs(ended))
            case c.JobDetail(_, job):
                return await self._reports.detail(number, await self._row(job))
            case c.Cancel(_, job):
                row = await self._row(job)
                if await self._master.intake.cancel(row.job):
                    return c.Done(number, 1, f"job {job}, which was held up, is cancelled; what it has committed stays")
                if self._master.give_up_publishing(row.job):
                    said = f"job {job} is cancelled; what it has committed stays, and `nimbusctl publish` publishes it"
                    return c.Done(number, 1, said)
                if row.job not in self._master.scheduler.tasks.jobs:
                    return c.Done(number, 0, f"job {job} is over already")
                self._master.fact(JobCancelled(row.job))
                return c.Done(number, 1, f"job {job} is cancelled; what it has committed stays")
            case c.Retry(_, job):
                count = await self._master.intake.retry((await self._row(job)).job)
                return c.Done(number, count, f"made {counted(count, 'quarantined episode')} of {job} pending again")
            case c.Repair(_, job, episodes):
                return await self._repair(number, await self._row(job), episodes)
            case c.Forget(_, job, delete_output):
                return await self._forget(number, (await self._row(job)).job, delete_output)
            case c.Relocate(_, job, output):
                return await self._relocate(number, await self._row(job), output)
            case c.Failures(_, job):
                return await self._failures(request, (await self._row(job)).job)
            case c.Nodes():
                return c.NodeList(number, self._reports.nodes(), dict(self._counters()))
            case c.DrainNode(_, node, on):
                return await self._drain(number, NodeId(node), on)
            case c.Watch():
                return await self._watch(request)
            case c.MakeToken(_, ttl_s):
                if self._tokens is None:
                    return c.Refused(number, "forbidden", "this master has no keys: nodes join it without a token")
                token, expires_unix_s = self._tokens(ttl_s)
                return c.Token(number, token, expires_unix_s)

    async def _row(self, name: str) -> JobRow:
        row = await self._master.ledger.call(lambda ledger: ledger.job(JobId(name)))
        if row is None:
            known = [row.job for row in await self._master.ledger.call(lambda ledger: ledger.jobs())]
            raise _Unknown("unknown_job", f"there is no job {name!r}; there are: {', '.join(known[-20:]) or 'none'}")
        return row

    async def _submit(self, request: c.Submit) -> JobRow:
        job = await asyncio.to_thread(_job, request)  # a job of many scenes takes seconds to look through
        row = JobRow(
            job=JobId(job.name),
            fingerprint=job.fingerprint(),
            spec=job.to_dict(),
            user=request.user,
            priority=request.priority,
            max_nodes=request.max_nodes,
            dynload=request.dynload,
            environment=request.environment,
            submitted_unix_s=time.time(),
        )
        row = await self._master.intake.submit(row, job, adopt=request.adopt)
        if request.accept_environment:
            self._master.fact(EnvironmentAccepted(row.job))
        return row

    async def _repair(self, number: int, row: JobRow, episodes: Iterable[tuple[str, int]]) -> c.Done:
        """Set aside the pieces that were named, and those that differ from the ledger at a glance."""
        named = {EpisodeKey(row.job, scene, index) for scene, index in episodes}
        output, path = Path(str(row.spec["output"])), self._master.ledger.path

        def put_aside() -> set[EpisodeKey]:
            with Ledger.read(path) as ledger:
                pieces = chosen(row.job, ledger, named)
                pieces += [piece for piece, _ in damaged(output, row.job, ledger, deep=False) if piece.key not in named]
            set_aside(output, pieces)
            return {piece.key for piece in pieces}

        count = await self._master.intake.put_back(row.job, await asyncio.to_thread(put_aside))
        return c.Done(number, count, f"{counted(count, 'committed episode')} of {row.job} will be made again")

    async def _forget(self, number: int, job: JobId, delete_output: bool) -> c.Done:
        forgotten = await self._master.intake.forget(job)
        if not delete_output or forgotten is None:
            return c.Done(number, 1, f"job {job} is forgotten; its output stays")
        await asyncio.to_thread(delete_output_of, forgotten)
        return c.Done(number, 1, f"job {job} is forgotten, and what it had stored in {forgotten.output} is deleted")

    async def _relocate(self, number: int, row: JobRow, output: str) -> c.Done:
        """Have a job go on in another folder; where it is over, the ledger learns where its pieces are."""
        job = job_of(dataclasses.replace(row, spec={**row.spec, "output": output}))
        if not job.output.is_absolute():
            raise NimbusError(f"output {output!r} must be an absolute path that all nodes share")
        await self._master.intake.submit(dataclasses.replace(row, spec=job.to_dict()), job)
        return c.Done(number, 1, f"job {row.job} has its output in {output} now")

    async def _failures(self, request: c.Failures, job: JobId) -> c.FailureList:
        limit = min(max(request.limit, 0), MOST_FAILURES)
        reports, total = await self._master.ledger.call(
            lambda ledger: (
                ledger.failure_reports(job, max(request.offset, 0), limit),
                sum(entry.episodes for entry in ledger.failures(job)),
            )
        )
        sizes = itertools.accumulate(_size_bytes(report) for report in reports)
        fit = sum(1 for size in sizes if size <= MOST_FAILURES_BYTES)
        return c.FailureList(request.request, tuple(reports[: max(fit, 1)]), total)

    async def _drain(self, number: int, node: NodeId, on: bool) -> c.Reply:
        if node not in self._master.nodes and not self._master.scheduler.nodes.is_drained(node):
            names = ", ".join(sorted(self._master.nodes)) or "none"
            raise _Unknown("unknown_node", f"there is no node {str(node)!r}; there are: {names}")
        await self._master.drain(node, on)
        return c.Done(number, 1, f"node {node} " + ("finishes what it has begun" if on else "gets work again"))

    async def _watch(self, request: c.Watch) -> c.Reply:
        feed = self._master.feed
        cursor = request.cursor or feed.cursor
        ends = self._master.now() + min(max(request.wait_s, 0.0), MOST_WAIT_S)
        while True:
            news = self._master.news
            try:
                found, after, missed = feed.since(cursor, request.job)
            except ValueError:
                return c.Refused(request.request, "bad_cursor", f"{request.cursor!r} is not a cursor of this master")
            left_s = ends - self._master.now()
            if found or missed or left_s <= 0:
                return c.Events(request.request, after, found, missed)
            cursor = after
            try:
                await asyncio.wait_for(news.wait(), left_s)
            except TimeoutError:
                continue


class _Unknown(NimbusError):
    def __init__(self, code: str, error: str) -> None:
        super().__init__(error)
        self.code = code


def _size_bytes(report: c.FailureReport) -> int:
    return sum(len(text.encode()) + 64 for text in (report.scene, report.failure.detail, report.failure.evidence))


def _job(request: c.Submit) -> Job:
    """The job of a request. Raises NimbusError if it is none, or cannot be leased."""
    job = Job.from_dict(request.spec)
    if not job.scenes:
        raise NimbusError(f"job {job.name} has no scenes")
    for scene, entry in job.scene_entries.items():
        try:
            c.encode(c.Lease(_LONGEST_NAME, LeaseId(2**62), JobId(job.name), scene, 2**31, _MOST_SPANS, dict(entry)))
        except MessageError as error:
            raise NimbusError(
                f"scene {scene!r}: its entry is too large to be sent with every lease: {error}"
            ) from error
    return job
