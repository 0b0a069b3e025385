"""`ApartmentLoader`: furnished apartments from a seed, so that nothing needs to be downloaded."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from nimbusd.stages.base import BaseLoader, ComponentArgs, SceneConfig
from nimbusd.stages.load.apartment.floorplan import ROOM_COUNTS, FloorPlan, draw_plan
from nimbusd.stages.load.apartment.furnish import furnish
from nimbusd.stages.load.apartment.layout import RoomLayout
from nimbusd.stages.load.apartment.model import Palette
from nimbusd.stages.load.apartment.shell import Standing, build_shell, draw_finishes, pose
from nimbusd.stages.seeds import scene_key
from nimbusd.stages.types import F64, Light, Room, Scene, SceneObject

_LAMP_W_PER_M2 = 5.0
_LAMP_COLOR = (1.0, 0.89, 0.76)
_SUN_W_PER_M2 = 3.0
_SKY_COLOR = (0.72, 0.85, 1.0)


class ApartmentArgs(ComponentArgs):
    """texture_px: edge of each texture. furniture_density: share of the optional pieces that are placed.

    ceiling: False leaves the rooms open above, for views from the top. wall_height_m: floor to ceiling.
    lamps, daylight: switch the ceiling lamps, and the sun and sky behind the windows.
    """

    texture_px: int = Field(default=512, ge=16, le=4096)
    furniture_density: float = Field(default=0.8, ge=0.0, le=1.0)
    ceiling: bool = True
    wall_height_m: float = Field(default=2.7, ge=2.4, le=4.0)
    lamps: bool = True
    daylight: bool = True


class ApartmentConfig(SceneConfig):
    """seed: another seed, another apartment; the name counts too. rooms: how many, hallway included."""

    seed: int = Field(default=0, ge=0)
    rooms: int = Field(default=4, ge=ROOM_COUNTS[0], le=ROOM_COUNTS[1])


class ApartmentLoader(BaseLoader[ApartmentArgs, ApartmentConfig]):
    """Furnished apartments of 2 to 7 rooms on one floor at z = 0, lit by lamps and through windows.

    Furniture is `movable` unless it is built in, hangs, or carries or lies under something. `rooms` holds the
    floors between the walls' faces, with the room's kind as category.
    """

    args_model: ClassVar[type[ComponentArgs]] = ApartmentArgs
    scene_model: ClassVar[type[SceneConfig]] = ApartmentConfig

    def load_asset(self, config: ApartmentConfig) -> Scene:
        """Build the apartment of (seed, name, rooms). Pure: the same config gives the same content_hash."""
        seed = np.random.SeedSequence([config.seed, config.rooms, *scene_key(config.name)])
        plan_seed, material_seed, finish_seed, furniture_seed, sun_seed = seed.spawn(5)
        plan = draw_plan(np.random.default_rng(plan_seed), config.rooms)
        palette = Palette(material_seed, self.args.texture_px)
        finishes = draw_finishes(plan, palette, np.random.default_rng(finish_seed))
        height = self.args.wall_height_m
        self.beat()
        shell = build_shell(plan, finishes, palette, height_m=height, ceiling=self.args.ceiling)
        layouts, leaves = furnish(
            plan,
            palette,
            np.random.default_rng(furniture_seed),
            height_m=height,
            density=self.args.furniture_density,
        )
        self.beat()
        standings = [*shell, *leaves, *(standing for layout in layouts for standing in layout.standings())]
        lights = _lamp_lights(layouts) if self.args.lamps else []
        if self.args.daylight:
            lights.append(_sun(np.random.default_rng(sun_seed)))
        return Scene(
            name=config.name,
            objects=tuple(_object(standing, number) for number, standing in enumerate(standings, start=1)),
            lights=tuple(lights),
            rooms=tuple(_rooms(plan)),
            sky_color=_SKY_COLOR,
            sky_strength=1.0 if self.args.daylight else 0.02,
            provenance={
                "generator": "ApartmentLoader",
                "version": self.version,
                "seed": config.seed,
                "rooms": config.rooms,
                "arguments": self.args.model_dump(),
            },
        )


def _object(standing: Standing, instance_id: int) -> SceneObject:
    return standing.model.to_object(standing.name, instance_id, standing.T_world)


def _rooms(plan: FloorPlan) -> list[Room]:
    rooms = []
    for room in plan.rooms:
        r = room.inside
        polygon = np.array([[r.x0, r.y0], [r.x1, r.y0], [r.x1, r.y1], [r.x0, r.y1]], np.float64)
        rooms.append(Room(room.name, room.kind, polygon))
    return rooms


def _lamp_lights(layouts: list[RoomLayout]) -> list[Light]:
    """A soft area lamp just under every ceiling lamp, as strong as its share of the room needs."""
    lights = []
    for layout in layouts:
        lamps = [p for p in layout.placed if p.model.category == "ceiling_lamp"]
        for number, lamp in enumerate(lamps, start=1):
            power = _LAMP_W_PER_M2 * (layout.inside.area + 4.0) / len(lamps)
            T = pose(lamp.spot.x, lamp.spot.y, lamp.z_m - 0.02, 0.0)
            lights.append(Light(f"{layout.room.name}_light_{number}", "area", T, power, _LAMP_COLOR, (0.4, 0.4)))
    return lights


def _sun(rng: np.random.Generator) -> Light:
    """A sun 30 to 50 degrees high from any side, warm white."""
    return Light(
        "sun",
        "sun",
        _looking_down(rng.uniform(0, 2 * np.pi), rng.uniform(0.52, 0.87)),
        _SUN_W_PER_M2,
        (1.0, 0.93, 0.82),
    )


def _looking_down(azimuth_rad: float, elevation_rad: float) -> F64:
    """(4, 4) pose whose +z points at the sun, so that light along -z comes from there."""
    to_sun = np.array(
        [
            np.cos(elevation_rad) * np.cos(azimuth_rad),
            np.cos(elevation_rad) * np.sin(azimuth_rad),
            np.sin(elevation_rad),
        ]
    )
    x = np.cross([0.0, 0.0, 1.0], to_sun)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.column_stack([x, np.cross(to_sun, x), to_sun])
    T[:3, 3] = 20.0 * to_sun
    return T
