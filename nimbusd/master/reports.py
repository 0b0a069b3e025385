"""A master's reports on its jobs and nodes, from its state and its ledger."""

from __future__ import annotations

import itertools
from collections import Counter

from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.master.facts import Cause, Waiting
from nimbusd.core.master.nodes import LiveNode
from nimbusd.core.master.open_jobs import JobTasks
from nimbusd.core.master.waiting import why_idle
from nimbusd.core.records import JobRow, JobState, SceneCount
from nimbusd.core.words import counted
from nimbusd.master.master import Master
from nimbusd.transport.messages import control as c
from nimbusd.transport.messages.bounds import MOST_INT

MOST_SCENES = 200
MOST_REASONS = 500
MOST_WAITING = 5_000
"""Nodes with why they wait, so that the answer fits into a message."""
MOST_WAITS = 5
"""Jobs of which a node is said to get nothing."""


class Reports:
    """Builds the answers to questions. Ended jobs are counted in the ledger once, and remembered."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._ended: dict[JobId, tuple[int, c.JobSummary]] = {}
        """With how often the job had ended: a retry ends it again."""

    def line(self) -> str:
        """The master at a glance."""
        jobs = {*self._master.open, *self._master.intake.held_up}
        rate = sum(self._rate(name) for name in jobs)
        waiting = sum(self._master.scheduler.waits.of(name) is not None for name in jobs)
        which = f" ({waiting} waiting)" if waiting else ""
        nodes = counted(len(self._master.scheduler.nodes), "node")
        return f"{counted(len(jobs), 'open job')}{which}, {nodes}, {rate:.1f} episodes/s"

    async def jobs(self, ended: bool) -> tuple[c.JobSummary, ...]:
        """All jobs in order of submission."""
        rows = await self._master.ledger.call(lambda ledger: ledger.jobs())
        rows.sort(key=lambda row: row.submitted_unix_s)
        at_work = {*self._master.open, *self._master.intake.held_up}
        return tuple([await self.summary(row) for row in rows if ended or row.job in at_work])

    async def summary(self, row: JobRow) -> c.JobSummary:
        """A job at a glance."""
        tasks = self._master.scheduler.tasks.jobs.get(row.job)
        if tasks is not None:
            return self._open_summary(row, tasks)
        opened = self._master.open.get(row.job)
        if opened is not None:  # all is settled, and it is being published; it may end while we read
            counts = await self._master.ledger.call(lambda ledger: ledger.totals(row.job))
            if trouble := opened.unpublished:
                waiting = Waiting(Cause.PUBLISHING, trouble)
                return self._summary(row, counts, state=JobState.PAUSED.value, waiting=waiting)
            return self._summary(row, counts, waiting=Waiting(Cause.PUBLISHING, "publishing"))
        if (why := self._master.intake.held_up.get(row.job)) is not None:
            counts = await self._master.ledger.call(lambda ledger: ledger.totals(row.job))
            waiting = Waiting(Cause.HELD_UP, why)
            return self._summary(row, counts, state=JobState.PAUSED.value, waiting=waiting)
        ends, known = self._ended.get(row.job, (-1, None))
        if known is not None and ends == self._master.ends[row.job]:
            return known
        ends = self._master.ends[row.job]
        # Read again: it may have ended since.
        row, counts = await self._master.ledger.call(
            lambda ledger: (ledger.job(row.job) or row, ledger.totals(row.job))
        )
        summary = self._summary(row, counts, state=row.state.value, why=row.why)
        if row.state not in (JobState.RUNNING, JobState.PAUSED):
            self._ended[row.job] = (ends, summary)
        return summary

    def _open_summary(self, row: JobRow, tasks: JobTasks) -> c.JobSummary:
        counts = [scene.count for scene in tasks.scenes.values()]
        leased = sum(len(lease.open) for lease in tasks.leases.values())
        total = SceneCount(*(sum(getattr(count, name) for count in counts) for name in SceneCount.__dataclass_fields__))
        waiting = self._master.scheduler.waits.of(row.job)
        if tasks.state is JobState.PAUSED:
            waiting = Waiting(Cause.STORAGE, tasks.why or self._master.open[row.job].why)
        opened = self._master.open[row.job]
        return self._summary(
            row,
            total,
            state=tasks.state.value,
            leased=leased,
            nodes=len(tasks.nodes),
            why=opened.why or opened.unpublished,
            waiting=waiting,
        )

    def _summary(
        self,
        row: JobRow,
        count: SceneCount,
        *,
        state: str = "running",
        leased: int = 0,
        nodes: int = 0,
        why: str = "",
        waiting: Waiting | None = None,
    ) -> c.JobSummary:
        """leased: episodes that nodes hold. waiting: why nothing moves."""
        scenes, each = _asked_for(row)
        wanted = min(scenes * each, MOST_INT)
        rate = self._rate(row.job) if leased and waiting is None else 0.0
        left = max(0, wanted - count.committed - count.quarantined)
        opened = self._master.open.get(row.job)
        return c.JobSummary(
            job=row.job,
            user=row.user,
            priority=row.priority,
            state=state,
            wanted=wanted,
            committed=count.committed,
            failed=count.failed,
            quarantined=count.quarantined,
            leased=leased,
            nodes=nodes,
            frames=min(count.frames, MOST_INT),
            size_bytes=min(count.size_bytes, MOST_INT),
            submitted_unix_s=row.submitted_unix_s,
            elapsed_s=self._master.now() - opened.began if opened is not None else 0.0,
            rate_per_s=rate,
            eta_s=left / rate if rate > 0 and opened is not None else None,
            output=str(row.spec.get("output", "")),
            why=why if waiting is None else waiting.why,
            waiting="" if waiting is None else waiting.cause.value,
        )

    def _rate(self, name: JobId) -> float:
        """Commits a second, over the last ones."""
        opened = self._master.open.get(name)
        if opened is None or len(opened.commits) < 2:
            return 0.0
        return (len(opened.commits) - 1) / max(self._master.now() - opened.commits[0], 1e-3)

    async def detail(self, request: int, row: JobRow) -> c.JobReport:
        """A job with its scenes, its failures by reason, and the nodes that get none of it."""
        summary = await self.summary(row)
        tasks = self._master.scheduler.tasks.jobs.get(row.job)
        reasons, failures = await self._master.ledger.call(
            lambda ledger: (ledger.reasons(row.job), ledger.failures(row.job))
        )
        not_made: Counter[str] = Counter()
        for failure in failures:
            not_made[failure.reason] += failure.episodes
        opened = self._master.open.get(row.job)
        for reason, count in (opened.reasons if opened is not None else {}).items():
            reasons.setdefault(reason, count)
        scenes = scene_reports(tasks) if tasks is not None else []
        waiting = {}
        for node in self._master.scheduler.nodes if tasks is not None else ():
            if tasks is not None and (why := why_idle(tasks, node, self._master.scheduler.tasks)) is not None:
                waiting[str(node.name)] = why.why
        return c.JobReport(
            request,
            summary,
            tuple(scenes[:MOST_SCENES]),
            _asked_for(row)[0],
            dict(itertools.islice(reasons.items(), MOST_REASONS)),
            dict(itertools.islice(waiting.items(), MOST_WAITING)),
            self._pipelines(row.job) if tasks is not None else {},
            dict(not_made),
        )

    def _pipelines(self, job: JobId) -> dict[str, c.PipelineReport]:
        """Reports of the nodes that are at a job."""
        here = {node.name for node in self._master.scheduler.nodes}
        return {
            str(name): pipeline
            for name, known in sorted(self._master.nodes.items())
            for pipeline in known.pipelines
            if pipeline.job == job and name in here
        }

    def nodes(self) -> tuple[c.NodeSummary, ...]:
        """All nodes that have been seen, by name."""
        return tuple(self._node(name) for name in sorted(self._master.nodes))

    def _node(self, name: NodeId) -> c.NodeSummary:
        known = self._master.nodes[name]
        node = self._master.scheduler.nodes.get(name)
        tasks = self._master.scheduler.tasks
        state = "lost" if node is None else "draining" if node.draining else "ready"
        leases = tasks.held_by(name)
        running = tuple(
            f"{leases[lease].job}/{leases[lease].scene}/{r.index} {r.stage}"
            for r in known.running
            if (lease := r.lease) in leases
        )
        return c.NodeSummary(
            node=name,
            state=state,
            version=known.hello.version,
            environment=known.hello.environment,
            slots=known.hello.slots,
            devices=known.hello.devices,
            episodes=tasks.open_episodes(name),
            done=known.done,
            silent_s=max(0.0, self._master.now() - known.heard_at),
            load=known.load,
            running=running if node is not None else (),
            why=known.lost if node is None else self._distrusted(name),
            waiting=self._gets_none_of(node) if node is not None else {},
        )

    def _distrusted(self, name: NodeId) -> str:
        """Of which jobs a node that is there gets nothing more because of what it said, and why."""
        tasks = self._master.scheduler.tasks
        return "; ".join(
            f"gets nothing more of job {job.plan.job}: {job.unfit[name]}"
            for job in tasks
            if name in job.unfit and (tasks.distrusts(job, name) or tasks.blames_alone(job, name))
        )

    def _gets_none_of(self, node: LiveNode) -> dict[str, str]:
        """Open jobs with work left, of which a node gets none, and why; at most MOST_WAITS. Not of drained nodes."""
        if node.draining:
            return {}
        tasks = self._master.scheduler.tasks
        with_work = (job for job in tasks if job.state is JobState.RUNNING and job.pending.episodes)
        found = ((job.plan.job, why_idle(job, node, tasks)) for job in with_work)
        waiting = ((str(job), why.why) for job, why in found if why is not None and why.cause is not Cause.BUSY)
        return dict(itertools.islice(waiting, MOST_WAITS))


def scene_reports(job: JobTasks) -> list[c.SceneReport]:
    """The scenes of an open job, those that somebody should look at or that move first."""
    leased: dict[str, int] = {}
    for lease in job.leases.values():
        leased[lease.scene] = leased.get(lease.scene, 0) + len(lease.open)
    reports = [
        c.SceneReport(
            name,
            scene.plan.wanted,
            scene.count.committed,
            scene.count.failed,
            scene.count.quarantined,
            leased.get(name, 0),
            job.estimates.measured(name),
        )
        for name, scene in job.scenes.items()
    ]
    return sorted(reports, key=_importance)


def _importance(report: c.SceneReport) -> tuple[bool, bool, bool, bool, str]:
    """Scenes that need somebody come first, then those that move, that fail, and that are not finished."""
    finished = report.committed >= report.wanted
    return not report.quarantined, not report.leased, not report.failed, finished, report.scene


def _asked_for(row: JobRow) -> tuple[int, int]:
    """Scenes of a job and episodes of each, (0, 0) where its description cannot be read: such a job is held up."""
    scenes, each = row.spec.get("scenes"), row.spec.get("episodes_per_scene")
    return (len(scenes), each) if isinstance(scenes, list) and isinstance(each, int) else (0, 0)
