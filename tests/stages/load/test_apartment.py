"""The embedded apartments: deterministic, walkable, furnished without overlaps, and sound as meshes."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from pydantic import ValidationError

from nimbusd.stages.categories import CATEGORIES
from nimbusd.stages.load.apartment.floorplan import draw_plan
from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader
from nimbusd.stages.load.apartment.shapes import Mesh, box, lathe, leaf, rounded_box, sheet, tube
from nimbusd.stages.load.textures import KINDS, painting, texture
from nimbusd.stages.types import F64, BoolArray, Scene, SceneObject

SHELL = {"wall", "floor", "ceiling", "baseboard", "door", "window"}
CELL_M = 0.05
ROBOT_RADIUS_M = 0.25
SAMPLES = [(rooms, seed) for rooms in range(2, 8) for seed in (0, 1)]


@cache
def apartment(rooms: int, seed: int) -> Scene:
    return ApartmentLoader(ApartmentArgs(texture_px=16)).load_asset(
        ApartmentConfig(name="flat", seed=seed, rooms=rooms)
    )


def box_of(obj: SceneObject) -> tuple[F64, F64]:
    vertices = obj.world_vertices()
    return vertices.min(axis=0), vertices.max(axis=0)


def triangles(obj: SceneObject) -> F64:
    return obj.world_vertices()[obj.faces]


def overlap_m(a: tuple[F64, F64], b: tuple[F64, F64]) -> float:
    """The smallest overlap over the three axes; positive where two boxes share volume."""
    return float((np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])).min())


def free_floor(scene: Scene) -> tuple[BoolArray, F64]:
    """Cells where a robot's centre may stand, and the world x, y of cell (0, 0)'s corner.

    Triangles are sampled densely, marked where they are between 5 cm and 1.5 m high, and grown by the radius.
    """
    low, high = scene.bounds()
    shape = np.ceil((high - low)[:2] / CELL_M).astype(int) + 1
    blocked = np.zeros(shape, np.bool_)
    for obj in scene.objects:
        corners = triangles(obj)
        z = corners[:, :, 2]
        corners = corners[(z.min(axis=1) < 1.5) & (z.max(axis=1) > 0.05)]
        if not len(corners):
            continue
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
        for steps in np.unique(np.ceil(longest / (0.8 * CELL_M))).astype(int):
            group = corners[np.ceil(longest / (0.8 * CELL_M)) == steps]
            i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1))
            keep = i + j <= steps
            u, v = i[keep] / steps, j[keep] / steps
            points = (
                group[:, None, 0]
                + u[None, :, None] * (group[:, 1] - group[:, 0])[:, None]
                + v[None, :, None] * (group[:, 2] - group[:, 0])[:, None]
            ).reshape(-1, 3)
            points = points[(points[:, 2] > 0.05) & (points[:, 2] < 1.5)]
            cells = ((points[:, :2] - low[:2]) / CELL_M).astype(int)
            blocked[cells[:, 0], cells[:, 1]] = True
    reach = int(np.ceil(ROBOT_RADIUS_M / CELL_M))
    grown = blocked.copy()
    for dx in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            if np.hypot(dx, dy) * CELL_M <= ROBOT_RADIUS_M:
                grown |= np.roll(blocked, (dx, dy), axis=(0, 1))
    return ~grown, low[:2]


def flood(free: BoolArray, start: tuple[int, int]) -> BoolArray:
    reached = np.zeros_like(free)
    reached[start] = True
    while True:
        wider = reached.copy()
        wider[1:] |= reached[:-1]
        wider[:-1] |= reached[1:]
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider &= free
        if np.array_equal(wider, reached):
            return reached
        reached = wider


@pytest.mark.parametrize(("rooms", "seed"), SAMPLES)
def test_a_robot_reaches_every_room_from_every_other(rooms: int, seed: int) -> None:
    scene = apartment(rooms, seed)
    free, origin = free_floor(scene)
    x, y = (origin[a] + (np.arange(free.shape[a]) + 0.5) * CELL_M for a in (0, 1))
    inside = {}
    for room in scene.rooms:
        low, high = room.polygon.min(axis=0), room.polygon.max(axis=0)
        inside[room.name] = free & np.outer((x > low[0]) & (x < high[0]), (y > low[1]) & (y < high[1]))
        assert inside[room.name].any(), f"no free floor in {room.name}"
    largest = max(inside.values(), key=lambda cells: int(cells.sum()))
    first = np.argwhere(largest)[len(np.argwhere(largest)) // 2]
    reached = flood(free, (int(first[0]), int(first[1])))
    for name, cells in inside.items():
        reachable = int((reached & cells).sum())
        assert reachable * CELL_M**2 > 0.4, f"{name} cannot be entered"
        assert reachable > 0.75 * cells.sum(), f"much of {name} is cut off"


@pytest.mark.parametrize(("rooms", "seed"), SAMPLES)
def test_furniture_stands_inside_its_room_and_overlaps_nothing(rooms: int, seed: int) -> None:
    scene = apartment(rooms, seed)
    furniture = [o for o in scene.objects if o.category not in SHELL]
    boxes = {o.name: box_of(o) for o in furniture}
    for obj in furniture:
        room = max((r for r in scene.rooms if obj.name.startswith(r.name + "_")), key=lambda r: len(r.name))
        low, high = boxes[obj.name]
        assert (low[:2] >= room.polygon.min(axis=0) - 1e-3).all(), obj.name
        assert (high[:2] <= room.polygon.max(axis=0) + 1e-3).all(), obj.name
        assert low[2] >= -1e-6, obj.name
    solid = [o.name for o in furniture if o.category != "rug"]
    for a, b in combinations(solid, 2):
        assert overlap_m(boxes[a], boxes[b]) < 1e-3, f"{a} overlaps {b}"
    leaves = [o for o in scene.objects if o.name.endswith("door_leaf")]
    for leaf_door in leaves:
        for name in solid:
            assert overlap_m(box_of(leaf_door), boxes[name]) < 1e-3, f"{leaf_door.name} overlaps {name}"


@pytest.mark.parametrize(("rooms", "seed"), SAMPLES)
def test_nothing_floats(rooms: int, seed: int) -> None:
    scene = apartment(rooms, seed)
    boxes = {o.name: box_of(o) for o in scene.objects}
    hung = {"picture", "mirror", "curtain", "radiator", "ceiling_lamp", "cabinet"}
    for obj in scene.objects:
        low, _ = boxes[obj.name]
        if obj.category in SHELL | hung or low[2] < 1e-3:
            continue
        carriers = [n for n, (_, top) in boxes.items() if n != obj.name and abs(top[2] - low[2]) < 2e-3]
        footprints = [
            overlap_m((boxes[n][0][:2], boxes[n][1][:2]), (low[:2], boxes[obj.name][1][:2])) for n in carriers
        ]
        assert max(footprints, default=0.0) > 0.05, f"{obj.name} floats at {low[2]:.2f} m"


def test_the_same_seed_gives_the_same_apartment_and_another_seed_another() -> None:
    loader = ApartmentLoader(ApartmentArgs(texture_px=16))
    first = loader.load_asset(ApartmentConfig(name="flat", seed=7, rooms=2))
    again = ApartmentLoader(ApartmentArgs(texture_px=16)).load_asset(ApartmentConfig(name="flat", seed=7, rooms=2))
    assert first.content_hash == again.content_hash
    others = [
        ApartmentConfig(name="flat", seed=8, rooms=2),
        ApartmentConfig(name="other", seed=7, rooms=2),
        ApartmentConfig(name="flat", seed=7, rooms=3),
    ]
    hashes = {loader.load_asset(config).content_hash for config in others}
    assert len(hashes | {first.content_hash}) == 4


def test_the_default_apartment_is_furnished_with_known_categories() -> None:
    for seed in range(4):
        categories = {o.category for o in apartment(4, seed).objects}
        assert categories <= set(CATEGORIES)
        assert len(categories - SHELL) >= 15
        assert categories >= {"bed", "sofa", "toilet", "washbasin", "refrigerator", "sink", "stove", "wall", "window"}
        assert "bathtub" in categories or "shower" in categories


@pytest.mark.parametrize(("rooms", "seed"), SAMPLES)
def test_names_and_ids_are_unique_and_meshes_are_sound(rooms: int, seed: int) -> None:
    scene = apartment(rooms, seed)
    assert len({o.name for o in scene.objects}) == len(scene.objects)
    assert sorted(o.instance_id for o in scene.objects) == list(range(1, len(scene.objects) + 1))
    for obj in scene.objects:
        assert obj.faces.min() >= 0, obj.name
        assert obj.faces.max() < len(obj.vertices), obj.name
        assert obj.face_material.shape == (len(obj.faces),), obj.name
        assert obj.face_material.max() < len(obj.materials), obj.name
        assert obj.uvs is not None, obj.name
        assert obj.uvs.shape == (len(obj.faces), 3, 2), obj.name
        assert np.isfinite(obj.uvs).all(), obj.name
        corners = obj.vertices.astype(np.float64)[obj.faces]
        areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        assert areas.min() > 1e-9, f"{obj.name} has degenerate triangles"
        assert signed_volume(corners) > 0, f"{obj.name} is inside out"
    total = sum(len(o.faces) for o in scene.objects)
    assert 15_000 < total < 90_000


def signed_volume(corners: F64) -> float:
    """Volume of a closed mesh; negative where its faces look inwards."""
    return float(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)


@pytest.mark.parametrize(("rooms", "seed"), SAMPLES)
def test_floor_polygons_run_counter_clockwise_with_plausible_areas(rooms: int, seed: int) -> None:
    scene = apartment(rooms, seed)
    assert len(scene.rooms) == rooms
    areas = []
    for room in scene.rooms:
        x, y = room.polygon.T
        areas.append(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2))
        assert 3.5 < areas[-1] < 60, room.name
        floor = next(o for o in scene.objects if o.name == f"{room.name}_floor")
        low, high = box_of(floor)
        assert high[2] == pytest.approx(0.0)
        assert (low[:2] <= room.polygon.min(axis=0)).all()
        assert (high[:2] >= room.polygon.max(axis=0)).all()
    assert 30 < sum(areas) < 150


def test_every_room_count_has_plans_whose_doors_join_all_rooms() -> None:
    for rooms in range(2, 8):
        for seed in range(12):
            plan = draw_plan(np.random.default_rng(seed), rooms)
            joined = {plan.rooms[0].name}
            for _ in plan.rooms:
                for opening in plan.openings:
                    if opening.kind == "door" and joined & set(opening.rooms):
                        joined |= set(opening.rooms)
                        assert 0.9 <= opening.width_m <= 1.0
            assert joined == {room.name for room in plan.rooms}
            assert [o.kind for o in plan.openings].count("entrance") == 1


def test_lamps_hang_in_every_room_and_windows_can_be_seen_through() -> None:
    scene = apartment(5, 0)
    for room in scene.rooms:
        assert any(light.name.startswith(room.name + "_light") for light in scene.lights), room.name
    windows = [o for o in scene.objects if o.category == "window"]
    assert windows
    assert all(any(material.opacity < 0.5 for material in window.materials) for window in windows)


def test_lights_ceiling_and_density_follow_the_arguments() -> None:
    config = ApartmentConfig(name="flat", rooms=3)
    bare = ApartmentLoader(
        ApartmentArgs(
            texture_px=16, ceiling=False, lamps=False, daylight=False, furniture_density=0.0, wall_height_m=2.5
        )
    ).load_asset(config)
    assert not bare.lights
    assert "ceiling" not in {o.category for o in bare.objects}
    assert bare.bounds()[1][2] == pytest.approx(2.5)
    full = ApartmentLoader(ApartmentArgs(texture_px=16, furniture_density=1.0)).load_asset(config)
    assert len(full.objects) > len(bare.objects)


def test_unknown_arguments_and_impossible_room_counts_are_refused() -> None:
    with pytest.raises(ValidationError, match="rooms"):
        ApartmentConfig(name="flat", rooms=9)
    with pytest.raises(ValidationError, match="texture_size"):
        ApartmentArgs.model_validate({"texture_size": 12})


@pytest.mark.parametrize("kind", KINDS)
def test_a_texture_continues_over_its_edges(kind: str) -> None:
    image = texture(kind, np.random.default_rng(3), 128).astype(np.float64)
    assert image.shape == (128, 128, 3)
    for axis in (0, 1):
        steps = np.abs(np.roll(image, -1, axis=axis) - image).mean(axis=(1 - axis, 2))
        # The seam is one of 128 steps; it may be no rougher than the pattern's own lines.
        assert steps[-1] <= 1.05 * steps[:-1].max() + 1


def test_textures_and_paintings_depend_on_the_generator_alone() -> None:
    for kind in KINDS:
        one, same, other = (texture(kind, np.random.default_rng(s), 64) for s in (1, 1, 2))
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)
    assert np.array_equal(painting(np.random.default_rng(1), 64), painting(np.random.default_rng(1), 64))


def test_an_unknown_texture_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match="planks"):
        texture("velvet", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("mesh", "volume"),
    [
        (box((1, 2, 3)), 6.0),
        (rounded_box((1, 2, 3), 0.05), 5.98),
        (lathe([(1, 0), (1, 2)], 64), 2 * np.pi),
        (lathe([(1, 0), (1, 2), (0.9, 2), (0.9, 0.1)], 64), 2 * np.pi - 0.81 * 1.9 * np.pi),
        (tube([(0, 0, 0), (0, 0, 1), (0, 0, 3)], 0.1, 64), 0.03 * np.pi),
        (sheet([(0, 0), (0.1, 0.02), (0.2, 0)], 0.01, 0, 2), 0.004),
    ],
)
def test_shapes_are_closed_and_look_outwards(mesh: Mesh, volume: float) -> None:
    assert signed_volume(mesh.vertices[mesh.faces]) == pytest.approx(volume, rel=0.01)
    assert signed_volume((mesh.vertices + 5)[mesh.faces]) == pytest.approx(volume, rel=0.01)


def test_a_leaf_is_a_thin_closed_body() -> None:
    blade = leaf(0.3, 0.1, 0.1)
    assert 0 < signed_volume(blade.vertices[blade.faces]) < 1e-4
