"""Ways for an arm: kinematics, collision checks, the search for a path, its timing, and the planners made of these."""

from nimbusd.stages.workflow.sim.motion.collision import CollisionChecker, Held, Led
from nimbusd.stages.workflow.sim.motion.curobo import CuroboPlanner
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.motion.planner import (
    ConnectPlanner,
    MotionLimits,
    MotionPlanner,
    Trajectory,
    check_trajectory,
)

__all__ = [
    "ArmKinematics",
    "CollisionChecker",
    "ConnectPlanner",
    "CuroboPlanner",
    "Held",
    "Led",
    "MotionLimits",
    "MotionPlanner",
    "Trajectory",
    "check_trajectory",
]
