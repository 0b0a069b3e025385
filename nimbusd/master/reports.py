"""What a master tells of its jobs and nodes, from its state and its ledger."""

from __future__ import annotations

from nimbusd.core.episodes import JobId, JobRow, JobState, NodeId, SceneCount
from nimbusd.core.grants import why_not
from nimbusd.core.open_jobs import Job as OpenTasks
from nimbusd.master.daemon import Master
from nimbusd.transport import control as c

MOST_SCENES = 200


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
        return f"{len(jobs)} open jobs, {len(self._master.scheduler.nodes)} nodes, {rate:.1f} episodes/s"

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
                return self._summary(row, counts, state=JobState.PAUSED.value, why=trouble)
            return self._summary(row, counts, why="publishing")
        if (why := self._master.intake.held_up.get(row.job)) is not None:
            counts = await self._master.ledger.call(lambda ledger: ledger.totals(row.job))
            return self._summary(row, counts, state=JobState.PAUSED.value, why=why)
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

    def _open_summary(self, row: JobRow, tasks: OpenTasks) -> c.JobSummary:
        counts = [scene.count for scene in tasks.scenes.values()]
        leased = sum(len(lease.open) for lease in tasks.leases.values())
        total = SceneCount(*(sum(getattr(count, name) for count in counts) for name in SceneCount.__dataclass_fields__))
        why = tasks.why or self._master.open[row.job].why
        return self._summary(row, total, state=tasks.state.value, leased=leased, nodes=len(tasks.nodes), why=why)

    def _summary(
        self, row: JobRow, count: SceneCount, *, state: str = "running", leased: int = 0, nodes: int = 0, why: str = ""
    ) -> c.JobSummary:
        wanted = len(row.spec["scenes"]) * int(row.spec["episodes_per_scene"])
        rate = self._rate(row.job)
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
            frames=count.frames,
            size_bytes=count.size_bytes,
            submitted_unix_s=row.submitted_unix_s,
            elapsed_s=self._master.now() - opened.began if opened is not None else 0.0,
            rate_per_s=rate,
            eta_s=left / rate if rate > 0 and opened is not None else None,
            output=str(row.spec["output"]),
            why=why,
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
        reasons = await self._master.ledger.call(lambda ledger: ledger.reasons(row.job))
        opened = self._master.open.get(row.job)
        for reason, count in (opened.reasons if opened is not None else {}).items():
            reasons.setdefault(reason, count)
        scenes = _scenes(tasks) if tasks is not None else []
        waiting = {}
        for node in self._master.scheduler.nodes if tasks is not None else ():
            if tasks is not None and (why := why_not(tasks, node)) is not None:
                waiting[str(node.name)] = why
        return c.JobReport(
            request,
            summary,
            tuple(scenes[:MOST_SCENES]),
            len(row.spec["scenes"]),
            dict(reasons),
            waiting,
            self._pipelines(row.job) if tasks is not None else {},
        )

    def _pipelines(self, job: JobId) -> dict[str, c.Pipeline]:
        """How a job goes on each node that is at it."""
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
            f"{leases[lease].job}/{leases[lease].scene}/{r.index} {r.stage}"  # type: ignore[index]
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
            why=known.lost if node is None else "",
        )


def _scenes(job: OpenTasks) -> list[c.SceneReport]:
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
    return sorted(reports, key=lambda report: (report.committed >= report.wanted, report.scene))
