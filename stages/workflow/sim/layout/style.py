"""Other looks for one recorded trace: view, material and light change, geometry and motion do not.

`styled` gives the layout in another style; planning it gives the same states. A trace that is recorded already is shown
in another style by its states, the scene of the styled layout, and `camera_poses` of both.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from pydantic import Field

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.load.textures import KINDS
from nimbusd.stages.workflow.sim.layout.flooring import floor_beside
from nimbusd.stages.workflow.sim.layout.layout import CameraLayout, Layout, LightLayout, Pose, Surface
from nimbusd.stages.workflow.sim.rotation import about


class Style(ComponentArgs):
    """Limits of how other looks differ from a layout's. seed: picks one of many; the defaults change nothing.

    materials: new textures of table, floor and walls, new tints of the objects. lights: new direction and brightness.
    view_m, view_rad: shift and turn of fixed cameras, at most.
    """

    seed: int = Field(default=0, ge=0, lt=1 << 63)
    materials: bool = False
    lights: bool = False
    view_m: float = Field(default=0.0, ge=0, le=0.5)
    view_rad: float = Field(default=0.0, ge=0, le=0.5)


def styled(layout: Layout, style: Style) -> Layout:
    """The layout in another style. Poses, sizes, masses and everything else that motion depends on stay the same."""
    material_rng, light_rng, view_rng = np.random.default_rng(style.seed).spawn(3)
    if style.materials:
        top, floor_rng = _surface(layout.table.surface, material_rng), material_rng.spawn(1)[0]
        floor = layout.background.get("floor", Surface())
        background = {name: _surface(old, material_rng) for name, old in sorted(layout.background.items())}
        layout = replace(
            layout,
            table=replace(layout.table, surface=top),
            background={**background, "floor": floor_beside(top, lambda: _surface(floor, floor_rng))},
            objects=tuple(replace(entry, surface=_tinted(entry.surface, material_rng)) for entry in layout.objects),
        )
    if style.lights:
        layout = replace(layout, lights=tuple(_light(lamp, light_rng) for lamp in layout.lights))
    if style.view_m or style.view_rad:
        layout = replace(layout, cameras=tuple(_moved(entry, style, view_rng) for entry in layout.cameras))
    return layout


def _surface(old: Surface, rng: np.random.Generator) -> Surface:
    kind = KINDS[int(rng.integers(len(KINDS)))]
    scale = old.texture_scale * float(rng.uniform(0.7, 1.4))
    return replace(old, texture=kind, texture_seed=int(rng.integers(2**31)), texture_scale=scale)


def _tinted(old: Surface, rng: np.random.Generator) -> Surface:
    red, green, blue = (min(1.0, channel * float(rng.uniform(0.75, 1.2))) for channel in old.color)
    return replace(old, color=(red, green, blue), gloss=float(rng.uniform(0.05, 0.6)))


def _light(lamp: LightLayout, rng: np.random.Generator) -> LightLayout:
    turn = about((0.0, 0.0, 1.0), float(rng.uniform(-math.pi, math.pi)))
    x, y, z = (float(value) for value in turn @ np.asarray(lamp.direction))
    level = float(rng.uniform(0.6, 1.3))
    red, green, blue = (min(1.0, channel * level * float(rng.uniform(0.9, 1.1))) for channel in lamp.diffuse)
    position = lamp.position if lamp.kind == "spot" else (0.4 - 2 * x, -2 * y, 0.8 - 2 * z)
    return replace(lamp, direction=(x, y, z), position=position, diffuse=(red, green, blue))


def _moved(entry: CameraLayout, style: Style, rng: np.random.Generator) -> CameraLayout:
    shift, turn = rng.uniform(-style.view_m, style.view_m, 3), rng.uniform(-style.view_rad, style.view_rad, 3)
    if entry.mount:
        return entry
    T = entry.pose.matrix()
    T[:3, 3] += shift
    angle = float(np.linalg.norm(turn))
    if angle > 0:
        T[:3, :3] = T[:3, :3] @ about(turn, angle)
    return replace(entry, pose=Pose.from_matrix(T))
