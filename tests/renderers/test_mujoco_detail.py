"""Meshes with fewer triangles look the same, and what is simulated keeps its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nimbusd.renderers.mujoco.detail import simplify_visible
from nimbusd.renderers.mujoco.view import MujocoView, ViewSettings
from nimbusd.renderers.stacked import render_stacked
from nimbusd.stages.types import F64, I32
from nimbusd.stages.workflow.sim import camera_poses
from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.manip_worlds import planned, require_simulation

require_simulation()
pytestmark = pytest.mark.mujoco


def sphere(level: int) -> tuple[F64, I32]:
    """A sphere of 10 cm from an icosahedron whose triangles are cut in four `level` times."""
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=level, radius=0.1)
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int32)


def compiled(texture: bool) -> Any:
    import mujoco

    spec = mujoco.MjSpec()
    vertices, faces = sphere(4)
    spec.add_mesh(name="ball", uservert=vertices.ravel(), userface=faces.ravel())
    if texture:
        spec.add_texture(
            name="dots", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
            width=8, height=8, rgb1=[1, 0, 0], rgb2=[0, 1, 0],
        )  # fmt: skip
    material = spec.add_material(name="paint")
    if texture:
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "dots"
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname="ball",
        material="paint",
        group=VISIBLE_GROUP,
        contype=0,
        conaffinity=0,
    )
    return spec.compile()


def test_a_simplified_sphere_is_still_that_sphere_with_its_normals() -> None:
    model = compiled(texture=False)
    before = int(model.mesh_facenum[0])
    saved = simplify_visible(model, VISIBLE_GROUP, 0.001)
    faces = model.mesh_face[: model.mesh_facenum[0]]
    assert saved == before - len(faces) > before / 2
    corners = model.mesh_vert[faces].astype(np.float64)
    assert np.abs(np.linalg.norm(corners, axis=-1) - 0.1).max() < 0.002
    assert np.linalg.norm(corners.mean(axis=1), axis=-1).min() > 0.1 - 0.003
    normals = model.mesh_normal[model.mesh_facenormal[: len(faces)]]
    outwards = corners / np.linalg.norm(corners, axis=-1, keepdims=True)
    assert np.einsum("ijk,ijk->ij", normals, outwards).min() > 0.98


def test_without_a_tolerance_with_a_texture_or_in_another_group_nothing_changes() -> None:
    assert simplify_visible(compiled(texture=False), VISIBLE_GROUP, 0.0) == 0
    assert simplify_visible(compiled(texture=True), VISIBLE_GROUP, 0.001) == 0
    assert simplify_visible(compiled(texture=False), VISIBLE_GROUP + 1, 0.001) == 0


def test_no_tolerance_is_met_by_a_mesh_that_would_leave_it() -> None:
    model = compiled(texture=False)
    assert simplify_visible(model, VISIBLE_GROUP, 1e-6) == 0


def test_a_robot_looks_the_same_with_a_third_of_its_triangles_and_the_simulated_one_keeps_all() -> None:
    _, layout, demo = planned()
    row = len(demo.qpos) // 2
    cameras = [replace(entry.camera, name=entry.name) for entry in layout.cameras]
    poses = camera_poses(layout, demo.qpos[[row]])
    triangles = build_world(layout).model.mesh_facenum.copy()
    pictures = []
    for tolerance_m in (0.0, 0.001):
        view = MujocoView(layout, "cpu", ViewSettings(tolerance_m=tolerance_m))
        try:
            pictures.append([tile for _, _, tile in render_stacked(view, demo.qpos[[row]], cameras, poses, 1)])
            shown = view.world.model
        finally:
            view.close()
    assert shown.mesh_facenum.sum() < triangles.sum() / 2
    np.testing.assert_array_equal(build_world(layout).model.mesh_facenum, triangles)
    for fine, coarse in zip(*pictures, strict=True):
        error = np.mean((fine.rgb.astype(np.float64) - coarse.rgb) ** 2)
        assert 10 * np.log10(255**2 / max(error, 1e-9)) > 35
        assert fine.instance is not None
        assert coarse.instance is not None
        same = fine.instance == coarse.instance
        assert same.mean() > 0.998
        assert fine.depth_m is not None
        assert coarse.depth_m is not None
        assert np.quantile(np.abs(fine.depth_m - coarse.depth_m)[same], 0.99) < 0.001
