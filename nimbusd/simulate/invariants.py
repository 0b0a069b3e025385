"""Invariants of a cluster, at every moment and at the end of its jobs (numbers as in the architecture)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from nimbusd.core.ids import JobId, NodeId
from nimbusd.core.master.grants import why_not
from nimbusd.core.master.open_jobs import JobTasks
from nimbusd.core.master.scheduler import Scheduler
from nimbusd.core.master.waiting import HOLDS_S
from nimbusd.core.records import JobState, State
from nimbusd.simulate.ledger import JobPages
from nimbusd.simulate.violation import Violation
from nimbusd.simulate.workload import Fate

if TYPE_CHECKING:
    from nimbusd.simulate.cluster import Cluster

EVERY = 4
"""The tables of the scheduler are compared after every so many decisions."""
SLACK_S = 2.0
PATIENCE_S = 4.0
"""For how long a slot may idle beside work, when nothing was lost or cut off; a lost message costs a death more."""
TOLD_WITHIN_S = 1.5
"""Of a job that stands still, after it has done so for long enough: jobs are looked at now and then."""
MOST_LAG_S = 0.5
"""Slots wait for messages that take longer than that."""


class Invariants:
    """Checks a cluster; raises Violation. The ledger, the storage and the nodes check themselves."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._decisions = 0
        self._calm_since = 0.0
        self._lost = 0
        self._hungry_since: dict[str, float] = {}
        self._still_since: dict[JobId, float] = {}
        """Since when nothing of a job is held by anybody who is here."""

    def after_decision(self) -> None:
        """Compare the scheduler's tables with each other and with the ledger."""
        self._decisions += 1
        scheduler = self._cluster.master.scheduler
        if isinstance(scheduler, Scheduler):
            self._note_what_moves(scheduler)
            if self._decisions % EVERY == 0:
                self._tables(scheduler)

    def inspect(self) -> None:
        """Check what takes time to go wrong: dead nodes' leases, idle slots. Called every second."""
        scheduler = self._cluster.master.scheduler
        if not isinstance(scheduler, Scheduler):
            self._calm_since, self._still_since = self._cluster.clock.now, {}
            return
        self._leases_of_the_dead(scheduler)
        self._idle_beside_work(scheduler)
        self._nothing_waits_without_a_reason(scheduler)

    # --- tables ---

    def _tables(self, scheduler: Scheduler) -> None:
        tasks = scheduler.tasks
        by_job = {id: lease for job in tasks for id, lease in job.leases.items()}
        if by_job != tasks.leases:
            raise Violation("I8", "leases by job and leases by number differ")
        by_node = {id for node in {lease.node for lease in by_job.values()} for id in tasks.held_by(node)}
        if by_node != by_job.keys():
            raise Violation("I8", "leases by node and leases by number differ")
        for job in tasks:
            self._job(job)

    def _job(self, job: JobTasks) -> None:
        name = job.plan.job
        leased: Counter[tuple[str, int]] = Counter()
        for lease in job.leases.values():
            if not lease.open:
                raise Violation("I8", f"{lease} is kept, though it is over")
            if not lease.revoking.keys() <= lease.open:
                raise Violation("I8", f"{lease} awaits what it does not hold")
            leased.update((lease.scene, index) for index in lease.open)
        doubled = {place for place, times in leased.items() if times > 1}
        if max(leased.values(), default=0) > 2 or doubled != job.copies.keys():
            raise Violation("I1", f"{name}: leased more than once: {doubled}; copies: {sorted(job.copies)}")
        if job.nodes != Counter(lease.node for lease in job.leases.values()):
            raise Violation("I8", f"{name}: leases by node are miscounted")
        if job.holders != Counter(lease.scene for lease in job.leases.values()):
            raise Violation("I8", f"{name}: leases by scene are miscounted")
        if job.plan.max_nodes and len(job.nodes) > job.plan.max_nodes:
            raise Violation("I5", f"{name} runs on {len(job.nodes)} nodes")
        by_scene = Counter(scene for scene, _ in leased)
        pending = 0
        for scene, episodes in job.scenes.items():
            count = episodes.count
            settled = count.committed + count.failed + count.quarantined
            if episodes.pending_count + by_scene[scene] + settled != episodes.next_index:
                raise Violation("I2", f"{name}/{scene}: pending, leased and settled episodes don't add up")
            if (episodes.pending_count > 0) != (scene in job.pending.scenes):
                raise Violation("I8", f"{name}/{scene}: wrongly listed as pending, or not listed")
            pending += episodes.pending_count
        if pending != job.pending.episodes:
            raise Violation("I8", f"{name}: {pending} episodes are pending, {job.pending.episodes} are counted")
        if not leased and not pending:
            raise Violation("I2", f"{name} is kept open, though nothing is left of it")

    # --- time ---

    def _leases_of_the_dead(self, scheduler: Scheduler) -> None:
        cluster, now = self._cluster, self._cluster.clock.now
        for name in {lease.node for lease in scheduler.tasks.leases.values()}:
            if scheduler.nodes.get(name) is None:
                raise Violation("I4", f"{name} holds leases, but is not known")
            down_since = cluster.nodes[name].down_since
            if down_since is not None:
                silent_s = now - max(down_since, cluster.master.up_since)
                if silent_s > 2 * cluster.dead_after_s + SLACK_S:
                    raise Violation("I4", f"{name} holds leases, dead for {now - down_since:.1f} s")

    def _idle_beside_work(self, scheduler: Scheduler) -> None:
        cluster, now = self._cluster, self._cluster.clock.now
        if cluster.network.lost != self._lost:
            self._lost, self._calm_since = cluster.network.lost, now
        if max(cluster.network.weather.jitter_s, cluster.network.lag_s()) > MOST_LAG_S:
            self._hungry_since, self._calm_since = {}, now
            return
        # A lease that is lost on its way is missed after dead_after_s, and the next one may be lost as well.
        rough = now - self._calm_since < 4 * cluster.dead_after_s
        patience_s = PATIENCE_S + (2 * cluster.dead_after_s if rough else 0.0)
        hungry: dict[str, float] = {}
        for name, virtual in cluster.nodes.items():
            node = scheduler.nodes.get(NodeId(name))
            if (
                virtual.machine is not None
                and virtual.welcomed
                and node is not None
                and not cluster.network.is_cut(name, "master")
                and not cluster.network.is_cut("master", name)
                and any(
                    job.pending.episodes and why_not(job, node) is None for job in scheduler.tasks if job.plan.dynload
                )
            ):
                for worker in virtual.idle_workers():
                    place = f"{virtual.session} of {name}, {worker}"
                    hungry[place] = self._hungry_since.get(place, now)
                    if now - hungry[place] > patience_s:
                        raise Violation(
                            "I5", f"session {place} is idle beside pending work since {hungry[place]:.1f} s"
                        )
        self._hungry_since = hungry

    def _note_what_moves(self, scheduler: Scheduler) -> None:
        now, nodes = self._cluster.clock.now, scheduler.nodes
        still: dict[JobId, float] = {}
        for job in scheduler.tasks:
            held = any((node := nodes.get(name)) is not None and node.is_here for name in job.nodes)
            if job.state is JobState.RUNNING and not held:
                still[job.plan.job] = self._still_since.get(job.plan.job, now)
        self._still_since = still

    def _nothing_waits_without_a_reason(self, scheduler: Scheduler) -> None:
        """Whatever the network and the nodes do: whoever asks why a job stands still is told."""
        for job, since in self._still_since.items():
            still_s = self._cluster.clock.now - max(since, self._cluster.master.up_since)
            if still_s > HOLDS_S + TOLD_WITHIN_S and scheduler.waits.of(job) is None:
                raise Violation("I11", f"{job} stands still for {still_s:.1f} s, and nobody is told why")

    # --- the end ---

    def at_end(self) -> None:
        """All jobs have ended: everything is accounted for, and nothing is remembered of it."""
        cluster = self._cluster
        for pages in cluster.ledger.jobs.values():
            if pages.state is not JobState.CANCELLED:
                self._accounted_for(pages)
            for row in pages.rows.values():
                if row.piece is not None and (row.key.job, row.piece.folder) not in cluster.pieces:
                    raise Violation("I3", f"the committed piece {row.piece.folder} is not there")
        scheduler = cluster.master.scheduler
        assert isinstance(scheduler, Scheduler)
        if sizes := {name: size for name, size in scheduler.sizes().items() if size}:
            raise Violation("I8", f"the scheduler still remembers {sizes}")
        for name, node in cluster.nodes.items():
            if not node.plans_are_accounted_for():
                raise Violation("I8", f"{name} keeps other plans than it knows of")
            if node.machine is not None and (sizes := {n: size for n, size in node.machine.sizes().items() if size}):
                raise Violation("I8", f"{name} still remembers {sizes}")

    def _accounted_for(self, pages: JobPages) -> None:
        """Every scene was tried as far as it had to be, and no further."""
        workload = self._cluster.workload(pages.plan.job)
        committed = 0
        for scene in pages.plan.scenes:
            rows = {index: row for (name, index), row in pages.rows.items() if name == scene.name}
            if unsettled := [row for row in rows.values() if row.state is State.PENDING]:
                raise Violation("I2", f"{pages.plan.job} has ended, but these are pending: {unsettled}")
            failed = sum(row.state is State.FAILED for row in rows.values())
            tried = scene.wanted + (failed if scene.exact else 0)
            tried = min(tried, max(scene.wanted, scene.most_tried))
            if sorted(rows) != list(range(tried)):
                raise Violation(
                    "I2", f"{pages.plan.job}/{scene.name}: {sorted(rows)} were tried instead of 0…{tried - 1}"
                )
            for index, row in rows.items():
                fate = workload.fate(scene.name, index)
                if (row.state is State.FAILED) != (fate is Fate.UNPLANNABLE) and row.state is not State.QUARANTINED:
                    raise Violation("I2", f"{row} is recorded, but it is {fate.value}")
                if row.state is State.COMMITTED and fate is not Fate.MADE:
                    raise Violation("I2", f"{row} is committed, but it is {fate.value}")
            committed += sum(row.state is State.COMMITTED for row in rows.values())
        if pages.state is JobState.COMPLETE and all(scene.exact for scene in pages.plan.scenes):
            wanted = sum(scene.wanted for scene in pages.plan.scenes)
            if committed != wanted:
                raise Violation("I2", f"{pages.plan.job} is complete with {committed} of {wanted} episodes")
