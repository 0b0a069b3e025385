"""The visible part of a layout: as a `Scene` of meshes and materials, and how much of each thing a camera sees."""

from nimbusd.stages.workflow.sim.scene.scene import object_poses, scene_of
from nimbusd.stages.workflow.sim.scene.seen import seen_at_start, seen_px

__all__ = ["object_poses", "scene_of", "seen_at_start", "seen_px"]
