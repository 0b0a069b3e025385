"""When nothing is pending: split what others hold, and run stragglers again.

A lease is split at episode granularity: a node is asked for the later half of what it has not begun, and what it
gives back is pending again. When there is nothing left to split, an episode that takes much longer than expected
is leased a second time; attempts are fenced, and the first commit wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from nimbusd.core.facts import Order, RevokeLease
from nimbusd.core.grants import eligible, idle_slots
from nimbusd.core.nodes import Node, WorkerManager
from nimbusd.core.tasks import Job, Lease, TaskManager

REVOKE_AGAIN_S = 3.0
"""A revoke that was not answered for so long is sent again."""
LATE = 1.5
"""An episode is a straggler when it has taken so many times what was expected on its node."""


@dataclass(slots=True)
class _Running:
    lease: Lease
    index: int
    is_late: bool
    left_s: float
    elsewhere_s: float
    """What a copy would take."""


class Balance:
    """Finds work for nodes that have none while others have more than they can do at once."""

    def __init__(self, tasks: TaskManager, nodes: WorkerManager) -> None:
        self._tasks = tasks
        self._nodes = nodes

    def balance(self, idle: list[Node], now: float) -> list[Order]:
        """Orders that bring work to idle nodes. Called while nothing that they may have is pending."""
        orders: list[Order] = []
        for node in sorted(idle, key=lambda node: (-idle_slots(node, self._tasks), node.name)):
            free = idle_slots(node, self._tasks)
            for job in eligible(self._tasks, node):
                if not free or not job.plan.dynload or job.pending.episodes:
                    break
                asked = self._split(job, node, free, now)
                free -= sum(len(order.indexes) for order in asked)
                orders += asked
                if free > 0 and not asked:
                    copies = self._copy_stragglers(job, node, free, now)
                    free -= len(copies) // 2
                    orders += copies
        return orders

    # --- splitting ---

    def _split(self, job: Job, thief: Node, free: int, now: float) -> list[RevokeLease]:
        """Ask for up to as much as the thief has free slots for, from whoever has the longest queue."""
        if any(lease.revoking for lease in job.leases.values()) and not self._forget_old_revokes(job, now):
            return []  # what was asked for is still on its way
        queues: list[tuple[float, Lease, list[int]]] = []
        for lease in job.leases.values():
            victim = self._nodes.get(lease.node)
            if victim is None or victim is thief or lease.id not in victim.held:
                continue
            begun = {running.index for running in victim.running if running.lease == lease.id}
            waiting = sorted(lease.open - begun - lease.revoking.keys())
            if waiting:
                queued_s = len(waiting) * job.cost_s(lease.scene) / (max(1, victim.slots) * victim.speed)
                queues.append((queued_s, lease, waiting))
        if not queues:
            return []
        _, lease, waiting = max(queues, key=lambda queue: (queue[0], queue[1].id))
        indexes = tuple(waiting[-max(1, min(len(waiting) // 2, free * 8)) :])
        lease.revoking.update(dict.fromkeys(indexes, now))
        return [RevokeLease(lease.node, lease.id, indexes)]

    @staticmethod
    def _forget_old_revokes(job: Job, now: float) -> bool:
        """Whether no revoke is awaited any more: those that were not answered in time are forgotten."""
        for lease in job.leases.values():
            lease.revoking = {index: at for index, at in lease.revoking.items() if now - at < REVOKE_AGAIN_S}
        return not any(lease.revoking for lease in job.leases.values())

    # --- stragglers ---

    def _copy_stragglers(self, job: Job, thief: Node, free: int, now: float) -> list[Order]:
        """Lease the worst stragglers of other nodes to the thief as well."""
        orders: list[Order] = []
        late = [r for r in self._running(job, thief) if r.is_late and r.left_s > r.elsewhere_s]
        for running in sorted(late, key=lambda r: (-r.left_s, r.lease.id, r.index))[:free]:
            orders += self._tasks.copy(running.lease, running.index, thief.name, now)
        return orders

    def _running(self, job: Job, thief: Node) -> list[_Running]:
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
