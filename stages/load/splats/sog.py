"""Gaussian splats in SOG, version 2: quantized values in lossless images, as a folder or a ZIP archive."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mend.recentre import cloud_near_origin
from nimbusd.stages.load.splats.ply import exp_scales, from_smallest_three
from nimbusd.stages.types import F32, U8, Splats

_LARGEST_COUNT = 100_000_000
_PALETTE_PER_ROW = 64
_FIRST_ROTATION_TAG = 252


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Means(_Strict):
    mins: tuple[float, float, float]
    maxs: tuple[float, float, float]
    files: tuple[str, str]


class _Coded(_Strict):
    codebook: tuple[float, ...] = Field(min_length=256, max_length=256)
    files: tuple[str]


class _Rotations(_Strict):
    files: tuple[str]


class _Palette(_Strict):
    count: int = Field(ge=1, le=65536)
    bands: int = Field(ge=1, le=3)
    codebook: tuple[float, ...] = Field(min_length=256, max_length=256)
    files: tuple[str, str]


class _Meta(_Strict):
    version: int
    count: int = Field(ge=0, le=_LARGEST_COUNT)
    means: _Means
    scales: _Coded
    quats: _Rotations
    sh0: _Coded
    shN: _Palette | None = None


def sog_files(meta: Mapping[str, Any]) -> list[str]:
    """The image files that a meta.json names."""
    parts = [meta.get(name) for name in ("means", "scales", "quats", "sh0", "shN")]
    return [str(name) for part in parts if isinstance(part, Mapping) for name in part.get("files", ())]


def check_sog(path: Path) -> None:
    """Raises AssetError where the list of parts, or what an archive holds of them, says that it cannot be read."""
    if path.suffix.lower() == ".json":
        _meta(path.read_bytes(), path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            places = {PurePosixPath(name).name: name for name in archive.namelist()}
            if "meta.json" not in places:
                raise AssetError(f"splat file {path}: meta.json is not in the archive. Export it again.")
            content = archive.read(places["meta.json"])
            _meta(content, path)
            for name in sog_files(json.loads(content)):
                if name not in places:
                    raise AssetError(f"splat file {path}: {name} is not in the archive. Export it again.")
    except zipfile.BadZipFile as error:
        raise AssetError(f"splat file {path} is not a SOG archive ({error}). Copy or export it again.") from error


def read_sog(path: Path) -> Splats:
    """The Gaussians of a meta.json or a .sog archive, unchecked. Raises AssetError for anything missing or torn."""
    if path.suffix.lower() == ".json":
        return _decode(
            _meta(path.read_bytes(), path), lambda name: (path.parent / _plain(name, path)).read_bytes(), path
        )
    try:
        with zipfile.ZipFile(path) as archive:
            places = {PurePosixPath(name).name: name for name in archive.namelist()}

            def read(name: str) -> bytes:
                if name not in places:
                    raise FileNotFoundError(2, "not in the archive", name)
                return archive.read(places[name])

            return _decode(_meta(read("meta.json"), path), read, path)
    except zipfile.BadZipFile as error:
        raise AssetError(f"splat file {path} is not a SOG archive ({error}). Copy or export it again.") from error
    except FileNotFoundError as error:
        raise AssetError(f"splat file {path}: {error.filename} is not in the archive. Export it again.") from error


def _meta(content: bytes, path: Path) -> _Meta:
    try:
        raw = json.loads(content)
    except ValueError as error:
        raise AssetError(f"splat file {path} is not JSON ({error}). Copy or export it again.") from error
    if isinstance(raw, Mapping) and "lodLevels" in raw:
        names = ", ".join(str(name) for name in raw.get("filenames", ()))
        raise AssetError(
            f"splat file {path} lists levels of detail and holds no Gaussians itself. Give one of its files: {names}."
        )
    if isinstance(raw, Mapping) and raw.get("version") != 2:
        raise AssetError(
            f"splat file {path} is SOG of version {raw.get('version')}; version 2 is read. Convert it with a current "
            "splat-transform."
        )
    try:
        return _Meta.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AssetError(f"splat file {path}: `{where}` is wrong ({first['msg']}). Export it again.") from error


def _plain(name: str, path: Path) -> str:
    """`name`, if it stays in the folder of `path`."""
    if PurePosixPath(name).name != name or name in ("", ".", ".."):
        raise AssetError(f"splat file {path} names the file {name!r} outside its folder. Export it again.")
    return name


def _decode(meta: _Meta, read: Callable[[str], bytes], path: Path) -> Splats:
    count = meta.count

    def image(name: str) -> U8:
        """(H, W, 4) bytes of one of the images."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(read(name))) as picture:
                return np.asarray(picture.convert("RGBA"))
        except FileNotFoundError as error:
            raise AssetError(f"splat file {path}: {name} is missing beside it. Copy the whole folder.") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise AssetError(f"splat file {path}: image {name} cannot be read ({error}). Copy it again.") from error

    def pixels(name: str) -> U8:
        """(count, 4) bytes, one pixel a Gaussian."""
        flat = image(name).reshape(-1, 4)
        if len(flat) < count:
            raise AssetError(
                f"splat file {path}: image {name} has {len(flat)} pixels for {count} Gaussians. Export it again."
            )
        return flat[:count]

    low, high = pixels(meta.means.files[0]), pixels(meta.means.files[1])
    unit = (low[:, :3].astype(np.float64) + 256.0 * high[:, :3]) / 65535.0
    mins, maxs = np.array(meta.means.mins), np.array(meta.means.maxs)
    logs = mins + unit * (maxs - mins)
    means, shift = cloud_near_origin(np.sign(logs) * np.expm1(np.abs(logs)))
    T_file_splats = np.eye(4)
    T_file_splats[:3, 3] = shift

    rotation = pixels(meta.quats.files[0])
    tags = rotation[:, 3].astype(np.intp) - _FIRST_ROTATION_TAG
    if count and int(tags.min()) < 0:
        raise AssetError(
            f"splat file {path}: {meta.quats.files[0]} has values that no rotation has. It was saved with loss, or "
            "with its alpha multiplied in; export it again as lossless WebP."
        )
    small = ((rotation[:, :3].astype(np.float32) / 255.0 - 0.5) * np.float32(np.sqrt(2))).astype(np.float32)

    color = pixels(meta.sh0.files[0])
    constant = np.asarray(meta.sh0.codebook, np.float32)[color[:, :3]]
    return Splats(
        means=means,
        scales=exp_scales(np.asarray(meta.scales.codebook, np.float32)[pixels(meta.scales.files[0])[:, :3]]),
        quats=from_smallest_three(small, tags),
        opacities=(color[:, 3] / np.float32(255)).astype(np.float32),
        sh=_harmonics(meta.shN, constant, image, pixels, path),
        T_world_splats=T_file_splats,
    )


def _harmonics(
    palette: _Palette | None, constant: F32, image: Callable[[str], U8], pixels: Callable[[str], U8], path: Path
) -> F32:
    """(N, K, 3): the constant term, and the palette's entry that each Gaussian's label names."""
    if palette is None:
        return constant[:, None, :]
    size = (palette.bands + 1) ** 2 - 1
    centroids = image(palette.files[0])
    rows = -(-palette.count // _PALETTE_PER_ROW)
    if centroids.shape[1] < _PALETTE_PER_ROW * size or centroids.shape[0] < rows:
        raise AssetError(f"splat file {path}: {palette.files[0]} is smaller than its palette. Export it again.")
    entries = centroids[:rows, : _PALETTE_PER_ROW * size, :3].reshape(rows * _PALETTE_PER_ROW, size, 3)
    label = pixels(palette.files[1])
    index = label[:, 0].astype(np.intp) + 256 * label[:, 1].astype(np.intp)
    if len(index) and int(index.max()) >= palette.count:
        raise AssetError(
            f"splat file {path}: {palette.files[1]} names entry {int(index.max())} of a palette of {palette.count}. "
            "Export it again."
        )
    sh = np.empty((len(constant), 1 + size, 3), np.float32)
    sh[:, 0] = constant
    sh[:, 1:] = np.asarray(palette.codebook, np.float32)[entries][index]
    return sh
