"""A compiled model's lamps as numbers for a rasterizer, and where their shadow maps look from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.types import F32, F64
from nimbusd.stages.workflow.sim.world.world import FAR_M, NEAR_M

_WIDEST_RAD = math.radians(160)
"""Opening angle of a spot lamp's shadow map at most."""


@dataclass(frozen=True)
class Lamp:
    """A lamp. spot: shines from `position` (3,), else along `direction` (3,) from everywhere. Colours: RGB 0…1.

    cutoff_rad: half the angle of a spot's cone. fading: constant, linear, quadratic. exponent: how a spot fades to its
    rim. casting: throws shadows. T_map_world: (4, 4) clip coordinates of its shadow map.
    """

    spot: bool
    position: F64
    direction: F64
    ambient: F64
    diffuse: F64
    specular: F64
    cutoff_rad: float
    fading: F64
    exponent: float
    casting: bool
    T_map_world: F64

    def row(self) -> F32:
        """(24,) as the programs take it."""
        return np.array(
            [
                *self.position, float(self.spot), *self.direction, math.cos(self.cutoff_rad), *self.ambient, 0.0,
                *self.diffuse, 0.0, *self.specular, 0.0, *self.fading, self.exponent,
            ],
            np.float32,
        )  # fmt: skip


def lamps_of(model: Any, lights: list[Any], shadows: bool) -> tuple[Lamp, ...]:
    """The lamps of a scene's lights (mjvLight), those that cast shadows first.

    The light at the camera counts by its ambient part alone, which is all that worlds give it. Lights other than suns
    and spots are left out, as MuJoCo leaves them out.
    """
    import mujoco

    kinds = mujoco.mjtLightType
    made: list[Lamp] = []
    for light in lights:
        spot = light.type == kinds.mjLIGHT_SPOT
        if not spot and light.type != kinds.mjLIGHT_DIRECTIONAL:
            continue
        position, direction = np.array(light.pos, np.float64), np.array(light.dir, np.float64)
        shown = np.zeros(3) if light.headlight else np.ones(3)
        opening = min(2 * math.radians(light.cutoff) * float(model.vis.map.shadowscale), _WIDEST_RAD)
        half_m = float(model.vis.map.shadowclip * model.stat.extent)
        projection = _perspective(opening) if spot else _orthographic(half_m)
        made.append(
            Lamp(
                spot=spot,
                position=position,
                direction=direction,
                ambient=np.array(light.ambient, np.float64),
                diffuse=np.array(light.diffuse, np.float64) * shown,
                specular=np.array(light.specular, np.float64) * shown,
                cutoff_rad=math.radians(float(light.cutoff)) if spot else math.pi,
                fading=np.array(light.attenuation, np.float64) if spot else np.array([1.0, 0.0, 0.0]),
                exponent=float(light.exponent) if spot else 0.0,
                casting=bool(light.castshadow) and shadows and not light.headlight,
                T_map_world=projection @ _looking(position, direction),
            )
        )
    return tuple(sorted(made, key=lambda lamp: not lamp.casting))


def frustum(left: float, right: float, bottom: float, top: float) -> F64:
    """(4, 4) OpenGL's perspective projection. Edges: metres on the near plane."""
    near, far = NEAR_M, FAR_M
    return np.array(
        [
            [2 * near / (right - left), 0, (right + left) / (right - left), 0],
            [0, 2 * near / (top - bottom), (top + bottom) / (top - bottom), 0],
            [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, -1, 0],
        ]
    )


def _perspective(angle_rad: float) -> F64:
    edge = math.tan(angle_rad / 2) * NEAR_M
    return frustum(-edge, edge, -edge, edge)


def _orthographic(half_m: float) -> F64:
    near, far = NEAR_M, FAR_M
    projection = np.diag([1 / half_m, 1 / half_m, -2 / (far - near), 1.0])
    projection[2, 3] = -(far + near) / (far - near)
    return projection


def _looking(eye: F64, forward: F64) -> F64:
    """(4, 4) world to a lamp's eye, turned about its axis as MuJoCo turns its shadow maps."""
    f = forward / np.linalg.norm(forward)
    up = np.cross(f, [-1.0, 0.0, 0.0])
    if up @ up <= 0.01:
        up = np.cross(f, [0.0, 1.0, 0.0])
    s = np.cross(f, up / np.linalg.norm(up))
    s /= np.linalg.norm(s)
    T = np.eye(4)
    T[:3, :3] = np.array([s, np.cross(s, f), -f])
    T[:3, 3] = -T[:3, :3] @ eye
    return T
