"""The baseline of `tests.benchmarks.nav_gs`: a splat pipeline as one is usually first written.

One process; each trajectory loads its scene, is planned, rendered and stored before the next one begins; one frame is
drawn at a time by the original splatting algorithm, straightforward on the CPU (`tests.benchmarks.gs_naive`), or by
our rasterizer (`ours`), so that only the way of working differs; storing holds up rendering.
"""

from __future__ import annotations

import numpy as np

from nimbusd.job import Job
from nimbusd.renderers.splats.cpu import CpuRasterizer
from nimbusd.renderers.splats.renderer import to_bytes
from nimbusd.stages.types import CameraFrames, Observation, Scene, Sequence
from tests.benchmarks.gs_naive import render_naive
from tests.benchmarks.lockstep_loop import serve

_SKY = (0.87, 0.93, 1.0)


def render(job: Job, scene: Scene, seq: Sequence, *, ours: bool) -> Observation:
    """Frame by frame, nothing kept from one to the next."""
    assert scene.splats is not None
    rasterizer = CpuRasterizer()
    rasterizer.load(scene.splats)
    frames = {}
    for camera in seq.cameras:
        rgb, depth = [], []
        for T in seq.T_world_camera[camera.name]:
            if ours:
                images = rasterizer.render(camera, T[None], _SKY)
            else:
                images, _ = render_naive(scene.splats, camera, T[None], _SKY)
            rgb.append(to_bytes(images)[0])
            depth.append(np.where(images.coverage[0] >= 0.5, images.depth_m[0], 0))
        frames[camera.name] = CameraFrames(np.stack(rgb), np.stack(depth).astype(np.float32))
    return Observation(frames)


if __name__ == "__main__":
    serve(__doc__, render)
