"""What the scheduler needs to know of a job."""

from __future__ import annotations

from nimbusd.core.episodes import JobId, JobRow
from nimbusd.core.facts import JobPlan, ScenePlan
from nimbusd.job import Job


def plan_of(row: JobRow, job: Job) -> JobPlan:
    """The plan of a job as it was submitted."""
    most = job.episodes_per_scene * job.max_tries_per_episode
    scenes = tuple(
        ScenePlan(name, job.episodes_per_scene, job.exact, most, cost_hint(job, name)) for name in job.scenes
    )
    return JobPlan(
        JobId(job.name),
        scenes,
        row.user,
        row.priority,
        job.limits.attempts,
        row.environment,
        row.max_nodes,
        row.dynload,
    )


def cost_hint(job: Job, scene: str) -> float:
    """How a scene may compare with the job's others before any is measured: megabytes of its files, at least one."""
    files = (job.scenes_root / value for value in job.scene_entries[scene].values() if isinstance(value, str))
    return max(1.0, sum(path.stat().st_size for path in files if path.is_file()) / 1e6)
