"""Pictures of recorded states by MuJoCo: exact depth, masks that sit on the objects, stacking, styles, errors."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial import ConvexHull

from nimbusd.renderers.mujoco.renderer import MujocoRenderer, MujocoRendererArgs
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F64, SIMULATION_QPOS, Camera, Feature, Observation, Scene, Sequence
from nimbusd.stages.workflow.sim import Layout, Style, camera_poses, label_rows, scene_of, styled
from nimbusd.stages.workflow.sim.rotation import inverse, transform
from nimbusd.stages.workflow.sim.world.geometry import object_mesh
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.manip_worlds import planned, require_simulation

require_simulation()
pytestmark = pytest.mark.mujoco


def trace(layout: Layout, rows: list[int], camera: Camera | None = None, T_world_camera: F64 | None = None) -> Sequence:
    """Rows of the planned episode, from its own cameras or from one that stands still."""
    demo = planned()[2]
    if camera is not None and T_world_camera is not None:
        cameras: tuple[Camera, ...] = (camera,)
        poses = {camera.name: np.tile(T_world_camera, (len(rows), 1, 1))}
    else:
        cameras = tuple(entry.camera for entry in layout.cameras)
        poses = camera_poses(layout, demo.qpos[rows])
    return Sequence(30.0, "", cameras, poses, {}, {SIMULATION_QPOS: Feature(demo.qpos[rows])}, {})


def observed(seq: Sequence, scene: Scene, **args: object) -> Observation:
    renderer = MujocoRenderer(MujocoRendererArgs.model_validate(args))
    renderer.open("cpu")
    try:
        renderer.load(scene)
        return renderer.gen_obs(seq)
    finally:
        renderer.close()


def projected(points: F64, camera: Camera, T_world_camera: F64) -> F64:
    p = points @ inverse(T_world_camera)[:3, :3].T + inverse(T_world_camera)[:3, 3]
    return np.stack([camera.cx + camera.fx * p[:, 0] / -p[:, 2], camera.cy - camera.fy * p[:, 1] / -p[:, 2]], axis=1)


def test_depth_is_metres_along_the_axis_and_masks_fill_the_projected_outline_also_off_centre() -> None:
    _, layout, demo = planned()
    cube, height = layout.object("cube"), layout.table.height_m
    x, y, _ = demo.T_world_object["cube"][0][:3, 3]
    # Straight down, beside the cube, with another focal length in v and the principal point off the centre.
    camera = Camera("above", 200, 150, 260.0, 250.0, 83.0, 91.0)
    T = transform(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), (x + 0.03, y - 0.02, height + 0.5))
    obs = observed(trace(layout, [0], camera, T), scene_of(layout))
    frame = obs.frames["above"]
    assert frame.instance is not None
    assert frame.depth_m is not None
    mask = frame.instance[0] == cube.instance_id
    table = frame.instance[0] == next(label.instance_id for label in obs.labels if label.name == "table")
    assert frame.depth_m[0][table] == pytest.approx(0.5, abs=2e-4)
    top = height + cube.size_m[2]
    assert np.median(frame.depth_m[0][mask]) == pytest.approx(height + 0.5 - top, abs=1e-3)
    corners = object_mesh(build_world(layout), "cube").moved(demo.T_world_object["cube"][0]).vertices
    uv = projected(corners, camera, T)
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    # A convex outline: a pixel belongs to it if its centre is inside every edge. Half a pixel of shift would make
    # about 25 pixels differ.
    edges = ConvexHull(uv).equations
    expected = (edges[:, :2] @ np.stack([u.ravel(), v.ravel()]) + edges[:, 2:] < 0).all(axis=0).reshape(mask.shape)
    assert expected.sum() > 400
    assert (expected != mask).sum() <= 6


def test_every_id_in_the_frames_has_a_label_and_semantics_follow_instances() -> None:
    _, layout, demo = planned()
    obs = observed(trace(layout, [0, len(demo) - 1]), scene_of(layout))
    semantic = {label.instance_id: label.semantic_id for label in obs.labels}
    for frame in obs.frames.values():
        assert frame.instance is not None
        assert frame.semantic is not None
        for number in np.unique(frame.instance):
            assert number == 0 or number in semantic
            assert set(np.unique(frame.semantic[frame.instance == number])) == {semantic.get(int(number), 0)}
    names = {label.name for label in obs.labels}
    assert {"table", "floor", "wall", "robot/arm", "cube", "area"} <= names
    assert re.fullmatch(r"\d\.\d.*, \S.*", obs.renderer["opengl"]), (
        "the driver is on record, since it decides over pixels"
    )


def test_what_the_wrist_camera_sees_moves_with_the_hand_and_holds_the_cube() -> None:
    _, layout, demo = planned()
    lifted = demo.phases[3].stop - 1
    obs = observed(trace(layout, [0, lifted]), scene_of(layout))
    assert not np.array_equal(obs.frames["wrist"].rgb[0], obs.frames["wrist"].rgb[1])
    instance = obs.frames["wrist"].instance
    assert instance is not None
    assert (instance[1] == layout.object("cube").instance_id).mean() > 0.01


def test_another_style_of_one_trace_has_the_same_geometry_and_other_pixels() -> None:
    _, layout, _ = planned()
    seq, scene = trace(layout, [0, 40]), scene_of(layout)
    plain = observed(seq, scene)
    other = observed(seq, scene, style={"seed": 5, "materials": True, "lights": True})
    for name, frame in plain.frames.items():
        assert np.array_equal(frame.instance, other.frames[name].instance)  # type: ignore[arg-type]
        assert np.array_equal(frame.depth_m, other.frames[name].depth_m)  # type: ignore[arg-type]
        assert np.abs(frame.rgb.astype(int) - other.frames[name].rgb).mean() > 3


def test_another_view_of_one_trace_moves_fixed_cameras_only() -> None:
    _, layout, demo = planned()
    other = styled(layout, Style(seed=2, view_m=0.1, view_rad=0.1))
    before, after = camera_poses(layout, demo.qpos[:3]), camera_poses(other, demo.qpos[:3])
    assert np.array_equal(before["wrist"], after["wrist"])
    assert not np.allclose(before["front"], after["front"])
    assert before["wrist"] == pytest.approx(demo.T_world_camera["wrist"][:3])
    with pytest.raises(ValidationError, match="belong to the workflow"):
        MujocoRendererArgs(style=Style(view_m=0.1))


def test_the_scene_of_a_layout_names_what_the_frames_show_and_stands_where_the_simulation_starts() -> None:
    _, layout, _ = planned()
    scene = scene_of(layout)
    cube = next(obj for obj in scene.objects if obj.name == "cube")
    assert cube.movable
    assert np.ptp(cube.vertices, axis=0) == pytest.approx(layout.object("cube").size_m, abs=1e-6)
    assert cube.T_world_object == pytest.approx(layout.object("cube").pose.matrix())
    assert Layout.from_json(scene.provenance["layout"]) == layout
    assert {obj.instance_name for obj in scene.objects} == {label.name for label in label_rows(layout)}


def test_strangers_are_refused_in_sentences() -> None:
    _, layout, _ = planned()
    scene, seq = scene_of(layout), trace(layout, [0])
    renderer = MujocoRenderer(MujocoRendererArgs())
    with pytest.raises(RenderError, match="no scene is loaded"):
        renderer.gen_obs(seq)
    with pytest.raises(RenderError, match="no layout in its provenance"):
        renderer.load(replace(scene, provenance={}))
    renderer.load(scene)
    with pytest.raises(RenderError, match=r"simulation\.qpos"):
        renderer.gen_obs(replace(seq, states={}))
    with pytest.raises(RenderError, match="recorded in another layout"):
        renderer.gen_obs(replace(seq, states={SIMULATION_QPOS: Feature(np.zeros((1, 3)))}))
    renderer.close()
