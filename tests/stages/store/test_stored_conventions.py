"""Datasets agree with themselves: given points, projected through stored cameras, land on stored pixels.

The whole way is taken: Blender renders, NavWriter stores and publishes, the reader reads back. The cameras have
square pixels nowhere and their principal point off the centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.renderers.blender.renderer import BlenderArgs, BlenderProcRenderer
from nimbusd.stages import Camera, Episode, EpisodeRequest, Feature, Observation, Scene, Sequence
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.store.writers.nav import NavWriter, NavWriterArgs
from nimbusd.stages.types import F64
from tests.support.analytic_scenes import ODD_CAMERA, WHITE_LAMP, box, box_corners, look_at, moved, plane, project, shot

pytestmark = pytest.mark.blender

SIZE = (0.5, 0.4, 0.6)
T_WORLD_BOX = moved(0.1, -0.2, 0.3, yaw=0.5)
EYES = [(2.4 * np.cos(a), 2.4 * np.sin(a), 0.8 + 0.1 * i) for i, a in enumerate(np.linspace(0.3, 2.0, 8))]


@pytest.fixture(scope="module")
def rendered() -> Iterator[tuple[Scene, Sequence, Observation]]:
    """Eight views of a white box on a grey floor."""
    scene = Scene("boxes", (plane(), box(5, SIZE, T_WORLD_BOX, WHITE_LAMP)), sky_strength=0.2)
    poses = [look_at(eye, (0.1, -0.2, 0.3)) for eye in EYES]
    states = np.arange(16, dtype=np.float32).reshape(8, 2)
    seq = replace(
        shot(ODD_CAMERA, *poses),
        states={"observation.state": Feature(states, ("x", "y"))},
        actions={"action": Feature(states, ("x", "y"))},
    )
    renderer = BlenderProcRenderer(BlenderArgs(samples=4, denoiser="none", bounces=0, view_transform="Standard"))
    renderer.open("cpu")
    try:
        renderer.load(scene)
        yield scene, seq, renderer.gen_obs(seq)
    finally:
        renderer.close()


def stored_camera(episode: Any, name: str, like: Camera) -> Camera:
    fx, fy, cx, cy = (float(value) for value in episode.intrinsics[name])
    return replace(like, fx=fx, fy=fy, cx=cx, cy=cy)


def outline(corners: F64) -> tuple[F64, F64]:
    """Lowest and highest pixel coordinates (u, v) of projected corners."""
    return corners.min(axis=0), corners.max(axis=0)


@pytest.mark.parametrize("layout", ["lerobot-v3.0", "lerobot-v2.1", "interndata-n1"])
@pytest.mark.parametrize("media", ["video", "image"])
def test_known_points_project_onto_the_stored_images(
    tmp_path: Path, rendered: tuple[Scene, Sequence, Observation], layout: str, media: str
) -> None:
    scene, seq, observation = rendered
    writer = NavWriter(NavWriterArgs.model_validate({"format": layout, "media": media}))
    request = EpisodeRequest("job", scene.name, 0)
    piece = writer.save_data(seq, observation, Episode(request, tmp_path, scene=scene, sequence=seq))
    dataset = open_dataset(writer.publish(tmp_path, [piece], {"name": "job", "seed": 0}, final=True))
    episode = dataset.episode(0)
    camera = stored_camera(episode, "odd", ODD_CAMERA)
    homogeneous = np.column_stack([box_corners(SIZE), np.ones(8)])
    corners = (homogeneous @ T_WORLD_BOX.T)[:, :3]
    top = (np.array([0.0, 0.0, SIZE[2] / 2, 1.0]) @ T_WORLD_BOX.T)[None, :3]
    for t in range(len(seq)):
        T = np.asarray(episode.T_world_camera["odd"][t], np.float64)
        low, high = outline(project(camera, T, corners))
        rows, columns = np.nonzero(episode.instance["odd"][t] == 5)
        # Pixels are sampled at their centres, so the mask ends at most half a pixel inside the outline.
        seen = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(seen[0], low, atol=1.0)
        np.testing.assert_allclose(seen[1], high, atol=1.0)
        u, v = project(camera, T, top)[0]
        row, column = int(v), int(u)
        assert episode.instance["odd"][t, row, column] == 5
        assert episode.rgb["odd"][t, row, column].min() > 200, "the lamp is not where it projects to"
        # The pixel's centre sees the top face; where its ray meets the face, along the optical axis:
        ray = T[:3, :3] @ [(column + 0.5 - camera.cx) / camera.fx, -(row + 0.5 - camera.cy) / camera.fy, -1.0]
        expected = (top[0, 2] - T[2, 3]) / ray[2]
        assert episode.depth_m["odd"][t, row, column] == pytest.approx(expected, abs=1e-3)
        dark = episode.rgb["odd"][t, 2, 2]
        assert dark.max() < 200, "what is far from the lamp is not white"
