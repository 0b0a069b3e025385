"""Mesh files written from scenes, without any library: what a reader gets is then known to the bit."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages.types import F64, SceneObject

Y_UP_FROM_Z_UP: F64 = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float64)


def write_gltf(
    path: Path,
    objects: Iterable[SceneObject],
    *,
    node_shift: Iterable[float] = (0.0, 0.0, 0.0),
    vertex_shift: Iterable[float] = (0.0, 0.0, 0.0),
    apart: Mapping[str, Iterable[float]] | None = None,
    named: bool = True,
) -> Path:
    """A .gltf (y up) with a node per object. Shifts are in the world's frame (z up).

    node_shift: added to every node's translation. vertex_shift: added to the 32-bit vertices. apart: object name → a
    shift of its node alone.
    """
    nodes, meshes, accessors, views, blob = [], [], [], [], b""
    turn = Y_UP_FROM_Z_UP[:3, :3]
    for number, obj in enumerate(objects):
        points = (obj.world_vertices() + np.array(tuple(vertex_shift))) @ turn.T
        shift = np.array(tuple(node_shift)) + np.array(tuple((apart or {}).get(obj.name, (0.0, 0.0, 0.0))))
        for content, kind, target in (
            (points.astype("<f4"), {"componentType": 5126, "type": "VEC3"}, 34962),
            (obj.faces.astype("<u4").reshape(-1, 1), {"componentType": 5125, "type": "SCALAR"}, 34963),
        ):
            views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": content.nbytes, "target": target})
            accessors.append(
                {
                    "bufferView": len(views) - 1,
                    "count": len(content),
                    **kind,
                    "min": content.min(axis=0).tolist(),
                    "max": content.max(axis=0).tolist(),
                }
            )
            blob += content.tobytes()
        meshes.append({"primitives": [{"attributes": {"POSITION": 2 * number}, "indices": 2 * number + 1}]})
        name = obj.name if named else f"mesh_{number:03d}"
        nodes.append({"name": name, "mesh": number, "translation": (turn @ shift).tolist()})
    document: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": meshes,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [
            {"byteLength": len(blob), "uri": "data:application/octet-stream;base64," + base64.b64encode(blob).decode()}
        ],
    }
    path.write_text(json.dumps(document))
    return path


def write_obj_file(path: Path, objects: Iterable[SceneObject], shift: Iterable[float] = (0.0, 0.0, 0.0)) -> Path:
    """An .obj, z up, with all digits of a float64; `shift` is added to every vertex."""
    lines, first = [], 1
    for obj in objects:
        lines.append(f"o {obj.name}")
        lines += [f"v {x!r} {y!r} {z!r}" for x, y, z in (obj.world_vertices() + np.array(tuple(shift))).tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (obj.faces + first).tolist()]
        first += len(obj.vertices)
    path.write_text("\n".join(lines) + "\n")
    return path
