"""Time and image error of the Blender renderer's presets, and of what they decide, in a furnished apartment.

    python -m tests.benchmarks.blender_frames [--width 320] [--reference-samples 512] [--json]

Every row renders the same views with the same seed. `cpu` counts the processor time of all threads, which
other programs on the machine disturb less than `wall`; the scene is loaded and synchronized before. The error
is against one reference of many samples, `high` otherwise, with another seed. The last row is ray casting of
depth and segmentation alone.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import click
import numpy as np

from nimbusd.renderers.blender.renderer import BlenderArgs, BlenderProcRenderer
from nimbusd.renderers.raycast import RayCaster
from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader
from nimbusd.stages.types import F64, U8, Camera, Scene, Sequence
from tests.benchmarks.lockstep import use_stock_settings
from tests.support.analytic_scenes import look_at, shot

RGB_ONLY = BlenderArgs(depth=False, segmentation=False)


@dataclass(frozen=True)
class Row:
    """One contender. psnr_db: None where there is no image."""

    name: str
    wall_ms: float
    cpu_ms: float
    psnr_db: float | None


def contenders() -> dict[str, BlenderProcRenderer]:
    """Name → renderer, the presets first."""

    def preset(name: str, **changes: object) -> BlenderArgs:
        return RGB_ONLY.model_copy(update={"preset": name, **changes})

    rows = {
        "draft": preset("draft"),
        "preview": preset("preview"),
        "high": preset("high"),
        "preview, 1 bounce": preset("preview", bounces=1),
        "preview, 3 bounces": preset("preview", bounces=3),
        "preview, denoiser sees colour alone": preset("preview", guides="none"),
        "preview, accurate denoiser": preset("preview", denoiser="accurate"),
        "preview, no denoiser": preset("preview", denoiser="none"),
    }
    stock = {f"{name}, Blender's stock settings": StockRenderer(rows[name]) for name in ("draft", "preview")}
    return {name: BlenderProcRenderer(args) for name, args in rows.items()} | stock


def views(scene: Scene, camera: Camera, count: int) -> Sequence:
    """One look across each of the first rooms."""
    poses = []
    for room in scene.rooms[:count]:
        low, high = room.polygon.min(axis=0), room.polygon.max(axis=0)
        x, y = low + 0.22 * (high - low)
        poses.append(look_at((float(x), float(y), 1.3), (float(high[0]), float(high[1]), 0.6)))
    return shot(camera, *poses)


class StockRenderer(BlenderProcRenderer):
    """With Blender's own denoiser quality and lights to aim at."""

    def load(self, scene: Scene) -> None:
        super().load(scene)
        use_stock_settings(self._bpy)


def render(renderer: BlenderProcRenderer, scene: Scene, seq: Sequence) -> tuple[U8, float, float]:
    """The frames, and wall and processor milliseconds per frame."""
    renderer.open("auto")
    try:
        renderer.load(scene)
        name = seq.cameras[0].name
        first = Sequence(seq.fps, seq.task, seq.cameras, {name: seq.T_world_camera[name][:1]}, {}, {}, {})
        renderer.gen_obs(first)
        wall, cpu = time.perf_counter(), time.process_time()
        frames = renderer.gen_obs(seq).frames[name]
        spent = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        renderer.close()
    return frames.rgb, spent[0] / len(seq) * 1e3, spent[1] / len(seq) * 1e3


def cast(scene: Scene, camera: Camera, poses: F64) -> Row:
    """Depth and segmentation alone."""
    caster = RayCaster(scene)
    caster.prepare(frozenset())
    caster.cast(camera, poses[0], {})  # the first cast builds Embree's tree
    wall, cpu = time.perf_counter(), time.process_time()
    for pose in poses:
        caster.cast(camera, pose, {})
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return Row("depth and segmentation", spent[0] / len(poses) * 1e3, spent[1] / len(poses) * 1e3, None)


def psnr_db(image: U8, reference: U8) -> float:
    error = np.mean((image.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(255.0**2 / max(error, 1e-12)))


def table(rows: list[Row]) -> str:
    lines = [f"{'':36} {'wall ms':>8} {'cpu ms':>8} {'PSNR dB':>8}"]
    for row in rows:
        quality = "" if row.psnr_db is None else f"{row.psnr_db:.1f}"
        lines.append(f"{row.name:36} {row.wall_ms:8.0f} {row.cpu_ms:8.0f} {quality:>8}")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--width", default=320, help="pixels; the height is 3/4 of it")
@click.option("--rooms", default=2, help="how many rooms to look at")
@click.option("--reference-samples", default=512)
@click.option("--json", "as_json", is_flag=True, help="print rows as JSON")
def main(width: int, rooms: int, reference_samples: int, as_json: bool) -> None:
    scene = ApartmentLoader(ApartmentArgs()).load_asset(ApartmentConfig(name="bench", seed=1))
    camera = Camera("bench", width, width * 3 // 4, width * 0.56, width * 0.56, width / 2, width * 3 / 8)
    seq = views(scene, camera, rooms)
    best = RGB_ONLY.model_copy(update={"preset": "high", "samples": reference_samples, "seed": 1})
    reference, _, _ = render(BlenderProcRenderer(best), scene, seq)
    rows = []
    for name, renderer in contenders().items():
        image, wall_ms, cpu_ms = render(renderer, scene, seq)
        rows.append(Row(name, wall_ms, cpu_ms, psnr_db(image, reference)))
    rows.append(cast(scene, camera, seq.T_world_camera[camera.name]))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        faces = sum(len(obj.faces) for obj in scene.objects)
        click.echo(f"{faces} triangles, {camera.width}x{camera.height}, {reference_samples}-sample reference")
        click.echo(table(rows))


if __name__ == "__main__":
    main()
