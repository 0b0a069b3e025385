"""Pixels of the Blender renderer against closed-form geometry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from nimbusd.renderers.blender.renderer import BlenderArgs, BlenderProcRenderer
from nimbusd.renderers.blender.scene import glow_is_faint
from nimbusd.renderers.raycast import pixel_rays
from nimbusd.stages.types import F64, BoolArray, Camera, CameraFrames, Light, Material, Scene, Sequence
from tests.support.analytic_scenes import (
    ODD_CAMERA,
    WHITE_LAMP,
    box,
    box_corners,
    box_depth,
    lit,
    look_at,
    moved,
    plane,
    plane_depth,
    project,
    shot,
    sphere,
    sphere_depth,
)

pytestmark = pytest.mark.blender

CENTRED_CAMERA = Camera("centred", width=96, height=128, fx=110.0, fy=110.0, cx=48.0, cy=64.0)
EYE = look_at((2.4, -2.9, 1.7), (0.2, 0.1, 0.5))
BOX_SIZE, BOX_POSE = (0.8, 0.6, 1.1), moved(-0.5, -0.2, 0.55, yaw=0.4)
BALL_RADIUS, BALL_POSE = 0.5, moved(0.9, 0.6, 0.6)


@pytest.fixture
def renderer() -> Iterator[BlenderProcRenderer]:
    made = BlenderProcRenderer(
        BlenderArgs(samples=1, denoiser="none", bounces=0, view_transform="Standard", exposure=0.0)
    )
    made.open("cpu")
    yield made
    made.close()


def render(renderer: BlenderProcRenderer, scene: Scene, seq: Sequence) -> CameraFrames:
    renderer.load(scene)
    return renderer.gen_obs(seq).frames[seq.cameras[0].name]


def room() -> Scene:
    return lit("room", plane(1), box(2, BOX_SIZE, BOX_POSE), sphere(7, BALL_RADIUS, BALL_POSE))


def truth(camera: Camera, T_world_camera: F64) -> tuple[F64, npt.NDArray[np.int64]]:
    """Depth and instance ids of room(), in closed form."""
    rays, start = pixel_rays(camera) @ T_world_camera[:3, :3].T, T_world_camera[:3, 3]
    layers = np.stack(
        [
            plane_depth(start, rays, half_m=8.0),
            box_depth(start, rays, BOX_SIZE, BOX_POSE),
            sphere_depth(start, rays, BALL_RADIUS, BALL_POSE),
        ]
    )
    depth = layers.min(axis=0)
    ids = np.where(np.isinf(depth), 0, np.array([1, 2, 7])[layers.argmin(axis=0)])
    shape = (camera.height, camera.width)
    return np.where(np.isinf(depth), 0, depth).reshape(shape), ids.reshape(shape)


def away_from_edges(ids: npt.NDArray[np.int64]) -> BoolArray:
    """True where all 3x3 neighbours are of the same object."""
    padded = np.pad(ids, 1, mode="edge")
    height, width = ids.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.all([view == ids for view in shifted], axis=0))


@pytest.mark.parametrize("camera", [ODD_CAMERA, CENTRED_CAMERA], ids=lambda camera: camera.name)
def test_depth_is_within_a_millimetre_and_segmentation_exact_away_from_edges(
    renderer: BlenderProcRenderer, camera: Camera
) -> None:
    frames = render(renderer, room(), shot(camera, EYE))
    depth, ids = truth(camera, EYE)
    inner = away_from_edges(ids)
    assert frames.depth_m is not None
    assert frames.instance is not None
    assert {0, 1, 2, 7} == set(np.unique(ids[inner]))
    assert np.abs(frames.depth_m[0] - depth)[inner].max() < 1e-3
    assert (frames.instance[0] == ids)[inner].all()
    assert np.mean(frames.instance[0] == ids) > 0.99


def test_depth_of_a_facing_wall_is_the_same_in_the_corners_as_in_the_middle(renderer: BlenderProcRenderer) -> None:
    wall = box(3, (20.0, 1.0, 20.0), moved(y=3.5), name="wall")
    frames = render(renderer, lit("wall", wall), shot(ODD_CAMERA, look_at((0.0, 0.0, 0.0), (0.0, 3.0, 0.0))))
    assert frames.depth_m is not None
    assert np.abs(frames.depth_m - 3.0).max() < 1e-5


@pytest.mark.parametrize("camera", [ODD_CAMERA, CENTRED_CAMERA], ids=lambda camera: camera.name)
def test_projected_box_corners_lie_within_half_a_pixel_of_the_corners_seen(camera: Camera) -> None:
    renderer = BlenderProcRenderer(
        BlenderArgs(samples=32, denoiser="none", bounces=0, view_transform="Standard", exposure=0.0)
    )
    renderer.open("cpu")
    scene = Scene("lamp box", (box(9, BOX_SIZE, BOX_POSE, WHITE_LAMP),))
    close = look_at((1.1, -1.5, 1.5), (-0.5, -0.2, 0.55))
    frames = render(renderer, scene, shot(camera, close))
    renderer.close()
    corners = box_corners(BOX_SIZE) @ BOX_POSE[:3, :3].T + BOX_POSE[:3, 3]
    outline = convex_hull(project(camera, close, corners))
    assert len(outline) == 6
    assert np.linalg.norm(seen_corners(linear(frames.rgb[0, ..., 0]), outline) - outline, axis=1).max() < 0.5
    outside = distance_outside(outline, camera)
    assert frames.instance is not None
    assert ((frames.instance[0] == 9) == (outside < 0))[np.abs(outside) > 0.02].all()


def distance_outside(outline: F64, camera: Camera) -> F64:
    """(H, W) how far pixel centres lie outside the convex outline's nearest edge line, negative inside."""
    centres = np.stack(np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5), axis=-1)
    along = np.roll(outline, -1, axis=0) - outline
    normals = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1)[:, None]
    normals *= np.sign(((outline - outline.mean(axis=0)) * normals).sum(axis=1))[:, None]
    return np.asarray((centres @ normals.T - (outline * normals).sum(axis=1)).max(axis=-1))


def linear(srgb: npt.NDArray[np.uint8]) -> F64:
    value = srgb / 255.0
    return np.asarray(np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4))


def convex_hull(points: F64) -> F64:
    """Corners in order around their middle, by gift wrapping."""
    order = [int(points[:, 0].argmin())]
    while len(order) == 1 or order[-1] != order[0]:
        here = points[order[-1]]
        best = (order[-1] + 1) % len(points)
        for i, point in enumerate(points):
            one, other = points[best] - here, point - here
            if one[0] * other[1] - one[1] * other[0] < 0:
                best = i
        order.append(best)
    return points[order[:-1]]


def seen_corners(coverage: F64, outline: F64) -> F64:
    """The corners that edges fitted to the image make, in the order of `outline`.

    Across each expected edge, the coverage summed from inside to outside says where the edge is seen.
    """
    middle, lines = outline.mean(axis=0), []
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        normal = np.array([b[1] - a[1], a[0] - b[0]]) / np.linalg.norm(b - a)
        normal *= np.sign(normal @ (a - middle))
        found = []
        for share in np.linspace(0.2, 0.8, 25):
            offsets = np.arange(-3, 3, 0.05) + 0.025
            profile = bilinear(coverage, a + share * (b - a) + offsets[:, None] * normal)
            found.append(a + share * (b - a) + (profile.sum() * 0.05 - 3) * normal)
        centre = np.mean(found, axis=0)
        direction = np.linalg.svd(np.array(found) - centre)[2][0]
        lines.append((centre, direction))
    corners = []
    for (p, d), (q, e) in zip([lines[-1], *lines[:-1]], lines, strict=True):
        along, _ = np.linalg.solve(np.column_stack([d, -e]), q - p)
        corners.append(p + along * d)
    return np.array(corners)


def bilinear(image: F64, points: F64) -> F64:
    x, y = points[:, 0] - 0.5, points[:, 1] - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - left, y - top
    upper = image[top, left] * (1 - fx) + image[top, left + 1] * fx
    lower = image[top + 1, left] * (1 - fx) + image[top + 1, left + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


def test_glass_is_seen_through(renderer: BlenderProcRenderer) -> None:
    glass = Material("glass", opacity=0.3)
    pane = box(4, (4.0, 0.02, 4.0), moved(y=1.0), glass, name="window")
    wall = box(3, (20.0, 1.0, 20.0), moved(y=3.5), WHITE_LAMP, name="wall")
    frames = render(renderer, Scene("window", (pane, wall)), shot(CENTRED_CAMERA, look_at((0, 0, 0), (0, 3, 0))))
    assert frames.depth_m is not None
    assert np.abs(frames.depth_m - 3.0).max() < 1e-5
    assert np.all(frames.instance == 3)
    assert frames.rgb.mean() > 64


@pytest.mark.parametrize(("power_w", "faint"), [(0.0, False), (10.0, False), (1000.0, True)])
def test_glow_is_faint_beside_strong_lamps_only(power_w: float, faint: bool) -> None:
    panel = box(1, (2.0, 0.1, 2.0), moved(y=2.0), Material("panel", (1.0, 1.0, 1.0), emission=2.0))
    lamps = (Light("lamp", "point", moved(), power_w),) if power_w else ()
    assert glow_is_faint(Scene("lit", (panel,), lamps)) is faint


def test_a_texture_stands_upright(renderer: BlenderProcRenderer) -> None:
    colors = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    texture = np.repeat(np.repeat(colors, 8, axis=0), 8, axis=1)
    board = box(1, (2.0, 0.1, 2.0), moved(y=2.0), Material("board", (1.0, 1.0, 1.0), texture, emission=1.0))
    corners = board.vertices[board.faces]
    uvs = np.stack([corners[..., 0] / 2 + 0.5, corners[..., 2] / 2 + 0.5], axis=-1).astype(np.float32)
    scene = Scene("board", (replace(board, uvs=uvs),))
    camera = Camera("c", 64, 64, 64.0, 64.0, 32.0, 32.0)
    rgb = render(renderer, scene, shot(camera, look_at((0, 0, 0), (0, 2, 0)))).rgb[0]
    for row, column, color in ((20, 20, colors[0, 0]), (20, 44, colors[0, 1]), (44, 20, colors[1, 0])):
        assert np.abs(rgb[row, column].astype(int) - color).max() <= 2


def test_the_next_scenes_textures_are_its_own(renderer: BlenderProcRenderer) -> None:
    camera, pose = Camera("c", 16, 16, 16.0, 16.0, 8.0, 8.0), look_at((0, 0, 0), (0, 2, 0))
    board = box(1, (4.0, 0.1, 4.0), moved(y=2.0))
    uvs = np.full((len(board.faces), 3, 2), 0.5, np.float32)
    for number in range(6):
        color = np.array([40 * number, 200 - 30 * number, 255 if number % 2 else 0], np.uint8)
        texture = np.broadcast_to(color, (64, 64, 3)).copy()
        paint = Material("paint", (1.0, 1.0, 1.0), texture, emission=1.0)
        scene = Scene(f"board {number}", (replace(board, materials=(paint,), uvs=uvs),))
        rgb = render(renderer, scene, shot(camera, pose)).rgb[0]
        assert np.abs(rgb.astype(int) - color).max() <= 2
