"""The Isaac Sim adapter without Isaac Sim: its numbers, its USD stage, and how it drives replicator.

What needs USD is skipped where `pxr` is missing (the extra `usd`). Nothing here runs RTX.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.renderers.isaac import stage as isaac_stage
from nimbusd.renderers.isaac.geometry import light_intensity, mesh_parts, spacing, usd_camera
from nimbusd.renderers.isaac.read import depth_tile, instance_of_path, instance_tile, object_path, rgb_tile
from nimbusd.renderers.isaac.renderer import IsaacArgs, IsaacSimRenderer
from nimbusd.renderers.isaac.stage import StageScene
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F64, Camera, Light, Material, Observation, Scene, SceneObject, Sequence
from tests.support.isaac_stand_in import StandIn, cast, installed

needs_usd = pytest.mark.skipif(
    importlib.util.find_spec("pxr") is None, reason="USD is missing: pip install 'nimbusd[usd]' (usd-core)"
)

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32) / 2
SIDES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 5, 7], [1, 7, 3]], np.int32
)  # fmt: skip
CAMERA = Camera("front", 32, 24, 30.0, 30.0, 14.5, 13.25)


def at(x: float, y: float, z: float) -> F64:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def box(name: str, number: int, T: F64, *materials: Material, slots: object = 0, **more: Any) -> SceneObject:
    face_material = np.broadcast_to(np.asarray(slots, np.int32), len(SIDES)).copy()
    looks = materials or (Material("plain"),)
    return SceneObject(name, "box", number, CORNERS, SIDES, looks, face_material, T_world_object=T, **more)


def looking(x: float) -> F64:
    """A camera 4 m in front of the origin, turned about two axes so that no convention hides."""
    a, b = 0.15, 0.1
    about_y = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_z = np.array([[math.cos(b), -math.sin(b), 0], [math.sin(b), math.cos(b), 0], [0, 0, 1]])
    T = at(x + 0.4, 0.1, 4.0)
    T[:3, :3] = about_z @ about_y
    return T


def scene(*more: SceneObject) -> Scene:
    return Scene("boxes", (box("left", 7, at(-0.8, 0, 0)), box("right", 300, at(0.8, 0.2, -0.5)), *more))


def sequence(length: int = 5) -> Sequence:
    cameras = (
        CAMERA,
        replace(CAMERA, name="side", width=20, height=28, fx=25.0, fy=25.0, cx=10.0, cy=14.0),
        replace(CAMERA, name="tall", fy=36.0, cx=16.0, cy=12.0),
    )
    poses = {camera.name: np.stack([looking(0.1 * t) for t in range(length)]) for camera in cameras}
    moved = {"left": np.stack([at(-0.8, 0.15 * t, 0.1 * t) for t in range(length)])}
    return Sequence(30.0, "", cameras, poses, {}, {}, {}, moved)


def expected(shown: Scene, seq: Sequence, camera: Camera, t: int) -> tuple[F64, Any]:
    """Depth and instance ids by our own conventions: K, OpenGL axes, T_world_object."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([(u - camera.cx) / camera.fx, -(v - camera.cy) / camera.fy, -np.ones_like(u)], axis=-1)
    T = seq.T_world_camera[camera.name][t]
    placed = [
        replace(obj, T_world_object=seq.T_world_object.get(obj.name, np.tile(obj.T_world_object, (len(seq), 1, 1)))[t])
        for obj in shown.objects
        if obj.materials[0].opacity >= 0.5
    ]
    triangles = np.concatenate([obj.world_vertices()[obj.faces] for obj in placed])
    depth, which = cast(T[:3, 3], rays.reshape(-1, 3) @ T[:3, :3].T, triangles)
    owners = np.repeat([obj.instance_id for obj in placed], len(SIDES))
    ids = np.where(np.isfinite(depth), owners[which], 0)
    return np.where(np.isfinite(depth), depth, 0).reshape(u.shape), ids.reshape(u.shape)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return installed(monkeypatch)


def observed(shown: Scene, seq: Sequence, **args: object) -> Observation:
    renderer = IsaacSimRenderer(IsaacArgs.model_validate(args))
    renderer.open("cuda:0")
    try:
        renderer.load(shown)
        return renderer.gen_obs(seq)
    finally:
        renderer.close()


# --- Numbers ----------------------------------------------------------------------------------------------------------


def test_only_cameras_that_are_not_simple_need_a_lens() -> None:
    simple = replace(CAMERA, cx=16.0, cy=12.0)
    assert not usd_camera(simple).lens
    assert all(usd_camera(odd).lens for odd in (CAMERA, replace(simple, fy=33.0), replace(simple, cy=12.1)))


@needs_usd
def test_a_camera_off_the_centre_is_refused_where_there_is_no_lens_for_it(stand_in: StandIn) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isaac_stage, "has_lens", lambda: False)
        with pytest.raises(RenderError, match=r"'front' has its principal point off the centre.*cx = width / 2"):
            observed(scene(), sequence())


def test_lamps_keep_their_watts_and_suns_their_irradiance() -> None:
    lamp = Light("lamp", "area", np.eye(4), 100.0)
    assert light_intensity(lamp, 2.0) == pytest.approx(200 / math.pi)
    assert light_intensity(replace(lamp, kind="sun"), 2.0) == 200.0


def test_glass_is_a_part_of_its_own_and_loses_no_face() -> None:
    looks = (Material("wood"), Material("pane", opacity=0.1), Material("paint"))
    solid, glass = mesh_parts(box("window", 1, np.eye(4), *looks, slots=[0, 1, 2] * 4))
    assert (solid.glass, glass.glass) == (False, True)
    assert len(glass.indices) == 12
    assert {slot: len(faces) for slot, faces in solid.subsets.items()} == {0: 4, 2: 4}
    assert solid.subsets[2].tolist() == [1, 3, 5, 7]


def test_normals_of_flat_faces_point_out_and_smooth_ones_belong_to_points() -> None:
    (flat,) = mesh_parts(box("b", 1, np.eye(4)))
    middles = CORNERS[SIDES].mean(axis=1)
    assert (np.einsum("fk,fk->f", flat.normals[::3], middles) > 0.4).all()
    (smooth,) = mesh_parts(box("b", 1, np.eye(4), smooth=True))
    assert smooth.normals.shape == CORNERS.shape
    assert (np.einsum("fk,fk->f", smooth.normals, CORNERS) > 0.5).all()


def test_faces_of_vertices_that_are_not_there_are_refused() -> None:
    with pytest.raises(RenderError, match="'b' has faces"):
        mesh_parts(replace(box("b", 1, np.eye(4)), faces=SIDES + 1))


def test_no_camera_can_see_as_far_as_a_neighbour() -> None:
    shown, seq = scene(), sequence(40)
    found = spacing(shown, seq)
    eyes = np.concatenate([T[:, :3, 3] for T in seq.T_world_camera.values()])
    corners = np.concatenate([obj.world_vertices() for obj in shown.objects])
    nearest = min(
        np.linalg.norm(eye - (corner + np.array([found.stride_m, 0, 0]))) for eye in eyes for corner in corners
    )
    farthest = max(np.linalg.norm(eye - corner) for eye in eyes for corner in corners)
    assert farthest < found.far_m < nearest


def test_annotator_arrays_become_ours() -> None:
    assert rgb_tile(np.full((2, 3, 4), 9, np.uint8), 3, 2).shape == (2, 3, 3)
    raw = np.array([[1.5, np.inf, -np.inf], [np.nan, 50.0, 2.0]], np.float32)
    assert depth_tile(raw[..., None], 3, 2, 10.0).tolist() == [[1.5, 0, 0], [0, 0, 2.0]]
    table = {"0": "BACKGROUND", "1": "UNLABELLED", "5": object_path(3, 300) + "/solid", "9": "/World/light_0"}
    ids = instance_tile(np.array([[0, 5, 1], [9, 5, 5]], np.uint32), table, 3, 2)
    assert ids.tolist() == [[0, 300, 0], [0, 300, 300]]
    assert ids.dtype == np.uint16


def test_paths_of_parts_and_subsets_name_their_object() -> None:
    assert instance_of_path("/World/copy_12/obj_41/solid/slot_2") == 41
    assert instance_of_path("/World/copy_1/obj_41") == 41
    assert instance_of_path("/World/copy_1/obj_41b") == instance_of_path("/World/looks/material_0") == 0


def test_ids_that_the_table_does_not_name_and_pictures_of_another_size_are_errors() -> None:
    with pytest.raises(RenderError, match="instance 4"):
        instance_tile(np.full((2, 3), 4, np.uint32), {"0": "BACKGROUND"}, 3, 2)
    with pytest.raises(RenderError, match="3x2 pixels"):
        depth_tile(np.zeros((3, 2), np.float32), 3, 2, 1.0)


# --- The stage --------------------------------------------------------------------------------------------------------


@needs_usd
def test_the_stage_holds_meshes_materials_labels_and_lights_as_the_scene_says(tmp_path: Path) -> None:
    from pxr import Usd, UsdGeom, UsdLux, UsdSemantics, UsdShade

    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    uvs = np.random.default_rng(0).random((len(SIDES), 3, 2)).astype(np.float32)
    looks = (Material("print", (0.5, 0.6, 0.7), pixels, 0.3, 0.2), Material("glow", emission=2.0))
    shown = Scene(
        "s",
        (box("crate", 5, at(1, 2, 3), *looks, slots=[0, 1] * 6, uvs=uvs),),
        (Light("lamp", "area", at(0, 0, 2), 60.0, size_m=(0.4, 0.3)), Light("sun", "sun", np.eye(4), 3.0)),
        sky_strength=0.5,
    )
    path = tmp_path / "scene.usda"
    stage = Usd.Stage.CreateNew(str(path))
    StageScene(stage, shown, 2, tmp_path, 10.0)
    stage.Save()
    stage = Usd.Stage.Open(str(path))
    assert (UsdGeom.GetStageMetersPerUnit(stage), UsdGeom.GetStageUpAxis(stage)) == (1.0, "Z")
    mesh = UsdGeom.Mesh.Get(stage, "/World/copy_1/obj_5/solid")
    assert np.array_equal(mesh.GetPointsAttr().Get(), CORNERS)
    assert np.array_equal(mesh.GetFaceVertexIndicesAttr().Get(), SIDES.ravel())
    st = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st")
    assert st.GetInterpolation() == "faceVarying"
    assert np.array_equal(st.Get(), uvs.reshape(-1, 2))
    world = np.array(UsdGeom.XformCache().GetLocalToWorldTransform(mesh.GetPrim())).T
    assert np.allclose(world, at(1, 2, 3))
    labels = UsdSemantics.LabelsAPI(stage.GetPrimAtPath("/World/copy_1/obj_5"), "class").GetLabelsAttr().Get()
    assert list(labels) == ["box"]
    subsets = UsdShade.MaterialBindingAPI(mesh).GetMaterialBindSubsets()
    assert [list(subset.GetIndicesAttr().Get()) for subset in subsets] == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]
    bound = [UsdShade.MaterialBindingAPI(subset).ComputeBoundMaterial()[0] for subset in subsets]
    surface = bound[0].ComputeSurfaceSource()[0]
    assert surface.GetInput("roughness").Get() == pytest.approx(0.3)
    image = UsdShade.Shader(surface.GetInput("diffuseColor").GetConnectedSources()[0][0].source.GetPrim())
    assert np.allclose(image.GetInput("scale").Get(), [0.5, 0.6, 0.7, 1])
    from PIL import Image

    assert np.array_equal(np.asarray(Image.open(image.GetInput("file").Get().path)), pixels)
    assert np.allclose(bound[1].ComputeSurfaceSource()[0].GetInput("emissiveColor").Get(), [16, 16, 16])
    lamps = [prim.GetPath().pathString for prim in stage.Traverse() if prim.HasAPI(UsdLux.LightAPI)]
    assert lamps == ["/World/copy_0/light_0", "/World/sun_1", "/World/copy_1/light_0", "/World/sky"]
    assert UsdLux.RectLight.Get(stage, lamps[0]).GetIntensityAttr().Get() == pytest.approx(600 / math.pi)


# --- Driving replicator -----------------------------------------------------------------------------------------------


@needs_usd
@pytest.mark.parametrize("stack", [1, 3, 4])
def test_frames_of_the_usd_stage_equal_our_own_rays_whatever_the_stack(stand_in: StandIn, stack: int) -> None:
    shown, seq = scene(), sequence()
    found = observed(shown, seq, stack=stack)
    for camera in seq.cameras:
        frames = found.frames[camera.name]
        assert frames.depth_m is not None
        assert frames.instance is not None
        assert frames.semantic is not None
        for t in range(len(seq)):
            depth, ids = expected(shown, seq, camera, t)
            assert (frames.instance[t] == ids).mean() > 0.99
            both = frames.instance[t] == ids
            assert np.allclose(frames.depth_m[t][both], depth[both], atol=1e-4)
        assert set(np.unique(frames.instance)) == {0, 7, 300}
        assert ((frames.semantic > 0) == (frames.instance > 0)).all()
    # One comes back empty, one again once textures are there, then the passes.
    assert stand_in.steps == 2 + math.ceil(len(seq) / stack)
    assert stand_in.products == []


@needs_usd
def test_depth_and_ids_see_through_glass_and_rgb_does_not(stand_in: StandIn) -> None:
    pane = box("pane", 9, at(0.2, 0.1, 1.5), Material("glass", opacity=0.2))
    shown, seq = scene(pane), sequence(2)
    plain, seen = observed(scene(), seq, stack=2), observed(shown, seq, stack=2)
    for name, frames in seen.frames.items():
        assert frames.instance is not None
        assert 9 not in frames.instance
        unobstructed = plain.frames[name].instance
        assert unobstructed is not None
        assert np.array_equal(frames.instance, unobstructed)
        assert not np.array_equal(frames.rgb, plain.frames[name].rgb)


@needs_usd
@pytest.mark.parametrize("mode", ["RaytracedLighting", "RealTimePathTracing", "PathTracing"])
def test_settings_outlast_a_new_stage_so_that_glass_is_seen_through_in_every_mode(stand_in: StandIn, mode: str) -> None:
    pane, seq = box("pane", 9, at(0.2, 0.1, 1.5), Material("glass", opacity=0.6)), sequence(1)
    solid = replace(pane, materials=(Material("solid"),))
    clear, blocked = (observed(scene(shown), seq, mode=mode).frames["front"].rgb for shown in (pane, solid))
    assert stand_in.settings["/rtx/rendermode"] == mode
    assert stand_in.settings["/rtx/post/dlss/execMode"] == 2
    assert not np.array_equal(clear, blocked)


@needs_usd
def test_no_picture_is_read_before_textures_are_there(stand_in: StandIn) -> None:
    at_once, late = sequence(2), sequence(2)
    stand_in.streaming = 0
    expected_rgb = observed(scene(), at_once).frames["front"].rgb
    stand_in.steps, stand_in.streaming = 0, 50
    assert np.array_equal(observed(scene(), late).frames["front"].rgb, expected_rgb)
    stand_in.steps, stand_in.streaming = 0, 1_000_000
    with pytest.raises(RenderError, match="still loads textures after 3000 updates"):
        observed(scene(), late)


@needs_usd
def test_its_version_is_known_without_a_package_that_could_be_asked(stand_in: StandIn) -> None:
    assert observed(scene(), sequence(1)).renderer["isaacsim"] == "5.1.0"


@needs_usd
def test_what_a_sequence_moved_stands_where_it_was_in_the_next(stand_in: StandIn) -> None:
    shown, seq = scene(), sequence(4)
    renderer, beats = IsaacSimRenderer(IsaacArgs(stack=2)), []
    renderer.beat = lambda: beats.append(1)
    renderer.load(shown)
    still = replace(seq, T_world_object={})
    first, other, again = (renderer.gen_obs(seq).frames["front"].instance for seq in (still, seq, still))
    assert first is not None
    assert other is not None
    assert again is not None
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(beats) >= 3 * len(seq)
    renderer.close()
    assert stand_in.products == []


@needs_usd
def test_parts_of_one_instance_move_each_by_itself_and_have_one_id(stand_in: StandIn) -> None:
    lid = replace(box("lid", 7, at(-0.8, 0.6, 0.3)), part_of="left")
    shown, seq = scene(lid), sequence(3)
    lifted = np.stack([at(0.3 * t, 0.7, 0.3) for t in range(3)])
    seq = replace(seq, T_world_object={**seq.T_world_object, "lid": lifted})
    seen = observed(shown, seq, stack=2)
    for camera in seq.cameras:
        frames = seen.frames[camera.name].instance
        assert frames is not None
        for t in range(len(seq)):
            assert (frames[t] == expected(shown, seq, camera, t)[1]).mean() > 0.99
    assert [(label.instance_id, label.name) for label in seen.labels] == [(7, "left"), (300, "right")]


@needs_usd
def test_strangers_and_pictures_that_never_come_are_errors(stand_in: StandIn) -> None:
    away = np.tile(np.eye(4), (5, 1, 1))
    away[-1, 0, 3] = 1.0
    seq = replace(sequence(), T_world_object={"ghost": away})
    with pytest.raises(RenderError, match="'ghost'"):
        observed(scene(), seq)
    stand_in.empty_passes = 1000
    with pytest.raises(RenderError, match="empty pictures"):
        observed(scene(), sequence())
