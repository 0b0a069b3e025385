"""The master's decisions: facts in, orders out, time as a value. TaskManager and WorkerManager, put together."""

from __future__ import annotations

from collections import Counter

from nimbusd.core.environments import Environment, differing, environment_of
from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.master.balance import Balance
from nimbusd.core.master.facts import (
    DrainAsked,
    EnvironmentAccepted,
    EpisodesReleased,
    Fact,
    JobAdded,
    JobCancelled,
    JobSetDown,
    NodeDrainAsked,
    NodeLost,
    Order,
    OutputBack,
    OutputLost,
    OutputUnseen,
    PackagesChanged,
    PieceRefused,
    PiecesLate,
    PiecesLost,
    ReviewBegan,
    ReviewEnded,
)
from nimbusd.core.master.grants import Grants, idle_slots
from nimbusd.core.master.nodes import DEAD_AFTER_S, LiveNode, WorkerManager
from nimbusd.core.master.open_jobs import JobTasks
from nimbusd.core.master.tasks import TaskManager
from nimbusd.core.master.waiting import Waits, why_waiting
from nimbusd.core.records import JobRecorded, JobState
from nimbusd.transport.messages.node import (
    Bye,
    CannotRun,
    Commit,
    Fail,
    GiveBack,
    Heartbeat,
    Hello,
    Lease,
    Revoke,
    SayHello,
)

BALANCE_EVERY_S = 0.25
LEAST_COST_S = 1e-6
"""Of an episode, as far as estimates go, whatever its node says."""
MOST_PACE = 1_000.0
"""A node counts as this much faster or slower than others at most, whatever it says."""
LOOK_EVERY_S = 0.5
"""Seconds between two looks for jobs that wait."""


class Scheduler:
    """Call `handle` for every fact, then `settle` once for the batch, and again now and then as time passes."""

    def __init__(self, epoch: int = 1, dead_after_s: float = DEAD_AFTER_S) -> None:
        self.tasks = TaskManager(epoch)
        self.nodes = WorkerManager(dead_after_s)
        self.waits = Waits()
        self._grants = Grants(self.tasks, self.nodes)
        self._balance = Balance(self.tasks, self.nodes)
        self._hungry: dict[NodeId, None] = {}
        """Nodes that may take something."""
        self._starved: dict[NodeId, None] = {}
        """Nodes that could take something, but nothing of what was pending then."""
        self._left_pending = 0
        self._balance_at = 0.0
        self._look_at = 0.0
        self._draining = False

    def handle(self, fact: Fact, now: float) -> list[Order]:
        """Take in a fact; returns the orders it leads to. Stale and repeated facts are harmless."""
        match fact:
            case Heartbeat():
                return self._heartbeat(fact, now)
            case Commit():
                if not self._environment_known(fact):
                    return [SayHello(fact.node)]  # then it will tell this again
                self._learn(fact)
                orders = self.tasks.stored(fact)
                self._feed_soon(self.nodes.get(fact.node))
                return orders
            case Fail():
                orders = self.tasks.failed(fact, now)
                name = fact.attempt.key.job
                if (job := self.tasks.jobs.get(name)) is not None and self.tasks.blames_alone(job, fact.node):
                    why = f"it says that the storage takes nothing, while others store there: {fact.failure.detail}"
                    orders += self._give_up_on(fact.node, name, why)
                self._feed_soon(self.nodes.get(fact.node))
                return orders
            case PiecesLate(told):
                return self.tasks.late(told)
            case ReviewBegan():
                self.tasks.hold(fact)
            case ReviewEnded(key):
                self.tasks.let_go(key)
            case PieceRefused():
                orders = self.tasks.refuse(fact)
                name = fact.attempt.key.job
                if (job := self.tasks.jobs.get(name)) is not None and self.tasks.distrusts(job, fact.node):
                    lies = job.doubts[fact.node].lies
                    why = f"{lies} pieces that it told of were not as it said, the last one: {fact.why}"
                    orders += self._give_up_on(fact.node, name, why)
                self._feed_soon(self.nodes.get(fact.node))
                return orders
            case OutputUnseen():
                return self.tasks.unseen(fact, now)
            case GiveBack():
                return self._returned(fact)
            case Hello():
                known = self.nodes.get(fact.node)
                if known is None or known.session != fact.session:
                    self.tasks.forget_unfit(fact.node)
                before = self.nodes.hello(fact, now)
                return self._lose(before, "restarted") if before is not None else []
            case Bye(node, session, why):
                known = self.nodes.get(node)
                if known is None or known.session != session:
                    return []
                self.nodes.remove(node)
                return self._lose(known, why)
            case JobAdded():
                for lease in fact.open_leases:
                    self.nodes.expect(lease.node, now)
                orders = self.tasks.add(fact, now)
                self._grants.job_added(fact.plan.job)
                return orders
            case JobCancelled(job):
                return self.tasks.cancel(job)
            case JobSetDown(job):
                return self.tasks.set_down(job)
            case EpisodesReleased(job, episodes):
                for scene, tried in episodes.items():
                    for index, what in tried.items():
                        self.tasks.release(job, scene, index, what)
            case PiecesLost(job, pieces):
                for scene, of_scene in pieces.items():
                    for index, lost in of_scene.items():
                        self.tasks.lose_piece(job, scene, index, lost)
            case OutputLost(job, why):
                return self.tasks.output_lost(job, why)
            case OutputBack(job):
                self.tasks.output_back(job, now)
            case CannotRun(node, job, error):
                return self._unfit(node, job, error)
            case NodeDrainAsked(node, on):
                self.nodes.drain(node, on)
            case EnvironmentAccepted():
                return self._accept_environment(fact)
            case DrainAsked():
                self._draining = True
        return []

    def settle(self, now: float) -> list[Order]:
        """Draw the consequences of the facts so far and of the time: lost nodes, leases, splits, copies."""
        orders: list[Order] = []
        for node in self.nodes.overdue(now):
            self.nodes.remove(node.name)
            orders += self._lose(node, f"has been silent for {self.nodes.dead_after_s:g} s")
        orders += self.tasks.resume_paused(now)
        self._grants.forget_ended()
        if not self._draining and (self._hungry or self._starved):
            orders += self._feed(now)
            for order in orders:
                if isinstance(order, Lease):
                    self.waits.moved(order.job, now)
        if now >= self._look_at and not self._draining:
            self._look_at = now + LOOK_EVERY_S
            running = (job for job in self.tasks if job.state is JobState.RUNNING)
            found = {job.plan.job: why_waiting(job, self.tasks, self.nodes) for job in running}
            orders += self.waits.look(found, now)
        return orders

    def sizes(self) -> dict[str, int]:
        """Numbers of things that are remembered of open jobs, by kind: all zero when there is none."""
        return self.tasks.sizes()

    # --- nodes ---

    def _heartbeat(self, fact: Heartbeat, now: float) -> list[Order]:
        known = self.nodes.get(fact.node)
        if known is None or known.session != fact.session:
            return [SayHello(fact.node)]
        node = self.nodes.heartbeat(fact, now)
        if node is None:
            return []
        leases = self.tasks.held_by(node.name)
        node.capacity = fact.credit + sum(len(leases[lease].open) for lease in fact.held if lease in leases)
        orders: list[Order] = []
        if node.held != leases.keys():
            strange = sorted(node.held - leases.keys())
            orders += [Revoke(node.name, lease, (), kill=True) for lease in strange]
            for lease in [lease for lease in leases.values() if lease.id not in node.held]:
                # Not on its way any more: too long ago, or by a connection that is gone.
                if lease.granted_at < max(node.hello_at, now - self.nodes.dead_after_s):
                    orders += self.tasks.give_up(lease, set(), "lost the lease")
        self._feed_soon(node)
        return orders

    def _feed_soon(self, node: LiveNode | None) -> None:
        """Lease to a node at the next `settle` if it can take something, by what it said and has done since."""
        if node is not None and self._grants.is_hungry(node):
            self._hungry[node.name] = None

    def _returned(self, fact: GiveBack) -> list[Order]:
        """Episodes that a node gives back. It takes no more until its next heartbeat says so."""
        orders = self.tasks.returned(fact)
        if (node := self.nodes.get(fact.node)) is not None:
            node.capacity = min(node.capacity, self.tasks.open_episodes(node.name))
        return orders

    def _unfit(self, node: NodeId, name: JobId, error: str) -> list[Order]:
        job = self.tasks.jobs.get(name)
        if job is None:
            return []
        job.unfit[node] = error
        if set(job.nodes) <= {node} and not job.estimates.known():
            job.environment, job.packages = job.plan.environment, job.plan.packages  # it was this node's by chance
        orders: list[Order] = []
        for lease in [lease for lease in job.leases.values() if lease.node == node]:
            orders += self.tasks.give_up(lease, set(), "cannot run the job")
        return orders

    def _give_up_on(self, node: NodeId, job: JobId, why: str) -> list[Order]:
        """A node gets nothing more of a job, and stops what it does for it."""
        held = [lease for lease in self.tasks.held_by(node).values() if lease.job == job]
        stops = [Revoke(node, lease.id, tuple(sorted(lease.open)), kill=True) for lease in held]
        return [*stops, *self._unfit(node, job, why)]

    def _lose(self, node: LiveNode, why: str) -> list[Order]:
        self._hungry.pop(node.name, None)
        self._starved.pop(node.name, None)
        self._grants.node_lost(node.name)
        running = [(running.lease, running.index) for running in node.running]
        orders, returned = self.tasks.lost(node.name, running, why)
        return [*orders, NodeLost(node.name, why, returned)]

    def _accept_environment(self, fact: EnvironmentAccepted) -> list[Order]:
        """Have a job go on with other packages. What nodes hold of it they finish with those that they have."""
        job = self.tasks.jobs.get(fact.job)
        if job is None:
            return []
        chosen = self._environment_told(fact, job) if fact.environment else self._most_common_environment(job)
        if chosen is None or chosen.hash == job.environment:
            return []
        before, now = differing(job.packages, chosen.packages)
        job.environment, job.packages, job.is_bound = chosen.hash, chosen.packages, True
        self._grants.deal_anew(job)  # the nodes that could work on it may be others
        self._hungry |= self._starved
        self._starved.clear()
        recorded = JobRecorded(job.plan.job, job.state, job.why, chosen.hash, chosen.packages)
        return [recorded, PackagesChanged(job.plan.job, before, now)]

    @staticmethod
    def _environment_told(fact: EnvironmentAccepted, job: JobTasks) -> Environment:
        """Of what a fact tells of a whole node, the part that counts for the job."""
        told = Environment(fact.environment, fact.packages)
        return told if job.plan.counting is None else environment_of(fact.packages, job.plan.counting)

    def _most_common_environment(self, job: JobTasks) -> Environment | None:
        """The environment that most slots have of nodes which get work and can make the job's components.

        Of two that are as common, another one than the job's. None: there is no such node.
        """
        slots: Counter[Environment] = Counter()
        for node in self.nodes:
            if node.is_here and not node.draining and node.name not in job.unfit:
                slots[node.environment_for(job.plan.counting)] += node.slots
        return max(slots, key=lambda one: (slots[one], one.hash != job.environment, one.hash), default=None)

    # --- work ---

    def _environment_known(self, fact: Commit) -> bool:
        """The first commit of a job decides its environment, so its node must have said what it has."""
        job, node = self.tasks.jobs.get(fact.job), self.nodes.get(fact.node)
        if job is not None and not job.environment:
            if node is None or not node.is_here:
                return False
            job.bind(node)
        return True

    def _learn(self, fact: Commit) -> None:
        """Costs of episodes, and by them the node's speed."""
        job, node = self.tasks.jobs.get(fact.job), self.nodes.get(fact.node)
        if job is None or node is None or fact.scene not in job.scenes:
            return
        hint = job.scenes[fact.scene].plan.cost_hint
        for piece in fact.stored:
            cost_s = max(piece.cost_s, LEAST_COST_S)
            if (expected_s := job.estimates.measured(fact.scene)) is not None:
                pace = cost_s / max(expected_s, LEAST_COST_S)
                node.pace.add(min(max(pace, 1 / MOST_PACE), MOST_PACE))
            job.estimates.add(fact.scene, hint, cost_s, node.speed)

    def _feed(self, now: float) -> list[Order]:
        """Lease to whoever can take something, the emptiest first; then look after those who got nothing.

        They are asked again when more is pending than before, or when they say something.
        """
        orders: list[Order] = []
        pending = sum(job.pending.episodes for job in self.tasks if job.state is JobState.RUNNING)
        if pending > self._left_pending:
            self._hungry |= self._starved
            self._starved.clear()
        hungry = [node for name in self._hungry if (node := self.nodes.get(name)) is not None]
        if pending:
            if len(hungry) > 1:
                hungry.sort(key=lambda node: (self.tasks.open_episodes(node.name) / max(1, node.slots), node.name))
            for node in hungry:
                granted = self._grants.grant(node, now)
                orders += granted
                if not granted:
                    self._starved[node.name] = None
            self._hungry.clear()
        self._left_pending = sum(job.pending.episodes for job in self.tasks if job.state is JobState.RUNNING)
        if now >= self._balance_at:
            idle = [node for node in hungry if self._grants.credit(node) > 0 and idle_slots(node, self.tasks)]
            if idle:
                self._balance_at = now + BALANCE_EVERY_S
                orders += self._balance.balance(idle, now)
        return orders
