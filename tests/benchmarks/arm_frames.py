"""The price of a camera frame of an arm, ours against MuJoCo's own drawing, and the likeness of the two.

`python -m tests.benchmarks.arm_frames` plans one layout of the pick-and-place example and draws some of its states from
its three cameras: CPU milliseconds of all threads and wall milliseconds per camera frame, with the steps between
(kinematics, reading back). `--seed`, `--states`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nimbusd.renderers.mujoco.view import MujocoView, ViewSettings
from nimbusd.renderers.stacked import Tile, render_stacked
from nimbusd.stages.types import F32, F64, U8, U16, Camera
from nimbusd.stages.workflow.sim import Layout, camera_poses, parse_task, plan_episode, randomize_layout
from tests.support.mujoco_reference import Reference, psnr, worst_iou

EXAMPLE = Path(__file__).parents[2] / "examples" / "manipulation" / "pick_place.yaml"


def timed(frames: int, draw: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result of the second call of `draw`, with its CPU and wall milliseconds per frame."""
    draw()
    cpu, wall = time.process_time(), time.perf_counter()
    result = draw()
    return result, (time.process_time() - cpu) * 1e3 / frames, (time.perf_counter() - wall) * 1e3 / frames


def reference_frames(
    view: MujocoView, qpos: F64, cameras: list[Camera], poses: dict[str, F64], exact: bool
) -> Callable[[], dict[tuple[int, str], tuple[U8, U16, F32]]]:
    """Draws the same states with MuJoCo."""
    import mujoco

    model = view.world.model
    data = mujoco.MjData(model)
    size = (max(camera.width for camera in cameras), max(camera.height for camera in cameras))
    reference = Reference(model, view.world.instance, size)

    def draw() -> dict[tuple[int, str], tuple[U8, U16, F32]]:
        made = {}
        for row, state in enumerate(qpos):
            data.qpos[:] = state
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_camlight(model, data)
            for camera in cameras:
                made[row, camera.name] = reference.draw(data, camera, poses[camera.name][row], exact)
        return made

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--states", type=int, default=8)
    args = parser.parse_args()
    task = parse_task(yaml.safe_load(EXAMPLE.read_text())["tasks"][0])
    rng = np.random.default_rng(args.seed)
    layout: Layout = randomize_layout(task, rng)
    qpos = plan_episode(task, layout, rng).qpos
    qpos = qpos[np.linspace(0, len(qpos) - 1, args.states).astype(int)]
    cameras = [entry.camera for entry in layout.cameras]
    poses = camera_poses(layout, qpos)
    frames = len(qpos) * len(cameras)
    for exact in (False, True):
        view = MujocoView(layout, "cpu", ViewSettings(depth=exact, segmentation=exact))

        def ours(view: MujocoView = view) -> dict[tuple[int, str], Tile]:
            return {(row, name): tile for row, name, tile in render_stacked(view, qpos, cameras, poses, 1)}

        tiles, cpu, wall = timed(frames, ours)
        expected, old_cpu, old_wall = timed(frames, reference_frames(view, qpos, cameras, poses, exact))
        what = "RGB, depth, ids" if exact else "RGB"
        print(f"{what:16} MuJoCo {old_cpu:6.1f} ms CPU {old_wall:6.1f} ms wall   ours {cpu:6.1f} ms CPU {wall:6.1f} ms")
        print(f"{'':16} CPU {old_cpu / cpu:.2f} times less, wall {old_wall / wall:.2f} times; {frames} frames")
        noise = [psnr(tile.rgb, expected[key][0]) for key, tile in tiles.items()]
        print(f"{'':16} PSNR {min(noise):.1f} dB at least, {np.mean(noise):.1f} on average")
        if exact:
            overlap, errors = [], []
            for key, tile in tiles.items():
                assert tile.instance is not None
                assert tile.depth_m is not None
                _, ids, metres = expected[key]
                overlap.append(worst_iou(ids, tile.instance, 50))
                errors.append(np.abs(tile.depth_m - metres)[tile.instance == ids])
            error_mm = 1e3 * np.concatenate(errors)
            print(
                f"{'':16} masks of 50 pixels and more: IoU {min(overlap):.4f} at least; depth where ids agree: "
                f"{np.quantile(error_mm, 0.9999):.3f} mm in 9,999 of 10,000 pixels"
            )


if __name__ == "__main__":
    main()
