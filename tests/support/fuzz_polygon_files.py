"""Random OBJ and PLY files: polygons with dents and holes, in every way that the formats have of writing them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from PIL import Image
from scipy.spatial.transform import Rotation

from nimbusd.stages.load.mesh.part import linear_values
from nimbusd.stages.types import F64
from tests.support.fuzz_meshes import Made
from tests.support.simple_polygons import outline, signed_area

_PLY_TYPES = {
    "char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d",
    "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "float32": "f",
    "float64": "d",
}  # fmt: skip


@dataclass
class _Face:
    """corners: (N, 3). triangles: (F, 3, 3) that cover it, found by Delaunay and not by clipping ears."""

    corners: F64
    triangles: F64


def _face(rng: np.random.Generator) -> _Face:
    points = _triangle(rng) if rng.random() < 0.3 else outline(rng).points
    pieces = shapely.constrained_delaunay_triangles(shapely.make_valid(shapely.Polygon(points))).geoms
    flat = [np.array(piece.exterior.coords)[:3] for piece in pieces]
    flat = [t if np.cross(t[1] - t[0], t[2] - t[0]) > 0 else t[::-1] for t in flat]
    turn = Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()
    shift = rng.uniform(-20, 20, 3)

    def placed(xy: F64) -> F64:
        return np.asarray(np.concatenate([xy, np.zeros((*xy.shape[:-1], 1))], axis=-1) @ turn.T + shift)

    return _Face(placed(points), placed(np.array(flat)))


def _triangle(rng: np.random.Generator) -> F64:
    points = rng.uniform(-1, 1, (3, 2))
    return points if signed_area(points) > 0 else points[::-1]


def _color_bytes(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (int(value) for value in rng.integers(0, 8, 3) * 36)
    return r, g, b


def make_obj(rng: np.random.Generator, path: Path) -> Made:
    """Groups of faces, each with a material that is plain or has a picture, or with colours at its vertices."""
    lines = ["# made by a fuzzer"]
    mtl: list[str] = []
    triangles, colors = [], []
    counts = {"v": 0, "vt": 0, "vn": 0}
    by_vertex = rng.random() < 0.25
    features = {"obj", "colours of vertices"} if by_vertex else {"obj"}
    last: list[str] = []  # vertices that come after their faces
    faces_first = bool(rng.random() < 0.15)
    for group in range(int(rng.integers(1, 5))):
        name = rng.choice(["wall", "floor 1", "Möbel", "a.b_c"])
        lines.append(f"{rng.choice(['o', 'g'])} {name} {group}")
        shown = _color_bytes(rng)
        if not by_vertex:
            features |= _write_material(rng, path.parent, mtl, f"mat {group}", shown)
            lines.append(f"usemtl mat {group}")
        if rng.random() < 0.3:
            lines.append(f"s {rng.choice(['off', '1', '0', '3'])}")
        for _ in range(int(rng.integers(1, 6))):
            face = _face(rng)
            vertices = [_obj_vertex(rng, corner, shown if by_vertex else None) for corner in face.corners]
            (last if faces_first else lines).extend(vertices)
            with_uv, with_normal = rng.random(2) < 0.5
            size = len(face.corners)
            if with_uv:
                lines += [f"vt {u:.4f} {v:.4f}" for u, v in rng.uniform(0, 1, (size, 2))]
                counts["vt"] += size
            if with_normal:
                lines.append("vn 0 0 1")
                counts["vn"] += 1
            counts["v"] += size
            negative = not faces_first and bool(rng.random() < 0.4)
            lines.append(_obj_face(size, counts, with_uv=with_uv, with_normal=with_normal, negative=negative))
            triangles.append(face.triangles)
            colors.append(np.tile(linear_values(np.array(shown) / 255), (len(face.triangles), 1)))
        if rng.random() < 0.2 and counts["v"] >= 2:
            lines += ["l 1 2", "p 1"]
            features.add("lines")
    if last:
        features.add("vertices after their faces")
    if not by_vertex:
        lines.insert(1, _write_libraries(rng, path.parent, mtl))
    text = [*lines, *last]
    end = rng.choice(["\n", "\r\n"])
    path.write_bytes((end.join(text) + end).encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"])))
    return Made(path, np.concatenate(triangles), np.concatenate(colors), regions=True, features=features)


def _obj_vertex(rng: np.random.Generator, corner: F64, color: tuple[int, int, int] | None) -> str:
    number = rng.choice(["{:.7f}", "{:.9e}", "{:+.8g}"])
    words = [number.format(value) for value in corner]
    if color is not None:
        words += [f"{value / 255:.6f}" for value in color]
    return "v " + (" " if rng.random() < 0.8 else " \\\n ").join(words)


def _obj_face(size: int, counts: dict[str, int], *, with_uv: bool, with_normal: bool, negative: bool) -> str:
    """A face of the last `size` vertices and coordinates, and the last normal."""

    def index(key: str, back: int) -> str:
        return str(-back) if negative else str(counts[key] - back + 1)

    corners = []
    for k in range(size):
        words = [index("v", size - k), index("vt", size - k) if with_uv else "", index("vn", 1) if with_normal else ""]
        corners.append("/".join(words).rstrip("/"))
    return "f " + " ".join(corners)


def _write_material(
    rng: np.random.Generator, folder: Path, mtl: list[str], name: str, color: tuple[int, int, int]
) -> set[str]:
    mtl.append(f"newmtl {name}")
    kind = rng.integers(3)
    if kind == 0:
        mtl.append("Kd " + " ".join(f"{value:.6f}" for value in linear_values(np.array(color) / 255)))
        return set()
    file = f"picture of {name}.png"
    pixels = np.full((4, 4, 3), color, np.uint8)
    Image.fromarray(pixels).save(folder / file)
    mtl += ["Kd 0.1 0.9 0.1", f"map_Kd {'-s 2 2 1 -o 0.1 0.2 ' if kind == 2 else ''}{file}"]
    return {"textures"}


def _write_libraries(rng: np.random.Generator, folder: Path, mtl: list[str]) -> str:
    """The libraries, one or two, and the statement that names them."""
    starts = [number for number, line in enumerate(mtl) if line.startswith("newmtl")]
    cut = starts[int(rng.integers(len(starts)))]
    if cut and rng.random() < 0.5:
        (folder / "first.mtl").write_text("\n".join(mtl[:cut]))
        (folder / "second.mtl").write_text("\n".join(mtl[cut:]))
        return "mtllib first.mtl second.mtl"
    (folder / "all of it.mtl").write_text("\n".join(mtl))
    return "mtllib all of it.mtl"


def make_ply(rng: np.random.Generator, path: Path) -> Made:
    """Faces of mixed sizes, coloured by vertex or by face, beside elements and properties that are nobody's."""
    faces = [_face(rng) for _ in range(int(rng.integers(1, 12)))]
    if rng.random() < 0.3:
        faces = [face for face in faces if len(face.corners) == len(faces[0].corners)]
    by_face = bool(rng.random() < 0.5)
    shown = [_color_bytes(rng) for _ in faces]
    form = str(rng.choice(["ascii", "binary_little_endian", "binary_big_endian"]))
    writer = _PlyWriter(form)
    coordinate = str(rng.choice(["float", "double", "float64"]))
    index, length = str(rng.choice(["int", "uint32", "ushort"])), str(rng.choice(["uchar", "int"]))
    color_kind = str(rng.choice(["uchar", "uint8", "ushort", "float"]))
    top = {"ushort": 65535, "float": 1}.get(color_kind, 255)
    channels = [(color_kind, name) for name in ("red", "green", "blue")]
    extra = [("short", "quality")] if rng.random() < 0.5 else []
    if rng.random() < 0.3:
        writer.element("camera", [("float", "focal"), ("list uchar double", "pose")], [[1.5, [1.0, 2.0]]])
    at = 0
    rows: list[list[object]] = []
    lists: list[list[object]] = []
    for face, color in zip(faces, shown, strict=True):
        values = [value / 255 * top if top == 1 else value * top // 255 for value in color]
        rows += [[*corner, *([7] if extra else []), *([] if by_face else values)] for corner in face.corners.tolist()]
        corners = list(range(at, at + len(face.corners)))
        lists.append([*([3] if extra else []), corners, *(values if by_face else [])])
        at += len(corners)
    writer.element("vertex", [(coordinate, axis) for axis in "xyz"] + extra + ([] if by_face else channels), rows)
    name = rng.choice(["vertex_indices", "vertex_index"])
    writer.element("face", [*extra, (f"list {length} {index}", str(name)), *(channels if by_face else [])], lists)
    if rng.random() < 0.3:
        writer.element("edge", [("int", "vertex1"), ("int", "vertex2")], [[0, 1]])
    path.write_bytes(writer.content(str(rng.choice(["\n", "\r\n"]))))
    linear = linear_values(np.array(shown) / 255)
    colors = [np.tile(rgb, (len(face.triangles), 1)) for rgb, face in zip(linear, faces, strict=True)]
    triangles = np.concatenate([face.triangles for face in faces])
    features = {"ply", form, "colours of faces" if by_face else "colours of vertices"}
    return Made(path, triangles, np.concatenate(colors), regions=True, features=features)


class _PlyWriter:
    def __init__(self, form: str) -> None:
        self._form = form
        self._header = ["ply", f"format {form} 1.0", "comment made by a fuzzer"]
        self._body: list[bytes] = []

    def element(self, name: str, properties: list[tuple[str, str]], rows: list[list[object]]) -> None:
        self._header.append(f"element {name} {len(rows)}")
        self._header += [f"property {kind} {prop}" for kind, prop in properties]
        for row in rows:
            words: list[bytes] = []
            for (kind, _), value in zip(properties, row, strict=True):
                if isinstance(value, list):
                    length, item = kind.split()[1:]
                    words += [self._one(length, len(value)), *(self._one(item, v) for v in value)]
                else:
                    words.append(self._one(kind, value))
            self._body.append(b" ".join(words) + b"\n" if self._form == "ascii" else b"".join(words))

    def content(self, end: str) -> bytes:
        return (end.join([*self._header, "end_header"]) + end).encode() + b"".join(self._body)

    def _one(self, kind: str, value: object) -> bytes:
        code = _PLY_TYPES[kind]
        assert isinstance(value, int | float)
        number = float(value) if code in "fd" else int(value)
        if self._form == "ascii":
            return repr(number).encode()
        return struct.pack((">" if self._form == "binary_big_endian" else "<") + code, number)
