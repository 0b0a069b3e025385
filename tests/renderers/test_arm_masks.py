"""Arms, doors and things are where MuJoCo has them, and look alike, in renderers that only move objects."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from nimbusd.renderers.mujoco.view import MujocoView, ViewSettings
from nimbusd.renderers.raycast import pixel_rays
from nimbusd.renderers.stacked import Shot
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F64, U8, U16, Camera, Scene
from nimbusd.stages.workflow.recorded import replay_sequence
from nimbusd.stages.workflow.sim import Layout, camera_poses, randomize_layout, scene_of
from nimbusd.stages.workflow.sim.layout.layout import LightLayout
from nimbusd.stages.workflow.sim.rotation import look_at
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.arm_frames import overlaps, pairs
from tests.support.manip_worlds import require_simulation, task_of

require_simulation()
pytest.importorskip("embreex", reason="needs the blender extra")
pytestmark = pytest.mark.mujoco

FEWEST = 100
"""Pixels: of what is smaller, a pixel at its edge counts too much."""

FINER = 3
"""Looked-up colours are samples, so that so many times as many are taken along each side."""


@cache
def kitchen() -> tuple[Layout, F64]:
    """All kinds of joints and of looks (pictures, painted textures, colours), in states that open all of it."""
    models = ["drawer", "door", "button", "knob", "cereal", "bread", "can", "cylinder"]
    slots = [{"name": name, "models": [name], "x_m": [0.3, 0.9], "y_m": [-0.7, 0.7]} for name in models]
    task = task_of(
        [{"skill": "press", "object": "$button"}],
        slots,
        table={"size_m": [1.4, 1.8]},
        cameras=[
            {"name": "front", "width": 200, "height": 150, "position_m": [1.6, 0.0, 0.9], "target_m": [0.5, 0.0, 0.0]},
            {"name": "wrist", "width": 120, "height": 120, "mount": "*", "position_m": [0.07, 0, 0.02],
             "target_m": [0.02, 0, 0.14]},
        ],
    )  # fmt: skip
    layout = randomize_layout(task, np.random.default_rng(4))
    world = build_world(layout)
    moved = world.start.copy()
    moved[world.arm("").q] += [0.4, 0.2, -0.3, 0.3, 0.2, -0.2, 0.5]
    for name, value in (("drawer", 0.1), ("door", 1.2), ("button", 0.01), ("knob", 0.9)):
        moved[world.objects[name].joint_q] = value
    moved[world.objects["bread"].free_q + 2] += 0.1
    return layout, np.stack([world.start, moved])


def test_masks_and_depth_of_rays_and_of_mujoco_agree_for_all_that_is_seen() -> None:
    layout, qpos = kitchen()
    seen: set[int] = set()
    for pair in pairs(layout, qpos):
        assert pair.drawn.depth_m is not None
        both = (pair.drawn.instance == pair.instance) & (pair.instance > 0)
        assert np.quantile(np.abs(pair.drawn.depth_m - pair.depth_m)[both], 0.99) < 2e-3
        for number, (overlap, pixels) in overlaps(pair, FEWEST).items():
            assert overlap >= 0.98, (number, pair.camera.name, pair.row, pixels)
            seen.add(number)
    wanted = {obj.instance_id for obj in scene_of(layout).objects if obj.instance_name in ("drawer", "door", "knob")}
    assert wanted <= seen


def test_parts_that_move_change_the_masks() -> None:
    layout, qpos = kitchen()
    first, last = (pair for pair in pairs(layout, qpos) if pair.camera.name == "front")
    for name in ("drawer", "door", "robot/arm", "bread"):
        number = next(obj.instance_id for obj in scene_of(layout).objects if obj.instance_name == name)
        assert ((first.instance == number) != (last.instance == number)).sum() > 20, name


def test_colours_and_textures_lie_where_mujoco_puts_them() -> None:
    """In even light MuJoCo shows colour times texture, which can be looked up where rays hit the scene."""
    layout, qpos = kitchen()
    even = (LightLayout("even", "sun", (0, 0, 2), (0, 0, -1), (0, 0, 0), ambient=(1, 1, 1), shadow=False),)
    layout = replace(layout, lights=even)
    scene, view = scene_of(layout), MujocoView(layout, "cpu", ViewSettings(shadows=False, tolerance_m=0.0))
    camera = Camera("near", 160, 120, 200.0, 200.0, 80.0, 60.0)
    try:
        for name in ("cereal", "bread", "can", "cylinder", "table", "floor", "wall", "drawer", "knob", "robot/arm"):
            here = next(obj for obj in scene.objects if obj.name.startswith(name))
            low, high = (edge(here.world_vertices(), axis=0) for edge in (np.min, np.max))
            middle = (low + high) / 2 if name != "table" else np.array([*(low + high)[:2] / 2, high[2]])
            away = np.array([0.35, 0.2, 0.3]) if name not in ("floor", "wall") else np.array([-0.8, 0.6, 1.2])
            target = middle if name != "wall" else np.array([3.0, 0.2, 1.2])
            T = look_at(target + (away if name != "wall" else [-2.0, 0.4, 0.3]), target)
            drawn = view.render([Shot(0, 0, (0.0, 0.0, 0.0), qpos[0], camera, T)])[0]
            wanted, seen = looked_up(scene, finer(camera), T)
            mine = seen == here.instance_id
            # Single texels are blurred by one and not by the other: compare means of 4x4 pixels.
            whole = blocks(mine, 4 * FINER).all(axis=(1, 3))[..., 0]
            assert whole.sum() > 10, name
            ours, theirs = (
                blocks(image, size).mean(axis=(1, 3))[whole] for image, size in ((wanted, 4 * FINER), (drawn.rgb, 4))
            )
            assert np.abs(ours - theirs).mean() < 5, name
    finally:
        view.close()


def finer(camera: Camera) -> Camera:
    """The same camera with FINER times the pixels along each side."""
    numbers = (camera.fx, camera.fy, camera.cx, camera.cy)
    return Camera(camera.name, camera.width * FINER, camera.height * FINER, *(FINER * number for number in numbers))


def blocks(image: Any, size: int) -> Any:
    """(H, W, …) as (H / size, size, W / size, size, channels), in floats or booleans."""
    values = image if image.dtype == np.bool_ else image.astype(np.float64)
    return values.reshape(image.shape[0] // size, size, image.shape[1] // size, size, -1)


def looked_up(scene: Scene, camera: Camera, T_world_camera: F64) -> tuple[U8, U16]:
    """(H, W, 3) sRGB colours of the surfaces that pixels see, without light, and (H, W) instance ids."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    corners = np.concatenate([obj.world_vertices()[obj.faces] for obj in scene.objects]).astype(np.float32)
    embree = EmbreeScene(robust=True)
    TriangleMesh(embree, corners.reshape(-1, 3), np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3))
    rays = (pixel_rays(camera) @ T_world_camera[:3, :3].T).astype(np.float32)
    hits = embree.run(np.broadcast_to(T_world_camera[:3, 3].astype(np.float32), rays.shape).copy(), rays, output=1)
    rgb, ids = np.zeros((len(rays), 3)), np.zeros(len(rays), np.uint16)
    first = 0
    for obj in scene.objects:
        mine = np.flatnonzero((hits["primID"] >= first) & (hits["primID"] < first + len(obj.faces)))
        face = hits["primID"][mine] - first
        first += len(obj.faces)
        ids[mine] = obj.instance_id
        for slot, material in enumerate(obj.materials):
            chosen = obj.face_material[face] == slot
            tint = srgb(np.asarray(material.base_color))
            rgb[mine[chosen]] = 255 * tint
            if material.texture is None:
                continue
            assert obj.uvs is not None
            u, v = hits["u"][mine[chosen]], hits["v"][mine[chosen]]
            uv = np.einsum("kn,nkc->nc", np.stack([1 - u - v, u, v]), obj.uvs[face[chosen]]) % 1.0
            height, width = material.texture.shape[:2]
            row, column = ((1 - uv[:, 1]) * height).astype(int) % height, (uv[:, 0] * width).astype(int) % width
            rgb[mine[chosen]] = material.texture[row, column] * tint
    shape = (camera.height, camera.width)
    return np.rint(rgb).astype(np.uint8).reshape(*shape, 3), ids.reshape(shape)


def srgb(linear: F64) -> F64:
    c = np.asarray(linear, np.float64)
    return np.asarray(np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055))


def test_a_replayed_sequence_says_where_every_part_is() -> None:
    layout, qpos = kitchen()
    seq, names = replay_sequence(layout, camera_poses(layout, qpos), qpos), {o.name for o in scene_of(layout).objects}
    assert set(seq.T_world_object) <= names
    assert {"door/door", "robot/arm/link6", "bread"} <= set(seq.T_world_object)


def test_blender_shows_the_motion_and_tells_where_states_move_without_poses(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("bpy", reason="needs the blender extra")
    from nimbusd.renderers.blender.renderer import BlenderArgs, BlenderProcRenderer

    layout, qpos = kitchen()
    small = replace(
        layout, cameras=tuple(replace(c, camera=Camera(c.name, 48, 36, 40, 40, 24, 18)) for c in layout.cameras)
    )
    seq = replay_sequence(small, camera_poses(small, qpos), qpos)
    renderer = BlenderProcRenderer(BlenderArgs(preset="draft"))
    request.addfinalizer(renderer.close)
    renderer.load(scene_of(small))
    seen = renderer.gen_obs(seq).frames["front"]
    assert seen.instance is not None
    assert not np.array_equal(seen.instance[0], seen.instance[1])
    assert np.abs(seen.rgb[0].astype(int) - seen.rgb[1]).max() > 40
    with pytest.raises(RenderError, match=r"BlenderProcRenderer cannot show what moves: the state 'simulation\.qpos'"):
        renderer.gen_obs(replace(seq, T_world_object={}))
