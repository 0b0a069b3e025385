"""A layout as a value: what stands where, how it looks and is labelled, what is to be done, and other looks for it."""

from nimbusd.stages.workflow.sim.layout.labels import label_rows
from nimbusd.stages.workflow.sim.layout.layout import (
    CameraLayout,
    Draws,
    Layout,
    LightLayout,
    ObjectLayout,
    Physics,
    Pose,
    RegionLayout,
    RelationLayout,
    RobotLayout,
    SkillCall,
    Surface,
    TableLayout,
)
from nimbusd.stages.workflow.sim.layout.style import Style, styled

__all__ = [
    "CameraLayout",
    "Draws",
    "Layout",
    "LightLayout",
    "ObjectLayout",
    "Physics",
    "Pose",
    "RegionLayout",
    "RelationLayout",
    "RobotLayout",
    "SkillCall",
    "Style",
    "Surface",
    "TableLayout",
    "label_rows",
    "styled",
]
