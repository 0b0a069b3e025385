from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nimbusd.renderers.splats.cpu import CpuRasterizer
from nimbusd.renderers.splats.types import SplatImages
from nimbusd.stages.errors import RenderError
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.types import F64, Camera, Splats
from tests.support.nav_scenes import cluttered_room
from tests.support.slow import quick_first
from tests.support.splat_reference import looking_at, random_splats, reference

CAMERA = Camera("front", 70, 50, 60.0, 58.0, 33.0, 26.5)
GREY = (0.2, 0.5, 0.7)


def draw(splats: Splats, poses: F64, camera: Camera = CAMERA, threads: int = 2) -> SplatImages:
    rasterizer = CpuRasterizer(threads)
    rasterizer.load(splats)
    return rasterizer.render(camera, np.atleast_3d(poses).reshape(-1, 4, 4), GREY)


def assert_equal(splats: Splats, pose: F64, camera: Camera = CAMERA) -> F64:
    """The acceptance: colour within 1/255 everywhere, depth within 1 mm where coverage is above 0.99.

    Returns the reference's coverage.
    """
    images = draw(splats, pose, camera)
    rgb, depth, coverage = reference(splats, camera, pose, GREY)
    np.testing.assert_allclose(images.rgb[0], rgb, atol=1 / 255 - 1e-9, rtol=0)
    np.testing.assert_allclose(images.coverage[0], coverage, atol=1 / 255 - 1e-9, rtol=0)
    solid = coverage > 0.99
    np.testing.assert_allclose(images.depth_m[0][solid], depth[solid], atol=1e-3, rtol=0)
    return coverage


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", quick_first([1, 2]))
def test_random_clouds_equal_the_float64_reference_at_every_degree(degree: int, seed: int) -> None:
    splats = random_splats(seed, 600, degree, size_m=0.08)
    for angle in (0.3, 2.0):
        pose = looking_at((2.4 * np.cos(angle), 2.4 * np.sin(angle), 0.7), (0.0, 0.0, 0.0))
        assert assert_equal(splats, pose).max() > 0.99


def test_a_room_seen_from_inside_equals_the_reference() -> None:
    splats = sample_splats(cluttered_room(np.random.default_rng(3)).objects, 3000)
    pose = looking_at((0.5, 0.5, 1.2), (2.5, 2.0, 0.6))
    assert (assert_equal(splats, pose) > 0.99).mean() > 0.5


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    size_m=st.sampled_from([1e-6, 1e-3, 0.05, 1.0, 30.0, 1e5]),
    stretch=st.sampled_from([1.0, 1e-3, 1e3]),
    distance_m=st.floats(-1.0, 4.0),
    opacity=st.sampled_from([0.001, 0.0045, 0.3, 1.0]),
)
def test_degenerate_gaussians_equal_the_reference(
    seed: int, size_m: float, stretch: float, distance_m: float, opacity: float
) -> None:
    """Huge, tiny, needles, discs, behind the camera, on the near plane, almost transparent."""
    splats = random_splats(seed, 12, 1, size_m=size_m)
    scales = splats.scales.copy()
    scales[:, 0] *= stretch
    splats = replace(splats, scales=scales, opacities=np.full(12, opacity, np.float32))
    camera = replace(CAMERA, width=33, height=20, cx=16.0, cy=10.0)
    pose = looking_at((distance_m, 0.01, 0.02), (distance_m - 1.0, 0.01, 0.02))
    images = draw(splats, pose, camera)
    for part in (images.rgb, images.depth_m, images.coverage):
        assert np.isfinite(part).all()
    rgb, _, coverage = reference(splats, camera, pose, GREY)
    np.testing.assert_allclose(images.rgb[0], rgb, atol=1 / 255 - 1e-9, rtol=0)
    np.testing.assert_allclose(images.coverage[0], coverage, atol=1 / 255 - 1e-9, rtol=0)


def one(position: tuple[float, float, float], size_m: float) -> Splats:
    return Splats(
        np.array([position], np.float32),
        np.full((1, 3), size_m, np.float32),
        np.array([[1, 0, 0, 0]], np.float32),
        np.ones(1, np.float32),
        np.full((1, 1, 3), 1.7, np.float32),
    )


@pytest.mark.parametrize("position", [(3.0, 0, 0), (0.02, 0.0, 0.0), (-0.1, 0.8, 0.0), (-0.06, 0.5, 0.3)])
def test_what_is_behind_beside_or_at_the_near_plane_does_not_smear_over_the_image(
    position: tuple[float, float, float],
) -> None:
    images = draw(one(position, 0.01), looking_at((0.0, 0.0, 0.0), (-1.0, 0.0, 0.0)))
    assert images.coverage.max() == 0
    np.testing.assert_allclose(images.rgb[0], np.broadcast_to(GREY, images.rgb[0].shape), atol=1e-6)


def test_a_gaussian_lands_on_its_pixel_with_its_depth_along_the_axis() -> None:
    pose = looking_at((1.0, 2.0, 0.5), (3.0, 2.6, 0.4))
    camera_point = np.array([0.3, -0.2, -2.5, 1.0])
    images = draw(one(tuple((pose @ camera_point)[:3]), 0.02), pose)
    row, column = np.unravel_index(images.coverage[0].argmax(), images.coverage[0].shape)
    u, v = CAMERA.cx + CAMERA.fx * 0.3 / 2.5, CAMERA.cy + CAMERA.fy * 0.2 / 2.5
    assert abs(column + 0.5 - u) <= 0.5
    assert abs(row + 0.5 - v) <= 0.5
    # The ray through the pixel centre misses the centre by up to 2 cm, and meets the ball a little nearer or farther.
    assert images.depth_m[0, row, column] == pytest.approx(2.5, abs=2e-3)


def test_a_turned_shifted_and_scaled_cloud_looks_as_if_its_camera_had_moved() -> None:
    """Colours that depend on the direction turn with the cloud, and depth stays in metres."""
    splats = random_splats(5, 300, 3, size_m=0.1)
    pose = looking_at((2.0, 0.4, 0.6), (0.0, 0.0, 0.0))
    T = looking_at((0.3, -0.5, 0.2), (1.0, 1.0, 0.8))
    scaled = T.copy()
    scaled[:3, :3] *= 1.7
    # The same picture in the world: the camera carried along, and its distance stretched.
    moved = T @ np.block([[pose[:3, :3], 1.7 * pose[:3, 3:]], [np.zeros((1, 3)), np.ones((1, 1))]])
    still, carried = draw(splats, pose), draw(replace(splats, T_world_splats=scaled), moved)
    np.testing.assert_allclose(carried.rgb, still.rgb, atol=1e-4)
    solid = still.coverage > 0.5
    np.testing.assert_allclose(carried.depth_m[solid], 1.7 * still.depth_m[solid], rtol=1e-4)


def test_batches_and_threads_do_not_change_a_bit() -> None:
    splats = random_splats(7, 20_000, 1, size_m=0.03)  # several chunks
    poses = np.stack([looking_at((2.5 * np.cos(a), 2.5 * np.sin(a), 0.4), (0, 0, 0)) for a in np.linspace(0, 6, 19)])
    together = draw(splats, poses)
    alone = [draw(splats, pose, threads=1) for pose in poses[[0, 9, 18]]]
    for part in ("rgb", "depth_m", "coverage"):
        expected = np.concatenate([getattr(images, part) for images in alone])
        np.testing.assert_array_equal(getattr(together, part)[[0, 9, 18]], expected)


def test_a_cloud_that_is_nowhere_in_sight_leaves_the_background() -> None:
    images = draw(one((0, 0, 0), 0.1), looking_at((5.0, 0, 0), (9.0, 0, 0)))
    assert images.coverage.max() == 0
    assert images.depth_m.max() == 0


def test_drawing_before_loading_is_told() -> None:
    with pytest.raises(RenderError, match=r"call load\(splats\)"):
        CpuRasterizer().render(CAMERA, np.eye(4)[None], GREY)
