from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.front3d.loader import BProc3DFrontLoader, Front3DArgs, Front3DConfig
from nimbusd.stages.load.mend.recentre import check_near_origin, recentred
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.splats.files import read_splats
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.load.splats.loader import GSMeshArgs, GSMeshConfig, GSMeshLoader
from nimbusd.stages.plan.nav import NavArgs, NavPlanner
from nimbusd.stages.store.conventions import conventions
from nimbusd.stages.types import F64, Scene, Splats
from tests.support.front3d_house import write_house
from tests.support.mesh_writers import write_gltf, write_obj_file
from tests.support.nav_scenes import cluttered_room, two_rooms
from tests.support.store_makers import make_episode, make_observation, make_scene, make_sequence, make_writer

UTM = (447_312.25, 5_411_903.5, 1_234.75)
"""Easting, northing and height of a place in the Alps, metres, to the centimetre and exact as float64."""


def load(path: Path, **config: Any) -> Scene:
    return BProcObjLoader(MeshArgs()).load_asset(MeshConfig(name="scene", path=path, **config))


def write_double_mesh(path: Path, corners: F64) -> Path:
    """A .ply of triangles with vertices of 64 bits, three to a face."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(corners)}"]
    header += [f"property double {axis}" for axis in "xyz"]
    header += [f"element face {len(corners) // 3}", "property list uchar int vertex_indices", "end_header", ""]
    faces = np.zeros(len(corners) // 3, [("n", "u1"), ("v", "<i4", 3)])
    faces["n"], faces["v"] = 3, np.arange(len(corners)).reshape(-1, 3)
    path.write_bytes("\n".join(header).encode() + corners.astype("<f8").tobytes() + faces.tobytes())
    return path


def write_double_ply(path: Path, cloud: Splats, shift: tuple[float, float, float]) -> Path:
    """Splats whose positions are float64 and all else float32."""
    names = [
        "f_dc_0",
        "f_dc_1",
        "f_dc_2",
        "opacity",
        "scale_0",
        "scale_1",
        "scale_2",
        "rot_0",
        "rot_1",
        "rot_2",
        "rot_3",
    ]
    table = np.zeros(len(cloud), [*((axis, "<f8") for axis in "xyz"), *((name, "<f4") for name in names)])
    for k, axis in enumerate("xyz"):
        table[axis] = cloud.means[:, k].astype(np.float64) + shift[k]
        table[f"f_dc_{k}"], table[f"scale_{k}"] = cloud.sh[:, 0, k], np.log(cloud.scales[:, k])
    table["opacity"] = 3.0
    for k in range(4):
        table[f"rot_{k}"] = cloud.quats[:, k]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}"]
    header += [*(f"property double {axis}" for axis in "xyz"), *(f"property float {name}" for name in names)]
    path.write_bytes("\n".join([*header, "end_header", ""]).encode() + table.tobytes())
    return path


def test_a_scene_whose_nodes_lie_far_away_is_the_scene_that_lies_near_to_the_last_tenth_of_a_millimetre(
    tmp_path: Path,
) -> None:
    objects = cluttered_room(np.random.default_rng(5)).objects
    near = load(write_gltf(tmp_path / "near.gltf", objects))
    far = load(write_gltf(tmp_path / "far.gltf", objects, node_shift=UTM))
    origin = np.array(far.provenance["origin_m"])
    assert origin.tolist() == [447_300.0, 5_411_900.0, 1_200.0]
    for one, other in zip(near.objects, far.objects, strict=True):
        np.testing.assert_allclose(other.world_vertices() + origin - UTM, one.world_vertices(), atol=1e-4)
        assert np.abs(other.vertices).max() < 10
    assert "origin_m" not in near.provenance


def test_a_drive_in_a_far_scene_is_the_drive_in_the_near_one(tmp_path: Path) -> None:
    objects = two_rooms().objects
    shift = (447_300.0, 5_411_900.0, 1_200.0)  # of whole cells, so that both are planned on the same grid
    scenes = [
        load(write_gltf(tmp_path / f"{name}.gltf", objects, node_shift=moved), light="none")
        for name, moved in (("near", (0.0, 0.0, 0.0)), ("far", shift))
    ]
    near, far = (NavPlanner(NavArgs()).gen_sequence(scene, np.random.default_rng(3)) for scene in scenes)
    np.testing.assert_allclose(far.T_world_camera["front"], near.T_world_camera["front"], atol=1e-6)
    state = far.states["observation.state"].values
    np.testing.assert_allclose(state, near.states["observation.state"].values, atol=1e-6)
    assert np.abs(state[:, :2]).max() < 20


@pytest.mark.parametrize("cancelled", [False, True])
def test_vertices_that_the_file_holds_too_coarsely_are_refused_also_where_a_node_brings_them_back(
    tmp_path: Path, cancelled: bool
) -> None:
    objects = cluttered_room(np.random.default_rng(5)).objects
    back = tuple(-value for value in UTM) if cancelled else (0.0, 0.0, 0.0)
    path = write_gltf(tmp_path / "far.gltf", objects, vertex_shift=UTM, node_shift=back)
    with pytest.raises(AssetError, match=r"far.gltf: part 'floor_1' lies 5,411,9.. m .*500 mm apart: shapes are lost"):
        load(path)


@pytest.mark.parametrize("kind", ["obj", "ply"])
def test_a_far_file_of_64_bit_numbers_keeps_its_shapes(tmp_path: Path, kind: str) -> None:
    objects = cluttered_room(np.random.default_rng(5)).objects
    if kind == "obj":
        scene = load(write_obj_file(tmp_path / "far.obj", objects, UTM))
    else:
        corners = np.concatenate([obj.world_vertices()[obj.faces].reshape(-1, 3) for obj in objects])
        scene = load(write_double_mesh(tmp_path / "far.ply", corners + UTM))
    origin = np.array(scene.provenance["origin_m"])
    made = np.concatenate([obj.world_vertices()[obj.faces].reshape(-1, 3) for obj in scene.objects])
    want = np.concatenate([obj.world_vertices()[obj.faces].reshape(-1, 3) for obj in objects])
    np.testing.assert_allclose(
        np.sort((made + origin - UTM).round(3), axis=0), np.sort(want.round(3), axis=0), atol=2e-3
    )
    assert scene.bounds()[1] + origin - UTM == pytest.approx((6.1, 5.1, 2.5), abs=1e-4)


def test_a_landscape_around_its_origin_and_a_file_in_millimetres_are_taken_as_they_are(tmp_path: Path) -> None:
    ground = replace(make_scene().objects[0], vertices=make_scene().objects[0].vertices * np.float32(3000))
    scene = load(
        write_gltf(tmp_path / "ground.gltf", [replace(ground, T_world_object=np.eye(4))], node_shift=(-6000, -6000, 0))
    )
    assert "origin_m" not in scene.provenance
    house = [replace(obj, vertices=obj.vertices * np.float32(1000)) for obj in make_scene().objects]
    scene = load(write_gltf(tmp_path / "mm.gltf", house), unit_m=0.001)
    assert "origin_m" not in scene.provenance
    np.testing.assert_allclose(scene.bounds()[1], (4, 4, 2), atol=1e-5)


def test_one_part_far_from_all_others_is_named_instead_of_spoiling_them(tmp_path: Path) -> None:
    objects = two_rooms().objects
    path = write_gltf(tmp_path / "apart.gltf", objects, apart={objects[-1].name: (500_000.0, 0.0, 0.0)})
    with pytest.raises(AssetError, match=rf"is 500 km large: '{objects[-1].name}' lies 500 km from the rest"):
        load(path)


def test_a_ceiling_is_given_in_the_file_s_frame(tmp_path: Path) -> None:
    scene = load(write_gltf(tmp_path / "far.gltf", two_rooms().objects, node_shift=UTM), ceiling_m=UTM[2] + 2.5)
    (ceiling,) = (obj for obj in scene.objects if obj.category == "ceiling")
    np.testing.assert_allclose(
        ceiling.world_vertices()[:, 2] + scene.provenance["origin_m"][2], UTM[2] + 2.5, atol=1e-4
    )
    assert scene.lights


def test_far_splats_of_64_bit_come_near_and_of_32_bit_are_refused(tmp_path: Path) -> None:
    cloud = sample_splats(cluttered_room(np.random.default_rng(3)).objects, 20_000)
    loader = GSMeshLoader(GSMeshArgs(voxel_m=0.1))
    near, far = (
        loader.load_asset(
            GSMeshConfig(name="room", splats=write_double_ply(tmp_path / f"{name}.ply", cloud, shift), up_axis="z")
        )
        for name, shift in (("near", (0.0, 0.0, 0.0)), ("far", UTM))
    )
    assert far.splats is not None
    assert near.splats is not None
    origin = np.array(far.provenance["origin_m"])
    np.testing.assert_allclose(far.splats.world_means() + origin - UTM, near.splats.world_means(), atol=1e-4)
    assert np.abs(far.splats.means).max() < 200
    assert far.bounds()[1] + origin - UTM == pytest.approx(
        near.bounds()[1], abs=0.11
    )  # the grid of voxels begins elsewhere
    coarse = replace(cloud, means=(cloud.means + np.array(UTM)).astype(np.float32))
    from tests.stages.load.test_splat_files import write_ply

    with pytest.raises(AssetError, match=r"coarse.ply lies 5,411,9.. units .* shapes are lost"):
        read_splats(write_ply(tmp_path / "coarse.ply", coarse))


def test_far_splats_and_their_far_proxy_stay_on_each_other(tmp_path: Path) -> None:
    objects = cluttered_room(np.random.default_rng(3)).objects
    cloud = sample_splats(objects, 20_000)
    scene = GSMeshLoader(GSMeshArgs()).load_asset(
        GSMeshConfig(
            name="room",
            splats=write_double_ply(tmp_path / "far.ply", cloud, UTM),
            up_axis="z",
            proxy=write_gltf(tmp_path / "far.gltf", objects, node_shift=UTM),
        )
    )
    assert scene.splats is not None
    assert scene.provenance["origin_m"] == [447_300.0, 5_411_900.0, 1_200.0]
    assert "origin_m" not in scene.provenance["proxy"]
    assert scene.bounds()[0] == pytest.approx(scene.splats.world_means().min(axis=0), abs=0.11)
    assert np.abs(scene.splats.world_means()).max() < 200


def test_a_far_house_of_3d_front_keeps_rooms_lamps_and_furniture_together(tmp_path: Path) -> None:
    paths = write_house(tmp_path)
    house = paths.house
    config = Front3DConfig(name="house", house=house, furniture=paths.furniture, textures=paths.textures)
    near = BProc3DFrontLoader(Front3DArgs()).load_asset(config)
    document = json.loads(house.read_text())
    shift = (UTM[0], UTM[2], -UTM[1])  # y up
    for mesh in document["mesh"]:
        mesh["xyz"] = (np.array(mesh["xyz"]).reshape(-1, 3) + shift).ravel().tolist()
    for room in document["scene"]["room"]:
        for child in room["children"]:
            if "furniture" in child["instanceid"]:
                child["pos"] = (np.array(child["pos"]) + shift).tolist()
    house.write_text(json.dumps(document))
    far = BProc3DFrontLoader(Front3DArgs()).load_asset(config)
    origin = np.array(far.provenance["origin_m"])
    for one, other in zip(near.objects, far.objects, strict=True):
        np.testing.assert_allclose(other.world_vertices() + origin - UTM, one.world_vertices(), atol=1e-4)
    for room, moved in zip(near.rooms, far.rooms, strict=True):
        np.testing.assert_allclose(moved.polygon + origin[:2] - UTM[:2], room.polygon, atol=2e-3)
        assert moved.z_m + origin[2] - UTM[2] == pytest.approx(room.z_m, abs=1e-4)
    for lamp, there in zip(near.lights, far.lights, strict=True):
        np.testing.assert_allclose(there.T_world_light[:3, 3] + origin - UTM, lamp.T_world_light[:3, 3], atol=2e-3)


def test_a_loader_that_leaves_its_scene_far_away_is_told_the_function_that_moves_it() -> None:
    board = make_scene().objects[1]
    T = np.eye(4)
    T[:3, 3] = UTM
    scene = Scene("far", (replace(board, T_world_object=T),))
    with pytest.raises(AssetError, match=r"scene 'far' lies around .*recentred\(scene\)"):
        check_near_origin(scene)
    check_near_origin(recentred(scene))
    check_near_origin(make_scene())


def test_a_dataset_says_where_the_origins_of_moved_scenes_lie(tmp_path: Path) -> None:
    writer = make_writer(format="lerobot-v3.0", media="image")
    pieces = []
    for index, (name, provenance) in enumerate((("near", {}), ("far", {"origin_m": [100.0, 0.0, 0.0]}))):
        seq = make_sequence(seed=index)
        episode = make_episode(tmp_path, index, scene=name, seq=seq)
        assert episode.scene is not None
        episode.scene = replace(episode.scene, provenance=provenance)
        pieces.append(writer.save_data(seq, make_observation(seq), episode))
    root = writer.publish(tmp_path, pieces, {"name": "job"}, True)
    told = json.loads((root / "meta/conventions.json").read_text())["world_origins_m"]
    assert told["scenes"] == {"far": [100.0, 0.0, 0.0]}
    assert "world_origins_m" not in conventions({}, {})
