"""A node's compute workers: which job and role each takes, and which episode it gets next.

Workers keep the scene that they have loaded, and jobs are served in the order in which their leases came. A job that
runs decoupled has workers that plan and workers that render, and a backlog between them; as many plan as give the
highest throughput by the latencies that were measured, and where there is nothing left to plan, none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nimbusd.core.estimate import Mean
from nimbusd.core.ids import Attempt, JobId, WorkerId, slot_of
from nimbusd.core.node.backlog import Backlog
from nimbusd.core.node.facts import AssignJob, JobKnown, NodeOrder, RecallWorker
from nimbusd.core.node.held import HeldLease, HeldLeases
from nimbusd.core.node.pace import Pace
from nimbusd.core.node.recycle import RecycleLimits, WorkerMemory
from nimbusd.core.node.roles import JobRoles, Situation
from nimbusd.core.node.split import Mode, Places, Role
from nimbusd.transport.messages.node import PipelineReport
from nimbusd.transport.messages.worker import MakeEpisode

CHANGE_S = 2.0
"""Seconds that it costs a slot to change its role, until that was measured."""


@dataclass(slots=True)
class Worker:
    """A compute worker. renders: whether its slot can (there is a GPU, or none on the whole node)."""

    renders: bool = True
    job: JobId | None = None
    role: Role = Role.FUSED
    credit: int = 0
    episodes: dict[Attempt, tuple[str, float] | None] = field(default_factory=dict)
    """Episodes it has: None before they begin, then stage and when they began."""
    loaded: tuple[JobId, str] | None = None
    """Job and scene of the last episode it was given."""
    recalled: bool = False
    unwanted: bool = False
    memory_bytes: int = 0
    growth: WorkerMemory | None = None

    def is_wanted(self) -> bool:
        return not (self.recalled or self.unwanted)


class Staff:
    """The workers of a node. slots: how many there are; plan_only: how many of them cannot render.

    memory_bytes: what all compute workers together may use; None: no limit. spill_bytes: plans that may lie in memory.
    """

    def __init__(
        self,
        leases: HeldLeases,
        backlog: Backlog,
        slots: int,
        plan_only: int = 0,
        memory_bytes: int | None = None,
        spill_bytes: int = 256 << 20,
    ) -> None:
        self._leases = leases
        self._backlog = backlog
        self._slots = slots
        self._plan_only = plan_only
        self._memory_bytes = memory_bytes
        self._spill_bytes = spill_bytes
        self._pipelines: dict[JobId, JobRoles] = {}
        self._change = Mean()
        self._gone_at: dict[str, float] = {}
        self.workers: dict[WorkerId, Worker] = {}

    # --- what is told ---

    def job_known(self, fact: JobKnown) -> None:
        """Take in a job's wishes. Jobs that have told none run as AUTO."""
        self._pipeline(fact.job).ask(fact.mode, fact.planners, fact.writers)
        self._pipeline(fact.job).recycle_growth_bytes = fact.recycle_growth_bytes

    def pace(self, job: JobId) -> Pace:
        """The measurements of a job."""
        return self._pipeline(job).pace

    def pulls(self, id: WorkerId, credit: int, now: float) -> None:
        """A worker can take more episodes."""
        if (worker := self.workers.get(id)) is not None:
            worker.credit += credit
            if (gone_at := self._gone_at.pop(slot_of(id), None)) is not None:
                self._change.add(now - gone_at)

    def measured(self, id: WorkerId, memory_bytes: int, gpu_bytes: int = 0) -> list[NodeOrder]:
        """A worker's memory at the end of an episode. One that has grown too large is recalled."""
        worker = self.workers.get(id)
        if worker is None or worker.job is None:
            return []
        worker.memory_bytes = memory_bytes
        pipeline = self._pipeline(worker.job)
        pipeline.memory_bytes[worker.role] = max(pipeline.memory_bytes.get(worker.role, 0), memory_bytes)
        if worker.growth is None:
            share_bytes = (self._memory_bytes or 0) // self._slots
            worker.growth = WorkerMemory(RecycleLimits(pipeline.recycle_growth_bytes, share_bytes))
        why = worker.growth.measured(memory_bytes, gpu_bytes)
        if why is None or not worker.is_wanted():
            return []
        worker.recalled = True
        return [RecallWorker(id, why)]

    def gone(self, id: WorkerId, now: float) -> Worker | None:
        """A worker's process has ended: what it was."""
        if (worker := self.workers.pop(id, None)) is not None and worker.recalled:
            self._gone_at[slot_of(id)] = now
        return worker

    def forget(self, jobs: frozenset[JobId]) -> None:
        """Only these jobs are of interest any more."""
        at_work = {worker.job for worker in self.workers.values()}
        for job in [job for job in self._pipelines if job not in jobs and job not in at_work]:
            del self._pipelines[job]

    def _pipeline(self, job: JobId) -> JobRoles:
        if job not in self._pipelines:
            self._pipelines[job] = JobRoles()
        return self._pipelines[job]

    # --- what can be asked ---

    def room(self) -> int:
        """Episodes that may be held for the backlogs of the jobs that run decoupled."""
        jobs = self._leases.jobs() & self._pipelines.keys()
        return sum(self._most_backlog(job) for job in jobs if self._pipelines[job].mode is Mode.DECOUPLED)

    def idle(self) -> int:
        """Workers that have nothing, though others may have more than one episode, and could begin one."""
        return sum(
            worker.is_wanted() and not worker.episodes and not self._only_renders(worker)
            for worker in self.workers.values()
        )

    def pipelines(self, now: float) -> Iterator[PipelineReport]:
        """A report on each job that is at work here."""
        for job, pipeline in self._pipelines.items():
            at_work = [worker for worker in self.workers.values() if worker.job == job and not worker.unwanted]
            if not at_work:
                continue
            places = Places(sum(worker.renders for worker in at_work), sum(not worker.renders for worker in at_work))
            planners = sum(worker.role is Role.PLAN for worker in at_work)
            yield pipeline.report(job, places, planners, self._backlog.waiting(job), now)

    # --- what follows ---

    def settle(self, now: float) -> list[NodeOrder]:
        """Roles as the measurements want them, and work for everybody who can take some."""
        orders: list[NodeOrder] = []
        for job, pipeline in self._pipelines.items():
            mine = {id: worker for id, worker in self.workers.items() if worker.job == job}
            busy = [worker.role for worker in mine.values() if worker.episodes]
            planning = busy.count(Role.PLAN)
            pipeline.pace.observe(planning, len(busy) - planning, now)
            alike = not self._plan_only and pipeline.mode is Mode.FUSED  # where all slots are, no mode is better
            if not alike or any(worker.role is not Role.FUSED for worker in mine.values()):
                orders += self._adapt(job, pipeline, mine, now)
        if self._leases.waiting() or len(self._backlog):
            orders += self._feed()
        return orders

    # --- roles ---

    def _adapt(self, job: JobId, pipeline: JobRoles, mine: dict[WorkerId, Worker], now: float) -> list[NodeOrder]:
        """Choose the mode and the number of planners anew, and recall who stands in the way."""
        situation = Situation(
            places=Places(self._flexible(job), self._plan_only),
            waiting=self._leases.waiting(job),
            backlog=self._backlog.waiting(job),
            most_backlog=self._most_backlog(job),
            planning=sum(worker.role is Role.PLAN and bool(worker.episodes) for worker in mine.values()),
            at_work=sum(bool(worker.episodes) for worker in mine.values()),
            change_s=self._change.value if self._change.count else CHANGE_S,
        )
        pipeline.choose(situation, now)
        if pipeline.mode is Mode.FUSED:
            return self._recall(id for id, worker in mine.items() if worker.role is not Role.FUSED)
        flexible = {id: worker for id, worker in mine.items() if worker.renders and worker.is_wanted()}
        planners = [id for id, worker in flexible.items() if worker.role is Role.PLAN]
        renderers = [id for id, worker in flexible.items() if worker.role is not Role.PLAN]
        if len(planners) > pipeline.planners:
            return self._recall_some(planners, len(planners) - pipeline.planners)
        coming = situation.places.flexible - len(flexible)
        missing = pipeline.planners - len(planners) - coming
        return self._recall_some(renderers, missing) if missing > 0 and situation.waiting else []

    def _flexible(self, job: JobId) -> int:
        """Slots that a job has for any role: those that no other job has."""
        others = sum(worker.renders and worker.job not in (None, job) for worker in self.workers.values())
        return max(1, self._slots - self._plan_only - others)

    def _most_backlog(self, job: JobId) -> int:
        """The high-water mark of a job."""
        renderers = sum(worker.job == job and worker.role is not Role.PLAN for worker in self.workers.values())
        return self._pipeline(job).most_backlog(max(1, renderers))

    def _recall_some(self, workers: list[WorkerId], number: int) -> list[NodeOrder]:
        """Recall so many of these, first those with the least in hand."""
        workers = sorted(workers, key=lambda id: len(self.workers[id].episodes))
        return self._recall(iter(workers[:number]))

    def job_changed(self, job: JobId) -> list[NodeOrder]:
        """Recall the workers of a job that is not what they were told."""
        return self._recall(id for id, worker in self.workers.items() if worker.job == job)

    def _recall(self, workers: Iterator[WorkerId]) -> list[NodeOrder]:
        orders: list[NodeOrder] = []
        for id in workers:
            if self.workers[id].is_wanted():
                self.workers[id].recalled = True
                orders.append(RecallWorker(id))
        return orders

    # --- work ---

    def _feed(self) -> list[NodeOrder]:
        """Give workers what they can take, first those that have its scene loaded; change a worker's job where only
        other jobs have work for it.
        """
        orders: list[NodeOrder] = []
        idle_first = sorted(self.workers.items(), key=lambda item: len(item[1].episodes))
        for id, worker in idle_first:
            free = not worker.episodes and worker.credit > 0 and worker.is_wanted() and not self._is_overtaken(worker)
            if free and (order := self._give(id, worker, loaded=True)) is not None:
                orders.append(order)
        for id, worker in idle_first:
            while worker.is_wanted():
                if worker.episodes and (worker.credit <= 0 or self._scarce(worker) or self._is_careful(worker)):
                    break  # the last episodes go to whoever is free first, not into a queue behind another
                if worker.job is None:
                    if not self._assign(worker):
                        break
                    assert worker.job is not None
                    orders.append(AssignJob(id, worker.job, worker.role))
                overtaken = self._is_overtaken(worker)
                if overtaken or not self._has_work(worker):
                    if not worker.episodes and (overtaken or self._is_wanted_elsewhere(worker)):
                        orders += self._recall(iter([id]))
                    break
                order = self._give(id, worker) if worker.credit > 0 else None
                if order is None:
                    break
                orders.append(order)
        return orders

    def _only_renders(self, worker: Worker) -> bool:
        """True where a worker takes nothing but plans: also one that could plan, once its job runs decoupled."""
        if worker.job is None or worker.role is Role.PLAN:
            return False
        return worker.role is Role.RENDER or self._pipeline(worker.job).mode is Mode.DECOUPLED

    def _scarce(self, worker: Worker) -> bool:
        """True where fewer episodes wait for workers like this one than there are such workers."""
        if worker.job is not None and self._only_renders(worker):
            renderers = sum(other.job == worker.job and other.role is not Role.PLAN for other in self.workers.values())
            return self._backlog.waiting(worker.job) <= renderers
        return self._leases.waiting() + len(self._backlog) <= len(self.workers)

    def _is_careful(self, worker: Worker) -> bool:
        """True where a worker has an episode that is made alone."""
        return any(self._leases[attempt.lease].order.careful for attempt in worker.episodes)

    def _assign(self, worker: Worker) -> bool:
        """Choose a job and a role for a worker that has none: of the first job that has use for it."""
        for job in dict.fromkeys(held.job for held in self._leases if held.waiting or held.planned):
            role = self._role_for(job, worker)
            if role is not None and self._fits(job, role):
                worker.job, worker.role = job, role
                return True
        return False

    def _role_for(self, job: JobId, worker: Worker) -> Role | None:
        pipeline = self._pipeline(job)
        waiting, backlog = self._leases.waiting(job), self._backlog.waiting(job)
        if pipeline.mode is Mode.FUSED:
            return Role.FUSED if worker.renders and (waiting or backlog) else None
        if not worker.renders:
            return Role.PLAN if waiting else None
        planners = sum(
            other.job == job and other.renders and other.role is Role.PLAN and other.is_wanted()
            for other in self.workers.values()
        )
        lacking = not planners and not backlog and not self._is_planning(job)
        if waiting and (planners < pipeline.planners or lacking):
            return Role.PLAN
        return Role.RENDER if waiting or backlog or self._is_planning(job) else None

    def _is_planning(self, job: JobId) -> bool:
        return any(
            worker.job == job and worker.role is Role.PLAN and worker.episodes for worker in self.workers.values()
        )

    def _fits(self, job: JobId, role: Role) -> bool:
        """True where there is memory for one more; the first worker of a job always gets its chance."""
        at_work = [worker for worker in self.workers.values() if worker.job is not None]
        if self._memory_bytes is None or not any(worker.job == job for worker in at_work):
            return True
        used_bytes = sum(max(worker.memory_bytes, self._need_bytes(worker.job, worker.role)) for worker in at_work)
        return used_bytes + self._need_bytes(job, role) <= self._memory_bytes

    def _need_bytes(self, job: JobId | None, role: Role) -> int:
        return 0 if job is None else self._pipeline(job).memory_bytes.get(role, 0)

    def _is_overtaken(self, worker: Worker) -> bool:
        """True where a worker should leave its job: another's leases came first, and wait for more workers than it has.

        The master leases by priority and fair share, so that what came first is to be made first.
        """
        job = next((held.job for held in self._leases if held.waiting or held.planned), None)
        if worker.job in (None, job) or job is None or not self._can_serve(job, worker.renders):
            return False
        wanting = self._leases.waiting(job) + self._backlog.waiting(job)
        serving = [other for other in self.workers.values() if self._can_serve(job, other.renders)]
        slots = self._slots if self._can_serve(job, renders=False) else self._slots - self._plan_only
        workers = slots - len(serving)  # those that are being started
        workers += sum(other.job in (None, job) or other.recalled for other in serving)
        return workers < wanting

    def _can_serve(self, job: JobId, renders: bool) -> bool:
        """True where a job has use for a worker in a slot that can, or cannot, render."""
        return renders or (self._pipeline(job).mode is Mode.DECOUPLED and self._leases.waiting(job) > 0)

    def _is_wanted_elsewhere(self, worker: Worker) -> bool:
        """True where a worker without work could have some in another job."""
        jobs = {held.job for held in self._leases if held.waiting or held.planned}
        if worker.job in jobs:
            return False
        return any(self._role_for(job, worker) is not None for job in jobs)

    def _has_work(self, worker: Worker) -> bool:
        assert worker.job is not None
        job = worker.job
        if worker.role is Role.PLAN:
            return self._leases.waiting(job) > 0 and self._has_room(job)
        return self._backlog.waiting(job) > 0 or (not self._only_renders(worker) and self._leases.waiting(job) > 0)

    def _has_room(self, job: JobId) -> bool:
        """True where the backlog may grow by one more than what is being planned."""
        planning = sum(
            len(worker.episodes) for worker in self.workers.values() if worker.job == job and worker.role is Role.PLAN
        )
        return self._backlog.waiting(job) + planning < self._most_backlog(job)

    def _give(self, id: WorkerId, worker: Worker, *, loaded: bool = False) -> MakeEpisode | None:
        """The next episode for a worker. loaded: only one of the scene that it has loaded."""
        if worker.job is None or not self._has_work(worker):
            return None
        scene = worker.loaded[1] if worker.loaded is not None and worker.loaded[0] == worker.job else None
        if loaded and scene is None:
            return None
        if worker.role is not Role.PLAN and (planned := self._backlog.next_of(worker.job, scene)) is not None:
            if worker.episodes and self._leases[planned.lease].order.careful:
                return None
            if not loaded or planned.key.scene == scene:
                return self._hand_out(id, worker, planned)
        if self._only_renders(worker):
            return None
        held = self._lease_of_loaded(worker) or (None if loaded else self._next_lease(worker))
        if held is None or (worker.episodes and held.order.careful):
            return None
        index = self._leases.begin_next(held)
        expected_bytes = self._backlog.memory_bytes + self._backlog.largest_bytes(worker.job)
        spill = worker.role is Role.PLAN and expected_bytes > self._spill_bytes
        return self._given(id, worker, held, held.attempt(index), spill=spill)

    def _hand_out(self, id: WorkerId, worker: Worker, attempt: Attempt) -> MakeEpisode:
        plan = self._backlog.hand_out(attempt)
        held = self._leases[attempt.lease]
        held.planned.discard(attempt.key.index)
        return self._given(id, worker, held, attempt, plan=plan.path)

    def _given(
        self,
        id: WorkerId,
        worker: Worker,
        held: HeldLease,
        attempt: Attempt,
        *,
        plan: str = "",
        spill: bool = False,
    ) -> MakeEpisode:
        held.given[attempt.key.index] = id
        worker.loaded = attempt.key.job, attempt.key.scene
        worker.episodes[attempt] = None
        worker.credit -= 1
        return MakeEpisode(id, attempt, held.order.entry, plan, spill)

    def _lease_of_loaded(self, worker: Worker) -> HeldLease | None:
        for held in self._leases:
            if held.waiting and (held.job, held.order.scene) == worker.loaded:
                return held
        return None

    def _next_lease(self, worker: Worker) -> HeldLease | None:
        """The lease to give a worker from, rather of a scene that no other worker has loaded."""
        fits = [held for held in self._leases if held.waiting and held.job == worker.job]
        if len(fits) <= 1:
            return fits[0] if fits else None
        taken = {other.loaded for other in self.workers.values()}
        return min(fits, key=lambda held: ((held.job, held.order.scene) in taken, -len(held.waiting)))
