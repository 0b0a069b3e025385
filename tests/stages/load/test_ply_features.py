from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.files import mesh_file_warnings, read_mesh_file, referenced_files
from nimbusd.stages.load.mesh.part import MeshPart

L_SHAPE = [(0, 0, 0), (12, 0, 0), (12, 3, 0), (3, 3, 0), (3, 12, 0), (0, 12, 0)]
SQUARE = [(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]


def text(tmp_path: Path, vertex: str, vertices: list[str], face: str, faces: list[str], comments: str = "") -> Path:
    path = tmp_path / "made.ply"
    header = f"ply\nformat ascii 1.0\n{comments}element vertex {len(vertices)}\n{vertex}"
    header += f"element face {len(faces)}\n{face}end_header\n"
    path.write_text(header + "\n".join([*vertices, *faces, ""]))
    return path


XYZ = "property float x\nproperty float y\nproperty float z\n"
LIST = "property list uchar int vertex_indices\n"


def only(path: Path) -> MeshPart:
    (part,) = read_mesh_file(path)
    return part


def area(part: MeshPart) -> float:
    a, b, c = (part.vertices[part.faces[:, k]].astype(np.float64) for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def rows(points: Sequence[tuple[float, ...]]) -> list[str]:
    return [" ".join(map(str, point)) for point in points]


@pytest.mark.parametrize("order", ["<", ">"])
def test_binary_files_of_mixed_polygons_with_colors_of_faces_are_read(tmp_path: Path, order: str) -> None:
    name = "little" if order == "<" else "big"
    header = (
        f"ply\nformat binary_{name}_endian 1.0\nelement vertex 10\nproperty double x\nproperty double y\n"
        f"property double z\nelement face 3\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        "property list uchar uint vertex_index\nproperty short label\nend_header\n"
    ).encode()
    body = b"".join(struct.pack(f"{order}3d", *point) for point in L_SHAPE + SQUARE)
    faces = [((255, 0, 0), (0, 1, 2, 3, 4, 5), 9), ((0, 0, 255), (6, 7, 8), -1), ((0, 0, 255), (6, 8, 9), -1)]
    for color, corners, label in faces:
        body += struct.pack(f"{order}3BB{len(corners)}Ih", *color, len(corners), *corners, label)
    path = tmp_path / "mixed.ply"
    path.write_bytes(header + body)
    part = only(path)
    assert area(part) == pytest.approx(64)
    texture, uvs = part.materials[0].texture, part.uvs
    assert texture is not None
    assert uvs is not None
    at = [(int((1 - v) * len(texture)), int(u * texture.shape[1])) for u, v in uvs[:, 0]]
    assert [tuple(texture[place]) for place in at] == [(255, 0, 0)] * 4 + [(0, 0, 255)] * 2


def test_lists_before_and_after_numbers_are_told_apart(tmp_path: Path) -> None:
    path = text(
        tmp_path,
        XYZ,
        rows(L_SHAPE + SQUARE),
        "property int id\n" + LIST + "property float quality\nproperty list int float texcoord\n",
        ["7 6 0 1 2 3 4 5 0.5 0", "8 4 6 7 8 9 0.25 2 1 2"],
    )
    assert area(only(path)) == pytest.approx(64)


def test_strips_of_triangles_are_cut_at_minus_one_and_keep_their_side(tmp_path: Path) -> None:
    path = tmp_path / "strips.ply"
    header = f"ply\nformat ascii 1.0\nelement vertex 4\n{XYZ}element tristrips 1\n{LIST}end_header\n"
    path.write_text(header + "\n".join(rows(SQUARE)) + "\n8 0 1 3 2 -1 0 1 2\n")
    part = only(path)
    assert part.faces.tolist() == [[0, 1, 3], [3, 1, 2], [0, 1, 2]]
    a, b, c = (part.vertices[part.faces[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_a_picture_of_a_scanner_is_laid_on_by_corners_and_its_absence_is_told_or_allowed(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "scan 1.png")
    path = text(
        tmp_path,
        XYZ + "property uchar red\nproperty uchar green\nproperty uchar blue\n",
        [f"{row} 9 9 9" for row in rows(SQUARE)],
        LIST + "property list uchar float texcoord\n",
        ["4 0 1 2 3 8 0 0 1 0 1 1 0 1"],
        "comment TextureFile scan 1.png\n",
    )
    part = only(path)
    assert part.materials[0].texture is not None
    np.testing.assert_array_equal(part.materials[0].texture, pixels)
    assert part.uvs is not None
    np.testing.assert_array_equal(part.uvs[0], [(0, 0), (1, 0), (1, 1)])
    assert referenced_files(path) == [tmp_path / "scan 1.png"]
    (told,) = mesh_file_warnings(path)
    assert "colours of vertices or faces beside textures" in told
    (tmp_path / "scan 1.png").unlink()
    with pytest.raises(AssetError, match=r"scan 1.png .*missing"):
        read_mesh_file(path)
    assert referenced_files(path, plain=True) == []
    (bare,) = read_mesh_file(path, plain=True)
    np.testing.assert_allclose(bare.materials[0].base_color, 9 / 255 / 12.92, rtol=1e-5)  # its vertices' colour, then
    (told,) = mesh_file_warnings(path, plain=True)
    assert "scan 1.png is missing" in told


def test_each_face_shows_the_picture_that_its_number_names(tmp_path: Path) -> None:
    for number, color in enumerate(((255, 0, 0), (0, 0, 255))):
        Image.fromarray(np.full((2, 2, 3), color, np.uint8)).save(tmp_path / f"{number}.png")
    path = text(
        tmp_path,
        XYZ + "property float s\nproperty float t\n",
        [f"{row} 0.5 0.5" for row in rows(SQUARE)],
        LIST + "property int texnumber\n",
        ["3 0 1 2 1", "3 0 2 3 0"],
        "comment TextureFile 0.png\ncomment TextureFile 1.png\n",
    )
    part = only(path)
    shown = [part.materials[number].texture for number in part.face_material]
    assert [tuple(texture[0, 0]) for texture in shown if texture is not None] == [(0, 0, 255), (255, 0, 0)]


def test_normals_of_vertices_that_bend_make_the_surface_smooth(tmp_path: Path) -> None:
    properties = XYZ + "property float nx\nproperty float ny\nproperty float nz\n"
    flat = text(tmp_path, properties, [f"{row} 0 0 1" for row in rows(SQUARE)], LIST, ["4 0 1 2 3"])
    assert not only(flat).smooth
    bent = text(tmp_path, properties, [f"{row} {k % 2} 0 1" for k, row in enumerate(rows(SQUARE))], LIST, ["4 0 1 2 3"])
    assert only(bent).smooth


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("4 0 1 2 3", "4 0 1 2 9"), "a face names vertex 9 of 4"),
        (("4 0 1 2 3", "4 0 1 2 -1"), "a face names vertex -1 of 4"),
        (("4 0 1 2 3", "2 0 1"), "face 0 has 2 corners"),
        (("4 0 1 2 3", "4 0 1 two 3"), "rows of `face` cannot be read"),
        (("4 0 1 2 3", "4 0 1 2"), "is cut off"),
        (("element face 1", "element face 0"), "no triangles"),
        (("vertex_indices", "corners"), "element `face` has no list `vertex_indices`"),
        (("property float z", "property float height"), "no element `vertex` with x, y and z"),
        (("property float z", "property float y"), "element `vertex` repeats a property"),
        (("property float z", "property floaty z"), "'property floaty z' does not describe"),
        (("element vertex 4", "element vertex -4"), "has -4 rows"),
        (("ascii", "binary_middle_endian"), "of format 'binary_middle_endian'"),
        (("1 0 1", "1 nan 1"), "not finite"),
    ],
)
def test_a_broken_ply_is_refused_with_what_is_wrong(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    path = text(tmp_path, XYZ, rows(SQUARE), LIST, ["4 0 1 2 3"])
    whole = path.read_text()
    assert change[0] in whole
    path.write_text(whole.replace(*change))
    with pytest.raises(AssetError, match=rf"made.ply.*{named}"):
        read_mesh_file(path)


def test_the_header_alone_tells_a_cloud_of_points(tmp_path: Path) -> None:
    path = text(tmp_path, XYZ, rows(SQUARE), LIST, [])
    with pytest.raises(AssetError, match="no triangles"):
        mesh_file_warnings(path)
