"""Task files are checked: every number has a least and a most, every name one meaning, every file a use."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from nimbusd.stages.arguments import ArgumentsError, validate
from nimbusd.stages.errors import AssetError
from nimbusd.stages.workflow.sim import ManipTask, Style, mistakes_in_files, parse_task
from nimbusd.stages.workflow.sim.models.robots import ROBOTS
from nimbusd.stages.workflow.sim.skills.grasps import read_grasps
from nimbusd.stages.workflow.sim.skills.skill import SKILLS
from tests.support.task_files import TASK, own_robot

FRANKA = ROBOTS["franka"].model_dump(mode="json")

SLOTS = TASK["slots"]
MODELS: list[type[BaseModel]] = [ManipTask, Style, *SKILLS.values()]


def numbers_of(
    schema: dict[str, Any], node: Any, path: str = "", inside: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every place of a JSON schema at which a number may stand."""
    if isinstance(node, dict):
        if "$ref" in node:
            word = node["$ref"].rpartition("/")[2]
            if word not in inside:
                yield from numbers_of(schema, schema["$defs"][word], path, (*inside, word))
            return
        if node.get("type") in ("number", "integer"):
            yield path, node
        for key, value in node.items():
            if key not in ("$defs", "default"):
                yield from numbers_of(schema, value, path if key == "properties" else f"{path}.{key}", inside)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from numbers_of(schema, value, f"{path}.{index}", inside)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_number_of_every_model_has_a_least_and_a_most(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    found = dict(numbers_of(schema, schema))
    assert found
    for path, number in found.items():
        if "const" in number or "enum" in number:
            continue
        assert {"minimum", "exclusiveMinimum"} & set(number), f"{model.__name__}{path} has no least value"
        assert {"maximum", "exclusiveMaximum"} & set(number), f"{model.__name__}{path} has no greatest value"


WHOLE: dict[str, Any] = {
    **TASK,
    "regions": [{"name": "area", "size_m": [0.1, 0.1], "color": [0.1, 0.2, 0.3]}],
    "cameras": [{"name": "front", "width": 320, "height": 240, "hfov_rad": 1.0, "position_m": [1, 0, 0.7]}],
    "physics": {"fps": 30, "substeps": 16, "gravity": -9.81, "impratio": 10},
    "table": {"centre": [0.42, 0.0], "size_m": [1.5, 1.8], "height_m": 0.75},
    "randomize": {"scale": [0.9, 1.1], "mass": [1, 1], "key": [0.1, 0.2], "camera_m": 0.1, "robot_rad": 0.1},
    "objects": {
        "crate": {
            "shape": "box", "category": "crate", "noun": "crate", "size_m": [0.1, 0.1, 0.1], "density": 300,
            "size_max_m": [0.2, 0.2, 0.2], "friction": 1, "colors": [["red", [1, 0, 0]]],
        }
    },
    "robots": {"mine": FRANKA},
}  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each place at which a number stands."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


def test_no_number_may_be_nan_infinite_or_a_thousand_million_and_none_by_the_python_interface() -> None:
    whole = json.loads(json.dumps(WHOLE))
    parse_task(whole)
    places = list(leaves(whole))
    assert len(places) > 80
    for path in places:
        for new in (math.nan, math.inf, -math.inf, 1e9, -1e9):
            bad = changed(whole, path, new)
            with pytest.raises(ArgumentsError) as told:
                parse_task(bad)
            assert any(
                mistake.path[: len(path)] == path or path[: len(mistake.path)] == mistake.path
                for mistake in told.value.mistakes
            ), path
            if not math.isfinite(new) and path[-2:-1] != ("fingers",):
                with pytest.raises(ValueError, match="finite"):
                    ManipTask.model_validate(bad)


def told(change: dict[str, Any]) -> list[str]:
    try:
        parse_task(TASK | change)
    except ArgumentsError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


def slot(**more: Any) -> dict[str, Any]:
    return {"slots": [*SLOTS, {"name": "other", "models": ["cube"], **more}]}


def camera(**more: Any) -> dict[str, Any]:
    return {"cameras": [{"name": "eye", **more}]}


def skills(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"skills": list(calls)}


def own(**more: Any) -> dict[str, Any]:
    given = {"shape": "box", "category": "crate", "noun": "crate", "size_m": [0.1, 0.1, 0.1], **more}
    return {"objects": {"crate": {key: value for key, value in given.items() if value is not None}}}


def robot(**more: Any) -> dict[str, Any]:
    mine = ROBOTS["franka"].model_dump(mode="json")
    mine["arms"]["arm"] |= more
    return {"robots": {"mine": mine}, "robot": "mine"}


def gripper(**more: Any) -> dict[str, Any]:
    return robot(gripper={**ROBOTS["franka"].arms["arm"].gripper.model_dump(mode="json"), **more})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        # names
        (slot(name="thing"), "slots.4.name: two things are called 'thing'"),
        (slot(name="more_2"), "slots.4.name: two things are called 'more_2'"),
        (slot(name="side"), "choices.side: two things are called 'side'"),
        (slot(name="table"), "slots.4.name: 'table' is what the room's own is called"),
        (slot(name="a/b"), "slots.4.name: a name begins with a letter"),
        (slot(name="{x}"), "slots.4.name: a name begins with a letter"),
        (slot(name="0"), "slots.4.name: a name begins with a letter"),
        (slot(name=""), "slots.4.name: a name begins with a letter"),
        (
            {**slot(name="item"), **skills({"skill": "home", "for_each": "more"})},
            "slots.4.name: '$item' stands for something else here",
        ),
        ({"cameras": [{"name": "eye"}, {"name": "eye"}]}, "cameras.1.name: two cameras are called 'eye'"),
        (
            {"robot": "dual_franka", "cameras": [{"name": "eye", "mount": "*"}, {"name": "eye_left"}]},
            "cameras.1.name: two cameras are called 'eye_left'",
        ),
        (
            {"robots": {"franka": FRANKA}},
            "robots.franka: the library has a robot called 'franka'",
        ),
        ({"objects": {"cube": own()["objects"]["crate"]}}, "objects.cube: the library has an object called 'cube'"),
        ({"choices": {"side": []}}, "choices.side: must not be empty"),
        ({"choices": {"a b": ["x"]}}, "choices.a b: a name begins with a letter"),
        ({"instructions": [" "]}, "instructions.0: must be words in one line"),
        # numbers and places
        ({"physics": {"fps": 0}}, "physics.fps: must be 1 or more, but it is 0"),
        ({"physics": {"substeps": -4}}, "physics.substeps: must be 1 or more, but it is -4"),
        (
            {"physics": {"substeps": 2}},
            "physics.substeps: physics steps of 16.7 ms are too long for contacts; at 30 fps take 7",
        ),
        ({"physics": {"gravity": 9.81}}, "physics.gravity: must be 0 or less"),
        ({"physics": {"substep": 2}}, "physics.substep: unknown key 'substep'"),
        (slot(count=[-1, 2]), "slots.4.count.0: must be 0 or more"),
        (slot(count=[3, 2]), "slots.4.count: a range goes from its least to its most, not from 3 to 2"),
        (slot(size_m=[0.05, -0.05, 0.05]), "slots.4.size_m.1: must be 0.002 or more"),
        (slot(models=["can"], size_m=[0.05, 0.05, 0.05]), "slots.4.size_m: 'can': a mesh is as large as its file says"),
        (
            slot(models=["bin"], size_m=[0.01, 0.05, 0.05]),
            "slots.4.size_m: 'bin': a bin must be [0.03, 0.03, 0.015] m large or more",
        ),
        (slot(models=["cylinder"], size_m=[0.03, 0.05, 0.05]), "slots.4.size_m: 'cylinder': a cylinder is round"),
        (slot(gap_m=-0.1), "slots.4.gap_m: must be 0 or more"),
        (slot(x_m=[2, 3]), "slots.4.x_m: 'other' may lie beside the table, on which x goes from -0.33 to 1.17"),
        ({"regions": [{"name": "area", "y_m": [0.8, 0.85]}]}, "regions.0.y_m: 'area' may lie beside the table"),
        ({"regions": [{"name": "area", "size_m": [0, 0.1]}]}, "regions.0.size_m.0: must be 0.002 or more"),
        ({"regions": [{"name": "area", "color": [255, 0, 0]}]}, "regions.0.color.0: must be 1 or less"),
        ({"randomize": {"mass": [1.2, 0.8]}}, "randomize.mass: a range goes from its least to its most"),
        ({"randomize": {"scale": [-1, 1]}}, "randomize.scale.0: must be 0.01 or more"),
        (own(density=-1), "objects.crate.density: must be 1 or more"),
        (own(friction=0), "objects.crate.friction: must be 0.01 or more"),
        (
            own(size_m=[0.3, 0.1, 0.1], size_max_m=[0.2, 0.2, 0.2]),
            "objects.crate: size_m [0.3, 0.1, 0.1] is in part more than",
        ),
        (own(travel=1), "objects.crate: an object of shape 'box' has no joint; leave 'travel' out"),
        (
            own(shape="drawer", size_m=[0.2, 0.2, 0.1]),
            "objects.crate: 'travel' of a drawer of this size must be 0.001 to 0.2",
        ),
        (own(shape="door", size_m=[0.2, 0.2, 0.05], travel=1), "objects.crate: a door must be"),
        (own(shape="mesh", mesh="a.stl"), "objects.crate: a mesh is as large as its file says with 'unit_m'"),
        (own(colors=[["red", [1, 0, 0]], ["red", [0, 0, 1]]]), "objects.crate: two of its colors are called 'red'"),
        (own(noun=""), "objects.crate.noun: must be words in one line"),
        # cameras
        (camera(position_m=[0, 0, 1], target_m=[0, 0, 1]), "cameras.0.target_m: 'eye' stands in its own target"),
        (camera(position_m=[5, 0, 1]), "cameras.0.position_m: the room ends 3 m to each side"),
        (camera(width=0), "cameras.0.width: must be 16 or more"),
        ({"cameras": []}, "cameras: must not be empty"),
        # robots
        (robot(kp=[-1] * 7), "robots.mine.arms.arm.kp.0: must be greater than 0"),
        (robot(joints=["joint1"] * 7), "robots.mine.arms.arm: among joints, 'joint1' is named twice"),
        (robot(home=[0.0]), "robots.mine.arms.arm: home has 1 numbers for 7 joints"),
        (gripper(fingers=[]), "robots.mine.arms.arm.gripper.fingers: must not be empty"),
        (gripper(opening_m=[0.08, 0.0]), "robots.mine.arms.arm.gripper: opening_m goes from closed to open"),
        (gripper(tcp_m=[0, 0, 9.7]), "robots.mine.arms.arm.gripper: tcp_m [0.0, 0.0, 9.7] is more than a metre off"),
        (
            gripper(fingers=[{"joint": "a", "closed": 0.01, "open": 0.01}]),
            "robots.mine.arms.arm.gripper.fingers.0: finger 'a' is as open as closed",
        ),
        (
            {
                "robots": {
                    "mine": {
                        **FRANKA,
                        "parts": [{"mjcf": "a.xml", "quaternion": [0, 0, 0, 0]}],
                    }
                }
            },
            "robots.mine.parts.0.quaternion: a quaternion (w, x, y, z) of length 0",
        ),
        # skills and goals
        (
            skills({"skill": "goto_pose", "with": {"position_m": [0.4, 0, 0.3], "quaternion": [0, 0, 0, 0]}}),
            "skills.0.with.quaternion: a quaternion",
        ),
        (
            skills({"skill": "pick", "with": {"object": "$more"}}),
            "skills.0.with.object: '$more' is missing in some layouts; 'for_each: more'",
        ),
        (skills({"skill": "pick", "with": {"object": "more_2"}}), "skills.0.with.object: no object is called 'more_2'"),
        (
            skills({"skill": "pick", "with": {"object": "$box"}}),
            "skills.0.with.object: 'pick' moves things, but 'box' stands still",
        ),
        (
            skills({"skill": "open", "with": {"object": "$thing"}}),
            "skills.0.with.object: 'open' is done to a drawer or a door, not to 'cube'",
        ),
        (
            skills({"skill": "pick", "with": {"object": "$thing", "lift_m": -1}}),
            "skills.0.with.lift_m: must be 0.02 or more",
        ),
        (
            skills({"skill": "pick", "with": {"object": "$thing", "lift": 1}}),
            "skills.0.with.lift: unknown key 'lift'; did you mean 'lift_m'?",
        ),
        (
            skills({"skill": "place", "with": {"object": "$thing", "relation": "near", "reference": "$thing"}}),
            "skills.0.with.reference: '$thing' cannot stand in a relation to itself",
        ),
        (
            {"goals": [{"subject": "$thing", "relation": "near", "reference": "$thing"}]},
            "goals.0.reference: '$thing' cannot stand in a relation to itself",
        ),
        (
            {
                "regions": [{"name": "area"}],
                "goals": [{"subject": "$thing", "relation": "left_of", "reference": "$area"}],
            },
            "goals.0.reference: things lie in a region, they are not to the left of it",
        ),
        (
            {
                "slots": [*SLOTS[:2], {**SLOTS[2]}, SLOTS[3], {"name": "maybe", "models": ["bin"], "count": [0, 1]}],
                "sort": {"slot": "more", "into": {"maybe": ["can"]}},
            },
            "sort.into.maybe: 'maybe' is missing in some layouts",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_meant_is_refused_by_name(change: dict[str, Any], sentence: str) -> None:
    texts = told(change)
    assert [text for text in texts if text.startswith(sentence)], texts


def test_arguments_of_skills_are_bounded_as_well() -> None:
    for name, arguments in (
        ("pick", {"object": "a", "approach_m": math.nan}),
        ("place", {"object": "a", "relation": "in", "reference": "b", "spots": 0}),
        ("goto_pose", {"position_m": [0, 0, 1e3]}),
        ("gripper", {"openness": -0.1}),
        ("push", {"object": "a", "direction": "left_of", "distance_m": -0.1}),
        ("home", {"tries": 0}),
    ):
        with pytest.raises(ArgumentsError):
            validate(SKILLS[name], arguments, name)


# --- files ---


def grasp_file(path: Path, T: Any, width: Any = 0.04, **more: Any) -> Path:
    path.write_text(
        json.dumps(
            [
                {"T_object_tcp": np.eye(4).tolist(), "width_m": 0.04},
                {"T_object_tcp": np.asarray(T).tolist(), "width_m": width, **more},
            ]
        )
    )
    return path


def moved(x: float) -> Any:
    T = np.eye(4)
    T[0, 3] = x
    return T


@pytest.mark.parametrize(
    ("T", "width", "sentence"),
    [
        (np.diag([1.0, 1, -1, 1]), 0.04, "grasp 1 has a left-handed T_object_tcp"),
        (np.diag([2.0, 2, 2, 1]), 0.04, "grasp 1 has a T_object_tcp that is no rigid pose"),
        (np.zeros((4, 4)), 0.04, "grasp 1 has a T_object_tcp that is no rigid pose"),
        (np.diag([1.0, 1, 1, 2]), 0.04, "grasp 1 has a T_object_tcp that is no rigid pose"),
        (np.full((4, 4), np.nan), 0.04, "grasp 1 has numbers that are not finite"),
        (np.eye(4), math.inf, "grasp 1 has numbers that are not finite"),
        (
            moved(40.0),
            0.04,
            "grasp 1 is more than 1.0 m off the object, or more than 0.3 m wide; lengths are in metres",
        ),
        (np.eye(4), 40, "grasp 1 is more than 1.0 m off the object, or more than 0.3 m wide; lengths are in metres"),
        (np.eye(4), -0.04, "grasp 1 has a width_m that is not above 0"),
        (np.eye(3), 0.04, "cannot be read"),
        (np.eye(4), "wide", "cannot be read"),
        (np.eye(4), [0.04], "cannot be read"),
    ],
)
def test_a_grasp_file_that_no_hand_can_use_is_refused(T: Any, width: Any, sentence: str, tmp_path: Path) -> None:
    path = grasp_file(tmp_path / "g.json", T, width)
    with pytest.raises(AssetError, match="grasp file") as told:
        read_grasps(str(path))
    assert sentence in str(told.value)
    if isinstance(width, float) and np.shape(T) == (4, 4):
        np.savez(tmp_path / "g.npz", T_object_tcp=[T], width_m=[width])
        with pytest.raises(AssetError) as told:
            read_grasps(str(tmp_path / "g.npz"))
        assert sentence.replace("grasp 1", "grasp 0") in str(told.value)


@pytest.mark.parametrize("content", ["[]", "{}", "[1]", '{"grasps": 3}', '{"grasps": []}', "null", "[[]]"])
def test_a_grasp_file_of_another_structure_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(content)
    with pytest.raises(AssetError, match="grasp file"):
        read_grasps(str(tmp_path / "g.json"))


def test_an_npz_file_of_grasps_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(AssetError, match="grasp file"):
        read_grasps(str(tmp_path / "g.npz"))


@pytest.mark.mujoco
@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (
            "flange",
            "rigt_hand",
            "robots.mine.arms.arm.flange: robot file {panda}/robot.xml has no body called 'rigt_hand'; did you mean",
        ),
        (
            "base",
            "bse",
            "robots.mine.arms.arm.base: robot file {panda}/robot.xml has no body called 'bse'; did you mean 'base'?",
        ),
        (
            "joints",
            [*(f"joint{number}" for number in range(1, 7)), "joint8"],
            "robots.mine.arms.arm.joints.6: robot file",
        ),
        ("finger_bodies", ["leftfingr"], "robots.mine.arms.arm.gripper.finger_bodies.0: robot file"),
        (
            "fingers",
            [{"joint": "finger", "closed": 0, "open": 0.04}],
            "robots.mine.arms.arm.gripper.fingers.0.joint: robot file",
        ),
        (
            "fingers",
            [{"joint": "finger_joint1", "closed": 0, "open": 0.4}],
            "robots.mine.arms.arm.gripper.fingers.0.open: 0.4 is outside what joint 'finger_joint1' can: 0 to 0.04",
        ),
        ("mjcf", "tasks.yaml", "robots.mine.arms.arm.gripper.mjcf: robot file"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_names_that_a_robots_files_lack_are_told_before_anything_runs(
    place: str, value: Any, sentence: str, tmp_path: Path
) -> None:
    from tests.support.manip_worlds import require_simulation

    require_simulation()
    (tmp_path / "tasks.yaml").write_text("no robot")
    config = own_robot(tmp_path)
    arm = config["robots"]["mine"]["arms"]["arm"]
    (arm["gripper"] if place in ("finger_bodies", "fingers", "mjcf") else arm)[place] = value
    task = parse_task(config, tmp_path)
    panda = task.robots["mine"].parts[0].mjcf.rpartition("/")[0]
    texts = [str(mistake) for mistake in mistakes_in_files(task)]
    assert [text for text in texts if text.startswith(sentence.replace("{panda}", panda))], texts


@pytest.mark.mujoco
def test_a_robot_of_which_nothing_is_wrong_passes_and_one_that_cannot_be_put_together_is_told(tmp_path: Path) -> None:
    from tests.support.manip_worlds import require_simulation

    require_simulation()
    assert list(mistakes_in_files(parse_task(own_robot(tmp_path), tmp_path))) == []
    (tmp_path / "arm.xml").write_text(
        "<mujoco><worldbody><body name='base'><joint name='j'/><geom type='mesh' mesh='gone'/>"
        "<body name='hand'/></body></worldbody></mujoco>"
    )
    config = own_robot(tmp_path)
    mine = config["robots"]["mine"]
    mine["parts"] = [{"mjcf": "arm.xml"}]
    one = {"home": [0.0], "kp": [1.0], "force_nm": [1.0], "velocity": [1.0], "acceleration": [1.0]}
    mine["arms"]["arm"] |= {"joints": ["j"], "flange": "hand", "base": "base", **one}
    (mistake,) = mistakes_in_files(parse_task(config, tmp_path))
    assert mistake.path[:2] == ("robots", "mine")


@pytest.mark.mujoco
def test_an_object_that_cannot_be_built_of_its_files_is_told(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="makes the files of objects")
    pytest.importorskip("mujoco", reason="needs the mujoco extra")
    trimesh.creation.box((0.04, 0.03, 0.05)).export(tmp_path / "box.stl")
    (tmp_path / "look.png").write_text("no picture")
    mug = {"shape": "mesh", "category": "mug", "noun": "mug", "mesh": "box.stl"}
    good = parse_task(TASK | {"objects": {"mug": mug}}, tmp_path)
    assert list(mistakes_in_files(good)) == []
    bad = parse_task(TASK | {"objects": {"mug": {**mug, "texture": "look.png"}}}, tmp_path)
    (mistake,) = mistakes_in_files(bad)
    assert mistake.path == ("objects", "mug")
    assert "look.png" in mistake.text
