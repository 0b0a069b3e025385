"""Who gets what: which job, which scene, and how many episodes of it, for a node that can take some."""

from __future__ import annotations

import math
from collections import Counter

from nimbusd.core.environments import differences
from nimbusd.core.master.facts import Cause, Order, Waiting
from nimbusd.core.master.nodes import LONG_S, LiveNode, WorkerManager
from nimbusd.core.master.open_jobs import JobTasks
from nimbusd.core.master.tasks import TaskManager
from nimbusd.core.records import JobState
from nimbusd.core.words import counted, listed

MOST_LEASED = 1024
"""Episodes in one lease."""
SHARE = 2
"""A range is at most this fraction (one part in so many) of a node's fair part of what is pending."""
FEED_SHARE = 16
"""A node is leased more when at least this fraction (one part in so many) of what it can hold is free."""
STAY_S = 20.0
"""Seconds of slots that a user may get ahead of another before a node's workers are changed for the other's job."""
LOOK_AGAIN_S = 1.0
LOOKS = 200
"""How often it is worked out which scenes are late: so many times in what is left of the job, or every second."""
IN_TIME = 0.8
"""A scene is late if it is not done in this part of what is left of the job: estimates are no more than that."""


class Grants:
    """Leases pending episodes: priority first, then who has used least, then scenes by what loading them costs.

    A compute worker loads a scene for itself, so every slot of a node gets a scene of its own, and more of that scene
    as long as there is some: the longest scenes first. A scene that will not be done by the time at which the job could
    be gets more slots at once; when all have been begun, idle slots join where most is left.

    Ranges shrink as less is left (guided self-scheduling, Polychronopoulos & Kuck 1987), so that nodes end together;
    they are also bounded by the credit that a node gives, which is worth a fixed time of its work.
    """

    def __init__(self, tasks: TaskManager, nodes: WorkerManager) -> None:
        self._tasks = tasks
        self._nodes = nodes
        self._used_s: dict[str, float] = {}

    def grant(self, node: LiveNode, now: float) -> list[Order]:
        """Lease to a node what it can take now."""
        orders: list[Order] = []
        credit = self.credit(node)
        jobs = self._jobs_for(node) if credit > 0 else []
        while credit > 0 and jobs:
            job = min(jobs, key=lambda job: self._turn(job, node))
            job.bind(node.environment, node.packages)
            scene, most = self._choose_scene(job, node, credit, now)
            if scene is None:
                jobs.remove(job)
                continue
            spans = job.scenes[scene].take(min(credit, most, self._range(job, node), MOST_LEASED))
            count = sum(span.size for span in spans)
            self._used_s[job.plan.user] = self._usage(job) + count * job.cost_s(scene)
            orders += self._tasks.grant(job, scene, node.name, spans, now)
            credit -= count
            if not job.pending.episodes:
                jobs.remove(job)
        return orders

    def credit(self, node: LiveNode) -> int:
        """What a node can take beyond what it holds and beyond the leases that are on their way to it."""
        return credit(node, self._tasks)

    def is_hungry(self, node: LiveNode) -> bool:
        """Whether it is worth a lease: a node of fast episodes is not fed with single ones."""
        return self.credit(node) >= max(1, node.capacity // FEED_SHARE)

    # --- jobs ---

    def _jobs_for(self, node: LiveNode) -> list[JobTasks]:
        return [job for job in self._tasks if job.pending.episodes and why_not(job, node) is None]

    def _turn(self, job: JobTasks, node: LiveNode) -> tuple[float, float, float]:
        """The lowest is next. A node changes to another user's job when that is well behind, not at every lease."""
        stay_s = STAY_S if node.name in job.nodes else 0.0
        return -job.plan.priority, self._usage(job) - stay_s, job.order

    def _usage(self, job: JobTasks) -> float:
        """Seconds of slots that a job's user was given. Who was away starts level with who was given least."""
        user = job.plan.user
        if user not in self._used_s:
            active = {other.plan.user for other in self._tasks if other.plan.user in self._used_s}
            self._used_s = {name: used for name, used in self._used_s.items() if name in active}
            self._used_s[user] = min(self._used_s.values(), default=0.0)
        return self._used_s[user]

    # --- scenes ---

    def _choose_scene(self, job: JobTasks, node: LiveNode, credit: int, now: float) -> tuple[str | None, int]:
        """A scene of which the node gets some episodes now, and how many at most."""
        if not job.plan.dynload:
            return self._own_scene(job, node), credit
        held_of: Counter[str] = Counter()
        in_all = credit
        for lease in self._tasks.held_by(node.name).values():
            in_all += len(lease.open)
            if lease.job == job.plan.job:
                held_of[lease.scene] += len(lease.open)
        per_slot = -(-in_all // max(1, node.slots))
        loaded = job.loaded.setdefault(node.name, Counter())
        free = {s: per_slot * slots - held_of[s] for s, slots in loaded.items()}
        pending, doubtful = job.pending.scenes, job.doubtful()
        scene = max(
            (s for s in free if s in pending and s not in doubtful), key=lambda s: free[s] / loaded[s], default=None
        )
        if scene is not None and free[scene] > 0:
            return scene, free[scene]
        scene = self._next_scene(job, now)
        loaded[scene] += 1
        if loaded.total() > node.slots:
            left = max(free, key=lambda s: (s not in job.pending.scenes, free[s])) if free else scene
            loaded[left] -= 1
            loaded += Counter()  # drops the zeros
        return scene, per_slot

    def _next_scene(self, job: JobTasks, now: float) -> str:
        """Where one more slot helps most."""
        if now >= job.look_at:
            self._look(job, now)
        scenes, doubtful = job.pending.scenes, job.doubtful()
        while job.late:
            name = job.late.pop()
            if name in scenes and name not in doubtful:
                return name
        while job.fresh:
            name = job.fresh.pop()
            if name in scenes and name not in doubtful and not job.holders[name]:
                return name
        likely = (name for name in scenes if name not in doubtful)
        return max(likely, key=lambda n: scenes[n].pending_count * job.cost_s(n) / (1 + job.holders[n]))

    def _look(self, job: JobTasks, now: float) -> None:
        """Find the scenes that will not be done in time by those who are at them.

        In time is when all slots could have done everything that is left, if it could be parted at will.
        """
        leased: Counter[str] = Counter()
        for lease in job.leases.values():
            leased[lease.scene] += len(lease.open)
        left_s = sum(scene.pending_count * job.cost_s(name) for name, scene in job.pending.scenes.items())
        left_s += sum(count * job.cost_s(name) for name, count in leased.items())
        in_time_s = left_s / max(1, self._nodes.slots())
        late: list[tuple[float, str]] = []
        for name, count in leased.items() if job.estimates.known() else ():
            cost_s = job.cost_s(name)
            if name in job.pending.scenes and cost_s >= LONG_S:  # so that every slot has one only
                needs_s = (1 + job.scenes[name].pending_count / count) * cost_s
                if needs_s > IN_TIME * in_time_s:
                    late.append((needs_s, name))
        job.late = [name for _, name in sorted(late)]
        job.look_at = now + max(LOOK_AGAIN_S, in_time_s / LOOKS)

    def _own_scene(self, job: JobTasks, node: LiveNode) -> str | None:
        """A scene of the node's fixed share. The shares are dealt at the first lease, round by round."""
        if not job.owners:
            names = sorted(other.name for other in self._nodes if why_unable(job, other) is None)
            job.owners = {scene: names[i % len(names)] for i, scene in enumerate(job.scenes)}
        last = job.last_own.get(node.name)
        if last in job.pending.scenes and job.owners[last] == node.name:
            return last
        for scene in job.pending.scenes:
            owner = self._nodes.get(job.owners[scene])
            if owner is None or why_unable(job, owner) is not None:  # somebody has to
                job.owners[scene] = node.name
            if job.owners[scene] == node.name:
                job.last_own[node.name] = scene
                return scene
        return None

    def _range(self, job: JobTasks, node: LiveNode) -> int:
        if not job.plan.dynload:
            return MOST_LEASED
        return math.ceil(job.pending.episodes * node.slots / (SHARE * max(self._nodes.slots(), node.slots)))


def credit(node: LiveNode, tasks: TaskManager) -> int:
    """What a node can take beyond what it holds and beyond the leases that are on their way to it."""
    return 0 if node.draining else node.capacity - tasks.open_episodes(node.name)


def why_not(job: JobTasks, node: LiveNode) -> Waiting | None:
    """Why a node gets nothing of a job; None if it may."""
    if job.state is not JobState.RUNNING:
        return Waiting(Cause.ENDED, f"the job is {job.state.value}")
    if (why := why_unable(job, node)) is not None:
        return why
    if job.plan.max_nodes and node.name not in job.nodes and len(job.nodes) >= job.plan.max_nodes:
        most = job.plan.max_nodes
        return Waiting(
            Cause.LIMIT, f"the job may use {counted(most, 'node')} at a time, and has {listed(sorted(job.nodes))}"
        )
    return None


def why_unable(job: JobTasks, node: LiveNode) -> Waiting | None:
    """Why a node cannot work on a job, whoever else does; None if it can."""
    if not node.is_here:
        return Waiting(Cause.NO_NODE, "it has not come back since the master's restart")
    if node.draining:
        return Waiting(Cause.DRAINED, "the node is being drained")
    if node.name in job.unfit:
        return Waiting(Cause.UNFIT, job.unfit[node.name])
    if job.environment and node.environment != job.environment:
        return Waiting(Cause.ENVIRONMENT, differences(job.packages, node.packages, f"on {node.name}"))
    if not job.environment and job.nodes and node.name not in job.nodes:
        expected = f"the job's environment is that of {min(job.nodes)}, which is expected back"
        return Waiting(Cause.ENVIRONMENT, expected)
    return None


def idle_slots(node: LiveNode, tasks: TaskManager) -> int:
    """Slots for which a node has no episode."""
    return max(0, node.slots - tasks.open_episodes(node.name))
