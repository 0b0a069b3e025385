from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.files import mesh_file_warnings, read_mesh_file, referenced_files
from nimbusd.stages.load.mesh.part import MeshPart, linear_rgb
from nimbusd.stages.types import U8

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(path: Path) -> U8:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4], pixels[:4, 4:], pixels[4:, :4], pixels[4:, 4:] = RED, GREEN, BLUE, WHITE
    Image.fromarray(pixels).save(path)
    return pixels


def written(tmp_path: Path, obj: str, mtl: str | None = None) -> Path:
    path = tmp_path / "made.obj"
    path.write_text(obj)
    if mtl is not None:
        (tmp_path / "made.mtl").write_text(mtl)
    return path


def only(path: Path, *, plain: bool = False) -> MeshPart:
    (part,) = read_mesh_file(path, plain=plain)
    return part


def area(part: MeshPart) -> float:
    a, b, c = (part.vertices[part.faces[:, k]].astype(np.float64) for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def test_a_door_in_a_wall_of_one_piece_and_the_corner_of_an_l_shaped_floor_stay_open(tmp_path: Path) -> None:
    door = "v 0 0 0\nv 2 0 0\nv 2 0 2\nv 3 0 2\nv 3 0 0\nv 6 0 0\nv 6 0 3\nv 0 0 3\nf 1 2 3 4 5 6 7 8\n"
    floor = "v 0 0 0\nv 12 0 0\nv 12 3 0\nv 3 3 0\nv 3 12 0\nv 0 12 0\nf 1 2 3 4 5 6\n"
    assert area(only(written(tmp_path, door))) == pytest.approx(16)
    assert area(only(written(tmp_path, floor))) == pytest.approx(63)


def test_faces_may_name_vertices_that_come_later(tmp_path: Path) -> None:
    assert area(only(written(tmp_path, "f 1 2 3 4\n" + SQUARE))) == pytest.approx(1)


def test_comments_after_numbers_are_left_out_and_names_keep_their_signs(tmp_path: Path) -> None:
    text = "o wall #3\nv 0 0 0 # first\nv 1 0 0\nv 0 1 0#last\ns off # flat\nf 1 2 3 # all\n"
    part = only(written(tmp_path, text))
    assert (part.name, len(part.faces)) == ("wall #3", 1)


def test_coordinates_and_normals_of_which_there_are_none_are_left_out(tmp_path: Path) -> None:
    part = only(written(tmp_path, "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1/1/1 2/2/2 3/3/3\n"))
    assert (part.uvs, part.smooth, len(part.faces)) == (None, False, 1)


def test_several_libraries_are_read_and_names_may_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "a b.mtl").write_text("newmtl one\nKd 1 0 0\n")
    (tmp_path / "c.mtl").write_text("newmtl two\nKd 0 1 0\n")
    faces = "usemtl one\nf 1 2 3\nusemtl two\nf 1 3 4\n"
    for statement in ("mtllib a b.mtl c.mtl", "mtllib a b.mtl\nmtllib c.mtl"):
        path = written(tmp_path, f"{statement}\n{SQUARE}{faces}")
        assert [m.base_color for m in only(path).materials] == [(1, 0, 0), (0, 1, 0)]
        assert referenced_files(path) == [path, tmp_path / "a b.mtl", tmp_path / "c.mtl"][1:]


def test_a_missing_library_is_refused_unless_it_may_be(tmp_path: Path) -> None:
    path = written(tmp_path, f"mtllib gone.mtl\n{SQUARE}usemtl brick\nf 1 2 3 4\n")
    for look in (read_mesh_file, mesh_file_warnings):
        with pytest.raises(AssetError, match=r"gone.mtl is missing.*without_materials"):
            look(path)
    assert only(path, plain=True).materials[0].base_color == (0.8, 0.8, 0.8)
    (told,) = mesh_file_warnings(path, plain=True)
    assert "gone.mtl is missing: its materials are plain grey" in told
    assert referenced_files(path, plain=True) == []


def test_a_missing_picture_is_refused_unless_it_may_be(tmp_path: Path) -> None:
    mtl = "newmtl brick\nKd 0.5 0.4 0.3\nmap_Kd gone.png\n"
    path = written(tmp_path, f"mtllib made.mtl\n{SQUARE}usemtl brick\nf 1 2 3 4\n", mtl)
    with pytest.raises(AssetError, match=r"gone.png .*missing"):
        read_mesh_file(path)
    assert only(path, plain=True).materials[0].base_color == (0.5, 0.4, 0.3)
    assert referenced_files(path) == [tmp_path / "made.mtl", tmp_path / "gone.png"]
    assert referenced_files(path, plain=True) == [tmp_path / "made.mtl"]


def test_a_map_without_a_name_shows_the_plain_color_and_is_told(tmp_path: Path) -> None:
    path = written(
        tmp_path, f"mtllib made.mtl\n{SQUARE}usemtl a\nf 1 2 3 4\n", "newmtl a\nKd 1 0 0\nmap_Kd\nmap_d -s 1 1 1\n"
    )
    assert only(path).materials[0].base_color == (1, 0, 0)
    assert referenced_files(path) == [tmp_path / "made.mtl"]
    first, second = mesh_file_warnings(path)
    assert "made.mtl, line 3: 'map_Kd' names no picture" in first
    assert "line 4: 'map_d' names no picture" in second


def test_options_of_a_map_scale_and_shift_it(tmp_path: Path) -> None:
    pixels = quarters(tmp_path / "four.png")
    mtl = "newmtl a\nmap_Kd -s 0.5 0.5 1 -o 0.5 0 -mm 0 1 four.png\n"
    part = only(written(tmp_path, f"mtllib made.mtl\n{SQUARE}usemtl a\nf 1/1 2/2 3/3 4/4\n", mtl))
    assert part.uvs is not None
    np.testing.assert_allclose(part.uvs[0], [(0.5, 0), (1, 0), (1, 0.5)])
    texture = part.materials[0].texture
    assert texture is not None
    np.testing.assert_array_equal(texture, pixels)


def test_a_clamped_map_is_shown_once(tmp_path: Path) -> None:
    quarters(tmp_path / "four.png")
    coordinates = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt -1 -1\nvt 2 -1\nvt 2 2\nvt -1 2\n"
    mtl = "newmtl a\nmap_Kd -clamp on four.png\n"
    part = only(written(tmp_path, f"mtllib made.mtl\n{coordinates}usemtl a\nf 1/1 2/2 3/3 4/4\n", mtl))
    texture, uvs = part.materials[0].texture, part.uvs
    assert texture is not None
    assert uvs is not None
    assert (texture.shape, uvs.min(), uvs.max()) == ((24, 24, 3), 0, 1)
    assert [tuple(texture[row, column]) for row, column in ((0, 0), (0, 23), (23, 0), (12, 12))] == [
        RED, GREEN, BLUE, WHITE
    ]  # fmt: skip


def test_map_d_cuts_holes_and_a_grey_one_is_glass(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.full((8, 8), 51, np.uint8)).save(tmp_path / "grey.png")
    path = written(
        tmp_path,
        f"mtllib made.mtl\n{SQUARE}usemtl leaf\nf 1/1 2/2 3/3 4/4\nusemtl pane\nf 1/1 2/2 3/3 4/4\n",
        "newmtl leaf\nKd 0 1 0\nmap_d mask.png\nnewmtl pane\nmap_d grey.png\n",
    )
    part = only(path)
    by_name = {m.name: part.face_material == number for number, m in enumerate(part.materials)}
    leaf = part.vertices[part.faces[by_name["leaf"]]]
    assert leaf[..., 0].max() <= 0.51
    assert part.faces[by_name["pane"]].shape == (2, 3)
    assert next(m.opacity for m in part.materials if m.name == "pane") == pytest.approx(0.2)


def test_the_holes_of_a_clamped_map_lie_where_its_picture_lies(tmp_path: Path) -> None:
    quarters(tmp_path / "four.png")
    mask = np.full((8, 8), 255, np.uint8)
    mask[:4, 4:] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    coordinates = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 -1\nvt 1 -1\nvt 1 1\nvt 0 1\n"
    mtl = "newmtl a\nmap_Kd -clamp on four.png\nmap_d mask.png\n"
    part = only(written(tmp_path, f"mtllib made.mtl\n{coordinates}usemtl a\nf 1/1 2/2 3/3 4/4\n", mtl))
    assert area(part) == pytest.approx(7 / 8, abs=0.03)
    middle = part.vertices[part.faces].mean(axis=1)
    assert not ((middle[:, 0] > 0.55) & (middle[:, 1] > 0.8)).any()


def test_colors_of_vertices_stand_for_the_color_and_tint_a_picture(tmp_path: Path) -> None:
    colored = "v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 1 1 0 1 0 0\nv 0 1 0 0 0 1\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    part = only(written(tmp_path, f"{colored}f 1 2 3\nf 1 3 4\n"))
    texture, uvs = part.materials[0].texture, part.uvs
    assert texture is not None
    assert uvs is not None
    at = [(int((1 - v) * len(texture)), int(u * texture.shape[1])) for u, v in uvs[:, 0]]
    assert [tuple(texture[place]) for place in at] == [(255, 0, 0), (213, 0, 156)]
    pixels = quarters(tmp_path / "four.png")
    mtl = "newmtl a\nKd 0.2 0.2 0.2\nmap_Kd four.png\n"
    part = only(written(tmp_path, f"mtllib made.mtl\n{colored}usemtl a\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n", mtl))
    shown = [part.materials[number] for number in part.face_material]
    np.testing.assert_allclose([m.base_color for m in shown], [(1, 0, 0), (2 / 3, 0, 1 / 3)], atol=1e-6)
    assert all(m.texture is not None and (m.texture == pixels).all() for m in shown)


def test_smoothing_groups_shade_what_has_no_normals(tmp_path: Path) -> None:
    roof = "v 0 0 0\nv 1 0 0\nv 1 1 1\nv 0 1 1\nv 1 2 0\nv 0 2 0\n"
    both = only(written(tmp_path, f"{roof}s 1\nf 1 2 3 4\nf 4 3 5 6\n"))
    assert (both.smooth, len(both.vertices)) == (True, 6)
    apart = only(written(tmp_path, f"{roof}s 1\nf 1 2 3 4\ns 2\nf 4 3 5 6\n"))
    assert (apart.smooth, len(apart.vertices)) == (True, 8)
    off = only(written(tmp_path, f"{roof}s off\nf 1 2 3 4\nf 4 3 5 6\n"))
    assert (off.smooth, len(off.vertices)) == (False, 6)
    mixed = only(written(tmp_path, f"{roof}s 1\nf 1 2 3 4\ns 0\nf 4 3 5 6\n"))
    assert (mixed.smooth, len(mixed.vertices)) == (True, 8)


def test_points_lines_curves_and_unknown_materials_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, f"{SQUARE}usemtl wood\nf 1 2 3 4\nl 1 2 3\np 1\ncstype bezier\ncurv 0 1 1 2\nv 1 nan 2\n")
    told = mesh_file_warnings(path)
    for words in ("2 points and lines", "2 statements of curves", "no material library defines 'wood'", "line 15"):
        assert sum(words in text for text in told) == 1, words
    assert len(told) == 4


def test_other_maps_are_told_once_for_a_library(tmp_path: Path) -> None:
    mtl = "newmtl a\nmap_Bump b.png\nmap_Ks s.png\nnewmtl b\nmap_Bump c.png\n"
    (told,) = mesh_file_warnings(written(tmp_path, f"mtllib made.mtl\n{SQUARE}f 1 2 3\n", mtl))
    assert "3 pictures (map_Bump, map_Ks) are left out" in told


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-16"])
def test_text_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    path = tmp_path / "made.obj"
    path.write_bytes(f"{mark}o Fußboden\n{SQUARE}f 1 2 3 4\n".encode(encoding))
    assert only(path).name == "Fußboden"
    assert area(only(path)) == pytest.approx(1)


def test_a_16_bit_grey_picture_keeps_its_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0x8080, np.uint16)).save(tmp_path / "grey.png")
    mtl = "newmtl a\nmap_Kd grey.png\n"
    texture = only(written(tmp_path, f"mtllib made.mtl\n{SQUARE}usemtl a\nf 1/1 2/2 3/3\n", mtl)).materials[0].texture
    assert texture is not None
    assert (texture == 128).all()
    assert linear_rgb(texture[0, 0] / 255)[0] == pytest.approx(0.2159, abs=1e-3)
