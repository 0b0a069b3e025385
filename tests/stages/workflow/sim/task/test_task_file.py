"""Task files: mistakes are told by `nimbusctl check` with their place, and files of a user's own are used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from nimbusd.cli.check import check
from tests.support.gltf_files import GltfFile
from tests.support.slow import quick_first
from tests.support.task_files import JOB, SLOTS, TASK, errors_of, own_robot

trimesh = pytest.importorskip("trimesh", reason="makes the files of objects")


def own(**more: Any) -> dict[str, Any]:
    return {"objects": {"mug": {"shape": "mesh", "category": "mug", "noun": "mug", "mesh": "mug.stl", **more}}}


def place(**arguments: Any) -> dict[str, Any]:
    given = {"object": "$thing", "relation": "in", "reference": "$box", **arguments}
    return {"skills": [{"skill": "place", "with": given}]}


def test_a_good_task_has_nothing_wrong(tmp_path: Path) -> None:
    assert errors_of(tmp_path, TASK) == []
    assert errors_of(tmp_path, TASK | place(relation="$side", reference="$press")) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"robot": "frnka"}, "robot: no robot is called 'frnka'; did you mean 'franka'?"),
        ({"instrucions": []}, "instrucions: unknown key 'instrucions'; did you mean 'instructions'?"),
        (
            {"slots": [{"name": "thing", "models": ["cubs"]}]},
            "slots.0.models: slot 'thing': no object is called 'cubs'; did you mean 'cube'?",
        ),
        (
            {"slots": [{"name": "thing", "model": ["cube"]}]},
            "slots.0.model: unknown key 'model'; did you mean 'models'?",
        ),
        ({"slots": [*SLOTS, {"name": "box", "models": ["bin"]}]}, "slots.4.name: two things are called 'box'"),
        (
            {"slots": [{**SLOTS[0], "color": "rde"}, *SLOTS[1:]]},
            "slots.0.color: 'cube' does not come in 'rde'; did you mean 'red'?",
        ),
        ({"slots": [{**SLOTS[0], "joint": 0.5}, *SLOTS[1:]]}, "slots.0.joint: 'cube' has no joint"),
        (
            {"slots": [{**SLOTS[0], "x_m": [0.6, 0.4]}, *SLOTS[1:]]},
            "slots.0.x_m: a range goes from its least to its most",
        ),
        (
            {"cameras": [{"name": "eye", "mount": "arms"}]},
            "cameras.0.mount: the robot has no arm 'arms'; did you mean 'arm'?",
        ),
        (place(objekt="$thing"), "skills.0.with.objekt: unknown key 'objekt'; did you mean 'object'?"),
        (place(reference="$bix"), "skills.0.with.reference: nothing fills '$bix'; did you mean 'box'?"),
        (place(reference="box_1"), "skills.0.with.reference: no object is called 'box_1'; did you mean 'box'?"),
        (
            place(reference="$press"),
            "skills.0.with.reference: things lie in a bin or a drawer, or in a region, not in 'button'",
        ),
        (place(relation="inn"), "skills.0.with.relation: placing brings about no relation 'inn'; did you mean 'in'?"),
        (place(approach_m="far"), "skills.0.with.approach_m: must be a number"),
        (place(arm="left"), "skills.0.with.arm: the robot has no arm 'left'; known are: arm"),
        ({"skills": [{"skill": "plce"}]}, "skills.0.skill: no skill is called 'plce'; did you mean 'place'?"),
        ({"skills": [{"skill": "pick"}]}, "skills.0.with.object: key 'object' is missing"),
        (
            {"skills": [{"skill": "home", "for_each": "mor"}]},
            "skills.0.for_each: no slot is called 'mor'; did you mean 'more'?",
        ),
        (
            {"skills": [{"skill": "home", "instruction": "go {hom}"}]},
            "skills.0.instruction: nothing is called '{hom}' in every layout",
        ),
        (
            {"goals": [{"subject": "$thing", "relation": "pressed"}]},
            "goals.0.relation: 'pressed' is said of a button, not of 'cube'",
        ),
        ({"goals": [{"subject": "$thing", "relation": "near"}]}, "goals.0.reference: 'near' is between two things"),
        (
            {"goals": [{"subject": "$thing", "relation": "$sid", "reference": "$box"}]},
            "goals.0.relation: no choice is called '$sid'; did you mean 'side'?",
        ),
        (
            {"instructions": ["Take the {thingy}."]},
            "instructions.0: nothing is called '{thingy}' in every layout; did you mean 'thing'?",
        ),
        ({"instructions": ["Take the {more}."]}, "instructions.0: nothing is called '{more}' in every layout"),
        (
            {"physics": {"simulator": "sapin"}},
            "physics.simulator: must be 'mujoco' or 'sapien', but it is 'sapin'",
        ),
        ({"instructions": ["Take the {thing."]}, "instructions.0: the braces in 'Take the {thing.' do not match"),
        (
            {"sort": {"slot": "more", "into": {"bxo": ["can"]}}},
            "sort.into.bxo: no slot is called 'bxo'; did you mean 'box'?",
        ),
        ({"sort": {"slot": "more", "into": {"box": ["cube"]}}}, "sort.into: there is no place for can"),
        (own(), "objects.mug.mesh: file {folder}/mug.stl is missing; relative paths start at the task file's folder"),
        (own(mesh="tasks.yaml"), "objects.mug.mesh: object file {folder}/tasks.yaml is of a kind that cannot be read"),
        (
            own(mesh="robosuit:mug.msh"),
            "objects.mug.mesh: no package of assets is called 'robosuit'; did you mean 'robosuite'?",
        ),
        (
            own(mesh="tasks.yaml", grasps="tasks.yaml"),
            "objects.mug.grasps: grasp file {folder}/tasks.yaml cannot be read",
        ),
        (own(mesh="tasks.yaml", unit_m=0), "objects.mug.unit_m: must be greater than 0"),
        (
            {"skills": [{"skill": "pick", "with": {"object": "$thing", "grasps": "g.npz"}}]},
            "skills.0.with.grasps: file {folder}/g.npz is missing",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_check_tells_a_mistake_with_file_line_place_and_the_nearest_right_word(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    texts = errors_of(tmp_path, TASK | change)  # a missing name may be missed elsewhere as well
    told = f"task file {tmp_path / 'tasks.yaml'}: tasks.0.{sentence}".replace("{folder}", str(tmp_path))
    (text,) = [text for text in texts if text.startswith(told)]
    assert re.search(r" \(line \d+\)$", text)


def test_all_mistakes_of_all_tasks_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    (tmp_path / "tasks.yaml").write_text(
        """tasks:
  - name: one
    robot: frnka
    skills: [{skill: home}]
    instructions: [Go home.]
  - name: two
    slots:
      - {name: thing, models: [cube]}
    skills:
      - skill: pick
        with: {object: $thin, lift: 0.1}
    instructions: [Take it.]
  - three
"""
    )
    result = CliRunner().invoke(check, [str(tmp_path / "job.yaml"), "--json"], catch_exceptions=False)
    texts = [error["text"].partition("tasks.yaml: ")[2] for error in json.loads(result.stdout)["errors"]]
    assert texts == [
        "tasks.0.robot: no robot is called 'frnka'; did you mean 'franka'? (line 3)",
        "tasks.1.skills.0.with.object: nothing fills '$thin'; did you mean 'thing'? (line 11)",
        "tasks.1.skills.0.with.lift: unknown key 'lift'; did you mean 'lift_m'? (line 11)",
        "tasks.2: a task is a mapping of keys, not 'three' (line 13)",
    ]


def test_a_file_that_is_no_yaml_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    (tmp_path / "tasks.yaml").write_text("tasks:\n  - name: [\n")
    result = CliRunner().invoke(check, [str(tmp_path / "job.yaml"), "--json"], catch_exceptions=False)
    (error,) = json.loads(result.stdout)["errors"]
    assert f"task file {tmp_path / 'tasks.yaml'} cannot be read" in error["text"]
    assert "line 3" in error["text"]


def test_a_task_that_the_file_does_not_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump(JOB | {"scenes": [{"name": "t", "cfg_path": "tasks.yaml", "task": 1}]})
    )
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [TASK]}))
    result = CliRunner().invoke(check, [str(tmp_path / "job.yaml")], catch_exceptions=False)
    assert "has tasks 0…0, not 1" in result.output


# --- a user's own objects ---

EDGES = (0.04, 0.03, 0.05)


def box_file(path: Path, textured: bool = False) -> None:
    """A box of EDGES metres, off its file's origin; in glTF y is up, elsewhere z. textured: red above, blue below."""
    box = trimesh.creation.box(EDGES)
    if textured:
        from PIL import Image

        picture = np.zeros((8, 8, 3), np.uint8)
        picture[:4], picture[4:] = (255, 0, 0), (0, 0, 255)
        uv = np.column_stack([np.full(len(box.vertices), 0.5), box.vertices[:, 2] / EDGES[2] * 0.9 + 0.5])
        box.visual = trimesh.visual.TextureVisuals(uv=uv, image=Image.fromarray(picture))
    box.apply_translation((0.3, 0.2, 0.1))
    if path.suffix == ".glb":
        box.apply_transform(np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float))
    box.export(path)


def grasp_file(path: Path) -> None:
    """One grasp from above, closing along the box's y."""
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    path.write_text(json.dumps({"grasps": [{"T_object_tcp": T.tolist(), "width_m": EDGES[1]}]}))


@pytest.mark.mujoco
@pytest.mark.parametrize("suffix", [".obj", ".glb", ".ply", ".stl"])
def test_a_mesh_file_of_a_users_own_is_an_object_with_its_size_and_upright(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason="needs the mujoco extra")
    from nimbusd.stages.workflow.sim.models.mesh_shape import mesh_shape

    box_file(tmp_path / f"box{suffix}")
    shape = mesh_shape(str(tmp_path / f"box{suffix}"), 1.0)
    assert shape.size_m == pytest.approx(EDGES, abs=1e-6)
    assert np.abs(shape.vertices).max(axis=0) == pytest.approx(np.asarray(EDGES) / 2, abs=1e-6)
    turned = mesh_shape(str(tmp_path / f"box{suffix}"), 1.0, "z" if suffix == ".glb" else "y")
    assert turned.size_m == pytest.approx((EDGES[0], EDGES[2], EDGES[1]), abs=1e-6)


def test_the_colour_of_a_mesh_file_s_material_tints_its_picture(tmp_path: Path) -> None:
    import trimesh

    from nimbusd.stages.workflow.sim.models.mesh_shape import mesh_shape

    box = trimesh.creation.box(EDGES)
    file = GltfFile()
    texture = {"index": file.picture(np.full((4, 4, 3), 255, np.uint8))}
    material = file.add(
        "materials", pbrMetallicRoughness={"baseColorFactor": [0.5, 1, 0, 1], "baseColorTexture": texture}
    )
    uv = file.array(np.zeros((len(box.vertices), 2)))
    file.node(mesh=file.mesh(box.vertices, box.faces, material=material, attributes={"TEXCOORD_0": uv}))
    picture = mesh_shape(str(file.save(tmp_path / "tinted.glb")), 1.0).picture
    assert picture is not None
    assert (picture == (188, 255, 0)).all()  # half of linear 1 is 188 in sRGB


@pytest.mark.mujoco
def test_a_file_in_another_unit_or_without_volume_is_told(tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason="needs the mujoco extra")
    from nimbusd.stages.errors import AssetError
    from nimbusd.stages.workflow.sim.models.mesh_shape import mesh_shape

    trimesh.creation.box((40, 30, 50)).export(tmp_path / "large.obj")
    with pytest.raises(AssetError, match=r"large\.obj is 50 m large with unit_m 1; is that its unit\?"):
        mesh_shape(str(tmp_path / "large.obj"), 1.0)
    (text,) = errors_of(tmp_path, TASK | own(mesh="large.obj"))
    assert "is 50 m large with unit_m 1" in text
    assert mesh_shape(str(tmp_path / "large.obj"), 0.001).size_m == pytest.approx((0.04, 0.03, 0.05))
    flat = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    flat.export(tmp_path / "flat.obj")
    with pytest.raises(AssetError, match=r"flat\.obj cannot be used as an object"):
        mesh_shape(str(tmp_path / "flat.obj"), 1.0)


@pytest.mark.mujoco
@pytest.mark.parametrize("suffix", quick_first([".glb", ".obj", ".stl"]))
def test_a_users_object_and_grasps_go_from_the_task_file_to_an_episode_and_its_pictures(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.manip_worlds import require_simulation

    require_simulation()
    from nimbusd.renderers.mujoco.view import MujocoView, ViewSettings
    from nimbusd.renderers.stacked import render_stacked
    from nimbusd.stages.workflow.manip import ManipWorkflow
    from nimbusd.stages.workflow.sim import plan_episode, randomize_layout

    (tmp_path / "files").mkdir()
    box_file(tmp_path / f"files/box{suffix}", textured=suffix != ".stl")
    grasp_file(tmp_path / "files/box.json")
    model = {"shape": "mesh", "category": "tea box", "noun": "box of tea", "mesh": f"files/box{suffix}",
             "grasps": "files/box.json"}  # fmt: skip
    task = {
        "name": "tea",
        "objects": {"tea": model},
        "slots": [{"name": "tea", "models": ["tea"], "x_m": [0.45, 0.5], "y_m": [-0.1, 0.1]}],
        "goals": [{"subject": "$tea", "relation": "lifted"}],
        "skills": [{"skill": "pick", "with": {"object": "$tea"}}],
        "instructions": ["Lift the {tea}."],
        "cameras": [{"name": "front", "width": 160, "height": 120, "position_m": [0.9, 0, 0.25], "hfov_rad": 0.5}],
        "randomize": {"scale": [1, 1]},
    }
    assert errors_of(tmp_path, task) == []
    monkeypatch.chdir(tmp_path.parent)  # relative paths start at the task file, wherever one is
    (read,) = ManipWorkflow({}, str(tmp_path / "tasks.yaml")).task_cfgs
    rng = np.random.default_rng(0)
    layout = randomize_layout(read, rng)
    assert layout.object("tea").size_m == pytest.approx(EDGES, abs=1e-6)
    demo = plan_episode(read, layout, rng)
    assert demo.instruction == "Lift the box of tea."
    assert demo.keypoints[0].position == pytest.approx((0, 0, 0))
    view = MujocoView(layout, "auto", ViewSettings(shadows=False))
    try:
        poses = {"front": demo.T_world_camera["front"][:1]}
        ((_, _, tile),) = render_stacked(view, demo.qpos[:1], [layout.cameras[0].camera], poses, 1)
    finally:
        view.close()
    assert tile.instance is not None
    rows, columns = np.nonzero(tile.instance == layout.object("tea").instance_id)
    assert len(rows) > 40
    seen = tile.rgb[rows, columns].astype(float)
    upper, lower = seen[rows < rows.mean() - 1].mean(axis=0), seen[rows > rows.mean() + 1].mean(axis=0)
    if suffix == ".stl":  # has no look of its own
        assert np.ptp(upper) < 40
    else:
        assert upper[0] > 2 * upper[2]
        assert lower[2] > 2 * lower[0]


# --- a user's own robot ---


@pytest.mark.mujoco
def test_a_robot_of_a_users_own_works_from_its_mjcf_files(tmp_path: Path) -> None:
    from tests.support.manip_worlds import require_simulation

    require_simulation()
    from nimbusd.stages.workflow.manip import ManipWorkflow
    from nimbusd.stages.workflow.sim import plan_episode, randomize_layout

    assert errors_of(tmp_path, own_robot(tmp_path)) == []
    (task,) = ManipWorkflow({}, str(tmp_path / "tasks.yaml")).task_cfgs
    rng = np.random.default_rng(0)
    assert plan_episode(task, randomize_layout(task, rng), rng).reached == ("cube lifted ",)


@pytest.mark.mujoco
@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("flange", "rigt_hand", "robot.xml has no body called 'rigt_hand'; did you mean 'right_hand'?"),
        ("joints", [*(f"joint{number}" for number in range(1, 7)), "joint8"], "has no joint called 'joint8'"),
        ("finger_bodies", ["leftfingr"], "gripper.xml has no body called 'leftfingr'; did you mean 'leftfinger'?"),
    ],
)
def test_a_name_that_a_robots_file_does_not_have_is_told_with_the_nearest(
    place: str, value: Any, sentence: str, tmp_path: Path
) -> None:
    from tests.support.manip_worlds import require_simulation

    require_simulation()
    from nimbusd.stages.errors import AssetError
    from nimbusd.stages.workflow.sim import parse_task, randomize_layout

    config = own_robot(tmp_path)
    arm = config["robots"]["mine"]["arms"]["arm"]
    (arm["gripper"] if place == "finger_bodies" else arm)[place] = value
    with pytest.raises(AssetError) as error:
        randomize_layout(parse_task(config, tmp_path), np.random.default_rng(0))
    assert sentence in str(error.value)
