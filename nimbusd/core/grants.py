"""Who gets what: which job, which scene, and how many episodes of it, for a node that can take some."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nimbusd.core.episodes import JobState
from nimbusd.core.facts import Order
from nimbusd.core.nodes import Node, WorkerManager
from nimbusd.core.tasks import Job, TaskManager

MOST_LEASED = 1024
"""Episodes in one lease."""
SHARE = 2
"""A range is at most this fraction (one part in so many) of a node's fair part of what is pending."""


class Grants:
    """Leases pending episodes: priority first, then who has used least, then the scene that the node has loaded.

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
        while credit > 0 and (job := self._choose_job(node)) is not None:
            scene = self._choose_scene(job, node)
            if scene is None:
                break
            episodes = job.scenes[scene]
            size = min(credit, self._range(job, node), MOST_LEASED)
            spans = episodes.take(size)
            count = sum(len(span) for span in spans)
            job.environment = job.environment or node.environment
            node.last_scene[job.plan.job] = scene
            self._used_s[job.plan.user] = self._usage(job) + count * job.cost_s(scene)
            orders += self._tasks.grant(job, scene, node.name, spans, now)
            credit -= count
        return orders

    def credit(self, node: Node) -> int:
        """What a node can take beyond what it holds and beyond the leases that are on their way to it."""
        if node.draining or node.credit <= 0:
            return 0
        held = self._tasks.held_by(node.name)
        on_the_way = sum(len(lease.open) for lease in held.values() if lease.id not in node.held)
        return node.credit - on_the_way

    # --- jobs ---

    def _choose_job(self, node: Node) -> Job | None:
        open_jobs = [job for job in self._tasks if job.pending.episodes and why_not(job, node) is None]
        if not open_jobs:
            return None
        return min(open_jobs, key=lambda job: (-job.plan.priority, self._usage(job), job.order))

    def _usage(self, job: Job) -> float:
        """Seconds of slots that a job's user was given. Who was away starts level with who was given least."""
        user = job.plan.user
        if user not in self._used_s:
            active = {other.plan.user for other in self._tasks if other.plan.user in self._used_s}
            self._used_s = {name: used for name, used in self._used_s.items() if name in active}
            self._used_s[user] = min(self._used_s.values(), default=0.0)
        return self._used_s[user]

    # --- scenes ---

    def _choose_scene(self, job: Job, node: Node) -> str | None:
        if not job.plan.dynload:
            return self._own_scene(job, node)
        last = node.last_scene.get(job.plan.job)
        if last in job.pending.scenes:
            return last
        while job.fresh:
            name = job.fresh.pop()
            if name in job.pending.scenes and not job.holders[name]:
                return name
        return max(
            job.pending.scenes,
            key=lambda name: job.pending.scenes[name].pending_count * job.cost_s(name) / (1 + job.holders[name]),
            default=None,
        )

    def _own_scene(self, job: Job, node: Node) -> str | None:
        """A scene of the node's fixed share. The shares are dealt at the first lease, round by round."""
        if not job.owners:
            names = sorted(other.name for other in self._nodes if why_not(job, other) is None)
            job.owners = {scene: names[i % len(names)] for i, scene in enumerate(job.scenes)}
        for scene in job.pending.scenes:
            owner = job.owners[scene]
            if owner == node.name or self._nodes.get(owner) is None:
                job.owners[scene] = node.name
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
    if node.draining:
        return "the node is being drained"
    if node.name in job.unfit:
        return job.unfit[node.name]
    if job.environment and node.environment != job.environment:
        return (
            f"the node's environment {node.environment[:12]} differs from the job's {job.environment[:12]}: "
            "other package versions, driver or components"
        )
    if job.plan.max_nodes and node.name not in job.nodes and len(job.nodes) >= job.plan.max_nodes:
        return f"the job may use {job.plan.max_nodes} nodes at a time"
    return None


def idle_slots(node: Node, tasks: TaskManager) -> int:
    """Slots for which a node has no episode."""
    return max(0, node.slots - tasks.open_episodes(node.name))


def eligible(jobs: Iterable[Job], node: Node) -> list[Job]:
    """The jobs that the node may work on, those of the highest priority first."""
    return sorted((job for job in jobs if why_not(job, node) is None), key=lambda job: (-job.plan.priority, job.order))
