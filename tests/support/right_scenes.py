"""Forty scenes that stand upright and are in metres, and the ways to turn and scale them that are wrong.

Half of them have names that say what their parts are, half have none: `mesh_017` of category `object`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.load.splats.proxy import occupied_voxels, voxel_mesh
from nimbusd.stages.types import F64, Scene
from tests.support.nav_scenes import Boxes, cluttered_room, two_rooms, two_storeys

HOUSE = os.environ.get("NIMBUSD_TEST_HOUSE")
"""Folder of a real house (AWS RoboMaker's small house as .glb): three of the scenes; without it there are 37."""

UPS: dict[str, F64] = {
    "x": np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], np.float64),
    "-x": np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], np.float64),
    "y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float64),
    "-y": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float64),
    "-z": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float64),
}
"""Rotations of a scene that was loaded with the wrong axis: the file's axis that was taken for up → (3, 3)."""

UNITS = {"mm": 1000.0, "cm": 100.0, "inch": 39.37, "foot": 3.28084, "m as mm": 1e-3, "m as cm": 0.01,
         "m as inch": 0.0254, "m as foot": 0.3048}  # fmt: skip
"""Factors by which a scene is too large whose unit was taken for another."""


def changed(scene: Scene, R: F64, factor: float = 1.0) -> Scene:
    """The scene turned and scaled about the world's origin, as a loader would have made it."""
    objects = []
    for obj in scene.objects:
        points = factor * obj.world_vertices() @ R.T
        objects.append(replace(obj, vertices=points.astype(np.float32), T_world_object=np.eye(4)))
    return replace(scene, objects=tuple(objects), rooms=(), lights=())


def unnamed(scene: Scene) -> Scene:
    objects = [replace(obj, name=f"mesh_{k:03d}", category="object") for k, obj in enumerate(scene.objects)]
    return replace(scene, objects=tuple(objects), rooms=())


def apartment(seed: int, rooms: int) -> Scene:
    loader = ApartmentLoader(ApartmentArgs(texture_px=16))
    return replace(loader.load_asset(ApartmentConfig(name="flat", seed=seed, rooms=rooms)), rooms=())


def proxy(scene: Scene, seed: int) -> Scene:
    """The proxy that GSMeshLoader makes of splats alone: the boundary of voxels."""
    voxels = occupied_voxels(sample_splats(scene.objects, 150_000, seed), 0.1, min_cover=0.5, min_cells=30)
    return Scene("proxy", (voxel_mesh(voxels),))


def room_with_things(rng: np.random.Generator, size: tuple[float, float, float], things: int) -> Boxes:
    """Floor, walls and ceiling, with tables, chairs and shelves on the floor."""
    boxes = Boxes()
    x, y, height = size
    boxes.box("floor", (0, x), (0, y), (-0.1, 0))
    boxes.box("ceiling", (0, x), (0, y), (height, height + 0.1))
    boxes.walls((0, x), (0, y), (0, height))
    for _ in range(things):
        table(boxes, rng.uniform(1, x - 1), rng.uniform(1, y - 1), rng.uniform(0, 3))
    for _ in range(things // 2):
        at = rng.uniform(0.5, x - 1.5)
        boxes.box("bookshelf", (at, at + 0.9), (0.02, 0.32), (0, rng.uniform(1.4, 2.0)))
    return boxes


def table(boxes: Boxes, x: float, y: float, turn: float) -> None:
    """A table on four legs with two chairs."""
    boxes.box("table", (x - 0.7, x + 0.7), (y - 0.4, y + 0.4), (0.7, 0.74), turn)
    for sx in (-0.6, 0.6):
        for sy in (-0.3, 0.3):
            c, s = np.cos(turn), np.sin(turn)
            px, py = x + c * sx - s * sy, y + s * sx + c * sy
            boxes.box("object", (px - 0.03, px + 0.03), (py - 0.03, py + 0.03), (0, 0.7))
    for side in (-0.7, 0.7):
        cx, cy = x - np.sin(turn) * side, y + np.cos(turn) * side
        boxes.box("chair", (cx - 0.22, cx + 0.22), (cy - 0.22, cy + 0.22), (0.4, 0.45), turn)
        boxes.box("chair", (cx - 0.22, cx + 0.22), (cy - 0.02, cy + 0.02), (0.45, 0.9), turn)
        boxes.box("object", (cx - 0.2, cx + 0.2), (cy - 0.2, cy + 0.2), (0.0, 0.4), turn)


def corridor(rng: np.random.Generator, length: float, width: float) -> Boxes:
    """Doors on both sides, benches, bins, lamps under the ceiling."""
    boxes = Boxes()
    boxes.box("floor", (0, length), (0, width), (-0.1, 0))
    boxes.box("ceiling", (0, length), (0, width), (2.6, 2.7))
    boxes.walls((0, length), (0, width), (0, 2.6))
    for at in np.arange(1.5, length - 1.5, 3.0):
        for y in (0.0, width - 0.03):
            boxes.box("door", (at, at + 0.9), (y, y + 0.03), (0, 2.03))
    for at in np.arange(3.0, length - 2.0, 5.0):
        boxes.box("bench", (at, at + 1.2), (0.05, 0.45), (0.0, 0.45))
        boxes.box("object", (at + 1.4, at + 1.7), (0.05, 0.35), (0.0, rng.uniform(0.5, 0.8)))
        boxes.box("ceiling_lamp", (at, at + 1.2), (width / 2 - 0.1, width / 2 + 0.1), (2.55, 2.6))
    return boxes


def open_floor(rng: np.random.Generator, size: float, crates: int) -> Boxes:
    """A floor without walls, with crates, shelves and tables on it."""
    boxes = Boxes()
    boxes.box("floor", (0, size), (0, size), (-0.1, 0))
    for _ in range(crates):
        x, y, edge = rng.uniform(1, size - 2), rng.uniform(1, size - 2), rng.uniform(0.3, 0.9)
        boxes.box("box", (x, x + edge), (y, y + edge), (0, edge), rng.uniform(0, 3))
    for _ in range(max(2, crates // 4)):
        table(boxes, rng.uniform(1, size - 1), rng.uniform(1, size - 1), rng.uniform(0, 3))
    return boxes


def site(rng: np.random.Generator, size: float) -> Boxes:
    """Ground, houses with doors, trees, cars, benches."""
    boxes = Boxes()
    boxes.box("floor", (0, size), (0, size), (-0.3, 0))
    for _ in range(4):
        x, y = rng.uniform(5, size - 20, 2)
        boxes.box("object", (x, x + rng.uniform(8, 14)), (y, y + rng.uniform(8, 12)), (0, rng.uniform(4, 11)))
        boxes.box("door", (x + 2, x + 2.9), (y - 0.06, y - 0.01), (0, 2.1))
    for _ in range(12):
        x, y = rng.uniform(2, size - 2, 2)
        tall = rng.uniform(3, 8)
        boxes.box("plant", (x - 0.15, x + 0.15), (y - 0.15, y + 0.15), (0, tall / 2))
        boxes.box("plant", (x - 1.2, x + 1.2), (y - 1.2, y + 1.2), (tall / 2, tall))
    for _ in range(8):
        x, y = rng.uniform(3, size - 6, 2)
        turn = rng.uniform(0, 3)
        boxes.box("object", (x, x + 4.3), (y, y + 1.8), (0.2, 0.9), turn)
        boxes.box("object", (x + 1, x + 3.3), (y + 0.1, y + 1.7), (0.9, 1.45), turn)
        boxes.box("bench", (y, y + 1.5), (x, x + 0.45), (0.0, 0.45))
    return boxes


def right_scenes(first_seed: int = 0) -> dict[str, Callable[[], Scene]]:
    """Name → what makes the scene. first_seed: others of the same kinds."""
    return dict(_scenes(first_seed))


def _unnamed_apartment(seed: int, rooms: int) -> Scene:
    return unnamed(apartment(seed, rooms))


def _apartment_proxy(seed: int, rooms: int, splats_seed: int) -> Scene:
    return proxy(apartment(seed, rooms), splats_seed)


def _scenes(first: int) -> Iterator[tuple[str, Callable[[], Scene]]]:
    for rooms in range(2, 8):
        yield f"apartment of {rooms} rooms", partial(apartment, first + rooms, rooms)
        yield f"unnamed apartment of {rooms} rooms", partial(_unnamed_apartment, first + 100 + rooms, rooms)
    if HOUSE is not None:
        yield "real house", lambda: house("small_house_visual.glb")
        yield "unnamed real house", lambda: unnamed(house("small_house_visual.glb"))
        yield "unnamed real house, collision shapes", lambda: unnamed(house("small_house_collision.glb"))
    for seed in range(4):
        yield f"splat proxy {seed}", partial(_apartment_proxy, first + 200 + seed, 3 + seed % 2, seed)
    for seed in range(4):
        rng = np.random.default_rng(first + seed)
        boxes = [
            ("corridor", corridor(rng, rng.uniform(10, 30), rng.uniform(1.8, 2.6))),
            ("open floor", open_floor(rng, rng.uniform(8, 25), 12)),
            ("hall", room_with_things(rng, (rng.uniform(18, 40), rng.uniform(12, 25), rng.uniform(5, 9)), 14)),
            ("outdoor site", site(rng, rng.uniform(50, 120))),
        ]
        for name, made in boxes:
            scene = made.scene(name, rooms=False)
            if seed % 2:
                name, scene = f"unnamed {name}", unnamed(scene)
            yield f"{name} {seed}", partial(replace, scene)
    yield (
        "furnished room",
        lambda: room_with_things(np.random.default_rng(first + 7), (6, 5, 2.6), 3).scene(rooms=False),
    )
    yield (
        "unnamed furnished room",
        lambda: unnamed(room_with_things(np.random.default_rng(first + 8), (5, 4, 2.5), 2).scene(rooms=False)),
    )
    yield "two rooms without a ceiling", lambda: two_rooms().scene(rooms=False)
    yield "two storeys", lambda: two_storeys(rooms=False)
    yield "unnamed cluttered room", lambda: unnamed(cluttered_room(np.random.default_rng(first + 3), 12))


def house(name: str) -> Scene:
    assert HOUSE is not None
    config = MeshConfig(name="house", path=Path(HOUSE) / name, light="none", up_axis="z")
    return BProcObjLoader(MeshArgs()).load_asset(config)
