"""The CPU rasterizer of Gaussian splats against the original algorithm, straightforward, on the same cores.

    python -m tests.benchmarks.gs_cpu [--counts 50000 500000 3000000] [--frames 4] [--threads N] [--json]

Gaussians are sampled from an apartment and given spherical harmonics of degree 3; cameras stand in its rooms. Each
count is a process of its own, which tells its peak memory. Columns: milliseconds per frame, the best of --repeats
rounds in which the two take turns; share of the original's Gaussian-tile pairs that exact culling leaves out; mean and
largest difference of the images (the original cuts Gaussians off at three standard deviations). Exits with 1 where
ours is slower, where more than a colour step differs on average, or where memory reaches 4 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from nimbusd.renderers.splats.cpu import CpuRasterizer
from nimbusd.stages.load.splats.loader import GSMeshArgs, GSMeshConfig, GSMeshLoader
from nimbusd.stages.types import F64, Camera, Scene, Splats
from tests.benchmarks.gs_naive import render_naive

SIZES = ((320, 240), (640, 480))
MEMORY_LIMIT_MB = 4096
_SKY = (0.8, 0.9, 1.0)


def cloud(count: int) -> tuple[Scene, Splats]:
    """An apartment and its Gaussians, whose colours depend on the direction a little."""
    scene = GSMeshLoader(GSMeshArgs(gaussians=count)).load_asset(GSMeshConfig(name="apartment_000", seed=11))
    assert scene.splats is not None
    rng = np.random.default_rng(1)
    sh = np.empty((len(scene.splats), 16, 3), np.float32)
    for k in range(16):
        sh[:, k] = scene.splats.sh[:, 0] if k == 0 else rng.normal(scale=0.02, size=(len(sh), 3))
    return scene, replace(scene.splats, sh=sh)


def views(scene: Scene, frames: int) -> F64:
    """(frames, 4, 4) poses in the middle of rooms, looking around."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for k in range(frames):
        x, y = scene.rooms[k % len(scene.rooms)].polygon.mean(axis=0)
        yaw = 1.1 + 2.2 * k
        right, forward = (np.sin(yaw), -np.cos(yaw), 0.0), np.array([np.cos(yaw), np.sin(yaw), 0.0])
        poses[k, :3, :3] = np.column_stack([right, (0.0, 0.0, 1.0), -forward])
        poses[k, :3, 3] = x, y, 1.2
    return poses


def measure(count: int, frames: int, threads: int, repeats: int) -> dict[str, Any]:
    """Both sides at every size, in this process."""
    import numba

    scene, splats = cloud(count)
    poses = views(scene, frames)
    ours = CpuRasterizer(threads)
    ours.load(splats)
    rows = []
    for width, height in SIZES:
        camera = Camera("front", width, height, 0.66 * width, 0.66 * width, width / 2, height / 2)
        images = ours.render(camera, poses, _SKY)  # compiled, memory touched
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the baseline takes its own
        times: dict[str, list[float]] = {"ours": [], "original": []}
        for turn in range(repeats + 1):
            began = time.perf_counter()
            numba.set_num_threads(min(threads, numba.get_num_threads()) if threads else numba.get_num_threads())
            baseline, listed = render_naive(splats, camera, poses, _SKY)
            middle = time.perf_counter()
            ours.render(camera, poses, _SKY)
            if turn:  # the first compiles the baseline
                times["original"].append((middle - began) / frames)
                times["ours"].append((time.perf_counter() - middle) / frames)
        difference = np.abs(np.clip(images.rgb, 0, 1) - np.clip(baseline.rgb, 0, 1)) * 255
        rows.append(
            {
                "gaussians": len(splats),
                "size": f"{width}x{height}",
                "ours_ms": 1e3 * min(times["ours"]),
                "original_ms": 1e3 * min(times["original"]),
                "speedup": min(times["original"]) / min(times["ours"]),
                "pairs": ours.pairs / frames,
                "culled": 1 - ours.pairs / listed,
                "mean_difference": float(difference.mean()),
                "largest_difference": float(difference.max()),
                "peak_mb": peak_mb,
            }
        )
    return {"rows": rows}


def table(rows: list[dict[str, Any]]) -> str:
    head = f"{'Gaussians':>10} {'size':>8} {'ours ms':>9} {'orig. ms':>9} {'speed-up':>9} {'pairs':>9} {'culled':>7}"
    lines = [head + f" {'diff/255 mean':>14} {'largest':>8} {'peak MB':>8}"]
    lines += [
        f"{r['gaussians']:>10} {r['size']:>8} {r['ours_ms']:>9.1f} {r['original_ms']:>9.1f} {r['speedup']:>8.2f}x "
        f"{r['pairs']:>9.0f} {r['culled']:>7.1%} {r['mean_difference']:>14.4f} {r['largest_difference']:>8.2f} "
        f"{r['peak_mb']:>8.0f}"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[50_000, 500_000, 3_000_000])
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as the process may use")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.here, args.frames, args.threads, args.repeats)))
        return
    rows: list[dict[str, Any]] = []
    for count in args.counts:
        command = [sys.executable, "-m", "tests.benchmarks.gs_cpu", "--here", str(count), "--frames", str(args.frames)]
        command += ["--repeats", str(args.repeats), "--threads", str(args.threads)]
        rows += json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["rows"]
        if not args.json:
            print(table(rows[-len(SIZES) :]), flush=True)
    if args.json:
        print(json.dumps({"cores": len(os.sched_getaffinity(0)), "rows": rows}))
    slow = [r for r in rows if r["speedup"] < 1 or r["mean_difference"] > 1 or r["peak_mb"] > MEMORY_LIMIT_MB]
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
