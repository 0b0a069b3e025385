"""Random valid mesh files with known triangles and colours: what a loader must give back, or refuse by name.

`make_file` writes one, `problems` says what the loader got wrong about it. Any seed gives the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.files import default_up_axis
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.mesh.part import linear_values
from nimbusd.stages.types import F64, Scene

FORMATS = ("gltf", "glb", "obj", "ply")


@dataclass(slots=True)
class Made:
    """A file and what is in it.

    triangles: (F, 3, 3) corners in the file's frame, counter-clockwise from outside; colors: (F, 3) linear of each.
    regions: of files with polygons, that any cutting into triangles is right for: instead of equal triangles, equal
    areas, area vectors and first moments of each color are wanted. refused: what a refusal must name; empty for a
    file that must load. features: what is in it, for the statistics.
    """

    path: Path
    triangles: F64
    colors: F64
    regions: bool = False
    refused: str = ""
    features: set[str] = field(default_factory=set)


def make_file(seed: int, folder: Path) -> Made:
    """Write the file of this seed into an empty folder."""
    from tests.support.fuzz_gltf import make_gltf
    from tests.support.fuzz_polygon_files import make_obj, make_ply

    rng = np.random.default_rng(seed)
    form = FORMATS[seed % len(FORMATS)]
    if form in ("gltf", "glb"):
        return make_gltf(rng, folder / f"scene.{form}")
    return make_obj(rng, folder / "scene.obj") if form == "obj" else make_ply(rng, folder / "scene.ply")


def problems(made: Made, seed: int) -> list[str]:
    """The fault of the loader with the file, in a random unit and with a random up axis; empty if none."""
    rng = np.random.default_rng((seed, 1))
    unit_m = float(rng.choice([1.0, 0.01, 0.0254, 3.0]))
    up = rng.choice(["y", "z", ""])
    config: dict[str, Any] = {"unit_m": unit_m, "light": "none"} | ({"up_axis": str(up)} if up else {})
    try:
        scene = _written(made.path, config)
    except AssetError as error:
        if made.refused and made.refused in str(error) and str(made.path) in str(error):
            return []
        return [f"refused: {error}"]
    if made.refused:
        return [f"loaded, though it needs {made.refused}"]
    if scene.content_hash != _written(made.path, config).content_hash:
        return ["two loads differ"]
    T = np.eye(3) * unit_m
    if (up or default_up_axis(made.path)) == "y":
        T = T @ np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)])
    expected = made.triangles @ T.T
    found, colors = _triangles(scene)
    return list(_differences(expected, made, found, colors))


def damage_is_told(made: Made, seed: int) -> str:
    """The event in place of an AssetError, or of loading, when bytes of the file are lost or changed; else empty."""
    rng = np.random.default_rng((seed, 2))
    content = bytearray(made.path.read_bytes())
    if rng.random() < 0.5:
        del content[int(rng.integers(len(content))) :]
    else:
        for at in rng.integers(0, len(content), int(rng.integers(1, 9))):
            content[at] = int(rng.integers(256))
    made.path.write_bytes(content)
    try:
        BProcObjLoader(MeshArgs()).load_asset(MeshConfig(name="fuzz", path=made.path, light="none"))
    except AssetError as error:
        return "" if str(made.path.parent) in str(error) else f"a refusal without a name: {error}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{type(error).__name__}: {error}"
    return ""


def _written(path: Path, config: dict[str, Any]) -> Scene:
    return BProcObjLoader(MeshArgs()).as_written(MeshConfig(name="fuzz", path=path, **config))


def _triangles(scene: Scene) -> tuple[F64, F64]:
    """(F, 3, 3) in the world, and what colour each shows at its middle, (F, 3) linear."""
    found, colors = [], []
    for obj in scene.objects:
        found.append(obj.world_vertices()[obj.faces])
        shown = np.array([material.base_color for material in obj.materials])[obj.face_material]
        for number, material in enumerate(obj.materials):
            mine = obj.face_material == number
            if material.texture is not None and mine.any():
                uvs = np.zeros((len(obj.faces), 3, 2)) if obj.uvs is None else obj.uvs.astype(np.float64)
                middle = uvs[mine].mean(axis=1) % 1.0
                height, width = material.texture.shape[:2]
                row = np.minimum(((1 - middle[:, 1]) * height).astype(int), height - 1)
                column = np.minimum((middle[:, 0] * width).astype(int), width - 1)
                shown[mine] *= linear_values(material.texture[row, column] / 255)
        colors.append(shown)
    return np.concatenate(found), np.concatenate(colors)


def _differences(expected: F64, made: Made, found: F64, colors: F64) -> Iterator[str]:
    size = float(np.ptp(expected.reshape(-1, 3), axis=0).max())
    far = float(np.abs(expected).max())
    near = 2e-5 * size + 1e-6 * far
    if made.regions:
        yield from _region_differences(expected, made, found, colors)
        return
    if len(expected) != len(found):
        yield f"{len(found)} triangles instead of {len(expected)}"
        return
    turned = np.concatenate([np.roll(found, -k, axis=1).reshape(-1, 9) for k in range(3)])
    distance, which = _nearest(turned, expected.reshape(-1, 9))
    if distance.max() > 3 * near:
        yield f"a triangle lies {distance.max():.3g} from where it should, in a scene of {size:.3g}"
        return
    apart = np.abs(colors[which % len(found)] - made.colors).max(axis=1)
    if apart.max() > 0.012:
        worst = int(apart.argmax())
        yield f"a triangle shows {colors[which[worst] % len(found)]} instead of {made.colors[worst]}"


def _region_differences(expected: F64, made: Made, found: F64, colors: F64) -> Iterator[str]:
    wanted, names = np.unique(made.colors.round(3), axis=0), made.colors.round(3)
    distance, which = _nearest(wanted, colors)
    if distance.max() > 0.02:
        yield f"a triangle shows {colors[int(distance.argmax())]}, which is no colour of the file"
        return
    for number, color in enumerate(wanted):
        mine = expected[(names == color).all(axis=1)]
        ours, theirs = _integrals(found[which == number]), _integrals(mine)
        # Coordinates are single precision, so an outline is uncertain by its length times that.
        far = float(np.abs(expected).max())
        length = float(np.linalg.norm(mine - np.roll(mine, 1, axis=1), axis=-1).sum())
        near = 1e-6 * float(theirs["area"][0]) + 2e-7 * far * length
        for key, value in theirs.items():
            if np.abs(ours[key] - value).max() > near * (far if key == "moment" else 1):
                yield f"{key} of colour {color} is {ours[key]} instead of {value}"
                return


def _nearest(places: F64, points: F64) -> tuple[F64, npt.NDArray[np.int64]]:
    """Of each point, (N, K), how far the nearest place (M, K) is, and its number."""
    distance, which = cKDTree(places).query(points)
    return np.asarray(distance, np.float64), np.asarray(which, np.int64)


def _integrals(triangles: F64) -> dict[str, npt.NDArray[np.float64]]:
    """Over a surface: its area, its area vector, and the integral of the position."""
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) / 2
    areas = np.linalg.norm(cross, axis=1)
    moment = (areas[:, None] * triangles.mean(axis=1)).sum(axis=0)
    return {"area": np.array([areas.sum()]), "area vector": cross.sum(axis=0), "moment": moment}
