"""Files of Gaussian splats: standard and compressed PLY, SOG (folder or archive) and SPZ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.splats.ply import check_splat_ply, read_splat_ply
from nimbusd.stages.load.splats.sog import check_sog, read_sog, sog_files
from nimbusd.stages.load.splats.spz import check_spz, read_spz
from nimbusd.stages.types import F64, Splats

SPLAT_SUFFIXES = (".ply", ".sog", ".json", ".spz")
"""`.json` is the meta.json of a SOG folder."""

SplatUp = Literal["x", "-x", "y", "-y", "z", "-z"]

_LARGEST_UNIT = 1e6


def read_splats(path: Path) -> Splats:
    """The Gaussians of a file, quaternions normalized; T_world_splats takes them to the file's frame.

    It is a shift: zero unless the cloud lies far from its origin, see `recentre`.

    Raises AssetError, naming the file and the way out, for a file that is missing, torn, empty, of an unknown kind
    or holds values that no Gaussian can have.
    """
    suffix = path.suffix.lower()
    if suffix not in SPLAT_SUFFIXES:
        raise AssetError(
            f"splat file {path} is of an unknown kind. Use .ply (standard or compressed), .sog, the meta.json of a "
            "SOG folder, or .spz."
        )
    if not path.is_file():
        raise AssetError(f"splat file {path} is missing. Check the scene's `splats`, or put the file there.")
    try:
        if suffix == ".ply":
            cloud = read_splat_ply(path)
        elif suffix == ".spz":
            cloud = read_spz(path)
        else:
            cloud = read_sog(path)
    except OSError as error:
        raise AssetError(f"splat file {path} cannot be read ({error.strerror or error}). Copy it again.") from error
    return check_splats(cloud, f"splat file {path}")


def check_splat_file(path: Path) -> None:
    """Raises AssetError where the file's header, or numbers in it that are not finite, make `read_splats` refuse it."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".ply":
            check_splat_ply(path)
        elif suffix == ".spz":
            check_spz(path)
        else:
            check_sog(path)
    except OSError as error:
        raise AssetError(f"splat file {path} cannot be read ({error.strerror or error}). Copy it again.") from error


def splat_files(path: Path) -> list[Path]:
    """`path` and the files that it names, whether they exist or not."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return [path]
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return [path]  # read_splats says what is wrong with it
    return [path, *(path.parent / name for name in sog_files(meta))] if isinstance(meta, Mapping) else [path]


def check_splats(cloud: Splats, origin: str) -> Splats:
    """`cloud` with its quaternions normalized, if every Gaussian in it can be drawn.

    origin: what error sentences call it, such as `splat file room.ply`. Quaternions may have any length but 0: the
    format's readers normalize them, and trainers store them so. Raises AssetError.
    """
    count = len(cloud.means)
    if count == 0:
        raise AssetError(f"{origin} is empty: it has no Gaussians. Export it again from a finished training.")
    arrays = {
        "positions": cloud.means,
        "scales": cloud.scales,
        "rotations": cloud.quats,
        "opacities": cloud.opacities,
        "colours": cloud.sh,
    }
    for name, values in arrays.items():
        bad = ~np.isfinite(values.reshape(count, -1)).all(axis=1)
        if bad.any():
            raise AssetError(
                f"{origin}: {int(bad.sum())} of {count} Gaussians have {name} that are not finite numbers, first "
                f"number {int(bad.argmax())}. Remove them in a splat editor, or export the file again."
            )
    if (cloud.scales <= 0).any():
        first = int((cloud.scales <= 0).any(axis=1).argmax())
        raise AssetError(
            f"{origin}: the scales of Gaussian number {first} are not above 0 ({cloud.scales[first].tolist()}). "
            "Files store the logarithm of a scale; export it again with a tool that does."
        )
    if ((cloud.opacities < 0) | (cloud.opacities > 1)).any():
        raise AssetError(f"{origin}: opacities lie outside 0…1. Export it again with logits, as trainers write them.")
    if float(np.abs(cloud.means).max()) > _LARGEST_UNIT:
        raise AssetError(
            f"{origin}: positions reach {float(np.abs(cloud.means).max()):.3g} units, too far for float32. "
            "Remove the outliers in a splat editor, or move the cloud to the origin."
        )
    if float(cloud.scales.max()) > _LARGEST_UNIT:
        raise AssetError(
            f"{origin}: the scales of Gaussian number {int(cloud.scales.max(axis=1).argmax())} reach "
            f"{float(cloud.scales.max()):.3g} units. Remove it in a splat editor, or export the file again."
        )
    length = np.linalg.norm(cloud.quats, axis=1, keepdims=True)
    if (length < 1e-6).any():
        raise AssetError(
            f"{origin}: the rotation of Gaussian number {int((length < 1e-6).argmax())} is the quaternion zero, which "
            "cannot be normalized. Remove it in a splat editor, or export the file again."
        )
    quats = (cloud.quats / length).astype(np.float32)
    return Splats(cloud.means, cloud.scales, quats, cloud.opacities, cloud.sh, cloud.T_world_splats)


def z_up_from(up: SplatUp) -> F64:
    """(4, 4) rotation that takes the file axis `up` to world +z, keeping handedness."""
    axis = "xyz".index(up[-1])
    sign = -1.0 if up.startswith("-") else 1.0
    R = np.zeros((3, 3))
    R[2, axis] = sign  # world z reads the file's up axis
    R[0, 1 if axis == 0 else 0] = 1.0
    R[1] = np.cross(R[2], R[0])
    T = np.eye(4)
    T[:3, :3] = R
    return T


def default_up(path: Path) -> SplatUp:
    """Training from photographs writes y down (.ply, and SOG made of it); SPZ is specified as y up."""
    return "y" if path.suffix.lower() == ".spz" else "-y"
