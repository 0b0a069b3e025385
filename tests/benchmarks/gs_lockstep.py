"""The baseline of `tests.benchmarks.nav_gs`: a splat pipeline as one is usually first written.

One process; each trajectory loads its scene, is planned, rendered and stored before the next one begins; one frame is
drawn at a time by the original splatting algorithm, straightforward on the CPU (`tests.benchmarks.gs_naive`), or by
our rasterizer (`ours`), so that only the way of working differs; storing holds up rendering.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nimbusd.job import Job
from nimbusd.renderers.gs import to_bytes
from nimbusd.renderers.gs_cpu import CpuRasterizer
from nimbusd.stages.seeds import stream
from nimbusd.stages.types import CameraFrames, Episode, EpisodeRequest, Observation, Scene, Sequence
from tests.benchmarks.gs_naive import render_naive

_SKY = (0.87, 0.93, 1.0)


def render(scene: Scene, seq: Sequence, *, ours: bool) -> Observation:
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


def run_lockstep(job: Job, episodes: list[tuple[str, int]], output: Path, *, ours: bool) -> dict[str, Any]:
    """Make the episodes one after another. Returns seconds by stage, frames and the whole time."""
    (output / ".pieces").mkdir(parents=True)
    seconds: defaultdict[str, float] = defaultdict(float)
    frames = 0

    def timed(stage: str, call: Any, *args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = call(*args, **options)
        seconds[stage] += time.perf_counter() - started
        return result

    pieces = []
    for scene_name, index in episodes:
        loader, planner, writer = job.make("load"), job.make("plan"), job.make("store")
        scene = timed("load", loader.load_asset, job.scene_config(scene_name))
        sequence = timed("plan", planner.gen_sequence, scene, stream(job.seed, scene_name, index, "plan"))
        observation = timed("render", render, scene, sequence, ours=ours)
        episode = Episode(EpisodeRequest(job.name, scene_name, index), output, scene=scene, sequence=sequence)
        pieces.append(timed("store", writer.save_data, sequence, observation, episode))
        frames += len(sequence)
    timed("publish", writer.publish, output, pieces, {"name": job.name, "seed": job.seed}, True)
    return {"seconds": dict(seconds), "frames": frames}


def main() -> None:
    """Run the job of a JSON file on standard input; the result goes to the file named first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    args = parser.parse_args()
    order = orjson.loads(sys.stdin.buffer.read())
    episodes = [(str(scene), int(index)) for scene, index in order["episodes"]]
    result = run_lockstep(Job.from_dict(order["job"]), episodes, Path(order["output"]), ours=order["ours"])
    args.result.write_bytes(orjson.dumps(result))


if __name__ == "__main__":
    main()
