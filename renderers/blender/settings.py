"""Quality presets of the Blender renderer, and how they become Cycles settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nimbusd.renderers.blender.device import Device, DeviceChoice
from nimbusd.stages.base import ComponentArgs

Preset = Literal["draft", "preview", "high"]
Denoiser = Literal["none", "fast", "balanced", "accurate"]
Guides = Literal["none", "albedo", "albedo_normal"]


class BlenderArgs(ComponentArgs):
    """Arguments of BlenderProcRenderer. What a preset decides can be overridden one by one."""

    preset: Preset = "preview"
    samples: int | None = Field(default=None, ge=1, le=65536, description="paths per pixel")
    denoiser: Denoiser | None = Field(default=None, description="quality of Open Image Denoise")
    guides: Guides | None = Field(default=None, description="noise-free passes shown to the denoiser")
    bounces: int | None = Field(default=None, ge=0, le=64, description="indirect reflections of light")
    depth: bool = True
    segmentation: bool = True
    view_transform: Literal["Khronos PBR Neutral", "AgX", "Filmic", "Standard"] = "Khronos PBR Neutral"
    exposure: float = Field(default=-0.4, ge=-16, le=16, description="stops")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="the same seed gives the same pixels")
    threads: int = Field(default=0, ge=0, le=1024, description="0: as many as the process may use")
    device: DeviceChoice = "auto"
    scratch: Path | None = Field(default=None, description="parent of the temporary folder; /dev/shm unless set")


class Quality(ComponentArgs):
    """A preset with the overrides applied."""

    samples: int
    denoiser: Denoiser
    guides: Guides
    bounces: int


# Measured on a furnished house, 320x240, 2 cores (tests/benchmarks/blender_frames.py prints the table).
# Light that stops after one or two bounces makes rooms 5-10 dB worse, while the sixth bounce costs nothing
# measurable (Russian roulette ends most paths before); the guides are worth 1 dB for 5% of the time.
PRESETS: dict[Preset, Quality] = {
    "draft": Quality(samples=1, denoiser="fast", guides="albedo_normal", bounces=6),
    "preview": Quality(samples=4, denoiser="fast", guides="albedo_normal", bounces=6),
    "high": Quality(samples=32, denoiser="accurate", guides="albedo_normal", bounces=8),
}


def quality(args: BlenderArgs) -> Quality:
    """The preset of `args`, with what `args` sets itself in its place."""
    chosen = {name: getattr(args, name) for name in Quality.model_fields if getattr(args, name) is not None}
    return PRESETS[args.preset].model_copy(update=chosen)


def apply_settings(scene: Any, args: BlenderArgs, device: Device) -> None:
    """Set everything of a bpy scene that does not change between frames."""
    wanted, cycles, render = quality(args), scene.cycles, scene.render
    render.engine = "CYCLES"
    cycles.device = "CPU" if device.kind == "CPU" else "GPU"
    cycles.seed, cycles.use_animated_seed = args.seed, False
    cycles.samples = wanted.samples
    cycles.use_adaptive_sampling = False
    _set_denoiser(cycles, wanted, device)
    _set_bounces(cycles, wanted.bounces)
    render.use_persistent_data = True
    render.use_compositing = render.use_sequencer = False
    render.dither_intensity = 0.0
    render.film_transparent = False
    render.use_motion_blur = False
    render.threads_mode = "FIXED"
    render.threads = args.threads or len(os.sched_getaffinity(0))
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform = args.view_transform
    scene.view_settings.look = "None"
    scene.view_settings.exposure = args.exposure
    # BMP is the cheapest file that passes through Blender's colour management: no compression, and
    # in memory-backed /dev/shm no disk either.
    render.image_settings.file_format = "BMP"
    render.image_settings.color_mode = "RGB"
    render.use_file_extension = True


def _set_denoiser(cycles: Any, wanted: Quality, device: Device) -> None:
    cycles.use_denoising = wanted.denoiser != "none"
    if not cycles.use_denoising:
        return
    cycles.denoiser = "OPENIMAGEDENOISE"
    cycles.denoising_use_gpu = device.kind != "CPU"
    cycles.denoising_quality = {"fast": "FAST", "balanced": "BALANCED", "accurate": "HIGH"}[wanted.denoiser]
    cycles.denoising_prefilter = "ACCURATE" if wanted.denoiser == "accurate" else "FAST"
    cycles.denoising_input_passes = {"none": "RGB", "albedo": "RGB_ALBEDO", "albedo_normal": "RGB_ALBEDO_NORMAL"}[
        wanted.guides
    ]


def _set_bounces(cycles: Any, bounces: int) -> None:
    cycles.max_bounces = cycles.diffuse_bounces = cycles.glossy_bounces = cycles.transmission_bounces = bounces
    cycles.volume_bounces = 0
    cycles.transparent_max_bounces = 8
    cycles.caustics_reflective = cycles.caustics_refractive = False
