"""A job as the scheduler needs to know it."""

from __future__ import annotations

from nimbusd.core.environments import environment_of, names_that_count
from nimbusd.core.ids import JobId
from nimbusd.core.master.facts import JobPlan, ScenePlan
from nimbusd.core.records import JobRow
from nimbusd.job import Job


def plan_of(row: JobRow, job: Job) -> JobPlan:
    """The plan of a job as it was submitted. Looks at the scenes' files, as far as that is allowed.

    Nodes are compared with the packages that are on record, by those that count: however an older nimbusd chose and
    hashed them, a job that began goes on where these are the same.
    """
    counting = names_that_count(job.requires, row.packages)
    recorded = environment_of(row.packages, counting)
    most = job.episodes_per_scene * job.max_tries_per_episode
    scenes = tuple(
        ScenePlan(name, job.episodes_per_scene, job.exact, most, cost_hint(job, name), dict(entry))
        for name, entry in job.scene_entries.items()
    )
    return JobPlan(
        JobId(job.name),
        scenes,
        row.user,
        row.priority,
        job.limits.attempts,
        recorded.hash if row.packages else row.environment,
        row.max_nodes,
        row.dynload,
        recorded.packages,
        counting=counting,
    )


def cost_hint(job: Job, scene: str) -> float:
    """A scene's cost beside that of the job's others, before any is measured: megabytes of its files, at least one."""
    return max(1.0, sum(_size_bytes(job, value) for value in job.scene_entries[scene].values()) / 1e6)


def _size_bytes(job: Job, value: object) -> int:
    """Of the file that a value of a scene names. 0 if it names none, or the master may not look there."""
    if not isinstance(value, str):
        return 0
    try:
        path = job.scenes_root / value
        return path.stat().st_size if path.is_file() else 0
    except (OSError, ValueError):  # too long, not allowed, or no path at all
        return 0
