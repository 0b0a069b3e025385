"""A task template from a file, and everything that can be wrong with it before a layout is drawn."""

from nimbusd.stages.workflow.sim.task.camera_spec import CameraSpec
from nimbusd.stages.workflow.sim.task.check import parse_task
from nimbusd.stages.workflow.sim.task.feasible import impossibilities
from nimbusd.stages.workflow.sim.task.file_check import mistakes_in_files
from nimbusd.stages.workflow.sim.task.task import (
    GoalSpec,
    ManipTask,
    RandomizeSpec,
    RegionSpec,
    SkillSpec,
    SlotSpec,
    SortSpec,
    TableSpec,
)

__all__ = [
    "CameraSpec",
    "GoalSpec",
    "ManipTask",
    "RandomizeSpec",
    "RegionSpec",
    "SkillSpec",
    "SlotSpec",
    "SortSpec",
    "TableSpec",
    "impossibilities",
    "mistakes_in_files",
    "parse_task",
]
