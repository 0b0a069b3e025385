"""SAPIEN's adapter: its camera against closed form, and frames where a Vulkan device is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nimbusd.renderers.raycast import RayCaster
from nimbusd.renderers.sapien import SapienRenderer, SapienRendererArgs, camera_pose, depth_metres, instances
from nimbusd.renderers.sapien_scene import corner_arrays, import_sapien, pose_of, rigid, tinted
from nimbusd.stages.errors import BackendUnavailable, RenderError
from nimbusd.stages.types import Material
from tests.analytic_scenes import ODD_CAMERA, box, lit, look_at, moved, plane, project, shot, sphere

EYE = look_at((2.4, -2.9, 1.7), (0.2, 0.1, 0.5))


def package() -> Any:
    return pytest.importorskip("sapien", reason="SAPIEN is not installed (pip install 'nimbusd[sapien]')")


def test_sapiens_axes_are_turned_so_that_it_looks_where_our_camera_looks() -> None:
    T = camera_pose(EYE)
    assert T[:3, 0] == pytest.approx(-EYE[:3, 2])
    assert T[:3, 1] == pytest.approx(-EYE[:3, 0])
    assert T[:3, 2] == pytest.approx(EYE[:3, 1])


def test_sapiens_own_camera_projects_points_onto_the_pixels_of_ours() -> None:
    sapien = package()
    component = sapien.render.RenderCameraComponent(ODD_CAMERA.width, ODD_CAMERA.height)
    c = ODD_CAMERA
    component.set_perspective_parameters(0.01, 100.0, c.fx, c.fy, c.cx, c.cy, 0.0)
    entity = sapien.Entity()
    entity.add_component(component)
    entity.set_pose(pose_of(sapien, camera_pose(EYE)))
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (50, 3))
    homogeneous = np.c_[points, np.ones(50)]
    clip = homogeneous @ np.linalg.inv(component.get_model_matrix()).T @ component.get_projection_matrix().T
    u, v = ((clip[:, :2] / clip[:, 3:] + 1) / 2 * [c.width, c.height]).T  # Vulkan's v goes down
    assert np.abs(np.stack([u, v], 1) - project(c, EYE, points)).max() < 1e-2


def test_depth_is_read_along_the_optical_axis_and_ids_go_by_entity() -> None:
    ids = instances(np.array([[0, 5], [9, 2]], np.uint32), {5: 40000, 9: 7})
    assert ids.tolist() == [[0, 40000], [7, 0]]
    position = np.zeros((2, 2, 4), np.float32)
    position[..., 2] = -3.0
    assert depth_metres(position, ids).tolist() == [[0, 3], [3, 0]]


def test_scale_is_taken_out_of_poses_and_a_mirrored_mesh_still_faces_outwards() -> None:
    T = moved(1.0, 2.0, 3.0, yaw=0.3) @ np.diag([-2.0, 1.0, 0.5, 1.0])
    pose, scale = rigid("box", T)
    assert pose @ np.diag([*scale, 1.0]) == pytest.approx(T)
    obj = box(1, (1.0, 1.0, 1.0), T)
    corners, normals, _ = corner_arrays(obj, np.ones(len(obj.faces), bool), scale)
    assert ((corners * normals).sum(axis=1) > 0).all()
    with pytest.raises(RenderError, match="sheared"):
        rigid("box", np.eye(4) + np.eye(4, k=1))


def test_a_texture_is_tinted_in_linear_light_and_turned_upside_down() -> None:
    texture = np.zeros((2, 1, 3), np.uint8)
    texture[0] = 255
    made = tinted(Material("m", base_color=(1.0, 0.5, 0.0), texture=texture))
    assert made[:, 0].tolist() == [[0, 0, 0, 255], [255, 188, 0, 255]]


def test_without_package_or_device_the_way_out_is_named() -> None:
    try:
        import_sapien().render.RenderSystem()
    except BackendUnavailable:
        way_out = r"pip install 'nimbusd\[sapien\]'"
    except RuntimeError:
        way_out = "GPU with a Vulkan driver"
    else:
        pytest.skip("SAPIEN renders here")
    with pytest.raises(BackendUnavailable, match=way_out):
        SapienRenderer(SapienRendererArgs()).open("auto")


def test_frames_equal_ray_casting_away_from_edges() -> None:
    package()
    renderer = SapienRenderer(SapienRendererArgs())
    try:
        renderer.open("auto")
    except BackendUnavailable as error:
        pytest.skip(str(error))
    mirror = replace(box(2, (0.8, 0.6, 1.1), moved(-0.5, -0.2, 0.55)), name="crate")
    lid = replace(box(2, (0.8, 0.6, 0.1), moved(-0.5, -0.2, 1.3)), name="lid", part_of="crate")
    scene = lit("room", plane(1), mirror, lid, sphere(7, 0.5, moved(0.9, 0.6, 0.6)))
    poses = np.stack([moved(-0.5, -0.2, 0.55), moved(-0.3, -0.4, 0.55, yaw=0.4)])
    lifted = np.stack([moved(-0.5, -0.2, 1.3), moved(0.1, -0.4, 1.5, yaw=0.9)])
    try:
        renderer.load(scene)
        seq = shot(ODD_CAMERA, EYE, EYE, T_world_object={"crate": poses, "lid": lifted})
        frames = renderer.gen_obs(seq).frames["odd"]
    finally:
        renderer.close()
    assert frames.depth_m is not None
    assert frames.instance is not None
    caster = RayCaster(scene)
    caster.prepare(frozenset({"crate", "lid"}))
    for t in range(2):
        depth, ids = caster.cast(ODD_CAMERA, EYE, {"crate": poses[t], "lid": lifted[t]})
        same = frames.instance[t] == ids
        assert same.mean() > 0.99
        assert np.quantile(np.abs(frames.depth_m[t] - depth)[same], 0.99) < 2e-3
