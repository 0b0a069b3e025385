"""A glTF file as its JSON, arrays and pictures: containers, buffers, accessors, and their compressed forms."""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.gltf.support import Json, check_extensions, is_decoded_here
from nimbusd.stages.load.mesh.part import read_image
from nimbusd.stages.types import U8

_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_SHAPES = {"SCALAR": (1, 1), "VEC2": (1, 2), "VEC3": (1, 3), "VEC4": (1, 4), "MAT2": (2, 2), "MAT3": (3, 3)} | {
    "MAT4": (4, 4)
}  # columns and rows
_MOST_ZEROS = 2**24
"""Values that an accessor may have without a byte in the file to show for them."""
_MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")


class Document:
    """A parsed file. Buffers, views and pictures are read when they are first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.json, self._binary = split_gltf(path)
        check_extensions(self.json, path)
        self._buffers: dict[int, bytes] = {}
        self._unpacked: dict[int, bytes] = {}
        self._pictures: dict[int, tuple[U8, U8 | None]] = {}

    def torn(self, what: str) -> AssetError:
        return AssetError(f"mesh file {self.path} is torn: {what}. Export or copy it again.")

    def accessor(self, number: int) -> npt.NDArray[Any]:
        """(count, width) array; normalized integers as floats in -1…1 or 0…1, matrices column by column."""
        entry = self.json["accessors"][number]
        count, width = entry["count"], int(np.prod(_SHAPES[entry["type"]]))
        dtype = np.dtype(_DTYPES[entry["componentType"]]).newbyteorder("<")
        if "bufferView" in entry:
            values = self._packed(entry["bufferView"], entry.get("byteOffset", 0), dtype, count, entry["type"])
        elif not 0 <= count <= _MOST_ZEROS:
            raise self.torn(f"accessor {number} has {count} values and no buffer view")
        else:
            values = np.zeros((count, width), dtype)
        if "sparse" in entry:
            where, what = entry["sparse"]["indices"], entry["sparse"]["values"]
            replaced = entry["sparse"]["count"]
            kind = np.dtype(_DTYPES[where["componentType"]]).newbyteorder("<")
            rows = self._packed(where["bufferView"], where.get("byteOffset", 0), kind, replaced, "SCALAR")[:, 0]
            if replaced and rows.max() >= count:
                raise self.torn(f"sparse accessor {number} replaces value {rows.max()} of {count}")
            values = values.copy()
            values[rows] = self._packed(what["bufferView"], what.get("byteOffset", 0), dtype, replaced, entry["type"])
        return normalized(values) if entry.get("normalized") else values

    def view(self, number: int) -> tuple[bytes, int]:
        """Bytes of a buffer view, unpacked where it is compressed, and its stride (0: packed)."""
        entry = self.json["bufferViews"][number]
        packed = next((entry["extensions"][name] for name in _MESHOPT if name in entry.get("extensions", {})), None)
        if packed is not None and is_decoded_here(_MESHOPT[0]):
            if number not in self._unpacked:
                self._unpacked[number] = self._unpack(number, packed)
            return self._unpacked[number], entry.get("byteStride", 0)
        return self._slice(entry, f"buffer view {number}"), entry.get("byteStride", 0)

    def draco(self, extension: Json) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]:
        """Indices (N,) and attributes by name, (V, width) each, of a primitive packed by Draco."""
        import DracoPy

        blob, _ = self.view(extension["bufferView"])
        try:
            mesh = DracoPy.decode(blob)
            found = {
                name: np.asarray(mesh.get_attribute_by_unique_id(number)["data"]).reshape(len(mesh.points), -1)
                for name, number in extension["attributes"].items()
            }
            return np.asarray(mesh.faces, np.int64).ravel(), found
        except Exception as error:
            raise self.torn(f"a primitive packed by Draco does not decode ({error!r})") from error

    def picture(self, number: int) -> tuple[U8, U8 | None]:
        """Pixels (H, W, 3) and alpha (H, W) of image `number`."""
        if number not in self._pictures:
            entry = self.json["images"][number]
            name = f"{number} of {self.path}"
            if "bufferView" in entry:
                found = read_image(io.BytesIO(self.view(entry["bufferView"])[0]), name)
            elif entry["uri"].startswith("data:"):
                found = read_image(io.BytesIO(self._inline(entry["uri"])), name)
            else:
                file = self.path.parent / unquote(entry["uri"])
                found = read_image(file, f"{file} (named by {self.path})")
            self._pictures[number] = found
        return self._pictures[number]

    def _packed(self, view: int, offset: int, dtype: np.dtype[Any], count: int, kind: str) -> npt.NDArray[Any]:
        columns, rows = _SHAPES[kind]
        blob, stride = self.view(view)
        # Each column of a matrix starts at a multiple of four bytes.
        column = dtype.itemsize * rows if columns == 1 else -(-dtype.itemsize * rows // 4) * 4
        stride = stride or column * columns
        if not count:
            return np.zeros((0, columns * rows), dtype)
        if count < 0 or offset < 0 or offset + stride * (count - 1) + column * columns > len(blob):
            raise self.torn(f"an accessor reads past buffer view {view}")
        values: npt.NDArray[Any] = np.ndarray(
            (count, columns, rows), dtype, blob, offset, (stride, column, dtype.itemsize)
        )
        return values.reshape(count, columns * rows)

    def _slice(self, entry: Json, name: str) -> bytes:
        start, length = entry.get("byteOffset", 0), entry["byteLength"]
        blob = self._buffer(entry["buffer"])[start : start + length]
        if len(blob) < length:
            raise self.torn(f"{name} ends past its buffer")
        return blob

    def _unpack(self, number: int, packed: Json) -> bytes:
        import meshopt

        blob = self._slice(packed, f"packed buffer view {number}")
        if packed["count"] * packed["byteStride"] != self.json["bufferViews"][number]["byteLength"]:
            raise self.torn(f"buffer view {number}, packed by meshopt, unpacks to another length than it has")
        try:
            values = meshopt.decode_gltf_buffer(
                blob, packed["count"], packed["byteStride"], packed["mode"], packed.get("filter", "NONE")
            )
        except (RuntimeError, ValueError) as error:
            raise self.torn(f"buffer view {number}, packed by meshopt, does not decode ({error})") from error
        return np.ascontiguousarray(values).tobytes()

    def _buffer(self, number: int) -> bytes:
        if number not in self._buffers:
            entry = self.json["buffers"][number]
            uri = entry.get("uri")
            if uri is None:
                blob = self._binary
            elif uri.startswith("data:"):
                blob = self._inline(uri)
            else:
                file = self.path.parent / unquote(uri)
                if not file.is_file():
                    raise AssetError(
                        f"buffer {file} is missing; mesh file {self.path} names it. Copy it to that place."
                    )
                blob = file.read_bytes()
            if len(blob) < entry["byteLength"]:
                raise self.torn(f"buffer {number} has {len(blob)} of {entry['byteLength']} bytes")
            self._buffers[number] = blob
        return self._buffers[number]

    def _inline(self, uri: str) -> bytes:
        try:
            return base64.b64decode(uri.split(",", 1)[1], validate=True)
        except (binascii.Error, IndexError) as error:
            raise self.torn("a data URI does not decode") from error


def normalized(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers as float32 in 0…1, signed ones in -1…1 (glTF 2.0, section 3.6.2.2); floats as they are."""
    if values.dtype.kind == "f":
        return values
    bits = 8 * values.dtype.itemsize - (values.dtype.kind == "i")
    return np.asarray(np.maximum(values.astype(np.float32) / (2**bits - 1), -1.0))


def split_gltf(path: Path) -> tuple[Json, bytes]:
    """JSON and binary chunk of a .glb, or the JSON of a .gltf. Raises AssetError for what is neither."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise AssetError(f"mesh file {path} cannot be read: {error.strerror or error}.") from error
    torn = f"mesh file {path} is torn or not a glTF 2.0 file: {{}}. Export or copy it again."
    text, binary = blob, b""
    if path.suffix.lower() == ".glb":
        if len(blob) < 20 or blob[:4] != b"glTF":
            raise AssetError(torn.format("its header is not that of a .glb"))
        _, version, length = struct.unpack("<4sII", blob[:12])
        if version != 2 or length > len(blob):
            raise AssetError(torn.format(f"version {version}, {len(blob)} of {length} bytes"))
        size = struct.unpack("<I", blob[12:16])[0]
        text, binary = blob[20 : 20 + size], blob[28 + size :]
    try:
        document = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AssetError(torn.format(str(error))) from error
    if not isinstance(document, dict) or not isinstance(document.get("asset"), dict):
        raise AssetError(torn.format("it has no `asset`"))
    version = str(document["asset"].get("version", "2.0"))
    if not version.startswith("2."):
        raise AssetError(f"mesh file {path} is glTF {version}; version 2 is read. Convert it, or export it again.")
    return cast(Json, document), binary


def gltf_references(path: Path) -> list[Path]:
    """Buffers and pictures in files of their own."""
    document, _ = split_gltf(path)
    uris = [entry.get("uri") for key in ("buffers", "images") for entry in document.get(key, [])]
    return [path.parent / unquote(uri) for uri in uris if uri and not uri.startswith("data:")]
