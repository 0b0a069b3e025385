"""A small rasterizer on OpenGL 4.3: shadow maps once per state, then every camera's ids, depth and colour.

Shadow maps depend on the state alone, and so are drawn once for all cameras. A camera's ids and depth are drawn first,
without light, with one sample in the middle of each pixel. They tell which clusters of triangles are seen at all; only
these are lit and drawn in colour, with four samples per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco.lamps import Lamp
from nimbusd.renderers.mujoco.pictures import Picture
from nimbusd.renderers.mujoco.programs import Programs
from nimbusd.renderers.mujoco.surfaces import DrawnSurfaces, Part
from nimbusd.stages.types import F32, F64, I32, U8, U16, BoolArray
from nimbusd.stages.workflow.sim.world.world import NEAR_M

SAMPLES = 4
"""Samples per pixel of RGB."""

_OFFSET = (1.5, 4.0)
"""Casters are pushed away from the lamp, so that surfaces do not shade themselves: by slope, by depth steps."""

_TOUCHING_M = 1e-4
"""Metres that a part may be in what it stands on and still count as above it."""

_SRGB = {3: 0x8C41, 4: 0x8C43}
"""OpenGL's numbers of the formats that are made linear when looked up, by channels."""


@dataclass(frozen=True)
class Look:
    """One camera's view. projection: (4, 4) world to clip coordinates. eye: (3,). rectangle: x, y, width, height."""

    projection: F64
    eye: F64
    rectangle: tuple[int, int, int, int]


@dataclass(frozen=True)
class _Group:
    """Opaque triangles with one picture. faces: (G, 3). cluster: (G,)."""

    picture: int
    faces: I32
    cluster: I32


class Raster:
    """Draws the surfaces of one world. Its OpenGL context must be current wherever it is used.

    ids: (N,) what each part is painted with; none is 0. shadow_px: edge of a shadow map.
    """

    def __init__(self, gl: Any, surfaces: DrawnSurfaces, ids: U16, lamps: Sequence[Lamp], shadow_px: int) -> None:
        self._gl, self._surfaces, self._shadow_px = gl, surfaces, shadow_px
        self._casting = tuple(lamp for lamp in lamps if lamp.casting)
        parts = surfaces.parts
        self._middles = np.array([[*part.middle, 1.0] for part in parts])
        self._half = np.array([part.half for part in parts])
        self._reach_m = np.array([part.reach_m for part in parts])
        self._boxes = np.flatnonzero([part.box for part in parts])
        self._closed = np.array([part.closed for part in parts])
        self._opaque = np.array([part.opaque for part in parts])
        self._middle_m = np.zeros((len(parts), 3))
        self._id_of_cluster = np.concatenate([np.zeros(1, np.uint16), ids[surfaces.cluster_part]])
        self._groups = _groups(surfaces)
        self._held: list[Any] = []
        self._places = self._keep(gl.buffer(reserve=48 * len(parts)))
        self._materials = self._keep(gl.buffer(np.array([_material(part) for part in parts], np.float32)))
        rows = [lamp.row() for lamp in lamps] or [np.zeros(24, np.float32)]
        self._lamp_rows = self._keep(gl.buffer(np.concatenate(rows)))
        self._commands = self._keep(gl.buffer(reserve=20 * len(parts)))
        self._pictures = [self._keep(_texture(gl, picture)) for picture in surfaces.pictures]
        self._maps = [self._keep(_shadow_map(gl, shadow_px)) for _ in self._casting]
        self._map_buffers = [self._keep(gl.framebuffer(depth_attachment=texture)) for texture in self._maps]
        self._programs = self._keep(Programs(gl, surfaces, lamps))
        self._attached: list[Any] = []
        self._color: Any = None
        self._color_flat: Any = None
        self._geometry: Any = None
        self._sizes = (0, 0)
        self._exact: F32 = np.zeros((0, 0, 2), np.float32)

    def _keep(self, thing: Any) -> Any:
        self._held.append(thing)
        return thing

    def place(self, T_world_part: F64) -> None:
        """Put every part where (N, 4, 4) say, and draw the shadow maps."""
        gl, programs = self._gl, self._programs
        self._middle_m = np.einsum("nij,nj->ni", T_world_part[:, :3], self._middles)
        self._places.write(np.ascontiguousarray(T_world_part[:, :3], np.float32))
        self._bind()
        for lamp, buffer in zip(self._casting, self._map_buffers, strict=True):
            buffer.use()
            buffer.viewport = (0, 0, self._shadow_px, self._shadow_px)
            buffer.clear(depth=1.0)
            # A rim stays free, so that what lies beside the map is lit.
            buffer.viewport = (1, 1, self._shadow_px - 2, self._shadow_px - 2)
            programs.aim("shadow", lamp.T_map_world)
            casting = self._inside(lamp.T_map_world) & ~self._underlying(lamp, T_world_part)
            gl.polygon_offset = _OFFSET
            gl.depth_func = "<="
            gl.enable_only(gl.DEPTH_TEST)
            # Of what is closed, and does not hold the lamp, the triangles that look at it are enough.
            direction = lamp.direction / np.linalg.norm(lamp.direction)
            away = (self._middle_m - lamp.position) @ direction - self._reach_m > NEAR_M
            half = self._closed & away
            self._run(programs.shadow, casting & ~half)
            gl.enable_only(gl.DEPTH_TEST | gl.CULL_FACE)
            self._run(programs.shadow, casting & half)
            gl.polygon_offset = (0.0, 0.0)

    def begin(self, width: int, height: int) -> None:
        """Start an image of this size with nothing in it."""
        self._prepare(width, height)
        for buffer in (self._color, self._geometry):
            buffer.use()
            buffer.viewport = (0, 0, *self._sizes)
            buffer.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        self._exact = np.zeros((height, width, 2), np.float32)

    def draw(self, looks: Sequence[Look]) -> None:
        """Draw views of the parts as they are placed, into rectangles of the image that was begun, row by row."""
        gl, programs = self._gl, self._programs
        self._bind()
        self._geometry.use()
        gl.depth_func = "<="
        gl.enable_only(gl.DEPTH_TEST | gl.CULL_FACE)
        for look in looks:
            self._geometry.viewport = look.rectangle
            programs.aim("ids", look.projection)
            self._run(programs.ids, self._inside(look.projection))
        first = min(look.rectangle[1] for look in looks)
        last = max(look.rectangle[1] + look.rectangle[3] for look in looks)
        rows = self._exact[first:last]
        self._geometry.read_into(rows, (0, first, rows.shape[1], len(rows)), components=2, dtype="f4")
        for k, texture in enumerate(self._maps):
            texture.use(k + 1)
        self._color.use()
        for look in looks:
            x, y, width, height = self._color.viewport = look.rectangle
            programs.aim("colour", look.projection, look.eye)
            self._draw_opaque(self._exact[y : y + height, x : x + width, 0])
            self._draw_clear(look)

    def read(self) -> tuple[U8, U16, F32]:
        """The image: RGBA (H, W, 4), ids (H, W), metres along the optical axis (H, W); lowest row first."""
        height, width = self._exact.shape[:2]
        self._gl.copy_framebuffer(self._color_flat, self._color)
        colour = np.empty((height, width, 4), np.uint8)
        self._color_flat.read_into(colour, (0, 0, width, height), components=4)
        return colour, self._id_of_cluster[self._exact[..., 0].astype(np.int32)], self._exact[..., 1]

    def close(self) -> None:
        """Free everything on the device."""
        for thing in [*self._attached, *self._held]:
            thing.release()
        self._attached, self._held = [], []

    def _bind(self) -> None:
        self._places.bind_to_storage_buffer(0)
        self._materials.bind_to_storage_buffer(1)
        self._lamp_rows.bind_to_uniform_block(0)

    def _draw_opaque(self, clusters: F32) -> None:
        """Draw the groups' triangles whose clusters, counted from 1, are seen, or are neighbours of such.

        Neighbours fill what is narrower than a pixel. Clear parts would hide others in the ids: with any, all is drawn.
        """
        seen = np.full(len(self._id_of_cluster) + 1, not self._opaque.all())
        seen[clusters.astype(np.int32)] = True
        seen[1:-1] |= seen[2:] | seen[:-2]
        chosen = [group.faces[seen[1:][group.cluster]] for group in self._groups]
        self._programs.fill(np.concatenate(chosen))
        first = 0
        for group, faces in zip(self._groups, chosen, strict=True):
            if len(faces):
                if group.picture >= 0:
                    self._pictures[group.picture].use(0)
                self._programs.colour(group.picture, True, 3 * first, 3 * len(faces))
            first += len(faces)

    def _draw_clear(self, look: Look) -> None:
        clear = np.flatnonzero(self._inside(look.projection) & ~self._opaque)
        if not len(clear):
            return
        gl, parts = self._gl, self._surfaces.parts
        away = np.linalg.norm(self._middle_m[clear] - look.eye, axis=1) - self._reach_m[clear]
        order = clear[np.argsort(away, kind="stable")]
        gl.enable_only(gl.DEPTH_TEST | gl.CULL_FACE | gl.BLEND)
        gl.blend_func = gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA
        self._color.depth_mask = False
        # Twice, as MuJoCo does: what is behind shows through what is before it whichever is nearer.
        for part in [*order, *order[::-1]]:
            if parts[part].picture >= 0:
                self._pictures[parts[part].picture].use(0)
            first, count = parts[part].triangles
            self._programs.fill(self._surfaces.faces[first : first + count])
            self._programs.colour(parts[part].picture, False, 0, 3 * count)
        self._color.depth_mask = True
        gl.enable_only(gl.DEPTH_TEST | gl.CULL_FACE)

    def _run(self, array: Any, chosen: BoolArray) -> None:
        """Draw all triangles of the chosen parts, neighbours in one go."""
        runs: list[list[int]] = []
        for part in np.flatnonzero(chosen):
            first, count = self._surfaces.parts[part].triangles
            if runs and sum(runs[-1]) == first:
                runs[-1][1] += count
            else:
                runs.append([first, count])
        if runs:
            commands = np.array([[3 * count, 1, 3 * first, 0, 0] for first, count in runs], np.uint32)
            self._commands.orphan()
            self._commands.write(commands)
            array.render_indirect(self._commands, count=len(runs))

    def _inside(self, projection: F64) -> BoolArray:
        """(N,) which parts may be inside the six planes of a projection."""
        planes = np.concatenate([projection[3] + projection[:3], projection[3] - projection[:3]])
        planes = planes / np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
        distance = self._middle_m @ planes[:, :3].T + planes[:, 3]
        return np.asarray((distance > -self._reach_m[:, None] - 1e-3).all(axis=1))

    def _underlying(self, lamp: Lamp, T_world_part: F64) -> BoolArray:
        """(N,) boxes that throw no shadow on anything: all else is above one of their sides that looks at the lamp.

        So is the floor, which would fill the whole map.
        """
        R = T_world_part[:, :3, :3]
        normals = np.concatenate([R.transpose(0, 2, 1), -R.transpose(0, 2, 1)], axis=1)[self._boxes]  # (B, 6, 3)
        centre, half = self._middle_m[self._boxes], np.tile(self._half[self._boxes], 2)
        side = np.einsum("bsi,bi->bs", normals, centre) + half
        spread = np.einsum("bsnj,nj->bsn", np.abs(np.einsum("bsi,nij->bsnj", normals, R)), self._half)
        lowest = np.einsum("bsi,ni->bsn", normals, self._middle_m) - spread
        above = lowest >= side[..., None] - _TOUCHING_M
        above[np.arange(len(self._boxes)), :, self._boxes] = True
        towards = normals @ lamp.position - side > 0 if lamp.spot else normals @ lamp.direction < 0
        found = np.zeros(len(R), bool)
        found[self._boxes] = (above.all(axis=2) & towards).any(axis=1)
        return found

    def _prepare(self, width: int, height: int) -> None:
        """Framebuffers at least so large."""
        if width <= self._sizes[0] and height <= self._sizes[1]:
            return
        for thing in self._attached:
            thing.release()
        gl, size = self._gl, (max(width, self._sizes[0]), max(height, self._sizes[1]))
        colour, depth = gl.renderbuffer(size, 4, samples=SAMPLES), gl.depth_renderbuffer(size, samples=SAMPLES)
        flat = gl.renderbuffer(size, 4)
        exact, exact_depth = gl.renderbuffer(size, 2, dtype="f4"), gl.depth_renderbuffer(size)
        self._color, self._color_flat = gl.framebuffer([colour], depth), gl.framebuffer([flat])
        self._geometry = gl.framebuffer([exact], exact_depth)
        buffers = [self._color, self._color_flat, self._geometry]
        self._attached = [*buffers, colour, depth, flat, exact, exact_depth]
        self._sizes = size


def _groups(surfaces: DrawnSurfaces) -> list[_Group]:
    """The opaque triangles by picture; those of large parts last, which others often hide."""
    count = [part.triangles[1] for part in surfaces.parts]
    of_triangle = np.repeat([part.picture if part.opaque else -2 for part in surfaces.parts], count)
    reach_m = np.repeat([part.reach_m for part in surfaces.parts], count)
    found = [(float(reach_m[of_triangle == picture].max()), picture) for picture in np.unique(of_triangle).tolist()]
    return [
        _Group(picture, surfaces.faces[of_triangle == picture], surfaces.cluster[of_triangle == picture])
        for _, picture in sorted(found)
        if picture > -2
    ]


def _material(part: Part) -> list[float]:
    return [*part.rgba, part.specular, part.shininess, part.emission, 0.0]


def _texture(gl: Any, picture: Picture) -> Any:
    channels, pixels = picture.pixels.shape[-1], picture.pixels.tobytes()
    height, width = picture.pixels.shape[-3:-1]
    settings = {"internal_format": _SRGB[channels]} if picture.linear else {}
    made = (gl.texture_cube if picture.cube else gl.texture)((width, height), channels, pixels, **settings)
    if not picture.cube:
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
