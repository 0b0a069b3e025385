"""Clients' requests, answered one by one. A bad request is refused with a sentence; it never harms the master."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from nimbusd.core.episodes import JobId, JobRow, NodeId
from nimbusd.core.facts import JobCancelled, NodeDrainAsked
from nimbusd.job import Job
from nimbusd.master.daemon import Master
from nimbusd.master.ledger import LedgerError
from nimbusd.master.reports import Reports
from nimbusd.stages.errors import NimbusError
from nimbusd.transport import control as c
from nimbusd.transport.codec import MessageError

MOST_WAIT_S = 60.0
MOST_FAILURES = 500


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
                if row.job not in self._master.scheduler.tasks.jobs:
                    return c.Done(number, 0, f"job {job} is over already")
                self._master.fact(JobCancelled(row.job))
                return c.Done(number, 1, f"job {job} is cancelled; what it has committed stays")
            case c.Retry(_, job):
                count = await self._master.intake.retry((await self._row(job)).job)
                return c.Done(number, count, f"{count} quarantined episodes of {job} are pending again")
            case c.Failures(_, job):
                return await self._failures(request, (await self._row(job)).job)
            case c.Nodes():
                return c.NodeList(number, self._reports.nodes(), dict(self._counters()))
            case c.DrainNode(_, node, on):
                return self._drain(number, NodeId(node), on)
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
        job = _job(request)
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
        return await self._master.intake.submit(row, job)

    async def _failures(self, request: c.Failures, job: JobId) -> c.FailureList:
        limit = min(max(request.limit, 0), MOST_FAILURES)
        rows, total = await self._master.ledger.call(
            lambda ledger: (
                ledger.failure_rows(job, max(request.offset, 0), limit),
                sum(entry.episodes for entry in ledger.failures(job)),
            )
        )
        reports = tuple(
            c.FailureReport(
                r.key.scene, r.key.index, r.attempt, r.state.value, r.stage, r.reason, r.detail, r.evidence, r.worker
            )
            for r in rows
        )
        return c.FailureList(request.request, reports, total)

    def _drain(self, number: int, node: NodeId, on: bool) -> c.Reply:
        if node not in self._master.nodes:
            names = ", ".join(sorted(self._master.nodes)) or "none"
            raise _Unknown("unknown_node", f"there is no node {str(node)!r}; there are: {names}")
        self._master.drain(node, on)
        self._master.fact(NodeDrainAsked(node, on))
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


def _job(request: c.Submit) -> Job:
    """The job of a request. Raises NimbusError if it is none, or cannot be leased."""
    try:
        job = Job.from_dict(request.spec)
        job.fingerprint()
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise NimbusError(f"this is not a job that `nimbusctl submit` made: {type(error).__name__} {error}") from error
    if not job.output.is_absolute():
        raise NimbusError(f"output {job.output} must be an absolute path that all nodes share")
    for scene, entry in job.scene_entries.items():
        try:
            c.encode(c.Lease(2**62, job.name, scene, 2**31, ((2**31, 2**31),) * 64, dict(entry)))
        except MessageError as error:
            raise NimbusError(
                f"scene {scene!r}: its entry is too large to be sent with every lease: {error}"
            ) from error
    return job
