"""Reasons why nothing of a job moves, and the moment to say so.

A job moves while a node that is here holds something of it. Where it does not, there is always a reason: `why_waiting`
finds it in the tables of the moment. `Waits` says it once nothing has moved for a while, and again when another reason
has held for as long, so that nothing is said of the moments between two leases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimbusd.core.environments import Environment, differences
from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.master.facts import Cause, JobWaits, Waiting
from nimbusd.core.master.grants import credit, why_not, why_unable
from nimbusd.core.master.nodes import LiveNode, WorkerManager
from nimbusd.core.master.open_jobs import JobTasks
from nimbusd.core.master.tasks import TaskManager
from nimbusd.core.records import JobState
from nimbusd.core.words import counted, listed

HOLDS_S = 3.0
"""Seconds that nothing must have moved, or another reason have lasted, before it is said."""
_MOST_GROUPS = 3
_GO_ON = "Roll one node back, or submit the job again with --accept-environment"


class Waits:
    """The last reason that was said of each job that waits. Ask `look` now and then; `of` is what was said last."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, _Seen] = {}

    def of(self, job: JobId) -> Waiting | None:
        """The reason why a job waits, as far as it was said."""
        seen = self._jobs.get(job)
        return None if seen is None else seen.said

    def moved(self, job: JobId, now: float) -> None:
        """Something of a job was leased just now: it may be over again at the next look."""
        if (seen := self._jobs.get(job)) is not None:
            seen.latest, seen.since = None, now

    def look(self, found: Mapping[JobId, Waiting | None], now: float) -> list[JobWaits]:
        """Take in why each running job waits, None where it moves; returns what is to be said. Others are forgotten."""
        self._jobs = {job: self._jobs.get(job) or _Seen(None, None, now, now) for job in found}
        said: list[JobWaits] = []
        for job, waiting in found.items():
            seen = self._jobs[job]
            if seen.latest is None:
                seen.still_since = now
            if waiting != seen.latest:
                seen.latest, seen.since = waiting, now
            since = seen.still_since if seen.said is None else seen.since
            if waiting != seen.said and (waiting is None or now - since >= HOLDS_S):
                seen.said = waiting
                said.append(JobWaits(job, waiting))
        return said


@dataclass(slots=True)
class _Seen:
    """said: to those who watch. latest: found at the last look. since: when that was found first. still_since: when
    nothing moved first, for whatever reason: reasons that take turns are reasons, too.
    """

    said: Waiting | None
    latest: Waiting | None
    since: float
    still_since: float


def why_waiting(job: JobTasks, tasks: TaskManager, nodes: WorkerManager) -> Waiting | None:
    """The reason why nothing of a running job moves; None if something does, or if it is not running."""
    if job.state is not JobState.RUNNING:
        return None
    here = sorted((node for node in nodes if node.is_here), key=lambda node: node.name)
    if job.leases:
        return _why_held(job, nodes)
    if not here:
        return Waiting(Cause.NO_NODE, "no node is connected; on a machine that shall be one: nimbusd worker")
    fit = [node for node in here if why_unable(job, node) is None]
    if not fit:
        return _why_none_is_fit(job, here)
    return _why_nothing_is_taken(job, fit, tasks)


def why_idle(job: JobTasks, node: LiveNode, tasks: TaskManager) -> Waiting | None:
    """The reason why a node that is here has nothing of a job; None if it has, or is about to."""
    if (why := why_not(job, node)) is not None:
        return why
    if node.name in job.nodes or credit(node, tasks) > 0 or not job.pending.episodes:
        return None
    return _busy([node], job, tasks)


def _why_held(job: JobTasks, nodes: WorkerManager) -> Waiting | None:
    """Of a job of which something is leased: whether all who hold it are away."""
    away = sorted(name for name in job.nodes if (node := nodes.get(name)) is None or not node.is_here)
    if len(away) < len(job.nodes):
        return None
    have = "has" if len(away) == 1 else "have"
    return Waiting(
        Cause.NO_NODE, f"{listed(away)} {have} not come back since the master's restart, with what was begun"
    )


def _why_none_is_fit(job: JobTasks, nodes: Sequence[LiveNode]) -> Waiting:
    """Nodes that are alike are named together."""
    drained: list[NodeId] = []
    differing: defaultdict[Environment, list[LiveNode]] = defaultdict(list)
    unfit: defaultdict[str, list[NodeId]] = defaultdict(list)
    for node in nodes:
        why = why_unable(job, node)
        assert why is not None
        match why.cause:
            case Cause.DRAINED:
                drained.append(node.name)
            case Cause.ENVIRONMENT if job.environment:
                differing[node.environment_for(job.plan.counting)].append(node)
            case _:
                unfit[why.why].append(node.name)
    if len(drained) == len(nodes):
        are = f"the only node, {drained[0]}, is" if len(nodes) == 1 else f"all {len(nodes):,} nodes are"
        return Waiting(Cause.DRAINED, f"{are} being drained; give one work again: nimbusctl drain {drained[0]} --undo")
    said = [
        differences(job.packages, there.packages, f"on {listed([node.name for node in alike])}")
        for there, alike in differing.items()
    ]
    said += [f"{listed(names)}: {error}" for error, names in unfit.items()]
    if drained:
        said.append(f"{listed(drained)} {'is' if len(drained) == 1 else 'are'} being drained")
    if (more := len(said) - _MOST_GROUPS) > 0:
        said = [*said[:_MOST_GROUPS], f"{counted(more, 'other reason')} elsewhere"]
    if differing:
        return Waiting(Cause.ENVIRONMENT, f"{'; '.join(said)}. {_GO_ON}")
    return Waiting(Cause.UNFIT, "; ".join(said))


def _why_nothing_is_taken(job: JobTasks, fit: Sequence[LiveNode], tasks: TaskManager) -> Waiting:
    """Of a job that some nodes could work on."""
    full = [node for node in fit if credit(node, tasks) <= 0]
    if len(full) == len(fit) and (busy := _busy(full, job, tasks)) is not None:
        return busy
    names = listed([node.name for node in fit])
    have = "has" if len(fit) == 1 else "have"
    return Waiting(Cause.SILENT, f"{names} {have} not said yet what can be taken")


def _busy(nodes: Sequence[LiveNode], job: JobTasks, tasks: TaskManager) -> Waiting | None:
    """The jobs that have the slots of these nodes, the highest priority first; None if no other has any."""
    names = {lease.job for node in nodes for lease in tasks.held_by(node.name).values()} - {job.plan.job}
    if not names:
        return None
    others = sorted((tasks.jobs[name] for name in names), key=lambda other: (-other.plan.priority, other.plan.job))
    ours = job.plan.priority
    said = [
        f"{other.plan.job} (priority {other.plan.priority})" if other.plan.priority != ours else str(other.plan.job)
        for other in others
    ]
    rank = " of higher priority" if all(other.plan.priority > ours for other in others) else ""
    return Waiting(Cause.BUSY, f"every slot has episodes of other jobs{rank}: {listed(said)}")
