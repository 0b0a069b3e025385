"""The rasterizer's programs with the corners that they run on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco.lamps import Lamp
from nimbusd.renderers.mujoco.shaders import (
    IDS_FRAGMENT,
    IDS_VERTEX,
    NOTHING_FRAGMENT,
    SHADOW_VERTEX,
    colour_fragment,
    colour_vertex,
)
from nimbusd.renderers.mujoco.surfaces import DrawnSurfaces
from nimbusd.stages.types import F64, I32

_TO_TEXTURE = np.array([[0.5, 0, 0, 0.5], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0.5], [0, 0, 0, 1]])
"""Clip coordinates to those of a texture and its depth."""


class Programs:
    """Programs for a world's surfaces under its lamps, of which those that cast shadows come first.

    shadow, ids: vertex arrays of all triangles, for depth alone and for ids. Colour is drawn from triangles that are
    filled in each time.
    """

    def __init__(self, gl: Any, surfaces: DrawnSurfaces, lamps: Sequence[Lamp]) -> None:
        self._held: list[Any] = []
        keep, self._kinds = self._keep, [picture.cube for picture in surfaces.pictures]
        casting = [lamp for lamp in lamps if lamp.casting]
        points = (keep(gl.buffer(surfaces.points)), "3f", "in_position")
        part = (keep(gl.buffer(surfaces.point_part)), "1u", "in_part")
        cluster = (keep(gl.buffer(surfaces.point_cluster)), "1u", "in_cluster")
        outline = keep(gl.buffer(surfaces.outline))
        self._flat = {
            "shadow": keep(gl.program(vertex_shader=SHADOW_VERTEX, fragment_shader=NOTHING_FRAGMENT)),
            "ids": keep(gl.program(vertex_shader=IDS_VERTEX, fragment_shader=IDS_FRAGMENT)),
        }
        self.shadow = keep(gl.vertex_array(self._flat["shadow"], [points, part], outline))
        self.ids = keep(gl.vertex_array(self._flat["ids"], [points, part, cluster], outline))
        corners = [
            (keep(gl.buffer(surfaces.positions)), "3f", "in_position"),
            (keep(gl.buffer(surfaces.normals)), "3f", "in_normal"),
            (keep(gl.buffer(surfaces.uvw)), "3f", "in_uvw"),
            (keep(gl.buffer(surfaces.part)), "1u", "in_part"),
        ]
        self._faces = keep(gl.buffer(reserve=surfaces.faces.nbytes))
        self._colour: dict[tuple[str, bool], tuple[Any, Any]] = {}
        for kind, opaque in sorted({(self._kind(entry.picture), entry.opaque) for entry in surfaces.parts}):
            program = keep(
                gl.program(
                    vertex_shader=colour_vertex(max(len(lamps), 1), len(casting), kind),
                    fragment_shader=colour_fragment(len(casting), kind, opaque),
                )
            )
            used = [entry for entry in corners if entry[2] in program]
            self._colour[kind, opaque] = program, keep(gl.vertex_array(program, used, self._faces))
            for k, lamp in enumerate(casting):
                _set(program, f"to_map{k}", _TO_TEXTURE @ lamp.T_map_world)
                if f"map{k}" in program:
                    program[f"map{k}"] = k + 1

    def aim(self, what: str, projection: F64, eye: F64 | None = None) -> None:
        """From where the next triangles of `shadow`, `ids` or `colour` are seen; colour needs the eye (3,) too."""
        if what != "colour":
            _set(self._flat[what], "projection", projection)
            return
        for program, _ in self._colour.values():
            _set(program, "projection", projection)
            if "eye" in program and eye is not None:
                program["eye"] = tuple(eye.tolist())

    def fill(self, faces: I32) -> None:
        """Triangles (F, 3) that `colour` draws from."""
        if len(faces):
            self._faces.orphan()
            self._faces.write(np.ascontiguousarray(faces))

    def colour(self, picture: int, opaque: bool, first: int, count: int) -> None:
        """Draw indices of what was filled in, with a picture or -1."""
        self._colour[self._kind(picture), opaque][1].render(vertices=count, first=first)

    def release(self) -> None:
        """Free everything on the device."""
        for thing in reversed(self._held):
            thing.release()
        self._held = []

    def _keep(self, thing: Any) -> Any:
        self._held.append(thing)
        return thing

    def _kind(self, picture: int) -> str:
        return "none" if picture < 0 else "cube" if self._kinds[picture] else "flat"


def _set(program: Any, name: str, matrix: F64) -> None:
    if name in program:
        program[name].write(np.ascontiguousarray(matrix.T, np.float32))
