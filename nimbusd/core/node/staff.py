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
    given: dict[Attempt, tuple[str, float] | None] = field(default_factory=dict)
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

    def pulls(self, worker: WorkerId, credit: int, now: float) -> None:
        """A worker can take more episodes."""
        if (known := self.workers.get(worker)) is not None:
            known.credit += credit
            if (gone_at := self._gone_at.pop(slot_of(worker), None)) is not None:
                self._change.add(now - gone_at)

    def measured(self, worker: WorkerId, memory_bytes: int, gpu_bytes: int = 0) -> list[NodeOrder]:
        """A worker's memory at the end of an episode. One that has grown too large is recalled."""
        known = self.workers.get(worker)
        if known is None or known.job is None:
            return []
        known.memory_bytes = memory_bytes
        pipeline = self._pipeline(known.job)
        pipeline.memory_bytes[known.role] = max(pipeline.memory_bytes.get(known.role, 0), memory_bytes)
        if known.growth is None:
            share_bytes = (self._memory_bytes or 0) // self._slots
            known.growth = WorkerMemory(RecycleLimits(pipeline.recycle_growth_bytes, share_bytes))
        why = known.growth.measured(memory_bytes, gpu_bytes)
        if why is None or not known.is_wanted():
            return []
        known.recalled = True
        return [RecallWorker(worker, why)]

    def gone(self, worker: WorkerId, now: float) -> Worker | None:
        """A worker's process has ended: what it was."""
        if (known := self.workers.pop(worker, None)) is not None and known.recalled:
            self._gone_at[slot_of(worker)] = now
        return known

    def forget(self, jobs: frozenset[JobId]) -> None:
        """Only these jobs are of interest any more."""
        at_work = {known.job for known in self.workers.values()}
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
        return sum(k.is_wanted() and not k.given and not self._only_renders(k) for k in self.workers.values())

    def pipelines(self, now: float) -> Iterator[PipelineReport]:
        """A report on each job that is at work here."""
        for job, pipeline in self._pipelines.items():
            at_work = [known for known in self.workers.values() if known.job == job and not known.unwanted]
            if not at_work:
                continue
            places = Places(sum(k.renders for k in at_work), sum(not k.renders for k in at_work))
            planners = sum(known.role is Role.PLAN for known in at_work)
            yield pipeline.report(job, places, planners, self._backlog.waiting(job), now)

    # --- what follows ---

    def settle(self, now: float) -> list[NodeOrder]:
        """Roles as the measurements want them, and work for everybody who can take some."""
        orders: list[NodeOrder] = []
        for job, pipeline in self._pipelines.items():
            mine = {worker: known for worker, known in self.workers.items() if known.job == job}
            busy = [known.role for known in mine.values() if known.given]
            planning = busy.count(Role.PLAN)
            pipeline.pace.observe(planning, len(busy) - planning, now)
            alike = not self._plan_only and pipeline.mode is Mode.FUSED  # where all slots are, no mode is better
            if not alike or any(known.role is not Role.FUSED for known in mine.values()):
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
            planning=sum(known.role is Role.PLAN and bool(known.given) for known in mine.values()),
            at_work=sum(bool(known.given) for known in mine.values()),
            change_s=self._change.value if self._change.count else CHANGE_S,
        )
        pipeline.choose(situation, now)
        if pipeline.mode is Mode.FUSED:
            return self._recall(worker for worker, known in mine.items() if known.role is not Role.FUSED)
        flexible = {worker: known for worker, known in mine.items() if known.renders and known.is_wanted()}
        planners = [worker for worker, known in flexible.items() if known.role is Role.PLAN]
        renderers = [worker for worker, known in flexible.items() if known.role is not Role.PLAN]
        if len(planners) > pipeline.planners:
            return self._recall_some(planners, len(planners) - pipeline.planners)
        coming = situation.places.flexible - len(flexible)
        missing = pipeline.planners - len(planners) - coming
        return self._recall_some(renderers, missing) if missing > 0 and situation.waiting else []

    def _flexible(self, job: JobId) -> int:
        """Slots that a job has for any role: those that no other job has."""
        others = sum(known.renders and known.job not in (None, job) for known in self.workers.values())
        return max(1, self._slots - self._plan_only - others)

    def _most_backlog(self, job: JobId) -> int:
        """The high-water mark of a job."""
        renderers = sum(k.job == job and k.role is not Role.PLAN for k in self.workers.values())
        return self._pipeline(job).most_backlog(max(1, renderers))

    def _recall_some(self, workers: list[WorkerId], number: int) -> list[NodeOrder]:
        """Recall so many of these, first those with the least in hand."""
        workers = sorted(workers, key=lambda worker: len(self.workers[worker].given))
        return self._recall(iter(workers[:number]))

    def job_changed(self, job: JobId) -> list[NodeOrder]:
        """Recall the workers of a job that is not what they were told."""
        return self._recall(worker for worker, known in self.workers.items() if known.job == job)

    def _recall(self, workers: Iterator[WorkerId]) -> list[NodeOrder]:
        orders: list[NodeOrder] = []
        for worker in workers:
            if self.workers[worker].is_wanted():
                self.workers[worker].recalled = True
                orders.append(RecallWorker(worker))
        return orders

    # --- work ---

    def _feed(self) -> list[NodeOrder]:
        """Give workers what they can take, first those that have its scene loaded; change a worker's job where only
        other jobs have work for it.
        """
        orders: list[NodeOrder] = []
        idle_first = sorted(self.workers.items(), key=lambda item: len(item[1].given))
        for worker, known in idle_first:
            free = not known.given and known.credit > 0 and known.is_wanted() and not self._is_overtaken(known)
            if free and (order := self._give(worker, known, loaded=True)) is not None:
                orders.append(order)
        for worker, known in idle_first:
            while known.is_wanted():
                if known.given and (known.credit <= 0 or self._scarce(known) or self._is_careful(known)):
                    break  # the last episodes go to whoever is free first, not into a queue behind another
                if known.job is None:
                    if not self._assign(known):
                        break
                    assert known.job is not None
                    orders.append(AssignJob(worker, known.job, known.role))
                overtaken = self._is_overtaken(known)
                if overtaken or not self._has_work(known):
                    if not known.given and (overtaken or self._is_wanted_elsewhere(known)):
                        orders += self._recall(iter([worker]))
                    break
                order = self._give(worker, known) if known.credit > 0 else None
                if order is None:
                    break
                orders.append(order)
        return orders

    def _only_renders(self, known: Worker) -> bool:
        """True where a worker takes nothing but plans: also one that could plan, once its job runs decoupled."""
        if known.job is None or known.role is Role.PLAN:
            return False
        return known.role is Role.RENDER or self._pipeline(known.job).mode is Mode.DECOUPLED

    def _scarce(self, known: Worker) -> bool:
        """True where fewer episodes wait for workers like this one than there are such workers."""
        if known.job is not None and self._only_renders(known):
            renderers = sum(k.job == known.job and k.role is not Role.PLAN for k in self.workers.values())
            return self._backlog.waiting(known.job) <= renderers
        return self._leases.waiting() + len(self._backlog) <= len(self.workers)

    def _is_careful(self, known: Worker) -> bool:
        """True where a worker has an episode that is made alone."""
        return any(self._leases[attempt.lease].order.careful for attempt in known.given)

    def _assign(self, known: Worker) -> bool:
        """Choose a job and a role for a worker that has none: of the first job that has use for it."""
        for job in dict.fromkeys(held.job for held in self._leases if held.waiting or held.planned):
            role = self._role_for(job, known)
            if role is not None and self._fits(job, role):
                known.job, known.role = job, role
                return True
        return False

    def _role_for(self, job: JobId, known: Worker) -> Role | None:
        pipeline = self._pipeline(job)
        waiting, backlog = self._leases.waiting(job), self._backlog.waiting(job)
        if pipeline.mode is Mode.FUSED:
            return Role.FUSED if known.renders and (waiting or backlog) else None
        if not known.renders:
            return Role.PLAN if waiting else None
        planners = sum(
            k.job == job and k.renders and k.role is Role.PLAN and k.is_wanted() for k in self.workers.values()
        )
        lacking = not planners and not backlog and not self._is_planning(job)
        if waiting and (planners < pipeline.planners or lacking):
            return Role.PLAN
        return Role.RENDER if waiting or backlog or self._is_planning(job) else None

    def _is_planning(self, job: JobId) -> bool:
        return any(k.job == job and k.role is Role.PLAN and k.given for k in self.workers.values())

    def _fits(self, job: JobId, role: Role) -> bool:
        """True where there is memory for one more; the first worker of a job always gets its chance."""
        at_work = [known for known in self.workers.values() if known.job is not None]
        if self._memory_bytes is None or not any(known.job == job for known in at_work):
            return True
        used_bytes = sum(max(known.memory_bytes, self._need_bytes(known.job, known.role)) for known in at_work)
        return used_bytes + self._need_bytes(job, role) <= self._memory_bytes

    def _need_bytes(self, job: JobId | None, role: Role) -> int:
        return 0 if job is None else self._pipeline(job).memory_bytes.get(role, 0)

    def _is_overtaken(self, known: Worker) -> bool:
        """True where a worker should leave its job: another's leases came first, and wait for more workers than it has.

        The master leases by priority and fair share, so that what came first is to be made first.
        """
        job = next((held.job for held in self._leases if held.waiting or held.planned), None)
        if known.job in (None, job) or job is None or not self._can_serve(job, known.renders):
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

    def _is_wanted_elsewhere(self, known: Worker) -> bool:
        """True where a worker without work could have some in another job."""
        jobs = {held.job for held in self._leases if held.waiting or held.planned}
        if known.job in jobs:
            return False
        return any(self._role_for(job, known) is not None for job in jobs)

    def _has_work(self, known: Worker) -> bool:
        assert known.job is not None
        job = known.job
        if known.role is Role.PLAN:
            return self._leases.waiting(job) > 0 and self._has_room(job)
        return self._backlog.waiting(job) > 0 or (not self._only_renders(known) and self._leases.waiting(job) > 0)

    def _has_room(self, job: JobId) -> bool:
        """True where the backlog may grow by one more than what is being planned."""
        planning = sum(len(k.given) for k in self.workers.values() if k.job == job and k.role is Role.PLAN)
        return self._backlog.waiting(job) + planning < self._most_backlog(job)

    def _give(self, worker: WorkerId, known: Worker, *, loaded: bool = False) -> MakeEpisode | None:
        """The next episode for a worker. loaded: only one of the scene that it has loaded."""
        if known.job is None or not self._has_work(known):
            return None
        scene = known.loaded[1] if known.loaded is not None and known.loaded[0] == known.job else None
        if loaded and scene is None:
            return None
        if known.role is not Role.PLAN and (planned := self._backlog.next_of(known.job, scene)) is not None:
            if known.given and self._leases[planned.lease].order.careful:
                return None
            if not loaded or planned.key.scene == scene:
                return self._hand_out(worker, known, planned)
        if self._only_renders(known):
            return None
        held = self._lease_of_loaded(known) or (None if loaded else self._next_lease(known))
        if held is None or (known.given and held.order.careful):
            return None
        index = self._leases.begin_next(held)
        expected_bytes = self._backlog.memory_bytes + self._backlog.largest_bytes(known.job)
        spill = known.role is Role.PLAN and expected_bytes > self._spill_bytes
        return self._given(worker, known, held, held.attempt(index), spill=spill)

    def _hand_out(self, worker: WorkerId, known: Worker, attempt: Attempt) -> MakeEpisode:
        plan = self._backlog.hand_out(attempt)
        held = self._leases[attempt.lease]
        held.planned.discard(attempt.key.index)
        return self._given(worker, known, held, attempt, plan=plan.path)

    def _given(
        self,
        worker: WorkerId,
        known: Worker,
        held: HeldLease,
        attempt: Attempt,
        *,
        plan: str = "",
        spill: bool = False,
    ) -> MakeEpisode:
        held.given[attempt.key.index] = worker
        known.loaded = attempt.key.job, attempt.key.scene
        known.given[attempt] = None
        known.credit -= 1
        return MakeEpisode(worker, attempt, held.order.entry, plan, spill)

    def _lease_of_loaded(self, known: Worker) -> HeldLease | None:
        for held in self._leases:
            if held.waiting and (held.job, held.order.scene) == known.loaded:
                return held
        return None

    def _next_lease(self, known: Worker) -> HeldLease | None:
        """The lease to give a worker from, rather of a scene that no other worker has loaded."""
        fits = [held for held in self._leases if held.waiting and held.job == known.job]
        if len(fits) <= 1:
            return fits[0] if fits else None
        taken = {other.loaded for other in self.workers.values()}
        return min(fits, key=lambda held: ((held.job, held.order.scene) in taken, -len(held.waiting)))
