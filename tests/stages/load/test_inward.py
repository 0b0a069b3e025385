from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from nimbusd.stages.load.apartment.loader import ApartmentArgs, ApartmentConfig, ApartmentLoader
from nimbusd.stages.load.mend.inward import facing_inward
from nimbusd.stages.plan.nav import NavArgs, NavPlanner
from nimbusd.stages.plan.occupancy import MapArgs, floor_heights
from nimbusd.stages.types import Scene, SceneObject
from tests.stages.load.test_coincident import sheet
from tests.support.nav_scenes import Boxes, cluttered_room, two_rooms, two_storeys

ROOM = ((0.0, 6.0), (0.0, 5.0))


def shell(*, outward: bool, uvs: bool = False) -> SceneObject:
    """A closed room of one mesh, 6 x 5 x 2.5 m, seen from outside or from inside."""
    boxes = Boxes()
    boxes.box("object", (0, 6), (0, 5), (0, 2.5))
    (made,) = boxes.objects
    corners = np.arange(72, dtype=np.float32).reshape(12, 3, 2) if uvs else None
    return replace(made, name="shell", faces=made.faces if outward else made.faces[:, ::-1].copy(), uvs=corners)


def furniture() -> tuple[SceneObject, ...]:
    boxes = Boxes()
    boxes.box("object", (1, 2), (1, 2), (0, 0.75))
    boxes.box("object", (4, 5.5), (3, 4.8), (0, 2.0))
    return tuple(boxes.objects)


def facing(obj: SceneObject, z: float) -> float:
    """Mean of the normals' z of the faces at a height."""
    corners = obj.world_vertices()[obj.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return float(
        np.mean(
            (normal[:, 2] / np.linalg.norm(normal, axis=1))[np.ptp(corners[:, :, 2], axis=1) < 1e-6][
                np.isclose(corners[np.ptp(corners[:, :, 2], axis=1) < 1e-6][:, 0, 2], z)
            ]
        )
    )


def test_a_room_seen_from_outside_is_turned_and_its_floor_is_the_floor_again() -> None:
    objects = [shell(outward=True), *furniture()]
    assert floor_heights(Scene("room", tuple(objects)), MapArgs()) != [0.0]
    made, (told,) = facing_inward(objects)
    assert floor_heights(Scene("room", tuple(made)), MapArgs()) == [0.0]
    assert facing(made[0], 0) == 1
    assert facing(made[0], 2.5) == -1
    assert re.match(r"floors of 2\d m² face down and the ceilings over 2\d m² of them up \(mostly of 'shell'\)", told)
    assert all(one is other for one, other in zip(made[1:], objects[1:], strict=True))
    sequence = NavPlanner(NavArgs(min_path_m=1.0)).gen_sequence(Scene("room", tuple(made)), np.random.default_rng(0))
    assert np.allclose(sequence.states["observation.state"].values[:, 2], 0)


def test_what_is_turned_is_what_it_would_be_if_it_had_been_made_right() -> None:
    made, _ = facing_inward([shell(outward=True, uvs=True), *furniture()])
    np.testing.assert_array_equal(made[0].faces, shell(outward=False).faces)
    assert made[0].uvs is not None
    np.testing.assert_array_equal(made[0].uvs, np.arange(72, dtype=np.float32).reshape(12, 3, 2)[:, ::-1])


def test_floor_and_ceiling_of_their_own_are_turned_and_only_they() -> None:
    objects = [
        sheet("a", *ROOM, down=True, category="object"),
        sheet("b", *ROOM, z=2.6, category="object"),
        *furniture(),
    ]
    made, told = facing_inward(objects)
    assert facing(made[0], 0) == 1
    assert facing(made[1], 2.6) == -1
    assert all(one is other for one, other in zip(made[2:], objects[2:], strict=True))
    assert "the ceilings over" in told[0]


def test_a_floor_that_alone_faces_down_is_turned() -> None:
    for above in ([], [sheet("b", *ROOM, z=2.6, down=True, category="object")], list(furniture())):
        made, told = facing_inward([sheet("a", *ROOM, down=True, category="object"), *above])
        assert facing(made[0], 0) == 1
        assert all(one is other for one, other in zip(made[1:], above, strict=True))
        assert "face down" in told[0]


def test_an_empty_box_is_left_alone_and_told_and_a_block_of_any_height_is_none_of_our_business() -> None:
    for height in (1.0, 2.5, 12.0):
        boxes = Boxes()
        boxes.box("object", (0, 6), (0, 5), (0, height))
        made, told = facing_inward(boxes.objects)
        assert made[0] is boxes.objects[0]
        assert bool(told) == (height == 2.5)
        assert all("a box with nothing in it" in sentence for sentence in told)


def test_sheets_with_two_sides_are_floors_as_they_are() -> None:
    for z in (0.0, 1e-9):
        both = [sheet(str(down), z=height + z * down, down=down) for height in (0.0, 2.6) for down in (True, False)]
        for objects in (both, both[::-1]):
            made, told = facing_inward(objects)
            assert told == []
            assert all(one is other for one, other in zip(made, objects, strict=True))


def town() -> list[SceneObject]:
    boxes = Boxes()
    boxes.box("object", (0, 60), (0, 60), (-0.2, 0))
    for x in (5, 20, 35):
        boxes.box("object", (x, x + 10), (10, 40), (0, 6))
    return boxes.objects


@pytest.mark.parametrize(
    "objects",
    [
        two_rooms().objects,
        list(two_storeys(rooms=False).objects),
        list(cluttered_room(np.random.default_rng(2)).objects),
        [shell(outward=False), *furniture()],
        [sheet("floor", *ROOM), *furniture()],
        town(),
        [sheet("floor"), sheet("ceiling", z=2.6)],
    ],
)
def test_scenes_whose_floors_face_up_are_left_alone(objects: list[SceneObject]) -> None:
    made, told = facing_inward(objects)
    assert all(one is other for one, other in zip(made, objects, strict=True))
    assert told == []


def test_an_apartment_is_left_alone_and_comes_back_when_all_its_faces_are_turned() -> None:
    scene = ApartmentLoader(ApartmentArgs(texture_px=16)).load_asset(ApartmentConfig(name="flat", seed=5, rooms=2))
    assert facing_inward(scene.objects)[1] == []
    turned = [replace(obj, faces=obj.faces[:, ::-1].copy()) for obj in scene.objects]
    made, told = facing_inward(turned)
    assert told
    assert floor_heights(replace(scene, objects=tuple(made), rooms=()), MapArgs()) == [0.0]
