"""The lease policy: a job, a scene, and a number of its episodes for a node that can take some."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from nimbusd.core.environments import differences
from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.master.facts import Cause, Order, Waiting
from nimbusd.core.master.nodes import LONG_S, LiveNode, WorkerManager
from nimbusd.core.master.open_jobs import JobTasks
from nimbusd.core.master.tasks import TaskManager
from nimbusd.core.records import JobState
from nimbusd.core.words import counted, listed

MOST_LEASED = 1024
"""Episodes in one lease."""
LEAST_GRANTED = 16
"""Episodes that a node may get at a time however little is left: more leases would cost more than they even out."""
RANGE_FRACTION = 1 / 2
"""The part of a node's fair share of what is pending that one range is at most."""
FEED_FRACTION = 1 / 16
"""A node is leased more when at least this part of what it can hold is free."""
STAY_S = 20.0
"""Seconds of slots that a user may get ahead of another before a node's workers are changed for the other's job."""
LOOK_AGAIN_S = 1.0
LOOKS = 200
"""Looks for late scenes in what is left of a job; never more often than once a second."""
IN_TIME = 0.8
"""A scene is late if it is not done in this part of what is left of the job: estimates are no more than that."""


@dataclass(slots=True)
class _Scenes:
    """Notes of the policy on the scenes of one job."""

    fresh: list[str]
    """Nobody is at them, the longest last."""
    late: list[str] = field(default_factory=list)
    """They need more slots, the most urgent last."""
    look_at: float = 0.0
    """The time of the next look for late ones."""
    loaded: dict[NodeId, Counter[str]] = field(default_factory=dict)
    """Slots of each node that should have a scene loaded."""
    owners: dict[str, NodeId] = field(default_factory=dict)
    """The node that may work on a scene, where that is fixed."""
    last_own: dict[NodeId, str] = field(default_factory=dict)
    """The latest scene of a node's fixed share that it was leased."""


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
        self._scenes: dict[JobId, _Scenes] = {}

    # --- what is told ---

    def job_added(self, name: JobId) -> None:
        """A job was taken on, if it is open now: nobody has begun any of its scenes."""
        if (job := self._tasks.jobs.get(name)) is not None and name not in self._scenes:
            hints = {scene: each.plan.cost_hint * each.pending_count for scene, each in job.scenes.items()}
            self._scenes[name] = _Scenes(sorted(hints, key=lambda scene: hints[scene]))

    def forget_ended(self) -> None:
        """Remember nothing of jobs that are not open any more."""
        if len(self._scenes) > len(self._tasks.jobs):
            self._scenes = {name: scenes for name, scenes in self._scenes.items() if name in self._tasks.jobs}

    def node_lost(self, name: NodeId) -> None:
        """A node is gone, and with it what its workers had loaded."""
        for scenes in self._scenes.values():
            scenes.loaded.pop(name, None)

    def deal_anew(self, job: JobTasks) -> None:
        """Deal fixed shares again: other nodes may work on a job from now on."""
        self._scenes[job.plan.job].owners.clear()

    # --- leases ---

    def grant(self, node: LiveNode, now: float) -> list[Order]:
        """Lease to a node what it should have now.

        A node that can hold much gets no more than its range of all that it may have, though not in crumbs: it is asked
        again when it has done some of it. Every slot gets an episode.
        """
        orders: list[Order] = []
        credit = self.credit(node)
        jobs = self._jobs_for(node) if credit > 0 else []
        in_range = sum(self._range(job, node) for job in jobs)
        left = max(in_range, idle_slots(node, self._tasks), LEAST_GRANTED)
        while credit > 0 and left > 0 and jobs:
            job = min(jobs, key=lambda job: self._turn(job, node))
            job.bind(node)
            scene, most = self._choose_scene(job, node, credit, now)
            if scene is None:
                jobs.remove(job)
                continue
            spans = job.scenes[scene].take(min(credit, most, self._range(job, node), MOST_LEASED))
            count = sum(span.size for span in spans)
            self._used_s[job.plan.user] = self._usage(job) + count * job.cost_s(scene)
            orders += self._tasks.grant(job, scene, node.name, spans, now)
            credit -= count
            left -= count
            if not job.pending.episodes:
                jobs.remove(job)
        return orders

    def credit(self, node: LiveNode) -> int:
        """Episodes that a node can take beyond those that it holds and those on their way to it."""
        return credit(node, self._tasks)

    def is_hungry(self, node: LiveNode) -> bool:
        """True where a lease is worth sending: a node of fast episodes is not fed with single ones."""
        return self.credit(node) >= max(1, int(node.capacity * FEED_FRACTION))

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
        loaded = self._scenes[job.plan.job].loaded.setdefault(node.name, Counter())
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
        """The scene that one more slot helps most."""
        policy = self._scenes[job.plan.job]
        if now >= policy.look_at:
            self._look(job, now)
        if job.left:
            self._take_back(job, policy)
        scenes, doubtful = job.pending.scenes, job.doubtful()
        while policy.late:
            name = policy.late.pop()
            if name in scenes and name not in doubtful:
                return name
        while policy.fresh:
            name = policy.fresh.pop()
            if name in scenes and name not in doubtful and not job.holders[name]:
                return name
        likely = (name for name in scenes if name not in doubtful)
        return max(likely, key=lambda n: scenes[n].pending_count * job.cost_s(n) / (1 + job.holders[n]))

    @staticmethod
    def _take_back(job: JobTasks, policy: _Scenes) -> None:
        """Put scenes that were left, and that nobody is at any more, to those that nobody has begun."""
        left = {name for name in job.left if name in job.pending.scenes and not job.holders[name]}
        job.left.clear()
        if left := left.difference(policy.fresh):
            policy.fresh += left
            policy.fresh.sort(key=lambda name: (job.scenes[name].pending_count * job.cost_s(name), name))

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
        policy = self._scenes[job.plan.job]
        policy.late = [name for _, name in sorted(late)]
        policy.look_at = now + max(LOOK_AGAIN_S, in_time_s / LOOKS)

    def _own_scene(self, job: JobTasks, node: LiveNode) -> str | None:
        """A scene of the node's fixed share. The shares are dealt at the first lease, round by round."""
        policy = self._scenes[job.plan.job]
        owners, last_own = policy.owners, policy.last_own
        if not owners:
            names = sorted(other.name for other in self._nodes if why_unable(job, other) is None)
            owners |= {scene: names[i % len(names)] for i, scene in enumerate(job.scenes)}
        last = last_own.get(node.name)
        if last in job.pending.scenes and owners[last] == node.name:
            return last
        for scene in job.pending.scenes:
            owner = self._nodes.get(owners[scene])
            if owner is None or why_unable(job, owner) is not None:  # somebody has to
                owners[scene] = node.name
            if owners[scene] == node.name:
                last_own[node.name] = scene
                return scene
        return None

    def _range(self, job: JobTasks, node: LiveNode) -> int:
        if not job.plan.dynload:
            return MOST_LEASED
        return math.ceil(RANGE_FRACTION * job.pending.episodes * node.slots / max(self._nodes.slots(), node.slots))


def credit(node: LiveNode, tasks: TaskManager) -> int:
    """Episodes that a node can take beyond those that it holds and those on their way to it."""
    return 0 if node.draining else node.capacity - tasks.open_episodes(node.name)


def why_not(job: JobTasks, node: LiveNode) -> Waiting | None:
    """The reason why a node gets nothing of a job; None if it may get some."""
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
    """The reason why a node cannot work on a job, whoever else does; None if it can."""
    if not node.is_here:
        return Waiting(Cause.NO_NODE, "it has not come back since the master's restart")
    if node.draining:
        return Waiting(Cause.DRAINED, "the node is being drained")
    if node.name in job.unfit:
        return Waiting(Cause.UNFIT, job.unfit[node.name])
    if job.environment and not job.fits(node):
        there = node.environment_for(job.plan.counting)
        return Waiting(Cause.ENVIRONMENT, differences(job.packages, there.packages, f"on {node.name}"))
    if not job.environment and job.nodes and node.name not in job.nodes:
        expected = f"the job's environment is that of {min(job.nodes)}, which is expected back"
        return Waiting(Cause.ENVIRONMENT, expected)
    return None


def idle_slots(node: LiveNode, tasks: TaskManager) -> int:
    """Slots for which a node has no episode."""
    return max(0, node.slots - tasks.open_episodes(node.name))
