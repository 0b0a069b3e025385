"""All names in docs/manipulation.md and its reference exist, and all that exists is named in the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.load.textures import KINDS as TEXTURES
from nimbusd.stages.workflow.sim import REASONS, SKILLS, parse_task, randomize_layout
from nimbusd.stages.workflow.sim.layout.layout import Physics
from nimbusd.stages.workflow.sim.models.assets import fetched
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
from nimbusd.stages.workflow.sim.workcell.relations import KINDS as RELATIONS

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "reference/manipulation.md").read_text()
TUTORIAL = (DOCS / "manipulation.md").read_text()
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


def blocks_of(text: str) -> list[Any]:
    """The values in the YAML of a page, block by block."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


(TASK_FILE, JOB, *CHANGES), BLOCKS = blocks_of(TUTORIAL), blocks_of(TEXT)
(TIDY_UP,) = TASK_FILE["tasks"]


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


def test_the_files_in_the_reference_are_valid() -> None:
    robots, hand, objects, cameras = BLOCKS
    GripperModel.model_validate(hand["gripper"])
    own = parse_task({**TIDY_UP, **robots, "robot": "mine", **objects})
    assert own.robot_model().noun == "my arm"
    assert [camera.name for camera in parse_task({**TIDY_UP, **cameras}).cameras] == ["front", "overhead", "wrist"]
    assert own.object_model("mug").mesh == "meshes/mug.glb"


def test_the_files_in_the_tutorial_are_valid() -> None:
    assert parse_task(TIDY_UP).name == JOB["name"]
    assert [stage["component"] for stage in JOB["pipeline"].values()][:4] == [
        "EnvLoader", "EnvRandomizer", "EnvPlanner", "EnvRenderer",
    ]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_change_of_the_tutorial_fits_its_task(change: dict[str, Any]) -> None:
    task = parse_task({**TIDY_UP, **change})
    assert task != parse_task(TIDY_UP)
    assert task.file_references()


@pytest.mark.mujoco
@pytest.mark.parametrize("change", [{}, *(change for change in CHANGES if "objects" not in change)], ids=",".join)
def test_a_layout_of_the_tutorials_task_is_found_as_it_is_and_changed(change: dict[str, Any]) -> None:
    pytest.importorskip("mujoco", reason="needs the mujoco extra")
    if not fetched("robosuite"):
        pytest.skip("needs `nimbusctl assets fetch`")
    layout = randomize_layout(parse_task({**TIDY_UP, **change}), np.random.default_rng(0))
    assert layout.task == TIDY_UP["name"]


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (DOCS / "manipulation.md", DOCS / "reference/manipulation.md", DOCS / "extend/skill.md"):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            path = (page.parent / target).resolve() if target else page
            assert path.is_file(), f"{page.name} links to {target}"
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            names = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in names, f"{page.name} links to {target}#{anchor}"
