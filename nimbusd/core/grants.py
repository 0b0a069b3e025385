"""Who gets what: which job, which scene, and how many episodes of it, for a node that can take some."""

from __future__ import annotations

import math
from collections import Counter

from nimbusd.core.episodes import JobRecorded, JobState
from nimbusd.core.facts import Order
from nimbusd.core.nodes import Node, WorkerManager
from nimbusd.core.tasks import Job, TaskManager

MOST_LEASED = 1024
"""Episodes in one lease."""
SHARE = 2
"""A range is at most this fraction (one part in so many) of a node's fair part of what is pending."""
STAY_S = 20.0
"""Seconds of slots that a user may get ahead of another before a node's workers are changed for the other's job."""
LOOK_AGAIN_S = 1.0
"""How often it is worked out which scenes cannot be done in time by those who are at them."""


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

    def grant(self, node: Node, now: float) -> list[Order]:
        """Lease to a node what it can take now."""
        orders: list[Order] = []
        credit = self.credit(node)
        jobs = self._jobs_for(node) if credit > 0 else []
        while credit > 0 and jobs:
            job = min(jobs, key=lambda job: self._turn(job, node))
            if not job.environment:
                job.environment = node.environment
                orders.append(JobRecorded(job.plan.job, job.state, environment=node.environment))
            scene, most = self._choose_scene(job, node, credit, now)
            if scene is None:
                jobs.remove(job)
                continue
            spans = job.scenes[scene].take(min(credit, most, self._range(job, node), MOST_LEASED))
            count = sum(len(span) for span in spans)
            self._used_s[job.plan.user] = self._usage(job) + count * job.cost_s(scene)
            orders += self._tasks.grant(job, scene, node.name, spans, now)
            credit -= count
            if not job.pending.episodes:
                jobs.remove(job)
        return orders

    def credit(self, node: Node) -> int:
        """What a node can take beyond what it holds and beyond the leases that are on their way to it."""
        if node.draining or node.credit <= 0:
            return 0
        held = self._tasks.held_by(node.name)
        on_the_way = sum(len(lease.open) for lease in held.values() if lease.id not in node.held)
        return node.credit - on_the_way

    # --- jobs ---

    def _jobs_for(self, node: Node) -> list[Job]:
        return [job for job in self._tasks if job.pending.episodes and why_not(job, node) is None]

    def _turn(self, job: Job, node: Node) -> tuple[float, float, float]:
        """The lowest is next. A node changes to another user's job when that is well behind, not at every lease."""
        stay_s = STAY_S if node.name in job.nodes else 0.0
        return -job.plan.priority, self._usage(job) - stay_s, job.order

    def _usage(self, job: Job) -> float:
        """Seconds of slots that a job's user was given. Who was away starts level with who was given least."""
        user = job.plan.user
        if user not in self._used_s:
            active = {other.plan.user for other in self._tasks if other.plan.user in self._used_s}
            self._used_s = {name: used for name, used in self._used_s.items() if name in active}
            self._used_s[user] = min(self._used_s.values(), default=0.0)
        return self._used_s[user]

    # --- scenes ---

    def _choose_scene(self, job: Job, node: Node, credit: int, now: float) -> tuple[str | None, int]:
        """A scene of which the node gets some episodes now, and how many at most."""
        if not job.plan.dynload:
            return self._own_scene(job, node), credit
        held = self._tasks.held_by(node.name)
        held_of: Counter[str] = Counter()
        for lease in held.values():
            if lease.job == job.plan.job:
                held_of[lease.scene] += len(lease.open)
        in_all = credit + sum(len(lease.open) for lease in held.values())
        per_slot = -(-in_all // max(1, node.slots))
        loaded = job.loaded.setdefault(node.name, {})
        hungriest = min((s for s in loaded if s in job.pending.scenes), key=lambda s: held_of[s], default=None)
        if hungriest is not None and (held_of[hungriest] < per_slot or len(held_of) >= node.slots):
            return hungriest, max(1, per_slot - held_of[hungriest])
        scene = self._next_scene(job, now)
        if scene is not None:
            loaded.pop(scene, None)
            loaded[scene] = None
            if len(loaded) > node.slots:
                del loaded[min(loaded, key=lambda s: (s in job.pending.scenes, s in held_of))]
        return scene, per_slot

    def _next_scene(self, job: Job, now: float) -> str | None:
        """Where one more slot helps most."""
        if now >= job.look_at:
            job.look_at = now + LOOK_AGAIN_S
            job.late = self._late_scenes(job)
        while job.late:
            name = job.late.pop()
            if name in job.pending.scenes:
                return name
        while job.fresh:
            name = job.fresh.pop()
            if name in job.pending.scenes and not job.holders[name]:
                return name
        scenes = job.pending.scenes
        return max(scenes, key=lambda n: scenes[n].pending_count * job.cost_s(n) / (1 + job.holders[n]), default=None)

    def _late_scenes(self, job: Job) -> list[str]:
        """Scenes that will not be done in time by those who are at them, the worst last.

        In time is when all slots could have done everything that is left, if it could be parted at will.
        """
        left_s = sum(scene.pending_count * job.cost_s(name) for name, scene in job.pending.scenes.items())
        left_s += sum(len(lease.open) * job.cost_s(lease.scene) for lease in job.leases.values())
        in_time_s = left_s / max(1, self._nodes.slots())
        late: list[tuple[float, str]] = []
        for name in job.holders:
            if name in job.pending.scenes:
                cost_s = job.cost_s(name)
                slots = (1 + job.holders[name]) // 2  # one is at work on a lease, with the next one in its hands
                needs_s = (1 + job.scenes[name].pending_count / slots) * cost_s
                if needs_s > in_time_s:
                    late.append((needs_s, name))
        return [name for _, name in sorted(late)]

    def _own_scene(self, job: Job, node: Node) -> str | None:
        """A scene of the node's fixed share. The shares are dealt at the first lease, round by round."""
        if not job.owners:
            names = sorted(other.name for other in self._nodes if why_unable(job, other) is None)
            job.owners = {scene: names[i % len(names)] for i, scene in enumerate(job.scenes)}
        for scene in job.pending.scenes:
            owner = self._nodes.get(job.owners[scene])
            if owner is None or why_unable(job, owner) is not None:  # somebody has to
                job.owners[scene] = node.name
                return scene
            if owner is node:
                return scene
        return None

    def _range(self, job: Job, node: Node) -> int:
        if not job.plan.dynload:
            return MOST_LEASED
        if not job.estimates.known():
            return node.slots  # nothing has been measured: find out with little
        return math.ceil(job.pending.episodes * node.slots / (SHARE * max(self._nodes.slots(), node.slots)))


def why_not(job: Job, node: Node) -> str | None:
    """Why a node gets nothing of a job, in words; None if it may."""
    if job.state is not JobState.RUNNING:
        return f"the job is {job.state.value}"
    if (why := why_unable(job, node)) is not None:
        return why
    if job.plan.max_nodes and node.name not in job.nodes and len(job.nodes) >= job.plan.max_nodes:
        return f"the job may use {job.plan.max_nodes} nodes at a time"
    return None


def why_unable(job: Job, node: Node) -> str | None:
    """Why a node cannot work on a job, whoever else does; None if it can."""
    if node.draining:
        return "the node is being drained"
    if node.name in job.unfit:
        return job.unfit[node.name]
    if job.environment and node.environment != job.environment:
        return (
            f"the node's environment {node.environment[:12]} differs from the job's {job.environment[:12]}: "
            "other package versions, driver or components"
        )
    return None


def idle_slots(node: Node, tasks: TaskManager) -> int:
    """Slots for which a node has no episode."""
    return max(0, node.slots - tasks.open_episodes(node.name))
