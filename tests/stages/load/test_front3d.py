from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import trimesh

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.front3d.loader import BProc3DFrontLoader, Front3DArgs, Front3DConfig
from nimbusd.stages.types import Scene, SceneObject
from tests.support.front3d_house import DOORS, HEIGHT_M, ROOMS, HousePaths, write_house


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> HousePaths:
    return write_house(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def scene(paths: HousePaths) -> Scene:
    return load(paths)


def config(paths: HousePaths, **changes: Any) -> Front3DConfig:
    return Front3DConfig(
        **{"name": "demo", "house": paths.house, "furniture": paths.furniture, "textures": paths.textures, **changes}
    )


def load(paths: HousePaths, args: Front3DArgs | None = None, **changes: Any) -> Scene:
    return BProc3DFrontLoader(args or Front3DArgs()).load_asset(config(paths, **changes))


def change(paths: HousePaths, edit: Callable[[dict[str, Any]], object]) -> None:
    house = json.loads(paths.house.read_text())
    edit(house)
    paths.house.write_text(json.dumps(house))


def named(scene: Scene, name: str) -> SceneObject:
    return next(obj for obj in scene.objects if obj.name == name)


def test_rooms_have_their_floor_plans_in_world_axes(scene: Scene) -> None:
    assert [room.category for room in scene.rooms] == ["living_room", "master_bedroom", "dining_room"]
    for room, (x0, y0, x1, y1) in zip(scene.rooms, ROOMS.values(), strict=True):
        assert shapely.Polygon(room.polygon).equals_exact(shapely.box(x0, y0, x1, y1), 1e-3, normalize=True)
        assert shapely.LinearRing(room.polygon).is_ccw
        assert room.z_m == 0


def test_the_house_stands_upright_in_metres(scene: Scene) -> None:
    np.testing.assert_allclose(scene.bounds(), ((0, 0, 0), (9.2, 7.2, HEIGHT_M)), atol=1e-6)
    bed = named(scene, "bed_1").world_vertices()
    np.testing.assert_allclose(bed.min(axis=0), (6.45, 1.8, 0), atol=1e-6)
    np.testing.assert_allclose(bed.max(axis=0), (8.35, 3.88, 1.0), atol=1e-6)
    # Turned by -90 degrees: the handle, on the model's +z side, looks to -x.
    wardrobe = named(scene, "wardrobe_1").world_vertices()
    np.testing.assert_allclose(wardrobe.min(axis=0), (8.47, 0.2, 0), atol=1e-6)
    np.testing.assert_allclose(wardrobe.max(axis=0), (9.1, 1.8, 2.1), atol=1e-6)


def test_surfaces_face_the_room_and_models_face_outwards(scene: Scene) -> None:
    for obj in scene.objects:
        mesh = trimesh.Trimesh(obj.world_vertices(), obj.faces, process=False)
        if obj.category == "floor":
            np.testing.assert_allclose(mesh.face_normals[:, 2], 1)
        elif obj.category == "ceiling":
            np.testing.assert_allclose(mesh.face_normals[:, 2], -1)
        elif obj.movable:
            assert mesh.volume > 0


def test_categories_come_from_the_common_vocabulary(scene: Scene) -> None:
    categories = {obj.category for obj in scene.objects}
    assert categories == {
        "floor", "ceiling", "wall", "door", "window", "bed", "nightstand", "wardrobe", "sofa", "coffee_table",
        "tv_stand", "dining_table", "chair", "ceiling_lamp",
    }  # fmt: skip
    assert len({obj.instance_id for obj in scene.objects}) == len({obj.name for obj in scene.objects}) == 32


def test_door_linings_stand_in_their_doorways(scene: Scene) -> None:
    doors = [obj.world_vertices()[:, :2] for obj in scene.objects if obj.category == "door"]
    for corners, door in zip(doors, DOORS, strict=True):
        np.testing.assert_allclose((corners.min(axis=0), corners.max(axis=0)), (door.low, door.high), atol=1e-6)


def test_what_stands_on_the_floor_is_movable(scene: Scene) -> None:
    still = {obj.category for obj in scene.objects if not obj.movable}
    assert still == {"floor", "ceiling", "wall", "door", "window", "ceiling_lamp"}


def test_lamps_hang_below_ceiling_lamps_or_else_below_the_ceiling(scene: Scene) -> None:
    kinds = {light.name.split()[0]: light.kind for light in scene.lights}
    assert kinds == {"LivingRoom-1": "point", "MasterBedroom-1": "area", "DiningRoom-1": "point"}
    assert [light.power_w for light in scene.lights] == pytest.approx([100, 80, 75])
    for light in scene.lights:
        x, y, z = light.T_world_light[:3, 3]
        assert any(shapely.Polygon(room.polygon).contains(shapely.Point(x, y)) for room in scene.rooms)
        assert 2.0 < z < HEIGHT_M
    assert named(scene, "ceiling_lamp_1").materials[0].emission > 0


def test_textures_belong_to_floor_and_models(scene: Scene, paths: HousePaths) -> None:
    floor = named(scene, "Floor 1")
    assert floor.materials[0].texture is not None
    assert floor.materials[0].texture.shape == (64, 64, 3)
    assert named(scene, "sofa_1").materials[0].texture is not None
    wall = named(scene, "WallInner 1").materials[0]
    assert wall.texture is None
    assert wall.base_color == pytest.approx((0.753, 0.716, 0.610), abs=1e-3)
    plain = load(paths, textures=None)
    assert named(plain, "Floor 1").materials[0].texture is None


def test_the_same_house_gives_the_same_scene_and_no_furniture_an_empty_one(paths: HousePaths, tmp_path: Path) -> None:
    assert load(paths).content_hash == load(write_house(tmp_path / "again")).content_hash
    bare = load(write_house(tmp_path / "bare", rooms=2, furnished=False))
    assert len(bare.rooms) == 2
    assert not any(obj.movable for obj in bare.objects)


def test_asset_paths_are_the_house_its_models_and_textures(paths: HousePaths) -> None:
    loader = BProc3DFrontLoader(Front3DArgs())
    found = loader.asset_paths(config(paths))
    assert found[0] == paths.house
    assert {path.name for path in found} == {"house.json", "raw_model.obj", "model.mtl", "texture.png"}
    assert all(path.is_file() for path in found)
    nowhere = paths.house.with_name("nowhere.json")
    assert loader.asset_paths(config(paths, house=nowhere)) == [nowhere]


def test_missing_models_are_listed_together_or_left_out(tmp_path: Path) -> None:
    paths = write_house(tmp_path)
    for jid in ("demo-bed", "demo-sofa"):
        (paths.furniture / jid / "raw_model.obj").unlink()
    with pytest.raises(AssetError, match=r"house.json needs 2 furniture models .*: demo-bed, demo-sofa \("):
        load(paths)
    scene = load(paths, Front3DArgs(skip_missing=True))
    assert not {"bed", "sofa"} & {obj.category for obj in scene.objects}
    assert scene.provenance["left_out"] == 2


def test_unpublished_furniture_is_left_out(tmp_path: Path) -> None:
    paths = write_house(tmp_path)
    change(paths, lambda house: [entry.pop("valid") for entry in house["furniture"]])
    scene = load(paths)
    assert not any(obj.movable for obj in scene.objects)
    assert scene.provenance["left_out"] == 11


def test_unknown_categories_become_snake_case_words(tmp_path: Path) -> None:
    paths = write_house(tmp_path)
    (paths.furniture / "model_info.json").unlink()
    change(paths, lambda house: [entry.update(category="Grand Piano") for entry in house["furniture"]])
    assert named(load(paths), "grand_piano_1").movable


def test_scale_and_mirroring_of_a_child_are_in_its_vertices(tmp_path: Path) -> None:
    paths = write_house(tmp_path)
    change(paths, lambda house: house["scene"]["room"][0]["children"][-4].update(scale=[-2, 1, 0.5]))
    sofa = named(load(paths), "sofa_1")
    np.testing.assert_allclose(sofa.T_world_object[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.ptp(sofa.world_vertices(), axis=0), (4, 0.4, 0.74), atol=1e-6)
    assert trimesh.Trimesh(sofa.vertices, sofa.faces, process=False).volume > 0


def test_surfaces_without_texture_coordinates_are_loaded(tmp_path: Path) -> None:
    paths = write_house(tmp_path)
    change(paths, lambda house: house["mesh"][0].update(uv=[None] * 8))
    assert named(load(paths), "Floor 1").uvs is None


@pytest.mark.parametrize(
    ("edit", "named_place"),
    [
        (lambda h: h.pop("scene"), r"house\.json: scene: field required"),
        (lambda h: h["scene"]["room"][1].pop("type"), r"scene\.room\[1\]\.type: field required"),
        (lambda h: h["scene"]["room"][2]["children"][0].pop("ref"), r"scene\.room\[2\]\.children\[0\]\.ref: field"),
        (lambda h: h["scene"]["room"][0]["children"][1].update(pos=[1, 2]), r"scene\.room\[0\]\.children\[1\]\.pos"),
        (lambda h: h["scene"]["room"][0]["children"][-1].update(rot=[0, 0, 0, 0]), "furniture/LivingRoom3 has the rot"),
        (lambda h: h["furniture"][3].pop("jid"), r"furniture\[3\]\.jid: field required"),
        (lambda h: h["mesh"][4].pop("xyz"), r"mesh\[4\]\.xyz: field required"),
        (lambda h: h["mesh"][4]["xyz"].pop(), r"mesh\[4\] is torn: 35 coordinates"),
        (lambda h: h["mesh"][4]["uv"].pop(), r"mesh\[4\] is torn"),
        (lambda h: h["mesh"][0]["faces"].append(0), r"mesh\[0\] is torn: .*7 corners"),
        (lambda h: h["mesh"][0].update(faces=[0, 1, 99]), r"mesh\[0\] is torn: a face names a vertex"),
        (lambda h: h["mesh"][0]["xyz"].__setitem__(0, "wide"), r"mesh\[0\]\.xyz\[0\]"),
        (lambda h: h.update(mesh=[], furniture=[]), "is empty"),
    ],
)
def test_a_broken_house_is_refused_with_the_place(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], named_place: str
) -> None:
    paths = write_house(tmp_path)
    change(paths, edit)
    with pytest.raises(AssetError, match=named_place):
        load(paths)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.house.unlink(), r"house\.json cannot be read"),
        (lambda p: p.house.write_text("{torn"), r"house\.json: \$: invalid json"),
        (lambda p: (p.textures / "tex-floor" / "texture.png").unlink(), r"texture .*tex-floor.* is missing"),
        (lambda p: (p.furniture / "demo-bed" / "texture.png").unlink(), r"demo-bed/texture\.png .*is missing"),
        (lambda p: (p.furniture / "demo-bed" / "model.mtl").unlink(), r"demo-bed/model\.mtl is missing"),
        (lambda p: (p.furniture / "model_info.json").write_text("{}"), r"model_info\.json is not a JSON list"),
    ],
)
def test_a_missing_or_torn_file_is_named(tmp_path: Path, spoil: Callable[[HousePaths], object], message: str) -> None:
    paths = write_house(tmp_path)
    spoil(paths)
    with pytest.raises(AssetError, match=message):
        load(paths)
