"""Task files with random faults: each is refused by name and line, or makes a world. Never anything else."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nimbusd.stages.errors import AssetError, ComponentError, PlanningFailed
from nimbusd.stages.workflow.sim import Layout
from nimbusd.stages.workflow.sim.randomize.draw import draw_layout
from tests.support.manip_worlds import require_simulation
from tests.support.slow import slow

pytestmark = pytest.mark.mujoco
require_simulation()

TASK: dict[str, Any] = {
    "name": "everything",
    "robot": "franka",
    "planner": "connect",
    "table": {"centre": [0.42, 0.0], "size_m": [1.5, 1.8], "height_m": 0.75},
    "objects": {
        "crate": {
            "shape": "box", "category": "crate", "noun": "crate", "size_m": [0.03, 0.03, 0.03],
            "size_max_m": [0.05, 0.05, 0.05], "density": 300.0, "friction": 1.0, "colors": [["red", [1.0, 0.0, 0.0]]],
        },
        "tin": {
            "shape": "mesh", "category": "tin", "noun": "tin", "mesh": "robosuite:objects/meshes/can.msh",
            "texture": "robosuite:textures/soda.png", "unit_m": 1.0, "up": "z", "collision": "cylinder",
        },
        "case": {"shape": "drawer", "category": "case", "noun": "case", "size_m": [0.22, 0.26, 0.1], "travel": 0.14},
        "cup": {"shape": "cylinder", "category": "cup", "noun": "cup", "size_m": [0.04, 0.04, 0.05]},
        "hatch": {
            "shape": "door", "category": "hatch", "noun": "hatch", "size_m": [0.15, 0.2, 0.16], "travel": 1.5,
            "hinge": "right",
        },
        "key": {"shape": "button", "category": "key", "noun": "key", "size_m": [0.09, 0.09, 0.06], "travel": 0.012},
        "dial": {"shape": "knob", "category": "dial", "noun": "dial", "size_m": [0.09, 0.09, 0.07], "travel": 1.6},
        "tray": {"shape": "bin", "category": "tray", "noun": "tray", "size_m": [0.2, 0.2, 0.1]},
    },
    "slots": [
        {
            "name": "thing", "models": ["crate", "cup"], "count": [1, 1], "x_m": [0.3, 0.6], "y_m": [-0.3, 0.3],
            "yaw_rad": [-1.0, 1.0], "distinct": True, "color": "", "gap_m": 0.01, "fixed": False, "joint": 0.0,
        },
        {"name": "more", "models": ["tin"], "count": [0, 2], "x_m": [-0.2, 0.2], "y_m": [0.3, 0.8]},
        {"name": "box", "models": ["tray"], "x_m": [0.5, 0.9], "y_m": [-0.8, -0.4], "size_m": [0.2, 0.2, 0.1]},
        {"name": "chest", "models": ["case", "hatch"], "x_m": [0.8, 1.0], "y_m": [0.3, 0.7], "joint": 0.5},
        {"name": "panel", "models": ["key", "dial"], "x_m": [-0.2, 0.1], "y_m": [-0.8, -0.5]},
    ],
    "regions": [
        {"name": "area", "size_m": [0.1, 0.1], "x_m": [0.5, 0.6], "y_m": [0.0, 0.1], "color": [0.1, 0.2, 0.3]}
    ],
    "choices": {"side": ["left_of", "right_of"]},
    "sort": {"slot": "more", "into": {"box": ["tin"]}},
    "goals": [
        {"subject": "$thing", "relation": "$side", "reference": "$box"},
        {"subject": "$item", "relation": "in", "reference": "$bin", "for_each": "more"},
    ],
    "skills": [
        {"skill": "pick", "with": {"object": "$thing", "lift_m": 0.1}, "instruction": "take the {object}"},
        {"skill": "place", "with": {"object": "$thing", "relation": "$side", "reference": "$box"}},
        {"skill": "goto_pose", "with": {"position_m": [0.4, 0.0, 0.3], "quaternion": [0.0, 1.0, 0.0, 0.0]}},
        {"skill": "home", "for_each": "more"},
    ],
    "instructions": ["Put the {thing} {side} the {box}."],
    "cameras": [
        {
            "name": "front", "width": 64, "height": 48, "hfov_rad": 1.0, "position_m": [1.1, 0.0, 0.7],
            "target_m": [0.4, 0.0, 0.0],
        },
        {"name": "wrist", "mount": "*", "position_m": [0.07, 0.0, 0.02], "target_m": [0.02, 0.0, 0.14]},
    ],
    "randomize": {
        "scale": [0.9, 1.1], "mass": [0.7, 1.3], "friction": [0.8, 1.2],
        "tables": ["wood"], "floors": [], "walls": ["brick"],
        "camera_m": 0.03, "camera_rad": 0.03, "focal": 0.03, "robot_rad": 0.06, "key": [0.3, 0.5], "fill": [0.1, 0.2],
        "ambient": [0.3, 0.4], "sun_rad": 0.5, "warmth": 0.1, "sizes": True,
    },
    "physics": {"fps": 30.0, "substeps": 16, "gravity": -9.81, "impratio": 10.0},
}  # fmt: skip

WORDS = [
    "", "a", "item", "bin", "table", "thing", "$thing", "box", "$box", "more_1", "crate", "cube", "area", "$item", "{",
    "franka", "dual_franka", "wood", "red", "*", "arm", "in", "on", "open", "pick", "door", "mesh", "0", "ü", "a/b",
]  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 0.0, -0.5, 0.001, 0.01, 0.05, 0.5, 1.0, 1.6, 3.2, 6.3, 10, 100, 1000, 1e6, 1e30]),
    st.floats(-5, 5, allow_nan=False).map(lambda value: round(value, 4)),
    st.floats(),
    st.integers(-5, 5000),
)
SCALARS = st.one_of(NUMBERS, st.sampled_from(WORDS), st.booleans(), st.none(), st.text(max_size=6))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=4), st.dictionaries(st.sampled_from(WORDS), SCALARS, max_size=2))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a task, the root excepted."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [deeper for key, item in items for deeper in ((*path, key), *places(item, (*path, key)))]


@st.composite
def varied(draw: st.DrawFn) -> dict[str, Any]:
    """The task with one to six numbers and words changed to what may well be meant, or just not."""
    task = copy.deepcopy(TASK)
    for _ in range(draw(st.integers(1, 6))):
        path = draw(st.sampled_from([place for place in places(task) if isinstance(at(task, place), (int, float))]))
        old, inner = at(task, path), at(task, path[:-1])
        if isinstance(old, bool):
            inner[path[-1]] = not old
        elif isinstance(old, int):
            inner[path[-1]] = max(old + draw(st.integers(-1, 4)), 0)
        else:
            inner[path[-1]] = round(old * draw(st.floats(0.2, 3)) + draw(st.sampled_from([0.0, 0.0, 0.01, -0.01])), 4)
    return task


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def faulty(draw: st.DrawFn) -> dict[str, Any]:
    """The task with one to three places changed."""
    task = copy.deepcopy(TASK)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(task)))
        inner: Any = task
        for key in path[:-1]:
            inner = inner[key]
        what, old = draw(st.sampled_from(["replace", "replace", "alike", "remove", "twice", "add"])), inner[path[-1]]
        if what == "remove":
            del inner[path[-1]]
        elif what == "twice" and isinstance(inner, list):
            inner.append(copy.deepcopy(old))
        elif what == "add" and isinstance(old, dict):
            old[draw(st.sampled_from(WORDS))] = draw(VALUES)
        elif what == "alike" and isinstance(old, (int, float)) and not isinstance(old, bool):
            inner[path[-1]] = draw(NUMBERS)
        elif what == "alike" and isinstance(old, str):
            inner[path[-1]] = draw(st.sampled_from(WORDS))
        else:
            inner[path[-1]] = draw(VALUES)
    return task


def refused_or_built(task: dict[str, Any], folder: Path) -> str:
    """The fate of a task: `refused`, `full` (nothing more fits on the table) or `built`. Raises anything else."""
    from nimbusd.stages.workflow.manip import ManipWorkflow
    from nimbusd.stages.workflow.sim.world.world import build_world

    file = folder / "tasks.yaml"
    file.write_text(yaml.safe_dump({"tasks": [task]}, allow_unicode=True), encoding="utf-8")
    try:
        ManipWorkflow.check_task(str(file), 0)
        (read,) = ManipWorkflow({}, str(file)).task_cfgs
    except (ComponentError, AssetError) as error:
        return (
            "refused" if re.search(re.escape(str(file)) + ".*line [0-9]+", str(error)) else f"without a line: {error}"
        )
    try:
        layout, _ = draw_layout(read, np.random.default_rng(0))
    except PlanningFailed as error:
        return "full" if error.reason == "no_layout" else str(error)
    assert Layout.from_json(layout.to_json()) == layout
    world = build_world(layout)
    assert np.isfinite(world.start).all()
    return "built"


def test_the_task_itself_is_built(tmp_path: Path) -> None:
    assert refused_or_built(TASK, tmp_path) == "built"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(task=faulty())
def test_a_faulty_task_is_refused_with_its_line_or_makes_a_world(task: dict[str, Any], tmp_path: Path) -> None:
    assert refused_or_built(task, tmp_path) in ("refused", "full", "built")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(task=varied())
def test_a_task_with_other_numbers_is_refused_with_its_line_or_makes_a_world(
    task: dict[str, Any], tmp_path: Path
) -> None:
    assert refused_or_built(task, tmp_path) in ("refused", "full", "built")


@slow
@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(task=st.one_of(faulty(), varied()))
def test_many_faulty_tasks(task: dict[str, Any], tmp_path: Path) -> None:
    assert refused_or_built(task, tmp_path) in ("refused", "full", "built")
