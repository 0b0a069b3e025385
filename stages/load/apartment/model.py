"""The means of making furniture: `Palette`, the materials of one apartment, and `Model`, a thing under construction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from nimbusd.stages.load import textures
from nimbusd.stages.load.apartment.shapes import Mesh, Point, box, lathe, rounded_box, tube
from nimbusd.stages.types import F64, Material, Rgb, SceneObject

_FINE_KINDS = ("planks", "tiles", "wood", "brick")
"""Textures with sharp lines get all pixels, soft ones half as many along each edge."""


class Palette:
    """Materials shared by an apartment's furniture, so that pieces match and textures are drawn once.

    Each texture has its own stream of random numbers: asking for one never changes another.
    """

    def __init__(self, seed: np.random.SeedSequence, texture_px: int) -> None:
        self._seed = seed
        self._texture_px = texture_px
        self._drawn: dict[tuple[str, int], Material] = {}

    def textured(self, kind: str, number: int = 0, *, tint: Rgb = (1.0, 1.0, 1.0), roughness: float = 0.6) -> Material:
        """The apartment's `number`-th material of a texture kind, its colour multiplied by `tint`."""
        key = (kind, number)
        if key not in self._drawn:
            rng = self._rng(1 + textures.KINDS.index(kind), number)
            fine = kind in _FINE_KINDS
            image = textures.texture(kind, rng, self._texture_px if fine else max(16, self._texture_px // 2))
            self._drawn[key] = Material(f"{kind}_{number}", (1.0, 1.0, 1.0), image)
        return replace(self._drawn[key], base_color=tint, roughness=roughness)

    def painting(self, number: int) -> Material:
        image = textures.painting(self._rng(0, number), min(192, self._texture_px))
        return Material(f"painting_{number}", (1.0, 1.0, 1.0), image, roughness=0.5)

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed.entropy, spawn_key=purpose))

    @cached_property
    def wood(self) -> Material:
        return self.textured("wood", 0, roughness=0.45)

    @cached_property
    def second_wood(self) -> Material:
        return self.textured("wood", 1, roughness=0.5)

    @cached_property
    def upholstery(self) -> Material:
        return self.textured("fabric", 0, roughness=0.9)

    @cached_property
    def second_fabric(self) -> Material:
        return self.textured("fabric", 1, roughness=0.9)

    @cached_property
    def worktop(self) -> Material:
        return self.textured("stone", 0, roughness=0.25)

    @cached_property
    def front(self) -> Material:
        """The doors of kitchen units and bathroom furniture: one lacquer or wood for the whole apartment."""
        rng = self._rng(100)
        colors = ((0.8, 0.8, 0.78), (0.35, 0.42, 0.4), (0.12, 0.16, 0.22), (0.62, 0.6, 0.52), (0.5, 0.3, 0.16))
        return Material("front", colors[int(rng.integers(len(colors)))], roughness=0.35)


WHITE = Material("white_lacquer", (0.8, 0.8, 0.78), roughness=0.35)
LINEN = Material("linen", (0.78, 0.76, 0.72), roughness=0.95)
CERAMIC = Material("ceramic", (0.85, 0.85, 0.84), roughness=0.12)
STEEL = Material("steel", (0.6, 0.6, 0.61), roughness=0.28, metallic=1.0)
CHROME = Material("chrome", (0.8, 0.8, 0.82), roughness=0.08, metallic=1.0)
BRASS = Material("brass", (0.72, 0.52, 0.25), roughness=0.3, metallic=1.0)
BLACK = Material("black", (0.02, 0.02, 0.022), roughness=0.4)
SCREEN = Material("screen", (0.01, 0.011, 0.013), roughness=0.12)
GLASS = Material("glass", (0.9, 0.95, 0.95), roughness=0.02, opacity=0.12)
SILVERED = Material("silvered_glass", (0.9, 0.9, 0.92), roughness=0.02, metallic=1.0)
SOIL = Material("soil", (0.05, 0.035, 0.025), roughness=1.0)


@dataclass
class Model:
    """A piece of furniture: parts with materials. Its front looks along +y, it stands on z = 0.

    front_m: free depth that people need before it. mount_z_m: height of its z = 0 above the floor.
    fixed: built in, hanging, or carrying something, so that a randomizer must not move it.
    """

    category: str
    front_m: float = 0.0
    mount_z_m: float = 0.0
    fixed: bool = False
    parts: list[tuple[Mesh, Material]] = field(default_factory=list)

    def add(self, material: Material, mesh: Mesh, at: Point = (0.0, 0.0, 0.0)) -> None:
        self.parts.append((mesh.moved(*at), material))

    def box(self, material: Material, size: Point, at: Point, bevel: float = 0.0) -> None:
        """A box whose bottom centre is `at`, its edges rounded by `bevel`."""
        mesh = rounded_box(size, bevel) if bevel else box(size)
        self.add(material, mesh, (at[0], at[1], at[2] + size[2] / 2))

    def cushion(self, material: Material, size: Point, at: Point, lean_rad: float = 0.0) -> None:
        """A soft box whose bottom centre is `at`, leaning back by `lean_rad` about x."""
        mesh = rounded_box(size, 0.3 * min(size), inner=2, crown=0.12 * min(size))
        self.add(material, mesh.turned("x", lean_rad), (at[0], at[1], at[2] + size[2] / 2))

    def post(self, material: Material, radius: float, low: Point, high: Point, top_radius: float | None = None) -> None:
        self.add(material, tube([low, high], radius, 10, top_radius))

    def turned(self, material: Material, profile: list[tuple[float, float]], at: Point, segments: int = 20) -> None:
        """A lathe body, its profile's z counted from `at`."""
        self.add(material, lathe(profile, segments), at)

    def handle(self, at: Point, length: float, upright: bool = False, material: Material = STEEL) -> None:
        """A bar to pull, centred at `at`, standing off the front."""
        size = (0.012, 0.022, length) if upright else (length, 0.022, 0.012)
        self.box(material, size, (at[0], at[1] + 0.011, at[2] - size[2] / 2))

    def legs(
        self, material: Material, x: float, y: float, height: float, radius: float, top: float | None = None
    ) -> None:
        """Four legs at (±x, ±y), `radius` thick at the floor and `top` at their upper end."""
        for sx in (-1, 1):
            for sy in (-1, 1):
                self.post(material, radius, (sx * x, sy * y, 0), (sx * x, sy * y, height), top)

    def bounds(self) -> tuple[F64, F64]:
        """Lowest and highest corner, (3,) each, in the model's frame."""
        points = np.concatenate([mesh.vertices for mesh, _ in self.parts])
        return points.min(axis=0), points.max(axis=0)

    def size(self) -> F64:
        """Width along x, depth along y, height along z."""
        low, high = self.bounds()
        return np.asarray(high - low)

    def centred(self) -> Model:
        """The same with its footprint's middle at x = y = 0, so that placement may think in rectangles.

        Splayed legs end a little below 0; the piece is lifted on to the floor.
        """
        low, high = self.bounds()
        x, y = (-(low + high) / 2)[:2]
        z = max(0.0, -float(low[2]))
        return replace(self, parts=[(mesh.moved(float(x), float(y), z), mat) for mesh, mat in self.parts])

    def to_object(self, name: str, instance_id: int, T_world_object: F64, *, smooth: bool = False) -> SceneObject:
        """Merge the parts into one mesh with one slot per distinct material."""
        slots: list[Material] = []
        vertices, faces, uvs, face_material = [], [], [], []
        start = 0
        for mesh, material in self.parts:
            # By identity of name and colour: comparing textures pixel by pixel would cost more than it saves.
            known = [
                i
                for i, slot in enumerate(slots)
                if (slot.name, slot.base_color) == (material.name, material.base_color)
            ]
            if not known:
                slots.append(material)
            slot = known[0] if known else len(slots) - 1
            vertices.append(mesh.vertices)
            faces.append(mesh.faces + start)
            uvs.append(mesh.face_uvs())
            face_material.append(np.full(len(mesh.faces), slot, np.int32))
            start += len(mesh.vertices)
        return SceneObject(
            name=name,
            category=self.category,
            instance_id=instance_id,
            vertices=np.concatenate(vertices).astype(np.float32),
            faces=np.concatenate(faces).astype(np.int32),
            materials=tuple(slots),
            face_material=np.concatenate(face_material),
            uvs=np.concatenate(uvs).astype(np.float32),
            T_world_object=T_world_object,
            smooth=smooth,
            movable=not self.fixed,
        )
