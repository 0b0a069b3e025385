"""Reports on the job of an output folder, in the words of a master: for jobs that run without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nimbusd.core.ids import JobId
from nimbusd.core.records import JobRow, JobState, SceneCount, SceneHistory
from nimbusd.job import Job
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.master.output.folder import is_claimed, ledger_path, read_ledger, recall_job
from nimbusd.transport.messages import control as c

_PAGE = 500
_STOPPED = "stopped"
_NONE = SceneHistory(SceneCount(), (), {})


def job_in_output(output: Path) -> c.JobReport:
    """All about the job of an output folder. Raises LedgerError if there is none, or its ledger is not here."""
    job = recall_job(output)
    with read_ledger(output) as ledger:
        row = _row(ledger, job)
        scenes = _scenes(job, ledger.history(row.job))
        counts, reasons = ledger.totals(row.job), ledger.reasons(row.job)
    return c.JobReport(0, _summary(output, job, row, counts), scenes, len(job.scenes), reasons, {})


def failures_in_output(output: Path) -> Iterator[c.FailureReport]:
    """Its failed and quarantined episodes, by scene and index. Raises LedgerError like `job_in_output`."""
    job = recall_job(output)
    with read_ledger(output) as ledger:
        name, offset = _row(ledger, job).job, 0
        while reports := ledger.failure_reports(name, offset, _PAGE):
            yield from reports
            offset += len(reports)


def _row(ledger: Ledger, job: Job) -> JobRow:
    row = ledger.job(JobId(job.name))
    if row is None:
        raise LedgerError(f"{ledger.path} has no job {job.name!r}: it has not begun yet.", ledger.path)
    return row


def _summary(output: Path, job: Job, row: JobRow, counts: SceneCount) -> c.JobSummary:
    state, why = row.state.value, row.why
    own = ledger_path(output).exists()
    if own and row.state in (JobState.RUNNING, JobState.PAUSED) and not is_claimed(output):
        state, why = _STOPPED, "nobody works on it; the same `nimbusctl run` goes on with it"
    return c.JobSummary(
        job=row.job,
        user=row.user,
        priority=row.priority,
        state=state,
        wanted=job.total_episodes,
        committed=counts.committed,
        failed=counts.failed,
        quarantined=counts.quarantined,
        leased=0,
        nodes=0,
        frames=counts.frames,
        size_bytes=counts.size_bytes,
        submitted_unix_s=row.submitted_unix_s,
        elapsed_s=0.0,
        rate_per_s=0.0,
        eta_s=None,
        output=str(output),
        why=why,
    )


def _scenes(job: Job, history: dict[str, SceneHistory]) -> tuple[c.SceneReport, ...]:
    reports = []
    for name in job.scenes:
        count, wanted = history.get(name, _NONE).count, job.episodes_per_scene
        reports.append(
            c.SceneReport(name, wanted, count.committed, count.failed, count.quarantined, leased=0, cost_s=None)
        )
    return tuple(sorted(reports, key=lambda report: (report.committed >= report.wanted, report.scene)))
