from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.lamps import ceiling_panels
from nimbusd.stages.load.mesh.files import read_mesh_file
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.names import category_of
from nimbusd.stages.types import F64, Scene, SceneObject

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def load(path: Path, **config: Any) -> Scene:
    return BProcObjLoader(MeshArgs()).load_asset(MeshConfig(name="scene", path=path, **config))


def export(geometry: Any, *target: Path, **options: Any) -> Any:
    """Trimesh's export, which has no types."""
    return geometry.export(*target, **options)


def quarters(path: Path) -> Path:
    """A picture whose quarters are red (top left), green (top right), blue (bottom left), white."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4], pixels[:4, 4:], pixels[4:, :4], pixels[4:, 4:] = RED, GREEN, BLUE, WHITE
    Image.fromarray(pixels).save(path)
    return path


def color_at(obj: SceneObject, point: tuple[float, float, float]) -> tuple[int, ...]:
    """The texture's colour at the corner of the object that lies at a world point."""
    corners = obj.world_vertices()[obj.faces]
    face, corner = np.argwhere(np.linalg.norm(corners - point, axis=-1) < 1e-5)[0]
    texture = obj.materials[obj.face_material[face]].texture
    assert texture is not None
    assert obj.uvs is not None
    u, v = np.clip(obj.uvs[face, corner], 0.01, 0.99)
    height, width = texture.shape[:2]
    return tuple(int(value) for value in texture[int((1 - v) * height), int(u * width)])


def volume(obj: SceneObject) -> float:
    return float(trimesh.Trimesh(obj.world_vertices(), obj.faces, process=False).volume)


def write_obj(folder: Path, **replaced: str) -> Path:
    """A textured quad standing in the x-z plane, facing -y; `replaced` changes texts of the .obj or .mtl."""
    obj = (
        "mtllib quad.mtl\no quad\nv 0 0 0\nv 1 0 0\nv 1 0 1\nv 0 0 1\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl paint\nf 1/1 2/2 3/3 4/4\n"
    )
    mtl = "newmtl paint\nKd 0.5 0.5 0.5\nNs 100\nd 0.25\nmap_Kd -s 1 1 1 my picture.png\n"
    for old, new in replaced.items():
        assert old in obj + mtl
        obj, mtl = obj.replace(old, new), mtl.replace(old, new)
    (folder / "quad.obj").write_text(obj)
    (folder / "quad.mtl").write_text(mtl)
    quarters(folder / "my picture.png")
    return folder / "quad.obj"


def write_gltf(folder: Path) -> Path:
    """A .gltf of a textured quad in the x-y plane, with buffer and picture in files of their own."""
    positions = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], "<f4")
    uvs = np.array([(0, 1), (1, 1), (1, 0), (0, 0)], "<f4")  # glTF's v runs downwards
    indices = np.array([0, 1, 2, 0, 2, 3], "<u2")
    blob = positions.tobytes() + uvs.tobytes() + indices.tobytes()
    (folder / "quad.bin").write_bytes(blob)
    quarters(folder / "my picture.png")
    document = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "Chair_01", "mesh": 0, "scale": [2, 2, 2], "translation": [0, 0, 5]}],
        "meshes": [{"primitives": [
            {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}
        ]}],
        "materials": [{
            "name": "paint", "alphaMode": "BLEND",
            "pbrMetallicRoughness": {
                "baseColorFactor": [0.5, 0.25, 1, 0.75], "baseColorTexture": {"index": 0},
                "roughnessFactor": 0.3, "metallicFactor": 0.9,
            },
        }],
        "textures": [{"source": 0}],
        "images": [{"uri": "my%20picture.png"}],
        "buffers": [{"uri": "quad.bin", "byteLength": len(blob)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 48},
            {"buffer": 0, "byteOffset": 48, "byteLength": 32},
            {"buffer": 0, "byteOffset": 80, "byteLength": 12},
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
    }  # fmt: skip
    (folder / "quad.gltf").write_text(json.dumps(document))
    return folder / "quad.gltf"


@pytest.mark.parametrize("suffix", [".obj", ".glb", ".gltf", ".ply"])
@pytest.mark.parametrize(
    ("up_axis", "low", "high"),
    [("z", (0, 0, 0), (1, 2, 3)), ("y", (0, -3, 0), (1, 0, 2))],
)
@pytest.mark.parametrize("unit_m", [1.0, 0.01])
def test_a_box_has_its_size_and_place_in_metres_with_z_up(
    tmp_path: Path, suffix: str, up_axis: str, low: tuple[int, ...], high: tuple[int, ...], unit_m: float
) -> None:
    box = trimesh.creation.box(bounds=[(0, 0, 0), (1, 2, 3)])
    box.apply_scale(1 / unit_m)
    (tmp_path / "box").mkdir()
    path = tmp_path / "box" / f"box{suffix}"
    # Some exports consist of several files.
    exported = export(trimesh.Scene(box) if suffix != ".ply" else box, file_type=suffix[1:])
    if isinstance(exported, dict):
        for name, blob in exported.items():
            (path.parent / name.replace("model", "box")).write_bytes(blob)
    else:
        path.write_bytes(exported if isinstance(exported, bytes) else exported.encode())
    scene = load(path, up_axis=up_axis, unit_m=unit_m)
    np.testing.assert_allclose(scene.bounds(), (low, high), atol=1e-5)
    assert volume(scene.objects[0]) == pytest.approx(6, rel=1e-5)


def test_gltf_is_y_up_and_the_others_z_up_unless_told(tmp_path: Path) -> None:
    box = trimesh.creation.box(extents=(1, 2, 3))
    for suffix, height in ((".glb", 2.0), (".obj", 3.0), (".ply", 3.0)):
        box.export(tmp_path / f"box{suffix}")
        low, high = load(tmp_path / f"box{suffix}").bounds()
        assert high[2] - low[2] == pytest.approx(height)


def test_gltf_nodes_become_objects_with_their_transforms(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    box = trimesh.creation.box(bounds=[(0, 0, 0), (1, 1, 1)])
    shifted, mirrored = np.eye(4), np.diag([-1.0, 1, 1, 1])
    shifted[:3, 3] = (10, 0, 0)
    scene.add_geometry(box, node_name="SofaA_01", geom_name="g", transform=shifted)
    scene.add_geometry(box, node_name="mirrored Table", geom_name="g", transform=mirrored)
    export(scene, tmp_path / "two.glb")
    objects = {obj.name: obj for obj in load(tmp_path / "two.glb", up_axis="z", movable=("sofa",)).objects}
    assert {name: obj.category for name, obj in objects.items()} == {"SofaA_01": "sofa", "mirrored Table": "table"}
    assert [objects["SofaA_01"].movable, objects["mirrored Table"].movable] == [True, False]
    np.testing.assert_allclose(objects["SofaA_01"].world_vertices().min(axis=0), (10, 0, 0))
    np.testing.assert_allclose(objects["SofaA_01"].T_world_object[:3, 3], (10.5, 0.5, 0))
    np.testing.assert_allclose(objects["mirrored Table"].world_vertices().min(axis=0), (-1, 0, 0))
    # Faces still look outwards after mirroring.
    assert [volume(obj) for obj in objects.values()] == pytest.approx([1, 1])


def test_textures_of_an_obj_lie_the_right_way_round(tmp_path: Path) -> None:
    (quad,) = load(write_obj(tmp_path)).objects
    seen = [color_at(quad, corner) for corner in ((0, 0, 1), (1, 0, 1), (0, 0, 0), (1, 0, 0))]
    assert seen == [RED, GREEN, BLUE, WHITE]
    material = quad.materials[0]
    assert (material.base_color, material.opacity, material.metallic) == ((1, 1, 1), 0.25, 0)
    assert material.roughness == pytest.approx((2 / 102) ** 0.25)


def test_textures_and_factors_of_a_gltf_are_read(tmp_path: Path) -> None:
    (quad,) = load(write_gltf(tmp_path), up_axis="z").objects
    assert (quad.category, quad.smooth) == ("chair", False)
    seen = [color_at(quad, corner) for corner in ((0, 2, 5), (2, 2, 5), (0, 0, 5), (2, 0, 5))]
    assert seen == [RED, GREEN, BLUE, WHITE]
    material = quad.materials[0]
    assert (material.base_color, material.opacity) == ((0.5, 0.25, 1), 0.75)
    assert (material.roughness, material.metallic) == (0.3, 0.9)


def test_obj_groups_become_objects_and_polygons_triangles(tmp_path: Path) -> None:
    path = tmp_path / "two.obj"
    path.write_text(
        "# two parts\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv -1 \\\n 0.5 0\n"
        "g Bed_frame\nf 1 2 3 4 5\nv 0 0 1\ng Lamp\nusemtl unknown\nf -6 -5 -1\n"
    )
    first, second = load(path, light="none").objects
    assert [(o.name, o.category, len(o.faces)) for o in (first, second)] == [
        ("Bed_frame", "bed", 3),
        ("Lamp", "lamp", 1),
    ]
    assert [o.instance_id for o in (first, second)] == [1, 2]
    np.testing.assert_allclose(first.world_vertices().min(axis=0), (-1, 0, 0))


def test_only_bent_normals_make_a_part_smooth(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    export(trimesh.Scene({"ball": ball}), tmp_path / "ball.glb", include_normals=True)
    box = trimesh.creation.box()
    box.unmerge_vertices()
    export(trimesh.Scene({"box": box}), tmp_path / "box.glb", include_normals=True)
    assert load(tmp_path / "ball.glb").objects[0].smooth
    assert not load(tmp_path / "box.glb").objects[0].smooth


def test_vertex_colors_of_a_ply_become_a_texture(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    corners, normals = box.triangles.reshape(-1, 3), np.repeat(box.face_normals, 3, axis=0)
    colors = np.where(normals[:, 2:] > 0.5, (*RED, 255), (*BLUE, 255)).astype(np.uint8)
    soup = trimesh.Trimesh(corners, np.arange(36).reshape(-1, 3), vertex_colors=colors, process=False)
    export(soup, tmp_path / "box.ply")
    (obj,) = load(tmp_path / "box.ply").objects
    texture, uvs = obj.materials[0].texture, obj.uvs
    assert texture is not None
    assert uvs is not None
    normals = trimesh.Trimesh(obj.vertices, obj.faces, process=False).face_normals
    for uv, normal in zip(uvs[:, 0], normals, strict=True):
        row, column = int((1 - uv[1]) * len(texture)), int(uv[0] * len(texture))
        assert tuple(texture[row, column]) == (RED if normal[2] > 0.5 else BLUE)


def test_the_same_file_gives_the_same_scene(tmp_path: Path) -> None:
    path = write_gltf(tmp_path)
    assert load(path).content_hash == load(path).content_hash


def test_asset_paths_name_every_file_even_missing_ones(tmp_path: Path) -> None:
    loader = BProcObjLoader(MeshArgs())
    obj, gltf = write_obj(tmp_path), write_gltf(tmp_path)
    (tmp_path / "my picture.png").unlink()
    assert loader.asset_paths(MeshConfig(name="a", path=obj)) == [
        obj,
        tmp_path / "quad.mtl",
        tmp_path / "my picture.png",
    ]
    assert loader.asset_paths(MeshConfig(name="a", path=gltf)) == [
        gltf,
        tmp_path / "quad.bin",
        tmp_path / "my picture.png",
    ]
    missing = tmp_path / "nowhere.glb"
    assert loader.asset_paths(MeshConfig(name="a", path=missing)) == [missing]


@pytest.mark.parametrize(
    ("maker", "lost", "named"),
    [
        (write_obj, "quad.obj", "quad.obj"),
        (write_obj, "quad.mtl", "material library .*quad.mtl is missing"),
        (write_obj, "my picture.png", "texture .*my picture.png .*missing"),
        (write_gltf, "quad.bin", "buffer .*quad.bin is missing"),
        (write_gltf, "my picture.png", "texture .*my picture.png .*missing"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, maker: Any, lost: str, named: str) -> None:
    path = maker(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(AssetError, match=named):
        load(path)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("f 1/1 2/2 3/3 4/4", "f 1/1 2/2 9/3", "line 12: 'f' cannot be read .*index 9"),
        ("f 1/1 2/2 3/3 4/4", "f 1/1 2/2", "line 12: .*three corners"),
        ("f 1/1 2/2 3/3 4/4", "", "no triangles"),
        ("v 1 0 1", "v 1 zero 1", "line 5: 'v' cannot be read"),
        ("v 1 0 1", "v 1 0", "line 5: .*three numbers"),
        ("v 1 0 1", "v 1 nan 1", "part 'quad' has vertices that are not finite"),
        ("Ns 100", "Ns many", "material 'paint' cannot be read"),
    ],
)
def test_a_broken_obj_is_refused_with_its_line(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(AssetError, match=named):
        load(write_obj(tmp_path, **{old: new}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d["accessors"][2].update(count=600), "an accessor reads past buffer view 2"),
        (lambda d: d["bufferViews"][1].update(byteLength=10**6), "buffer view 1 ends past its buffer"),
        (lambda d: d["buffers"][0].update(byteLength=10**6), "buffer 0 has 92 of 1000000 bytes"),
        (lambda d: d["meshes"][0]["primitives"][0].update(material=7), "refers to something that is not there"),
        (lambda d: d["nodes"][0].update(children=[0]), "nodes form a circle"),
        (lambda d: d["nodes"][0].update(mesh=3), "refers to something that is not there"),
        (lambda d: d["nodes"][0].update(translation=[0, 0, float("nan")]), "not finite"),
        (lambda d: d["scenes"][0].update(nodes=[]), "no triangles"),
        (lambda d: d.pop("asset"), "no `asset`"),
        (lambda d: d.update(extensionsRequired=["KHR_texture_basisu"]), "extension KHR_texture_basisu"),
    ],
)
def test_a_broken_gltf_is_refused(tmp_path: Path, change: Any, named: str) -> None:
    path = write_gltf(tmp_path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(AssetError, match=named):
        load(path)


GLB = export(trimesh.Scene(trimesh.creation.box()), file_type="glb")
PLY = export(trimesh.creation.box(), file_type="ply")


@given(share=st.floats(0, 1, exclude_max=True), suffix=st.sampled_from(["glb", "ply"]))
def test_a_file_cut_off_anywhere_is_refused(share: float, suffix: str) -> None:
    whole = GLB if suffix == "glb" else PLY
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"torn.{suffix}"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(AssetError, match=f"torn.{suffix}"):
            read_mesh_file(path)


def test_a_torn_texture_is_named(tmp_path: Path) -> None:
    path = write_obj(tmp_path)
    picture = tmp_path / "my picture.png"
    picture.write_bytes(picture.read_bytes()[:50])
    with pytest.raises(AssetError, match=r"my picture.png .*cannot be read"):
        load(path)


def test_a_cloud_without_faces_is_empty(tmp_path: Path) -> None:
    cloud: Any = trimesh.PointCloud
    export(cloud(np.eye(3)), tmp_path / "cloud.ply")
    with pytest.raises(AssetError, match="no triangles"):
        load(tmp_path / "cloud.ply")


def test_the_hash_of_the_job_must_be_that_of_the_file(tmp_path: Path) -> None:
    path = write_obj(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load(path, sha256=digest.upper()).provenance["sha256"] == digest
    with pytest.raises(AssetError, match=f"{digest}, the job promises {'0' * 64}"):
        load(path, sha256="0" * 64)


def test_other_extensions_are_refused_when_the_job_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"one of \.obj, \.gltf, \.glb, \.ply"):
        MeshConfig(name="a", path=tmp_path / "house.fbx")
    with pytest.raises(AssetError, match=r"\.fbx is not supported"):
        read_mesh_file(tmp_path / "house.fbx")


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("aws_robomaker_residential_Chair_01", "chair"),
        ("NightStand_01_001_aws_NightStand_01_visual", "nightstand"),
        ("DeskPortraitA_01", "picture"),
        ("TVCabinet_01", "tv_stand"),
        ("TV_01", "tv"),
        ("Floor Lamp", "lamp"),
        ("Pendant Lamp", "ceiling_lamp"),
        ("FloorB_01", "floor"),
        ("RoomWall_01", "wall"),
        ("FoldingDoor_02", "door"),
        ("KitchenTable_01", "dining_table"),
        ("Bed End Stool", "stool"),
        ("Embedded_device", None),
        ("Dumbbell_01", None),
        ("", None),
    ],
)
def test_names_speak_of_categories(name: str, category: str | None) -> None:
    assert category_of(name) == category


def test_unknown_names_are_objects_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "same.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\no thing\nf 1 2 3\no other\nf 1 2 4\no thing\nf 1 3 4\n")
    objects = load(path, light="none").objects
    assert [(o.name, o.category) for o in objects] == [("thing", "object"), ("other", "object"), ("thing 2", "object")]


def slab(low: tuple[float, float, float], high: tuple[float, float, float]) -> SceneObject:
    box = trimesh.creation.box(bounds=[low, high])
    return SceneObject(
        f"slab {low}",
        "wall",
        1,
        box.vertices.astype(np.float32),
        box.faces.astype(np.int32),
        (),
        np.zeros(12, np.int32),
    )


def heights(lights: tuple[Any, ...]) -> F64:
    return np.array([light.T_world_light[2, 3] for light in lights])


def test_every_storey_is_lit_under_its_ceiling_and_the_open_roof_is_not() -> None:
    storeys = [slab((0, 0, z - 0.2), (6, 4, z)) for z in (0.0, 3.0, 6.0)]
    lights = ceiling_panels(storeys, w_per_m2=4.0)
    assert sorted(set(heights(lights).round(3))) == [2.76, 5.76]
    assert sum(light.power_w for light in lights) == pytest.approx(2 * 6 * 4 * 4.0)
    assert ceiling_panels([storeys[0]], w_per_m2=4.0) == ()


def test_low_gaps_such_as_under_tables_get_no_lamp() -> None:
    lights = ceiling_panels([slab((0, 0, -0.1), (2, 2, 0)), slab((0, 0, 0.7), (2, 2, 0.75))], w_per_m2=4.0)
    assert lights == ()


def test_a_house_open_at_the_top_can_be_closed_and_lit(tmp_path: Path) -> None:
    trimesh.creation.box(bounds=[(0, 0, -0.1), (4, 4, 0)]).export(tmp_path / "Floor.obj")
    open_house = load(tmp_path / "Floor.obj")
    assert (open_house.lights, open_house.sky_strength) == ((), 1.0)
    closed = load(tmp_path / "Floor.obj", ceiling_m=2.5)
    assert closed.objects[-1].category == "ceiling"
    assert heights(closed.lights) == pytest.approx(2.46)
    assert {obj.instance_id for obj in closed.objects} == {1, 2}
    dark = load(tmp_path / "Floor.obj", ceiling_m=2.5, light="none")
    assert (dark.lights, dark.sky_strength) == ((), 0.0)
