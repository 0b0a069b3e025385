"""Roles of a job's slots on a node: fused or decoupled, and how many plan, by the measurements so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nimbusd.core.ids import JobId
from nimbusd.core.node.pace import Pace
from nimbusd.core.node.split import (
    Mode,
    Places,
    Role,
    best_planners,
    decoupled_rate,
    fused_rate,
    mode_to_have,
    mu_plan,
    mu_render,
    planners_to_have,
)
from nimbusd.transport.messages.node import PipelineReport

BACKLOG_S = 30.0
"""Seconds of rendering that may wait in the backlog, so that a planner's bad luck leaves no renderer idle …"""
LEAST_BACKLOG = 2
"""… but at least so many plans per renderer, and at most so many in all:"""
MOST_BACKLOG = 64
WORTH_CHANGES = 6
"""A slot that plans renders for a while if that is so many times as long as a change takes: it must change back."""


@dataclass(frozen=True, slots=True)
class Situation:
    """The circumstances of a choice, beside the measurements.

    places: the slots that the job has. waiting: episodes to plan. backlog: plans to render. most_backlog: the
    high-water mark. planning: planners that are at it. at_work: workers that have anything. change_s: what it costs a
    slot to change its role.
    """

    places: Places
    waiting: int
    backlog: int
    most_backlog: int
    planning: int
    at_work: int
    change_s: float


@dataclass(slots=True)
class JobRoles:
    """The roles that a job's workers take on this node."""

    asked: Mode = Mode.AUTO
    """The mode that the job asks for."""
    fixed: int | None = None
    """The number of planners that it asks for, if it does."""
    mode: Mode = Mode.FUSED
    """FUSED or DECOUPLED, as chosen now."""
    planners: int = 1
    """Flexible slots that plan, as chosen now."""
    pace: Pace = field(default_factory=Pace)
    memory_bytes: dict[Role, int] = field(default_factory=dict)
    """The most that a worker of a role has taken."""
    recycle_growth_bytes: int | None = None
    """The growth that the job allows a worker, if it says."""
    _catching_up: bool = False
    _changed_at: float = -math.inf

    def ask(self, mode: Mode, planners: int | None, writers: int) -> None:
        """Take in the job's wishes."""
        self.asked, self.fixed, self.pace.writers = mode, planners, writers
        if mode is not Mode.AUTO:
            self.mode = mode

    def most_backlog(self, renderers: int) -> int:
        """The high-water mark: planners stop when so many plans wait or are being made."""
        _, render_s, _ = self.pace.means_s()
        steady = math.ceil(BACKLOG_S * renderers / render_s) if render_s > 0 else 0
        return min(MOST_BACKLOG, max(LEAST_BACKLOG * renderers, steady))

    def report(self, job: JobId, places: Places, planners: int, backlog: int, now: float) -> PipelineReport:
        """Report how the job goes. places: of the workers at it, of which `planners` plan. backlog: plans that wait."""
        latency, others = self.pace.latency(), places.plan_only
        renderers = places.flexible + others - planners
        plan_s, render_s, store_s = self.pace.means_s()
        planning, rendering = self.pace.concurrency()
        theory = plan_rate = render_rate = 0.0
        if latency is not None and self.mode is Mode.FUSED:
            theory = plan_rate = render_rate = fused_rate(places, latency)
        elif latency is not None:
            plan_rate, render_rate = mu_plan(planners, latency), mu_render(renderers, latency)
            theory = decoupled_rate(places, planners - others, latency)
        return PipelineReport(
            job=job,
            mode=self.mode.value,
            planners=planners,
            renderers=renderers,
            backlog=backlog,
            plan_s=plan_s,
            render_s=render_s,
            store_s=store_s,
            good=self.pace.good(),
            planning=planning,
            rendering=rendering,
            mu_plan=plan_rate,
            mu_render=render_rate,
            theory=theory,
            achieved=self.pace.achieved(now),
        )

    def choose(self, now_is: Situation, now: float) -> None:
        """Choose mode and planners anew."""
        if self._may_change(now_is, now):
            self._choose_mode(now_is, now)
        if self.mode is Mode.DECOUPLED:
            self._choose_planners(now_is, now)

    def _may_change(self, now_is: Situation, now: float) -> bool:
        """True where the last change is so long ago that its effect can be seen."""
        plan_s, render_s, _ = self.pace.means_s()
        return now - self._changed_at >= 2 * (now_is.change_s + plan_s + render_s)

    def _change(self, planners: int, now: float) -> None:
        if planners != self.planners:
            self.planners, self._changed_at = planners, now

    def _choose_mode(self, now_is: Situation, now: float) -> None:
        latency = self.pace.latency()
        if self.asked is not Mode.AUTO or latency is None:
            return
        mode = mode_to_have(now_is.places, latency, self.mode)
        if mode is not self.mode:
            self.mode, self.planners, self._changed_at = mode, best_planners(now_is.places, latency), now

    def _choose_planners(self, now_is: Situation, now: float) -> None:
        places = now_is.places
        if self.fixed is not None:
            self.planners = min(max(0, self.fixed - places.plan_only), places.flexible)
            return
        if not now_is.waiting and not now_is.planning:  # the end of the stream: who planned renders
            if now_is.backlog and self._worth_another_renderer(now_is):
                self._change(0, now)
            return
        self._catching_up = self._is_to_catch_up(now_is)
        if self._catching_up:
            self._change(0, now)
        elif places.flexible + places.plan_only == 1:  # one slot for both, in turns
            if now_is.backlog >= now_is.most_backlog:
                self._change(0, now)
            elif not now_is.backlog and not now_is.at_work:
                self._change(1, now)
        else:
            wanted = self._wanted(places)
            if not self.planners or not now_is.at_work or self._may_change(now_is, now):
                self._change(wanted, now)

    def _wanted(self, places: Places) -> int:
        """Flexible slots that should plan in the long run: one before anything was measured."""
        least = 0 if places.plan_only else 1
        latency = self.pace.latency()
        return least if latency is None else max(least, planners_to_have(places, latency, self.planners))

    def _is_to_catch_up(self, now_is: Situation) -> bool:
        """True where all flexible slots should render: once the backlog is full and planners idle, until it is low."""
        _, render_s, _ = self.pace.means_s()
        if self.pace.latency() is None or render_s <= 0:
            return False
        # A renderer first finishes what it has, and then it takes a while until there is a planner in its slot.
        low = math.ceil(now_is.places.flexible * (now_is.change_s / render_s + 2))
        if self._catching_up:
            return now_is.backlog > low
        if now_is.backlog >= now_is.most_backlog and self.planners and not now_is.planning:
            lasts_s = (now_is.most_backlog - low) * render_s / now_is.places.flexible
            return lasts_s > WORTH_CHANGES * now_is.change_s
        return False

    def _worth_another_renderer(self, now_is: Situation) -> bool:
        """True where what is left takes longer than another renderer takes to start."""
        _, render_s, _ = self.pace.means_s()
        renderers = now_is.places.flexible - self.planners
        return renderers <= 0 or now_is.backlog * render_s / renderers > now_is.change_s
