"""Gaussian splats on a CUDA GPU: gsplat one view at a time, as our renderer calls it, and our CPU rasterizer.

    python -m tests.benchmarks.gs_cuda [--counts 500000 3000000] [--frames 32] [--json]

Needs a CUDA GPU and `pip install 'nimbusd[gs-cuda]'`; says so and exits with 2 elsewhere. The scene and the views are
those of `tests.benchmarks.gs_cpu`. `as is` draws a view a call, unpacked, and copies each picture back; `ours` is
`GsplatRasterizer`: cameras in batches, packed. Columns: milliseconds per frame of both, the difference of their images,
and that of the GPU's to the CPU rasterizer's (colour; and depth where coverage is above 0.99, which differs by
definition: gsplat takes a Gaussian's centre, the CPU the point where the ray meets it). Exits with 1 where colours
differ by more than a step of 255 on average, or batches are slower than single views.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from typing import Any

import numpy as np

from nimbusd.renderers.splats.cpu import CpuRasterizer
from nimbusd.renderers.splats.gsplat_cuda import GsplatRasterizer
from nimbusd.renderers.splats.types import NEAR_M, SplatImages, cameras_to_splats
from nimbusd.stages.errors import BackendUnavailable
from nimbusd.stages.types import F64, Camera, Splats
from tests.benchmarks.gs_cpu import SIZES, cloud, views

_SKY = (0.8, 0.9, 1.0)
_COMPARED = 4


def as_is(splats: Splats, camera: Camera, poses: F64) -> tuple[SplatImages, float]:
    """gsplat's plain call, view by view; the images and seconds per frame."""
    torch: Any = importlib.import_module("torch")
    rasterization: Any = importlib.import_module("gsplat").rasterization

    def tensor(values: Any) -> Any:
        return torch.as_tensor(np.ascontiguousarray(values, np.float32), device="cuda")

    arrays = [tensor(a) for a in (splats.means, splats.quats, splats.scales, splats.opacities, splats.sh)]
    view, _ = cameras_to_splats(splats, poses)
    matrices = np.tile(np.eye(4), (len(view), 1, 1))
    matrices[:, :3] = view
    drawn: list[Any] = []
    with torch.inference_mode():
        for _ in range(2):  # the first warms up
            drawn.clear()
            torch.cuda.synchronize()
            began = time.perf_counter()
            for matrix in matrices:
                image, alpha, _ = rasterization(
                    *arrays, tensor(matrix[None]), tensor(camera.matrix()[None]), camera.width, camera.height,
                    near_plane=NEAR_M / splats.unit_m, sh_degree=splats.sh_degree, packed=False, render_mode="RGB+ED",
                )  # fmt: skip
                drawn.append((image[0].cpu().numpy(), alpha[0, ..., 0].cpu().numpy()))
            seconds = time.perf_counter() - began
    pictures, coverage = (np.stack([pair[k] for pair in drawn]) for k in (0, 1))
    rgb = pictures[..., :3] + (1 - coverage)[..., None] * np.asarray(_SKY, np.float32)
    return SplatImages(rgb, pictures[..., 3] * splats.unit_m, coverage), seconds / len(poses)


def measure(count: int, frames: int) -> list[dict[str, Any]]:
    scene, splats = cloud(count)
    poses = views(scene, frames)
    gpu, cpu = GsplatRasterizer("cuda"), CpuRasterizer()
    gpu.load(splats)
    cpu.load(splats)
    rows = []
    for width, height in SIZES:
        camera = Camera("front", width, height, 0.66 * width, 0.66 * width, width / 2, height / 2)
        single, single_s = as_is(splats, camera, poses)
        batched = gpu.render(camera, poses, _SKY)
        began = time.perf_counter()
        gpu.render(camera, poses, _SKY)
        batched_s = (time.perf_counter() - began) / frames
        exact = cpu.render(camera, poses[:_COMPARED], _SKY)
        solid = exact.coverage > 0.99
        rows.append(
            {
                "gaussians": len(splats),
                "size": f"{width}x{height}",
                "gpu": gpu.device_name,
                "as_is_ms": 1e3 * single_s,
                "ours_ms": 1e3 * batched_s,
                "speedup": single_s / batched_s,
                "difference": float(np.abs(single.rgb - batched.rgb).mean() * 255),
                "difference_to_cpu": float(np.abs(exact.rgb - batched.rgb[:_COMPARED]).mean() * 255),
                "depth_to_cpu_m": float(np.median(np.abs(exact.depth_m - batched.depth_m[:_COMPARED])[solid])),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[500_000, 3_000_000])
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        rows = [row for count in args.counts for row in measure(count, args.frames)]
    except BackendUnavailable as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if args.json:
        print(json.dumps({"rows": rows}))
    else:
        print(
            f"{rows[0]['gpu']}\n{'Gaussians':>10} {'size':>8} {'as is ms':>9} {'ours ms':>9} {'diff':>7} {'to CPU':>7}"
        )
        for r in rows:
            print(
                f"{r['gaussians']:>10} {r['size']:>8} {r['as_is_ms']:>9.2f} {r['ours_ms']:>9.2f} "
                f"{r['difference']:>7.3f} {r['difference_to_cpu']:>7.3f}"
            )
    sys.exit(any(r["speedup"] < 1 or max(r["difference"], r["difference_to_cpu"]) > 1 for r in rows))


if __name__ == "__main__":
    main()
