"""Navigation: floor maps of a scene, cheapest paths, smooth drives, instructions."""

from nimbusd.stages.plan.front3d import BProc3DFrontPlanner
from nimbusd.stages.plan.nav import NavPlanner
from nimbusd.stages.plan.occupancy import FloorMap

__all__ = ["BProc3DFrontPlanner", "FloorMap", "NavPlanner"]
