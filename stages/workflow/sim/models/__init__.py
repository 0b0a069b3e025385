"""Kinds of things: objects, fixtures and robots as data, the mesh and MJCF files that they name, and fetched assets."""

from nimbusd.stages.workflow.sim.models.assets import PACKAGES, Package, asset, fetch, fetched, file_of
from nimbusd.stages.workflow.sim.models.fixtures import Handle, handle_of, needed_space
from nimbusd.stages.workflow.sim.models.mesh_shape import MeshShape, mesh_shape
from nimbusd.stages.workflow.sim.models.objects import LIBRARY, ObjectModel
from nimbusd.stages.workflow.sim.models.robots import ROBOTS, ArmModel, FingerModel, GripperModel, PartModel, RobotModel

__all__ = [
    "LIBRARY",
    "PACKAGES",
    "ROBOTS",
    "ArmModel",
    "FingerModel",
    "GripperModel",
    "Handle",
    "MeshShape",
    "ObjectModel",
    "Package",
    "PartModel",
    "RobotModel",
    "asset",
    "fetch",
    "fetched",
    "file_of",
    "handle_of",
    "mesh_shape",
    "needed_space",
]
