"""Carries out faults on the job that a cluster works at, one at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nimbusd.chaos.cluster import ProcessCluster
from nimbusd.chaos.plan import Fault, Kind
from nimbusd.chaos.processes import ProcessFailed
from nimbusd.chaos.recovery import Hit
from nimbusd.chaos.troubles import (
    Away,
    Foreign,
    Lies,
    OlderLedger,
    OtherPackages,
    ReadOnly,
    Trouble,
    ledger_of,
    lose_ledger,
)
from nimbusd.client import ENDED, JobSummary
from nimbusd.job import Job

MOST_DONE = 0.75
"""Of a job's episodes, so that enough are left to see it go on."""
SEEN_WITHIN_S = 60.0
"""A fault of a job has its effect within this time, also where all nodes must be started for it."""


@dataclass(slots=True)
class _Begun:
    """A trouble of the job. not_before: it ends; gives_up: it ends though nothing came of it."""

    fault: Fault
    trouble: Trouble
    not_before: float
    gives_up: float


class JobFaults:
    """Hits one job after another.

    submit: submits the job again. kill_master: kills the master and starts it. restart_nodes: kills all nodes and
    starts them with these environment variables. say: called with what happens, in words.
    """

    def __init__(
        self,
        cluster: ProcessCluster,
        submit: Callable[[], None],
        kill_master: Callable[[Fault], Hit],
        restart_nodes: Callable[[Mapping[str, str]], None],
        say: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._submit = submit
        self._kill_master = kill_master
        self._restart_nodes = restart_nodes
        self._say = say
        self._job: Job | None = None
        self._summary: JobSummary | None = None
        self._begun: _Begun | None = None
        self._foreign: list[Foreign] = []
        self._in_vain: list[Fault] = []
        self.wrong: list[str] = []
        """Findings: what was not as it must be, as sentences."""

    def take_up(self, job: Job) -> None:
        """The cluster works at this job from now on."""
        self._job, self._summary = job, None

    def hear(self, summary: JobSummary) -> None:
        """Ask the master about the job, now."""
        self._summary = summary
        if self._begun is not None:
            self._begun.trouble.hear(summary)

    def output(self, job: Job) -> Path:
        """The present place of a job's output."""
        return job.output if self._begun is None else self._begun.trouble.output

    def inject(self, fault: Fault) -> list[Hit]:
        """Do it, or begin with what lasts. Raises LookupError if it cannot be done now."""
        job, summary = self._job, self._summary
        if job is None or summary is None or self._begun is not None:
            raise LookupError("there is no job, or it has another trouble")
        if summary.state != "running" or not 0 < summary.committed < MOST_DONE * summary.wanted:
            raise LookupError("the job has not come far enough, or too far")
        match fault.kind:
            case Kind.LEDGER:
                self._say("master: SIGKILL, its ledger is lost, started and the job submitted again")
                self.wrong += lose_ledger(self._cluster, job, self._submit)
                return [Hit(fault.number, fault.kind, time.monotonic())]
            case Kind.FOREIGN:
                return [self._put_foreign(fault, job)]
            case _:
                trouble = self._trouble(fault, job)
        trouble.begin()
        not_before = time.monotonic() + (fault.length_s if trouble.lasts else 0.0)
        self._begun = _Begun(fault, trouble, not_before, not_before + SEEN_WITHIN_S)
        self._say(f"{job.name}: {trouble.what}")
        return []

    def look(self, now: float) -> list[Hit]:
        """End what has lasted long enough."""
        if (begun := self._begun) is None or now < begun.not_before:
            return []
        return self._end() if begun.trouble.has_come or now >= begun.gives_up else []

    def lay_down(self) -> list[Hit]:
        """The job is over: end what lasts, and take away what does not belong to it."""
        hits = self._end() if self._begun is not None else []
        for foreign in self._foreign:
            self.wrong += foreign.take()
        self._foreign.clear()
        return hits

    @property
    def is_under_way(self) -> bool:
        """True while a fault lasts."""
        return self._begun is not None

    def in_vain(self) -> list[Fault]:
        """Faults since the last call of which nothing came, because the job was over before."""
        found, self._in_vain = self._in_vain, []
        return found

    def close(self) -> None:
        """Leave nothing behind that outlives the cluster."""
        if self._begun is not None:
            with contextlib.suppress(OSError, ProcessFailed):
                self._begun.trouble.undo()

    def _trouble(self, fault: Fault, job: Job) -> Trouble:
        cluster = self._cluster
        match fault.kind:
            case Kind.LIAR:
                return Lies(job, cluster.address, f"liar{fault.number}", fault.number)
            case Kind.ENVIRONMENT:
                return OtherPackages(job, ledger_of(cluster), cluster.folder, f"{fault.number}.0", self._restart_nodes)
            case Kind.RESTORE:
                return OlderLedger(job, cluster, f"backup{fault.number}")
            case Kind.READ_ONLY:
                return ReadOnly(job)
            case Kind.MOVED:
                return Away(job)
        raise ValueError(f"{fault.kind} is nothing that is done to a job")

    def _put_foreign(self, fault: Fault, job: Job) -> Hit:
        """Check the foreign pieces: a master looks at an output when it takes the job up."""
        foreign = Foreign(job, fault.number)
        foreign.put()
        self._foreign.append(foreign)
        hit = self._kill_master(fault)
        try:
            self._cluster.master.wait_for("left .* folders alone")
        except ProcessFailed:
            self.wrong.append(f"the master did not tell of the foreign piece {foreign.name}")
        self._say(f"{job.name}: a foreign piece lies in its output")
        return hit

    def _end(self) -> list[Hit]:
        """End what lasts. No hit if nothing came of it because the job was over before."""
        assert self._begun is not None
        fault, trouble = self._begun.fault, self._begun.trouble
        if not trouble.has_come and (self._summary is None or self._summary.state in ENDED):
            trouble.undo()
            self._begun = None
            self._in_vain.append(fault)
            self._say(f"{trouble.what}: the job was over before anything came of it")
            return []
        self.wrong += trouble.end()
        self._begun = None
        if not trouble.has_come:
            self.wrong.append(f"{trouble.what}, and nothing came of it within {SEEN_WITHIN_S:g} s ({fault.kind.value})")
        self._say(f"{trouble.what}: no more")
        return [Hit(fault.number, fault.kind, trouble.since_s or time.monotonic(), episodes=trouble.episodes)]
