from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nimbusd.stages.load.front3d.loader import BProc3DFrontLoader, Front3DArgs, Front3DConfig
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.placement import footprint
from nimbusd.stages.load.randomize import BProc3DFrontRandomizer, RandomizeArgs, box_uvs, daylight_rgb
from nimbusd.stages.load.textures import SPAN_M
from nimbusd.stages.types import Material, Room, Scene, SceneObject
from tests.support.front3d_house import DOORS, write_house

STILL = {"lights": False, "materials": False, "poses": False}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    paths = write_house(tmp_path_factory.mktemp("house"))
    config = Front3DConfig(name="demo", house=paths.house, furniture=paths.furniture, textures=paths.textures)
    return BProc3DFrontLoader(Front3DArgs()).load_asset(config)


def randomize(scene: Scene, seed: int = 0, **args: Any) -> Scene:
    defaults: dict[str, Any] = {"texture_px": 16}
    return BProc3DFrontRandomizer(RandomizeArgs(**(defaults | args))).randomize(scene, np.random.default_rng(seed))


def moved(before: Scene, after: Scene) -> list[SceneObject]:
    pairs = zip(before.objects, after.objects, strict=True)
    return [b for a, b in pairs if not np.array_equal(a.T_world_object, b.T_world_object)]


def cube(name: str, x: float, y: float, *, size: float = 1.0, z: float = 0.0, **changes: Any) -> SceneObject:
    """A movable cube whose base is centred on (x, y, z)."""
    corners = np.array([[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (0, 1)], np.float32) * size
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    T = np.eye(4)
    T[:3, 3] = x, y, z
    number = 1 + sum(name.encode())
    made = SceneObject(
        name, "box", number, corners, faces, (Material("paint"),), np.zeros(12, np.int32), None, T, movable=True
    )
    return replace(made, **changes)


def bare(*objects: SceneObject, rooms: tuple[Room, ...] = ()) -> Scene:
    return Scene("bare", objects, rooms=rooms)


def test_the_same_seed_gives_the_same_scene_and_another_seed_another(scene: Scene) -> None:
    hashes = [randomize(scene, seed).content_hash for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_given_scene_stays_as_it_is(scene: Scene) -> None:
    arrays = [obj.vertices for obj in scene.objects] + [obj.T_world_object for obj in scene.objects]
    copies = [array.copy() for array in arrays]
    fresh = replace(scene)
    after = randomize(scene)
    assert after.content_hash != scene.content_hash
    assert replace(scene).content_hash == fresh.content_hash
    assert all(np.array_equal(a, b) for a, b in zip(arrays, copies, strict=True))
    assert "randomized" not in scene.provenance


def test_all_switched_off_changes_nothing(scene: Scene) -> None:
    assert randomize(scene, **STILL).content_hash == scene.content_hash


def test_each_switch_changes_its_own_thing_only(scene: Scene) -> None:
    relit = randomize(scene, **STILL | {"lights": True})
    assert relit.objects == scene.objects
    assert [light.power_w for light in relit.lights] != [light.power_w for light in scene.lights]
    resurfaced = randomize(scene, **STILL | {"materials": True})
    assert resurfaced.lights == scene.lights
    assert not moved(scene, resurfaced)
    posed = randomize(scene, **STILL | {"poses": True})
    assert posed.lights == scene.lights
    assert moved(scene, posed)
    assert all(a.materials is b.materials for a, b in zip(scene.objects, posed.objects, strict=True))


def test_a_switch_does_not_change_what_the_others_draw(scene: Scene) -> None:
    everything, poses_only = randomize(scene, 3), randomize(scene, 3, lights=False, materials=False)
    for a, b in zip(everything.objects, poses_only.objects, strict=True):
        np.testing.assert_array_equal(a.T_world_object, b.T_world_object)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), shift_m=st.floats(0.05, 3.0), yaw_rad=st.floats(0, 3.1))
def test_moved_furniture_collides_with_nothing_and_stays_in_its_room(
    scene: Scene, seed: int, shift_m: float, yaw_rad: float
) -> None:
    after = randomize(scene, seed, **STILL | {"poses": True}, move=1.0, shift_m=shift_m, yaw_rad=yaw_rad)
    rooms = [shapely.Polygon(room.polygon) for room in scene.rooms]
    doors = [shapely.box(*door.low, *door.high) for door in DOORS]
    before = {obj.name: obj for obj in scene.objects}
    standing = [obj for obj in after.objects if obj.movable]
    for obj in moved(scene, after):
        place, old = footprint(obj), before[obj.name]
        room = next(room for room in rooms if room.contains(footprint(old).centroid))
        assert room.buffer(1e-9).covers(place)
        assert room.exterior.distance(place) >= 0.02
        assert all(place.distance(door) >= 0.8 for door in doors)
        assert all(place.distance(footprint(other)) >= 0.02 for other in standing if other is not obj)
        assert place.centroid.distance(footprint(old).centroid) <= shift_m + 1e-9
        # It only slides and turns on its floor.
        np.testing.assert_allclose(obj.world_vertices()[:, 2], old.world_vertices()[:, 2], atol=1e-9)
        turn = obj.T_world_object[:3, :3] @ old.T_world_object[:3, :3].T
        np.testing.assert_allclose(turn[2], (0, 0, 1), atol=1e-9)
        assert turn[0, 0] >= np.cos(yaw_rad) - 1e-9


def test_what_carries_something_or_may_not_move_stays() -> None:
    table, book = cube("table", 0, 0), cube("book", 0, 0, size=0.2, z=1.0, movable=False)
    scene = bare(table, book, cube("fixed", 5, 5, movable=False))
    for seed in range(10):
        assert not moved(scene, randomize(scene, seed, move=1.0))


def test_without_rooms_objects_stay_on_the_floors_they_stand_on() -> None:
    slab = np.array([(0, 0, 0), (2, 0, 0), (2, 2, 0), (0, 2, 0)], np.float32)
    floor = SceneObject(
        "floor", "floor", 9, slab, np.array([(0, 1, 2), (0, 2, 3)], np.int32), (Material("f"),), np.zeros(2, np.int32)
    )
    scene = bare(floor, cube("chair", 1, 1))
    count = 0
    for seed in range(20):
        for obj in moved(scene, randomize(scene, seed, move=1.0, shift_m=5.0, yaw_rad=3.0, tries=50)):
            assert shapely.box(0, 0, 2, 2).buffer(0.002).covers(footprint(obj))
            count += 1
    assert count > 5


def test_a_wall_is_not_jumped_over() -> None:
    wall = cube("wall", 1.0, 0, size=0.2, category="wall", movable=False)
    long_wall = replace(wall, vertices=wall.vertices * np.array([1, 200, 10], np.float32))
    scene = bare(long_wall, cube("chair", 0, 0))
    spots = [
        obj.T_world_object[0, 3] for seed in range(30) for obj in moved(scene, randomize(scene, seed, shift_m=4.0))
    ]
    assert len(spots) > 5
    assert max(spots) < 0.4


def test_rugs_underfoot_do_not_hinder() -> None:
    rug = cube("rug", 0, 0, size=4, category="rug", movable=False)
    flat = replace(rug, vertices=rug.vertices * np.array([1, 1, 0.002], np.float32))
    scene = bare(flat, cube("chair", 0, 0))
    assert moved(scene, randomize(scene, move=1.0))


def test_walls_and_floor_of_a_room_change_together(scene: Scene) -> None:
    after = randomize(scene, room_texture=1.0)
    walls = [obj for obj in after.objects if obj.category == "wall"]
    pictures = [wall.materials[0].texture for wall in walls]
    assert len({id(picture) for picture in pictures}) == len(scene.rooms)
    assert len({id(picture) for picture in pictures[:4]}) == 1
    floors = [obj.materials[0].texture for obj in after.objects if obj.category == "floor"]
    assert len({id(picture) for picture in floors}) == len(scene.rooms)


def test_new_textures_are_metric_on_every_face() -> None:
    obj = cube("table", 3, 4, size=2.0, category="table")
    uvs = box_uvs(obj)
    assert uvs.shape == (12, 3, 2)
    assert uvs.dtype == np.float32
    np.testing.assert_allclose(np.ptp(uvs, axis=1), np.full((12, 2), 2.0 / SPAN_M), rtol=1e-6)


def test_glass_metal_and_glow_keep_their_materials() -> None:
    glass, lamp = Material("glass", opacity=0.1), Material("bulb", emission=5.0)
    steel, paint = Material("steel", metallic=1.0), Material("paint")
    index = np.arange(12, dtype=np.int32) % 4
    obj = cube("t", 0, 0, category="table", materials=(glass, lamp, steel, paint), face_material=index)
    (after,) = randomize(bare(obj), furniture_texture=1.0).objects
    assert after.materials[:3] == (glass, lamp, steel)
    assert after.materials[3].texture is not None


def test_tints_stay_within_their_limits(scene: Scene) -> None:
    after = randomize(scene, room_texture=0.0, furniture_texture=0.0, tint=0.2)
    for old, new in zip(scene.objects, after.objects, strict=True):
        for a, b in zip(old.materials, new.materials, strict=True):
            ratio = np.divide(b.base_color, a.base_color)
            assert (ratio >= 0.6 - 1e-9).all()
            assert (ratio <= 1.0 + 1e-9).all()


def test_light_and_sky_stay_within_their_limits(scene: Scene) -> None:
    for seed in range(10):
        after = randomize(scene, seed, **STILL | {"lights": True}, light_power=(0.5, 2.0), sky_power=(2.0, 2.0))
        for old, new in zip(scene.lights, after.lights, strict=True):
            assert 0.5 <= new.power_w / old.power_w <= 2.0
            assert max(new.color) == pytest.approx(1)
        assert after.sky_strength == pytest.approx(2 * scene.sky_strength)


def test_black_bodies_go_from_orange_to_blue() -> None:
    r, g, b = daylight_rgb(2000)
    assert r == 1 > g > b
    assert daylight_rgb(6500) == pytest.approx((1, 0.94, 0.99), abs=0.02)
    r, g, b = daylight_rgb(15000)
    assert b == 1 > g > r


def test_a_bare_mesh_can_be_randomized(tmp_path: Path) -> None:
    (tmp_path / "Chair.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n")
    config = MeshConfig(name="m", path=tmp_path / "Chair.obj", movable=("chair",))
    scene = BProcObjLoader(MeshArgs()).load_asset(config)
    assert moved(scene, randomize(scene, move=1.0))


@pytest.mark.parametrize(
    "args",
    [{"light_power": (2.0, 1.0)}, {"sky_power": (0.0, 1.0)}, {"light_temperature_k": (500.0, 3000.0)}, {"move": 1.5},
     {"texture_px": 4}, {"unknown": 1}],
)  # fmt: skip
def test_impossible_arguments_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RandomizeArgs(**args)
