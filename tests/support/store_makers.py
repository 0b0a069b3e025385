"""Small scenes, sequences and observations for tests of the store stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages import (
    Camera,
    CameraFrames,
    Episode,
    EpisodeRequest,
    Feature,
    Label,
    Material,
    Observation,
    Piece,
    Room,
    Scene,
    SceneObject,
    Sequence,
)
from nimbusd.stages.store.formats.lerobot.tree import LerobotTree
from nimbusd.stages.store.read import Dataset
from nimbusd.stages.store.writers.nav import NavWriter, NavWriterArgs
from nimbusd.stages.types import U8

LABELS = (Label(1, 2, "floor_0", "floor"), Label(7, 14, "chair_0", "chair"))


def quad(name: str, category: str, instance_id: int, corners: list[list[float]], color: Any) -> SceneObject:
    """A rectangle of two triangles."""
    return SceneObject(
        name,
        category,
        instance_id,
        np.array(corners, np.float32),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        (Material("plain", color),),
        np.zeros(2, np.int32),
    )


def make_scene(name: str = "room") -> Scene:
    """A floor of 4 x 4 m and a 1 m wide upright board that reaches from z = 0 to 2 m."""
    floor = quad("floor_0", "floor", 1, [[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]], (0.5, 0.4, 0.3))
    board = quad("chair_0", "chair", 7, [[1, 2, 0], [2, 2, 0], [2, 2, 2], [1, 2, 2]], (0.0, 0.0, 0.21))
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.float64)
    return Scene(name, (floor, board), rooms=(Room("living", "living_room", square),))


def textured_frames(length: int, height: int, width: int, seed: int = 0, step: float = 2.0) -> U8:
    """(T, H, W, 3) uint8: a smooth texture with edges and fine grain that drifts, like a camera that turns."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    span = width + int(step * length) + 8

    def layer(cell: int) -> np.ndarray[Any, Any]:
        small = (rng.random((height // cell + 2, span // cell + 2, 3)) * 255).astype(np.uint8)
        return np.asarray(Image.fromarray(small).resize((span, height), Image.Resampling.BICUBIC), np.float64)

    wall = layer(48) * 0.75 + layer(6) * 0.2 + layer(2) * 0.05
    wall[:, ::97] *= 0.4
    return np.asarray([wall[:, int(step * t) : int(step * t) + width] for t in range(length)], np.uint8)


def make_sequence(
    length: int = 10,
    *,
    fps: float = 10,
    size: tuple[int, int] = (64, 96),
    cameras: tuple[str, ...] = ("front",),
    seed: int = 0,
    task: str = "go to the chair",
) -> Sequence:
    """A drive along x at 1 m/s; fx differs from fy and the principal point is off centre."""
    height, width = size
    mounting = np.array([[0, 0, -1, 0.1], [-1, 0, 0, 0], [0, 1, 0, 0.5], [0, 0, 0, 1]], np.float64)
    poses = np.tile(np.eye(4), (length, 1, 1))
    poses[:, 0, 3] = np.arange(length) / fps + seed
    rng = np.random.default_rng(seed)
    return Sequence(
        fps=fps,
        task=task,
        cameras=tuple(Camera(name, width, height, 80.5, 79.25, width / 2 + 1.5, height / 2 - 2) for name in cameras),
        T_world_camera=dict.fromkeys(cameras, poses @ mounting),
        T_base_camera=dict.fromkeys(cameras, mounting),
        states={"observation.state": Feature(rng.random((length, 3)), ("x", "y", "yaw"))},
        actions={"action": Feature(rng.random((length, 2)), ("v", "w"))},
        notes={"path_length_m": float(length) / fps, "key_frames": [0, length - 1]},
    )


def make_observation(seq: Sequence, *, depth: bool = True, segmentation: bool = True, seed: int = 0) -> Observation:
    """Frames that fit `seq`: textured RGB, depth that grows to the right, two instances."""
    frames = {}
    for number, camera in enumerate(seq.cameras):
        shape = (len(seq), camera.height, camera.width)
        ramp = np.broadcast_to(np.linspace(0, 7, camera.width, dtype=np.float32), shape).copy()
        instance = np.where(ramp > 3, 7, 1).astype(np.uint16)
        semantic = np.where(ramp > 3, 14, 2).astype(np.uint16)
        frames[camera.name] = CameraFrames(
            textured_frames(len(seq), camera.height, camera.width, seed + number),
            ramp if depth else None,
            instance if segmentation else None,
            semantic if segmentation else None,
        )
    return Observation(frames, LABELS, {"name": "toy"})


def make_episode(
    output: Path,
    index: int = 0,
    *,
    scene: str = "room",
    attempt: int = 1,
    seq: Sequence,
    variant: int = 0,
    environment: Mapping[str, Any] | None = None,
) -> Episode:
    output.mkdir(parents=True, exist_ok=True)  # as a job makes it; pieces are not stored where it is gone
    request = EpisodeRequest("job", scene, index, variant, attempt)
    context = {
        "job": {"name": "job", "seed": 3},
        "components": {"plan": {"name": "Toy", "version": "1.0.0", "args": {}}},
        "node": "n1",
        "slot": "cpu:0",
        "started_unix_s": 1.5,
        **({"environment": environment} if environment is not None else {}),
    }
    return Episode(request, output, make_scene(scene), seq, timings_s={"plan": 0.1}, context=context)


def make_writer(**args: Any) -> NavWriter:
    return NavWriter(NavWriterArgs(**args))


def store_episode(writer: NavWriter, output: Path, index: int, *, attempt: int = 1, **options: Any) -> Piece:
    """Store episode `index`, whose content depends on `index` only.

    options: of make_sequence, and `scene`, `variant` and `environment` of make_episode.
    """
    scene = options.pop("scene", "room")
    variant, environment = options.pop("variant", 0), options.pop("environment", None)
    options = {"length": 8 + index, "seed": index, "task": f"go to place {index % 2}", **options}
    seq = make_sequence(**options)
    episode = make_episode(
        output, index, scene=scene, attempt=attempt, seq=seq, variant=variant, environment=environment
    )
    return writer.save_data(seq, make_observation(seq, seed=index), episode)


def store_episodes(writer: NavWriter, output: Path, indexes: Iterable[int], **options: Any) -> list[Piece]:
    return [store_episode(writer, output, index, **options) for index in indexes]


def lerobot_tree(dataset: Dataset) -> LerobotTree:
    """The first tree of a dataset of LeRobot's."""
    tree = dataset.trees[0]
    assert isinstance(tree, LerobotTree)
    return tree


JOB = {"name": "job", "seed": 3}
