"""An episode while it is made: simulation and planners, what the arms hold, and which relations are true in it."""

from nimbusd.stages.workflow.sim.workcell.containers import Container, container
from nimbusd.stages.workflow.sim.workcell.relations import (
    DIRECTIONS,
    KINDS,
    WORDS,
    Footprint,
    holds,
    resting_spots,
    settled,
)
from nimbusd.stages.workflow.sim.workcell.workcell import Grip, Workcell

__all__ = [
    "DIRECTIONS",
    "KINDS",
    "WORDS",
    "Container",
    "Footprint",
    "Grip",
    "Workcell",
    "container",
    "holds",
    "resting_spots",
    "settled",
]
