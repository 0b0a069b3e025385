from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader
from nimbusd.stages.load.mend.coincident import without_coincident
from nimbusd.stages.types import F64, Material, Scene, SceneObject
from tests.support.nav_scenes import cluttered_room, two_rooms, two_storeys

DIAGONALS = (((0, 1, 2), (0, 2, 3)), ((0, 1, 3), (1, 2, 3)))


def sheet(
    name: str = "floor",
    x: tuple[float, float] = (0.0, 4.0),
    y: tuple[float, float] = (0.0, 3.0),
    z: float = 0.0,
    *,
    diagonal: int = 0,
    down: bool = False,
    material: str = "plain",
    category: str = "floor",
) -> SceneObject:
    corners = np.array([(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)], np.float32)
    faces = np.array(DIAGONALS[diagonal], np.int32)
    return SceneObject(
        name, category, 1, corners, faces[:, ::-1] if down else faces, (Material(material),), np.zeros(2, np.int32)
    )


def area(objects: list[SceneObject]) -> float:
    return float(np.linalg.norm(normals_of(objects), axis=1).sum() / 2)


def normals_of(objects: list[SceneObject]) -> F64:
    """(F, 3) of all triangles, as long as twice their area."""
    corners = np.concatenate([obj.world_vertices()[obj.faces] for obj in objects])
    return np.asarray(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))


def turned(obj: SceneObject, seed: int) -> SceneObject:
    """The object somewhere else, at any angle."""
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    T[:3, 3] = np.random.default_rng(seed).uniform(-50, 50, 3)
    return replace(obj, T_world_object=T)


@pytest.mark.parametrize("seed", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("diagonal", [0, 1])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("material", ["plain", "other"])
def test_a_sheet_that_is_there_twice_is_there_once(seed: int | None, diagonal: int, down: bool, material: str) -> None:
    """With its triangles in either order, from either side, in another material, at any angle."""
    pair = [sheet(), sheet("again", diagonal=diagonal, down=down, material=material)]
    if seed is not None:
        pair = [turned(obj, seed) for obj in pair]
    made, told = without_coincident(pair)
    assert area(made) == pytest.approx(12.0, rel=1e-4)
    assert len(told) == 1
    assert "2 triangles (12.0 m²) lay in others at the same place and were removed" in told[0]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_a_triangle_is_known_again_whatever_the_order_of_its_corners(order: tuple[int, int, int]) -> None:
    one = sheet()
    both = replace(
        one, faces=np.concatenate([one.faces, one.faces[:, list(order)]]), face_material=np.zeros(4, np.int32)
    )
    made, told = without_coincident([both])
    assert len(made[0].faces) == 2
    assert told


def test_of_two_sides_the_one_that_is_walked_on_stays_and_of_a_ceiling_the_one_that_is_seen() -> None:
    for first, second in ((True, False), (False, True)):
        made, _ = without_coincident([sheet("a", down=first), sheet("b", down=second)])
        normals = normals_of(made)
        assert (normals[:, 2] > 0).all()
        ceilings = [sheet("a", down=first, category="ceiling"), sheet("b", down=second, category="ceiling")]
        made, _ = without_coincident(ceilings)
        normals = normals_of(made)
        assert (normals[:, 2] < 0).all()


def test_textures_stay_with_their_faces() -> None:
    uvs = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    one = replace(sheet(), uvs=uvs)
    both = replace(
        one,
        faces=np.concatenate([one.faces[:1], one.faces[:1], one.faces[1:]]),
        uvs=np.concatenate([uvs[:1], uvs[:1] + 100, uvs[1:]]),
        materials=(Material("a"), Material("b")),
        face_material=np.array([0, 0, 1], np.int32),
    )
    (made,), _ = without_coincident([both])
    assert made.uvs is not None
    np.testing.assert_array_equal(made.uvs, uvs)
    assert made.face_material.tolist() == [0, 1]


def test_a_part_of_a_floor_in_the_same_material_goes_and_in_another_one_is_told() -> None:
    part = sheet("part", (1.0, 2.0), (1.0, 2.0))
    made, told = without_coincident([sheet(), part])
    assert [obj.name for obj in made] == ["floor"]
    assert len(told) == 1
    made, told = without_coincident([part, sheet(), replace(part, name="mark", materials=(Material("paint"),))][1:])
    assert len(made) == 2
    assert "surfaces lie in each other over 1.0 m²" in told[0]
    assert "'floor' and 'mark'" in told[0]


def test_an_overlap_of_two_floors_is_told_with_its_area() -> None:
    made, told = without_coincident([sheet(), sheet("other", (3.0, 7.0), (0.0, 3.0), diagonal=1)])
    assert len(made) == 2
    assert "over 3.0 m²" in told[0]


def test_floors_side_by_side_stairs_and_what_is_laid_on_a_floor_are_left_alone() -> None:
    beside = [sheet(), sheet("beside", (4.0, 8.0)), sheet("upstairs", z=3.0), sheet("rug", (1, 2), (1, 2), 0.001)]
    made, told = without_coincident(beside)
    assert made == beside
    assert told == []


@pytest.mark.parametrize(
    "scene", [two_rooms().scene(), two_storeys(rooms=False), cluttered_room(np.random.default_rng(4))]
)
def test_boxes_that_stand_on_a_floor_keep_their_undersides_and_nobody_is_told(scene: Scene) -> None:
    objects = list(scene.objects)
    made, _ = without_coincident(objects)
    assert [len(obj.faces) for obj in made] == [len(obj.faces) for obj in objects]


def test_what_may_be_moved_keeps_its_faces() -> None:
    lid = replace(sheet("lid"), movable=True)
    made, _ = without_coincident([sheet(), lid])
    assert area(made) == pytest.approx(24.0)


def test_a_furnished_apartment_keeps_all_but_the_ends_of_walls_that_lie_in_each_other() -> None:
    scene = ApartmentLoader(ApartmentArgs(texture_px=16)).load_asset(ApartmentConfig(name="flat", seed=3, rooms=3))
    fixed = [replace(obj, movable=False) for obj in scene.objects]
    made, _ = without_coincident(fixed)
    assert 0.98 * area(fixed) < area(made) < area(fixed)
    assert [obj.name for obj in made] == [obj.name for obj in fixed]
