from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.files import mesh_file_warnings, read_mesh_file
from nimbusd.stages.load.mesh.gltf.support import EXTENSIONS
from nimbusd.stages.load.mesh.part import MeshPart, linear_rgb
from nimbusd.stages.types import F64, U8
from tests.support.gltf_files import GltfFile

DOCS = Path(__file__).parents[3] / "docs/scene-files.md"
SQUARE = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], np.float32)
HALVES = np.array([(0, 1, 2), (0, 2, 3)])
UVS = np.array([(0, 1), (1, 1), (1, 0), (0, 0)], np.float32)  # v downwards: the picture stands upright
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(alpha: tuple[int, int, int, int] | None = None) -> U8:
    """Red (top left), green (top right), blue (bottom left), white, with an alpha each."""
    pixels = np.zeros((8, 8, 3 if alpha is None else 4), np.uint8)
    for number, color in enumerate((RED, GREEN, BLUE, WHITE)):
        row, column = divmod(number, 2)
        pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = (
            *color,
            *(() if alpha is None else [alpha[number]]),
        )
    return pixels


def square(file: GltfFile, material: dict[str, Any] | None = None, **attributes: int) -> None:
    """A node with a unit square in x and y, textured upright unless told otherwise."""
    more = {"material": file.add("materials", **material)} if material is not None else {}
    found = {"TEXCOORD_0": file.array(UVS), **attributes}
    file.node(mesh=file.mesh(SQUARE, HALVES, attributes=found, **more))


def parts_of(file: GltfFile, tmp_path: Path) -> list[MeshPart]:
    return read_mesh_file(file.save(tmp_path / "made.glb"))


def only_part(file: GltfFile, tmp_path: Path) -> MeshPart:
    (part,) = parts_of(file, tmp_path)
    return part


def points(part: MeshPart) -> F64:
    """(F, 3, 3) corners in the file's frame."""
    T = part.T_file_part
    return np.asarray((part.vertices.astype(np.float64) @ T[:3, :3].T + T[:3, 3])[part.faces])


def seen(part: MeshPart, x: float, y: float) -> tuple[int, ...]:
    """The colour, in bytes, at a place of a square in x and y: its texture times its linear base colour."""
    corners = points(part)[..., :2]
    for number, (a, b, c) in enumerate(corners):
        v, w = np.linalg.solve(np.stack([b - a, c - a], axis=1), np.array((x, y)) - a)
        if v >= 0 and w >= 0 and v + w <= 1:
            face = number
            break
    else:
        return ()
    material = part.materials[part.face_material[face]]
    color = np.array(material.base_color)
    if material.texture is not None:
        assert part.uvs is not None
        uv = ((1 - v - w) * part.uvs[face, 0] + v * part.uvs[face, 1] + w * part.uvs[face, 2]) % 1.0
        height, width = material.texture.shape[:2]
        color = color * linear_rgb(material.texture[int((1 - uv[1]) * height), int(uv[0] * width)] / 255)
    encoded = np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)
    return tuple(int(value) for value in np.rint(encoded * 255))


def four(part: MeshPart) -> list[tuple[int, ...]]:
    """The colours in the quarters of the square: top left, top right, bottom left, bottom right."""
    return [seen(part, x, y) for y in (0.8, 0.2) for x in (0.3, 0.7)]


def test_every_instance_of_a_mesh_is_an_object_in_its_place(tmp_path: Path) -> None:
    file = GltfFile()
    rng = np.random.default_rng(0)
    shift = rng.uniform(-5, 5, (12, 3)).astype(np.float32)
    turn = Rotation.random(12, random_state=1).as_quat()
    scale = rng.uniform(0.5, 2, (12, 3)).astype(np.float32)
    attributes = {
        "TRANSLATION": file.array(shift),
        "ROTATION": file.array(np.rint(turn * 32767), "i2", normalized=True),
        "SCALE": file.array(scale),
    }
    mesh = file.mesh(SQUARE, HALVES)
    file.node(
        mesh=mesh, name="crate", scale=[2, 2, -2], extensions={"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    )
    file.extension("EXT_mesh_gpu_instancing")
    parts = parts_of(file, tmp_path)
    assert len(parts) == 12
    for part, t, r, s in zip(parts, shift, turn, scale, strict=True):
        placed = (SQUARE * s) @ Rotation.from_quat(r).as_matrix().T + t
        np.testing.assert_allclose(points(part), (placed * (2, 2, -2))[HALVES], atol=2e-3)


def test_a_texture_is_shifted_turned_and_scaled(tmp_path: Path) -> None:
    file = GltfFile()
    transform = {"offset": [0.5, 0.0], "rotation": np.pi / 2, "scale": [1, 1], "texCoord": 1}
    reference = {"index": file.picture(quarters()), "extensions": {"KHR_texture_transform": transform}}
    file.extension("KHR_texture_transform")
    file.node(
        mesh=file.mesh(
            SQUARE,
            HALVES,
            attributes={"TEXCOORD_0": file.array(UVS * 0), "TEXCOORD_1": file.array(UVS)},
            material=file.add("materials", pbrMetallicRoughness={"baseColorTexture": reference}),
        )
    )
    # (u, v) → (v + 0.5, -u): what the specification's matrices give for a quarter turn and that shift.
    part = only_part(file, tmp_path)
    expected = []
    for y in (0.8, 0.2):
        for x in (0.3, 0.7):
            u, v = ((1 - y) + 0.5) % 1, (-x) % 1
            expected.append(((RED, GREEN), (BLUE, WHITE))[int(v >= 0.5)][int(u >= 0.5)])
    assert four(part) == expected
    assert len(set(expected)) == 4


@pytest.mark.parametrize("uv_set", [0, 1])
def test_the_texture_says_which_coordinates_it_uses(tmp_path: Path, uv_set: int) -> None:
    file = GltfFile()
    texture = {"index": file.picture(quarters()), "texCoord": uv_set}
    square(
        file,
        {"pbrMetallicRoughness": {"baseColorTexture": texture}},
        TEXCOORD_0=file.array(UVS if uv_set == 0 else UVS[::-1]),
        TEXCOORD_1=file.array(UVS if uv_set == 1 else UVS[::-1]),
    )
    assert four(only_part(file, tmp_path)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("axis", [0, 1], ids=["u", "v"])
@pytest.mark.parametrize(("mode", "cells"), [(10497, (0, 1)), (33648, (1, 0)), (33071, (1, 1))])
def test_pictures_repeat_mirror_and_end_as_their_sampler_says(
    tmp_path: Path, axis: int, mode: int, cells: tuple[int, int]
) -> None:
    file = GltfFile()
    texture = file.picture(quarters())
    file.json["textures"][texture]["sampler"] = file.add("samplers", **{"wrapS" if axis == 0 else "wrapT": mode})
    coordinates = file.array(UVS * ((2, 1) if axis == 0 else (1, 2)))
    square(file, {"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}}, TEXCOORD_0=coordinates)
    part = only_part(file, tmp_path)
    # Places in the second repetition of the picture: the first and last quarter of it along the axis.
    for place, cell in zip((0.6, 0.9), cells, strict=True):
        if axis == 0:
            assert (seen(part, place, 0.8), seen(part, place, 0.2)) == ((RED, GREEN)[cell], (BLUE, WHITE)[cell])
        else:
            assert (seen(part, 0.3, 1 - place), seen(part, 0.7, 1 - place)) == (
                (RED, BLUE)[cell],
                (GREEN, WHITE)[cell],
            )


def test_a_clamped_picture_that_is_shown_from_far_is_continued_in_bounded_memory(tmp_path: Path) -> None:
    file = GltfFile()
    picture = np.repeat(np.repeat(quarters(), 256, axis=0), 256, axis=1)
    texture = file.picture(picture)
    file.json["textures"][texture]["sampler"] = file.add("samplers", wrapS=33071, wrapT=33071)
    square(
        file,
        {"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}},
        TEXCOORD_0=file.array(UVS * 100 - 50),
    )
    part = only_part(file, tmp_path)
    assert part.materials[0].texture is not None
    assert max(part.materials[0].texture.shape) <= 8192
    assert four(part) == [RED, GREEN, BLUE, WHITE]


def test_colors_of_vertices_multiply_the_texture(tmp_path: Path) -> None:
    file = GltfFile()
    half = np.full((4, 3), 0.5, np.float32)
    square(
        file,
        {"pbrMetallicRoughness": {"baseColorTexture": {"index": file.picture(quarters())}}},
        COLOR_0=file.array(half),
    )
    assert four(only_part(file, tmp_path))[0] == (188, 0, 0)  # half of linear 1 is 188 in sRGB
    file = GltfFile()
    tints = np.array([(255, 0, 0), (255, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
    square(
        file,
        {"pbrMetallicRoughness": {"baseColorTexture": {"index": file.picture(np.full((4, 4, 3), 255, np.uint8))}}},
        COLOR_0=file.array(np.c_[tints, np.zeros(4, np.uint8)], "u1", stride=4, normalized=True),
    )
    part = only_part(file, tmp_path)
    assert seen(part, 0.8, 0.2) == RED
    assert seen(part, 0.2, 0.8) == (213, 0, 156)  # two red corners and a blue one


def test_many_colors_of_vertices_stay_near_what_they_are_beside_a_texture(tmp_path: Path) -> None:
    file = GltfFile()
    rng = np.random.default_rng(3)
    vertices = rng.uniform(0, 1, (900, 3)).astype(np.float32)
    colors = np.repeat(rng.uniform(0, 1, (300, 3)), 3, axis=0).astype(np.float32)
    white = {"index": file.picture(np.full((4, 4, 3), 255, np.uint8))}
    material = file.add("materials", pbrMetallicRoughness={"baseColorTexture": white})
    attributes = {"COLOR_0": file.array(colors), "TEXCOORD_0": file.array(np.zeros((900, 2)))}
    file.node(mesh=file.mesh(vertices, np.arange(900), attributes=attributes, material=material))
    part = only_part(file, tmp_path)
    assert len(part.materials) <= 64
    shown = np.array([material.base_color for material in part.materials])[part.face_material]
    assert np.abs(shown - colors[::3]).max() < 0.26


@pytest.mark.parametrize("dtype", ["u2", "u1", "f4"])
def test_colors_of_vertices_without_a_texture_are_per_face(tmp_path: Path, dtype: str) -> None:
    file = GltfFile()
    colors = np.array([(0, 0, 1)] * 3 + [(0, 1, 0)] * 3, np.float64) * (1 if dtype == "f4" else np.iinfo(dtype).max)
    material = file.add("materials", pbrMetallicRoughness={"baseColorFactor": [1, 0.5, 0.5, 1]})
    vertices = np.concatenate([SQUARE[[0, 1, 2]], SQUARE[[0, 2, 3]]])
    stride = {"u2": 8, "u1": 4, "f4": 0}[dtype]
    color = file.array(colors, dtype, stride=stride, normalized=dtype != "f4")
    file.node(mesh=file.mesh(vertices, np.arange(6), attributes={"COLOR_0": color}, material=material))
    part = only_part(file, tmp_path)
    assert (seen(part, 0.8, 0.2), seen(part, 0.2, 0.8)) == ((0, 0, 188), (0, 188, 0))


@pytest.mark.parametrize("mode", ["MASK", "BLEND"])
def test_what_a_picture_cuts_out_is_a_hole(tmp_path: Path, mode: str) -> None:
    file = GltfFile()
    texture = {"index": file.picture(quarters((255, 0, 255, 255)))}
    square(file, {"alphaMode": mode, "pbrMetallicRoughness": {"baseColorTexture": texture}})
    part = only_part(file, tmp_path)
    assert four(part) == [RED, (), BLUE, WHITE]
    corners = points(part)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    assert area == pytest.approx(0.75, abs=0.02)
    assert part.materials[0].opacity == 1


def test_the_holes_of_a_clamped_picture_do_not_repeat(tmp_path: Path) -> None:
    file = GltfFile()
    texture = file.picture(quarters((255, 0, 255, 255)))
    file.json["textures"][texture]["sampler"] = file.add("samplers", wrapS=33071, wrapT=33071)
    wide = file.array(UVS * np.array((1, 2)))
    square(
        file, {"alphaMode": "MASK", "pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}}, TEXCOORD_0=wide
    )
    part = only_part(file, tmp_path)
    assert [seen(part, 0.7, y) for y in (0.9, 0.6, 0.4, 0.1)] == [(), WHITE, WHITE, WHITE]


def test_what_a_mask_leaves_nothing_of_is_not_there(tmp_path: Path) -> None:
    file = GltfFile()
    square(file)
    square(file, {"alphaMode": "MASK", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.4]}})
    assert len(parts_of(file, tmp_path)) == 1
    file.json["materials"][0]["alphaCutoff"] = 0.4
    assert len(parts_of(file, tmp_path)) == 2


def test_a_skinned_surface_is_cut_out_where_its_joints_take_it(tmp_path: Path) -> None:
    file = GltfFile()
    texture = {"index": file.picture(quarters((255, 0, 255, 255)))}
    file.node()
    file.add("skins", joints=[file.add("nodes", translation=[0, 0, 7])])
    square(
        file,
        {"alphaMode": "MASK", "pbrMetallicRoughness": {"baseColorTexture": texture}},
        JOINTS_0=file.array([(0, 0, 0, 0)] * 4, "u1"),
        WEIGHTS_0=file.array([(1, 0, 0, 0)] * 4),
    )
    file.json["nodes"][-1]["skin"] = 0
    part = only_part(file, tmp_path)
    assert four(part) == [RED, (), BLUE, WHITE]
    assert (points(part)[..., 2] == 7).all()


def test_glass_of_a_blended_picture_is_as_clear_as_its_mean(tmp_path: Path) -> None:
    file = GltfFile()
    texture = {"index": file.picture(quarters((102, 102, 102, 102)))}
    pbr = {"baseColorTexture": texture, "baseColorFactor": [1, 1, 1, 0.5]}
    square(file, {"alphaMode": "BLEND", "pbrMetallicRoughness": pbr})
    part = only_part(file, tmp_path)
    assert part.materials[0].opacity == pytest.approx(0.2)
    assert four(part) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(("emission", "base"), [((1, 0, 0), (0, 0, 0)), ((0.5, 0.25, 0), (1, 0.5, 0))])
def test_what_glows_has_the_color_and_strength_of_its_glow(
    tmp_path: Path, emission: tuple[float, ...], base: tuple[float, ...]
) -> None:
    file = GltfFile()
    strong = {"KHR_materials_emissive_strength": {"emissiveStrength": 4}}
    square(
        file,
        {
            "emissiveFactor": list(emission),
            "extensions": strong,
            "pbrMetallicRoughness": {"baseColorFactor": [*base, 1]},
        },
    )
    (material,) = only_part(file, tmp_path).materials
    np.testing.assert_allclose(np.array(material.base_color) * material.emission, 4 * np.array(emission), atol=1e-6)


def test_only_the_faces_on_which_an_emissive_picture_is_bright_glow(tmp_path: Path) -> None:
    file = GltfFile()
    glow = np.zeros((8, 8, 3), np.uint8)
    glow[4:, 4:] = 255
    emissive, base = {"index": file.picture(glow)}, {"index": file.picture(quarters())}
    uvs = np.array([(0, 0), (0.4, 0), (0, 0.4), (0.6, 0.6), (1, 0.6), (0.6, 1)], np.float32)
    vertices = np.c_[uvs, np.zeros(6)]
    material = file.add(
        "materials",
        emissiveFactor=[1, 1, 0],
        emissiveTexture=emissive,
        pbrMetallicRoughness={"baseColorTexture": base},
    )
    file.node(mesh=file.mesh(vertices, np.arange(6), attributes={"TEXCOORD_0": file.array(uvs)}, material=material))
    part = only_part(file, tmp_path)
    dark, lit = (part.materials[part.face_material[face]] for face in (0, 1))
    assert (dark.emission, dark.texture is not None) == (0, True)
    assert (lit.emission, lit.base_color) == (1, (1, 1, 0))
    assert lit.texture is not None
    np.testing.assert_array_equal(lit.texture, glow)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((4, 4), 0x8080, np.uint16),
        np.full((4, 4), 0x80, np.uint8),
        np.full((4, 4, 2), (0x80, 0xFF), np.uint8),
        np.full((4, 4, 4), (0x80, 0x80, 0x80, 0x33), np.uint8),
    ],
    ids=["grey 16", "grey 8", "grey and alpha", "rgba"],
)
def test_pictures_of_every_format_keep_their_brightness(tmp_path: Path, pixels: U8) -> None:
    file = GltfFile()
    square(file, {"pbrMetallicRoughness": {"baseColorTexture": {"index": file.picture(pixels)}}})
    part = only_part(file, tmp_path)
    assert seen(part, 0.3, 0.3) == (128, 128, 128)
    assert part.materials[0].opacity == 1  # OPAQUE: the alpha does not count


def test_a_palette_picture_shows_its_colors(tmp_path: Path) -> None:
    Image.fromarray(quarters()).quantize(16).save(tmp_path / "indexed.png")
    file = GltfFile()
    image = file.add("images", uri="indexed.png")
    square(file, {"pbrMetallicRoughness": {"baseColorTexture": {"index": file.add("textures", source=image)}}})
    assert four(only_part(file, tmp_path)) == [RED, GREEN, BLUE, WHITE]


def test_a_webp_picture_is_read_before_the_fallback(tmp_path: Path) -> None:
    file = GltfFile()
    file.picture(np.zeros((8, 8, 3), np.uint8))
    texture = file.picture(quarters(), "WEBP", source=0, extensions={"EXT_texture_webp": {"source": 1}})
    file.extension("EXT_texture_webp")
    square(file, {"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}})
    assert four(only_part(file, tmp_path)) == [RED, GREEN, BLUE, WHITE]


def test_a_ktx2_picture_is_told_and_its_fallback_shown_or_refused_by_name(tmp_path: Path) -> None:
    file = GltfFile()
    texture = file.picture(quarters(), source=0, extensions={"KHR_texture_basisu": {"source": 7}})
    file.extension("KHR_texture_basisu", required=False)
    square(file, {"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}})
    assert four(only_part(file, tmp_path)) == [RED, GREEN, BLUE, WHITE]
    assert any("KHR_texture_basisu" in text for text in mesh_file_warnings(tmp_path / "made.glb"))
    del file.json["textures"][texture]["source"]
    with pytest.raises(AssetError, match="only one in KHR_texture_basisu"):
        parts_of(file, tmp_path)


def test_specular_glossiness_gives_its_diffuse_color(tmp_path: Path) -> None:
    file = GltfFile()
    glossy = {
        "diffuseFactor": [0.5, 1, 1, 0.25],
        "diffuseTexture": {"index": file.picture(quarters())},
        "glossinessFactor": 0.75,
    }
    file.extension("KHR_materials_pbrSpecularGlossiness")
    square(file, {"alphaMode": "BLEND", "extensions": {"KHR_materials_pbrSpecularGlossiness": glossy}})
    part = only_part(file, tmp_path)
    (material,) = part.materials
    assert (material.roughness, material.metallic, material.opacity) == (0.25, 0, 0.25)
    assert four(part) == [(188, 0, 0), GREEN, BLUE, (188, 255, 255)]


def test_roughness_and_metal_of_a_picture_are_its_mean(tmp_path: Path) -> None:
    file = GltfFile()
    picture = np.full((4, 4, 3), (255, 102, 51), np.uint8)
    pbr = {"metallicRoughnessTexture": {"index": file.picture(picture)}, "roughnessFactor": 0.5}
    square(file, {"pbrMetallicRoughness": pbr})
    (material,) = only_part(file, tmp_path).materials
    assert material.roughness == pytest.approx(0.2)
    assert material.metallic == pytest.approx(0.2)


@pytest.mark.parametrize("of_node", [True, False])
def test_morph_targets_stand_at_their_default_weights(tmp_path: Path, of_node: bool) -> None:
    file = GltfFile()
    up, right = np.zeros((4, 3)), np.zeros((4, 3))
    up[:, 2], right[:, 0] = 2, 1
    targets = [{"POSITION": file.array(up)}, {"POSITION": file.array(right)}, {"NORMAL": file.array(up)}]
    mesh = file.mesh(SQUARE, HALVES, targets=targets)
    file.json["meshes"][mesh]["weights"] = [1, 1, 1] if of_node else [0.5, 0.25, 1]
    file.node(mesh=mesh, **({"weights": [0.5, 0.25, 1]} if of_node else {}))
    np.testing.assert_allclose(points(only_part(file, tmp_path)), (SQUARE + np.array((0.25, 0, 1)))[HALVES], atol=1e-6)


def test_a_skinned_mesh_stands_where_its_joints_are_and_not_where_its_node_is(tmp_path: Path) -> None:
    file = GltfFile()
    inverse = np.eye(4)
    inverse[:3, 3] = (0, -1, 0)  # the second joint was bound at y = 1
    matrices = file.array(np.stack([np.eye(4).T.ravel(), inverse.T.ravel()]))
    attributes = {
        "JOINTS_0": file.array([(0, 1, 0, 0)] * 4, "u1"),
        "WEIGHTS_0": file.array([(255, 0, 0, 0)] * 2 + [(0, 255, 0, 0), (51, 204, 0, 0)], "u1", normalized=True),
    }
    hip, knee = file.add("nodes", children=[1]), file.add("nodes", translation=[0, 1, 3])
    file.node(translation=[5, 0, 0], children=[hip])
    file.node(mesh=file.mesh(SQUARE, HALVES, attributes=attributes), skin=0, translation=[100, 100, 100])
    file.add("skins", joints=[hip, knee], inverseBindMatrices=matrices)
    part = only_part(file, tmp_path)
    moved = SQUARE + np.array([(5, 0, 0), (5, 0, 0), (5, 0, 3), (5, 0, 2.4)])
    np.testing.assert_allclose(points(part), moved[HALVES], atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "indices", "faces"),
    [
        (4, None, [(0, 1, 2), (3, 4, 5)]),
        (5, [0, 1, 3, 2], [(0, 1, 3), (3, 1, 2)]),
        (6, [0, 1, 2, 3], [(0, 1, 2), (0, 2, 3)]),
        (5, None, [(0, 1, 2), (2, 1, 3), (2, 3, 4), (4, 3, 5)]),
    ],
)
def test_lists_strips_and_fans_of_triangles_are_read(
    tmp_path: Path, mode: int, indices: list[int] | None, faces: list[tuple[int, ...]]
) -> None:
    file = GltfFile()
    vertices = np.random.default_rng(0).uniform(size=(6, 3)).astype(np.float32)
    primitive: dict[str, Any] = {"attributes": {"POSITION": file.array(vertices)}, "mode": mode}
    if indices is not None:
        primitive["indices"] = file.array(indices, "u2")
    file.node(mesh=file.add("meshes", primitives=[primitive]))
    found = points(only_part(file, tmp_path))
    turned = [min(tuple(np.roll(f, -k)) for k in range(3)) for f in faces]
    rows = [tuple(int(np.abs(vertices - p).sum(axis=1).argmin()) for p in face) for face in found]
    assert [min(tuple(np.roll(row, -k)) for k in range(3)) for row in rows] == turned


def test_points_and_lines_are_told_and_left_out(tmp_path: Path) -> None:
    file = GltfFile()
    mesh = file.mesh(SQUARE, HALVES)
    for mode in range(4):
        file.json["meshes"][mesh]["primitives"].append({"attributes": {"POSITION": 0}, "mode": mode})
    file.node(mesh=mesh)
    assert len(only_part(file, tmp_path).faces) == 2
    (told,) = mesh_file_warnings(tmp_path / "made.glb")
    assert "4 of 5 primitives are points or lines" in told


def test_quantized_positions_and_sparse_values_are_read(tmp_path: Path) -> None:
    file = GltfFile()
    file.extension("KHR_mesh_quantization")
    rows, new = file.view(np.array([2], "<u1").tobytes()), file.view(np.array([(7, 8, 9)], "<i2").tobytes())
    sparse = {"count": 1, "indices": {"bufferView": rows, "componentType": 5121}, "values": {"bufferView": new}}
    position = file.array(SQUARE * 100, "i2", stride=8, sparse=sparse)
    index = file.array(HALVES.ravel(), "u1")
    mesh = file.add("meshes", primitives=[{"attributes": {"POSITION": position}, "indices": index}])
    file.node(mesh=mesh, scale=[0.01, 0.01, 0.01])
    expected = SQUARE.copy()
    expected[2] = (0.07, 0.08, 0.09)
    np.testing.assert_allclose(points(only_part(file, tmp_path)), expected[HALVES], atol=1e-6)


def test_a_hidden_node_hides_what_hangs_on_it(tmp_path: Path) -> None:
    file = GltfFile()
    file.extension("KHR_node_visibility")
    mesh = file.mesh(SQUARE, HALVES)
    below = file.add("nodes", mesh=mesh, name="below")
    file.node(children=[below], extensions={"KHR_node_visibility": {"visible": False}})
    file.node(mesh=mesh, name="shown", extensions={"KHR_node_visibility": {"visible": True}})
    assert [part.name for part in parts_of(file, tmp_path)] == ["shown"]


def draco_square(file: GltfFile, *, required: bool) -> None:
    import DracoPy

    blob = DracoPy.encode(
        SQUARE.astype(np.float64), HALVES.astype(np.uint32), quantization_bits=16, tex_coord=UVS.astype(np.float64)
    )
    found = DracoPy.decode(blob)
    ids = {kind: found.get_attribute_by_type(number)["unique_id"] for kind, number in (("p", 0), ("uv", 3))}
    packed = {"bufferView": file.view(blob), "attributes": {"POSITION": ids["p"], "TEXCOORD_0": ids["uv"]}}
    attributes = {"POSITION": file.accessor(4, 3), "TEXCOORD_0": file.accessor(4, 2)}
    material = file.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": file.picture(quarters())}})
    entry = {
        "attributes": attributes,
        "indices": file.accessor(6, 1, "u2"),
        "material": material,
        "extensions": {"KHR_draco_mesh_compression": packed},
    }
    file.node(mesh=file.add("meshes", primitives=[entry]))
    file.extension("KHR_draco_mesh_compression", required=required)


def test_a_mesh_packed_by_draco_is_unpacked(tmp_path: Path) -> None:
    file = GltfFile()
    draco_square(file, required=True)
    part = only_part(file, tmp_path)
    assert four(part) == [RED, GREEN, BLUE, WHITE]
    assert sorted(map(tuple, points(part).reshape(-1, 3).round(3))) == sorted(map(tuple, SQUARE[HALVES].reshape(-1, 3)))


def test_numbers_that_no_byte_stands_for_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    file = GltfFile()
    square(file)
    file.json["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = file.accessor(2**40, 3)
    with pytest.raises(AssetError, match="has 1099511627776 values and no buffer view"):
        parts_of(file, tmp_path)
    file = GltfFile()
    meshopt_square(file)
    file.json["bufferViews"][1]["extensions"]["EXT_meshopt_compression"]["count"] = 2**40
    with pytest.raises(AssetError, match="buffer view 1, packed by meshopt, unpacks to another length"):
        parts_of(file, tmp_path)


def test_a_torn_draco_primitive_is_refused(tmp_path: Path) -> None:
    file = GltfFile()
    draco_square(file, required=True)
    view = file.json["bufferViews"][0]
    view["byteLength"] -= 20
    with pytest.raises(AssetError, match=r"made.glb is torn: a primitive packed by Draco"):
        parts_of(file, tmp_path)


def meshopt_square(file: GltfFile, name: str = "EXT_meshopt_compression") -> None:
    import meshopt

    def packed(values: Any, mode: Any, width: int, dtype: str) -> int:
        rows = np.ascontiguousarray(values, f"<{dtype}")
        blob = meshopt.encode_gltf_buffer(rows, mode)
        size = rows.nbytes // len(rows)
        extension = {
            "buffer": 0,
            "byteOffset": 0,
            "byteLength": len(blob),
            "byteStride": size,
            "count": len(rows),
            "mode": mode,
        }
        at = file.view(blob)
        extension["byteOffset"] = file.json["bufferViews"][at]["byteOffset"]
        view = {"buffer": 1, "byteLength": rows.nbytes, "extensions": {name: extension}}
        if mode == "ATTRIBUTES":
            view["byteStride"] = size
        return file.accessor(len(rows), width, dtype, bufferView=file.add("bufferViews", **view))

    file.json["buffers"] = [{"byteLength": 1000, "extensions": {name: {"fallback": True}}}]
    attributes = {"POSITION": packed(SQUARE, "ATTRIBUTES", 3, "f4"), "TEXCOORD_0": packed(UVS, "ATTRIBUTES", 2, "f4")}
    texture = {"baseColorTexture": {"index": file.picture(quarters())}}
    entry = {
        "attributes": attributes,
        "indices": packed(HALVES.ravel(), "TRIANGLES", 1, "u2"),
        "material": file.add("materials", pbrMetallicRoughness=texture),
    }
    file.node(mesh=file.add("meshes", primitives=[entry]))
    file.extension(name)


@pytest.mark.parametrize("name", ["EXT_meshopt_compression", "KHR_meshopt_compression"])
def test_buffers_packed_by_meshopt_are_unpacked(tmp_path: Path, name: str) -> None:
    file = GltfFile()
    meshopt_square(file, name)
    part = only_part(file, tmp_path)
    assert four(part) == [RED, GREEN, BLUE, WHITE]
    np.testing.assert_array_equal(points(part), SQUARE[HALVES])


@pytest.mark.parametrize(("maker", "module"), [(meshopt_square, "meshopt"), (draco_square, "DracoPy")])
def test_a_packed_file_without_the_module_that_unpacks_it_is_refused_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: Any, module: str
) -> None:
    file = GltfFile()
    maker(file, **({"required": True} if module == "DracoPy" else {}))
    path = file.save(tmp_path / "packed.glb")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("nimbusd.stages.load.mesh.gltf.support.missing_modules", lambda names: list(names))
    for look in (read_mesh_file, mesh_file_warnings):
        with pytest.raises(AssetError, match=rf"requires .*_compression.*{module}.*install"):
            look(path)


@pytest.mark.parametrize("name", ["KHR_materials_unlit", "KHR_lights_punctual", "XYZ_new_thing"])
def test_what_is_left_out_is_told_where_it_is_used_and_refused_where_it_is_required(tmp_path: Path, name: str) -> None:
    file = GltfFile()
    square(file)
    file.extension(name, required=False)
    parts_of(file, tmp_path)
    (told,) = mesh_file_warnings(tmp_path / "made.glb")
    assert name in told
    file.extension(name)
    for look in (read_mesh_file, mesh_file_warnings):
        with pytest.raises(AssetError, match=rf"requires the glTF extension {name}"):
            look(file.save(tmp_path / "made.glb"))


def test_maps_of_bumps_are_told(tmp_path: Path) -> None:
    file = GltfFile()
    square(file, {"normalTexture": {"index": 0}})
    file.add("materials", name="plain")
    (told,) = mesh_file_warnings(file.save(tmp_path / "made.glb"))
    assert "normal maps of 1 of 2 materials" in told


def test_flat_surfaces_stay_flat_beside_smooth_ones(tmp_path: Path) -> None:
    file = GltfFile()
    bent = np.array([(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 1)], np.float32)
    bent /= np.linalg.norm(bent, axis=1, keepdims=True)
    mesh = file.mesh(SQUARE, HALVES, attributes={"NORMAL": file.array(bent)})
    roof = np.array([(0, 0, 5), (1, 0, 5), (1, 1, 6), (0, 1, 5)], np.float32)
    other = file.mesh(roof, HALVES)
    file.json["meshes"][mesh]["primitives"] += file.json["meshes"][other]["primitives"]
    file.node(mesh=mesh)
    part = only_part(file, tmp_path)
    assert part.smooth
    smooth, flat = part.faces[:2], part.faces[2:]
    assert (len(np.unique(smooth)), len(np.unique(flat))) == (4, 6)
    np.testing.assert_array_equal(part.vertices[flat], roof[HALVES])


def test_a_file_of_gltf_1_is_refused_by_its_version(tmp_path: Path) -> None:
    file = GltfFile()
    square(file)
    file.json["asset"]["version"] = "1.0"
    with pytest.raises(AssetError, match=r"is glTF 1\.0; version 2 is read"):
        read_mesh_file(file.save(tmp_path / "old.gltf"))


def test_bounds_that_are_not_finite_are_told_by_the_header(tmp_path: Path) -> None:
    file = GltfFile()
    square(file)
    file.json["accessors"][1]["max"] = [1, float("nan"), 1]
    with pytest.raises(AssetError, match="bounds of accessor 1 are not finite"):
        mesh_file_warnings(file.save(tmp_path / "nan.gltf"))


def test_the_table_in_the_docs_names_every_extension_with_its_verdict() -> None:
    rows = {
        cells[1].strip(" `"): cells[2].strip()
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `") and len(cells := line.split("|")) >= 4
    }
    assert {name: rows.get(name) for name in EXTENSIONS} == {name: made.verdict for name, made in EXTENSIONS.items()}
