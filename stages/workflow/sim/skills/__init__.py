"""Skills of arms, one class in one file each. An import here is what lets task files name it."""

from nimbusd.stages.workflow.sim.skills.close import Close
from nimbusd.stages.workflow.sim.skills.goto_pose import GotoPose
from nimbusd.stages.workflow.sim.skills.gripper import Gripper
from nimbusd.stages.workflow.sim.skills.home import Home
from nimbusd.stages.workflow.sim.skills.open import Open
from nimbusd.stages.workflow.sim.skills.pick import Pick
from nimbusd.stages.workflow.sim.skills.place import Place
from nimbusd.stages.workflow.sim.skills.press import Press
from nimbusd.stages.workflow.sim.skills.push import Push
from nimbusd.stages.workflow.sim.skills.rotate import Rotate
from nimbusd.stages.workflow.sim.skills.skill import SKILLS, Skill, make_skill, skill

__all__ = [
    "SKILLS",
    "Close",
    "GotoPose",
    "Gripper",
    "Home",
    "Open",
    "Pick",
    "Place",
    "Press",
    "Push",
    "Rotate",
    "Skill",
    "make_skill",
    "skill",
]
