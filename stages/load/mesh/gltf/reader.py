"""glTF 2.0 (.gltf, .glb): one part per node with a mesh, its primitives joined as materials of that part.

Written against the Khronos glTF 2.0 specification: metres, y up, base colour factors linear, textures sRGB,
texture coordinates with v downwards. Scenes are shown at rest: animations don't run, joints and morph targets stand
where the file puts them. What is read and what is not: `gltf_support`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nimbusd.stages.load.mesh.gltf.document import Document, normalized
from nimbusd.stages.load.mesh.gltf.primitive import Primitive, Primitives
from nimbusd.stages.load.mesh.gltf.support import Json
from nimbusd.stages.load.mesh.part import MeshPart, check_parts
from nimbusd.stages.load.mesh.surface import Surface, joined
from nimbusd.stages.types import F64


def read_gltf(path: Path) -> list[MeshPart]:
    """The nodes of the default scene that have meshes, an instanced one once for each instance.

    Raises AssetError for a torn or incomplete file, and for required extensions that are not supported.
    """
    document = Document(path)
    try:
        parts = _Nodes(document).parts()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise document.torn(f"it refers to something that is not there ({error!r})") from error
    return check_parts(parts, path)


class _Nodes:
    """The tree of nodes, with the meshes that were already read."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes: list[Json] = document.json.get("nodes", [])
        self._primitives = Primitives(document)
        self._meshes: dict[tuple[object, ...], list[Primitive]] = {}
        self._poses = self._all_poses()

    def parts(self) -> list[MeshPart]:
        found: list[MeshPart] = []
        pending = list(reversed(self._roots()))
        while pending:
            number = pending.pop()
            node = self._nodes[number]
            if not node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible", True):
                continue
            pending += reversed(node.get("children", []))
            if "mesh" in node:
                found += self._parts_of(number, node)
        return found

    def _parts_of(self, number: int, node: Json) -> list[MeshPart]:
        mesh = self._document.json["meshes"][node["mesh"]]
        primitives = self._mesh(node, mesh)
        name = node.get("name") or mesh.get("name") or f"node {number}"
        if not any(len(primitive.surface.faces) for primitive in primitives):
            return []
        if "skin" in node:
            # A skinned mesh stands where its joints are; its own node's transform does not count (section 3.7.3.3).
            joints = self._joints(self._document.json["skins"][node["skin"]])
            surfaces = [_posed(primitive, joints, self._poses[number]) for primitive in primitives]
            return [joined(name, surfaces, np.eye(4))]
        part = joined(name, [primitive.cut() for primitive in primitives], self._poses[number])
        instancing = node.get("extensions", {}).get("EXT_mesh_gpu_instancing")
        if instancing is None:
            return [part]
        T_node_instance = self._instances(instancing["attributes"])
        return [replace(part, T_file_part=part.T_file_part @ T) for T in T_node_instance]

    def _mesh(self, node: Json, mesh: Json) -> list[Primitive]:
        weights = tuple(float(weight) for weight in node.get("weights") or mesh.get("weights") or ())
        key = (node["mesh"], weights, "skin" in node)
        if key not in self._meshes:
            made = [self._primitives.read(p, weights, is_skinned="skin" in node) for p in mesh["primitives"]]
            self._meshes[key] = [primitive for primitive in made if primitive is not None]
        return self._meshes[key]

    def _roots(self) -> list[int]:
        scenes = self._document.json.get("scenes")
        if scenes:
            return list(scenes[self._document.json.get("scene", 0)].get("nodes", []))
        children = {child for node in self._nodes for child in node.get("children", [])}
        return [number for number in range(len(self._nodes)) if number not in children]

    def _all_poses(self) -> list[F64]:
        """(4, 4) T_file_node of every node, also of those outside the scene, which may be joints."""
        parents = [-1] * len(self._nodes)
        for number, node in enumerate(self._nodes):
            for child in node.get("children", []):
                if child < 0 or parents[child] >= 0:
                    raise self._document.torn(f"node {child} has several parents")
                parents[child] = number
        poses: dict[int, F64] = {-1: np.eye(4)}
        for number in range(len(self._nodes)):
            chain = []
            while number not in poses:
                chain.append(number)
                if len(chain) > len(self._nodes):
                    raise self._document.torn("its nodes form a circle")
                number = parents[number]
            for below in reversed(chain):
                poses[below] = poses[parents[below]] @ _local_transform(self._nodes[below])
        return [poses[number] for number in range(len(self._nodes))]

    def _joints(self, skin: Json) -> F64:
        """(J, 4, 4) from the skinned mesh's frame at bind time to the file's frame."""
        poses = np.array([self._poses[joint] for joint in skin["joints"]])
        if "inverseBindMatrices" not in skin:
            return poses
        inverse = self._document.accessor(skin["inverseBindMatrices"]).astype(np.float64)
        return np.asarray(poses @ inverse[: len(poses)].reshape(-1, 4, 4).transpose(0, 2, 1))

    def _instances(self, attributes: dict[str, int]) -> F64:
        """(N, 4, 4) T_node_instance of EXT_mesh_gpu_instancing."""
        values = {
            name: normalized(self._document.accessor(number)).astype(np.float64)
            for name, number in attributes.items()
            if name in ("TRANSLATION", "ROTATION", "SCALE")
        }
        counts = {self._document.json["accessors"][number]["count"] for number in attributes.values()}
        if len(counts) != 1:
            raise self._document.torn(f"the attributes of an instanced mesh have {sorted(counts)} values")
        (count,) = counts
        shift = values.get("TRANSLATION", np.zeros((count, 3)))
        turn = values.get("ROTATION", np.tile([0.0, 0, 0, 1], (count, 1)))
        scale = values.get("SCALE", np.ones((count, 3)))
        made = [_transform(*row) for row in zip(shift, turn, scale, strict=True)]
        return np.array(made).reshape(-1, 4, 4)


def _posed(primitive: Primitive, joints: F64, T_file_node: F64) -> Surface:
    """The surface in the file's frame, each vertex where its joints take it."""
    surface, skinning = primitive.surface, primitive.skinning
    points = np.concatenate([surface.vertices.astype(np.float64), np.ones((len(surface.vertices), 1))], axis=1)
    if skinning is None:
        moved = (points @ T_file_node.T)[:, :3]
    else:
        moved = np.zeros((len(points), 3))
        for joint, weight in zip(skinning.joints.T, skinning.weights.T, strict=True):
            moved += weight[:, None] * np.einsum("vij,vj->vi", joints[joint], points)[:, :3]
    return replace(primitive, surface=replace(surface, vertices=moved.astype(np.float32))).cut()


def _local_transform(node: Json) -> F64:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    shift, turn = node.get("translation", (0, 0, 0)), node.get("rotation", (0, 0, 0, 1))
    return _transform(np.array(shift, np.float64), np.array(turn, np.float64), np.array(node.get("scale", (1, 1, 1))))


def _transform(shift: F64, turn: F64, scale: F64) -> F64:
    """(4, 4) that scales (3,), turns by a quaternion x, y, z, w and shifts (3,)."""
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(turn).as_matrix() * scale
    T[:3, 3] = shift
    return T
