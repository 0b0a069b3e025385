"""All names in docs/manipulation.md exist, and all that exists is named there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.load.textures import KINDS as TEXTURES
from nimbusd.stages.workflow.sim import REASONS, SKILLS, parse_task
from nimbusd.stages.workflow.sim.layout.layout import Physics
from nimbusd.stages.workflow.sim.layout.relations import KINDS as RELATIONS
from nimbusd.stages.workflow.sim.models.objects import LIBRARY, ObjectModel
from nimbusd.stages.workflow.sim.models.robots import ROBOTS, ArmModel, FingerModel, GripperModel, PartModel, RobotModel
from nimbusd.stages.workflow.sim.task.camera_spec import CameraSpec
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

TEXT = (Path(__file__).parents[2] / "docs" / "manipulation.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
MODELS: dict[str, tuple[type[ComponentArgs], ...]] = {
    "A task": (ManipTask, TableSpec),
    "Slots": (SlotSpec, RegionSpec, SortSpec),
    "Robots": (RobotModel, PartModel, ArmModel, GripperModel, FingerModel),
    "Objects": (ObjectModel,),
    "Relations": (GoalSpec,),
    "Cameras": (CameraSpec,),
    "How far layouts vary": (RandomizeSpec,),
}
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def named(section: str) -> set[str]:
    """Words in backticks, those of first columns and of running text."""
    return set(re.findall(r"`([\w*]+)[^`]*`", SECTIONS[section]))


def first_column(section: str) -> list[set[str]]:
    """The names that each row of the section's tables is about."""
    return [set(re.findall(r"`(\w+)`", row)) for row in re.findall(r"^\| (`.*?) \|", SECTIONS[section], re.MULTILINE)]


@pytest.mark.parametrize(("section", "model"), [(name, model) for name, models in MODELS.items() for model in models])
def test_every_key_of_a_model_stands_in_its_section(section: str, model: type[ComponentArgs]) -> None:
    keys = {field.alias or name for name, field in model.model_fields.items()}
    assert keys <= named(section)


@pytest.mark.parametrize(
    ("section", "models"), [("A task", [ManipTask]), ("Slots", [SlotSpec]), ("Cameras", [CameraSpec])]
)
def test_a_table_of_keys_names_no_key_that_is_not_there(section: str, models: list[type[ComponentArgs]]) -> None:
    keys = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert set().union(*first_column(section)) == keys


@pytest.mark.parametrize(
    ("section", "known"),
    [
        ("Relations", RELATIONS),
        ("Skills", SKILLS),
        ("Plans that fail", REASONS),
        ("How far layouts vary", RandomizeSpec.model_fields),
    ],
)
def test_tables_have_a_row_for_everything_and_for_nothing_else(section: str, known: Any) -> None:
    assert set().union(*first_column(section)) == set(known)


def test_every_robot_and_every_object_is_named() -> None:
    rows = set().union(*first_column("Robots"))
    assert rows == set(ROBOTS)
    assert set().union(*first_column("Objects")) == set(LIBRARY) | set(ObjectModel.model_fields)


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_every_argument_and_no_other_stands_in_a_skills_row(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|(.*?)$", SECTIONS["Skills"], re.MULTILINE)
    common = {"arm", "tries"}
    assert set(re.findall(r"`(\w+)`", row[0])) == set(SKILLS[name].model_fields) - common
    reasons = set(re.findall(r"`(\w+)`", row[1].rpartition("|")[0].rpartition("|")[2])) - set(SKILLS)
    assert reasons <= set(REASONS) | common


def test_defaults_in_the_tables_are_those_of_the_models() -> None:
    for section, model in (
        ("Slots", SlotSpec),
        ("Objects", ObjectModel),
        ("Cameras", CameraSpec),
        ("A task", ManipTask),
    ):
        for key, default in re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", SECTIONS[section], re.MULTILINE):
            stated, true = yaml.safe_load(default), model.model_fields[key].default
            assert stated == (list(true) if isinstance(true, tuple) else true), key


def test_physics_and_textures_are_named() -> None:
    assert set(Physics.__dataclass_fields__) <= named("Physics, planner, simulator")
    textures = re.search(r"which textures: (.*?) …", SECTIONS["How far layouts vary"])
    assert textures is not None
    assert set(re.findall(r"`(\w+)`", textures[1])) <= set(TEXTURES)


def test_a_goal_and_a_skill_have_no_key_that_is_not_told() -> None:
    assert {field.alias or name for name, field in SkillSpec.model_fields.items()} <= {
        *named("Skills"), *re.findall(r"(\w+):", SECTIONS["Skills"]),
    }  # fmt: skip


def test_the_files_in_the_text_are_valid() -> None:
    task, job, robots, hand, objects, cameras = BLOCKS
    GripperModel.model_validate(hand["gripper"])
    (tidy_up,) = task["tasks"]
    assert parse_task(tidy_up).name == job["name"]
    own = parse_task({**tidy_up, **robots, "robot": "mine", **objects})
    assert own.robot_model().noun == "my arm"
    assert [camera.name for camera in parse_task({**tidy_up, **cameras}).cameras] == ["front", "overhead", "wrist"]
    assert own.object_model("mug").mesh == "meshes/mug.glb"
