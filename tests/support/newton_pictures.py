"""Pictures of our USD stage by Newton, by rays on Warp's CPU backend: python -m tests.support.newton_pictures OUT.npz.

A reader of USD that is not ours: geometry, poses, cameras, their lens and our paths, as somebody else understands them.
In a process of its own, since Warp compiles for the processor that it finds.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from nimbusd.renderers.isaac import stage as isaac_stage
from nimbusd.renderers.isaac.read import instance_of_path
from nimbusd.renderers.isaac.stage import StageScene, aim
from nimbusd.stages.types import Camera
from tests.support.analytic_scenes import ODD_CAMERA, box, lit, look_at, moved, plane, sphere

SIMPLE = Camera("simple", width=96, height=64, fx=80.0, fy=80.0, cx=48.0, cy=32.0)
CAMERAS = (SIMPLE, ODD_CAMERA)
EYES = (look_at((2.4, -2.9, 1.7), (0.2, 0.1, 0.5)), look_at((-2.0, -2.5, 2.2), (0.0, 0.0, 0.3)))
CRATE = replace(box(2, (0.8, 0.6, 1.1), moved(-0.5, -0.2, 0.55)), name="crate")
CRATE_POSES = np.stack([moved(-0.5, -0.2, 0.55), moved(-0.3, -0.4, 0.55, yaw=0.4)])
ROOM = lit("room", plane(1), CRATE, sphere(300, 0.5, moved(0.9, 0.6, 0.6)))
FAR_M = 100.0
_LENS = "omni:lensdistortion:opencvPinhole:"


def main(target: str) -> None:
    from pxr import Usd

    pictures: dict[str, Any] = {}
    # usd-core has none of Isaac Sim's schemas.
    with tempfile.TemporaryDirectory() as folder, patch.object(isaac_stage, "has_lens", lambda: True):
        for t, T_world_crate in enumerate(CRATE_POSES):
            stage = Usd.Stage.CreateInMemory()
            authored = StageScene(stage, ROOM, 1, Path(folder))
            authored.place_copies([(0.0, 0.0, 0.0)])
            authored.place_objects(0, {"crate": T_world_crate})
            for number, (camera, eye) in enumerate(zip(CAMERAS, EYES, strict=True)):
                path, pose = authored.add_camera(0, number, camera, FAR_M)
                aim(pose, eye, (0.0, 0.0, 0.0))
                depth, ids = seen(stage, path, camera)
                pictures |= {f"{t}/{camera.name}/depth": depth, f"{t}/{camera.name}/ids": ids}
    np.savez(target, **pictures)


def seen(stage: Any, path: str, camera: Camera) -> tuple[Any, Any]:
    """Depth along the optical axis, 0 where there is nothing, and our instance ids, of a camera of the stage."""
    newton: Any = importlib.import_module("newton")  # whose types, where it is installed, are of no use here
    wp: Any = importlib.import_module("warp")
    with wp.ScopedDevice("cpu"):
        builder = newton.ModelBuilder()
        builder.add_usd(stage)
        model = builder.finalize()
        sensor = newton.sensors.SensorCamera(model, load_textures=False)
        prim = stage.GetPrimAtPath(path)
        size = (camera.width, camera.height)
        if prim.GetAttribute("omni:lensdistortion:model"):
            numbers = {key: prim.GetAttribute(_LENS + key).Get() for key in ("fx", "fy", "cx", "cy")}
            image = dict(
                zip(("image_width", "image_height"), prim.GetAttribute(f"{_LENS}imageSize").Get(), strict=True)
            )
            rays = sensor.compute_camera_rays_pinhole_opencv(*size, **numbers, **image)
        else:
            rays = sensor.compute_camera_rays_pinhole_usd(*size, prim)
        depth = sensor.allocate_image_depth_forward(1, *size)
        shapes = sensor.allocate_image_shape_index(1, *size)
        sensor.update(
            model.state(),
            sensor.compute_camera_transforms_usd(prim),
            rays,
            forward_depth_image=depth,
            shape_index_image=shapes,
        )
        table = np.array([instance_of_path(path) for path in builder.shape_label] + [0])
        which = np.minimum(shapes.numpy()[0], len(table) - 1).astype(int)
        ids = table[which]
        return np.where(ids > 0, depth.numpy()[0], 0), ids


if __name__ == "__main__":
    main(sys.argv[1])
