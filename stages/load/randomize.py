"""`BProc3DFrontRandomizer`: other lights, other surfaces and furniture a little elsewhere, in any scene."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from nimbusd.stages.base import BaseRandomizer, ComponentArgs
from nimbusd.stages.load.placement import PoseRules, move_objects
from nimbusd.stages.load.textures import SPAN_M, texture
from nimbusd.stages.types import F32, U8, Light, Material, Rgb, Scene, SceneObject

Range = tuple[float, float]


class Surface(NamedTuple):
    """Substitutes for a surface: kinds of procedural textures, and how rough those are."""

    kinds: tuple[str, ...]
    roughness: Range


# Whole surfaces of a room change together; every piece of furniture changes by itself.
_ROOM_SURFACES = {
    "wall": Surface(("plaster", "plaster", "plaster", "brick", "stripes"), (0.6, 0.95)),
    "floor": Surface(("planks", "planks", "tiles", "stone", "carpet"), (0.3, 0.8)),
    "ceiling": Surface(("plaster",), (0.8, 1.0)),
}
_SOFT = Surface(("fabric", "fabric", "stripes"), (0.8, 1.0))
_HARD = Surface(("wood", "wood", "planks", "stone"), (0.25, 0.7))
_FURNITURE = {
    **dict.fromkeys(("sofa", "armchair", "bed", "pillow", "curtain", "rug", "stool"), _SOFT),
    **dict.fromkeys(
        ("nightstand", "wardrobe", "dresser", "desk", "chair", "coffee_table", "dining_table", "tv_stand",
         "bookshelf", "cabinet", "kitchen_counter", "table", "shelf", "bench", "box"),
        _HARD,
    ),
}  # fmt: skip


class RandomizeArgs(ComponentArgs):
    """Arguments of BProc3DFrontRandomizer. Every range is (lowest, highest); probabilities are 0…1.

    lights: change lamps and sky at all. light_power, sky_power: factors. light_temperature_k: colour of lamps,
    as a camera balanced for white_balance_k sees it.
    materials: change surfaces at all. room_texture, furniture_texture: probability of a new procedural texture
    for the walls, floor or ceiling of a room, and for a piece of furniture. tint: how far the other surfaces'
    colour is scaled, per channel. texture_px: edge length of new textures.
    poses: move objects at all. move: probability to try it with a movable object. shift_m, yaw_rad: how far at most.
    clearance_m: free space that a moved object keeps. door_clearance_m: around doors. tries: poses per object.
    """

    lights: bool = True
    light_power: Range = (0.6, 1.5)
    light_temperature_k: Range = (3000.0, 6500.0)
    white_balance_k: float = Field(default=4500.0, ge=1667, le=25000)
    sky_power: Range = (0.5, 1.5)
    materials: bool = True
    room_texture: float = Field(default=0.6, ge=0, le=1)
    furniture_texture: float = Field(default=0.3, ge=0, le=1)
    tint: float = Field(default=0.15, ge=0, lt=0.5)
    texture_px: int = Field(default=256, ge=16, le=4096)
    poses: bool = True
    move: float = Field(default=0.6, ge=0, le=1)
    shift_m: float = Field(default=0.4, ge=0)
    yaw_rad: float = Field(default=0.35, ge=0, le=float(np.pi))
    clearance_m: float = Field(default=0.02, ge=0)
    door_clearance_m: float = Field(default=0.8, ge=0)
    tries: int = Field(default=8, ge=1)

    @field_validator("light_power", "light_temperature_k", "sky_power")
    @classmethod
    def _ordered(cls, value: Range) -> Range:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"a range goes from a positive number to one at least as high, not {value}")
        return value

    @field_validator("light_temperature_k")
    @classmethod
    def _visible(cls, value: Range) -> Range:
        if value[0] < 1667 or value[1] > 25000:
            raise ValueError("colour temperatures lie between 1667 and 25000 K")
        return value


class BProc3DFrontRandomizer(BaseRandomizer[RandomizeArgs]):
    """Works on every scene; what needs rooms (staying in one) uses the floors of scenes without them."""

    args_model: ClassVar[type[ComponentArgs]] = RandomizeArgs
    requires = ("shapely",)

    def randomize(self, scene: Scene, rng: np.random.Generator) -> Scene:
        # One stream per purpose: switching one off leaves what the others draw as it was.
        light_rng, material_rng, pose_rng = rng.spawn(3)
        args = self.args
        changed = scene
        counts = {"moved": 0, "retextured": 0}
        if args.lights:
            changed = _relight(changed, args, light_rng)
        if args.materials:
            objects, counts["retextured"] = _resurface(changed, args, material_rng)
            changed = replace(changed, objects=objects)
        self.beat()
        if args.poses:
            rules = PoseRules(
                args.move, args.shift_m, args.yaw_rad, args.clearance_m, args.door_clearance_m, args.tries
            )
            moved = move_objects(changed, rules, pose_rng, self.beat)
            counts["moved"] = sum(a is not b for a, b in zip(moved, changed.objects, strict=True))
            changed = replace(changed, objects=moved)
        note = {"randomizer": "BProc3DFrontRandomizer", "version": self.version, **counts}
        return replace(changed, provenance={**scene.provenance, "randomized": note})


def daylight_rgb(temperature_k: float) -> Rgb:
    """Linear sRGB of a black body, brightest channel 1. Valid from 1667 to 25000 K (Kim et al. 2002)."""
    t = 1e3 / temperature_k
    if temperature_k <= 4000:
        x = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    else:
        x = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    if temperature_k <= 2222:
        y = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    elif temperature_k <= 4000:
        y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    else:
        y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    xyz = np.array([x / y, 1.0, (1 - x - y) / y])
    to_rgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    r, g, b = np.maximum(to_rgb @ xyz, 0) / np.max(to_rgb @ xyz)
    return float(r), float(g), float(b)


def box_uvs(obj: SceneObject) -> F32:
    """(F, 3, 2) texture coordinates in metres / SPAN_M, projected along each face's main axis, v upwards.

    In world axes for what stands still, so that the boards of adjoining floors meet; else in the object's.
    """
    corners = (obj.vertices if obj.movable else obj.world_vertices())[obj.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(normals).argmax(axis=1)
    u_axis, v_axis = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
    rows = np.arange(len(corners))[:, None]
    uvs = np.stack([corners[rows, [0, 1, 2], axes[:, None]] for axes in (u_axis, v_axis)], axis=-1) / SPAN_M
    return np.asarray(uvs, np.float32)


def _relight(scene: Scene, args: RandomizeArgs, rng: np.random.Generator) -> Scene:
    lights: list[Light] = []
    for light in scene.lights:
        color = _balanced(daylight_rgb(rng.uniform(*args.light_temperature_k)), args.white_balance_k)
        lights.append(replace(light, power_w=light.power_w * _factor(rng, args.light_power), color=color))
    return replace(scene, lights=tuple(lights), sky_strength=scene.sky_strength * _factor(rng, args.sky_power))


def _balanced(color: Rgb, white_k: float) -> Rgb:
    """The colour divided by that of the white, brightest channel 1."""
    r, g, b = np.array(color) / daylight_rgb(white_k)
    brightest = max(r, g, b)
    return float(r / brightest), float(g / brightest), float(b / brightest)


def _factor(rng: np.random.Generator, limits: Range) -> float:
    """Log-uniform, so that halving is as likely as doubling."""
    return float(np.exp(rng.uniform(*np.log(limits))))


def _resurface(scene: Scene, args: RandomizeArgs, rng: np.random.Generator) -> tuple[tuple[SceneObject, ...], int]:
    """The objects with new textures or tints, and how many got a texture."""
    shared: dict[tuple[str, int], Material | None] = {}
    objects: list[SceneObject] = []
    count = 0
    for obj in scene.objects:
        made: Material | None = None
        if obj.category in _ROOM_SURFACES:
            key = (obj.category, _room_index(scene, obj))
            if key not in shared:
                shared[key] = _draw(_ROOM_SURFACES[obj.category], args.room_texture, args.texture_px, rng)
            made = shared[key]
        elif obj.category in _FURNITURE:
            made = _draw(_FURNITURE[obj.category], args.furniture_texture, args.texture_px, rng)
        if made is not None:
            objects.append(_with_material(obj, made))
            count += 1
        else:
            objects.append(_tinted(obj, args.tint, rng))
    return tuple(objects), count


def _draw(surface: Surface, probability: float, size_px: int, rng: np.random.Generator) -> Material | None:
    if rng.random() >= probability:
        return None
    kind = surface.kinds[int(rng.integers(len(surface.kinds)))]
    picture: U8 = texture(kind, rng, size_px)
    return Material(f"random {kind}", (1.0, 1.0, 1.0), picture, roughness=float(rng.uniform(*surface.roughness)))


def _replaceable(material: Material) -> bool:
    """Glass stays glass, metal stays metal, and what glows goes on glowing."""
    return material.opacity >= 0.5 and material.metallic < 0.5 and material.emission == 0


def _with_material(obj: SceneObject, made: Material) -> SceneObject:
    materials = tuple(made if _replaceable(material) else material for material in obj.materials)
    replaced = np.array([_replaceable(material) for material in obj.materials])[obj.face_material]
    old = obj.uvs if obj.uvs is not None else np.zeros((len(obj.faces), 3, 2), np.float32)
    return replace(obj, materials=materials, uvs=np.where(replaced[:, None, None], box_uvs(obj), old))


def _tinted(obj: SceneObject, tint: float, rng: np.random.Generator) -> SceneObject:
    # Down from 1 - 2·tint to 1 - tint … 1: a texture's colours cannot go above their own.
    factor = 1 - tint + tint * rng.uniform(-1, 1, 3)
    materials = tuple(
        replace(m, base_color=(m.base_color[0] * factor[0], m.base_color[1] * factor[1], m.base_color[2] * factor[2]))
        if _replaceable(m)
        else m
        for m in obj.materials
    )
    return replace(obj, materials=materials)


def _room_index(scene: Scene, obj: SceneObject) -> int:
    """The room that the middle of the object is in or nearest to; 0 for scenes without rooms."""
    if not scene.rooms:
        return 0
    import shapely

    corners = obj.world_vertices()
    middle = shapely.Point((corners.min(axis=0) + corners.max(axis=0))[:2] / 2)
    base = float(corners[:, 2].min())
    distances = [
        float(shapely.Polygon(room.polygon).distance(middle)) + (100.0 if abs(base - room.z_m) > 4 else 0.0)
        for room in scene.rooms
    ]
    return int(np.argmin(distances))
