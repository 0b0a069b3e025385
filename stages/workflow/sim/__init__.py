"""Manipulation in simulation: from a task's configuration to a layout, a demonstration and its labels.

The way of an episode, by the public names:

    task = parse_task(config)                           # dict from YAML → ManipTask; ArgumentsError with sentences
    layout = randomize_layout(task, rng)                # → Layout; PlanningFailed: impossible, no_layout, not_seen
    demo = plan_episode(task, layout, rng, beat)        # → Demonstration; PlanningFailed with one of `REASONS`
    scene = scene_of(layout)                            # → Scene: meshes, lights, provenance["layout"]
    label_rows(layout)                                  # → segmentation table
    styled(layout, style), camera_poses(layout, qpos)   # the same trace in other looks and from other views

The rooms, each of which imports only those below it:

    episode     performs a layout's skills and judges the result
    randomize   draws layouts of a task and tries them
    task        the template from a file, and the mistakes that it may have
    skills      what arms do, a class each
    workcell    simulation, planners and grips of an episode, and the relations that hold in it
    scene       what is seen of a layout
    motion      ways for an arm
    world       a layout in physics
    layout      a world as a value
    models      kinds of objects and robots, and their files

Renderers show an episode by its layout (`scene.provenance["layout"]`) and its rows: `simulation.qpos` of the sequence,
(T, nq) float64, or the poses of `object_poses`. The same task, layout and generator give byte-equal demonstrations, in
any process on the same kind of machine.
"""

from nimbusd.stages.workflow.sim.demonstration import (
    ArmTrace,
    ContactEvent,
    Demonstration,
    DemonstrationFailed,
    KeyPoint,
    Phase,
)
from nimbusd.stages.workflow.sim.episode import plan_episode
from nimbusd.stages.workflow.sim.layout.labels import label_rows
from nimbusd.stages.workflow.sim.layout.layout import (
    CameraLayout,
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
from nimbusd.stages.workflow.sim.models.assets import file_of
from nimbusd.stages.workflow.sim.randomize.draw import randomize_layout
from nimbusd.stages.workflow.sim.reasons import REASONS, Reason
from nimbusd.stages.workflow.sim.scene.scene import object_poses, scene_of
from nimbusd.stages.workflow.sim.scene.seen import seen_at_start
from nimbusd.stages.workflow.sim.skills import SKILLS, Skill, make_skill, skill
from nimbusd.stages.workflow.sim.task.check import parse_task
from nimbusd.stages.workflow.sim.task.feasible import impossibilities
from nimbusd.stages.workflow.sim.task.file_check import mistakes_in_files
from nimbusd.stages.workflow.sim.task.task import ManipTask
from nimbusd.stages.workflow.sim.world.poses import camera_poses

__all__ = [
    "REASONS",
    "SKILLS",
    "ArmTrace",
    "CameraLayout",
    "ContactEvent",
    "Demonstration",
    "DemonstrationFailed",
    "KeyPoint",
    "Layout",
    "LightLayout",
    "ManipTask",
    "ObjectLayout",
    "Phase",
    "Physics",
    "Pose",
    "Reason",
    "RegionLayout",
    "RelationLayout",
    "RobotLayout",
    "Skill",
    "SkillCall",
    "Style",
    "Surface",
    "TableLayout",
    "camera_poses",
    "file_of",
    "impossibilities",
    "label_rows",
    "make_skill",
    "mistakes_in_files",
    "object_poses",
    "parse_task",
    "plan_episode",
    "randomize_layout",
    "scene_of",
    "seen_at_start",
    "skill",
    "styled",
]
