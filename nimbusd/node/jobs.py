"""The jobs that a node has heard of: what each is, which cannot run here, and leases that came before their job."""

from __future__ import annotations

from typing import Any

from nimbusd.core.environments import differing
from nimbusd.core.ids import JobId
from nimbusd.job import Job
from nimbusd.node.environment import environment_hash, packages
from nimbusd.transport.messages import control as c


class NodeJobs:
    """A job is told once by the master, and again when it has changed."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, Job] = {}
        self._began_with: dict[JobId, dict[str, str]] = {}
        """The packages that jobs began with, as far as the master knows them."""
        self._early: dict[JobId, list[c.Lease]] = {}
        self.unfit: dict[JobId, str] = {}
        """The jobs that cannot run here, and why."""

    def __contains__(self, job: JobId) -> bool:
        return job in self._jobs

    def __getitem__(self, job: JobId) -> Job:
        return self._jobs[job]

    def learn(self, message: c.JobSpec) -> bool:
        """Take in a job. True if it is another than it was. Raises NimbusError if this node does not understand it."""
        self._began_with[message.job] = message.began_with
        job = Job.from_dict(message.spec)
        changed = self._jobs.get(message.job, job) != job
        if changed:
            self.unfit.pop(message.job, None)
        self._jobs[message.job] = job
        return changed

    def put_off(self, lease: c.Lease) -> None:
        """Keep a lease until its job is told."""
        self._early.setdefault(lease.job, []).append(lease)

    def leases_before(self, job: JobId) -> list[c.Lease]:
        """The leases that came before their job was told; once."""
        return self._early.pop(job, [])

    def environment(self, job: JobId) -> dict[str, Any]:
        """The environment that is recorded with a job's episodes: the packages, and those that differ from what the job
        began with.
        """
        environment: dict[str, Any] = {"hash": environment_hash(), "packages": dict(packages())}
        if began_with := self._began_with.get(job):
            before, now = differing(began_with, packages())
            if before or now:
                environment |= {"before": before, "now": now}
        return environment
