"""A layout in physics: the MuJoCo model that is built of it, and the simulators that move it on."""

from nimbusd.stages.workflow.sim.world.geometry import TriangleMesh, object_mesh
from nimbusd.stages.workflow.sim.world.poses import BodyPoses, camera_poses
from nimbusd.stages.workflow.sim.world.simulation import Checkpoint, Command, Simulation
from nimbusd.stages.workflow.sim.world.simulator import SIMULATORS, Contacts, Simulator, open_simulator
from nimbusd.stages.workflow.sim.world.world import ArmIndex, ObjectIndex, World, build_world

__all__ = [
    "SIMULATORS",
    "ArmIndex",
    "BodyPoses",
    "Checkpoint",
    "Command",
    "Contacts",
    "ObjectIndex",
    "Simulation",
    "Simulator",
    "TriangleMesh",
    "World",
    "build_world",
    "camera_poses",
    "object_mesh",
    "open_simulator",
]
