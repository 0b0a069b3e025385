from __future__ import annotations

import gzip
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.splats.files import read_splats, splat_files, z_up_from
from nimbusd.stages.types import F32, Splats
from tests.support.splat_reference import random_splats

SQRT2 = np.sqrt(2.0)


def alike(read: Splats, wrote: Splats, **tolerances: float) -> None:
    """Equal within what the format keeps. Quaternions may have turned their sign."""
    np.testing.assert_allclose(read.means, wrote.means, atol=tolerances.get("means", 1e-6))
    np.testing.assert_allclose(np.log(read.scales), np.log(wrote.scales), atol=tolerances.get("logs", 1e-5))
    np.testing.assert_allclose(read.opacities, wrote.opacities, atol=tolerances.get("opacity", 1e-5))
    np.testing.assert_allclose(read.sh, wrote.sh, atol=tolerances.get("sh", 1e-6))
    cosine = np.abs((read.quats * wrote.quats).sum(axis=1))
    assert cosine.min() > 1 - tolerances.get("turn", 1e-6)


def write_ply(
    path: Path,
    splats: Splats,
    quat_length: float = 1.0,
    skip: tuple[str, ...] = (),
    spoiled: Mapping[str, float] | None = None,
) -> Path:
    """A standard .ply. spoiled: values of properties of the third Gaussian."""
    rest = splats.sh[:, 1:].transpose(0, 2, 1).reshape(len(splats), 3 * (splats.sh.shape[1] - 1))
    columns: dict[str, F32] = {name: splats.means[:, k] for k, name in enumerate("xyz")}
    columns |= {f"n{name}": np.zeros(len(splats), np.float32) for name in "xyz"}
    columns |= {f"f_dc_{k}": splats.sh[:, 0, k] for k in range(3)}
    columns |= {f"f_rest_{k}": rest[:, k] for k in range(rest.shape[1])}
    opacity = np.clip(splats.opacities.astype(np.float64), 1e-7, 1 - 1e-7)
    columns["opacity"] = np.log(opacity / (1 - opacity)).astype(np.float32)
    columns |= {f"scale_{k}": np.log(splats.scales[:, k]) for k in range(3)}
    columns |= {f"rot_{k}": quat_length * splats.quats[:, k] for k in range(4)}
    for name, value in (spoiled or {}).items():
        columns[name] = columns[name].copy()
        columns[name][min(2, len(splats) - 1)] = value
    columns = {name: values for name, values in columns.items() if name not in skip}
    header = ["ply", "format binary_little_endian 1.0", "comment made by a test", f"element vertex {len(splats)}"]
    header += [f"property float {name}" for name in columns] + ["end_header", ""]
    table = np.stack(list(columns.values()), axis=1).astype("<f4") if len(splats) else np.zeros((0, 3), "<f4")
    path.write_bytes("\n".join(header).encode() + table.tobytes())
    return path


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_standard_ply_gives_back_its_gaussians(tmp_path: Path, degree: int) -> None:
    splats = random_splats(degree, 50, degree)
    read = read_splats(write_ply(tmp_path / "cloud.ply", splats))
    assert read.sh_degree == degree
    alike(read, splats)


def test_quaternions_of_any_length_are_normalized(tmp_path: Path) -> None:
    splats = random_splats(1, 50)
    alike(read_splats(write_ply(tmp_path / "cloud.ply", splats, quat_length=3.7)), splats)


@pytest.mark.parametrize(
    ("spoiled", "sentence"),
    [
        ({"x": np.nan}, r"1 of 9 Gaussians have positions that are not finite numbers, first number 2"),
        ({"scale_1": np.inf}, r"scales that are not finite"),
        ({"scale_1": -200.0}, r"scales of Gaussian number 2 are not above 0"),
        ({"scale_1": 20.0}, r"scales of Gaussian number 2 reach 4\.85e\+08 units"),
        ({"f_dc_0": np.nan}, r"colours that are not finite"),
        ({"opacity": np.nan}, r"opacities that are not finite"),
        ({"y": 1e9}, r"positions reach 1e\+09 units"),
        ({f"rot_{k}": 0.0 for k in range(4)}, r"rotation of Gaussian number 2 is the quaternion zero"),
    ],
)
def test_gaussians_that_cannot_be_drawn_are_refused_with_a_sentence(
    tmp_path: Path, spoiled: dict[str, float], sentence: str
) -> None:
    path = write_ply(tmp_path / "cloud.ply", random_splats(2, 9), spoiled=spoiled)
    with pytest.raises(AssetError, match=sentence) as told:
        read_splats(path)
    assert str(path) in str(told.value)


def test_files_that_are_no_splats_are_refused_with_a_sentence(tmp_path: Path) -> None:
    def refused(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(AssetError) as told:
            read_splats(path)
        assert str(path) in str(told.value)
        return str(told.value)

    whole = write_ply(tmp_path / "whole.ply", random_splats(3, 20)).read_bytes()
    assert "is cut off: 20 rows of `vertex`" in refused("cut.ply", whole[:-5])
    assert "cut off in its header" in refused("head.ply", whole[:40])
    assert "not a PLY file" in refused("none.ply", b"hello")
    assert "format ascii" in refused("ascii.ply", whole.replace(b"binary_little_endian", b"ascii"))
    assert "is empty" in refused("empty.ply", write_ply(tmp_path / "e.ply", random_splats(3, 0)).read_bytes())
    assert "lacks the properties opacity" in refused(
        "mesh.ply", write_ply(tmp_path / "m.ply", random_splats(3, 5), skip=("opacity",)).read_bytes()
    )
    assert "8 f_rest" in refused(
        "rest.ply", write_ply(tmp_path / "r.ply", random_splats(3, 5, 1), skip=("f_rest_8",)).read_bytes()
    )
    assert "unknown kind" in refused("cloud.splat", whole)
    assert "not an SPZ file" in refused("cloud.spz", b"hello")
    assert "version 4 or later" in refused("new.spz", b"NGSP" + bytes(28))
    assert "not a SOG archive" in refused("cloud.sog", b"hello")
    assert "is not JSON" in refused("meta.json", b"{")
    assert "version 1" in refused("meta.json", b'{"version": 1}')
    assert "`count`" in refused("meta.json", b'{"version": 2}')
    assert "0_0/meta.json" in refused("lod-meta.json", b'{"lodLevels": 2, "filenames": ["0_0/meta.json"]}')


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"cloud\.ply is missing"):
        read_splats(tmp_path / "cloud.ply")


def smallest_three(quats: F32) -> tuple[F32, np.ndarray[Any, np.dtype[np.intp]]]:
    """(N, 3) components in order without the largest, which is made positive, and its index."""
    largest = np.abs(quats).argmax(axis=1)
    quats = quats * np.sign(quats[np.arange(len(quats)), largest])[:, None]
    keep = np.array([[i for i in range(4) if i != k] for k in largest])
    return np.take_along_axis(quats, keep, axis=1), largest


def test_a_compressed_ply_gives_back_its_gaussians(tmp_path: Path) -> None:
    splats = random_splats(4, 600, 2)  # three chunks, the last one short
    colors = 0.5 + 0.28209479177387814 * splats.sh[:, 0]
    chunks, rows = [], []
    for first in range(0, 600, 256):
        part = slice(first, min(first + 256, 600))
        logs = np.log(splats.scales[part])
        bounds = [splats.means[part].min(0), splats.means[part].max(0), logs.min(0), logs.max(0)]
        bounds += [colors[part].min(0), colors[part].max(0)]
        chunks.append(np.concatenate(bounds))
        unit = [
            (values - low) / (high - low)
            for values, low, high in (
                (splats.means[part], *bounds[:2]), (logs, *bounds[2:4]), (colors[part], *bounds[4:]),
            )
        ]  # fmt: skip
        small, largest = smallest_three(splats.quats[part])
        turn = np.rint((small / SQRT2 + 0.5) * 1023).astype(np.uint32)
        position, scale = (np.rint(u * (2047, 1023, 2047)).astype(np.uint32) for u in unit[:2])
        byte = np.rint(np.column_stack([unit[2], splats.opacities[part]]) * 255).astype(np.uint32)
        rows.append(
            np.stack(
                [
                    position[:, 0] << 21 | position[:, 1] << 11 | position[:, 2],
                    largest.astype(np.uint32) << 30 | turn[:, 0] << 20 | turn[:, 1] << 10 | turn[:, 2],
                    scale[:, 0] << 21 | scale[:, 1] << 11 | scale[:, 2],
                    byte[:, 0] << 24 | byte[:, 1] << 16 | byte[:, 2] << 8 | byte[:, 3],
                ],
                axis=1,
            )
        )
    rest = splats.sh[:, 1:].transpose(0, 2, 1).reshape(600, -1)
    bounds_names = [f"{e}_{n}" for p in ("", "scale_") for e in ("min", "max") for n in (f"{p}x", f"{p}y", f"{p}z")]
    bounds_names += [f"{e}_{n}" for e in ("min", "max") for n in "rgb"]
    packed = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "element chunk 3",
        *(f"property float {n}" for n in bounds_names),
    ]
    lines += ["element vertex 600", *(f"property uint {n}" for n in packed)]
    lines += ["element sh 600", *(f"property uchar f_rest_{k}" for k in range(24)), "end_header", ""]
    path = tmp_path / "cloud.compressed.ply"
    path.write_bytes(
        "\n".join(lines).encode()
        + np.array(chunks, "<f4").tobytes()
        + np.concatenate(rows).astype("<u4").tobytes()
        + np.clip(np.floor((rest / 8 + 0.5) * 256), 0, 255).astype(np.uint8).tobytes()
    )
    alike(read_splats(path), splats, means=3e-3, logs=6e-3, opacity=3e-3, sh=0.025, turn=1e-5)


def write_sog(folder: Path, splats: Splats) -> Path:
    """A SOG folder whose codebooks hold evenly spaced values."""
    count, width = len(splats), 16
    height = -(-count // width)

    def image(name: str, pixels: Any) -> str:
        full = np.zeros((height * width, 4), np.uint8)
        full[:, 3] = 255
        full[:count, : pixels.shape[1]] = pixels
        Image.fromarray(full.reshape(height, width, 4)).save(folder / name, lossless=True, exact=True)
        return name

    def coded(values: F32) -> tuple[list[float], Any]:
        book = np.linspace(values.min(), values.max(), 256)
        return book.tolist(), np.abs(values[..., None] - book).argmin(axis=-1).astype(np.uint8)

    logs = np.sign(splats.means) * np.log1p(np.abs(splats.means))
    mins, maxs = logs.min(0), logs.max(0)
    q = np.rint((logs - mins) / (maxs - mins) * 65535).astype(np.int64)
    small, largest = smallest_three(splats.quats)
    turn = np.column_stack([np.rint((small / SQRT2 + 0.5) * 255), largest + 252]).astype(np.uint8)
    scale_book, scale_codes = coded(np.log(splats.scales))
    dc_book, dc_codes = coded(splats.sh[:, 0])
    rest_book, rest_codes = coded(splats.sh[:, 1:])
    size = splats.sh.shape[1] - 1
    palette = np.zeros((-(-count // 64) * 64, size, 3), np.uint8)
    palette[:count] = rest_codes
    Image.fromarray(palette.reshape(-1, 64 * size, 3)).save(folder / "shN_centroids.webp", lossless=True)
    label = np.arange(count)
    meta = {
        "version": 2,
        "count": count,
        "means": {
            "mins": mins.tolist(),
            "maxs": maxs.tolist(),
            "files": [image("means_l.webp", (q & 255).astype(np.uint8)), image("means_u.webp", q >> 8)],
        },
        "scales": {"codebook": scale_book, "files": [image("scales.webp", scale_codes)]},
        "quats": {"files": [image("quats.webp", turn)]},
        "sh0": {
            "codebook": dc_book,
            "files": [image("sh0.webp", np.column_stack([dc_codes, np.rint(splats.opacities * 255)]))],
        },
        "shN": {
            "count": count,
            "bands": splats.sh_degree,
            "codebook": rest_book,
            "files": ["shN_centroids.webp", image("shN_labels.webp", np.stack([label & 255, label >> 8], axis=1))],
        },
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder / "meta.json"


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_sog_folder_and_its_archive_give_back_their_gaussians(tmp_path: Path, degree: int) -> None:
    splats = random_splats(5, 300, degree)
    meta = write_sog(tmp_path, splats)
    tolerances = {"means": 1e-4, "logs": 0.02, "opacity": 3e-3, "sh": 0.02, "turn": 1e-3}
    alike(read_splats(meta), splats, **tolerances)
    assert len(splat_files(meta)) == 8
    archive = tmp_path / "cloud.sog"
    with zipfile.ZipFile(archive, "w") as made:
        for path in splat_files(meta):
            made.write(path, path.name)
    alike(read_splats(archive), splats, **tolerances)


def test_a_sog_folder_that_lacks_an_image_or_names_one_elsewhere_is_refused(tmp_path: Path) -> None:
    meta = write_sog(tmp_path, random_splats(5, 30, 1))
    text = meta.read_text()
    meta.write_text(text.replace("sh0.webp", "../sh0.webp"))
    with pytest.raises(AssetError, match="outside its folder"):
        read_splats(meta)
    meta.write_text(text)
    (tmp_path / "quats.webp").unlink()
    with pytest.raises(AssetError, match=r"quats\.webp is missing beside it"):
        read_splats(meta)


def pack_spz(splats: Splats, version: int) -> bytes:
    count = len(splats)
    fixed = np.rint(splats.means * 4096).astype(np.int64) & 0xFFFFFF
    positions = np.stack([fixed >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
    xyzw = splats.quats[:, [1, 2, 3, 0]]
    if version == 2:
        xyz = xyzw[:, :3] * np.where(xyzw[:, 3:] < 0, -1, 1)
        turn = np.rint((xyz + 1) * 127.5).astype(np.uint8).tobytes()
    else:
        small, largest = smallest_three(xyzw)
        word = largest.astype(np.uint32)
        for k in range(3):  # the first component goes to the highest bits
            magnitude = np.rint(np.abs(small[:, k]) * SQRT2 * 511).astype(np.uint32)
            word = word << 10 | (small[:, k] < 0).astype(np.uint32) << 9 | magnitude
        turn = word.astype("<u4").tobytes()
    parts = [
        struct.pack("<IIIBBBB", 0x5053474E, version, count, splats.sh_degree, 12, 0, 0),
        positions.tobytes(),
        np.rint(splats.opacities * 255).astype(np.uint8).tobytes(),
        np.clip(np.rint((splats.sh[:, 0] * 0.15 + 0.5) * 255), 0, 255).astype(np.uint8).tobytes(),
        np.rint((np.log(splats.scales) + 10) * 16).astype(np.uint8).tobytes(),
        turn,
        np.clip(np.rint(splats.sh[:, 1:] * 128 + 128), 0, 255).astype(np.uint8).tobytes(),
    ]
    return b"".join(parts)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("degree", [0, 3])
def test_an_spz_file_gives_back_its_gaussians(tmp_path: Path, version: int, degree: int) -> None:
    splats = random_splats(6, 200, degree)
    splats.sh[:, 1:] = np.clip(splats.sh[:, 1:], -0.99, 0.99)
    content = pack_spz(splats, version)
    path = tmp_path / "cloud.spz"
    path.write_bytes(gzip.compress(content))
    alike(read_splats(path), splats, means=2e-4, logs=0.032, opacity=3e-3, sh=0.02, turn=2e-2 if version == 2 else 1e-5)
    path.write_bytes(gzip.compress(content[:-50]))
    with pytest.raises(AssetError, match="is cut off"):
        read_splats(path)


@pytest.mark.parametrize("up", ["x", "-x", "y", "-y", "z", "-z"])
def test_the_axis_that_points_up_becomes_z_without_mirroring(up: Any) -> None:
    T = z_up_from(up)
    axis = np.eye(3)["xyz".index(up[-1])] * (-1 if up[0] == "-" else 1)
    np.testing.assert_array_equal(T[:3, :3] @ axis, (0, 0, 1))
    assert np.linalg.det(T) == pytest.approx(1)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3))
