"""Small glTF files for tests, written value by value: no exporter decides what is in them."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}

Values = npt.ArrayLike


class GltfFile:
    """A document under construction: `json` is written as it stands, with one buffer behind it."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "bufferViews": [], "accessors": []}
        self.blob = bytearray()

    def view(self, content: bytes, **more: Any) -> int:
        """A buffer view of these bytes, at a multiple of four."""
        self.blob += b"\0" * (-len(self.blob) % 4)
        view = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(content), **more}
        self.blob += content
        return self._append("bufferViews", view)

    def array(self, values: Values, dtype: str = "f4", *, stride: int = 0, **more: Any) -> int:
        """An accessor of (N, width) or (N,) values; stride: bytes from row to row, 0 for packed."""
        rows = np.asarray(values, f"<{dtype}")
        rows = rows.reshape(len(rows), -1)
        content = rows.tobytes()
        if stride:
            padded = np.zeros((len(rows), stride), np.uint8)
            padded[:, : rows.itemsize * rows.shape[1]] = np.frombuffer(content, np.uint8).reshape(len(rows), -1)
            content = padded.tobytes()
        view = self.view(content, **({"byteStride": stride} if stride else {}))
        return self.accessor(len(rows), rows.shape[1], dtype, bufferView=view, **more)

    def accessor(self, count: int, width: int, dtype: str = "f4", **more: Any) -> int:
        entry = {"componentType": COMPONENTS[dtype], "count": count, "type": _KINDS[width], **more}
        return self._append("accessors", entry)

    def add(self, key: str, **entry: Any) -> int:
        """An entry of one of the document's lists; its number."""
        return self._append(key, entry)

    def picture(self, pixels: npt.NDArray[np.uint8], form: str = "PNG", **texture: Any) -> int:
        """A texture of these pixels, (H, W, 3 or 4), inside the file."""
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, form, **({"lossless": True} if form == "WEBP" else {}))
        kind = f"image/{form.lower()}"
        image = self.add("images", bufferView=self.view(stream.getvalue()), mimeType=kind)
        return self.add("textures", **(texture or {"source": image}))

    def mesh(self, vertices: Values, faces: Values, **primitive: Any) -> int:
        """A mesh of one primitive; more attributes in `attributes`."""
        attributes = {"POSITION": self.array(vertices), **primitive.pop("attributes", {})}
        indices = self.array(np.ravel(faces), "u4")
        return self.add("meshes", primitives=[{"attributes": attributes, "indices": indices, **primitive}])

    def node(self, **entry: Any) -> int:
        """A node at the root of the scene."""
        number = self.add("nodes", **entry)
        self.json.setdefault("scenes", [{"nodes": []}])[0]["nodes"].append(number)
        return number

    def extension(self, name: str, *, required: bool = True) -> None:
        """List an extension as used, and as required."""
        for key in ("extensionsUsed", *(["extensionsRequired"] if required else [])):
            self.json[key] = [*self.json.get(key, []), name]

    def save(self, path: Path) -> Path:
        """Write a .glb, or a .gltf with its buffer as a data URI."""
        document = {key: value for key, value in self.json.items() if value != []}
        first: dict[str, Any] = {"byteLength": len(self.blob)}
        if path.suffix == ".gltf":
            first["uri"] = "data:application/octet-stream;base64," + base64.b64encode(self.blob).decode()
        document["buffers"] = [first, *self.json.get("buffers", [])]
        text = json.dumps(document).encode()
        if path.suffix == ".gltf":
            path.write_bytes(text)
            return path
        text += b" " * (-len(text) % 4)
        blob = bytes(self.blob) + b"\0" * (-len(self.blob) % 4)
        whole = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(blob))
        whole += struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
        path.write_bytes(whole)
        return path

    def _append(self, key: str, entry: dict[str, Any]) -> int:
        self.json.setdefault(key, []).append(entry)
        return len(self.json[key]) - 1
