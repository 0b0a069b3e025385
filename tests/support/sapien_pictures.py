"""SAPIEN's pictures of known scenes, in a process of its own: python -m tests.support.sapien_pictures OUT.npz.

A process of its own, since the first picture of a process costs a software Vulkan half a minute, and since its driver
must be named before anything loads Vulkan. Exit status 3: no device that SAPIEN renders on; standard output says why.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from nimbusd.renderers.sapien.renderer import SapienRenderer, SapienRendererArgs
from nimbusd.stages.errors import BackendUnavailable
from nimbusd.stages.types import Camera, CameraFrames, Light, Material, Scene
from tests.support.analytic_scenes import ODD_CAMERA, box, lit, look_at, moved, plane, shot, sphere

SOFTWARE_VULKAN = Path(sys.prefix) / "share" / "vulkan" / "vk_swiftshader_icd.json"
"""The place where scripts/setup.sh puts it."""
NO_DEVICE = 3

EYE = look_at((2.4, -2.9, 1.7), (0.2, 0.1, 0.5))
CAMERA = Camera("c", width=160, height=120, fx=150.0, fy=150.0, cx=80.0, cy=60.0)
CRATE = replace(box(2, (0.8, 0.6, 1.1), moved(-0.5, -0.2, 0.55)), name="crate")
CRATE_POSES = np.stack([moved(-0.5, -0.2, 0.55), moved(-0.3, -0.4, 0.55, yaw=0.4)])
LID = replace(box(2, (0.8, 0.6, 0.1), moved(-0.5, -0.2, 1.3)), name="lid", part_of="crate")
LID_POSES = np.stack([moved(-0.5, -0.2, 1.3), moved(0.1, -0.4, 1.5, yaw=0.9)])
MOVED = {"crate": CRATE_POSES, "lid": LID_POSES}
FLOOR = plane(1)
ROOM = lit("room", FLOOR, CRATE, LID, sphere(7, 0.5, moved(0.9, 0.6, 0.6)))

SIDE_LAMPS = {
    "sun": Light("sun", "sun", look_at((30.0, 0.1, 30.0), (0.0, 0.0, 0.0)), 3.0),
    "point": Light("lamp", "point", look_at((12.0, 0.1, 12.0), (0.0, 0.0, 0.0)), 8000.0),
    "area": Light("lamp", "area", look_at((12.0, 0.1, 12.0), (0.0, 0.0, 0.0)), 2000.0),
}
"""From 45 degrees, farther away than the 10 m that shadows reach unless told; a shadow falls towards -x."""
TOP_EYE = look_at((0.0, -0.1, 6.0), (0.0, 0.0, 0.0))
PILLAR = box(2, (0.6, 0.6, 1.0), moved(0.0, 0.0, 0.5))
LIT, SHADED = (1.2, 0.0, 0.0), (-0.7, 0.0, 0.0)
"""Points of the floor, on the sunny side of the pillar and behind it."""


CORNERS_UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
TEXTURE = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8).repeat(8, 0).repeat(8, 1)
"""Red and green at the top, blue and white at the bottom."""
_TILES = plane(1, 1.0, Material("tiles", texture=TEXTURE))
TILES = replace(_TILES, uvs=CORNERS_UV[_TILES.faces].astype(np.float32))
PANE = box(9, (0.6, 0.6, 0.02), moved(z=1.0), Material("glass", base_color=(1.0, 0.0, 0.0), opacity=0.3), "pane")


def many_lamps() -> tuple[Light, ...]:
    """More lamps of each kind than the shader pack has shadow maps for, and more area lamps than it has lamps."""
    poses = [look_at((i - 5.0, 1.0, 4.0), (0.0, 0.0, 0.0)) for i in range(12)]
    return (
        *(Light(f"sun_{i}", "sun", poses[i], 1.0 + i) for i in range(3)),
        *(Light(f"point_{i}", "point", poses[i], 10.0 + i) for i in range(6)),
        *(Light(f"area_{i}", "area", poses[i], 10.0 + i) for i in range(12)),
    )


def main(target: str) -> int:
    renderer = SapienRenderer(SapienRendererArgs())
    try:
        renderer.open("auto")
    except BackendUnavailable as error:
        print(error)
        return NO_DEVICE
    pictures: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}

    def keep(name: str, frames: CameraFrames) -> None:
        assert frames.depth_m is not None
        assert frames.instance is not None
        pictures.update({f"{name}/rgb": frames.rgb, f"{name}/depth": frames.depth_m, f"{name}/ids": frames.instance})

    renderer.load(ROOM)
    in_room = shot(ODD_CAMERA, EYE, EYE, T_world_object=MOVED)
    keep("room", renderer.gen_obs(in_room).frames["odd"])
    renderer.gen_obs(shot(ODD_CAMERA, EYE, T_world_object={"crate": moved(x=30.0)[None]}))
    keep("again", renderer.gen_obs(in_room).frames["odd"])
    for name, lamp in SIDE_LAMPS.items():
        renderer.load(Scene(name, (FLOOR, PILLAR), (lamp,), sky_strength=0.1))
        keep(name, renderer.gen_obs(shot(CAMERA, TOP_EYE)).frames["c"])
    renderer.load(Scene("many", (FLOOR, PILLAR), many_lamps()))
    seen = renderer.gen_obs(shot(CAMERA, TOP_EYE))
    keep("many", seen.frames["c"])
    pictures["many/left_out"] = np.array([seen.renderer["lights_left_out"], seen.renderer["lights_without_shadow"]])
    renderer.load(Scene("far", (plane(1, 0.5),), sky_strength=0.5, sky_color=(1.0, 0.5, 0.0)))
    keep("sky", renderer.gen_obs(shot(CAMERA, EYE)).frames["c"])
    renderer.load(Scene("tiles", (TILES,), sky_strength=0.8))
    keep("tiles", renderer.gen_obs(shot(CAMERA, TOP_EYE)).frames["c"])
    renderer.load(Scene("glass", (FLOOR, PANE), sky_strength=0.8))
    keep("glass", renderer.gen_obs(shot(CAMERA, TOP_EYE)).frames["c"])
    renderer.close()
    np.savez(target, **pictures)
    return 0


if __name__ == "__main__":
    if "VK_ICD_FILENAMES" not in os.environ and SOFTWARE_VULKAN.exists():
        os.environ["VK_ICD_FILENAMES"] = str(SOFTWARE_VULKAN)
    sys.exit(main(sys.argv[1]))
