"""The jobs that a node has heard of: what each is, which cannot run here, and leases that came before their job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from nimbusd.core.environments import differing, environment_of
from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.node import facts as n
from nimbusd.core.node.recycle import MB
from nimbusd.job import Job
from nimbusd.node.environment import environment_for
from nimbusd.stages.errors import NimbusError
from nimbusd.transport.messages import control as c
from nimbusd.transport.messages.bounds import MOST_DETAIL, plain_text

log = logging.getLogger(__name__)


class NodeJobs:
    """The master tells a job once, and again when it has changed; it sends leases without asking who knows their job.

    send: to the master. tell: the node's machine.
    """

    def __init__(self, node: NodeId, send: Callable[[c.FromNode], object], tell: Callable[[n.NodeFact], None]) -> None:
        self._node = node
        self._send = send
        self._tell = tell
        self._jobs: dict[JobId, Job] = {}
        self._began_with: dict[JobId, dict[str, str]] = {}
        """The packages that jobs began with, as far as the master knows them."""
        self._unfit: dict[JobId, str] = {}
        """The jobs that cannot run here, and why."""
        self._early: dict[JobId, list[c.Lease]] = {}
        """Leases that came before their job."""

    def __getitem__(self, job: JobId) -> Job:
        return self._jobs[job]

    def take(self, message: c.JobSpec) -> None:
        """Take in a job, and then the leases that came before it."""
        self._began_with[message.job] = message.began_with
        try:
            job = Job.from_dict(message.spec)
        except NimbusError as refusal:  # of a master that knows other jobs than this node
            self._unfit[message.job] = str(refusal)
            self._tell_unfit(message.job)
            return
        if self._jobs.get(message.job, job) != job:
            self._unfit.pop(message.job, None)
            self._tell(n.JobChanged(message.job))
        self._jobs[message.job] = job
        for lease in self._early.pop(message.job, ()):
            self.take_lease(lease)

    def take_lease(self, lease: c.Lease) -> None:
        """Take in a lease; if its job was not told yet, ask for that first."""
        if lease.job in self._unfit:  # the master forgot it, or never heard
            self._tell_unfit(lease.job)
        if lease.job not in self._jobs:
            self._early.setdefault(lease.job, []).append(lease)
            self._send(c.NeedJob(self._node, lease.job))
            return
        job = self._jobs[lease.job]
        growth_mb = job.limits.recycle_growth_mb
        growth_bytes = None if growth_mb is None else int(growth_mb * MB)
        self._tell(n.JobKnown(lease.job, job.mode, job.planners, job.writers, growth_bytes))
        self._tell(lease)

    def cannot_run(self, job: JobId, error: str) -> None:
        """A job's components cannot be made or opened here: give it back."""
        log.error("job %s cannot run here: %s", job, error)
        self._unfit[job] = error
        self._tell_unfit(job)
        self._tell(n.JobUnfit(job))

    def environment(self, job: JobId) -> dict[str, Any]:
        """The environment that is recorded with a job's episodes: the packages, and those that differ from what the job
        began with.
        """
        began_with = self._began_with.get(job, {})
        here = environment_for(self._jobs[job], began_with)
        recorded: dict[str, Any] = {"hash": here.hash, "packages": dict(here.packages)}
        if began_with:
            before, now = differing(environment_of(began_with, None).packages, here.packages)
            if before or now:
                recorded |= {"before": before, "now": now}
        return recorded

    def _tell_unfit(self, job: JobId) -> None:
        self._send(c.CannotRun(self._node, job, plain_text(self._unfit[job], MOST_DETAIL)))
