"""Gaussian splats in SPZ, versions 2 and 3: a gzip stream of quantized attributes, one after another."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.splats.ply import exp_scales
from nimbusd.stages.types import F32, U8, Splats

_MAGIC = 0x5053474E
_HEADER = struct.Struct("<IIIBBBB")
_COLOR_SCALE = 0.15
_LARGEST_COUNT = 100_000_000
_HEADER_BYTES = 4096
"""Of the packed stream: more than its 16 bytes of header take."""


def check_spz(path: Path) -> None:
    """Raises AssetError where the header of an .spz file says that it cannot be read."""
    with path.open("rb") as file:
        _opened(file.read(_HEADER_BYTES), path)


def read_spz(path: Path) -> Splats:
    """The Gaussians of an .spz file, unchecked. Raises AssetError where it is torn or of another version."""
    stream, (version, count, degree, fraction_bits) = _opened(path.read_bytes(), path)
    coefficients = (degree + 1) ** 2 - 1
    widths = (9, 1, 3, 3, 4 if version == 3 else 3, 3 * coefficients)
    size = count * sum(widths)
    try:
        body = stream.decompress(stream.unconsumed_tail, size) if size else b""
    except zlib.error as error:
        raise AssetError(f"splat file {path} is torn ({error}). Copy or export it again.") from error
    if len(body) < size:
        raise AssetError(
            f"splat file {path} is cut off: {len(body)} bytes for {count} Gaussians, which need {size}. Copy it again."
        )
    parts: list[U8] = []
    at = 0
    for width in widths:
        parts.append(np.frombuffer(body, np.uint8, count * width, at).reshape(count, width))
        at += count * width
    positions, alphas, colors, scales, rotations, harmonics = parts
    sh = np.empty((count, 1 + coefficients, 3), np.float32)
    sh[:, 0] = (colors.astype(np.float32) / 255 - 0.5) / _COLOR_SCALE
    sh[:, 1:] = (harmonics.astype(np.float32).reshape(count, coefficients, 3) - 128) / 128
    return Splats(
        means=_fixed_point(positions, fraction_bits),
        scales=exp_scales(scales.astype(np.float32) / 16 - 10),
        quats=_smallest_three(rotations) if version == 3 else _first_three(rotations),
        opacities=(alphas[:, 0] / np.float32(255)).astype(np.float32),
        sh=sh,
    )


def _opened(packed: bytes, path: Path) -> tuple[zlib._Decompress, tuple[int, int, int, int]]:
    """The stream behind the header, and version, count, degree and bits after the point. Raises AssetError."""
    if packed[:4] == _MAGIC.to_bytes(4, "little"):
        raise AssetError(
            f"splat file {path} is SPZ of version 4 or later (not one gzip stream); versions 2 and 3 are read. "
            "Convert it to .ply or .sog with splat-transform."
        )
    stream = zlib.decompressobj(wbits=31)
    try:
        start = stream.decompress(packed, _HEADER.size)
        magic, version, count, degree, fraction_bits, _flags, _ = _HEADER.unpack(start)
    except (zlib.error, struct.error) as error:
        raise AssetError(f"splat file {path} is not an SPZ file ({error}). Copy or export it again.") from error
    if magic != _MAGIC or version not in (2, 3):
        raise AssetError(
            f"splat file {path} is not SPZ of version 2 or 3 (it says {version}). Convert it to .ply or .sog with "
            "splat-transform."
        )
    if degree > 3 or count > _LARGEST_COUNT or fraction_bits > 24:
        raise AssetError(
            f"splat file {path} says {count} Gaussians of spherical harmonics of degree {degree}; degrees 0 to 3 and "
            f"at most {_LARGEST_COUNT} Gaussians are read. Export it again with less."
        )
    return stream, (version, count, degree, fraction_bits)


def _fixed_point(packed: U8, fraction_bits: int) -> F32:
    """(N, 3) of 24-bit two's complement numbers, (N, 9) bytes, lowest first."""
    b = packed.reshape(-1, 3, 3).astype(np.int32)
    value = b[..., 0] | b[..., 1] << 8 | b[..., 2] << 16
    value = np.where(value >= 1 << 23, value - (1 << 24), value)
    return np.asarray(value / float(1 << fraction_bits), np.float32)


def _first_three(packed: U8) -> F32:
    """Quaternions w, x, y, z of bytes x, y, z; w is not negative."""
    xyz = packed.astype(np.float32) / np.float32(127.5) - 1
    w = np.sqrt(np.maximum(0, 1 - np.square(xyz).sum(axis=1, keepdims=True)))
    return np.asarray(np.concatenate([w, xyz], axis=1), np.float32)


def _smallest_three(packed: U8) -> F32:
    """Quaternions w, x, y, z: of x, y, z, w the largest (top 2 bits) is left out; 9 bits and a sign the others."""
    word = np.ascontiguousarray(packed).view("<u4")[:, 0].copy()
    largest = word >> 30
    xyzw = np.zeros((len(word), 4), np.float64)
    for index in (3, 2, 1, 0):  # the last component lies in the lowest bits
        stored = largest != index
        value = np.sqrt(0.5) * (word & 511) / 511
        value = np.where(word & 512, -value, value)
        xyzw[stored, index] = value[stored]
        word = np.where(stored, word >> 10, word)
    rest = np.sqrt(np.maximum(0, 1 - np.square(xyzw).sum(axis=1)))
    xyzw[np.arange(len(word)), largest] = rest
    return xyzw[:, [3, 0, 1, 2]].astype(np.float32)
