"""Parts of the manipulation that need no simulator: layouts, rotations, timing, grasps, stacking, task files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.renderers.stacked import STRIDE_M, Shot, Tile, grid_offsets, render_stacked
from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.errors import AssetError, ComponentError
from nimbusd.stages.types import Camera
from nimbusd.stages.workflow.sim import (
    CameraLayout,
    Layout,
    LightLayout,
    ObjectLayout,
    Pose,
    RelationLayout,
    RobotLayout,
    SkillCall,
    Style,
    Surface,
    TableLayout,
    make_skill,
    parse_task,
    styled,
)
from nimbusd.stages.workflow.sim.layout.layout import Draws
from nimbusd.stages.workflow.sim.models.assets import PACKAGES, Package, _unpack, asset
from nimbusd.stages.workflow.sim.models.objects import LIBRARY
from nimbusd.stages.workflow.sim.models.robots import PANDA_GRIPPER, ROBOTS
from nimbusd.stages.workflow.sim.motion.timing import timed
from nimbusd.stages.workflow.sim.rotation import about, inverse, look_at, matrix_of, quaternion_of, rotation_vector
from nimbusd.stages.workflow.sim.skills.grasps import antipodal_grasps, read_grasps
from nimbusd.stages.workflow.sim.world.geometry import TriangleMesh, _box, _cylinder

angles = st.floats(-math.pi, math.pi)
vectors = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: math.hypot(*v) > 0.1)
DOWN = np.array([0.0, 0.0, -1.0])


def small_layout() -> Layout:
    camera = Camera("front", 64, 48, 60.0, 61.0, 31.0, 25.0)
    return Layout(
        task="stack",
        instruction="Stack.",
        robot=RobotLayout("franka", ROBOTS["franka"], Pose((0.0, 0.1, 0.7)), {"arm": (0.1, 0.2)}, {"arm": 0.08}),
        table=TableLayout((0.4, 0.0), (1.0, 1.0), 0.7),
        objects=(ObjectLayout("a", "cube", LIBRARY["cube"], "cube", 10, Pose((0.1, 1 / 3, 0.7)), (0.1, 0.1, 0.1)),),
        cameras=(CameraLayout(camera, Pose((1.0, 0.0, 1.0))), CameraLayout(camera, Pose(), "arm")),
        lights=(LightLayout("key", "sun", (0.0, 0.0, 2.0), (0.1, 0.0, -1.0), (0.5, 0.5, 0.5)),),
        goals=(RelationLayout("a", "on", "b"),),
        skills=(SkillCall("pick", {"object": "a", "lift_m": 0.1}, "pick it up"),),
        background={"floor": Surface(texture="planks", texture_seed=7)},
        draws=Draws({"relation": "left_of"}),
    )


def test_a_layout_survives_json_exactly() -> None:
    layout = small_layout()
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


def test_a_layout_of_another_version_or_with_a_foreign_field_is_refused() -> None:
    plain = small_layout().to_json()
    with pytest.raises(ValueError, match="version 2"):
        Layout.from_json({**plain, "version": 2})
    with pytest.raises(TypeError, match="colour"):
        Layout.from_json({**plain, "colour": "red"})


def test_an_unknown_object_is_named_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"'b'.*\['a'\]"):
        small_layout().object("b")


@given(vectors, angles)
def test_quaternions_and_matrices_are_inverse_to_each_other(axis: tuple[float, float, float], angle: float) -> None:
    rotation = about(axis, angle)
    assert np.allclose(matrix_of((0, 0, 0), quaternion_of(rotation))[:3, :3], rotation, atol=1e-9)
    vector = rotation_vector(rotation)
    if np.linalg.norm(vector) > 1e-6:
        assert np.allclose(about(vector, float(np.linalg.norm(vector))), rotation, atol=1e-7)


def test_a_camera_that_looks_at_a_point_sees_it_on_its_axis_with_the_world_upright() -> None:
    T = look_at((1.0, 2.0, 3.0), (0.0, 0.5, 1.0))
    x, y, z = inverse(T)[:3, :3] @ (np.array([0.0, 0.5, 1.0]) - T[:3, 3])
    assert (x, y) == pytest.approx((0, 0), abs=1e-12)
    assert z < 0
    assert T[2, 1] > 0  # the camera's y points upwards


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_timed_paths_keep_velocity_and_acceleration_and_rest_at_both_ends(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.uniform(-0.6, 0.6, (count, 3)), axis=0)
    velocity, acceleration, step = np.array([1.0, 1.5, 2.0]), np.array([4.0, 5.0, 6.0]), 1 / 240
    rows = timed(path, velocity, acceleration, step, grid=400)
    assert np.array_equal(rows[0], path[0])
    assert np.array_equal(rows[-1], path[-1])
    speed = np.diff(rows, axis=0) / step
    assert (np.abs(speed).max(axis=0) <= velocity * 1.02).all()
    push = np.diff(speed, axis=0) / step
    # The curve between grid points is only nearly the one that was limited.
    assert (np.abs(push).max(axis=0) <= acceleration * 1.15).all()
    assert (np.abs(speed[[0, -1]]) <= acceleration * step * 2).all()


def test_a_path_that_goes_nowhere_takes_no_time() -> None:
    point = np.array([[0.3, 0.4], [0.3, 0.4]])
    assert timed(point, np.ones(2), np.ones(2), 0.1).tolist() == [[0.3, 0.4]]


def test_grasps_of_a_box_close_on_opposite_faces_and_measure_its_width() -> None:
    mesh = _box(np.array([0.02, 0.03, 0.025]))
    grasps = antipodal_grasps(mesh, PANDA_GRIPPER, DOWN, np.random.default_rng(0))
    assert grasps
    for grasp in grasps:
        closing = grasp.T_object_tcp[:3, 1]
        axis = int(np.argmax(np.abs(closing)))
        assert abs(closing[axis]) > 0.999
        assert grasp.width_m == pytest.approx([0.04, 0.06, 0.05][axis], abs=1e-6)
        assert grasp.T_object_tcp[:3, 2] @ DOWN >= 0.7
        assert np.linalg.det(grasp.T_object_tcp[:3, :3]) == pytest.approx(1)
    assert len({int(np.argmax(np.abs(g.T_object_tcp[:3, 1]))) for g in grasps}) == 2  # both horizontal pairs of faces


def test_both_yaws_of_every_grasp_are_offered() -> None:
    grasps = antipodal_grasps(_cylinder(0.02, 0.04), PANDA_GRIPPER, DOWN, np.random.default_rng(1))
    first = grasps[0].T_object_tcp[:3, 1]
    assert any(np.allclose(g.T_object_tcp[:3, 1], -first, atol=1e-9) for g in grasps[1:])


def test_a_thing_wider_than_the_gripper_has_no_grasp() -> None:
    assert antipodal_grasps(_box(np.array([0.05, 0.05, 0.05])), PANDA_GRIPPER, DOWN, np.random.default_rng(0)) == []


def test_grasps_are_read_from_json_and_npz_best_first(tmp_path: Path) -> None:
    poses, widths, scores = np.stack([np.eye(4), about_z()]), np.array([0.02, 0.03]), np.array([0.1, 0.9])
    np.savez(tmp_path / "g.npz", T_object_tcp=poses, width_m=widths, score=scores)
    entries = [
        {"T_object_tcp": T.tolist(), "width_m": float(w), "score": float(s)}
        for T, w, s in zip(poses, widths, scores, strict=True)
    ]
    (tmp_path / "g.json").write_text(json.dumps({"grasps": entries}))
    for name in ("g.npz", "g.json"):
        grasps = read_grasps(str(tmp_path / name))
        assert [grasp.width_m for grasp in grasps] == [0.03, 0.02]
        assert np.array_equal(grasps[0].T_object_tcp, poses[1])


def about_z() -> Any:
    T = np.eye(4)
    T[:3, :3] = about((0, 0, 1), 0.5)
    return T


@pytest.mark.parametrize("content", ["[{}]", "not json", '[{"T_object_tcp": [[1]], "width_m": 0.1}]'])
def test_a_bad_grasp_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(AssetError, match=r"bad\.json"):
        read_grasps(str(tmp_path / "bad.json"))


class CountingBackend:
    """Draws the state's first number as the depth of one pixel."""

    def __init__(self) -> None:
        self.passes: list[list[Shot]] = []

    def render(self, shots: Sequence[Shot]) -> list[Tile]:
        self.passes.append(list(shots))
        return [
            Tile(
                np.zeros((1, 1, 3), np.uint8),
                np.full((1, 1), shot.qpos[0] + shot.T_world_camera[0, 3], np.float32),
                None,
            )
            for shot in shots
        ]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 3))
def test_stacked_rendering_takes_ceil_T_over_K_passes_and_keeps_the_order(
    steps: int, copies: int, cameras: int
) -> None:
    backend = CountingBackend()
    names = [f"c{i}" for i in range(cameras)]
    poses = {name: np.tile(np.eye(4), (steps, 1, 1)) for name in names}
    for index, name in enumerate(names):
        poses[name][:, 0, 3] = 1000 * index + np.arange(steps) * 0.25
    qpos = np.arange(steps, dtype=float)[:, None]
    lenses = [Camera(name, 1, 1, 1, 1, 0.5, 0.5) for name in names]
    tiles = list(render_stacked(backend, qpos, lenses, poses, copies))
    assert len(backend.passes) == math.ceil(steps / copies)
    assert [(row, name) for row, name, _ in tiles] == [(row, name) for row in range(steps) for name in names]
    for row, name, tile in tiles:
        assert tile.depth_m is not None
        assert tile.depth_m[0, 0] == pytest.approx(row + poses[name][row, 0, 3])
    for shots in backend.passes:
        places = {shot.copy: shot.offset_m for shot in shots}
        assert len(set(places.values())) == len(places)


@given(st.integers(1, 64))
def test_copies_stand_apart(copies: int) -> None:
    places = np.array(grid_offsets(copies))
    assert places[0].tolist() == [0, 0, 0]
    gaps = np.abs(places[:, None] - places[None]).max(axis=2) + np.eye(copies) * STRIDE_M
    assert gaps.min() >= STRIDE_M


def test_no_copies_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one copy"):
        next(render_stacked(CountingBackend(), np.zeros((1, 1)), [], {}, 0))


def test_another_style_changes_looks_and_no_geometry() -> None:
    layout = small_layout()
    other = styled(layout, Style(seed=3, materials=True, lights=True, view_m=0.1))
    assert other.table.surface != layout.table.surface
    assert other.lights != layout.lights
    assert other.cameras[0].pose != layout.cameras[0].pose
    assert other.cameras[1] == layout.cameras[1]  # a mounted camera stays where it is screwed on
    assert [(o.pose, o.size_m, o.mass_kg, o.friction) for o in other.objects] == [
        (o.pose, o.size_m, o.mass_kg, o.friction) for o in layout.objects
    ]
    assert other.robot == layout.robot
    assert styled(layout, Style()) == layout
    assert styled(layout, Style(seed=3, materials=True, lights=True, view_m=0.1)) == other


TASK: dict[str, Any] = {
    "name": "t",
    "slots": [{"name": "thing", "models": ["cube"]}],
    "skills": [{"skill": "pick", "with": {"object": "$thing"}}],
    "instructions": ["Take the {thing}."],
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"robot": "frank"}, "did you mean 'franka'"),
        ({"slots": [{"name": "thing", "models": ["cubs"]}]}, "did you mean 'cube'"),
        ({"skills": [{"skill": "pik"}]}, "did you mean 'pick'"),
        ({"skills": [{"skill": "pick", "with": {"object": "$thin"}}]}, "did you mean 'thing'"),
        ({"goals": [{"subject": "$thing", "relation": "left", "reference": ""}]}, "did you mean 'left_of'"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"randomize": {"tables": ["woods"]}}, "did you mean 'wood'"),
        ({"sort": {"slot": "thing", "into": {"bin": ["can"]}}}, "no place for cube"),
    ],
)
def test_mistakes_in_a_task_are_sentences_with_the_nearest_right_word(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentsError, match=sentence.replace("(", r"\(")):
        parse_task({**TASK, **change})


def test_a_good_task_is_read() -> None:
    assert parse_task(TASK).robot_model().noun == "Franka Panda"


def test_an_unknown_skill_and_a_bad_argument_are_named() -> None:
    with pytest.raises(ComponentError, match="did you mean 'rotate'"):
        make_skill("rotat", {})
    with pytest.raises(ArgumentsError, match="unknown key 'objekt'"):
        make_skill("pick", {"objekt": "a"})


def test_missing_assets_say_how_to_fetch_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIMBUSD_ASSETS", str(tmp_path))
    with pytest.raises(AssetError, match="nimbusctl assets fetch"):
        asset("robosuite", "robots/panda/robot.xml")
    (tmp_path / PACKAGES["robosuite"].folder).mkdir()
    with pytest.raises(AssetError, match=r"robot\.xml is missing"):
        asset("robosuite", "robots/panda/robot.xml")


def test_a_wheel_is_unpacked_with_its_licence_and_never_outside_its_folder(tmp_path: Path) -> None:
    import zipfile

    package = Package("p", "1", "", "MIT", "p/assets/", ("p/assets/a/",), ("p.dist-info/LICENSE",))
    with zipfile.ZipFile(tmp_path / "good.whl", "w") as wheel:
        wheel.writestr("p/assets/a/x.obj", "x")
        wheel.writestr("p/assets/b/y.obj", "y")
        wheel.writestr("p.dist-info/LICENSE", "MIT")
    _unpack(package, tmp_path / "good.whl", tmp_path / "out")
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found == ["LICENSE", "a/x.obj"]
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as wheel:
        wheel.writestr("p/assets/a/../../../evil", "x")
    with pytest.raises(AssetError, match="outside"):
        _unpack(package, tmp_path / "bad.whl", tmp_path / "out")


def test_meshes_made_by_code_are_closed_and_face_outwards() -> None:
    for mesh, volume in ((_box(np.array([1.0, 2.0, 3.0])), 48.0), (_cylinder(1.0, 0.5), 16 * math.sin(math.pi / 16))):
        assert volume_of(mesh) == pytest.approx(volume)


def volume_of(mesh: TriangleMesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)
