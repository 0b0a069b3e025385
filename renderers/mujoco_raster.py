"""A small rasterizer on OpenGL 4.3: shadow maps once per state, then every camera's colour, ids and depth.

Shadow maps depend on the state alone, and so are drawn once for all cameras. Colour has four samples per pixel; ids and
depth are drawn in a second pass with one sample in the middle of the pixel, without light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco_lamps import Lamp
from nimbusd.renderers.mujoco_shaders import IDS_FRAGMENT, IDS_VERTEX, OUTLINE_VERTEX, colour_fragment, colour_vertex
from nimbusd.renderers.mujoco_surfaces import Part, Picture, Surfaces
from nimbusd.stages.types import F32, F64, I32, U8, U16

SAMPLES = 4
"""Samples per pixel of RGB."""

_OFFSET = (1.5, 4.0)
"""How far casters are pushed away from the lamp, so that surfaces do not shade themselves: by slope, by depth steps."""

_SRGB = {3: 0x8C41, 4: 0x8C43}
"""OpenGL's numbers of the formats that are made linear when looked up, by channels."""


@dataclass(frozen=True)
class Look:
    """One camera's view. projection: (4, 4) world to clip coordinates. eye: (3,). rectangle: x, y, width, height."""

    projection: F64
    eye: F64
    rectangle: tuple[int, int, int, int]


class Raster:
    """Draws the surfaces of one world. Its OpenGL context must be current wherever it is used.

    ids: (N,) what each part is painted with. exact: draw ids and depth.
    """

    def __init__(
        self, gl: Any, surfaces: Surfaces, ids: U16, lamps: Sequence[Lamp], shadow_px: int, exact: bool
    ) -> None:
        self._gl, self._surfaces, self._lamps, self._exact = gl, surfaces, tuple(lamps), exact
        self._casting = tuple(lamp for lamp in lamps if lamp.casting)
        self._held: list[Any] = []
        parts = surfaces.parts
        self._middles = np.array([[*part.middle, 1.0] for part in parts])
        self._reach_m = np.array([part.reach_m for part in parts])
        self._opaque = np.array([part.opaque for part in parts])
        self._places = self._keep(gl.buffer(reserve=48 * len(parts)))
        self._ids = self._keep(gl.buffer(ids.astype(np.uint32)))
        self._materials = self._keep(gl.buffer(np.array([_material(part) for part in parts], np.float32)))
        self._lamp_rows = self._keep(gl.buffer(np.concatenate([lamp.row() for lamp in lamps] or [np.zeros(24, np.float32)])))
        self._commands = self._keep(gl.buffer(reserve=20 * len(parts)))
        self._pictures = [self._keep(_texture(gl, picture)) for picture in surfaces.pictures]
        self._maps = [self._keep(_shadow_map(gl, shadow_px)) for _ in self._casting]
        self._map_buffers = [self._keep(gl.framebuffer(depth_attachment=texture)) for texture in self._maps]
        self._shadow_px = shadow_px
        self._middle_m = np.zeros((len(parts), 3))
        self._make_arrays()
        self._color: Any = None
        self._color_flat: Any = None
        self._geometry: Any = None
        self._sizes = self._wanted = (0, 0)
        self._attached: list[Any] = []

    def _keep(self, thing: Any) -> Any:
        self._held.append(thing)
        return thing

    def _make_arrays(self) -> None:
        gl, surfaces, keep = self._gl, self._surfaces, self._keep
        points = keep(gl.buffer(surfaces.points))
        point_part, outline = keep(gl.buffer(surfaces.point_part)), keep(gl.buffer(surfaces.outline))
        flat = [(points, "3f", "in_position"), (point_part, "1u", "in_part")]
        self._outline_program = keep(gl.program(vertex_shader=OUTLINE_VERTEX, fragment_shader="#version 430\nvoid main() {}\n"))
        self._outline = keep(gl.vertex_array(self._outline_program, flat, outline))
        self._ids_program = keep(gl.program(vertex_shader=IDS_VERTEX, fragment_shader=IDS_FRAGMENT))
        self._ids_array = keep(gl.vertex_array(self._ids_program, flat, outline))
        corners = [
            (keep(gl.buffer(surfaces.positions)), "3f", "in_position"),
            (keep(gl.buffer(surfaces.normals)), "3f", "in_normal"),
            (keep(gl.buffer(surfaces.uvw)), "3f", "in_uvw"),
            (keep(gl.buffer(surfaces.part)), "1u", "in_part"),
        ]
        faces = keep(gl.buffer(surfaces.faces))
        vertex = colour_vertex(max(len(self._lamps), 1), len(self._casting))
        self._colour: dict[tuple[str, bool], tuple[Any, Any]] = {}
        for part in surfaces.parts:
            key = (self._kind(part.picture), part.opaque)
            if key in self._colour:
                continue
            program = keep(gl.program(vertex_shader=vertex, fragment_shader=colour_fragment(len(self._casting), *key)))
            used = [entry for entry in corners if entry[2] in program]
            self._colour[key] = program, keep(gl.vertex_array(program, used, faces))
            for k, lamp in enumerate(self._casting):
                bias = np.array([[0.5, 0, 0, 0.5], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0.5], [0, 0, 0, 1]])
                _set(program, f"to_map{k}", bias @ lamp.T_map_world)
                if f"map{k}" in program:
                    program[f"map{k}"] = k + 1
            if "picture" in program:
                program["picture"] = 0
            if "Lamps" in program:
                program["Lamps"].binding = 0

    def _kind(self, picture: int) -> str:
        if picture < 0:
            return "none"
        return "cube" if self._surfaces.pictures[picture].cube else "flat"

    def place(self, T_world_part: F64) -> None:
        """Put every part where (N, 4, 4) say, and draw the shadow maps."""
        gl = self._gl
        self._middle_m = np.einsum("nij,nj->ni", T_world_part[:, :3], self._middles)
        self._places.write(np.ascontiguousarray(T_world_part[:, :3], np.float32))
        self._bind()
        everything = np.ones(len(self._surfaces.parts), bool)
        for lamp, buffer in zip(self._casting, self._map_buffers, strict=True):
            buffer.use()
            buffer.viewport = (0, 0, self._shadow_px, self._shadow_px)
            buffer.clear(depth=1.0)
            # A rim stays free, so that what lies beside the map is lit.
            buffer.viewport = (1, 1, self._shadow_px - 2, self._shadow_px - 2)
            gl.enable_only(gl.DEPTH_TEST)
            gl.depth_func = "<="
            gl.polygon_offset = _OFFSET
            _set(self._outline_program, "projection", lamp.T_map_world)
            self._run(self._outline, everything & self._inside(lamp.T_map_world), "outline")
            gl.polygon_offset = (0.0, 0.0)

    def begin(self, width: int, height: int) -> None:
        """Start an image of this size with nothing in it."""
        self._prepare(width, height)
        for buffer in (self._color, self._geometry):
            if buffer is not None:
                buffer.use()
                buffer.viewport = (0, 0, *self._sizes)
                buffer.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        self._wanted = (width, height)

    def draw(self, looks: Sequence[Look]) -> None:
        """Draw views of the parts as they are placed into the image that was begun."""
        gl = self._gl
        self._bind()
        for k, texture in enumerate(self._maps):
            texture.use(k + 1)
        visible = [self._inside(look.projection) for look in looks]
        self._color.use()
        for look, seen in zip(looks, visible, strict=True):
            self._color.viewport = look.rectangle
            self._draw_colour(look, seen)
        if self._geometry is not None:
            self._geometry.use()
            gl.enable_only(gl.DEPTH_TEST | gl.CULL_FACE)
            for look, seen in zip(looks, visible, strict=True):
                self._geometry.viewport = look.rectangle
                _set(self._ids_program, "projection", look.projection)
                self._run(self._ids_array, seen, "outline")

    def read(self) -> tuple[U8, F32 | None]:
        """The image: RGBA (H, W, 4), and ids and metres (H, W, 2) where they are wanted, lowest row first."""
        width, height = self._wanted
        self._gl.copy_framebuffer(self._color_flat, self._color)
        colour = np.empty((height, width, 4), np.uint8)
        self._color_flat.read_into(colour, (0, 0, width, height), components=4)
        if self._geometry is None:
            return colour, None
        exact = np.empty((height, width, 2), np.float32)
        self._geometry.read_into(exact, (0, 0, width, height), components=2, dtype="f4")
        return colour, exact

    def close(self) -> None:
        """Free everything on the device."""
        for thing in [*self._attached, *self._held]:
            thing.release()
        self._attached, self._held = [], []

    def _bind(self) -> None:
        self._places.bind_to_storage_buffer(0)
        self._ids.bind_to_storage_buffer(1)
        self._materials.bind_to_storage_buffer(2)
        self._lamp_rows.bind_to_uniform_block(0)

    def _draw_colour(self, look: Look, seen: Any) -> None:
        gl, parts = self._gl, self._surfaces.parts
        for program, _ in self._colour.values():
            _set(program, "projection", look.projection)
            if "eye" in program:
                program["eye"] = tuple(look.eye.tolist())
        gl.enable_only(gl.DEPTH_TEST | gl.CULL_FACE)
        gl.depth_func = "<="
        pictures = np.array([part.picture for part in parts])
        for picture in range(-1, len(self._pictures)):
            chosen = seen & self._opaque & (pictures == picture)
            if chosen.any():
                self._run(self._with_picture(picture, True), chosen, "faces")
        clear = np.flatnonzero(seen & ~self._opaque)
        if len(clear):
            away = np.linalg.norm(self._middle_m[clear] - look.eye, axis=1) - self._reach_m[clear]
            order = clear[np.argsort(away, kind="stable")]
            gl.enable_only(gl.DEPTH_TEST | gl.CULL_FACE | gl.BLEND)
            gl.blend_func = gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA
            self._color.depth_mask = False
            # Twice, as MuJoCo does: what is behind shows through what is before it whichever is nearer.
            for part in [*order, *order[::-1]]:
                only = np.zeros(len(parts), bool)
                only[part] = True
                self._run(self._with_picture(parts[part].picture, False), only, "faces")
            self._color.depth_mask = True

    def _with_picture(self, picture: int, opaque: bool) -> Any:
        if picture >= 0:
            self._pictures[picture].use(0)
        return self._colour[self._kind(picture), opaque][1]

    def _run(self, array: Any, chosen: Any, triangles: str) -> None:
        """Draw the chosen parts' `faces` or `outline`, neighbours in one go."""
        ranges = [getattr(self._surfaces.parts[part], triangles) for part in np.flatnonzero(chosen)]
        runs: list[list[int]] = []
        for first, count in ranges:
            if runs and sum(runs[-1]) == first:
                runs[-1][1] += count
            else:
                runs.append([first, count])
        if runs:
            commands = np.array([[count, 1, first, 0, 0] for first, count in runs], np.uint32)
            self._commands.orphan()
            self._commands.write(commands)
            array.render_indirect(self._commands, count=len(runs))

    def _inside(self, projection: F64) -> Any:
        """(N,) which parts may be inside the six planes of a projection."""
        planes = np.concatenate([projection[3] + projection[:3], projection[3] - projection[:3]])
        planes = planes / np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
        distance = self._middle_m @ planes[:, :3].T + planes[:, 3]
        return (distance > -self._reach_m[:, None] - 1e-3).all(axis=1)

    def _prepare(self, width: int, height: int) -> None:
        """Framebuffers at least so large."""
        if width <= self._sizes[0] and height <= self._sizes[1]:
            return
        for thing in self._attached:
            thing.release()
        gl, size = self._gl, (max(width, self._sizes[0]), max(height, self._sizes[1]))
        colour, depth = gl.renderbuffer(size, 4, samples=SAMPLES), gl.depth_renderbuffer(size, samples=SAMPLES)
        flat = gl.renderbuffer(size, 4)
        self._color = gl.framebuffer([colour], depth)
        self._color_flat = gl.framebuffer([flat])
        self._attached = [self._color, self._color_flat, colour, depth, flat]
        if self._exact:
            ids, ids_depth = gl.renderbuffer(size, 2, dtype="f4"), gl.depth_renderbuffer(size)
            self._geometry = gl.framebuffer([ids], ids_depth)
            self._attached += [self._geometry, ids, ids_depth]
        self._sizes = size


def _set(program: Any, name: str, matrix: F64) -> None:
    if name in program:
        program[name].write(np.ascontiguousarray(matrix.T, np.float32))


def _material(part: Part) -> list[float]:
    return [*part.rgba, part.specular, part.shininess, part.emission, 0.0]


def _texture(gl: Any, picture: Picture) -> Any:
    channels = picture.pixels.shape[-1]
    settings = {"internal_format": _SRGB[channels]} if picture.linear else {}
    if picture.cube:
        made = gl.texture_cube((picture.pixels.shape[2], picture.pixels.shape[1]), 3, picture.pixels.tobytes(), **settings)
    else:
        height, width = picture.pixels.shape[:2]
        made = gl.texture((width, height), channels, picture.pixels.tobytes(), **settings)
        made.repeat_x = made.repeat_y = True
    made.build_mipmaps()
    made.filter = (gl.LINEAR_MIPMAP_LINEAR, gl.LINEAR)
    return made


def _shadow_map(gl: Any, size: int) -> Any:
    made = gl.depth_texture((size, size))
    made.compare_func = "<="
    made.filter = (gl.NEAREST, gl.NEAREST)
    made.repeat_x = made.repeat_y = False
    return made
