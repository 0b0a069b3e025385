"""Gaussian splats in PLY: the standard layout of trainers, and PlayCanvas' compressed layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mend.recentre import check_cloud_resolution, cloud_near_origin
from nimbusd.stages.load.mesh.ply.tables import PlyHeader, Table, read_ply_header, read_ply_tables
from nimbusd.stages.types import F32, Splats

SH_C0 = 0.28209479177387814
"""Value of the constant spherical harmonic: colour = 0.5 + SH_C0 * coefficient."""

CHUNK = 256
"""Gaussians that share one row of bounds in a compressed PLY."""

_KIND = "splat file"
_HEADER_LIMIT = 64 * 1024
_MOST_LOOKED_AT = 256 << 20
_BASE = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def sigmoid(logit: F32) -> F32:
    """1 / (1 + exp(-logit)) without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logit.astype(np.float64))), np.float32)


def exp_scales(logs: F32) -> F32:
    """Exponentials, taken in float64; what overflows or vanishes in float32 stays visible as inf or 0 to the checks."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(logs.astype(np.float64)).astype(np.float32)


def read_splat_ply(path: Path) -> Splats:
    """The Gaussians of a .ply, unchecked. Raises AssetError where it is torn or not made of Gaussians."""
    content = path.read_bytes()
    header = read_ply_header(content, path, _KIND)
    _check_format(header, path)
    tables = read_ply_tables(content, header, path, _KIND)
    vertex = tables.get("vertex")
    if vertex is None:
        raise AssetError(f"splat file {path} has no element `vertex`. Is it a Gaussian splat file?")
    names = set(vertex.columns)
    if set(_PACKED) <= names:
        return _compressed(tables, path)
    return _standard(vertex.columns, names, path)


def check_splat_ply(path: Path) -> None:
    """Raises AssetError where the header says that it cannot be read, or a number of a Gaussian is not finite.

    Of a file above _MOST_LOOKED_AT bytes only the header is looked at.
    """
    with path.open("rb") as file:
        header = read_ply_header(file.read(_HEADER_LIMIT), path, _KIND)
    _check_format(header, path)
    start, size = header.start, path.stat().st_size
    for element in header.elements:
        if any(column.length is not None for column in element.properties):
            return  # how long lists are is not known before they are read
        dtype = np.dtype([(column.name, column.dtype.newbyteorder("<")) for column in element.properties])
        end = start + element.count * dtype.itemsize
        if end > size:
            raise AssetError(
                f"splat file {path} is cut off: {element.count} rows of `{element.name}` end at byte {end}, the file "
                f"at {size}. Copy or export it again."
            )
        if element.name == "vertex":
            if not set(_PACKED) <= set(dtype.names or ()):
                _check_properties(set(dtype.names or ()), path)
            if element.count and size <= _MOST_LOOKED_AT:
                _check_finite(np.memmap(path, dtype, "r", start, element.count), path)
        start = end
    if all(element.name != "vertex" for element in header.elements):
        raise AssetError(f"splat file {path} has no element `vertex`. Is it a Gaussian splat file?")


def _check_format(header: PlyHeader, path: Path) -> None:
    if header.format != "binary_little_endian":
        raise AssetError(
            f"splat file {path} is PLY of format {header.format}; splats are read from binary_little_endian. "
            "Convert it, for example by opening and saving it in a splat editor."
        )


def _check_finite(table: Any, path: Path) -> None:
    used = {*_BASE, *_ROTATION}
    for name in (name for name in table.dtype.names if name in used or name.startswith("f_rest_")):
        bad = np.isnan(table[name]) if name == "opacity" else ~np.isfinite(table[name])  # a logit may be infinite
        if bad.any():
            raise AssetError(
                f"splat file {path}: {int(bad.sum())} of {len(table)} Gaussians have a `{name}` that is not a finite "
                f"number, first number {int(bad.argmax())}. Remove them in a splat editor, or export the file again."
            )


def write_splat_ply(path: Path, splats: Splats, comments: tuple[str, ...] = ()) -> None:
    """Write the Gaussians in their own frame, in the layout of trainers. comments: lines for the header."""
    rest = splats.sh[:, 1:].transpose(0, 2, 1).reshape(len(splats), 3 * (splats.sh.shape[1] - 1))
    opacity = np.clip(splats.opacities.astype(np.float64), 1e-7, 1 - 1e-7)
    logits = np.log(opacity / (1 - opacity))[:, None]
    parts = [splats.means, splats.sh[:, 0], rest, logits, np.log(splats.scales), splats.quats]
    names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{k}" for k in range(rest.shape[1])), "opacity"]
    names += ["scale_0", "scale_1", "scale_2", *_ROTATION]
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    header += [f"element vertex {len(splats)}", *(f"property float {name}" for name in names), "end_header", ""]
    path.write_bytes("\n".join(header).encode() + np.concatenate(parts, axis=1).astype("<f4").tobytes())


def _columns(table: Any, names: tuple[str, ...]) -> F32:
    """(N, len(names)) float32."""
    return np.asarray(np.stack([table[name] for name in names], axis=1), np.float32)


def _check_properties(names: set[str], path: Path) -> None:
    missing = [name for name in (*_BASE, *_ROTATION) if name not in names]
    if missing:
        raise AssetError(
            f"splat file {path} lacks the properties {', '.join(missing)}: it is a point cloud or a mesh, not a cloud "
            "of 3D Gaussians. Give a mesh as the scene's `proxy`."
        )


def _standard(vertex: Any, names: set[str], path: Path) -> Splats:
    _check_properties(names, path)
    rest = sorted((name for name in names if name.startswith("f_rest_")), key=lambda name: int(name[7:]))
    means, shift = cloud_near_origin(np.stack([vertex[name].astype(np.float64) for name in "xyz"], axis=1))
    scales = exp_scales(_columns(vertex, ("scale_0", "scale_1", "scale_2")))
    if vertex["x"].dtype.itemsize < 8:
        check_cloud_resolution(_columns(vertex, ("x", "y", "z")), scales, f"splat file {path}")
    T_file_splats = np.eye(4)
    T_file_splats[:3, 3] = shift
    return Splats(
        means=means,
        scales=scales,
        quats=_columns(vertex, _ROTATION),
        opacities=sigmoid(np.asarray(vertex["opacity"], np.float32)),
        sh=_harmonics(_columns(vertex, ("f_dc_0", "f_dc_1", "f_dc_2")), vertex, rest, path),
        T_world_splats=T_file_splats,
    )


def _harmonics(constant: F32, table: Any, rest: list[str], path: Path) -> F32:
    """(N, K, 3) of the constant term (N, 3) and f_rest columns, which go channel by channel."""
    if len(rest) not in (0, 9, 24, 45):
        raise AssetError(
            f"splat file {path} has {len(rest)} f_rest properties; spherical harmonics of degree 0, 1, 2 and 3 have "
            "0, 9, 24 and 45. Export it again with one of those."
        )
    sh = np.empty((len(constant), 1 + len(rest) // 3, 3), np.float32)
    sh[:, 0] = constant
    for number, name in enumerate(rest):
        channel, coefficient = divmod(number, len(rest) // 3)
        sh[:, 1 + coefficient, channel] = table[name]
    return sh


def _compressed(tables: dict[str, Table], path: Path) -> Splats:
    """Chunks of 256 Gaussians with bounds; 11-10-11 bit positions and log-scales, 2-10-10-10 bit rotations."""
    vertex, count = tables["vertex"].columns, tables["vertex"].count
    chunk = tables.get("chunk")
    chunks = -(-count // CHUNK)
    bounds = [f"{end}_{name}" for end in ("min", "max") for name in ("x", "y", "z", "scale_x", "scale_y", "scale_z")]
    if chunk is None or chunk.count < chunks or not set(bounds) <= set(chunk.columns):
        raise AssetError(
            f"splat file {path} is compressed, but its element `chunk` is missing or has fewer than {chunks} rows "
            f"for {count} Gaussians. Export it again."
        )
    of = np.arange(count) // CHUNK

    def spread(unit: F32, name: str, axes: tuple[str, ...]) -> F32:
        low = _columns(chunk.columns, tuple(f"min_{name}{axis}" for axis in axes))[of]
        high = _columns(chunk.columns, tuple(f"max_{name}{axis}" for axis in axes))[of]
        return np.asarray(low + unit * (high - low), np.float32)

    color = np.stack([_bits(vertex["packed_color"], shift, 8) for shift in (24, 16, 8, 0)], axis=1)
    rgb = color[:, :3]
    if "min_r" in chunk.columns:
        rgb = spread(rgb, "", ("r", "g", "b"))
    sh = _harmonics(((rgb - 0.5) / SH_C0).astype(np.float32), *_compressed_rest(tables, count, path), path)
    means = spread(_packed3(vertex["packed_position"]), "", ("x", "y", "z"))
    scales = exp_scales(spread(_packed3(vertex["packed_scale"]), "scale_", ("x", "y", "z")))
    check_cloud_resolution(means, scales, f"splat file {path}")
    return Splats(
        means=means,
        scales=scales,
        quats=_packed_rotation(vertex["packed_rotation"]),
        opacities=np.ascontiguousarray(color[:, 3]),
        sh=sh,
    )


def _compressed_rest(tables: dict[str, Table], count: int, path: Path) -> tuple[dict[str, F32], list[str]]:
    """The bytes of the optional element `sh` as coefficients in -4…4."""
    table = tables.get("sh")
    if table is None:
        return {}, []
    if table.count != count:
        raise AssetError(f"splat file {path}: {table.count} rows of `sh` for {count} Gaussians. Export it again.")
    names = sorted(table.columns, key=lambda name: int(name.rsplit("_", 1)[1]))
    made = {}
    for name in names:
        byte = table.columns[name].astype(np.float32)
        unit = np.where(byte == 0, 0.0, np.where(byte == 255, 1.0, (byte + 0.5) / 256.0))
        made[name] = ((unit - 0.5) * 8.0).astype(np.float32)
    return made, names


def _bits(word: npt.NDArray[np.uint32], shift: int, bits: int) -> F32:
    """`bits` bits of each word as a number in 0…1."""
    top = (1 << bits) - 1
    return np.asarray(((word >> np.uint32(shift)) & np.uint32(top)).astype(np.float32) / np.float32(top))


def _packed3(word: npt.NDArray[np.uint32]) -> F32:
    return np.stack([_bits(word, 21, 11), _bits(word, 11, 10), _bits(word, 0, 11)], axis=1)


def _packed_rotation(word: npt.NDArray[np.uint32]) -> F32:
    """Quaternions w, x, y, z: the top 2 bits name the largest component, which is left out."""
    small = (np.stack([_bits(word, shift, 10) for shift in (20, 10, 0)], axis=1) - 0.5) * np.float32(np.sqrt(2))
    return from_smallest_three(small, (word >> np.uint32(30)).astype(np.intp))


def from_smallest_three(small: F32, largest: npt.NDArray[np.intp]) -> F32:
    """(N, 4) unit quaternions of three components (N, 3) in order and the index 0…3 of the one left out."""
    quats = np.empty((len(small), 4), np.float32)
    rest = np.sqrt(np.maximum(0.0, 1.0 - np.square(small, dtype=np.float64).sum(axis=1)))
    for index in range(4):
        of = largest == index
        quats[np.ix_(of, [i for i in range(4) if i != index])] = small[of]
        quats[of, index] = rest[of]
    return quats
