"""Work for idle nodes while nothing is pending: leases of others are split, stragglers are run again.

A lease is split at episode granularity: a node is asked for the later half of what it has not begun, and what it
gives back is pending again. When there is nothing left to split, an episode that takes much longer than expected
is leased a second time; attempts are fenced, and the first commit wins.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass

from nimbusd.core.ids import LeaseId, NodeId
from nimbusd.core.master.facts import Order
from nimbusd.core.master.grants import idle_slots, why_not
from nimbusd.core.master.nodes import EXPECTED, LiveNode, WorkerManager
from nimbusd.core.master.open_jobs import JobTasks, OpenLease
from nimbusd.core.master.tasks import TaskManager
from nimbusd.transport.messages.node import Revoke

REVOKE_AGAIN_S = 3.0
"""A revoke that was not answered for so long is sent again."""
FREE_ATTEMPTS = 4
LONGEST_REST_S = 600.0
"""A lease that has changed hands often stays with its node for a while, ever longer up to this. Otherwise two nodes
that must both start a worker for it first could take it from each other for ever."""
LATE = 1.5
"""An episode is a straggler when it has taken so many times what was expected on its node."""


@dataclass(slots=True)
class _Running:
    lease: OpenLease
    index: int
    is_late: bool
    left_s: float
    elsewhere_s: float
    """Seconds that a copy would take."""


class Balance:
    """Finds work for nodes that have none while others have more than they can do at once."""

    def __init__(self, tasks: TaskManager, nodes: WorkerManager) -> None:
        self._tasks = tasks
        self._nodes = nodes

    def balance(self, idle: list[LiveNode], now: float) -> list[Order]:
        """Orders that bring work to idle nodes. Called while nothing that they may have is pending."""
        orders: list[Order] = []
        free = {node.name: idle_slots(node, self._tasks) for node in idle}
        for job in sorted(self._tasks, key=lambda job: (-job.plan.priority, job.order)):
            if job.pending.episodes or not job.plan.dynload:
                continue
            thieves = [node for node in idle if free[node.name] and why_not(job, node) is None]
            if not thieves:
                continue
            asked = self._split(job, thieves, sum(free[node.name] for node in thieves), now)
            orders += asked
            if asked or any(lease.revoking for lease in job.leases.values()):
                for node in thieves:
                    free[node.name] = 0  # something is on its way
                continue
            for node in sorted(thieves, key=lambda node: (-node.speed, node.name)):
                if why_not(job, node) is None:
                    copies = self._copy_stragglers(job, node, free[node.name], now)
                    free[node.name] -= len(copies) // 2
                    orders += copies
        return orders

    # --- splitting ---

    def _split(self, job: JobTasks, thieves: list[LiveNode], free: int, now: float) -> list[Order]:
        """Ask holders for as much as makes queues equal, and one episode for every free slot at least."""
        awaited = 0
        queues: list[tuple[float, LeaseId, list[int]]] = []
        waiting_in_all, busy = 0, 0
        by_node: defaultdict[NodeId, list[OpenLease]] = defaultdict(list)
        for lease in job.leases.values():
            lease.revoking = {index: at for index, at in lease.revoking.items() if now - at < REVOKE_AGAIN_S}
            awaited += len(lease.revoking)
            by_node[lease.node].append(lease)
        for name, leases in by_node.items():
            victim = self._nodes.get(name)
            if victim is None or victim.session == EXPECTED:
                continue
            begun = {(running.lease, running.index) for running in victim.running}
            idle_there = victim in thieves
            queued_s = 0.0
            for lease in leases:
                if lease.id not in victim.held or idle_there or now - lease.granted_at < _rest_s(lease):
                    continue
                unasked = lease.open - lease.revoking.keys() - lease.in_review
                waiting = sorted(i for i in unasked if (lease.id, i) not in begun)
                queued_s += len(waiting) * job.cost_s(lease.scene) / (max(1, victim.slots) * victim.speed)
                if waiting:
                    queues.append((-queued_s, lease.id, waiting))
                    waiting_in_all += len(waiting)
            busy += victim.slots
        wanted = max(free, waiting_in_all * free // (busy + free)) - awaited
        heapq.heapify(queues)
        asked: defaultdict[LeaseId, list[int]] = defaultdict(list)
        while wanted > 0 and queues:
            queued_s, id, waiting = queues[0]
            asked[id].append(waiting.pop())
            wanted -= 1
            if waiting:
                heapq.heapreplace(queues, (queued_s * len(waiting) / (len(waiting) + 1), id, waiting))
            else:
                heapq.heappop(queues)
        orders: list[Order] = []
        for id, indexes in asked.items():
            lease = job.leases[id]
            lease.revoking.update(dict.fromkeys(indexes, now))
            orders.append(Revoke(lease.node, id, tuple(sorted(indexes))))
        return orders

    # --- stragglers ---

    def _copy_stragglers(self, job: JobTasks, thief: LiveNode, free: int, now: float) -> list[Order]:
        """Lease the worst stragglers of other nodes to the thief as well."""
        orders: list[Order] = []
        late = [r for r in self._running(job, thief) if r.is_late and r.left_s > r.elsewhere_s]
        for running in sorted(late, key=lambda r: (-r.left_s, r.lease.id, r.index))[:free]:
            orders += self._tasks.copy(running.lease, running.index, thief.name, now)
        return orders

    def _running(self, job: JobTasks, thief: LiveNode) -> list[_Running]:
        """Episodes of the job that have begun elsewhere and have no copy, where their cost is known."""
        found: list[_Running] = []
        for lease in job.leases.values():
            node = self._nodes.get(lease.node)
            measured = job.estimates.measured(lease.scene)
            if node is None or node is thief or measured is None:
                continue
            expected_s = measured / node.speed
            for running in node.running:
                if running.lease != lease.id or running.index not in lease.open:
                    continue
                if (lease.scene, running.index) in job.copies:
                    continue
                # Once late, an episode is expected to take as long again as it is late.
                left_s = abs(expected_s - running.elapsed_s)
                is_late = running.elapsed_s > LATE * expected_s or node.speed < thief.speed / LATE
                found.append(_Running(lease, running.index, is_late, left_s, measured / thief.speed))
        return found


def _rest_s(lease: OpenLease) -> float:
    """Seconds that a lease is left alone after it was granted."""
    often = lease.attempt - FREE_ATTEMPTS
    return min(0.5 * 2.0 ** min(often, 20), LONGEST_REST_S) if often > 0 else 0.0
