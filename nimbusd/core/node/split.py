"""The split of a node's slots between planners and renderers, and the throughput that it gives.

The model of the Nimbus paper (section 6.1.2): n processes that each need L seconds per episode make mu = n / L episodes
per second; a pipeline makes lambda = min(mu_plan, mu_render), counted in episodes that come out at its end, so that a
planner's failures count against mu_plan.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

GAIN = 1.1
"""A change must promise so many times the throughput: measured latencies waver, and a change costs time."""


class Mode(enum.StrEnum):
    """The way in which planning and rendering are shared. AUTO: fused until separate processes promise more."""

    AUTO = "auto"
    FUSED = "fused"
    DECOUPLED = "decoupled"


class Role(enum.StrEnum):
    """A compute worker's part of the episodes of its job."""

    FUSED = "fused"
    PLAN = "plan"
    RENDER = "render"


@dataclass(frozen=True, slots=True)
class Places:
    """Slots for a job. flexible: for any role. plan_only: where nothing can be rendered (no GPU)."""

    flexible: int
    plan_only: int = 0


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds per episode of one process. plan_s: of any plan, failed or not. good: share of plans that succeed."""

    plan_s: float
    render_s: float
    good: float = 1.0


def mu_plan(planners: int, latency: Latency) -> float:
    """Good plans per second."""
    return planners * latency.good / max(latency.plan_s, 1e-9)


def mu_render(renderers: int, latency: Latency) -> float:
    """Rendered episodes per second."""
    return renderers / max(latency.render_s, 1e-9)


def fused_rate(places: Places, latency: Latency) -> float:
    """Episodes per second where every flexible slot plans and renders, and the others idle."""
    return places.flexible / max(latency.plan_s / max(latency.good, 1e-3) + latency.render_s, 1e-9)


def decoupled_rate(places: Places, flexible_planners: int, latency: Latency) -> float:
    """Episodes per second with so many of the flexible slots planning, and the plan-only ones, too."""
    planners = flexible_planners + places.plan_only
    return min(mu_plan(planners, latency), mu_render(places.flexible - flexible_planners, latency))


def best_planners(places: Places, latency: Latency) -> int:
    """The fewest flexible slots that must plan for the highest throughput."""
    return max(range(places.flexible + 1), key=lambda planners: (decoupled_rate(places, planners, latency), -planners))


def planners_to_have(places: Places, latency: Latency, now: int) -> int:
    """Flexible slots that should plan. Keeps `now` unless another number promises GAIN times the throughput."""
    best = best_planners(places, latency)
    present = decoupled_rate(places, now, latency) if 0 <= now <= places.flexible else 0.0
    return best if decoupled_rate(places, best, latency) > GAIN * present else now


def mode_to_have(places: Places, latency: Latency, now: Mode) -> Mode:
    """FUSED or DECOUPLED for a job whose mode is AUTO, `now` being one of the two."""
    fused = fused_rate(places, latency)
    decoupled = decoupled_rate(places, best_planners(places, latency), latency)
    if now is Mode.FUSED:
        return Mode.DECOUPLED if decoupled > GAIN * fused else Mode.FUSED
    return Mode.FUSED if fused > GAIN * decoupled else Mode.DECOUPLED
